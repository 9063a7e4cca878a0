"""Images with truth and prediction, cut and masked so that no face is left, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.io import read_array
from gyri.report.parts import Missing
from gyri.report.privacy import NEAR_MM, Spacing3, visible
from gyri.report.source import Source


@dataclass(frozen=True)
class Case:
    """One image cut out around what may be shown, in RAS+ order.

    Args:
        image: (X, Y, Z) grey values; NaN where nothing may be shown.
        truth: (X, Y, Z) labels; zeros where the task has none.
        prediction: (X, Y, Z) labels; zeros where the task has none.
        spacing: voxel edges in mm.
        outside: predicted voxels beyond the cut.
        oriented: whether left and right are known (they are not in PNG and TIFF).
        shown: which voxels of the image are shown, in words.
    """

    image: NDArray[np.floating]
    truth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing: Spacing3
    outside: int
    oriented: bool = True
    shown: str = ""


def segmented_case(source: Source, image_id: str, prediction: str) -> Case:
    """Read one image on its own grid with truth and prediction, cut out around the truth.

    Args:
        source: the experiment.
        image_id: as the page calls it.
        prediction: path of the map below the experiment's folder.

    Raises:
        Missing: the image cannot be shown.
        DataError: a file changed or cannot be read.
    """
    from gyri.images import NIFTI, channel_columns, label_columns, load_labels, load_row, suffix_of, verify_row

    facts, row = source.description, _row(source, image_id)
    root, spacing = Path(facts["root"]), facts.get("spacing_mm")
    verify_row(row, root)
    image, affine = load_row(row, facts)
    drawn = {name: load_labels(root / row[name], facts.get("volume"), spacing)[0] for name in label_columns(row) if row[name]}
    mask = load_labels(root / row["mask"], facts.get("volume"), spacing)[0] if row.get("mask") else np.zeros(image.shape[1:])
    said, _ = load_labels(source.layout.experiment(source.settings.experiment, prediction), None, spacing)
    truth = drawn[source.settings.target]
    if truth.shape != image.shape[1:] or said.shape != truth.shape:
        raise Missing(f"image {image.shape[1:]}, truth {truth.shape} and prediction {said.shape} lie on different grids")
    marked = np.any([labels > 0 for labels in drawn.values() if labels.shape == truth.shape], axis=0)
    oriented = all(suffix_of(row[name]) in NIFTI for name in channel_columns(row) if row[name])
    if not oriented:
        # rows of a picture run from top to bottom
        affine = affine @ np.diag([1.0, -1.0, 1.0, 1.0])
    whole, labels, found, drawn_on, brain = (
        canonical(volume, affine) for volume in (image[0], _whole(truth), _whole(said), marked, mask > 0)
    )
    return cut(whole, labels, found, drawn_on, brain, edges_of(affine), oriented)


def packed_case(source: Source, image_id: str) -> Case:
    """One image on the network's grid, without labels, cut out around what may be shown.

    Args:
        source: the experiment.
        image_id: as the page calls it.

    Raises:
        Missing: images.npy does not hold it.
    """
    image, labels, mask, spacing = packed_volumes(source, image_id)
    nothing = np.zeros(image.shape, np.int32)
    return cut(image, nothing, nothing, labels, mask, spacing)


def packed_volumes(source: Source, image_id: str) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Spacing3]:
    """One image on the network's grid, whole: not yet to be shown.

    Args:
        source: the experiment.
        image_id: as the page calls it.

    Returns:
        The first channel, what anybody labelled, the brain mask (empty where there is none), voxel edges in mm.

    Raises:
        Missing: images.npy does not hold it.
    """
    folder = source.layout.dataset(source.settings.dataset)
    if not (folder / "images.npy").is_file():
        raise Missing("images.npy is not there")
    record = source.json(folder / "images.json")
    places = {source.names.shown(item["image_id"]): index for index, item in enumerate(record["rows"])}
    if image_id not in places:
        raise Missing("not in images.npy")
    index = places[image_id]
    image = np.asarray(read_array(folder / "images.npy")[index, 0], np.float32)
    labels, mask = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    if record["labels"]:
        packed = np.asarray(read_array(folder / "labels.npy")[index])
        for name, volume in zip(record["labels"], packed, strict=True):
            if name == "mask":
                mask = volume > 0
            else:
                labels |= volume > 0
    return image, labels, mask, packed_spacing(record["rows"][index])


def packed_spacing(item: dict[str, Any]) -> Spacing3:
    """Voxel edges in mm of a row of images.json.

    Raises:
        Missing: it does not say, so nobody knows whether the image can hold a face.
    """
    from gyri.transforms.spatial import SpatialRecord

    if not item.get("spatial"):
        raise Missing("images.json does not say how large its voxels are")
    return edges_of(SpatialRecord.from_json(item["spatial"]).affine)


def cut(
    image: NDArray[np.floating],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    labels: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    spacing: Spacing3,
    oriented: bool = True,
) -> Case:
    """Blank out what may not be shown and cut the rest out around the truth (what is labelled, what is shown, if there is none).

    Args:
        image: (X, Y, Z).
        truth: (X, Y, Z).
        prediction: (X, Y, Z).
        labels: (X, Y, Z), whatever anybody labelled.
        mask: (X, Y, Z) of the brain; empty where the dataset has none.
        spacing: voxel edges in mm.
        oriented: whether left and right are known.

    Raises:
        Missing: nothing is left.
    """
    allowed, words = visible(image, labels, mask, spacing)
    marked = next((part for part in (truth > 0, prediction > 0, allowed) if (part & allowed).any()), None)
    if marked is None:
        raise Missing("nothing of this image can be shown without showing a face")
    box = []
    for axis in range(3):
        there = np.flatnonzero(marked.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(NEAR_MM / spacing[axis])) if marked is not allowed else 1
        box.append(slice(max(int(there[0]) - margin, 0), min(int(there[-1]) + margin + 1, image.shape[axis])))
    inside = tuple(box)
    outside = int((prediction > 0).sum() - (prediction[inside] > 0).sum())
    shown = np.where(allowed[inside], image[inside], np.float32(np.nan))
    return Case(shown, truth[inside], prediction[inside], spacing, outside, oriented, words)


def canonical(volume: NDArray[Any], affine: NDArray[np.floating]) -> NDArray[Any]:
    """The volume in RAS+ order, without resampling."""
    import nibabel

    return nibabel.apply_orientation(volume, nibabel.io_orientation(affine))


def edges_of(affine: NDArray[np.floating]) -> Spacing3:
    """Voxel edges along X, Y and Z in mm, whatever the stored order of the axes."""
    import nibabel

    sizes, orientation = np.linalg.norm(affine[:3, :3], axis=0), nibabel.io_orientation(affine)
    x, y, z = (float(sizes[np.flatnonzero(orientation[:, 0] == axis)[0]]) for axis in range(3))
    return x, y, z


def _row(source: Source, image_id: str) -> dict[str, Any]:
    import pandas as pd

    rows = source.cohort[source.cohort["image_id"] == image_id]
    if rows.empty:
        raise Missing("not in cohort.tsv")
    return {str(key): ("" if pd.isna(value) else value) for key, value in rows.iloc[0].items()}


def _whole(values: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.rint(values).astype(np.int32)
