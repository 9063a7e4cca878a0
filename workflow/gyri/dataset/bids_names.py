"""BIDS file names: entities, suffix, and what a folder of a dataset holds.

Source: Gorgolewski et al., The brain imaging data structure, Scientific Data 3, 160044 (2016); entities of the specification.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# short name in file names -> long name in the specification, which users write too
ENTITIES = {
    "sub": "subject",
    "ses": "session",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksystem",
    "acq": "acquisition",
    "nuc": "nucleus",
    "voi": "volume",
    "ce": "ceagent",
    "trc": "tracer",
    "stain": "stain",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inversion",
    "mt": "mtransfer",
    "part": "part",
    "proc": "processing",
    "hemi": "hemisphere",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "seg": "segmentation",
    "res": "resolution",
    "den": "density",
    "label": "label",
    "desc": "description",
    "atlas": "atlas",
    "cohort": "cohort",
}
# what else a file can be selected by: what stands in its name or path besides entities
OTHER = ("suffix", "datatype", "extension", "pipeline")
NUMBERED = frozenset({"run", "echo", "flip", "inv", "split", "chunk"})  # values are numbers: 1 is 01
SKIPPED = frozenset({"derivatives", "sourcedata", "code", "stimuli", "figures", "log", "logs"})
DEPTH = 8  # of folders below the dataset; ends loops of links
IMAGES = (".nii", ".nii.gz")
NAME = re.compile(r"((?:[A-Za-z]+-[^_.]+_)*)([A-Za-z0-9]+)(\.[A-Za-z0-9.]+)")


@dataclass(frozen=True)
class BidsFile:
    """A file with a BIDS name.

    Args:
        path: relative to the dataset's folder, with /.
        entities: entity -> value, and suffix, datatype (the name of its folder), extension, pipeline (of a derivative, else "").
    """

    path: str
    entities: dict[str, str]


def parse_name(name: str) -> dict[str, str] | None:
    """Entities, suffix and extension of a file name, or None where it is no BIDS name."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    pairs = dict(part.split("-", 1) for part in found[1].split("_") if part)
    return {**pairs, "suffix": found[2], "extension": found[3]}


def scan(root: Path, folder: str = "", pipeline: str = "") -> Iterator[BidsFile]:
    """Find the images and tables of one dataset, raw or derivative.

    Args:
        root: what the paths are relative to.
        folder: the dataset inside `root`, "" for `root` itself.
        pipeline: its name, if it is a derivative.

    Yields:
        NIfTI images and TSV tables with BIDS names, of the top folder and of everything in its sub-* folders.
    """
    yield from _scan(os.path.join(root, folder), folder, pipeline, 0)  # noqa: PTH118  (strings: ten times the speed of Path)


def _scan(absolute: str, relative: str, pipeline: str, depth: int) -> Iterator[BidsFile]:
    try:
        with os.scandir(absolute) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        # a folder that cannot be opened is missed by the check for participants without images, not here
        return
    datatype = relative.rsplit("/", 1)[-1]
    for entry in entries:
        name = entry.name
        path = f"{relative}/{name}" if relative else name
        if name.endswith((".nii.gz", ".nii", ".tsv")):
            entities = parse_name(name)
            if entities is not None:
                yield BidsFile(path, {**entities, "datatype": datatype, "pipeline": pipeline})
        elif name.startswith((".", "_")) or name in SKIPPED or (depth == 0 and not name.startswith("sub-")):
            continue
        elif "." not in name and depth < DEPTH and entry.is_dir():
            yield from _scan(f"{absolute}/{name}", path, pipeline, depth + 1)


def matches(entities: dict[str, str], wanted: dict[str, str]) -> bool:
    """Whether a file has the entities that are asked for; "none" asks for an entity to be absent."""
    for key, value in wanted.items():
        found = entities.get(key, "")
        if value in ("", "none"):
            if found:
                return False
        elif not same_value(key, found, value):
            return False
    return True


def same_value(entity: str, one: str, other: str) -> bool:
    """Whether two values of an entity are the same; `ses-1` equals `1`, and of numbered entities 01 equals 1."""
    one, other = one.removeprefix(f"{entity}-"), other.removeprefix(f"{entity}-")
    if entity in NUMBERED and one.isdecimal() and other.isdecimal():
        return int(one) == int(other)
    if entity == "extension":
        return one.lstrip(".") == other.lstrip(".")
    return one == other
