"""How each stage is called: where its settings come from, which files it reads, where its provenance goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gyri.catalogue import catalogue
from gyri.config.base import Settings
from gyri.environment import describe_job, environment_fingerprint, image_name, verify_environment
from gyri.errors import ConfigError, DataError, Problem, nearest
from gyri.fingerprint import code_fingerprint, verify_code
from gyri.io import canonical_json, sha256_text
from gyri.layout import Layout

if TYPE_CHECKING:
    from gyri.config.load import Config

Options = argparse.Namespace
Kind = TypeVar("Kind", bound=Settings)
Result = dict[str, Any]

COHORT = ("cohort.tsv", "dataset.json")
SAY_WHERE = ("train", "predict-fold", "explain")  # stages whose log begins with machine and versions on every machine

OPTIONS: dict[str, dict[str, Any]] = {
    "dataset": {"required": True, "help": "name of the dataset"},
    "experiment": {"required": True, "help": "name of the experiment"},
    "model": {"required": True, "help": "name of the model"},
    "ensemble": {"required": True, "help": "name of the ensemble"},
    "fold": {"required": True, "help": "number of the fold (`all` for ensembles over folds on the locked set)"},
    "seed": {"type": int, "default": 0, "help": "seed index (default: 0)"},
    "locked": {"action": "store_true", "help": "work on the locked participants; every evaluation of them is counted"},
    "runtime": {
        "type": float,
        "default": 0.0,
        "help": "minutes this job may run; a checkpoint is made before they end (0: not known)",
    },
    "versions": {"choices": ("strict", "warn"), "help": "what other versions than the locked ones do (default: as configured)"},
    "predictions": {"type": Path, "nargs": "+", "help": "predictions.tsv of every model, fold and seed (default: all found)"},
}


@dataclass(frozen=True)
class Stage:
    """One sub-command.

    Args:
        help: one line.
        options: names of `OPTIONS` it takes.
        action: what it does.
    """

    help: str
    options: tuple[str, ...]
    action: Callable[[Options], None]


def _settings(options: Options, kind: type[Kind], choose: Callable[[Config], Kind]) -> Kind:
    """The stage's settings: from --settings, else chosen out of the configuration."""
    if options.settings is not None:
        from pydantic import ValidationError

        try:
            return kind.model_validate_json(options.settings)
        except ValidationError as error:
            got = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            remedy = "pass what the workflow passes, or use --config"
            raise ConfigError(Problem("--settings", got, f"JSON of {kind.__name__}", remedy)) from error
    from gyri.config.load import load_config

    config = load_config(options.config)
    for option, known in (("dataset", config.datasets), ("experiment", config.experiments)):
        name = getattr(options, option, None)
        if name is not None and name not in known:
            where = f"--{option}"
            raise ConfigError(Problem(where, f"`{name}`", f"{option} of {options.config}", nearest(name, known)))
    try:
        return choose(config)
    except KeyError as error:
        raise ConfigError(
            Problem("--model or --ensemble", str(error), f"a name that {options.config} gives this experiment", "check the name")
        ) from error


def _check_threads(options: Options, wanted: int) -> None:
    """Refuse to compute with fewer threads than the settings say: sums in another order are other bytes."""
    granted = min(options.threads or wanted, len(os.sched_getaffinity(0)))
    if granted < wanted:
        remedy = f"give snakemake at least {wanted} cores, or lower `threads` in the configuration (results then change in their last digits)"
        raise ConfigError(Problem(f"threads of {options.stage}", str(granted), f"{wanted}, as the configuration says", remedy))


def _versions(options: Options) -> Literal["strict", "warn"]:
    """What a difference of versions does: from --versions, else from the configuration, else it stops the job."""
    if options.versions is not None or options.settings is not None:
        return options.versions or "strict"
    from gyri.config.load import load_config

    return load_config(options.config).versions


