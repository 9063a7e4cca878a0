"""A lock with a heartbeat, so that two processes never train the same model at once, and a dead one does not block for ever.

When another process may take over:
- the holder ran on this machine and is gone, or is an earlier run of this very Slurm job, which Slurm put back into the queue: at once;
- the lock was last touched more than a quarter of an hour ago: at once;
- else after two minutes of watching in which nobody touched it. Only the watcher's own clock counts, so clocks that differ between
  machines, or between them and the file server, neither break a live lock nor keep a dead one.
A process that stood still for so long and lost its lock notices before it saves anything (`check`), and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyri.errors import DataError, Problem
from gyri.io import canonical_json, room
from gyri.progress import duration, log

STALE_SECONDS = 120.0  # a file server may show a touch as late as a minute after it (actimeo of NFS)
LONG_DEAD_SECONDS = 900.0  # beyond any difference of clocks that a cluster works with: munge refuses five minutes
BEAT_SECONDS = 10.0
SAY_SECONDS = 30.0


@dataclass(frozen=True)
class Seen:
    """A lock as it was found.

    Args:
        holder: what is written in it; empty where that cannot be read.
        touched: when it was touched, in nanoseconds of whatever clock the file system keeps.
    """

    holder: dict[str, Any]
    touched: int

    @property
    def name(self) -> str:
        """The holder in words."""
        job = f" (Slurm job {self.holder['job']})" if self.holder.get("job") else ""
        return f"process {self.holder.get('pid')} on {self.holder.get('host')}{job}"


class Lock:
    """Holds `lock.json` in a folder and touches it every few seconds from a thread.

    Args:
        folder: what is locked.
        stale_seconds: a lock that nobody touched while it was watched for so long is taken over.
        beat_seconds: time between touches.
        clock: seconds, never set back.
    """

    def __init__(
        self,
        folder: Path,
        stale_seconds: float = STALE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path = folder / "lock.json"
        self.stale_seconds, self.beat_seconds, self.clock = stale_seconds, beat_seconds, clock
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, finished: Callable[[], bool] = lambda: False, poll_seconds: float = 0.5) -> bool:
        """Wait for the lock.

        Args:
            finished: asked while waiting; True ends the wait, since the other process has made the result.
            poll_seconds: time between looks.

        Returns:
            True with the lock held; False when `finished` said so.
        """
        seen, since, said = None, self.clock(), -SAY_SECONDS
        while not self._create():
            found = self._look()
            new = found != seen
            if new:
                seen, since = found, self.clock()
            silent = self.clock() - since
            if found is not None and (_dead(found) or silent > self.stale_seconds or (new and self._long_silent(found))):
                self._take_away(found)
                continue
            if finished():
                return False
            if found is not None and self.clock() - said >= SAY_SECONDS:
                said = self.clock()
                quiet = f"; silent for {duration(silent)}, taken over after {duration(self.stale_seconds)}"
                log(f"waiting for {found.name}, which trains the same model" + (quiet if silent > 2 * self.beat_seconds else ""))
            time.sleep(poll_seconds)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return True

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            DataError: another process took it over, since this one stood still for too long.
        """
        found = self._look()
        if found is None or found.holder.get("token") != self.token:
            got = f"held by {found.name}" if found else "gone"
            remedy = "let the other process finish; nothing of this one is lost that it does not do as well"
            raise DataError(Problem(str(self.path), got, "the lock of this process", remedy))

    def release(self) -> None:
        """Stop the heartbeat and remove the lock if it is ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        found = self._look()
        if found is not None and found.holder.get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Make the lock, unless it is there."""
        content = canonical_json({**_myself(), "token": self.token})
        temporary = self.path.with_name(f".lock-{self.token}")
        try:
            with room(self.path.parent):
                temporary.write_text(content, encoding="utf-8")
                # written aside and linked, so that nobody ever reads half a lock
                os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with room(self.path.parent), self.path.open("x", encoding="utf-8") as handle:
                    handle.write(content)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _look(self) -> Seen | None:
        """The lock as it is now; None where there is none. It is opened, since only that makes NFS ask its server."""
        try:
            with self.path.open(encoding="utf-8") as handle:
                touched = os.fstat(handle.fileno()).st_mtime_ns
                text = handle.read()
        except OSError:
            return None
        try:
            return Seen(dict(json.loads(text)), touched)
        except (ValueError, TypeError):
            return Seen({}, touched)

    def _long_silent(self, found: Seen) -> bool:
        """Whether the lock is very old, by the clock that the file system keeps."""
        if _here(found.holder):
            return False  # alive: this machine may have been asleep
        probe = self.path.with_name(f".clock-{self.token}")
        with contextlib.suppress(OSError):
            probe.touch()
            now = probe.stat().st_mtime_ns
            probe.unlink(missing_ok=True)
            return now - found.touched > LONG_DEAD_SECONDS * 1e9
        return False

    def _take_away(self, found: Seen) -> None:
        """Remove a stale lock; if it turns out to be another one by then, put that back."""
        aside = self.path.with_name(f".stale-{self.token}")
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(aside)
            try:
                token = dict(json.loads(aside.read_text(encoding="utf-8"))).get("token")
            except (ValueError, TypeError):
                token = None
            if token != found.holder.get("token"):
                with contextlib.suppress(OSError):  # where it cannot be put back, its owner notices and stops
                    os.link(aside, self.path)
            else:
                log(f"the lock of {found.name} is stale: taken over")
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_seconds):
            found = self._look()
            if found is not None and found.holder.get("token") == self.token:
                with contextlib.suppress(OSError):
                    os.utime(self.path)


def _here(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine, as it sees itself; it need not live any more."""
    return holder.get("machine") == _machine()


def _dead(found: Seen) -> bool:
    """Whether the holder cannot be alive any more: gone from this machine, or an earlier run of this Slurm job."""
    holder, me = found.holder, _myself()
    if _here(holder):
        return _birth(int(holder.get("pid", 0))) != holder.get("birth")
    same_job = bool(me["job"]) and holder.get("job") == me["job"] and holder.get("cluster") == me["cluster"]
    return same_job and int(holder.get("restart", 0)) < me["restart"]


def _myself() -> dict[str, Any]:
    """Who this process is, so that another one can tell whether it still lives."""
    who = {"host": os.uname().nodename, "machine": _machine(), "pid": os.getpid(), "birth": _birth(os.getpid())}
    job = {"job": os.environ.get("SLURM_JOB_ID", ""), "cluster": os.environ.get("SLURM_CLUSTER_NAME", "")}
    # srun does not hand on how often its job was put back into the queue: the workflow makes a copy
    restart = os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("GYRI_RESTART_COUNT") or "0"
    return {**who, **job, "restart": int(restart) if restart.isdecimal() else 0}


def _machine() -> str:
    """One boot of one machine and one view of its processes; elsewhere the same number is another process."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"unknown {uuid.uuid4()}"


def _birth(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
