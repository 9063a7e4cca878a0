"""One thing that was looked at before the first job, and how to ask other programs about it without waiting for long."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SECONDS = 4.0  # a program that answers later is taken for one that does not


@dataclass(frozen=True)
class Check:
    """What was found.

    Args:
        name: of the thing.
        status: ok; warning: jobs can run; FAILED: they cannot.
        found: what was found, one line.
        remedy: what to do about it.
    """

    name: str
    status: Literal["ok", "warning", "FAILED"]
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:7}  {self.name:11}  {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Answer:
    """What a program said.

    Args:
        good: whether it ended well and in time.
        text: its output, or its complaint.
    """

    good: bool
    text: str

    @property
    def lines(self) -> list[str]:
        """The output without empty lines."""
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    @property
    def complaint(self) -> str:
        """The end of what it said, on one line."""
        return " ".join(" ".join(self.lines[-2:]).split()) or "no output"


def ask(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program that only answers a question.

    Args:
        command: program and arguments.
        environment: variables that are added to those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL, env=variables
        )
    except FileNotFoundError:
        return Answer(False, f"{command[0]}: not found")
    except subprocess.TimeoutExpired:
        return Answer(False, f"{command[0]}: no answer within {SECONDS:.0f} s")
    except OSError as error:
        return Answer(False, f"{command[0]}: {error.strerror or error}")
    return Answer(done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr + done.stdout)
