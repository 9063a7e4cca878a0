"""What a page is made of: figures, tables, passages, and what is missing."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

NONE = "\u2013"
"""Stands in a cell that has nothing to hold."""
MOST_ROWS = 3000
"""A figure's table is embedded up to this many rows; longer ones are named by file, so that the page stays small."""


class Missing(Exception):
    """What a part of the page needs is not there; the text says what and why."""


class Lost(Missing):
    """What the run was asked for is not there: also an optional part then shows as missing."""


@dataclass
class Table:
    """A table for reading.

    Args:
        columns: headings; a leading # marks a column of numbers (set flush right).
        rows: cells; Markup stays as it is, everything else is escaped.
        caption: said by screen readers.
        classes: of the table element.
        row_classes: one per row, or none.
        row_models: the model that each row is about (several: separated by a blank), or none; the row vanishes with it.
    """

    columns: list[str]
    rows: list[list[Any]]
    caption: str
    classes: str = ""
    row_classes: list[str] = field(default_factory=list)
    row_models: list[str] = field(default_factory=list)


@dataclass
class Reportlet:
    """One part of a section: a figure, a table or a passage.

    Args:
        alt: what the figure shows, in words.
        panels: SVG drawings, set side by side where there is room.
        narrow: drawings shown instead of `panels` on a narrow screen.
        legend: (mark, words) pairs; the mark is an SVG drawing.
        tables: for reading.
        body: a passage.
        data: the table behind the figure, offered as TSV.
        notes: sentences about this very figure, set below its caption.
        columns: most panels in a row.
    """

    alt: str = ""
    panels: list[Markup] = field(default_factory=list)
    narrow: list[Markup] = field(default_factory=list)
    legend: list[tuple[Markup, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    body: Markup = field(default_factory=Markup)
    data: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
    columns: int = 3


def heading(column: str) -> str:
    """A column's name for reading."""
    return column.replace("_id", "").replace("_", " ").capitalize()


def tsv_link(data: pd.DataFrame) -> str:
    """The table as a data: link that a browser saves as a file."""
    text = data.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n", float_format="%.10g")
    return "data:text/tab-separated-values;base64," + base64.b64encode(text.encode()).decode()


def text_link(text: str, words: str, name: str) -> Markup:
    """A link that saves a text as a file."""
    content = base64.b64encode(text.encode()).decode()
    return Markup('<a href="data:text/plain;charset=utf-8;base64,{}" download="{}">{}</a>').format(content, name, words)


def html_table(table: Table) -> Markup:
    """The table as HTML, every cell escaped."""
    head = []
    for name in table.columns:
        numeric = name.startswith("#")
        words = escape(name.lstrip("#")) or Markup('<span class="unseen">State</span>')
        head.append(f'<th scope="col"{_class("n" if numeric else "")}>{words}</th>')
    body = []
    for index, row in enumerate(table.rows):
        cells = []
        for name, cell in zip(table.columns, row, strict=True):
            kind = _class("n" if name.startswith("#") else "")
            cells.append(f"<td{kind}>{escape(cell)}</td>")
        about = _class(table.row_classes[index] if table.row_classes else "")
        about += f' data-model="{escape(table.row_models[index])}"' if table.row_models else ""
        body.append(f"<tr{about}>{''.join(cells)}</tr>")
    name = f'<caption class="unseen">{escape(table.caption)}</caption>'
    return Markup(
        f"<table{_class(table.classes)}>{name}<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def exact(value: float, text: str) -> Markup:
    """A rounded number that carries its exact value for whoever reads the page by program."""
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), text)


def _class(name: str) -> str:
    return f' class="{escape(name)}"' if name else ""
