"""The code that a result depends on, as one hash (the environment it runs in: `gyri.environment`).

Code counts as syntax trees without docstrings, so a comment, a docstring or a line break changes nothing. Imports are followed
wherever they stand, inside functions too. What is found by name at run time (a network, a loss, an optimizer) is added by
the caller, so that editing one network concerns only the models that use it.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Container, Iterable
from pathlib import Path

from gyri.errors import Problem, ProvenanceError
from gyri.io import sha256_file, sha256_text

PACKAGE = Path(__file__).resolve().parent
# the door, the planner of settings and the bookkeeping: they decide what is called and write down that it was, but compute no result
BOOKKEEPING = (
    "gyri.accelerator",
    "gyri.environment",
    "gyri.fingerprint",
    "gyri.provenance",
    "gyri.selftest",
    "gyri.settings",
    "gyri.warned",
)
OUTSIDE = {
    "gyri.__main__",
    "gyri.cli",
    "gyri.cli.commands",
    "gyri.cli.options",
    "gyri.cli.stages",
    "gyri.plan",
    "gyri.preflight",
    "gyri.preflight.check",
    "gyri.preflight.containers",
    "gyri.preflight.machine",
    "gyri.preflight.profile",
    "gyri.preflight.slurm",
    "gyri.site",
    "gyri.train.lock",
    "gyri.train.schedule",
    "gyri.train.signals",
    *BOOKKEEPING,
}
DATA_SUFFIXES = {".j2", ".css", ".js", ".yml", ".bib"}


def module_path(module: str) -> Path | None:
    """The file of a module of this package, or None."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    return path if path.is_file() else None


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, with the packages they lie in."""
    return {name for name in _read(path, path.stat().st_mtime_ns)[0] if module_path(name) is not None}


def closure(modules: Iterable[str], outside: Container[str] = OUTSIDE) -> list[str]:
    """All modules of this package that the given ones can reach, themselves included, sorted.

    Args:
        modules: dotted names; a package stands for its `__init__` only.
        outside: modules that do not count and are not followed.

    Returns:
        Dotted names.
    """
    todo, found = list(modules), set()
    while todo:
        module = todo.pop()
        parents = [".".join(module.split(".")[:length]) for length in range(1, module.count(".") + 1)]
        for name in (module, *parents):
            path = module_path(name)
            if name in found or name in outside or path is None:
                continue
            found.add(name)
            todo.extend(imports(path))
    return sorted(found)


def code_fingerprint(modules: Iterable[str]) -> str:
    """One hash over the code that the given modules can reach, and over the templates that lie beside it."""
    parts = []
    for module in closure(modules):
        path = module_path(module)
        assert path is not None
        parts += [module, _read(path, path.stat().st_mtime_ns)[1]]
        if path.name == "__init__.py" and path.parent != PACKAGE:
            parts += [f"{item.name}={sha256_file(item)}" for item in sorted(path.parent.iterdir()) if item.suffix in DATA_SUFFIXES]
    return sha256_text(*parts)[:16]


def verify_code(modules: Iterable[str], expected: str, before: Container[str] = ()) -> None:
    """Refuse when the code on disk, or the code this process has loaded, is not what the job was planned with.

    Args:
        modules: as given to `code_fingerprint` when the job was planned.
        expected: the fingerprint of then.
        before: modules that were loaded before the job began, for other purposes.

    Raises:
        ProvenanceError: another fingerprint, or a loaded module that the fingerprint does not cover.
    """
    modules = list(modules)
    got = code_fingerprint(modules)
    if got != expected:
        remedy = "call snakemake again, so that it plans with the code as it is now"
        raise ProvenanceError(Problem("code of this job", f"fingerprint {got}", f"{expected}, as planned", remedy))
    covered = set(closure(modules)) | set(closure(BOOKKEEPING, outside=())) | OUTSIDE
    strange = sorted(name for name in sys.modules if name.split(".")[0] == "gyri" and name not in covered and name not in before)
    if strange:
        remedy = "import them with a plain `from gyri... import ...`, which the fingerprint follows, or name them in stage_modules"
        raise ProvenanceError(Problem("code of this job", f"loaded: {', '.join(strange)}", "only fingerprinted modules", remedy))


@functools.lru_cache(maxsize=1024)
def _read(path: Path, changed: int) -> tuple[frozenset[str], str]:
    """Names in a file that may be modules, for only a file tells what stands behind `from ... import`; and the hash of its code."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # a docstring, also one that explains a setting (an attribute docstring), computes nothing
            kept = [item for item in node.body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
            node.body = kept or [ast.Pass()]
    return frozenset(name for name in names if name.split(".")[0] == "gyri"), sha256_text(ast.dump(tree))
