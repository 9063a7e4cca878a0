# What the rules share: the configuration, and functions that turn wildcards into files and settings.
# Snakemake merges a --configfile into a `configfile:`; here it replaces config.yaml, so gyri reads the file itself.
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from gyri import settings as choose
from gyri.config.load import load_config
from gyri.dataset import sources
from gyri.environment import apptainer_environment, environments
from gyri.errors import GyriError
from gyri.fingerprint import code_fingerprint
from gyri.io import canonical_json
from gyri.layout import Layout
from gyri.provenance import tell_jobs

LAYOUT = Layout(Path("results"))
IMAGES = {"torch": "containers/torch.sif", "tables": "containers/tables.sif"}
CONTAINERS = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method

# jobs use the Python that runs snakemake, also where its environment was not activated
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))

# what Slurm tells a job but not the job steps in it is handed on: when the allocation ends, and how often the job was requeued
os.environ.update(
    {f"GYRI_{name}": os.environ[f"SLURM_{name}"] for name in ("JOB_END_TIME", "RESTART_COUNT") if f"SLURM_{name}" in os.environ}
)
# provenance names the commit and the call; git need not be where jobs run
tell_jobs(["snakemake", *sys.argv[1:]])
if CONTAINERS:
    os.environ.update(apptainer_environment())


def read_environments():
    """By image, what its jobs run in: its content, or without containers the virtual environment. Nothing is asked of the image itself."""
    try:
        return environments(IMAGES, CONTAINERS)
    except GyriError as error:
        raise WorkflowError(str(error)) from None


ENVIRONMENTS = read_environments()


def environment_of(stage):
    """What a stage's jobs run in: a new image makes exactly the jobs of that image run again."""
    return ENVIRONMENTS["torch" if stage in ("train", "predict-fold", "explain") else "tables"]


def read_configuration():
    files = [str(path) for path in workflow.overwrite_configfiles] or ["config.yaml"]
    if len(files) > 1:
        raise WorkflowError(f"gyri reads one configuration, and it replaces config.yaml; got {', '.join(files)}")
    try:
        return load_config(Path(files[0])), files[0]
    except GyriError as error:
        raise WorkflowError(str(error)) from None


CONFIG, CONFIGURATION = read_configuration()
SYNTHETIC = [name for name, dataset in CONFIG.datasets.items() if dataset.format == "synthetic"]
MODELS = sorted({model for experiment in CONFIG.experiments for model in choose.models(CONFIG, experiment)})


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    experiment="|".join(CONFIG.experiments),
    model="|".join(MODELS),
    ensemble=r"ensemble\.[A-Za-z0-9_.]+",
    fold=r"\d+",
    seed=r"\d+",


def stage_settings(stage, wildcards):
    """The settings of a job, as its sub-command reads them."""
    match stage:
        case "synthetic" | "dataset":
            return choose.read_settings(CONFIG, wildcards.dataset)
        case "train":
            return choose.train_settings(CONFIG, wildcards.experiment, wildcards.model)
        case "predict-fold":
            return choose.predict_settings(CONFIG, wildcards.experiment, wildcards.model)
        case "explain":
            return choose.explain_settings(CONFIG, wildcards.experiment, wildcards.model)
        case "ensemble":
            return choose.ensemble_settings(CONFIG, wildcards.experiment, wildcards.ensemble)
        case "evaluate" | "report":
            return getattr(choose, f"{stage}_settings")(CONFIG, wildcards.experiment)
        case "index":
            return choose.index_settings(CONFIG)
        case _:
            return getattr(choose, f"{stage}_settings")(CONFIG, wildcards.dataset)


@cache
def fingerprint_of(modules):
    return code_fingerprint(modules)


def job(stage):
    """The params of a rule: everything that makes its jobs run again, each as one plain string."""

    def settings(wildcards):
        return canonical_json(stage_settings(stage, wildcards).model_dump(mode="json"))

    def code(wildcards):
        return fingerprint_of(tuple(choose.stage_modules(stage, stage_settings(stage, wildcards))))

    return {"settings": settings, "code": code, "environment": environment_of(stage)}


