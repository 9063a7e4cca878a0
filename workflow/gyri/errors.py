"""Errors that a user can act on: where, what was got, what is expected, how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMES = 20  # right names that a message lists


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave.

    Args:
        where: the file, or the configuration key, or both ("config.yaml: datasets.brains.folds").
        got: what stands there.
        expected: what would be right.
        remedy: what to do about it.
    """

    where: str
    got: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}\n    got:      {self.got}\n    expected: {self.expected}\n    remedy:   {self.remedy}"


def shown(names: Iterable[str], limit: int = 10) -> str:
    """List names, the first few only where they are many."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about a wrong name: the nearest right one, or the list of them."""
    import difflib  # only on the way to a message

    names = sorted(set(known))
    by_lower = {item.lower(): item for item in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if near:
        return f"did you mean `{by_lower[near[0]]}`?"
    return f"take one of {', '.join(names[:MOST_NAMES]) or '(none)'}{', ...' if len(names) > MOST_NAMES else ''}"


class GyriError(Exception):
    """What is told to the user without a traceback; carries every problem found, not the first.

    Args:
        problems: one problem or a list of them.
    """

    exit_code = 1

    def __init__(self, problems: Problem | list[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"{type(self).title}: {count} problem{'s' if count != 1 else ''}"
        return "\n".join([title, *(f"  {index}. {problem}" for index, problem in enumerate(self.problems, 1))])

    title = "gyri stopped"


class ConfigError(GyriError):
    """The configuration cannot be used."""

    title = "The configuration cannot be used"


class DataError(GyriError):
    """A file or a table cannot be used."""

    title = "The data cannot be used"


class LeakageError(GyriError):
    """Something would let test participants influence a model."""

    title = "Leakage refused"


class ProvenanceError(GyriError):
    """Code, environment or inputs are not those the job was planned with."""

    title = "The job is not the one that was planned"


class ContainerError(GyriError):
    """A container image is missing, is not the locked one, or could not be built."""

    title = "The container image cannot be used"


class DeviceError(GyriError):
    """A GPU computes wrong numbers."""

    title = "The device cannot be trusted"


class PreflightError(GyriError):
    """Something that every job needs is missing on this machine or cluster."""

    title = "Jobs cannot run here"


class Interrupted(GyriError):
    """A signal asked the job to stop; its state is saved and the next run goes on from there."""

    title = "Stopped on request"
    exit_code = 75
