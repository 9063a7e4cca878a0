"""What every reader hands over: one record per image, the files that were read, and all that is wrong with them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gyri.errors import Problem
from gyri.images import SUFFIXES, suffix_of

FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
MAX_MISSING = 50  # problems that are told one by one
MAX_NAME = 200  # a file system takes 255 bytes, endings included


@dataclass
class Record:
    """One image.

    Args:
        image_id: unique; becomes the name of files.
        where: file and line (or key) it comes from, for messages.
        participant_id: the person, "" where nothing says who it is.
        session_id: "" where there is none.
        images: channel -> path relative to the root, "" for a missing one.
        labels: column (`label`, `label_<name>`) -> path relative to the root.
        mask: path relative to the root, "" where there is none.
        columns: every column of the user's tables, as text, "" for missing.
    """

    image_id: str
    where: str
    participant_id: str = ""
    session_id: str = ""
    images: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    mask: str = ""
    columns: dict[str, str] = field(default_factory=dict)

    def paths(self) -> list[str]:
        """All files of the image, relative to the root."""
        return [name for name in (*self.images.values(), *self.labels.values(), self.mask) if name]


@dataclass
class Reading:
    """A dataset as a reader found it.

    Args:
        root: the folder that all paths start at.
        listing: the file or folder that lists the images, for messages.
        records: one per image.
        tables: the tables and JSON files that were read.
        columns: the user's columns in their order, without those used up as ids and paths.
        labels: label column -> {value: structure name}; an empty dictionary where nobody says.
        channels: channel -> names of the channels inside its file, where the dataset says (else asked of the files).
        facts: name, description, licence, reference and whatever else is worth keeping in dataset.json.
        has_mask: whether masks were asked for.
        problems: all that is wrong.
    """

    root: Path
    listing: str
    records: list[Record] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    channels: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    has_mask: bool = False
    problems: list[Problem] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Every raw file and table, sorted."""
        top = os.fspath(self.root)
        names = {f"{top}/{name}" for record in self.records for name in record.paths()}
        return [Path(name) for name in sorted({*names, *map(os.fspath, self.tables)})]


def label_column(name: str) -> str:
    """The column of a label image: `label` for the default one, else `label_<name>`."""
    return "label" if name == "label" else f"label_{name}"


def relative_path(text: str, root: Path, where: str, problems: list[Problem]) -> str:
    """Turn a path of a table into one relative to the root, "" and a problem where that cannot be.

    Args:
        text: as the table has it.
        root: the folder of the dataset.
        where: the place in the table.
        problems: appended to.
    """
    if not text:
        return ""
    if "\\" in text:
        problems.append(Problem(where, f"`{text}`", "folders separated by /", "replace each \\ by /"))
        return ""
    top = os.path.normpath(root)
    path = os.path.normpath(os.path.join(top, text))  # noqa: PTH118  (lexical: a link to a store elsewhere is allowed)
    if not path.startswith(top.rstrip("/") + "/"):
        remedy = "move the table (or `path`) to a folder above all images, or link the images into it"
        problems.append(Problem(where, f"`{text}`", f"a path inside {top}", remedy))
        return ""
    if not suffix_of(path):
        problems.append(
            Problem(where, f"`{text}`", f"an ending among {' '.join(SUFFIXES)}", "convert the file, for example to NIfTI")
        )
        return ""
    return os.path.relpath(path, top)


def check_files(reading: Reading) -> None:
    """Add a problem for every file that is named but is not there; of very many, the first and their number."""
    missing: list[Problem] = []
    top = os.fspath(reading.root)
    for record in reading.records:
        for name in record.paths():
            if os.path.isfile(f"{top}/{name}"):  # noqa: PTH113  (strings: a planned workflow may name 100,000 files)
                continue
            path = reading.root / name
            link = path.is_symlink()
            got = "a link to a file that is not there" if link else "no such file"
            remedy = "fetch its content (`datalad get`)" if link else "correct the path, or bring the file back"
            missing.append(Problem(f"{path} (named by {record.where})", got, "a file", remedy))
    reading.problems += missing[:MAX_MISSING]
    if len(missing) > MAX_MISSING:
        got = f"{len(missing) - MAX_MISSING} more missing files"
        reading.problems.append(
            Problem(reading.listing, got, "every file that is named", "check `path`, and that the copy is complete")
        )


def check_ids(reading: Reading) -> None:
    """Add a problem for every id that is missing, given twice, or cannot be the name of a file."""
    seen: dict[str, Record] = {}
    for record in reading.records:
        name = record.image_id
        if not name:
            reading.problems.append(Problem(record.where, "no image id", "an id for every image", "fill the cell"))
        elif FORBIDDEN.search(name) or name != name.strip() or name.startswith((".", "-")) or len(name.encode()) > MAX_NAME:
            expected = 'an id without / \\ : * ? " < > |, that begins with neither . nor -'
            reading.problems.append(
                Problem(record.where, f"the image id `{name}`", expected, "rename it: files are named after it")
            )
        elif name.lower() in seen:
            # not only equal ones: `A1` and `a1` are one file on many disks
            other = seen[name.lower()]
            expected = f"every image once; `{other.image_id}` stands at {other.where}"
            remedy = "remove one, or give each image an id of its own"
            reading.problems.append(Problem(record.where, f"the image id `{name}` again", expected, remedy))
        else:
            seen[name.lower()] = record
        if re.search(r"[\t\r\n]", record.participant_id + record.session_id):
            expected = "ids without tabs and line breaks"
            reading.problems.append(Problem(record.where, repr(record.participant_id), expected, "rename it"))
    if not reading.records and not reading.problems:
        reading.problems.append(
            Problem(reading.listing, "no images", "at least one image", "check `path` and what selects the images")
        )
