"""The tables of a BIDS dataset: participants.tsv, sessions.tsv, dseg.tsv, and the JSON files that describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gyri.dataset import plain_tables
from gyri.dataset.bids_names import BidsFile, same_value
from gyri.dataset.plain_tables import Table
from gyri.dataset.records import Reading
from gyri.errors import DataError, Problem, nearest, shown
from gyri.io import read_json

FACTS = {"Name": "name", "License": "licence", "HowToAcknowledge": "reference", "BIDSVersion": "bids_version"}


def join(reading: Reading, tables: list[BidsFile]) -> None:
    """Join participants.tsv and the sessions tables to the records; a value of a session goes before one of the participant.

    Args:
        reading: gets columns, tables, facts and problems.
        tables: the TSV files of the dataset.
    """
    _describe(reading)
    participants = _participants(reading)
    sessions, columns = _sessions(reading, tables)
    reading.columns = list(dict.fromkeys([*(participants.columns if participants else []), *columns]))
    reading.columns = [name for name in reading.columns if name not in ("participant_id", "session_id")]
    known = {_label("sub", row["participant_id"]): row for row in participants.rows} if participants else {}
    for record in reading.records:
        record.columns = dict.fromkeys(reading.columns, "") | known.get(record.participant_id, {})
        own = sessions.get((record.participant_id, record.session_id), {})
        record.columns |= {name: value for name, value in own.items() if value or name not in record.columns}
    if participants is not None:
        _check_known(reading, participants, set(known))


def label_names(tables: list[BidsFile], wanted: dict[str, str], reading: Reading) -> dict[str, str]:
    """Names of label values from the dseg.tsv tables that go with a selection of label images.

    Args:
        tables: all dseg.tsv files.
        wanted: the entities that select the label images.
        reading: gets tables and problems.

    Returns:
        {value: name}; empty where there is no such table.
    """
    found: dict[str, str] = {}
    for file in tables:
        shared = [key for key in wanted if key in file.entities and key not in ("extension", "datatype", "pipeline")]
        same = all(same_value(key, file.entities[key], wanted[key]) for key in shared)
        # a table that says `desc-x` names the labels of desc-x only, also where the selection does not speak of desc
        strange = [key for key in ("desc", "seg", "atlas") if key in file.entities and key not in wanted]
        if not same or strange or not _same_pipeline(file, wanted):
            continue
        path = reading.root / file.path
        table = plain_tables.read(path, reading.problems)
        reading.tables.append(path)
        if table.columns and not {"index", "name"} <= set(table.columns):
            expected = "the columns index and name"
            reading.problems.append(Problem(str(path), f"the columns {', '.join(table.columns)}", expected, "rename or add them"))
            continue
        for line, row in zip(table.lines, table.rows, strict=True):
            value, name = row["index"], row["name"]
            if not value.isdecimal() or found.get(value, name) != name:
                where = f"{path}, line {line}"
                expected = "a whole number from 0 on, with the same name in every table"
                reading.problems.append(Problem(where, f"{value}: {name}", expected, "correct it, or give `label_values`"))
            found[value] = name
    return {value: found[value] for value in sorted(found, key=lambda text: (len(text), text))}


def _same_pipeline(file: BidsFile, wanted: dict[str, str]) -> bool:
    return wanted.get("pipeline", file.entities["pipeline"]) == file.entities["pipeline"]


def _label(entity: str, value: str) -> str:
    """An id with its prefix: `01` and `sub-01` are the same participant."""
    return value if not value or value.startswith(f"{entity}-") else f"{entity}-{value}"


def _describe(reading: Reading) -> None:
    """Take name, licence and reference from dataset_description.json."""
    path = reading.root / "dataset_description.json"
    content = _json(path, reading)
    for key, name in FACTS.items():
        if content.get(key):
            reading.facts[name] = str(content[key])


def _json(path: Path, reading: Reading) -> dict[str, Any]:
    if not path.is_file():
        return {}
    reading.tables.append(path)
    try:
        content = read_json(path)
    except DataError as error:
        reading.problems += error.problems
        return {}
    return content if isinstance(content, dict) else {}


def _participants(reading: Reading) -> Table | None:
    """participants.tsv of the dataset; of a derivative without one, that of the dataset it was derived from."""
    folders = [reading.root]
    if reading.root.parent.name == "derivatives":
        folders.append(reading.root.parent.parent)
    path = next((folder / "participants.tsv" for folder in folders if (folder / "participants.tsv").is_file()), None)
    if path is None:
        return None
    reading.tables.append(path)
    table = plain_tables.read(path, reading.problems)
    if table.columns and "participant_id" not in table.columns:
        remedy = nearest("participant_id", table.columns)
        reading.problems.append(Problem(str(path), "no column participant_id", "the first column participant_id", remedy))
        return None
    if not table.columns:
        return None
    _check_once(table, [_label("sub", row["participant_id"]) for row in table.rows], "the participant", reading)
    described = _json(path.with_suffix(".json"), reading)
    levels = {name: item["Levels"] for name, item in described.items() if isinstance(item, dict) and "Levels" in item}
    if levels:
        reading.facts["levels"] = levels
    return table


def _check_once(table: Table, names: list[str], what: str, reading: Reading) -> None:
    seen: set[str] = set()
    for line, name in zip(table.lines, names, strict=True):
        if name in seen or not name:
            where = f"{table.path}, line {line}"
            got = f"{what} {name} again" if name else "no id"
            reading.problems.append(Problem(where, got, "each one once", "remove or correct the line"))
        seen.add(name)


def _check_known(reading: Reading, table: Table, known: set[str]) -> None:
    imaged = {record.participant_id for record in reading.records}
    unknown = sorted(imaged - known)
    if unknown:
        near = nearest(unknown[0], known)
        got = f"no line for {shown(unknown)}, who have images"
        expected = "a line for everybody who has images"
        reading.problems.append(Problem(str(table.path), got, expected, f"add their lines ({unknown[0]}: {near})"))
    reading.facts["participants_without_images"] = len(known - imaged)


def _sessions(reading: Reading, tables: list[BidsFile]) -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    """Rows of the sessions tables by (participant, session), and their columns."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    columns: dict[str, None] = {}
    for file in tables:
        if file.entities["suffix"] != "sessions":
            continue
        path = reading.root / file.path
        reading.tables.append(path)
        table = plain_tables.read(path, reading.problems)
        columns |= dict.fromkeys(table.columns)
        participant = file.entities.get("sub", "")
        needed = ["session_id", *([] if participant else ["participant_id"])]
        missing = [name for name in needed if name not in table.columns]
        if missing and table.columns:
            remedy = nearest(missing[0], table.columns)
            reading.problems.append(
                Problem(str(path), f"no column {', '.join(missing)}", f"the columns {', '.join(needed)}", remedy)
            )
            continue
        keys = [(_label("sub", participant or row["participant_id"]), _label("ses", row["session_id"])) for row in table.rows]
        _check_once(table, [" ".join(key) for key in keys], "the session", reading)
        found |= dict(zip(keys, table.rows, strict=True))
    return found, list(columns)
