"""The state folder: whole or not there, never of another training, never held by two."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.train.checkpoint import RESULT, Checkpoints, State, place
from gyri.train.schedule import Schedule


def opened(folder: Path, fingerprint: str = "x") -> Checkpoints:
    return Checkpoints(folder, fingerprint, Schedule(1))


def state(step: int) -> State:
    return State(
        step, {"network.w": np.full((2, 3), step, np.float32), "n": np.array(step)}, {"epoch": step, "history": [{"a": 0.1}]}
    )


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {"a": random.normal(size=(3, 4)).astype(np.float32), "b": np.array(3, np.int64), "c": np.array(np.nan)}
    opened(tmp_path).save(State(5, tensors, {"loss": 0.1 + 0.2, "none": None}))
    found = opened(tmp_path).newest()
    assert found is not None and found.step == 5 and found.facts == {"loss": 0.1 + 0.2, "none": None}
    assert {name: value.tobytes() for name, value in found.tensors.items()} == {
        name: value.tobytes() for name, value in tensors.items()
    }


def test_the_last_two_are_kept_and_nothing_is_pickled(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(state(step))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"state-{step:010d}.{end}" for step in (2, 3) for end in ("json", "safetensors")} | {"sessions.jsonl"}


@pytest.mark.parametrize("victim", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, victim: str, damage: str) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    path = tmp_path / f"state-{2:010d}.{victim}"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        # the digit flipped in the JSON is one of the values, so the text stays valid JSON
        place_of = content.index(b"0.1") + 2 if victim == "json" else len(content) - 1
        content[place_of] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-3])
    found = checkpoints.newest()
    assert found is not None and found.step == 1


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).save(state(1))
    with pytest.raises(DataError, match="fingerprint x"):
        opened(tmp_path, "y").newest()


def test_a_full_disk_is_a_message_and_the_old_state_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="free some space"):
        checkpoints.save(state(2))
    found = checkpoints.newest()
    assert found is not None and found.step == 1
    assert not list(tmp_path.glob(".partial*"))


def test_sessions_count_saved_steps_only(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for event, step in (("start", 0), ("checkpoint", 3), ("start", 4), ("checkpoint", 6), ("end", 9)):
        checkpoints.note(event, step)
    with (tmp_path / "sessions.jsonl").open("a") as handle:
        handle.write('{"event": "chec')  # a process died while it wrote
    assert checkpoints.sessions() == [{"first_step": 0, "last_step": 4}, {"first_step": 4, "last_step": 9}]


def finished(folder: Path) -> Checkpoints:
    checkpoints = opened(folder)
    (folder / "weights.safetensors").write_bytes(b"weights")
    checkpoints.finish(["weights.safetensors"], {"device": "cpu"})
    return checkpoints


def test_a_finished_result_is_handed_over_by_links(tmp_path: Path) -> None:
    checkpoints, target = finished(tmp_path / "state"), tmp_path / "run"
    os.utime(tmp_path / "state" / "weights.safetensors", (0, 0))
    facts = checkpoints.hand_over(target)
    assert facts is not None and facts["device"] == "cpu"
    output = target / "weights.safetensors"
    assert output.samefile(tmp_path / "state" / "weights.safetensors")
    assert time.time() - output.stat().st_mtime < 60
    assert checkpoints.hand_over(target) is not None  # over the same link again
    assert [path.name for path in target.iterdir()] == ["weights.safetensors"]


def test_a_changed_result_is_not_handed_over(tmp_path: Path) -> None:
    checkpoints = finished(tmp_path / "state")
    (tmp_path / "state" / "weights.safetensors").write_bytes(b"weighty")
    assert checkpoints.hand_over(tmp_path / "run") is None
    assert not (tmp_path / "state" / RESULT).exists()


def test_without_links_the_result_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another device")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x" and not (tmp_path / "b").samefile(tmp_path / "a")
