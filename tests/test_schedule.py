"""When checkpoints are made: never later than asked for, as far as steps allow, and once before the known end of the allocation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gyri.cli import main
from gyri.errors import Interrupted
from gyri.layout import Layout
from gyri.train import loop
from gyri.train.checkpoint import Checkpoints
from gyri.train.schedule import MARGIN_SECONDS, Schedule, allocation_end
from gyri.train.signals import Stop
from packed import make_dataset, train_settings
from test_train import hashes, state_folder, train


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def saves(step: float, write: float, lasting: float, seconds: float = 60.0, end: float | None = None) -> list[float]:
    """Times since the start at which checkpoints were complete, in a training of steps that all take as long."""
    clock, found = Clock(), []
    schedule = Schedule(seconds, None if end is None else clock.now + end, clock)
    while clock.now < 1000 + lasting:
        clock.now += step
        if schedule.due():
            began = clock.now
            clock.now += write
            schedule.done(began)
            found.append(clock.now - 1000)
    return found


@pytest.mark.parametrize(("step", "write"), [(0.1, 0.0), (0.1, 5.0), (7.0, 3.0), (25.0, 4.0), (29.0, 1.0)])
def test_a_checkpoint_is_complete_within_a_minute_of_the_one_before(step: float, write: float) -> None:
    times = [0.0, *saves(step, write, 1000)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # the first writing is a surprise: how long it takes is not known before
    assert gaps[0] <= 60 + write and max(gaps[1:]) <= 60 and len(gaps) >= 15


def test_steps_that_take_longer_are_each_followed_by_a_checkpoint() -> None:
    assert saves(90.0, 2.0, 400) == [92.0, 184.0, 276.0, 368.0, 460.0]


def test_no_checkpoint_is_made_without_need() -> None:
    assert len(saves(0.1, 0.0, 600)) <= 11


@pytest.mark.parametrize("step", [0.1, 3.0, 20.0])
def test_one_is_made_a_minute_before_the_known_end(step: float) -> None:
    times = saves(step, 0.5, 3600, seconds=100_000, end=3600)
    assert len(times) == 1 and 3600 - MARGIN_SECONDS - 2 * step - 1 <= times[0] <= 3600 - MARGIN_SECONDS + 1


def test_in_a_short_allocation_it_is_made_shortly_before_the_end() -> None:
    assert saves(1.0, 0.0, 100, seconds=100_000, end=100) == [79.0]


def test_without_an_end_none_is_made_for_it() -> None:
    assert saves(1.0, 0.0, 7200, seconds=100_000) == []


def test_slow_steps_still_leave_time_to_write() -> None:
    """The look before the last one already sees that the next would come too late."""
    times = saves(50.0, 5.0, 600, seconds=100_000, end=600)
    assert times and times[0] <= 600 - MARGIN_SECONDS


def now() -> float:
    return 500.0


@pytest.mark.parametrize(
    ("minutes", "environment", "expected"),
    [
        (0, {}, None),
        (10, {}, 500 - 20 + 600),
        (0, {"SLURM_JOB_END_TIME": "1700000300"}, 800),
        (0, {"GYRI_JOB_END_TIME": "1700000300"}, 800),  # handed on by the workflow
        (10, {"SLURM_JOB_END_TIME": "1700000300"}, 800),  # after a requeue, or where the site gave less than was asked for
        (1, {"SLURM_JOB_END_TIME": "1700000300"}, 500 - 20 + 60),
        (10, {"SLURM_JOB_END_TIME": "1600000000"}, 500 - 20 + 600),  # of another job, inherited
        (0.1, {}, None),  # it has passed
        (0, {"SLURM_JOB_END_TIME": "soon"}, None),
    ],
)
def test_the_end_of_the_allocation(minutes: float, environment: dict[str, str], expected: float | None) -> None:
    assert allocation_end(minutes, 20.0, environment, now, lambda: 1_700_000_000.0) == expected


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_dataset(tmp_path)


class Killed(BaseException):
    """As by SIGKILL: nothing is tidied up."""


def watch_validation(monkeypatch: pytest.MonkeyPatch, happen: Callable[[Checkpoints, Stop], None]) -> None:
    """Let something happen in the validation of the second epoch."""
    original, count = loop.validate, []

    def validate(*arguments: Any, between: Any) -> Any:
        count.append(None)
        if len(count) == 2:
            _, checkpoints, _, stop = between.args
            happen(checkpoints, stop)
        return original(*arguments, between=between)

    monkeypatch.setattr(loop, "validate", validate)


def disturbed(layout: Layout, monkeypatch: pytest.MonkeyPatch, happen: Callable[[Checkpoints, Stop], None]) -> None:
    """Train, end in the second validation, go on; the bytes must be those of an undisturbed training."""
    settings = train_settings(epochs=3, checkpoint_seconds=1000)
    train(layout, settings, "undisturbed")
    expected = hashes(layout)
    with monkeypatch.context() as patch, pytest.raises((Killed, Interrupted)):
        watch_validation(patch, happen)
        train(layout, settings)
    # two epochs of two steps; the second epoch is still open, and its validation is made again
    assert [path.name for path in state_folder(layout, settings).glob("state-*.json")] == ["state-0000000004.json"]
    assert train(layout, settings)["sessions"] == [{"first_step": 0, "last_step": 4}, {"first_step": 4, "last_step": 6}]
    assert hashes(layout) == expected


def test_a_checkpoint_that_is_due_in_a_validation_is_made_there(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_due(checkpoints: Checkpoints, _: Stop) -> None:
        def done(_: float) -> None:
            raise Killed

        checkpoints.schedule.written = -1e9
        checkpoints.schedule.done = done  # type: ignore[method-assign]

    disturbed(layout, monkeypatch, make_due)


def test_a_signal_in_a_validation_does_not_wait_for_its_end(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_: Checkpoints, stop: Stop) -> None:
        stop.asked = True

    disturbed(layout, monkeypatch, ask)


def test_the_command_line_hands_on_what_is_known(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(*arguments: Any) -> dict[str, Any]:
        given[:] = arguments[-2:]
        return {}

    monkeypatch.setattr("gyri.train.run", run)
    monkeypatch.setattr("gyri.cli.stages.verify_code", lambda *_: None)
    words = ["train", "--settings", train_settings().model_dump_json(), "--results", str(layout.root), "--dataset", "tiny"]
    words += ["--experiment", "exp", "--model", "net", "--fold", "0"]
    assert main([*words, "--runtime", "100000", "--versions", "warn"]) == 0
    end, versions = given
    assert versions == "warn" and 0 < end - time.monotonic() < 6_000_000
    assert main(words) == 0
    assert given == [None, "strict"]
