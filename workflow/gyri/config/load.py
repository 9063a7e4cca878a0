"""The configuration: one closed, typed tree, read from one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gyri.config.base import NAME, Settings
from gyri.config.checks import cross_check
from gyri.config.datasets import AnyDataset
from gyri.config.experiments import Experiment, Report
from gyri.config.reading import expand, read_yaml, validate
from gyri.config.threads import Threads
from gyri.config.training import Architecture
from gyri.errors import ConfigError

__all__ = ["BASELINES", "Config", "load_config", "parse_config"]

Name = Annotated[str, Field(pattern=NAME)]
BASELINES = {
    "classification": ("majority", "linear"),
    "regression": ("mean", "linear"),
    "segmentation": ("majority", "linear"),
}


class Config(Settings):
    """Everything a run needs."""

    seed: int = 0
    """Every random draw of training derives from it."""
    title: str = "gyri"
    """Heading of the index page."""
    datasets: Annotated[dict[Name, AnyDataset], Field(min_length=1)]
    """Datasets by name."""
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    """Experiments by name."""
    report: Report = Report()
    threads: Threads = Threads()
    versions: Literal["strict", "warn"] = "strict"
    """What a job on a network does that finds another torch, CUDA or cuDNN than locked: stop, or warn and go on."""


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Args:
        path: the YAML file. `${NAME}` in a value is replaced by that environment variable; relative data paths start at
            the file's folder.

    Returns:
        The configuration with all defaults filled in and all data paths absolute.

    Raises:
        ConfigError: with every problem found.
    """
    path = Path(path)
    return parse_config(read_yaml(path), path)


def parse_config(content: Any, path: Path) -> Config:
    """Check what a configuration file holds; see `load_config`."""
    config = validate(Config, expand(content, str(path)), str(path), "config.yaml")
    problems = cross_check(config, str(path))
    if problems:
        raise ConfigError(problems)
    return _complete(config, path.resolve().parent)


def _complete(config: Config, folder: Path) -> Config:
    """Make data paths absolute and add the baselines that every comparison needs."""
    datasets = {}
    for name, dataset in config.datasets.items():
        update: dict[str, Any] = {}
        for key in ("path", "table"):
            value = getattr(dataset, key, None)
            if isinstance(value, str):
                update[key] = str((folder / Path(value).expanduser()).resolve())
        if dataset.split.file:
            update["split"] = dataset.split.model_copy(update={"file": str((folder / dataset.split.file).resolve())})
        datasets[name] = dataset.model_copy(update=update)
    experiments = {}
    for name, experiment in config.experiments.items():
        models = dict(experiment.architectures)
        networks = {architecture.network or key for key, architecture in models.items()}
        for baseline in BASELINES[experiment.task]:
            if baseline not in networks:
                models[baseline] = Architecture()
        experiments[name] = experiment.model_copy(update={"architectures": models})
    return config.model_copy(update={"datasets": datasets, "experiments": experiments})
