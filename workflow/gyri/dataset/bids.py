"""Reader of BIDS datasets, raw or derivatives: which files belong together, and what the tables say of them.

An image is one participant and session, and one `run` where there are several. Any other entity of which there are several
(acq, rec, space, ...) must be selected, so that two kinds of image are never mixed without anybody asking for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gyri.config.datasets import BidsDataset
from gyri.dataset import bids_tables
from gyri.dataset.bids_names import ENTITIES, IMAGES, OTHER, BidsFile, matches, same_value, scan
from gyri.dataset.records import Reading, Record, label_column
from gyri.errors import Problem, nearest, shown

# a label map or mask may differ from its image in these
LOOSE = frozenset({*OTHER, "desc", "space", "res", "den", "label", "seg", "atlas"})
Key = tuple[str, str]  # participant and session, without sub- and ses-


@dataclass
class _Files:
    """The files of a dataset: its own, and those of the derivatives inside it."""

    own: list[BidsFile]
    derived: list[BidsFile] = field(default_factory=list)

    def select(self, wanted: dict[str, str], derived: bool) -> list[BidsFile]:
        """Images that match: of the dataset itself, then also (or instead) of its derivatives."""
        own = [file for file in self.own if _is_image(file) and matches(file.entities, wanted)]
        if own and not derived:
            return own
        return own + [file for file in self.derived if _is_image(file) and matches(file.entities, wanted)]


def read(source: BidsDataset) -> Reading:
    """Read a BIDS dataset.

    Args:
        source: the dataset of the configuration.

    Returns:
        One record per image; problems are collected in it.
    """
    root = Path(source.path)
    reading = Reading(root, str(root), has_mask=source.mask is not None, facts={"volume": source.volume})
    if not root.is_dir():
        reading.problems.append(Problem(str(root), "no such folder", "the folder of a BIDS dataset", "correct `path`"))
        return reading
    wanted = {f"images.{name}": entities for name, entities in source.images.items()}
    wanted |= {f"labels.{name}": entities for name, entities in source.labels.items()}
    wanted |= {"mask": source.mask} if source.mask is not None else {}
    if not _check_entities(wanted, reading):
        return reading
    files = _find(root)
    _check_folders(files, reading)
    chosen = {key: _by_session(files.select(entities, derived=not key.startswith("images."))) for key, entities in wanted.items()}
    for key, entities in wanted.items():
        if not chosen[key]:
            reading.problems.append(_explain_nothing(key, entities, files, root))
    sessions = sorted({session for key, found in chosen.items() if key.startswith("images.") for session in found})
    for session in sessions:
        reading.records += _records(session, chosen, wanted, reading)
    bids_tables.join(reading, [file for file in files.own if file.path.endswith(".tsv")])
    _name_labels(source, files, reading)
    unknown = sorted(set(source.label_values) - set(source.labels))
    for name in unknown:
        remedy = nearest(name, source.labels)
        reading.problems.append(Problem(f"label_values.{name}", f"a label image `{name}`", "a name under `labels`", remedy))
    return reading


def _is_image(file: BidsFile) -> bool:
    return file.entities["extension"] in IMAGES and "sub" in file.entities


def _find(root: Path) -> _Files:
    """All files; derivatives are named after their folder."""
    found = _Files(list(scan(root)))
    folder = root / "derivatives"
    if folder.is_dir():
        for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
            found.derived += scan(root, f"derivatives/{name}", name)
        # `derivatives/sub-01/...`, without the name of a pipeline
        found.derived += scan(root, "derivatives", "derivatives")
    return found


def _check_entities(wanted: dict[str, dict[str, str]], reading: Reading) -> bool:
    """Whether every entity that is asked for exists in BIDS."""
    known = {*ENTITIES, *OTHER}
    short = {long: name for name, long in ENTITIES.items() if long != name}
    good = True
    for key, entities in wanted.items():
        for entity in sorted(set(entities) - known):
            remedy = f"write `{short[entity]}`" if entity in short else nearest(entity, known)
            reading.problems.append(Problem(f"{key}.{entity}", f"an unknown entity `{entity}`", "a BIDS entity", remedy))
            good = False
    return good


def _check_folders(files: _Files, reading: Reading) -> None:
    """Add a problem for files of one participant that lie in the folder of another: nobody knows whose they are."""
    for file in (*files.own, *files.derived):
        folders = [part for part in file.path.split("/")[:-1] if part.startswith("sub-")]
        participant = f"sub-{file.entities.get('sub', '')}"
        if _is_image(file) and folders and folders[0] != participant:
            where = str(reading.root / file.path)
            remedy = "find out whose image it is, and move or rename it"
            reading.problems.append(
                Problem(where, f"an image of {participant} in {folders[0]}", "one participant per folder", remedy)
            )


def _by_session(files: list[BidsFile]) -> dict[Key, list[BidsFile]]:
    found: dict[Key, list[BidsFile]] = {}
    for file in files:
        found.setdefault((file.entities["sub"], file.entities.get("ses", "")), []).append(file)
    return found


def _records(
    session: Key, chosen: dict[str, dict[Key, list[BidsFile]]], wanted: dict[str, dict[str, str]], reading: Reading
) -> list[Record]:
    """The images of one participant and session: one, or one per run."""
    here = {key: found.get(session, []) for key, found in chosen.items()}
    channels = [key for key in here if key.startswith("images.")]
    runs = sorted({file.entities.get("run", "") for key in channels if len(here[key]) > 1 for file in here[key]})
    return [_record(session, run, here, channels, wanted, reading) for run in runs or [""]]


def _record(
    session: Key,
    run: str,
    here: dict[str, list[BidsFile]],
    channels: list[str],
    wanted: dict[str, dict[str, str]],
    reading: Reading,
) -> Record:
    """One image; channels come first in `here`, so that labels can be compared with them."""
    name = "_".join([f"sub-{session[0]}", *([f"ses-{session[1]}"] if session[1] else []), *([f"run-{run}"] if run else [])])
    record = Record(name, str(reading.root), f"sub-{session[0]}", f"ses-{session[1]}" if session[1] else "")
    image: dict[str, str] = {}
    for key, files in here.items():
        alike = {"run": run} if key in channels else {k: v for k, v in image.items() if k not in (*LOOSE, *wanted[key])}
        fitting = [file for file in files if _agrees(file.entities, alike)]
        if len(fitting) > 1:
            reading.problems.append(_explain_many(key, name, fitting, reading.root))
        path = fitting[0].path if fitting else ""
        if key in channels:
            record.images[key.removeprefix("images.")] = path
            image = image or ({**fitting[0].entities, "run": run or fitting[0].entities.get("run", "")} if fitting else {})
        elif key == "mask":
            record.mask = path
        else:
            record.labels[label_column(key.removeprefix("labels."))] = path
    return record


def _agrees(entities: dict[str, str], others: dict[str, str]) -> bool:
    """Whether two files have the same value of each entity that both have."""
    return all(same_value(key, entities[key], value) for key, value in others.items() if value and entities.get(key))


def _explain_many(key: str, name: str, fitting: list[BidsFile], root: Path) -> Problem:
    names = sorted({entity for file in fitting for entity in file.entities})
    differ = [entity for entity in names if len({file.entities.get(entity, "") for file in fitting}) > 1]
    values = {entity: sorted({file.entities.get(entity, "") or "none" for file in fitting}) for entity in differ}
    remedy = "; or ".join(f"add `{entity}:` with one of {', '.join(found)}" for entity, found in values.items())
    got = f"{len(fitting)} files for {name}: {shown([file.path for file in fitting], 3)}"
    return Problem(f"{root} ({key})", got, "one file per participant, session and run", remedy or "remove one")


def _explain_nothing(key: str, entities: dict[str, str], files: _Files, root: Path) -> Problem:
    """Say which of the entities no file has, with the nearest value that exists."""
    present = [file.entities for file in (*files.own, *files.derived) if _is_image(file)]
    remedy = "check `path`: no image with a BIDS name was found" if not present else "no file has all of them together"
    for entity, value in entities.items():
        known = {found.get(entity, "") for found in present} - {""}
        if present and value not in ("", "none") and not any(same_value(entity, found, value) for found in known):
            remedy = f"`{entity}: {value}` occurs nowhere; {nearest(value, known)}"
            break
    shown = ", ".join(f"{entity}: {value}" for entity, value in entities.items()) or "(everything)"
    return Problem(f"{root} ({key})", f"no image with {shown}", "at least one", remedy)


def _name_labels(source: BidsDataset, files: _Files, reading: Reading) -> None:
    """Names of the label values: from the settings, else from the dseg.tsv tables that go with the label images."""
    tables = [file for file in (*files.own, *files.derived) if file.path.endswith("dseg.tsv")]
    for name, wanted in source.labels.items():
        given = {str(value): text for value, text in sorted(source.label_values.get(name, {}).items())}
        reading.labels[label_column(name)] = given or bids_tables.label_names(tables, wanted, reading)