@cache
def listed_sources(dataset):
    try:
        return [str(path) for path in sources(choose.read_settings(CONFIG, dataset), LAYOUT, dataset)]
    except GyriError as error:
        raise WorkflowError(str(error)) from None


def raw_files(wildcards):
    if wildcards.dataset in SYNTHETIC:
        return [f"results/datasets/{wildcards.dataset}/synthetic.tsv"]
    return listed_sources(wildcards.dataset)


def urgency(wildcards):
    """Networks before baselines, those with a value for each voxel first, and all before what is short: no core waits at the end for a long training."""
    if choose.is_baseline(CONFIG, wildcards.experiment, wildcards.model):
        return 1
    return 3 if CONFIG.experiments[wildcards.experiment].task == "segmentation" else 2


def measuring_threads(wildcards):
    """Label maps are measured in several processes, everything else in one."""
    return CONFIG.threads.evaluate if CONFIG.experiments[wildcards.experiment].task == "segmentation" else 1


def dataset_of(wildcards):
    return CONFIG.experiments[wildcards.experiment].dataset


def folds_of(experiment):
    return choose.run_folds(CONFIG.datasets[CONFIG.experiments[experiment].dataset])


def dataset_file(name):
    return lambda wildcards: f"results/datasets/{dataset_of(wildcards)}/{name}"


def fold_file(name):
    return lambda wildcards: f"results/datasets/{dataset_of(wildcards)}/fold-{wildcards.fold}/{name}"


def split_files(wildcards):
    file = CONFIG.datasets[wildcards.dataset].split.file
    return [file] if file else []


def run_files(name):
    """This file of every fold and seed of every model of an experiment."""

    def files(wildcards):
        counts = choose.models(CONFIG, wildcards.experiment)
        return [
            f"results/{wildcards.experiment}/{model}/fold-{fold}/seed-{seed}/{name}"
            for model, seeds in counts.items()
            for fold in folds_of(wildcards.experiment)
            for seed in range(seeds)
        ]

    return files


def first_seeds(name):
    """This file of the first seed of a model, of every fold."""

    def files(wildcards):
        root = f"results/{wildcards.experiment}/{wildcards.model}"
        return [f"{root}/fold-{fold}/seed-0/{name}" for fold in folds_of(wildcards.experiment)]

    return files


def ensemble_files(name):
    """This file of every fold of every ensemble of an experiment."""

    def files(wildcards):
        return [
            f"results/{wildcards.experiment}/{ensemble}/fold-{fold}/seed-all/{name}"
            for ensemble in choose.ensembles(CONFIG, wildcards.experiment)
            for fold in folds_of(wildcards.experiment)
        ]

    return files


def explained_files(name):
    """This file of every network of an experiment that gets saliency maps."""

    def files(wildcards):
        return [
            f"results/{wildcards.experiment}/{model}/saliency/{name}" for model in choose.explained(CONFIG, wildcards.experiment)
        ]

    return files


def member_files(name):
    """This file of every member of an ensemble in one fold."""

    def files(wildcards):
        members = choose.ensemble_settings(CONFIG, wildcards.experiment, wildcards.ensemble).members
        return [f"results/{wildcards.experiment}/{model}/fold-{wildcards.fold}/seed-{seed}/{name}" for model, seed in members]

    return files


def locked_files(name):
    """This file of every member of an ensemble over folds, of the locked participants."""

    def files(wildcards):
        members = choose.ensemble_settings(CONFIG, wildcards.experiment, wildcards.ensemble).members
        folds = folds_of(wildcards.experiment)
        root = f"results/{wildcards.experiment}/locked"
        return [f"{root}/{model}/fold-{fold}/seed-{seed}/{name}" for model, seed in members for fold in folds]

    return files


def at_locked(path):
    """Where the locked participants' counterpart of a run's file lies."""
    results, experiment, rest = path.split("/", 2)
    return f"{results}/{experiment}/locked/{rest}"


def locked_averages(wildcards):
    """Predictions of the locked participants averaged over folds, of every model."""
    root = f"results/{wildcards.experiment}/locked"
    return [
        f"{root}/ensemble.folds.{model}/fold-all/seed-all/predictions.tsv" for model in choose.models(CONFIG, wildcards.experiment)
    ]
