"""Checks of the arguments that a configuration gives to a network or baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gyri.errors import ConfigError, Problem


class Checks:
    """Collects what is wrong with the arguments of one network, and raises it all at once.

    Args:
        network: its name.
    """

    def __init__(self, network: str):
        self.network = network
        self.problems: list[Problem] = []

    def integer(self, name: str, value: Any, least: int) -> None:
        """A whole number of at least `least`."""
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problem(name, repr(value), f"a whole number of at least {least}", "change the value")

    def fraction(self, name: str, value: Any) -> None:
        """A number from 0 to below 1."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.problem(name, repr(value), "a number from 0 to below 1", "change the value")

    def choice(self, name: str, value: Any, choices: Sequence[str]) -> None:
        """One of some words."""
        if value not in choices:
            self.problem(name, repr(value), f"one of {', '.join(choices)}", "change the value")

    def problem(self, name: str, got: str, expected: str, remedy: str) -> None:
        """Note something else that is wrong."""
        self.problems.append(Problem(f"arguments.{name} of the network `{self.network}`", got, expected, remedy))

    def close(self) -> None:
        """End of the checks.

        Raises:
            ConfigError: something was wrong.
        """
        if self.problems:
            raise ConfigError(self.problems)
