"""A full disk, for real: a message that names file, space and remedy; files written before are whole, and nothing half written stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.errors import DataError
from gyri.images import save_labels
from gyri.io import atomic, sha256_file, write_array, write_json, write_tensors, write_text
from gyri.preprocess import run as preprocess
from gyri.tables import write_table
from gyri.train.checkpoint import Checkpoints, State
from gyri.train.lock import Lock
from gyri.train.schedule import Schedule
from packed import GRID, make_dataset, train_settings
from test_train import hashes, state_folder, train

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() or 'mount failed'}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Write until only so many bytes are left (whole pages)."""
    with (disk / "ballast").open("wb") as handle:
        handle.write(bytes(shutil.disk_usage(disk).free - leave))


def free(disk: Path) -> None:
    (disk / "ballast").unlink()


def save_map(path: Path, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 200, (64, 64, 64)).astype(np.uint8)
    like = path.with_name("like.nii.gz")
    path.parent.mkdir(exist_ok=True)
    if not like.exists():
        nib.save(nib.Nifti1Image(np.zeros_like(labels), np.eye(4)), like)
    save_labels(path, labels, np.eye(4), like)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=25_000)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "text.md": lambda path, seed: write_text(path, f"{seed}" * 200_000),
    "facts.json": lambda path, seed: write_json(path, {"values": noise(seed)[:15_000].tolist()}),
    "array.npy": lambda path, seed: write_array(path, noise(seed)),
    "weights.safetensors": lambda path, seed: write_tensors(path, {"a": noise(seed)}),
    "table.tsv": lambda path, seed: write_table(path, pd.DataFrame({"value": noise(seed)})),
    "map.nii.gz": save_map,
}


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_every_kind_of_file_is_whole_or_as_it_was(disk: Path, name: str, write: Callable[[Path, int], None]) -> None:
    path = disk / "folder" / name
    write(path, 1)
    before = sha256_file(path)
    fill(disk, leave=64 << 10)
    with pytest.raises(DataError) as caught:
        write(path, 2)
    text = str(caught.value)
    assert str(path) in text and "MB are free in" in text and "free some space there and run again" in text
    assert sha256_file(path) == before
    assert not list(disk.rglob(".partial-*"))
    free(disk)
    write(path, 2)
    assert sha256_file(path) != before


def test_a_new_folder_for_which_there_is_no_room(disk: Path) -> None:
    count = 0
    with pytest.raises(DataError, match="No space left on device"):
        while count < 100_000:
            count += 1
            write_text(disk / f"{count}" / "a", "x" * 5000)


def test_another_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic(tmp_path / "file"):
        raise PermissionError(13, "Permission denied")


def state(step: int) -> State:
    return State(step, {"network.w": noise(step)}, {"epoch": step})


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Path) -> None:
    checkpoints = Checkpoints(disk / "state", "x", Schedule(1))
    checkpoints.save(state(1))
    fill(disk, leave=64 << 10)
    with pytest.raises(DataError, match="goes on from its last checkpoint"):
        checkpoints.save(state(2))
    found = checkpoints.newest()
    assert found is not None and found.step == 1 and np.array_equal(found.tensors["network.w"], noise(1))
    assert not list(disk.rglob(".partial-*"))


def test_a_disk_that_is_full_already_is_found_before_the_first_step(disk: Path) -> None:
    checkpoints = Checkpoints(disk / "state", "x", Schedule(1))
    checkpoints.rehearse()
    assert not list((disk / "state").iterdir())
    fill(disk)
    with pytest.raises(DataError, match="No space left on device"):
        checkpoints.rehearse()


def test_without_room_for_the_lock_nothing_begins(disk: Path) -> None:
    checkpoints = Checkpoints(disk / "state", "x", Schedule(1))
    fill(disk)
    with pytest.raises(DataError, match="No space left on device"):
        Lock(checkpoints.folder).acquire()
    with pytest.raises(DataError, match="No space left on device"):
        checkpoints.note("start", 0)
    assert list((disk / "state").iterdir()) in ([], [disk / "state" / "sessions.jsonl"])


def test_a_training_without_room_for_its_weights_ends_later_with_the_same_bytes(disk: Path, tmp_path: Path) -> None:
    """The state folder is on the full disk: a checkpoint still fits, the final weights do not."""
    layout = make_dataset(tmp_path)
    settings = train_settings("classification", "conv5_fc3", epochs=3).model_copy(update={"arguments": {"width": 2}})
    train(layout, settings, "undisturbed")
    expected = hashes(layout)
    size = layout.run("exp", "net", 0, 0, "weights.safetensors").stat().st_size
    shutil.rmtree(layout.root / ".checkpoints")
    (layout.root / ".checkpoints").symlink_to(disk)
    fill(disk, leave=size + (20 << 10))
    with pytest.raises(DataError, match="No space left on device"):
        train(layout, settings)
    folder = state_folder(layout, settings)
    assert not (folder / "result.json").exists() and not list(folder.glob(".partial-*")) and not (folder / "lock.json").exists()
    free(disk)
    assert train(layout, settings)["handed_over"] is False
    assert hashes(layout) == expected


def test_a_result_that_cannot_be_handed_over_stays_where_it_is(disk: Path, tmp_path: Path) -> None:
    checkpoints, target = Checkpoints(tmp_path / "state", "x", Schedule(1)), disk / "run"
    write_tensors(tmp_path / "state" / "weights.safetensors", {"a": noise(0)})
    checkpoints.finish(["weights.safetensors"], {})
    fill(disk, leave=64 << 10)
    with pytest.raises(DataError, match="No space left on device"):
        checkpoints.hand_over(target)
    assert list(target.iterdir()) == []
    free(disk)
    assert checkpoints.hand_over(target) is not None


def test_a_stage_without_room_leaves_its_earlier_outputs(disk: Path, tmp_path: Path) -> None:
    layout = make_dataset(tmp_path)
    before = {name: sha256_file(layout.dataset("tiny", name)) for name in ("images.npy", "images.json", "labels.npy")}
    folder = layout.dataset("tiny")
    shutil.copytree(folder, disk / "tiny")
    shutil.rmtree(folder)
    folder.symlink_to(disk / "tiny")
    fill(disk)
    with pytest.raises(DataError):
        preprocess(PreprocessSettings(preprocess=Preprocess(), shape=GRID), layout, "tiny", 1)
    assert {name: sha256_file(layout.dataset("tiny", name)) for name in before} == before
    assert not list(disk.rglob(".partial-*"))


def test_a_quota_is_told_like_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", used_up)
    with pytest.raises(DataError, match="Disk quota exceeded"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
