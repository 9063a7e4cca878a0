"""Reporting sheets: every answer is produced from what the run recorded, and names the keys it was read from.

An item without a key, or whose keys hold nothing, is unanswered and says so: a sentence that no record can change is no answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from gyri.report.parts import Missing, Reportlet, Table, text_link
from gyri.report.sheet_facts import look
from gyri.report.source import Source

KEY = re.compile(r"\{([^{}]+)\}")
GAP = "[not recorded]"
REST = "for the authors"
OPEN = f"unanswered: {REST}"
NAMES = ("claim", "tripod_ai", "model")


@dataclass(frozen=True)
class Answer:
    """One item of a sheet.

    Args:
        section, item, asks: from the sheet.
        answer: in words; empty where there is none.
        read_from: the keys it was made from.
        why: why there is none.
    """

    section: str
    item: str
    asks: str
    answer: str
    read_from: tuple[str, ...]
    why: str = ""

    @property
    def state(self) -> str:
        """answered, partly (a rest is for the authors, or was not recorded) or unanswered."""
        if not self.answer:
            return "unanswered"
        return "partly" if REST in self.answer or GAP in self.answer else "answered"


@cache
def sheet(name: str) -> dict[str, Any]:
    """A list of items: claim, tripod_ai or model."""
    return yaml.safe_load((Path(__file__).parent / f"sheet_{name}.yml").read_text(encoding="utf-8"))


def answers(source: Source, name: str) -> list[Answer]:
    """Every item of a sheet with its answer."""
    return [answer(source, section["title"], item) for section in sheet(name)["sections"] for item in section["items"]]


def answer(source: Source, section: str, item: dict[str, Any]) -> Answer:
    """One item of a sheet, `item` as it stands there, with what the run recorded."""
    about = (section, str(item["item"]), item["asks"])
    template = item.get("answer", "")
    if isinstance(template, dict):
        template = template.get(source.settings.task, "")
        if not template:
            return Answer(*about, "", (), f"does not apply to {source.settings.task}, or is for the authors")
    found: dict[str, str] = {}
    absent = []
    for key in dict.fromkeys(KEY.findall(template)):
        try:
            found[key] = look(source, key)
        except Missing:
            absent.append(key)
    if not found:
        return Answer(*about, "", (), f"not recorded: {', '.join(absent)}" if absent else OPEN)
    text = KEY.sub(lambda match: found.get(match[1], GAP), template)
    return Answer(*about, " ".join(text.split()), tuple(found))


def frame(found: list[Answer]) -> pd.DataFrame:
    """A sheet as a table."""
    rows = [
        {
            "section": one.section,
            "item": one.item,
            "asked_for": one.asks,
            "state": one.state,
            "answer": one.answer or one.why,
            "read_from": " ".join(one.read_from),
        }
        for one in found
    ]
    return pd.DataFrame(rows)


def tsv(source: Source, name: str) -> str:
    """A sheet as tab-separated text."""
    return frame(answers(source, name)).to_csv(sep="\t", index=False, lineterminator="\n")


def markdown(source: Source, name: str) -> str:
    """A sheet as Markdown, for a manuscript's supplement."""
    found, about = answers(source, name), sheet(name)
    lines = [f"# {about['title']}", "", f"{counts(found, name)} Items and topics: {about['source']}; the words are gyri's.", ""]
    lines += ["| Item | Asked for | Answer | Read from |", "|---|---|---|---|"]
    for one in found:
        cells = (one.item, one.asks, one.answer or f"**{one.why}**", ", ".join(f"`{key}`" for key in one.read_from))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def tally(source: Source) -> dict[str, dict[str, int]]:
    """Numbers of answered, partly answered and unanswered items by sheet."""
    found = {}
    for name in NAMES:
        states = Counter(one.state for one in answers(source, name))
        found[name] = {"items": states.total(), **{state: states[state] for state in ("answered", "partly", "unanswered")}}
    return found


def counts(found: list[Answer], name: str) -> str:
    """How many items are answered."""
    states = Counter(one.state for one in found)
    done = f"{states['answered']} of {len(found)} items answered from the run"
    return f"{sheet(name)['name']}: {done}, {states['partly']} partly, {states['unanswered']} unanswered."


def reportlet(name: str) -> Callable[[Source], Reportlet]:
    """The part of the page that shows a sheet."""

    def make(source: Source) -> Reportlet:
        found = answers(source, name)
        rows = []
        for one in found:
            said = one.answer or Markup("<em>{}</em>").format(one.why)
            keys = Markup("<br>").join(Markup("<code>{}</code>").format(key) for key in one.read_from)
            rows.append([one.item, Markup('{}<br><span class="about">{}</span>').format(one.asks, one.section), said, keys])
        table = Table(["Item", "Asked for", "Answer", "Read from"], rows, sheet(name)["title"], classes="folded sheet")
        link = text_link(markdown(source, name), "Markdown", f"{source.settings.experiment}_{name}.md")
        body = Markup('<p>{}</p><p class="actions">{}</p>').format(counts(found, name), link)
        notes = [f"Items and topics: {sheet(name)['source']}; the words are gyri's, and the published checklist is what counts."]
        return Reportlet(body=body, tables=[table], data=frame(found), notes=notes)

    return make
