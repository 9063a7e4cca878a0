"""The user's tables, read as text with the standard library: quick enough to be read whenever the workflow is planned."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gyri.errors import Problem

SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}
# what other programs write for a missing number; in a column of words they may be words ("NA", North America)
NO_NUMBER = frozenset({"na", "nan", "null", "none", "#n/a", ".", "-"})


@dataclass
class Table:
    """A table of texts.

    Args:
        path: the file.
        columns: names in their order.
        rows: one dictionary per row; a missing value is "".
        lines: the line of the file that each row stands on.
    """

    path: Path
    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read(path: Path, problems: list[Problem]) -> Table:
    """Read a TSV or CSV file.

    Args:
        path: the file; .tsv and .txt are separated by tabs, .csv by commas.
        problems: appended to: a missing or unreadable file, another separator, double or empty column names, rows of the
            wrong length.

    Returns:
        The table, without the rows that have the wrong length; empty if it cannot be read.
    """
    table = Table(path)
    separator = SEPARATORS.get(path.suffix.lower())
    if separator is None:
        problems.append(Problem(str(path), f"the ending {path.suffix or '(none)'}", "a .tsv or .csv table", "save it as .tsv"))
        return table
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(
            Problem(str(path), f"bytes that are no UTF-8 at {error.start}", "a table in UTF-8", "save it as UTF-8 text")
        )
        return table
    except OSError as error:
        problems.append(Problem(str(path), error.strerror or str(error), "a readable table", "check the path and the permissions"))
        return table
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        head = [name.strip() for name in next(lines, [])]
        if _check_head(path, head, separator, problems):
            table.columns = head
            _read_rows(table, lines, problems)
    except csv.Error as error:
        got = f"line {lines.line_num}: {error}"
        problems.append(Problem(str(path), got, 'a table in which every " has a partner', "mend that line"))
    _blank_numbers(table)
    return table


def _check_head(path: Path, head: list[str], separator: str, problems: list[Problem]) -> bool:
    """Whether the first line is one of column names separated as the file's ending says."""
    if not any(head):
        problems.append(Problem(str(path), "no column names", "a first line with the names of the columns", "add it"))
        return False
    other = [name for mark, name in NAMES.items() if mark != separator and mark in head[0]]
    if len(head) == 1 and other:
        expected = f"columns separated by {NAMES[separator]}, as the ending {path.suffix} says"
        remedy = "save it again as .tsv (tabs) with a point in decimal numbers"
        problems.append(Problem(str(path), f"columns separated by {other[0]}", expected, remedy))
        return False
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice or "" in head:
        got = f"column names given twice: {', '.join(twice)}" if any(twice) else f"column {head.index('') + 1} without a name"
        problems.append(Problem(str(path), got, "each column with a name of its own", "rename the columns"))
        return False
    return True


def _read_rows(table: Table, lines: Iterable[list[str]], problems: list[Problem]) -> None:
    for cells in lines:
        line = lines.line_num  # type: ignore[attr-defined]
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(table.columns):
            where = f"{table.path}, line {line}"
            expected = f"{len(table.columns)} cells, as many as the first line has"
            problems.append(Problem(where, f"{len(cells)} cells", expected, "mend the line; write n/a for what is missing"))
            continue
        values = (cell.strip() for cell in cells)
        table.rows.append({name: "" if value == "n/a" else value for name, value in zip(table.columns, values, strict=True)})
        table.lines.append(line)


def _blank_numbers(table: Table) -> None:
    """In a column whose other values are all numbers, take NA, NaN and the like as missing."""
    for name in table.columns:
        found = {row[name] for row in table.rows} - {""}
        words = {value for value in found if value.lower() in NO_NUMBER}
        if words and found - words and all(_is_number(value) for value in found - words):
            for row in table.rows:
                row[name] = "" if row[name] in words else row[name]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
