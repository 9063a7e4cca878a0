"""The catalogue of networks, baselines, losses and optimizers: found by reading their files, imported only when built.

A file of models/, losses/ or optimizers/ declares what it holds in a literal `ENTRIES`: name -> the tasks it does. The builder
has the entry's name. Nothing is registered by importing, so that adding or editing one entry concerns no other.
"""

from __future__ import annotations

import ast
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One entry of a catalogue.

    Args:
        name: what the configuration calls it.
        module: the module that builds it.
        tasks: the tasks it does.
        trained: True for networks trained by gradient descent, False for baselines fitted in one go.
        arguments: names of the arguments that a configuration may give.
    """

    name: str
    module: str
    tasks: tuple[str, ...]
    trained: bool
    arguments: tuple[str, ...]


def catalogue() -> dict[str, Entry]:
    """All networks and baselines by name, without importing any of them."""
    return _entries("models")


def losses() -> dict[str, Entry]:
    """All losses by name, without importing any of them."""
    return _entries("losses")


def optimizers() -> dict[str, Entry]:
    """All optimizers by name, without importing any of them."""
    return _entries("optimizers")


def builder(name: str) -> Any:
    """Import and return what builds an entry: a function (task, **arguments) -> module, or a baseline class.

    Raises:
        KeyError: no such entry.
    """
    return _load(catalogue()[name])


def loss(name: str) -> Any:
    """Import and return a loss: a function (outputs, targets, class_weights=None) -> (B,) losses.

    Raises:
        KeyError: no such loss.
    """
    return _load(losses()[name])


def optimizer(name: str) -> Any:
    """Import and return a maker of optimizers: a function (parameters, learning_rate, weight_decay) -> optimizer.

    Raises:
        KeyError: no such optimizer.
    """
    return _load(optimizers()[name])


def find_entries(folder: Path, package: str) -> dict[str, Entry]:
    """The entries that the files of a folder declare, sorted by file.

    Args:
        folder: where the files lie.
        package: the dotted name of the package that the folder is.

    Raises:
        ValueError: two files declare the same name.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        literals = _literals(tree)
        for name, tasks in literals.get("ENTRIES", {}).items():
            if name in entries:
                raise ValueError(f"{path.name} declares {name}, which {entries[name].module} declares already")
            trained = bool(literals.get("TRAINED", True))
            entries[name] = Entry(name, f"{package}.{path.stem}", tuple(tasks), trained, _arguments(tree, name))
    return entries


@functools.cache
def _entries(kind: str) -> dict[str, Entry]:
    return find_entries(Path(__file__).parent / kind, f"gyri.{kind}")


def _load(entry: Entry) -> Any:
    return getattr(importlib.import_module(entry.module), entry.name)


def _literals(tree: ast.Module) -> dict[str, Any]:
    """The literal values of ENTRIES and TRAINED in a file, read without running it."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.id in ("ENTRIES", "TRAINED"):
                    found[target.id] = ast.literal_eval(node.value)
    return found


def _arguments(tree: ast.Module, name: str) -> tuple[str, ...]:
    """The keyword-only arguments of a builder, read without running it: a function's own, or those of a class's `__init__`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _arguments(ast.Module(node.body, []), "__init__")
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return tuple(argument.arg for argument in node.args.kwonlyargs)
    return ()