def _record(
    options: Options, settings: Settings, provenance: Path, inputs: list[Path], names: Result, run: Callable[[str], Result]
) -> None:
    """Check the code, run the stage, write its provenance.

    Args:
        options: the command line.
        settings: the stage's settings.
        provenance: where to write.
        inputs: files that must be there before.
        names: dataset, experiment, model, fold, seed as far as the stage has them.
        run: the stage, given the fingerprint of settings, code and environment.
    """
    from gyri.config.saliency import ExplainSettings
    from gyri.config.training import PredictSettings, TrainSettings
    from gyri.progress import log
    from gyri.provenance import recorded
    from gyri.settings import stage_modules

    if options.stage in SAY_WHERE or "SLURM_JOB_ID" in os.environ or image_name() is not None:
        log("\n".join(describe_job()))
    if isinstance(settings, TrainSettings | PredictSettings | ExplainSettings) and catalogue()[settings.network].trained:
        _check_node(options.results)
    missing = [path for path in inputs if not path.is_file()]
    if missing:
        remedy = "run the earlier stages first (snakemake does it for you)"
        raise DataError([Problem(str(path), "no such file", f"what {options.stage} reads", remedy) for path in missing])
    text = canonical_json(settings.model_dump(mode="json"))
    modules = stage_modules(options.stage, settings)
    if options.environment:
        verify_environment(options.environment)
    environment = options.environment or environment_fingerprint()
    code = options.code or code_fingerprint(modules)
    job = {"stage": options.stage, "settings": settings.model_dump(mode="json"), "code": code, "environment": environment, **names}
    with recorded(provenance, job, inputs) as facts:
        facts.update(run(sha256_text(text, code, environment)))
        verify_code(modules, code, options.loaded)


def _check_node(results: Path) -> None:
    """What a job on a network looks at before it begins."""
    from gyri.preflight import start_of_job
    from gyri.site import load_site

    start_of_job(results, load_site())


def _cohort(layout: Layout, dataset: str, *more: str) -> list[Path]:
    return [layout.dataset(dataset, name) for name in (*COHORT, *more)]


def _dataset_stage(
    options: Options, kind: type[Settings], choose: str, files: tuple[str, ...], run: Callable[..., Result], *, threaded: bool
) -> None:
    """A stage that works on a whole dataset.

    Args:
        options: the command line.
        kind: type of its settings.
        choose: the function of `gyri.settings` that chooses them out of a configuration.
        files: what it reads below the dataset's folder.
        run: the stage.
        threaded: whether it takes a number of threads.
    """
    layout, name = Layout(options.results), options.dataset
    settings = _settings(options, kind, lambda config: getattr(_chooser(), choose)(config, name))
    inputs = [layout.dataset(name, file) for file in files]
    more = (options.threads or 1,) if threaded else ()
    target = layout.dataset(name, f"provenance-{options.stage}.json")
    _record(options, settings, target, inputs, {"dataset": name}, lambda _: run(settings, layout, name, *more))


def synthetic(options: Options) -> None:
    """Make the synthetic cohort."""
    from gyri.config.datasets import ReadSettings
    from gyri.synthetic import run

    _dataset_stage(options, ReadSettings, "read_settings", (), run, threaded=True)


def dataset(options: Options) -> None:
    """Read the dataset's tables and hash its images."""
    from gyri.config.datasets import ReadSettings
    from gyri.dataset import run

    _dataset_stage(options, ReadSettings, "read_settings", (), run, threaded=True)


def audit(options: Options) -> None:
    """Look at every image and at the cohort before anything is computed."""
    from gyri.audit import run
    from gyri.config.datasets import AuditSettings

    _dataset_stage(options, AuditSettings, "audit_settings", COHORT, run, threaded=True)


def split(options: Options) -> None:
    """Divide the groups into folds."""
    from gyri.config.datasets import SplitSettings
    from gyri.split import run

    _dataset_stage(options, SplitSettings, "split_settings", (*COHORT, "excluded.tsv"), run, threaded=False)


def preprocess(options: Options) -> None:
    """Bring every image to one grid and one intensity scale."""
    from gyri.config.datasets import PreprocessSettings
    from gyri.preprocess import run

    _dataset_stage(options, PreprocessSettings, "preprocess_settings", (*COHORT, "excluded.tsv"), run, threaded=True)


