"""When the next checkpoint is due: often enough, and once more before the end of the allocation, where that is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

MARGIN_SECONDS = 60.0  # before the known end
MARGIN_FRACTION = 0.2  # of the time that is left at the start, where that gives less
# how the end reaches a job: Slurm's own variable, or the copy that the workflow makes, since srun is not given the former
END_VARIABLES = ("SLURM_JOB_END_TIME", "GYRI_JOB_END_TIME")


class Schedule:
    """Tells when to write.

    A look can be made between two steps only (and between two batches of a validation), and writing takes its time as well. So the
    time from the last look to this one, and the last writing time, are added to the present: a checkpoint is complete `seconds`
    after the one before it, unless a single step and the writing together take longer than that, and then it comes after each step.

    Args:
        seconds: longest time between two checkpoints.
        end: when the allocation ends, on `clock`; None where that is not known.
        clock: seconds, never set back.
    """

    def __init__(self, seconds: float, end: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.end, self.clock = seconds, end, clock
        self.written = self.looked = clock()
        self.cost = 0.0
        self.margin = 0.0 if end is None else min(MARGIN_SECONDS, MARGIN_FRACTION * max(end - self.written, 0.0))

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        now = self.clock()
        ahead = now - self.looked + self.cost
        self.looked = now
        if self.end is not None and now + ahead >= self.end - self.margin:
            self.end = None  # once: the time that is left is for the job to end by itself
            return True
        return now + ahead - self.written >= self.seconds

    def done(self, began: float) -> None:
        """A checkpoint is complete.

        Args:
            began: when its writing began, on the clock.
        """
        self.written = self.looked = self.clock()
        self.cost = self.written - began


def allocation_end(
    minutes: float,
    age: float,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> float | None:
    """When the allocation of this job ends.

    Args:
        minutes: its length as it was asked for, counted from the start of this process; 0 where that is not known.
        age: seconds since this process was started.
        environment: may hold the end in seconds since 1970, which Slurm gives a job (it survives a requeue); the earlier one counts.
        clock: what the answer refers to.
        wall: seconds since 1970.

    Returns:
        A time on `clock`; None where nothing is known, or the end has passed.
    """
    now = clock()
    ends = [now - age + 60 * minutes] if minutes > 0 else []
    ends += [now + int(environment[name]) - wall() for name in END_VARIABLES if environment.get(name, "").isdecimal()]
    return min((end for end in ends if end > now), default=None)
