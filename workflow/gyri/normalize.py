"""Stage normalize: statistics of one fold's training participants, and of nobody else.

Rows are read one after the other, so memory does not grow with the number of images; sums are kept in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import Normalize, NormalizeSettings
from gyri.errors import DataError, Problem
from gyri.io import read_array, read_json, sha256_text, write_json, write_tensors
from gyri.layout import Layout
from gyri.leakage import check_splits
from gyri.seeds import generator
from gyri.tables import read_table
from gyri.transforms.packing import sha256_row

VOXEL_FLOOR = 0.1  # of the channel's global standard deviation
RANK_TOLERANCE = 1e-10  # of the largest eigenvalue


class TrainingImages:
    """The training images of a fold, read row by row; other rows are never opened.

    Args:
        images: (N, C, X, Y, Z) packed images.
        labels: (N, L, X, Y, Z) packed labels; only their bytes count, for the hash.
        rows: records of the training rows, each with its `index`, sorted by image_id.
        where: names the store in messages.
    """

    def __init__(self, images: NDArray[Any], labels: NDArray[Any], rows: list[dict[str, Any]], where: str):
        self.images, self.labels, self.rows, self.where = images, labels, rows, where

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        """Each image as float64 (C, X, Y, Z).

        Raises:
            DataError: the row's bytes are not those that the manifest names.
        """
        for row in self.rows:
            image = self.images[row["index"]]
            if sha256_row(image, self.labels[row["index"]]) != row["sha256"]:
                got = f"another content of {row['image_id']} than images.json says"
                raise DataError(Problem(self.where, got, "the row that was packed", "run the stage `preprocess` again"))
            yield np.asarray(image, np.float64)


def run(settings: NormalizeSettings, layout: Layout, dataset: str, fold: int) -> dict[str, Any]:
    """Write normalization.json and normalization.safetensors of one fold.

    Args:
        settings: what is fitted.
        layout: where files lie.
        dataset: its name.
        fold: number of the fold.

    Returns:
        Facts for provenance: method, images, groups.

    Raises:
        LeakageError: a group on two sides of the split.
        DataError: no training images in the fold, or a store that does not fit its manifest.
    """
    options = settings.normalize
    training = training_images(layout, dataset, fold)
    mean, std = global_statistics(training, options.epsilon)
    arrays: dict[str, NDArray[Any]] = {}
    if options.method == "none":
        mean, std = np.zeros_like(mean), np.ones_like(std)
    elif options.method == "voxel":
        arrays = voxel_statistics(training, std, options.epsilon)
    elif options.method in ("pca", "zca"):
        arrays = whitening(draw_patches(training, mean, std, options, fold), options)
    groups = {row["group"] for row in training.rows}
    description = {
        "method": options.method,
        "fold": fold,
        "fitted_on": fitted_on(training.rows),
        "n_images": len(training),
        "n_groups": len(groups),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
    }
    write_tensors(layout.fold(dataset, fold, "normalization.safetensors"), arrays)
    write_json(layout.fold(dataset, fold, "normalization.json"), description)
    return {"method": options.method, "images": len(training), "groups": len(groups)}


def training_images(layout: Layout, dataset: str, fold: int) -> TrainingImages:
    """The images whose participants have the role `train` in a fold."""
    path = layout.dataset(dataset, "splits.tsv")
    splits = read_table(path, "splits")
    check_splits(splits, str(path))
    chosen = splits[(splits["fold"] == str(fold)) & (splits["role"] == "train")]
    participants = dict(zip(chosen["participant_id"], chosen["group"], strict=True))
    manifest = read_json(layout.dataset(dataset, "images.json"))
    rows = [
        {**row, "index": index, "group": participants[row["participant_id"]]}
        for index, row in enumerate(manifest["rows"])
        if row["participant_id"] in participants
    ]
    if not rows:
        raise DataError(Problem(str(path), f"no training image in fold {fold}", "at least one", "check `folds` and the split"))
    arrays = []
    for name, layers in (("images.npy", manifest["channels"]), ("labels.npy", manifest["labels"])):
        file = layout.dataset(dataset, name)
        arrays.append(_open(file, (len(manifest["rows"]), len(layers), *manifest["shape"])))
    rows.sort(key=lambda row: row["image_id"])
    return TrainingImages(arrays[0], arrays[1], rows, str(layout.dataset(dataset, "images.npy")))


def fitted_on(rows: list[dict[str, Any]]) -> str:
    """The sha256 of what was fitted on: each training image's participant, id and packed bytes, sorted."""
    return sha256_text(*(text for row in sorted(rows, key=_identity) for text in _identity(row)))


