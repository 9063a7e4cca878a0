"""What a training can see of the data, and what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gyri.errors import DataError, LeakageError
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.loading import Images, Target, find_target, fold_table, input_digest, open_store
from gyri.tables import class_text, read_table, row_of, rows_of, write_table
from gyri.transforms.normalization import Normalization
from packed import make_dataset


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_dataset(tmp_path)


def change(layout: Layout, name: str, row: int, column: str, value: object) -> None:
    """Set one cell of a table."""
    path = layout.dataset("tiny", name)
    table = read_table(path).astype({column: object})
    table.loc[row, column] = value
    write_table(path, table)


def test_every_image_has_one_role_and_locked_ones_are_in_no_fold(layout: Layout) -> None:
    target = find_target(layout, "tiny", "classification", "diagnosis", None)
    tables = {role: fold_table(layout, "tiny", 0, target, (role,)) for role in ("train", "validation", "test", "locked")}
    names = [name for table in tables.values() for name in table["image_id"]]
    assert sorted(names) == [f"p{index:02d}" for index in range(18)]
    assert list(tables["locked"]["image_id"]) == ["p16", "p17"]
    store = open_store(layout, "tiny")
    assert all(
        store.manifest["rows"][row]["image_id"] == name for row, name in tables["test"][["row", "image_id"]].itertuples(index=False)
    )


def test_a_missing_target_drops_the_image_from_the_experiment_only(layout: Layout) -> None:
    change(layout, "cohort.tsv", 3, "diagnosis", None)
    change(layout, "cohort.tsv", 5, "age", None)
    change(layout, "cohort.tsv", 7, "label", "")
    roles = ("train", "validation", "test", "locked")
    for task, column, gone in (
        ("classification", "diagnosis", "p03"),
        ("regression", "age", "p05"),
        ("segmentation", "label", "p07"),
    ):
        target = find_target(layout, "tiny", task, column, None)
        assert set(fold_table(layout, "tiny", 0, target, roles)["image_id"]) == {f"p{i:02d}" for i in range(18)} - {gone}


def test_a_group_on_two_sides_is_refused(layout: Layout) -> None:
    target = find_target(layout, "tiny", "regression", "age", None)
    splits = read_table(layout.dataset("tiny", "splits.tsv"))
    splits.loc[splits["participant_id"] == "p05", "group"] = "p00"
    write_table(layout.dataset("tiny", "splits.tsv"), splits)
    with pytest.raises(LeakageError, match="p00"):
        fold_table(layout, "tiny", 0, target, ("train",))


def test_an_image_without_a_role_is_an_error(layout: Layout) -> None:
    target = find_target(layout, "tiny", "regression", "age", None)
    splits = read_table(layout.dataset("tiny", "splits.tsv"))
    write_table(layout.dataset("tiny", "splits.tsv"), splits[splits["participant_id"] != "p05"])
    with pytest.raises(DataError, match="p05"):
        fold_table(layout, "tiny", 0, target, ("train",))


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1, "1"), ("AD", "AD"), (np.nan, ""), ("", ""), (0.5, "0.5")])
def test_classes_are_text(value: object, text: str) -> None:
    assert class_text(value) == text


def test_rows_keep_their_order_and_their_values() -> None:
    table = pd.DataFrame({"image_id": ["b", "a"], "age": [40.5, np.nan], "images": [1, 2]}).set_index("image_id", drop=False)
    rows = rows_of(table)
    assert rows[0] == {"image_id": "b", "age": 40.5, "images": 1}
    assert [row["image_id"] for row in rows] == ["b", "a"] and [type(row["age"]) for row in rows] == [float, float]
    assert row_of(table, "b") == rows[0]


def test_classes_come_from_the_whole_cohort_unless_given(layout: Layout) -> None:
    assert find_target(layout, "tiny", "classification", "diagnosis", None).names == ["kind0", "kind1"]
    assert find_target(layout, "tiny", "classification", "diagnosis", ["kind1", "kind0"]).names == ["kind1", "kind0"]
    with pytest.raises(DataError, match="kind1"):
        find_target(layout, "tiny", "classification", "diagnosis", ["kind0", "other"])
    with pytest.raises(DataError, match="no such column"):
        find_target(layout, "tiny", "classification", "sex", None)
    with pytest.raises(DataError, match="numbers"):
        find_target(layout, "tiny", "regression", "diagnosis", None)
    with pytest.raises(DataError, match="label_region"):
        find_target(layout, "tiny", "segmentation", "label_region", None) if write_label_column(layout) else None


def write_label_column(layout: Layout) -> bool:
    table = read_table(layout.dataset("tiny", "cohort.tsv"))
    write_table(layout.dataset("tiny", "cohort.tsv"), table.assign(label_region=""))
    return True


def test_label_values_need_not_be_consecutive() -> None:
    target = Target("segmentation", "label", ["background", "a", "b"], [0, 1, 300])
    labels = np.array([0, 300, 1], np.uint16)
    assert target.encode_labels(labels).tolist() == [0, 2, 1]
    assert target.decode_labels(target.encode_labels(labels)).tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"\[7\]"):
        target.encode_labels(np.array([0, 7], np.uint16))


def test_images_are_normalized_and_read_in_any_order(layout: Layout) -> None:
    store, target = open_store(layout, "tiny"), find_target(layout, "tiny", "segmentation", "label", None)
    table = fold_table(layout, "tiny", 0, target, ("train",))
    normalization = Normalization.load(layout.fold("tiny", 0))
    images = Images(store, table["row"].to_numpy(), normalization, target, table["target"].tolist())
    both = images.batch([3, 0])
    assert both.dtype == np.float32 and both.shape == (2, 1, 8, 8, 8)
    assert np.array_equal(both[1], images[0]) and np.array_equal(images.labels([3])[0], images.targets(3))
    everything = images.batch(np.arange(len(images))).astype(np.float64)
    assert abs(everything.mean()) < 1e-3 and abs(everything.std() - 1) < 1e-3
    assert set(np.unique(images.labels(np.arange(len(images))))) == {0, 1, 2}


def test_a_changed_row_of_the_store_is_refused(layout: Layout) -> None:
    path = layout.dataset("tiny", "images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = open_store(layout, "tiny")
    store.verify([0, 1])
    with pytest.raises(DataError, match="p17"):
        store.verify([0, 17])


def digest(layout: Layout, fold: int = 0) -> str:
    return input_digest(layout, "tiny", fold, find_target(layout, "tiny", "regression", "age", None))


def swap_rows(layout: Layout, first: str, second: str) -> None:
    """Exchange the packed images of two participants, with what the manifest says of them."""
    manifest = read_json(layout.dataset("tiny", "images.json"))
    rows = {row["image_id"]: index for index, row in enumerate(manifest["rows"])}
    one, other = rows[first], rows[second]
    for name in ("images.npy", "labels.npy"):
        array = np.load(layout.dataset("tiny", name))
        array[[one, other]] = array[[other, one]]
        np.save(layout.dataset("tiny", name), array)
    for key in ("sha256", "spatial", "intensity"):
        manifest["rows"][one][key], manifest["rows"][other][key] = manifest["rows"][other][key], manifest["rows"][one][key]
    write_json(layout.dataset("tiny", "images.json"), manifest)


def test_the_digest_does_not_depend_on_test_participants(layout: Layout) -> None:
    """The taint test at the level of loading: fold 0 tests p00, p01, p12 and p13."""
    before = digest(layout)
    swap_rows(layout, "p00", "p13")
    assert digest(layout) == before
    change(layout, "cohort.tsv", 0, "age", 99.0)
    assert digest(layout) == before
    swap_rows(layout, "p02", "p04")  # a validation and a training participant
    assert digest(layout) != before


@pytest.mark.parametrize("what", ["target", "role", "normalization", "settings", "fold"])
def test_the_digest_depends_on_all_that_training_sees(layout: Layout, what: str) -> None:
    before = digest(layout)
    if what == "target":
        change(layout, "cohort.tsv", 4, "age", 99.0)
    elif what == "role":
        splits = read_table(layout.dataset("tiny", "splits.tsv"))
        splits.loc[(splits["participant_id"] == "p04") & (splits["fold"] == "0"), "role"] = "validation"
        write_table(layout.dataset("tiny", "splits.tsv"), splits)
    elif what == "fold":
        assert digest(layout, 1) != before
        return
    else:
        path = layout.fold("tiny", 0, "normalization.json") if what == "normalization" else layout.dataset("tiny", "images.json")
        content = json.loads(path.read_text())
        content["method" if what == "normalization" else "channels"] = "other"
        path.write_text(json.dumps(content))
    assert digest(layout) != before


def test_a_store_whose_files_do_not_fit_names_all_of_them(layout: Layout) -> None:
    np.save(layout.dataset("tiny", "images.npy"), np.zeros((3, 1, 8, 8, 8), np.float16))
    layout.dataset("tiny", "labels.npy").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        open_store(layout, "tiny")
    assert len(caught.value.problems) == 2


def test_rows_are_sorted_and_text(layout: Layout) -> None:
    target = find_target(layout, "tiny", "segmentation", "label", None)
    table = fold_table(layout, "tiny", 1, target, ("train", "validation"))
    assert list(table["image_id"]) == sorted(table["image_id"])
    assert table["target"].str.endswith("_seg.nii.gz").all() and isinstance(table, pd.DataFrame)
