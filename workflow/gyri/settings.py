"""From the configuration to what each stage is told: the only things that make a job run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gyri.catalogue import catalogue, losses, optimizers
from gyri.config.base import Settings
from gyri.config.datasets import (
    AuditSettings,
    Dataset,
    NeededTarget,
    NormalizeSettings,
    PreprocessSettings,
    ReadSettings,
    SplitSettings,
)
from gyri.config.experiments import EnsembleSettings, EvaluateSettings, Experiment, IndexSettings, ReportSettings
from gyri.config.saliency import ExplainSettings
from gyri.config.training import Augmentation, PredictSettings, Training, TrainSettings

if TYPE_CHECKING:
    from gyri.config.load import Config

LOSSES = {
    "segmentation": "dice_cross_entropy",
    "classification": "cross_entropy",
    "regression": "mean_squared_error",
}
LATER_STAGES = {"audit", "split", "preprocess", "normalize", "folds", "run_folds", "shape"}


def target_column(experiment: Experiment) -> str:
    """The column of the cohort that holds the target; label images are `label` or `label_<name>`."""
    if experiment.task != "segmentation":
        return experiment.target or ""
    return "label" if experiment.target in (None, "label") else f"label_{experiment.target}"


def read_settings(config: Config, dataset: str) -> ReadSettings:
    """Settings of `dataset` (and of making a synthetic cohort)."""
    source = config.datasets[dataset].model_dump(exclude=LATER_STAGES, mode="json")
    return ReadSettings.model_validate({"source": source})


def audit_settings(config: Config, dataset: str) -> AuditSettings:
    """Settings of `audit`: those of the dataset, and the targets that its experiments need."""
    targets = [
        NeededTarget(experiment=name, task=experiment.task, column=target_column(experiment), classes=experiment.classes)
        for name, experiment in config.experiments.items()
        if experiment.dataset == dataset
    ]
    return AuditSettings(audit=config.datasets[dataset].audit, targets=targets)


def split_settings(config: Config, dataset: str) -> SplitSettings:
    """Settings of `split`."""
    return SplitSettings(split=config.datasets[dataset].split, folds=config.datasets[dataset].folds)


def preprocess_settings(config: Config, dataset: str) -> PreprocessSettings:
    """Settings of `preprocess`."""
    source = config.datasets[dataset]
    spacing = getattr(source, "spacing_mm", None)
    return PreprocessSettings(
        preprocess=source.preprocess,
        shape=source.shape,
        volume=getattr(source, "volume", None),
        spacing_mm=spacing if isinstance(spacing, tuple) else None,
    )


def normalize_settings(config: Config, dataset: str) -> NormalizeSettings:
    """Settings of `normalize`."""
    return NormalizeSettings(normalize=config.datasets[dataset].normalize)


def train_settings(config: Config, experiment: str, model: str) -> TrainSettings:
    """Settings of `train` for one model of an experiment."""
    chosen = config.experiments[experiment]
    architecture = chosen.architectures[model]
    training = Training.model_validate({"loss": LOSSES[chosen.task], **_given(chosen.training), **architecture.training})
    augmentation = None
    if architecture.augmentation != "none":
        augmentation = Augmentation.model_validate({**_given(chosen.augmentation), **architecture.augmentation})
    return TrainSettings(
        task=chosen.task,
        target=target_column(chosen),
        classes=chosen.classes,
        network=architecture.network or model,
        arguments=architecture.arguments,
        input=architecture.input,
        training=training,
        augmentation=augmentation,
        seed=config.seed,
        threads=config.threads.train,
    )


def predict_settings(config: Config, experiment: str, model: str) -> PredictSettings:
    """Settings of `predict` for one model of an experiment."""
    chosen = config.experiments[experiment]
    return PredictSettings(
        network=chosen.architectures[model].network or model,
        batch_size=chosen.batch_size_predict,
        mirror=chosen.mirror_predict,
        threads=config.threads.predict,
    )


def explained(config: Config, experiment: str) -> list[str]:
    """Names of the models that get saliency maps: the networks, where maps are asked for and the task has one number to explain."""
    chosen = config.experiments[experiment]
    if chosen.task == "segmentation" or not chosen.saliency.methods:
        return []
    return [name for name in chosen.architectures if not is_baseline(config, experiment, name)]


def explain_settings(config: Config, experiment: str, model: str) -> ExplainSettings:
    """Settings of `explain` for one model of an experiment."""
    chosen = config.experiments[experiment]
    return ExplainSettings(
        network=chosen.architectures[model].network or model,
        task=chosen.task,
        saliency=chosen.saliency,
        folds=run_folds(config.datasets[chosen.dataset]),
        seed=config.seed,
        threads=config.threads.predict,
    )


def _given(settings: Settings) -> dict[str, Any]:
    """The settings that have a value, for others to be laid over them."""
    return {key: value for key, value in settings.model_dump().items() if value is not None}


def is_baseline(config: Config, experiment: str, model: str) -> bool:
    """Whether a model is a baseline: fitted in one go, with one seed."""
    return not catalogue()[config.experiments[experiment].architectures[model].network or model].trained


def models(config: Config, experiment: str) -> dict[str, int]:
    """Number of seeds of each model of an experiment."""
    chosen = config.experiments[experiment]
    return {
        name: 1 if is_baseline(config, experiment, name) else architecture.seeds or chosen.seeds
        for name, architecture in chosen.architectures.items()
    }


def baselines(config: Config, experiment: str) -> list[str]:
    """Names of the models that are baselines."""
    return [name for name in config.experiments[experiment].architectures if is_baseline(config, experiment, name)]


def ensembles(config: Config, experiment: str) -> dict[str, EnsembleSettings]:
    """The ensembles of an experiment, by name."""
    counts = models(config, experiment)
    chosen = config.experiments[experiment]
    wanted = chosen.ensemble
    found = {}
    if wanted.seeds:
        for model, seeds in counts.items():
            if seeds > 1:
                found[f"ensemble.seeds.{model}"] = _ensemble(chosen, [(model, seed) for seed in range(seeds)])
    if wanted.models:
        members = [(model, seed) for model in wanted.models for seed in range(counts[model])]
        found["ensemble.models.mean"] = _ensemble(chosen, members)
    return found


def ensemble_settings(config: Config, experiment: str, name: str) -> EnsembleSettings:
    """Settings of `ensemble`; `ensemble.folds.<model>` averages over folds, which only the locked set allows."""
    if name.startswith("ensemble.folds."):
        model = name.removeprefix("ensemble.folds.")
        chosen = config.experiments[experiment]
        members = [(model, seed) for seed in range(models(config, experiment)[model])]
        folds = run_folds(config.datasets[chosen.dataset])
        return _ensemble(chosen, members).model_copy(update={"folds": folds})
    return ensembles(config, experiment)[name]


def _ensemble(chosen: Experiment, members: list[tuple[str, int]]) -> EnsembleSettings:
    return EnsembleSettings(
        members=members, allow_mixed=chosen.ensemble.allow_mixed, allow_changed_batch=chosen.allow_changed_batch
    )


def run_folds(dataset: Dataset) -> list[int]:
    """The folds to run now."""
    return sorted(set(dataset.run_folds)) if dataset.run_folds is not None else list(range(dataset.folds))


def evaluate_settings(config: Config, experiment: str) -> EvaluateSettings:
    """Settings of `evaluate`."""
    chosen = config.experiments[experiment]
    return EvaluateSettings(
        task=chosen.task,
        target=target_column(chosen),
        classes=chosen.classes,
        evaluation=chosen.evaluation,
        baselines=baselines(config, experiment),
        ensembles={name: sorted({model for model, _ in item.members}) for name, item in ensembles(config, experiment).items()},
        allow_changed_batch=chosen.allow_changed_batch,
    )


def report_settings(config: Config, experiment: str) -> ReportSettings:
    """Settings of `report` for one experiment."""
    chosen = config.experiments[experiment]
    dataset = config.datasets[chosen.dataset]
    return ReportSettings(
        title=config.title,
        experiment=experiment,
        dataset=chosen.dataset,
        folds=dataset.folds,
        run_folds=run_folds(dataset),
        models=models(config, experiment),
        ensembles={name: ensemble.members for name, ensemble in ensembles(config, experiment).items()},
        baselines=baselines(config, experiment),
        task=chosen.task,
        target=target_column(chosen),
        hash_ids=config.report.hash_ids,
        id_seed=config.seed,
        explained=explained(config, experiment),
    )


def index_settings(config: Config) -> IndexSettings:
    """Settings of the index page."""
    return IndexSettings(title=config.title, experiments=[report_settings(config, name) for name in config.experiments])


def stage_modules(stage: str, settings: Settings) -> list[str]:
    """The modules that a stage starts from: its own, and those of the parts that its settings name.

    Args:
        stage: the sub-command.
        settings: its settings.

    Returns:
        Dotted names for `gyri.fingerprint.code_fingerprint`.
    """
    modules = [f"gyri.{ {'predict-fold': 'predict', 'index': 'report'}.get(stage, stage) }"]
    if isinstance(settings, TrainSettings | PredictSettings | ExplainSettings):
        modules.append(catalogue()[settings.network].module)
    if isinstance(settings, TrainSettings) and catalogue()[settings.network].trained:
        modules += [
            losses()[settings.training.loss or LOSSES[settings.task]].module,
            optimizers()[settings.training.optimizer].module,
        ]
    return modules