def normalize(options: Options) -> None:
    """Fit the normalization on a fold's training participants."""
    from gyri.config.datasets import NormalizeSettings
    from gyri.normalize import run

    layout, name, fold = Layout(options.results), options.dataset, int(options.fold)
    settings = _settings(options, NormalizeSettings, lambda config: _chooser().normalize_settings(config, name))
    target = layout.fold(name, fold, "provenance-normalize.json")
    inputs = [layout.dataset(name, file) for file in ("splits.tsv", "images.json")]
    _record(options, settings, target, inputs, {"dataset": name, "fold": fold}, lambda _: run(settings, layout, name, fold))


def train(options: Options) -> None:
    """Train or fit one model on one fold with one seed."""
    from gyri.config.training import TrainSettings
    from gyri.provenance import process_age
    from gyri.train import run
    from gyri.train.schedule import allocation_end

    layout, fold, experiment, model = Layout(options.results), int(options.fold), options.experiment, options.model
    settings = _settings(options, TrainSettings, lambda config: _chooser().train_settings(config, experiment, model))
    _check_threads(options, settings.threads)
    target = layout.run(experiment, model, fold, options.seed, "provenance-train.json")
    inputs = _cohort(layout, options.dataset, "splits.tsv", "images.json")
    inputs += [layout.fold(options.dataset, fold, f"normalization.{ending}") for ending in ("json", "safetensors")]
    names = {"dataset": options.dataset, "experiment": experiment, "model": model, "fold": fold, "seed": options.seed}
    job = (layout, options.dataset, experiment, model, fold, options.seed)
    end, versions = allocation_end(options.runtime, process_age(), os.environ), _versions(options)
    _record(options, settings, target, inputs, names, lambda fingerprint: run(settings, *job, fingerprint, end, versions))


def predict(options: Options) -> None:
    """Predict a fold's validation and test participants, or the locked ones."""
    from gyri.config.training import PredictSettings
    from gyri.predict import run

    layout, fold, experiment, model = Layout(options.results), int(options.fold), options.experiment, options.model
    settings = _settings(options, PredictSettings, lambda config: _chooser().predict_settings(config, experiment, model))
    _check_threads(options, settings.threads)
    output = f"{experiment}/locked" if options.locked else experiment
    target = layout.run(output, model, fold, options.seed, "provenance-predict.json")
    inputs = _cohort(layout, options.dataset, "splits.tsv", "images.json")
    inputs += [layout.run(experiment, model, fold, options.seed, file) for file in ("weights.safetensors", "model.json")]
    names = {"dataset": options.dataset, "experiment": experiment, "model": model, "fold": fold, "seed": options.seed}
    roles = ("locked",) if options.locked else ("validation", "test")
    job, versions = (layout, options.dataset, experiment, model, fold, options.seed), _versions(options)
    _record(options, settings, target, inputs, names, lambda _: run(settings, *job, roles=roles, versions=versions))


def explain(options: Options) -> None:
    """Make the saliency maps of one model on the test participants of its folds."""
    from gyri.config.saliency import ExplainSettings
    from gyri.explain import SEED, run

    layout, experiment, model = Layout(options.results), options.experiment, options.model
    settings = _settings(options, ExplainSettings, lambda config: _chooser().explain_settings(config, experiment, model))
    _check_threads(options, settings.threads)
    target = layout.saliency(experiment, model, "provenance-explain.json")
    inputs = _cohort(layout, options.dataset, "splits.tsv", "images.json")
    inputs += [
        layout.run(experiment, model, fold, SEED, file) for fold in settings.folds for file in ("weights.safetensors", "model.json")
    ]
    names = {"dataset": options.dataset, "experiment": experiment, "model": model}
    job, versions = (layout, options.dataset, experiment, model), _versions(options)
    _record(options, settings, target, inputs, names, lambda _: run(settings, *job, versions))


def ensemble(options: Options) -> None:
    """Average the members of one ensemble."""
    from gyri.config.experiments import EnsembleSettings
    from gyri.ensemble import run

    layout, name, fold = Layout(options.results), options.ensemble, options.fold
    settings = _settings(options, EnsembleSettings, lambda config: _chooser().ensemble_settings(config, options.experiment, name))
    output = f"{options.experiment}/locked" if options.locked else options.experiment
    target = layout.run(output, name, fold, "all", "provenance-ensemble.json")
    names = {"dataset": options.dataset, "experiment": options.experiment, "model": name, "fold": fold}
    inputs = _cohort(layout, options.dataset, "images.json")
    _record(options, settings, target, inputs, names, lambda _: run(settings, layout, options.dataset, output, name, fold))


