"""Progress with rate and time left: a moving line on a terminal, a plain line now and then in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")


def log(message: str) -> None:
    """Print one plain line to standard error at once."""
    print(message, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Say a time as people do: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts steps and says how fast they go and how long the rest will take.

    Args:
        title: what is being done.
        total: number of steps.
        start: steps already done before (after a resume).
        stream: where to write; standard error by default.
    """

    def __init__(self, title: str, total: int, start: int = 0, stream: TextIO | None = None):
        self.title, self.total, self.done, self.first = title, total, start, start
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.began = self.said = time.monotonic()

    def step(self, note: str = "", count: int = 1) -> None:
        """Count `count` steps; print when it is time to (ten times a second live, every 10 s in a file, and at the end)."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self.said < (0.1 if self.live else 10.0):
            return
        self.said = now
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        end = f"{duration(left)} left" if self.done < self.total else f"took {duration(now - self.began)}"
        line = f"{self.title}: {self.done}/{self.total}, {rate:.2f}/s, {end}" + (f", {note}" if note else "")
        last = self.done >= self.total
        self.stream.write(f"\r\x1b[K{line}" + ("\n" if last else "") if self.live else line + "\n")
        self.stream.flush()


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield the items, showing progress."""
    bar = Progress(title, total)
    for item in items:
        yield item
        bar.step()
