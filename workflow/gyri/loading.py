"""What the stages after preprocessing read: the packed store, the rows of a fold, and the target of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.errors import DataError, Problem
from gyri.io import canonical_json, read_array, read_json, read_tensors, sha256_file, sha256_text
from gyri.layout import Layout
from gyri.leakage import check_splits
from gyri.tables import class_text, read_table, rows_of
from gyri.transforms.normalization import Normalization
from gyri.transforms.packing import sha256_row
from gyri.types import Shape3

FIT_ROLES = ("train", "validation")


@dataclass(frozen=True)
class Store:
    """The packed images and labels of a dataset, memory-mapped.

    Args:
        images: float16 (N, C, X, Y, Z).
        labels: unsigned integers (N, L, X, Y, Z), L may be 0.
        manifest: images.json.
        verified: rows whose hash was looked at.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    manifest: dict[str, Any]
    verified: set[int] = field(default_factory=set)

    @property
    def shape(self) -> Shape3:
        """(X, Y, Z) of every image."""
        x, y, z = self.images.shape[2:]
        return x, y, z

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in order."""
        return list(self.manifest["channels"])

    def verify(self, rows: Sequence[int]) -> None:
        """Make sure that rows are those the manifest vouches for; each is hashed once.

        Raises:
            DataError: rows with another content.
        """
        changed = []
        for row in set(rows) - self.verified:
            entry = self.manifest["rows"][row]
            if sha256_row(self.images[row], self.labels[row]) != entry["sha256"]:
                changed.append(entry["image_id"])
        if changed:
            got, remedy = f"another content of {', '.join(sorted(changed)[:5])}", "run the stage `preprocess` again"
            raise DataError(Problem("images.npy and labels.npy", got, "the rows that images.json vouches for", remedy))
        self.verified.update(rows)

    def label_index(self, target: str) -> int:
        """Where a label image lies on the second axis of `labels`."""
        return list(self.manifest["labels"]).index(target)


@dataclass(frozen=True)
class Target:
    """What an experiment predicts, as a model counts it.

    Args:
        task: classification, regression or segmentation.
        column: the column of the cohort.
        names: classes, or names of labels with the background first, in the order of a model's outputs; the column for regression.
        values: the label value of each name (segmentation), else empty.
    """

    task: str
    column: str
    names: list[str]
    values: list[int]

    def encode(self, targets: Sequence[Any]) -> NDArray[Any]:
        """Targets of a fold table as class indices (int64) or values (float64)."""
        if self.task == "classification":
            return np.asarray([self.names.index(value) for value in targets], np.int64)
        return np.asarray(targets, np.float64)

    def encode_labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Label values as positions in `names`; every value must be declared."""
        table = np.full(max(int(labels.max(initial=0)), max(self.values)) + 1, 255, np.uint8)
        table[self.values] = np.arange(len(self.values), dtype=np.uint8)
        encoded = table[labels]
        if (encoded == 255).any():
            got = f"the values {sorted(set(np.unique(labels).tolist()) - set(self.values))}"
            remedy = "declare them in the dataset, or mend the labels"
            raise DataError(Problem(f"labels `{self.column}`", got, f"only {self.values}", remedy))
        return encoded

    def decode_labels(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Positions in `names` as label values."""
        return np.asarray(self.values, np.uint8 if max(self.values) < 256 else np.uint16)[indices]


def open_store(layout: Layout, dataset: str) -> Store:
    """Open a dataset's packed images.

    Raises:
        DataError: files are missing, or do not fit each other.
    """
    manifest = read_json(layout.dataset(dataset, "images.json"))
    arrays, problems = [], []
    for name in ("images.npy", "labels.npy"):
        path = layout.dataset(dataset, name)
        try:
            array = read_array(path)
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), str(error), "a readable array", "run the stage `preprocess` again"))
            continue
        expected = (len(manifest["rows"]), len(manifest["channels" if name == "images.npy" else "labels"]), *manifest["shape"])
        if array.shape != expected:
            problems.append(
                Problem(str(path), f"shape {array.shape}", f"{expected}, as images.json says", "run `preprocess` again")
            )
        arrays.append(array)
    if problems:
        raise DataError(problems)
    return Store(arrays[0], arrays[1], manifest)


def find_target(layout: Layout, dataset: str, task: str, column: str, classes: Sequence[str] | None) -> Target:
    """What an experiment predicts.

    Args:
        layout: the results folder.
        dataset: its name.
        task: classification, regression or segmentation.
        column: the target column, or the label image column.
        classes: classes in order; all values of the column in sorted order where None.

    Raises:
        DataError: no such column or label image, values outside `classes`, or fewer than two classes.
    """
    path = layout.dataset(dataset, "cohort.tsv")
    cohort = read_table(path, "cohort")
    if column not in cohort.columns:
        raise DataError(
            Problem(f"{path}: {column}", "no such column", "the target of the experiment", "name a column of the cohort")
        )
    if task == "segmentation":
        return _label_target(layout, dataset, column)
    if task == "regression":
        if not pd.api.types.is_numeric_dtype(cohort[column]):
            raise DataError(Problem(f"{path}: {column}", "text", "numbers", "take another target, or task: classification"))
        return Target(task, column, [column], [])
    found = {value for value in map(class_text, cohort[column]) if value}
    names = [str(name) for name in classes] if classes else sorted(found)
    unknown = sorted(found - set(names))
    if unknown:
        remedy = "name them in `classes`, or leave these cells empty"
        raise DataError(Problem(f"{path}: {column}", f"the classes {unknown}", f"only {names}", remedy))
    if len(names) < 2:
        raise DataError(Problem(f"{path}: {column}", f"the classes {names}", "at least two", "take another target"))
    return Target(task, column, names, [])


def _label_target(layout: Layout, dataset: str, column: str) -> Target:
    path = layout.dataset(dataset, "dataset.json")
    declared = read_json(path)["labels"]
    if column not in declared:
        got = f"labels {sorted(declared) or '(none)'}"
        raise DataError(Problem(f"{path}: labels.{column}", got, "the label image of the experiment", "name another target"))
    names = {int(value): str(name) for value, name in declared[column].items()}
    names.setdefault(0, "background")
    if len(names) > 255:
        raise DataError(Problem(f"{path}: labels.{column}", f"{len(names)} labels", "at most 255", "merge labels"))
    values = sorted(names)
    return Target("segmentation", column, [names[value] for value in values], values)


def fold_table(layout: Layout, dataset: str, fold: int | str, target: Target, roles: Sequence[str]) -> pd.DataFrame:
    """The images of a fold that an experiment uses.

    Args:
        layout: the results folder.
        dataset: its name.
        fold: number of the fold.
        target: what is predicted; rows without it are left out.
        roles: which roles; `locked` takes the participants outside every fold.

    Returns:
        One row per image, sorted by image_id: image_id, participant_id, group, role, row (place in the store), sha256 (of that
        row), target (class as text, number, or path of the label image).

    Raises:
        LeakageError: a group on two sides of the split.
        DataError: an image without a role in this fold.
    """
    splits = read_table(layout.dataset(dataset, "splits.tsv"), "splits")
    check_splits(splits, str(layout.dataset(dataset, "splits.tsv")))
    splits = splits[splits["fold"].isin([str(fold), "locked"])]
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort").set_index("image_id")
    rows = pd.DataFrame(read_json(layout.dataset(dataset, "images.json"))["rows"], columns=["image_id", "sha256"])
    rows["row"] = np.arange(len(rows))
    role_of = dict(zip(splits["participant_id"], splits["role"], strict=True))
    group_of = dict(zip(splits["participant_id"], splits["group"], strict=True))
    strange = [name for name in rows["image_id"] if name not in cohort.index]
    rows = rows[~rows["image_id"].isin(strange)]
    rows["participant_id"] = cohort.loc[rows["image_id"], "participant_id"].to_numpy()
    strange += [
        f"{image} of {person}"
        for image, person in zip(rows["image_id"], rows["participant_id"], strict=True)
        if person not in role_of
    ]
    if strange:
        remedy = "run the stages from `split` on again"
        where = str(layout.dataset(dataset, "splits.tsv"))
        raise DataError(Problem(where, f"no role in fold {fold} for {', '.join(strange[:5])}", "a role for every image", remedy))
    rows["role"] = rows["participant_id"].map(role_of)
    rows["group"] = rows["participant_id"].map(group_of)
    values = cohort.loc[rows["image_id"], target.column]
    rows["target"] = [class_text(value) for value in values] if target.task != "regression" else values.to_numpy(np.float64)
    present = rows["target"] != "" if target.task != "regression" else np.isfinite(rows["target"])
    columns = ["image_id", "participant_id", "group", "role", "row", "sha256", "target"]
    return rows.loc[rows["role"].isin(roles) & present, columns].sort_values("image_id", ignore_index=True)


def input_digest(layout: Layout, dataset: str, fold: int, target: Target) -> str:
    """The sha256 of all that a training on a fold can see of the data.

    Args:
        layout: the results folder.
        dataset: its name.
        fold: number of the fold.
        target: what is predicted.

    Returns:
        A hash over the training and validation images (id, bytes of the packed row, target, role), what is said of the store as a
        whole, the names of the classes, and the normalization of the fold; test participants do not enter.
    """
    table = fold_table(layout, dataset, fold, target, FIT_ROLES)
    manifest = read_json(layout.dataset(dataset, "images.json"))
    whole = {key: value for key, value in manifest.items() if key != "rows"}
    parts = [canonical_json(whole), canonical_json([target.task, target.column, target.names, target.values])]
    for item in rows_of(table):
        said = repr(item["target"]) if target.task == "regression" else item["target"]
        parts += [item["image_id"], item["sha256"], said, item["role"]]
    for name in ("normalization.json", "normalization.safetensors"):
        parts.append(sha256_file(layout.fold(dataset, fold, name)))
    return sha256_text(*map(str, parts))


def read_normalization(layout: Layout, dataset: str, fold: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fold's normalization as it is stored: its description and its arrays."""
    description = read_json(layout.fold(dataset, fold, "normalization.json"))
    path: Path = layout.fold(dataset, fold, "normalization.safetensors")
    return description, read_tensors(path)


class Images:
    """Normalized images of some rows of the store, read when asked for.

    Args:
        store: the packed images.
        rows: places in the store.
        normalization: what is done to them.
        target: what is predicted.
        values: the targets of the rows, as `fold_table` gives them.
    """

    def __init__(
        self, store: Store, rows: Sequence[int] | NDArray[Any], normalization: Normalization, target: Target, values: Sequence[Any]
    ):
        self.store, self.rows, self.normalization = store, np.asarray(rows, np.int64), normalization
        self.target, self.values = target, list(values)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """One image: (C, X, Y, Z) float32, normalized."""
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[np.float32]:
        """Some images, by their positions among the rows: (B, C, X, Y, Z) float32, normalized."""
        rows = self.rows[np.asarray(indices)]
        self.store.verify(rows.tolist())
        return self.normalization.apply(np.asarray(self.store.images[rows], np.float32))

    def labels(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[np.uint8]:
        """Some label images as positions in the target's names: (B, X, Y, Z)."""
        rows = self.rows[np.asarray(indices)]
        return self.target.encode_labels(self.store.labels[rows, self.store.label_index(self.target.column)])

    @property
    def targets(self) -> Any:
        """Class indices (N,) int64, values (N,) float64, or a function from a position to a label image (X, Y, Z)."""
        if self.target.task == "segmentation":
            return lambda index: self.labels([index])[0]
        return self.target.encode(self.values)
