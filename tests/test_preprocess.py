"""The stage preprocess: one packed store, the same bytes whatever the threads, every bad image named."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from gyri import images, preprocess
from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.errors import DataError
from gyri.io import read_array, read_json, sha256_array, write_json
from gyri.layout import Layout
from gyri.preprocess import common_shape
from gyri.tables import write_table
from gyri.transforms.packing import allocate, sha256_row, write_row
from gyri.transforms.prepare import prepare
from gyri.transforms.spatial import SpatialRecord

FLIPPED = np.diag([-2.0, 2.0, 2.0, 1.0])


def write_dataset(
    root: Path,
    shapes: list[tuple[int, ...]],
    channels: tuple[str, ...] = ("t1w",),
    mask: bool = False,
    missing: tuple[str, ...] = (),
) -> Layout:
    """A dataset of random images with two labels, its cohort, and an empty list of exclusions."""
    rng = np.random.default_rng(0)
    rows = []
    for index, shape in enumerate(shapes):
        row: dict[str, str] = {
            "image_id": f"s{index}",
            "participant_id": f"p{index}",
            "group": f"g{index // 2}",
            "session_id": "",
            "site": "",
        }
        names = [*(f"image_{channel}" for channel in channels), "label", *(["mask"] if mask else [])]
        for name in names:
            if f"{index}:{name}" in missing:
                row[name] = ""
                continue
            values = (
                rng.normal(100, 20, shape).astype(np.float32)
                if name.startswith("image")
                else rng.integers(0, 3, shape).astype(np.uint8)
            )
            row[name] = f"{name}_{index}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(values, FLIPPED), root / row[name])
        if not mask:
            row["mask"] = ""
        row["sha256_file"], row["sha256_labels"] = images.row_digests(row, root)
        rows.append({**row, "sha256_voxels": ""})
    layout = Layout(root / "results")
    write_table(layout.dataset("d", "cohort.tsv"), pd.DataFrame(rows), "cohort")
    write_table(layout.dataset("d", "excluded.tsv"), pd.DataFrame(columns=["image_id", "reason", "severity"]), "excluded")
    facts = {
        "root": str(root),
        "channels": list(channels),
        "channel_files": {channel: [channel] for channel in channels},
        "labels": {"label": {"0": "background", "1": "a", "2": "b"}},
        "mask": mask,
        "volume": None,
        "spacing_mm": None,
    }
    write_json(layout.dataset("d", "dataset.json"), facts)
    return layout


def settings(shape: tuple[int, int, int] | None = (12, 16, 8), **values: object) -> PreprocessSettings:
    return PreprocessSettings(preprocess=Preprocess.model_validate(values), shape=shape)


def contents(layout: Layout) -> list[bytes]:
    return [layout.dataset("d", name).read_bytes() for name in ("images.npy", "labels.npy", "images.json", "features.tsv")]


def test_the_store_holds_what_prepare_gives(tmp_path):
    layout = write_dataset(tmp_path, [(10, 14, 9), (13, 12, 8), (9, 9, 9)], channels=("t1w", "t2w"), mask=True)
    facts = preprocess.run(settings(), layout, "d", 1)
    packed, labels = (read_array(layout.dataset("d", name)) for name in ("images.npy", "labels.npy"))
    manifest = read_json(layout.dataset("d", "images.json"))
    assert packed.shape == (3, 2, 12, 16, 8) and packed.dtype == np.float16 and facts["images"] == 3
    assert labels.shape == (3, 2, 12, 16, 8) and labels.dtype == np.uint8
    assert manifest["channels"] == ["t1w", "t2w"] and manifest["labels"] == ["label", "mask"] and manifest["shape"] == [12, 16, 8]
    assert PreprocessSettings.model_validate(manifest["settings"]) == settings()
    for index, row in enumerate(manifest["rows"]):
        values = [images.load(tmp_path / f"image_{channel}_{index}.nii.gz") for channel in ("t1w", "t2w")]
        ready = prepare(np.concatenate([value for value, _ in values]), values[0][1], None, settings())
        assert np.array_equal(packed[index], ready.image.astype(np.float16))
        record = SpatialRecord.from_json(row["spatial"])
        assert record == ready.spatial and row["intensity"] == json.loads(json.dumps(ready.intensity))
        truth = images.load_labels(tmp_path / f"label_{index}.nii.gz")[0].astype(np.uint8)
        assert np.array_equal(labels[index, 0], record.apply_labels(truth))
        assert set(np.unique(labels[index, 1])) <= {0, 1}
        assert row["sha256"] == sha256_row(packed[index], labels[index])
        assert (row["image_id"], row["participant_id"], row["group"]) == (f"s{index}", f"p{index}", f"g{index // 2}")


def test_the_bytes_do_not_depend_on_the_workers(tmp_path):
    layout = write_dataset(tmp_path, [(10, 14, 9), (13, 12, 8), (9, 9, 9), (10, 10, 10), (8, 9, 10)])
    found = []
    for threads in (1, 2):
        preprocess.run(settings(None, spacing_mm=1.5, label_interpolation="labelwise"), layout, "d", threads)
        found.append(contents(layout))
    assert found[0] == found[1]


def test_new_scans_go_the_same_way(tmp_path):
    layout = write_dataset(tmp_path, [(10, 14, 9)], channels=("t1w", "t2w"), mask=True)
    preprocess.run(settings(spacing_mm=1.7, scaling_region="mask", crop="mask", apply_mask=True), layout, "d", 1)
    chain = PreprocessSettings.model_validate(read_json(layout.dataset("d", "images.json"))["settings"])
    loaded = [images.load(tmp_path / f"image_{channel}_0.nii.gz") for channel in ("t1w", "t2w")]
    mask = images.load_labels(tmp_path / "mask_0.nii.gz")[0]
    ready = prepare(np.concatenate([values for values, _ in loaded]), loaded[0][1], mask, chain)
    assert np.array_equal(ready.image.astype(np.float16), read_array(layout.dataset("d", "images.npy"))[0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, (16, 16, 16)), ({"spacing_mm": 1.0}, (32, 32, 24)), ({"crop": "foreground"}, None), ({"crop": "mask"}, (16, 16, 16))],
)
def test_an_open_shape_becomes_that_of_the_largest_image(tmp_path, values, expected):
    layout = write_dataset(tmp_path, [(10, 14, 9), (13, 12, 11), (9, 9, 9)], mask=True)
    preprocess.run(settings(None, **values), layout, "d", 1)
    manifest = read_json(layout.dataset("d", "images.json"))
    shape = tuple(manifest["shape"])
    assert manifest["settings"]["shape"] == list(shape) and (expected is None or shape == expected)
    assert all(edge % 8 == 0 for edge in shape)


def test_common_shapes():
    assert common_shape([(10, 20, 1), (17, 8, 1)]) == (24, 24, 1)
    assert common_shape([(16, 8, 2)]) == (16, 8, 8)


def test_planes_stay_planes(tmp_path):
    layout = write_dataset(tmp_path, [(10, 14), (13, 12)])
    preprocess.run(settings(None, spacing_mm=3.0), layout, "d", 1)
    assert read_array(layout.dataset("d", "images.npy")).shape == (2, 1, 16, 16, 1)


def test_pictures_are_read_with_their_pixel_size(tmp_path):
    from PIL import Image

    layout = write_dataset(tmp_path, [(10, 14, 1)])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(tmp_path / "eye.png")
    row = pd.read_csv(layout.dataset("d", "cohort.tsv"), sep="\t", keep_default_na=False).iloc[0].to_dict()
    row.update(image_t1w="eye.png", label="", mask="")
    row["sha256_file"], row["sha256_labels"] = images.row_digests(row, tmp_path)
    write_table(layout.dataset("d", "cohort.tsv"), pd.DataFrame([row]))
    facts = read_json(layout.dataset("d", "dataset.json"))
    facts.update(channels=["r", "g", "b"], channel_files={"t1w": ["r", "g", "b"]}, spacing_mm=[0.5, 0.5])
    write_json(layout.dataset("d", "dataset.json"), facts)
    chain = settings(None, spacing_mm=1.0).model_copy(update={"spacing_mm": (0.5, 0.5)})
    preprocess.run(chain, layout, "d", 1)
    manifest = read_json(layout.dataset("d", "images.json"))
    assert manifest["channels"] == ["r", "g", "b"] and manifest["rows"][0]["missing"] == ["label"]
    assert sorted(manifest["shape"]) == [1, 16, 16]


def test_excluded_images_are_left_out_and_missing_files_are_zeros(tmp_path):
    layout = write_dataset(tmp_path, [(8, 8, 8)] * 3, channels=("t1w", "t2w"), missing=("2:image_t2w", "2:label"))
    excluded = pd.DataFrame([{"image_id": "s1", "reason": "truncated", "severity": "exclude"}])
    write_table(layout.dataset("d", "excluded.tsv"), excluded, "excluded")
    preprocess.run(settings((8, 8, 8)), layout, "d", 1)
    manifest = read_json(layout.dataset("d", "images.json"))
    assert [row["image_id"] for row in manifest["rows"]] == ["s0", "s2"]
    assert manifest["rows"][1]["missing"] == ["image_t2w", "label"]
    packed, labels = (read_array(layout.dataset("d", name)) for name in ("images.npy", "labels.npy"))
    assert not packed[1, 1].any() and packed[1, 0].any() and not labels[1].any()
    write_table(
        layout.dataset("d", "excluded.tsv"), pd.DataFrame([{"image_id": f"s{i}", "reason": "", "severity": ""} for i in range(3)])
    )
    with pytest.raises(DataError, match="excluded"):
        preprocess.run(settings((8, 8, 8)), layout, "d", 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_all_bad_images_are_reported_at_once_and_nothing_is_left(tmp_path, threads):
    layout = write_dataset(tmp_path, [(8, 8, 8)] * 6)
    constant = np.full((8, 8, 8), 3, np.float32)
    wrong = {
        "image_t1w_0.nii.gz": constant,
        "label_1.nii.gz": constant + 0.5,
        "label_2.nii.gz": -constant,
        "label_3.nii.gz": constant[:4],
    }
    cohort = pd.read_csv(layout.dataset("d", "cohort.tsv"), sep="\t", keep_default_na=False, dtype=str).replace("n/a", "")
    for name, values in wrong.items():
        nibabel.save(nibabel.Nifti1Image(values, FLIPPED), tmp_path / name)
    for index, row in cohort.iterrows():
        cohort.loc[index, ["sha256_file", "sha256_labels"]] = images.row_digests(row.to_dict(), tmp_path)
    write_table(layout.dataset("d", "cohort.tsv"), cohort)
    (tmp_path / "label_4.nii.gz").write_bytes(b"another file")
    (tmp_path / "image_t1w_5.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        preprocess.run(settings((8, 8, 8)), layout, "d", threads)
    assert len(caught.value.problems) == 6
    for problem, name in zip(caught.value.problems, ["s0", "label_1", "label_2", "label_3", "label_4", "image_t1w_5"], strict=True):
        assert name in problem.where and problem.got and problem.expected and problem.remedy
    assert sorted(path.name for path in layout.dataset("d").iterdir()) == ["cohort.tsv", "dataset.json", "excluded.tsv"]


def test_values_that_do_not_fit_the_packed_type_are_refused(tmp_path):
    layout = write_dataset(tmp_path, [(8, 8, 8)])
    path = tmp_path / "image_t1w_0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.linspace(0, 1e6, 512, dtype=np.float32).reshape(8, 8, 8), FLIPPED), path)
    cohort = pd.read_csv(layout.dataset("d", "cohort.tsv"), sep="\t", keep_default_na=False, dtype=str)
    cohort["sha256_file"] = images.row_digests({"image_id": "s0", "image_t1w": path.name}, tmp_path)[0]
    write_table(layout.dataset("d", "cohort.tsv"), cohort)
    with pytest.raises(DataError, match="65504"):
        preprocess.run(settings(scaling="none"), layout, "d", 1)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    import errno
    import os

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="disk is full"):
        allocate(tmp_path / "x.npy", (2, 1, 4, 4, 4), "<f2")


def test_stores_without_labels(tmp_path):
    size = allocate(tmp_path / "labels.npy", (3, 0, 4, 4, 4), "|u1")
    write_row(tmp_path / "labels.npy", 1, np.zeros((0, 4, 4, 4), np.uint8))
    assert read_array(tmp_path / "labels.npy").shape == (3, 0, 4, 4, 4) and size == (tmp_path / "labels.npy").stat().st_size


@pytest.mark.real_data
def test_hippocampus_comes_back_voxel_by_voxel(hippocampus):
    ids = sorted(path for path in (hippocampus / "labelsTr").glob("hippocampus_*.nii.gz"))[::21]
    for path in ids:
        ready = prepare(*images.load(hippocampus / "imagesTr" / path.name), None, settings((40, 56, 40)), path.name)
        labels = images.load_labels(path)[0].astype(np.uint8)
        moved = ready.spatial.apply_labels(labels)
        back = ready.spatial.invert((np.arange(3).reshape(-1, 1, 1, 1) == moved).astype(np.float32)).argmax(0)
        assert sha256_array(back.astype(np.uint8)) == sha256_array(labels) and np.abs(ready.image).max() <= 5