def global_statistics(training: TrainingImages, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all voxels of all training images, padding included.

    Args:
        training: images.
        epsilon: added to the variance before the root.

    Returns:
        Two arrays (C,).

    Source: Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for image in training:
        flat = image.reshape(len(image), -1)
        size, own = flat.shape[1], flat.mean(1)
        gap = own - mean
        squares = squares + ((flat - own[:, None]) ** 2).sum(1) + gap**2 * (count * size / (count + size))
        mean = mean + gap * (size / (count + size))
        count += size
    return mean, np.sqrt(squares / count + epsilon)


def voxel_statistics(training: TrainingImages, std: NDArray[np.float64], epsilon: float) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation of each voxel over the training images.

    A standard deviation is at least a tenth of its channel's global one: a voxel that is background in every training image
    would otherwise turn the smallest difference in a new image into a huge value.

    Args:
        training: images.
        std: (C,) global standard deviations.
        epsilon: added to the variance before the root.

    Returns:
        mean and std, each (C, X, Y, Z).
    """
    mean, squares = np.zeros(training.images.shape[1:]), np.zeros(training.images.shape[1:])
    for count, image in enumerate(training, 1):
        gap = image - mean
        mean += gap / count
        squares += gap * (image - mean)
    floor = VOXEL_FLOOR * std.reshape(-1, 1, 1, 1)
    spread = np.maximum(np.sqrt(squares / len(training) + epsilon), floor)
    return {"mean": mean.astype(np.float32), "std": spread.astype(np.float32)}


def draw_patches(
    training: TrainingImages, mean: NDArray[np.float64], std: NDArray[np.float64], options: Normalize, fold: int
) -> NDArray[np.float64]:
    """Patches at random places of random training images, standardized with the global statistics.

    Args:
        training: images.
        mean, std: (C,) global statistics.
        options: `patch`, `samples` and `seed` count.
        fold: number of the fold; each fold draws its own places.

    Returns:
        (samples, C * patch voxels), in (C, X, Y, Z) order; planes (Z = 1) give flat patches.

    Raises:
        DataError: the images are smaller than a patch.
    """
    shape = np.array(training.images.shape[2:])
    edges = np.where((np.arange(3) == 2) & (shape == 1), 1, options.patch)
    if (edges > shape).any():
        got, expected = f"patch {options.patch} in images of {shape.tolist()}", "patches that fit into the images"
        raise DataError(Problem("normalize.patch", got, expected, "set a smaller patch"))
    draw = generator("normalize", options.seed, fold)
    places = np.column_stack(
        [draw.integers(0, len(training), options.samples), draw.integers(0, shape - edges + 1, (options.samples, 3))]
    )
    places = places[np.lexsort(places.T[::-1])]
    patches, start = np.empty((options.samples, len(mean) * int(edges.prod()))), 0
    for index, image in enumerate(training):
        image = (image - mean.reshape(-1, 1, 1, 1)) / std.reshape(-1, 1, 1, 1)
        views = np.lib.stride_tricks.sliding_window_view(image, tuple(edges), (1, 2, 3))
        own = places[places[:, 0] == index, 1:]
        found = views[:, own[:, 0], own[:, 1], own[:, 2]]  # (C, patches, *edges)
        patches[start : start + len(own)] = found.transpose(1, 0, 2, 3, 4).reshape(len(own), -1)
        start += len(own)
    return patches


def whitening(patches: NDArray[np.float64], options: Normalize) -> dict[str, NDArray[np.float32]]:
    """Directions and scales that make patches uncorrelated with variance 1.

    Args:
        patches: (samples, D).
        options: `method`, `components` and `epsilon` count; zca keeps all components, since it goes back to voxels.

    Returns:
        mean (D,), components (K, D) with the largest variance first, scale (K,) = 1 / sqrt(variance + epsilon).

    Source: Bell & Sejnowski, The independent components of natural scenes are edge filters, Vision Research 37, 1997 (ZCA); Kessy,
    Lewin & Strimmer, Optimal whitening and decorrelation, The American Statistician 72(4), 2018.
    """
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(patches))
    values, components = np.maximum(values[::-1], 0), vectors[:, ::-1].T
    kept = int((values > RANK_TOLERANCE * values[0]).sum())
    if options.method == "pca":
        kept = min(kept, options.components or kept)
    values, components = values[:kept], components[:kept]
    # an eigenvector's sign is arbitrary: the largest entry is made positive
    largest = np.abs(components).argmax(1)
    components = components * np.sign(components[np.arange(kept), largest])[:, None]
    return {
        "mean": mean.astype(np.float32),
        "components": np.ascontiguousarray(components, np.float32),
        "scale": (1 / np.sqrt(values + options.epsilon)).astype(np.float32),
    }


def _identity(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["participant_id"]), str(row["image_id"]), str(row["sha256"])


def _open(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Open an array of the store, and make sure that it fits the manifest."""
    try:
        array = read_array(path)
    except (OSError, ValueError) as error:
        raise DataError(Problem(str(path), str(error), "a readable array", "run the stage `preprocess` again")) from error
    if array.shape != shape:
        raise DataError(
            Problem(str(path), f"shape {array.shape}", f"{shape}, as images.json says", "run the stage `preprocess` again")
        )
    return array
