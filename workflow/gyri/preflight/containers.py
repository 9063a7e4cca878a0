"""Containers: whether the images are the built ones, run, and see the folders that jobs read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gyri.environment import apptainer_environment, image_fingerprint
from gyri.errors import GyriError
from gyri.layout import CONTAINERS
from gyri.preflight.check import Check, ask
from gyri.site import bind_variable, inside

IMAGES = ("torch", "tables")
SEES = 'for folder; do [ -r "$folder" ] || echo "$folder"; done'


def look_at_containers(here: Path, bound: Sequence[Path], data: Iterable[Path], options: Sequence[str]) -> Iterator[Check]:
    """Everything about containers.

    Args:
        here: the working folder.
        bound: folders that are bound.
        data: files and folders that jobs read.
        options: given to `apptainer exec`.

    Yields:
        One check after the other.
    """
    if not shutil.which("apptainer"):
        yield Check("apptainer", "FAILED", "not found", "`module load apptainer`, or ask who runs this machine to install it")
        return
    good = True
    for name in IMAGES:
        try:
            found = image_fingerprint(name)
        except GyriError as error:
            problem = error.problems[0]
            yield Check(f"{name}.sif", "FAILED", f"{problem.got}, expected {problem.expected}", problem.remedy)
            good = False
        else:
            yield Check(f"{name}.sif", "ok", found)
    if good:
        yield visible(here, bound, data, options)


def visible(here: Path, bound: Sequence[Path], data: Iterable[Path], options: Sequence[str]) -> Check:
    """Run an image once and look from inside at every folder that jobs read."""
    wanted = [str(path) for path in dict.fromkeys([here, *bound, *data])]
    # of an image is run the smaller one: both see the same
    command = ["apptainer", "exec", "--home", str(here), *options, str(CONTAINERS / "tables.sif"), "sh", "-c", SEES, "sh", *wanted]
    binds = {"APPTAINER_BIND": bind_variable(bound, os.environ.get("APPTAINER_BIND", ""))}
    answer = ask(command, apptainer_environment() | binds)
    if not answer.good:
        remedy = "`apptainer exec containers/tables.sif true` says more; docs/cluster.md lists usual causes"
        return Check("apptainer", "FAILED", answer.complaint, remedy)
    if answer.lines:
        return Check(
            "bind", "FAILED", f"not readable in a container: {', '.join(answer.lines[:5])}", "site.yaml: bind: add its folder"
        )
    return Check("bind", "ok", f"{len(wanted)} folders are readable in a container")


def linked_elsewhere(files: Iterable[Path], seen: Sequence[Path]) -> Check | None:
    """Whether images are links to a folder that jobs do not see; the first few tell."""
    lost = sorted({str(path.resolve().parent) for path in files if path.is_symlink() and not inside(path.resolve(), seen)})
    if not lost:
        return None
    return Check(
        "links", "FAILED", f"images are links into {', '.join(lost[:3])}, which jobs do not see", "site.yaml: bind: add it"
    )
