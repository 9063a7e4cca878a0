"""Prediction: a trained model on the validation and test participants of its fold, label maps back on the original grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.accelerator import measured
from gyri.config.training import PredictSettings
from gyri.images import channel_columns, map_suffix, save_labels, verify_row
from gyri.inference import Model, check_fit, load_model
from gyri.io import atomic, read_json
from gyri.layout import Layout
from gyri.loading import Store, Target, fold_table, open_store
from gyri.progress import Progress
from gyri.selftest import before_start
from gyri.tables import read_table, row_of, write_table
from gyri.transforms.packing import allocate
from gyri.transforms.spatial import SpatialRecord


def run(
    settings: PredictSettings,
    layout: Layout,
    dataset: str,
    experiment: str,
    model: str,
    fold: int,
    seed: int,
    roles: Sequence[str] = ("validation", "test"),
    versions: Literal["strict", "warn"] = "strict",
) -> dict[str, Any]:
    """Predict every image of some roles.

    Args:
        settings: what the stage is told.
        layout: the results folder.
        dataset: its name.
        experiment: its name.
        model: its name in the experiment.
        fold: number of the fold.
        seed: index of the seed.
        roles: `("locked",)` writes below `<experiment>/locked`.
        versions: what a difference between the versions found and the locked ones does, on a GPU or in an image.

    Returns:
        Facts for provenance.

    Raises:
        DataError: the model and the dataset do not fit each other, or not one image fits into the device's memory.
        ProvenanceError: the versions are not the locked ones.
        DeviceError: the GPU computes wrong numbers.
    """
    folder = layout.run(experiment, model, fold, seed)
    output = layout.run(f"{experiment}/locked", model, fold, seed) if "locked" in roles else folder
    opened, store = load_model(folder, settings.threads), open_store(layout, dataset)
    check_fit(opened.card, store, layout, dataset, fold, folder / "model.json")
    if opened.card["trained"]:
        before_start(versions)
    table = fold_table(layout, dataset, fold, opened.target, roles)
    table = table.sort_values(["role", "image_id"], ignore_index=True)
    output.mkdir(parents=True, exist_ok=True)
    maps = _Maps(layout, dataset, store, opened.target, output, settings.threads) if opened.target.task == "segmentation" else None
    title = f"{experiment}/{model}, fold {fold}, seed {seed}"
    with measured(opened.device) as usage:
        found = _predict(opened, store, table, settings, output / "probabilities.npy", maps, title)
        facts = {**opened.facts, "accelerator": usage()}
    rows = table[["image_id", "participant_id", "group"]].assign(fold=str(fold), role=table["role"], model=model, seed=str(seed))
    rows["target"] = table["target"]
    if maps is not None:
        base = output.parents[2]  # results/<experiment>
        rows["prediction"] = [str(path.relative_to(base)) for path in maps.written(table["image_id"].tolist())]
    elif opened.target.task == "classification":
        rows["prediction"] = [opened.target.names[index] for index in found.argmax(1)]
        for index, name in enumerate(opened.target.names):
            rows[f"probability_{name}"] = found[:, index].astype(np.float64)
    else:
        rows["prediction"] = found[:, 0].astype(np.float64)
    write_table(output / "predictions.tsv", rows, "predictions")
    return {**facts, "images": len(rows), **{f"{role}_images": int((table["role"] == role).sum()) for role in roles}}


def _predict(
    model: Model, store: Store, table: pd.DataFrame, settings: PredictSettings, path: Path, maps: _Maps | None, title: str
) -> NDArray[np.float32]:
    """Go through the images in batches.

    Args:
        model: opened.
        store: the packed images.
        table: what to predict.
        settings: batch size and mirror axes.
        path: where probabilities of label images are kept for ensembles (float16); an empty array for other tasks.
        maps: takes the probabilities of each image (segmentation).
        title: for the progress line.

    Returns:
        Probabilities or values of all rows, empty for segmentation.
    """
    kept: list[NDArray[np.float32]] = []
    shape = (len(table), len(model.target.names), *store.shape) if maps is not None else (0,)
    progress = Progress(f"{title}: predict", len(table))
    with atomic(path) as temporary:
        allocate(temporary, shape, "<f2")
        packed = np.lib.format.open_memmap(temporary, mode="r+") if maps is not None else None
        for indices in _batches(len(table), settings.batch_size):
            rows = table["row"].to_numpy()[indices]
            store.verify(rows.tolist())
            found = model.probabilities(store.images[rows], settings.mirror)
            if packed is not None and maps is not None:
                packed[indices] = found
                maps.write(table["image_id"].iloc[indices].tolist(), rows, found)
            else:
                kept.append(found)
            progress.step(count=len(indices))
        if packed is not None:
            packed.flush()
    return np.concatenate(kept) if kept else np.empty((0,), np.float32)


def _batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


class _Maps:
    """Writes label maps on the grid of the original images.

    Args:
        layout: the results folder.
        dataset: its name.
        store: holds each image's way to the network grid.
        target: the label image that is predicted.
        output: the run folder.
        threads: maps written at once.
    """

    def __init__(self, layout: Layout, dataset: str, store: Store, target: Target, output: Path, threads: int):
        self.root = Path(read_json(layout.dataset(dataset, "dataset.json"))["root"])
        self.cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort").set_index("image_id", drop=False)
        self.store, self.target, self.folder, self.threads = store, target, output / "maps", threads
        for old in self.folder.glob("*"):
            old.unlink()

    def image(self, image_id: str) -> Path:
        """The file of an image's first channel."""
        row = self.cohort.loc[image_id]
        return next(self.root / row[column] for column in channel_columns(self.cohort.columns) if row[column])

    def path(self, image_id: str) -> Path:
        """Where the map of an image lies."""
        return self.folder / f"{image_id}{map_suffix(self.image(image_id))}"

    def write(self, image_ids: list[str], rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
        """Bring probabilities (B, K, X, Y, Z) back to the original grids and write the most probable labels."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(self._write_one, image_ids, rows.tolist(), probabilities))

    def _write_one(self, image_id: str, row: int, probabilities: NDArray[np.float32]) -> None:
        verify_row(row_of(self.cohort, image_id), self.root)
        record = SpatialRecord.from_json(self.store.manifest["rows"][row]["spatial"])
        labels = self.target.decode_labels(record.invert(probabilities).argmax(0))
        save_labels(self.path(image_id), labels, np.asarray(record.original_affine), self.image(image_id))

    def written(self, image_ids: Sequence[str]) -> list[Path]:
        """The paths of the maps."""
        return [self.path(image_id) for image_id in image_ids]
