"""Checks of a configuration that go across its sections."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from gyri.catalogue import catalogue
from gyri.config.base import Settings
from gyri.config.experiments import Experiment
from gyri.config.training import Augmentation, Training
from gyri.errors import Problem, nearest

RESERVED = ("datasets", "logs", "slurm")
# columns that gyri writes itself; a user's column of that name is kept as `table_<name>` (docs/datasets.md)
OWN_COLUMNS = ("image_id", "participant_id", "group", "session_id", "mask", "label", "fold", "role")
RESERVED_MODELS = ("locked", "ensemble")


def cross_check(config: Settings, file: str) -> list[Problem]:
    """Find what each section alone cannot see.

    Args:
        config: a `Config`.
        file: its name, for the messages.

    Returns:
        Every problem found.
    """
    problems = []
    for name, dataset in config.datasets.items():  # type: ignore[attr-defined]
        wrong = [fold for fold in dataset.run_folds or [] if fold >= dataset.folds]
        if wrong:
            expected = f"folds 0 to {dataset.folds - 1}, since folds is {dataset.folds}"
            problems.append(Problem(f"{file}: datasets.{name}.run_folds", str(wrong), expected, "remove them or raise `folds`"))
        if dataset.run_folds == []:
            where = f"{file}: datasets.{name}.run_folds"
            problems.append(Problem(where, "an empty list", "at least one fold", "name a fold, or remove the key to run all"))
    for name, experiment in config.experiments.items():  # type: ignore[attr-defined]
        problems += _check_experiment(f"{file}: experiments.{name}", name, experiment, config)
    return problems


def _check_experiment(where: str, name: str, experiment: Experiment, config: Settings) -> list[Problem]:
    problems = []
    if name in RESERVED:
        problems.append(Problem(where, f"an experiment called `{name}`", f"a name other than {', '.join(RESERVED)}", "rename it"))
    datasets = config.datasets  # type: ignore[attr-defined]
    if experiment.dataset not in datasets:
        got = f"`{experiment.dataset}`"
        problems.append(Problem(f"{where}.dataset", got, "a dataset of this file", nearest(experiment.dataset, datasets)))
    if experiment.task != "segmentation" and experiment.target is None:
        problems.append(Problem(f"{where}.target", "nothing", "the column to predict", "add `target: <column>`"))
    if experiment.task != "segmentation" and experiment.target in OWN_COLUMNS:
        remedy = f"write `target: table_{experiment.target}` for the column of that name in your table"
        problems.append(Problem(f"{where}.target", f"`{experiment.target}`", "a column that is not gyri's own", remedy))
    if experiment.classes is not None and experiment.task != "classification":
        problems.append(Problem(f"{where}.classes", str(experiment.classes), "no classes in this task", "remove the key"))
    if experiment.classes is not None and len(set(experiment.classes)) < max(2, len(experiment.classes)):
        problems.append(Problem(f"{where}.classes", str(experiment.classes), "two or more different classes", "name each once"))
    for member in experiment.ensemble.models:
        if member not in experiment.architectures and member not in ("linear", "majority", "mean"):
            key = f"{where}.ensemble.models"
            problems.append(Problem(key, f"`{member}`", "a model of this experiment", nearest(member, experiment.architectures)))
    for model, architecture in experiment.architectures.items():
        key = f"{where}.architectures.{model}"
        if model in RESERVED_MODELS:
            expected = f"a name other than {', '.join(RESERVED_MODELS)}"
            problems.append(Problem(key, f"a model called `{model}`", expected, "rename it and give `network`"))
        problems += _check_override(f"{key}.training", architecture.training, Training, experiment.training)
        if architecture.augmentation != "none":
            problems += _check_override(f"{key}.augmentation", architecture.augmentation, Augmentation, experiment.augmentation)
        problems += _check_network(key, architecture.network or model, experiment.task, architecture.arguments)
    return problems


def _check_override(where: str, override: dict[str, object], kind: type[Settings], base: Settings) -> list[Problem]:
    try:
        kind.model_validate({**base.model_dump(), **override})
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = str(item["loc"][0])
            known = kind.model_fields
            if key not in known:
                problems.append(Problem(f"{where}.{key}", f"an unknown key `{key}`", "a training setting", nearest(key, known)))
            else:
                problems.append(Problem(f"{where}.{key}", repr(item["input"]), item["msg"], "change the value"))
        return problems
    return []


def _check_network(where: str, network: str, task: str, arguments: Iterable[str]) -> list[Problem]:
    known = catalogue()
    if network not in known:
        return [Problem(f"{where}.network", f"`{network}`", "the name of a network or baseline", nearest(network, known))]
    if task not in known[network].tasks:
        fitting = [name for name, entry in known.items() if task in entry.tasks]
        expected = f"one that does {task}: {', '.join(sorted(fitting))}"
        return [Problem(f"{where}.network", f"`{network}`, which does {', '.join(known[network].tasks)}", expected, "take another")]
    allowed = known[network].arguments
    return [
        Problem(f"{where}.arguments.{name}", "an unknown argument", f"an argument of `{network}`", nearest(name, allowed))
        for name in arguments
        if name not in allowed
    ]
