"""The state of a training between two processes: a folder with checkpoints, a lock, a log of sessions, and the finished result.

The folder is no declared output, so nothing deletes it when a job fails. It is named by the fingerprint of all that the result
depends on, so that a finished result found there is the result. Only safetensors and JSON lie in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError, Problem
from gyri.io import canonical_json, read_tensors, room, sha256_file, sha256_text, write_json, write_tensors
from gyri.progress import log
from gyri.train.schedule import Schedule

KEPT = 2  # checkpoints: the newest, and the one before it in case the newest is damaged
RESULT = "result.json"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    Args:
        step: optimizer steps done.
        tensors: named arrays.
        facts: everything else, as JSON.
    """

    step: int
    tensors: dict[str, NDArray[Any]]
    facts: dict[str, Any]


class Checkpoints:
    """The state folder of one training.

    Args:
        folder: where; made when it is missing.
        fingerprint: of all that the result depends on.
        schedule: when a checkpoint is due.

    Attributes:
        usage: gives what this session has used of the accelerator so far, for the log of sessions; a text where that is not measured.
    """

    def __init__(self, folder: Path, fingerprint: str, schedule: Schedule):
        self.folder, self.fingerprint, self.schedule = folder, fingerprint, schedule
        self.usage: Callable[[], dict[str, Any] | str] = str
        with room(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def tidy(self) -> None:
        """Remove what a killed process left half written; only the holder of the lock may."""
        for old in self.folder.glob(".partial-*"):
            old.unlink(missing_ok=True)

    def save(self, state: State) -> None:
        """Write a checkpoint; the newest two are kept. The JSON comes last and vouches for the tensors by their hash."""
        began = self.schedule.clock()
        path = self.folder / f"state-{state.step:010d}.safetensors"
        write_tensors(path, state.tensors)
        body = {"fingerprint": self.fingerprint, "step": state.step, "tensors": sha256_file(path), "facts": state.facts}
        write_json(path.with_suffix(".json"), {"body": body, "sha256": sha256_text(canonical_json(body))})
        self.note("checkpoint", state.step)
        for old in sorted(self.folder.glob("state-*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)
            old.with_suffix(".safetensors").unlink(missing_ok=True)
        self.schedule.done(began)

    def rehearse(self) -> None:
        """Run once what saving needs: a full disk is found before the first step, and all of the code has been read.

        A signal to all processes of a job also ends the one that serves the files of a container image where that is not mounted by the
        kernel; whatever was never read from there is gone then.

        Raises:
            DataError: the disk is full.
        """
        path = self.folder / "rehearsal.safetensors"
        write_tensors(path, {"a": np.zeros(1, np.float32)})
        write_json(path.with_suffix(".json"), {"tensors": sha256_file(path), "sha256": sha256_text(canonical_json({}))})
        for file in (path, path.with_suffix(".json")):
            file.unlink()

    def newest(self) -> State | None:
        """The newest checkpoint that is whole; damaged ones are named and passed over.

        Raises:
            DataError: a checkpoint of another fingerprint lies here.
        """
        for path in sorted(self.folder.glob("state-*.json"), reverse=True):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                body, tensors = content["body"], path.with_suffix(".safetensors")
                whole = content["sha256"] == sha256_text(canonical_json(body)) and body["tensors"] == sha256_file(tensors)
            except (OSError, ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                log(f"{path}: damaged, the checkpoint before it is taken")
                continue
            if body["fingerprint"] != self.fingerprint:
                got, expected = f"fingerprint {body['fingerprint'][:12]}", f"{self.fingerprint[:12]}, that of this training"
                raise DataError(Problem(str(path), got, expected, f"remove the folder {self.folder}"))
            return State(body["step"], read_tensors(tensors), body["facts"])
        return None

    def note(self, event: str, step: int) -> None:
        """Add a line to the log of sessions: start, checkpoint, interrupted or end, with the number of steps done by then."""
        content = {"event": event, "step": step, "pid": os.getpid(), "host": os.uname().nodename, "time": int(time.time())}
        job = {"job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
        usage = self.usage()
        line = canonical_json({**content, **job, **({"accelerator": usage} if isinstance(usage, dict) else {})})
        with room(self.folder), (self.folder / "sessions.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def sessions(self) -> list[dict[str, Any]]:
        """First and last saved step of every session so far, and its use of the accelerator where that was measured.

        What a killed session did after its last checkpoint does not count.
        """
        found: list[dict[str, Any]] = []
        path = self.folder / "sessions.jsonl"
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            with contextlib.suppress(ValueError, KeyError):
                line = json.loads(text)
                if line["event"] == "start":
                    if found and found[-1]["last_step"] < line["step"]:
                        found[-1]["last_step"] = line["step"]  # killed after it saved this step, before it noted that
                    found.append({"first_step": line["step"], "last_step": line["step"]})
                elif found:
                    found[-1]["last_step"] = line["step"]
                    found[-1].update({"accelerator": line["accelerator"]} if "accelerator" in line else {})
        return found

    def finish(self, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Declare the files of the folder the finished result, and drop the checkpoints."""
        hashes = {name: sha256_file(self.folder / name) for name in files}
        write_json(self.folder / RESULT, {"fingerprint": self.fingerprint, "files": hashes, "facts": dict(facts)})
        for old in self.folder.glob("state-*"):
            old.unlink(missing_ok=True)

    def hand_over(self, target: Path) -> dict[str, Any] | None:
        """Put the finished result into an output folder: hard links where possible, else copies.

        Args:
            target: the output folder.

        Returns:
            The facts of the result; None where there is no whole result of this fingerprint.
        """
        try:
            result = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
            whole = result["fingerprint"] == self.fingerprint
            whole = whole and all(sha256_file(self.folder / name) == digest for name, digest in result["files"].items())
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            (self.folder / RESULT).unlink(missing_ok=True)
            return None
        with room(target):
            for name in result["files"]:
                place(self.folder / name, target / name)
        return {**result["facts"], "sessions": self.sessions()}


def place(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` at once, or a copy where the file system cannot link; its time is now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".partial-{os.getpid()}-{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.utime(temporary)  # outputs must not look older than the inputs
        temporary.replace(target)
    finally:
        # renaming one name of a file onto another name of the same file does nothing
        temporary.unlink(missing_ok=True)
