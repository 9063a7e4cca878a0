"""Being asked to stop: SIGTERM and SIGUSR1 end a job with its state saved, wherever it stands."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from gyri.errors import Interrupted, Problem

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Whether a signal has asked to stop.

    A signal ends the job at once, since there is nothing to save while data are read or another process is waited for;
    inside `gently` it only sets a flag, which whoever has something to save looks at.
    """

    def __init__(self) -> None:
        self.asked = False
        self._gently = False

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.asked

    @contextlib.contextmanager
    def gently(self) -> Iterator[None]:
        """While inside, a signal only sets the flag."""
        self._gently = True
        try:
            yield
        finally:
            self._gently = False

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """What a signal does.

        Raises:
            Interrupted: there is nothing to save.
        """
        self.asked = True
        if not self._gently:
            got = f"{signal.Signals(number).name} before the first step"
            raise Interrupted(Problem("training", got, "to run to the end; nothing was lost", "run again"))


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """While inside, SIGTERM and SIGUSR1 are answered; yields what tells whether one came.

    The handlers are set whatever was inherited: under Slurm the processes around this one ignore SIGUSR1, and so would it.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
