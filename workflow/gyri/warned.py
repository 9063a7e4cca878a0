"""Warnings of a job, in short: caught while it works, printed all the same, and kept without paths for provenance and page."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TextIO

MOST = 40  # different warnings that are kept; how many more there were is said
LONGEST = 300  # characters of one
PATH = re.compile(r"(?:[A-Za-z]:\\|~?/)[^\s'\"`,;:()\[\]<>]*[/\\][^\s'\"`,;:()\[\]<>]*|(?<![\w/.])/[\w.-]{2,}")


class Caught:
    """What was warned of so far.

    Lines are appended to a file, which worker processes write to as well: forked ones have it, spawned ones `join`.

    Args:
        name: of a file that another process began; None begins one.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is None:
            first, name = tempfile.mkstemp(prefix="gyri-warnings-")
            os.close(first)
        self.name, self._descriptor = name, os.open(name, os.O_WRONLY | os.O_APPEND)

    def add(self, kind: str, message: str) -> None:
        """Note one warning; its text may hold paths, which are left out."""
        line = json.dumps([kind, without_paths(message)]) + "\n"
        with contextlib.suppress(OSError):  # a full disk is told of by what is written afterwards
            os.write(self._descriptor, line.encode())

    def listed(self) -> list[dict[str, Any]]:
        """Different warnings with their kind and count, the commonest first; a last entry counts those that are left out."""
        counts: Counter[tuple[str, str]] = Counter()
        with open(self.name, encoding="utf-8") as handle:  # noqa: PTH123
            for line in handle:
                kind, message = json.loads(line)
                counts[kind, message] += 1
        common = counts.most_common(MOST)
        found: list[dict[str, Any]] = [{"kind": kind, "message": message, "count": count} for (kind, message), count in common]
        if len(counts) > MOST:
            left = f"{len(counts) - MOST} more different warnings; the log has them"
            found.append({"kind": "left out", "message": left, "count": counts.total() - sum(count for _, count in common)})
        return found

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self.name)  # noqa: PTH108


class _Handler(logging.Handler):
    """Notes records of loggers, and prints those that nobody else would print, as Python does without any handler."""

    def __init__(self, caught: Caught):
        super().__init__(logging.WARNING)
        self.caught = caught

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record."""
        self.caught.add(record.levelname.lower(), record.getMessage())
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        if logging.lastResort is not None:
            logging.lastResort.handle(record)


@contextlib.contextmanager
def noticed() -> Iterator[Caught]:
    """Note every warning and every logged warning or error while inside; all are printed as before.

    Yields:
        What was caught, also from `note`.
    """
    caught = Caught()
    with warnings.catch_warnings():
        handler = _listen(caught)
        try:
            yield caught
        finally:
            _OPEN.remove(caught)
            logging.getLogger().removeHandler(handler)
            caught.close()


def so_far() -> list[dict[str, Any]]:
    """What the innermost `noticed` has caught until now; nothing outside of one."""
    return _OPEN[-1].listed() if _OPEN else []


def shared() -> tuple[str, ...]:
    """What a spawned worker process must be told, for it to `join`."""
    return tuple(caught.name for caught in _OPEN)


def join(*names: str) -> None:
    """In a worker process: let its warnings be caught by the process that started it.

    Args:
        names: what `shared` gave there.
    """
    for name in names:
        if name not in shared():
            _listen(Caught(name))


def note(message: str) -> None:
    """Note a warning that gyri itself gives; who gives it prints it too."""
    for caught in _OPEN:
        caught.add("gyri", message)


def without_paths(message: str) -> str:
    """One line of limited length in which no path is left, since pages show it and paths name people and machines."""
    text = PATH.sub("[file]", " ".join(str(message).split()))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"


_OPEN: list[Caught] = []


def _listen(caught: Caught) -> logging.Handler:
    """Catch what this process warns of from now on."""
    warnings.showwarning = _noting(caught, warnings.showwarning)
    handler = _Handler(caught)
    logging.getLogger().addHandler(handler)
    _OPEN.append(caught)
    return handler


def _noting(caught: Caught, show: Callable[..., None]) -> Callable[..., None]:
    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        caught.add(category.__name__, str(message))
        show(message, category, filename, lineno, file, line)

    return shown
