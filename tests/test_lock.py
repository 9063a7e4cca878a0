"""The lock of a training: never two at once, never blocked by a dead one for long, whatever the clocks of the machines say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gyri.errors import DataError
from gyri.train import lock as module
from gyri.train.lock import LONG_DEAD_SECONDS, STALE_SECONDS, Lock


def test_the_second_waits_until_the_first_is_done(tmp_path: Path) -> None:
    first, second, got = Lock(tmp_path), Lock(tmp_path), []
    assert first.acquire()
    waiting = threading.Thread(target=lambda: got.append(second.acquire(poll_seconds=0.01)))
    waiting.start()
    time.sleep(0.1)
    assert not got
    first.release()
    waiting.join(5)
    assert got == [True]
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_result_is_there(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    first.acquire()
    assert Lock(tmp_path).acquire(finished=lambda: True) is False
    first.release()


def write_lock(folder: Path, age: float = 0.0, **holder: Any) -> None:
    """A lock of a process of another machine, touched so many seconds ago by the clock of the file system."""
    path, content = folder / "lock.json", {"host": "far", "machine": "another", "pid": 1, "birth": "1", "token": "t", **holder}
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - age, time.time() - age))


class Watch:
    """A clock of the watcher that goes on by `poll` at every look; `each` happens then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Callable[[float], None] = lambda now: None, poll: float = 1.0):
        self.now, self.each, self.poll = 0.0, each, poll
        monkeypatch.setattr(module.time, "sleep", self.sleep)

    def __call__(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += self.poll
        self.each(self.now)


def never_longer_than(watch: Watch, seconds: float) -> Callable[[], bool]:
    return lambda: watch.now > seconds


@pytest.mark.parametrize("skew", [0.0, 280.0, -280.0])
def test_a_dead_node_is_waited_for_two_minutes_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    """The node is gone without a word; its clock, and so its last touch, was before or behind that of this machine."""
    write_lock(tmp_path, age=skew)
    watch = Watch(monkeypatch)
    lock = Lock(tmp_path, clock=watch)
    assert lock.acquire(finished=never_longer_than(watch, 1000))
    assert STALE_SECONDS < watch.now <= STALE_SECONDS + 2
    lock.release()


@pytest.mark.parametrize("skew", [0.0, 280.0, -280.0])
def test_a_live_one_is_never_robbed_whatever_the_clocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    write_lock(tmp_path, age=skew)

    def beat(now: float) -> None:
        if now % 10 == 0:
            os.utime(tmp_path / "lock.json", (time.time() - skew, time.time() - skew))

    watch = Watch(monkeypatch, beat)
    assert Lock(tmp_path, clock=watch).acquire(finished=never_longer_than(watch, 700)) is False
    assert watch.now > 700 and json.loads((tmp_path / "lock.json").read_text())["token"] == "t"


def test_a_file_server_that_shows_touches_a_minute_late_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(tmp_path)
    watch = Watch(monkeypatch, lambda now: os.utime(tmp_path / "lock.json") if now % 70 == 0 else None)
    assert Lock(tmp_path, clock=watch).acquire(finished=never_longer_than(watch, 1000)) is False


def test_a_lock_of_long_ago_is_taken_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a power cut: the processes before it had the same numbers, but it was another boot."""
    write_lock(tmp_path, age=LONG_DEAD_SECONDS + 60)
    watch = Watch(monkeypatch)
    lock = Lock(tmp_path, clock=watch)
    assert lock.acquire() and watch.now == 0
    lock.release()


def test_a_live_process_of_this_machine_is_not_robbed_after_the_machine_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Lock(tmp_path)
    holder.acquire()
    os.utime(holder.path, (0, 0))
    watch = Watch(monkeypatch)
    assert Lock(tmp_path, clock=watch).acquire(finished=never_longer_than(watch, 3)) is False
    holder.check()
    holder.release()


@pytest.mark.parametrize(("restart", "seconds"), [("1", 0), ("0", STALE_SECONDS + 1)])
def test_a_requeued_job_does_not_wait_for_its_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: str, seconds: float
) -> None:
    write_lock(tmp_path, job="17", cluster="c", restart=0)
    for name, value in (("SLURM_JOB_ID", "17"), ("SLURM_CLUSTER_NAME", "c"), ("GYRI_RESTART_COUNT", restart)):
        monkeypatch.setenv(name, value)
    watch = Watch(monkeypatch)
    lock = Lock(tmp_path, clock=watch)
    assert lock.acquire() and watch.now == seconds
    lock.release()


@pytest.mark.parametrize("holder", [{"job": "18", "cluster": "c"}, {"job": "17", "cluster": "d"}, {"job": "", "cluster": ""}])
def test_another_job_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: dict[str, str]) -> None:
    write_lock(tmp_path, restart=0, **holder)
    for name, value in (("SLURM_JOB_ID", "17"), ("SLURM_CLUSTER_NAME", "c"), ("SLURM_RESTART_COUNT", "3")):
        monkeypatch.setenv(name, value)
    watch = Watch(monkeypatch)
    assert Lock(tmp_path, clock=watch).acquire(finished=never_longer_than(watch, 60)) is False


def test_a_process_that_stood_still_loses_its_lock_and_stops_before_it_saves(tmp_path: Path) -> None:
    """Stopped like a suspended job: its heartbeat stops as well, another process takes over, and it notices when it wakes up."""
    code = "import sys, pathlib; from gyri.train.lock import Lock; lock = Lock(pathlib.Path(sys.argv[1]), beat_seconds=0.05)"
    code += "; lock.acquire(); print(1, flush=True); input(); lock.check()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "workflow"}, text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    lock = Lock(tmp_path, stale_seconds=1.0)
    assert lock.acquire(poll_seconds=0.05)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate("go on\n", timeout=60)
    assert process.returncode and "DataError" in errors and "the lock of this process" in errors
    lock.check()
    lock.release()


def test_the_waiting_say_whom_they_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write_lock(tmp_path, job="41")
    watch = Watch(monkeypatch)
    lock = Lock(tmp_path, clock=watch)
    lock.acquire()
    lock.release()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "waiting for process 1 on far (Slurm job 41), which trains the same model"
    assert said[1].endswith("silent for 30 s, taken over after 2 min 00 s")
    assert said[-1] == "the lock of process 1 on far (Slurm job 41) is stale: taken over"


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib; from gyri.train.lock import Lock; Lock(pathlib.Path(sys.argv[1])).acquire()"
    code += "; print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "workflow"})
    assert process.stdout is not None and process.stdout.readline()
    looks = iter([False, False, True])
    assert Lock(tmp_path).acquire(finished=lambda: next(looks), poll_seconds=0.01) is False  # alive: it waits
    process.kill()
    process.wait()
    lock, began = Lock(tmp_path), time.monotonic()
    assert lock.acquire() and time.monotonic() - began < 5
    lock.release()


def test_the_heartbeat_keeps_the_lock_fresh(tmp_path: Path) -> None:
    lock = Lock(tmp_path, beat_seconds=0.02)
    lock.acquire()
    os.utime(lock.path, (0, 0))
    time.sleep(0.3)
    assert time.time() - lock.path.stat().st_mtime < 60
    lock.release()


def test_a_process_that_lost_its_lock_stops(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.acquire()
    lock.check()
    write_lock(tmp_path)
    with pytest.raises(DataError, match="held by process 1 on far"):
        lock.check()
    lock.release()
    assert (tmp_path / "lock.json").exists()  # it belongs to the other one
