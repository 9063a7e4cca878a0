"""A lock with a heartbeat, so that two processes never train the same model at once, and a dead one does not block for ever."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gyri.errors import DataError, Problem
from gyri.io import canonical_json
from gyri.progress import log

STALE_SECONDS = 120.0
BEAT_SECONDS = 10.0


class Lock:
    """Holds `lock.json` in a folder and touches it every few seconds from a thread.

    Args:
        folder: what is locked.
        stale_seconds: a lock that was not touched for so long is taken over.
        beat_seconds: time between touches.
    """

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS, beat_seconds: float = BEAT_SECONDS):
        self.path = folder / "lock.json"
        self.stale_seconds, self.beat_seconds = stale_seconds, beat_seconds
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
        said = 0.0
        while not self._create():
            holder = self._read()
            if self._stale(holder):
                self._take_away(holder)
                continue
            if finished():
                return False
            if holder is not None and (time.monotonic() - said > 30 or not said):
                said = time.monotonic()
                log(f"waiting for process {holder.get('pid')} on {holder.get('host')}, which trains the same model")
            time.sleep(poll_seconds)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return True

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            DataError: another process took it over, since this one stood still for too long.
        """
        holder = self._read()
        if holder is None or holder.get("token") != self.token:
            got = f"held by process {holder.get('pid')} on {holder.get('host')}" if holder else "gone"
            remedy = "let the other process finish; nothing of this one is lost that it does not do as well"
            raise DataError(Problem(str(self.path), got, "the lock of this process", remedy))

    def release(self) -> None:
        """Stop the heartbeat and remove the lock if it is ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        holder = self._read()
        if holder is not None and holder.get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Make the lock, unless it is there."""
        content = canonical_json({**_myself(), "token": self.token})
        temporary = self.path.with_name(f".lock-{self.token}")
        temporary.write_text(content, encoding="utf-8")
        try:
            # written aside and linked, so that nobody ever reads half a lock
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with self.path.open("x", encoding="utf-8") as handle:
                    handle.write(content)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _stale(self, holder: dict[str, Any] | None) -> bool:
        """Whether the holder is dead (seen at once on the same machine), or was silent for too long."""
        if holder is not None and holder.get("machine") == _machine() and _birth(int(holder.get("pid", 0))) != holder.get("birth"):
            return True
        try:
            # a fresh file tells the time of the file system, whose clock need not be this machine's
            probe = self.path.with_name(f".clock-{self.token}")
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
            return now - self.path.stat().st_mtime > self.stale_seconds
        except FileNotFoundError:
            return False

    def _take_away(self, holder: dict[str, Any] | None) -> None:
        """Remove a stale lock; if it turns out to be another one by then, put that back."""
        aside = self.path.with_name(f".stale-{self.token}")
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(aside)
            try:
                found = json.loads(aside.read_text(encoding="utf-8"))
            except ValueError:
                found = None
            if found is not None and (holder is None or found.get("token") != holder.get("token")):
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            elif holder is not None:
                log(f"the lock of process {holder.get('pid')} on {holder.get('host')} is stale: taken over")
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_seconds):
            holder = self._read()
            if holder is not None and holder.get("token") == self.token:
                with contextlib.suppress(OSError):
                    os.utime(self.path)


def _myself() -> dict[str, Any]:
    """Who this process is, so that another one can tell whether it still lives."""
    return {"host": os.uname().nodename, "machine": _machine(), "pid": os.getpid(), "birth": _birth(os.getpid())}


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
