"""Closed YAML files: read safely, checked against a type, every problem told with its key and the nearest right one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from gyri.errors import ConfigError, Problem

Kind = TypeVar("Kind", bound=BaseModel)


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


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigError: it cannot be read, or is no YAML with each key once.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(
            Problem(str(path), error.strerror or str(error), "a readable configuration file", "check the path")
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        got = " ".join(str(error).split())
        raise ConfigError(Problem(str(path), got, "valid YAML with each key once", "mend the line that is named")) from error


def expand(content: Any, file: str) -> Any:
    """Replace `${NAME}` in every text by that environment variable.

    Raises:
        ConfigError: with every variable that is not set.
    """
    problems: list[Problem] = []
    content = _expand(content, file, (), problems)
    if problems:
        raise ConfigError(problems)
    return content


def validate(kind: type[Kind], content: Any, file: str, explained_in: str) -> Kind:
    """Check what a file holds.

    Args:
        kind: the type of the whole file.
        content: as `read_yaml` or `expand` gave it.
        file: its name, for the messages.
        explained_in: the file that explains every key.

    Returns:
        The settings, with defaults filled in.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError([_explain(item, content, file, kind, explained_in) for item in error.errors()]) from error


def _expand(value: Any, file: str, keys: tuple[str, ...], problems: list[Problem]) -> Any:
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


def _explain(item: Any, content: Any, file: str, top: type[BaseModel], explained_in: str) -> Problem:
    """Turn one pydantic error into a problem with key, got, expected and remedy."""
    keys = [str(key) for key in item["loc"] if key not in ("synthetic", "bids", "msd", "table") or item["loc"][0] != "datasets"]
    where = f"{file}: {'.'.join(keys) or 'top level'}"
    got = (
        repr(item["input"]) if not isinstance(item["input"], dict) else f"the keys {', '.join(map(str, item['input'])) or '(none)'}"
    )
    kind = item["type"]
    if kind == "extra_forbidden":
        known = list(_known_keys(keys[:-1], content, top))
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean `{near[0]}`?" if near else "remove the key"
        return Problem(where, f"an unknown key `{keys[-1]}`", f"one of {', '.join(sorted(known))}", remedy)
    if kind == "missing":
        return Problem(where, "nothing", f"a value for `{keys[-1]}`", f"add the key `{keys[-1]}`")
    expected = item["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        expected = "a name of letters, digits and underscores that begins with a letter"
    return Problem(
        where, got, expected[0].lower() + expected[1:], f"change the value; {explained_in} explains every key with its unit"
    )


def _known_keys(keys: list[str], content: Any, top: type[BaseModel]) -> Iterator[str]:
    """Names that are allowed at a place of the tree."""
    kind: Any = top
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