def evaluate(options: Options) -> None:
    """Measure every model of an experiment."""
    from gyri.config.experiments import EvaluateSettings
    from gyri.evaluate import record_locked_read, run

    layout, experiment = Layout(options.results), options.experiment
    settings = _settings(options, EvaluateSettings, lambda config: _chooser().evaluate_settings(config, experiment))
    output = f"{experiment}/locked" if options.locked else experiment
    if options.locked:
        record_locked_read(layout, experiment, settings)
    predictions = sorted(options.predictions or layout.experiment(output).glob("*/fold-*/seed-*/predictions.tsv"))
    target = layout.experiment(output, "provenance-evaluate.json")
    names, threads = {"dataset": options.dataset, "experiment": experiment}, options.threads or 1
    inputs = [*_cohort(layout, options.dataset, "splits.tsv", "images.json"), *predictions]
    if options.locked:
        inputs.append(layout.experiment(experiment, "fitted.tsv"))
    elif (features := layout.dataset(options.dataset, "features.tsv")).is_file():
        inputs.append(features)  # stores of earlier versions have none, which the result then says
    _record(
        options, settings, target, inputs, names, lambda _: run(settings, layout, options.dataset, output, predictions, threads)
    )


def report(options: Options) -> None:
    """Write the page of one experiment."""
    from gyri.config.experiments import ReportSettings
    from gyri.report import run

    layout = Layout(options.results)
    settings = _settings(options, ReportSettings, lambda config: _chooser().report_settings(config, options.experiment))
    target = layout.experiment(options.experiment, "provenance-report.json")
    inputs = [layout.experiment(options.experiment, name) for name in ("metrics.tsv", "cases.tsv", "predictions.tsv")]
    _record(options, settings, target, inputs, {"experiment": options.experiment}, lambda _: run(settings, layout))


def index(options: Options) -> None:
    """Write the index page of all experiments."""
    from gyri.config.experiments import IndexSettings
    from gyri.report import run_index

    layout = Layout(options.results)
    settings = _settings(options, IndexSettings, lambda config: _chooser().index_settings(config))
    inputs = [layout.experiment(item.experiment, "report.json") for item in settings.experiments]
    target = layout.root / "provenance-index.json"
    _record(options, settings, target, inputs, {}, lambda _: run_index(settings.experiments, layout, settings.title))


def _chooser() -> Any:
    """The functions that choose a stage's settings out of a configuration (imported only where they are needed)."""
    from gyri import settings

    return settings


RUN = ("dataset", "experiment", "model", "fold", "seed")
STAGES = {
    "synthetic": Stage("make the synthetic cohort", ("dataset",), synthetic),
    "dataset": Stage("read a dataset's tables and hash its images", ("dataset",), dataset),
    "audit": Stage("look at every image before anything is computed", ("dataset",), audit),
    "split": Stage("divide the groups into folds", ("dataset",), split),
    "preprocess": Stage("bring every image to one grid and intensity scale", ("dataset",), preprocess),
    "normalize": Stage("fit the normalization of a fold on its training participants", ("dataset", "fold"), normalize),
    "train": Stage("train or fit one model on one fold", (*RUN, "runtime", "versions"), train),
    "predict-fold": Stage("predict a fold's validation and test participants", (*RUN, "locked", "versions"), predict),
    "explain": Stage("make the saliency maps of a model", ("dataset", "experiment", "model", "versions"), explain),
    "ensemble": Stage("average the members of an ensemble", ("dataset", "experiment", "ensemble", "fold", "locked"), ensemble),
    "evaluate": Stage("measure every model of an experiment", ("dataset", "experiment", "predictions", "locked"), evaluate),
    "report": Stage("write the page of an experiment", ("experiment",), report),
    "index": Stage("write the index page", (), index),
}
