"""Settings and facts as the jobs of a stage recorded them, read key by key; what is not recorded shows as a gap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gyri.report.parts import Missing
from gyri.report.source import Source

GAP = "[not available: {}]"
_ABSENT = object()


class Told:
    """What one job recorded.

    Args:
        record: its provenance.
        part: `settings` or `facts`.
    """

    def __init__(self, record: dict[str, Any], part: str = "settings"):
        self.record, self.part = record, part

    def __call__(self, path: str, default: Any = _ABSENT) -> Any:
        """The value of a key such as `training.epochs`; a marked gap, or the default, where it was not recorded."""
        value: Any = self.record.get(self.part)
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return GAP.format(path) if default is _ABSENT else default
            value = value[key]
        return value

    def on(self, path: str) -> bool:
        """Whether a setting is switched on: recorded, and neither none, 0, false nor empty."""
        value = self(path, None)
        return bool(value) and value != "none"

    @property
    def facts(self) -> Told:
        """What the same job found."""
        return Told(self.record, "facts")


def records(source: Source, stage: str, **names: Any) -> list[dict[str, Any]]:
    """Provenance of every job of a stage with these names; of locked participants there is none here."""
    found = []
    for record in source.provenance:
        wanted = record.get("stage") == stage and all(record.get(key) == value for key, value in names.items())
        if wanted and "/locked/" not in str(record.get("file")):
            found.append(record)
    return found


def first(source: Source, stage: str, **names: Any) -> Told:
    """The settings of a stage's first job.

    Raises:
        Missing: no job of it is recorded.
    """
    found = [record for record in records(source, stage, **names) if isinstance(record.get("settings"), dict)]
    if not found:
        raise Missing(f"settings of the stage {stage}")
    return Told(found[0])


def number(value: Any) -> str:
    """A number for reading, short and without loss; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def percent(value: Any) -> str:
    """A fraction as percent."""
    return f"{100 * value:.6g}\u00a0%" if isinstance(value, int | float) else str(value)


def listed(values: Iterable[Any], last: str = "and") -> str:
    """Several things in words: a, b and c."""
    texts = [number(value) for value in values]
    return f" {last} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def counted(count: Any, noun: str) -> str:
    """A number with its noun."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def span(values: Iterable[float | int]) -> str:
    """From the smallest to the largest."""
    found = sorted(values)
    return number(found[0]) if found[0] == found[-1] else f"{number(found[0])} to {number(found[-1])}"
