"""The configuration: one closed, typed tree, read from one YAML file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from gyri.config.base import NAME, Settings
from gyri.config.checks import cross_check
from gyri.config.datasets import AnyDataset
from gyri.config.experiments import Experiment
from gyri.config.threads import Threads
from gyri.config.training import Architecture
from gyri.errors import ConfigError, Problem

__all__ = ["BASELINES", "Config", "load_config", "parse_config", "schema"]

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
    threads: Threads = Threads()


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                mark = node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands here twice", mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


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
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(
            Problem(str(path), error.strerror or str(error), "a readable configuration file", "check the path")
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        got = " ".join(str(error).split())
        raise ConfigError(Problem(str(path), got, "valid YAML with each key once", "mend the line that is named")) from error
    return parse_config(content, path)


def parse_config(content: Any, path: Path) -> Config:
    """Check what a configuration file holds; see `load_config`."""
    problems: list[Problem] = []
    content = _expand(content, str(path), (), problems)
    if problems:
        raise ConfigError(problems)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError([_explain(item, content, str(path)) for item in error.errors()]) from error
    problems = cross_check(config, str(path))
    if problems:
        raise ConfigError(problems)
    return _complete(config, path.resolve().parent)


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, generated from these types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def _expand(value: Any, file: str, keys: tuple[str, ...], problems: list[Problem]) -> Any:
    """Replace ${NAME} in every text by the environment variable; collect those that are unset."""
    if isinstance(value, dict):
        return {key: _expand(item, file, (*keys, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, file, (*keys, str(index)), problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value):
        if name not in os.environ:
            where = f"{file}: {'.'.join(keys)}"
            remedy = f"export {name}=/path/to/the/data before calling snakemake"
            problems.append(Problem(where, f"the environment variable {name} is not set", f"${{{name}}} to name the data", remedy))
    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda match: os.environ.get(match[1], ""), value)


def _explain(item: Any, content: Any, file: str) -> Problem:
    """Turn one pydantic error into a problem with key, got, expected and remedy."""
    keys = [str(key) for key in item["loc"] if key not in ("synthetic", "bids", "msd", "table") or item["loc"][0] != "datasets"]
    where = f"{file}: {'.'.join(keys) or 'top level'}"
    got = (
        repr(item["input"]) if not isinstance(item["input"], dict) else f"the keys {', '.join(map(str, item['input'])) or '(none)'}"
    )
    kind = item["type"]
    if kind == "extra_forbidden":
        known = list(_known_keys(keys[:-1], content))
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean `{near[0]}`?" if near else "remove the key"
        return Problem(where, f"an unknown key `{keys[-1]}`", f"one of {', '.join(sorted(known))}", remedy)
    if kind == "missing":
        return Problem(where, "nothing", f"a value for `{keys[-1]}`", f"add the key `{keys[-1]}`")
    expected = item["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        expected = "a name of letters, digits and underscores that begins with a letter"
    return Problem(where, got, expected[0].lower() + expected[1:], "change the value; config.yaml explains every key with its unit")


def _known_keys(keys: list[str], content: Any) -> Iterator[str]:
    """Names that are allowed at a place of the tree."""
    kind: Any = Config
    value = content
    for key in keys:
        value = value.get(key, {}) if isinstance(value, dict) else {}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[key].annotation if key in kind.model_fields else None
        else:
            kind = _item_type(kind, value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from kind.model_fields


def _item_type(kind: Any, value: Any) -> Any:
    """The type of a dictionary's items; of the datasets, the one that `format` names."""
    items = [argument for argument in _flatten(get_args(kind)) if isinstance(argument, type) and issubclass(argument, BaseModel)]
    for item in items:
        field = item.model_fields.get("format")
        if field is not None and isinstance(value, dict) and value.get("format") in get_args(field.annotation):
            return item
    return items[0] if items else None


def _flatten(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        inner = get_args(argument)
        if inner and not (isinstance(argument, type) and issubclass(argument, BaseModel)):
            yield from _flatten(inner)
        else:
            yield argument


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
