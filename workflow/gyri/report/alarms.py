"""Warnings that any stage raised, for the top of the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from gyri.report.source import Source
from gyri.warned import without_paths

FEW = 5  # up to so many are unfolded


@dataclass(frozen=True)
class Alarm:
    """One warning.

    Args:
        stage: in which it was raised, with the model where there is one.
        kind: of the warning: a Python category, a logging level, or gyri.
        message: without paths.
        count: how often, over all jobs of the stage.
        jobs: in how many jobs.
    """

    stage: str
    kind: str
    message: str
    count: int
    jobs: int


def alarms(source: Source) -> list[Alarm]:
    """Every different warning of every stage but the page's own, in the order of the stages."""
    counts: Counter[tuple[str, str, str]] = Counter()
    jobs: Counter[tuple[str, str, str]] = Counter()
    for record in source.provenance:
        stage = str(record.get("stage"))
        if stage in ("report", "index"):
            continue
        name = f"{stage} {source.label(str(record['model']))}" if record.get("model") else stage
        for (kind, message), count in _of(record).items():
            counts[name, kind, message] += count
            jobs[name, kind, message] += 1
    return [Alarm(*key, count, jobs[key]) for key, count in counts.items()]


def _of(record: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Warnings of one job; a training that was handed over keeps those of the process that trained it."""
    facts = record.get("facts") or {}
    found: dict[tuple[str, str], int] = {}
    told = [*_list(record.get("warnings")), *_list(facts.get("warnings"))]
    for item in told:
        entry: dict[str, Any] = {"kind": "gyri", "message": item, "count": 1} if isinstance(item, str) else item
        key = (str(entry.get("kind", "gyri")), without_paths(str(entry.get("message", ""))))
        found[key] = max(found.get(key, 0), int(entry.get("count", 1)))
    return found


def _list(value: Any) -> list[Any]:
    return [item for item in value if isinstance(item, str | dict)] if isinstance(value, list) else []


def summary(found: list[Alarm]) -> str:
    """How many, in how many stages."""
    stages = len({alarm.stage.split(" ")[0] for alarm in found})
    different = f"{len(found)} different warning{'' if len(found) == 1 else 's'}"
    return f"{different} in {stages} stage{'' if stages == 1 else 's'}, {sum(alarm.count for alarm in found)} in all"
