"""Segmentation: one structure of one image at a time, on the image's own grid.

Empty structures: absent from truth and prediction is right, so Dice and surface Dice are 1 and distances are 0; present in only one of them is as
wrong as can be, so both Dice are 0 and distances are the diagonal of the image. Nothing is left out, and models stay comparable. (A
structure that no image has in its truth is left out as a whole by the evaluation: every value would be this convention.)

Source: Maier-Hein, Reinke et al., Metrics Reloaded, Nature Methods 21, 2024; their software gives the best value where both are
empty and asks for the worst where one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.types import Affine, LabelMap

Mask = NDArray[np.bool_]

NO_TRUTH = "no image has this structure in its truth"
METRICS: dict[str, dict[str, Any]] = {
    "dice": {"kind": "case", "studentized": True, "range": (0, 1), "better": "higher", "unit": "", "undefined": NO_TRUTH},
    "surface_dice": {"kind": "case", "studentized": True, "range": (0, 1), "better": "higher", "unit": "", "undefined": NO_TRUTH},
    "hd95": {"kind": "case", "studentized": True, "range": (0, None), "better": "lower", "unit": "mm", "undefined": NO_TRUTH},
    "mean_surface_distance": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "mm",
        "undefined": NO_TRUTH,
    },
    "volume_error_ml": {
        "kind": "case",
        "studentized": True,
        "range": (None, None),
        "better": "zero",
        "unit": "mL",
        "undefined": NO_TRUTH,
    },
    "volume_error_relative": {
        "kind": "case",
        "studentized": True,
        "range": (-1, None),
        "better": "zero",
        "unit": "",
        "undefined": NO_TRUTH,
    },
    "volume_error_relative_absolute": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "",
        "undefined": NO_TRUTH,
    },
}
DESCRIPTIONS = ("volume_true_ml", "volume_predicted_ml")  # stand in cases.tsv, are not averaged
PERCENTILE = 95


@dataclass(frozen=True)
class Pair:
    """A true and a predicted structure of one image.

    Args:
        truth: (X, Y, Z); may be cropped to what either covers.
        predicted: the same grid.
        affine: 4 x 4, voxel indices to mm (its origin does not matter).
        diagonal_mm: of the whole image.
        axes: axes along which the whole image has more than one voxel: a plane has no upper and lower surface.
        tolerance_mm: how far apart surfaces may be for the surface Dice.
        background: where neither this nor another structure is predicted, inside the mask; None where that is not known.
    """

    truth: Mask
    predicted: Mask
    affine: Affine
    diagonal_mm: float
    axes: tuple[int, ...] = (0, 1, 2)
    tolerance_mm: float = 1.0
    background: Mask | None = None

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in cubic mm."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Voxels of truth and prediction."""
        return int(self.truth.sum()), int(self.predicted.sum())

    @cached_property
    def distances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance in mm from each surface voxel of the truth to the nearest predicted one, and back; neither may be empty."""
        from scipy.spatial import cKDTree

        true, predicted = (np.argwhere(surface(mask, self.axes)) @ self.affine[:3, :3].T for mask in (self.truth, self.predicted))
        return np.asarray(cKDTree(predicted).query(true)[0]), np.asarray(cKDTree(true).query(predicted)[0])


def pairs(
    truth: LabelMap,
    predicted: LabelMap,
    structures: Mapping[int, str],
    affine: Affine,
    mask: Mask | None = None,
    tolerance_mm: float = 1.0,
) -> Iterator[tuple[str, Pair]]:
    """Cut two label maps into their structures.

    Args:
        truth: (X, Y, Z) label values.
        predicted: the same grid.
        structures: label value -> name.
        affine: 4 x 4, voxel indices to mm.
        mask: (X, Y, Z); nothing outside counts.
        tolerance_mm: for the surface Dice.

    Yields:
        Name, and the pair cropped to the box of both.
    """
    from scipy.ndimage import find_objects

    shape = np.array(truth.shape)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    diagonal = float(np.sqrt(((shape * spacing)[shape > 1] ** 2).sum()))
    axes = tuple(int(axis) for axis in np.flatnonzero(shape > 1))
    if mask is not None:
        truth, predicted = (np.where(mask, part, 0) for part in (truth, predicted))
    background = (predicted == 0) & (mask if mask is not None else True)
    highest = max(structures, default=0)
    boxes = [find_objects(np.asarray(part, np.int32), max_label=highest) for part in (truth, predicted)]
    for value, name in structures.items():
        box = _union([part[value - 1] for part in boxes])
        yield name, Pair(truth[box] == value, predicted[box] == value, affine, diagonal, axes, tolerance_mm, background[box])


def dice(pair: Pair) -> float:
    """Twice the shared volume over the sum of both volumes.

    Source: Dice, Measures of the amount of ecologic association between species, Ecology 26, 1945.
    """
    true, predicted = pair.sizes
    return 2 * int((pair.truth & pair.predicted).sum()) / (true + predicted) if true + predicted else 1.0


def surface_dice(pair: Pair) -> float:
    """Share of the surface voxels of both that lie within the tolerance of the other surface.

    Source: Nikolov et al., Clinically applicable segmentation of head and neck anatomy, Journal of Medical Internet Research 23, 2021
    (theirs weighs voxels by the area they stand for; here each counts once, as in MONAI).
    """
    if not all(pair.sizes):
        return 0.0 if any(pair.sizes) else 1.0
    return float((np.concatenate(pair.distances) <= pair.tolerance_mm).mean())


def hd95(pair: Pair) -> float:
    """95th percentile Hausdorff distance in mm: the larger of the two directions' percentiles over surface voxels.

    Source: Huttenlocher et al., IEEE TPAMI 15, 1993 (ranked directed distances); Maier-Hein et al., Nature Methods 21, 2024.
    """
    if not all(pair.sizes):
        return pair.diagonal_mm if any(pair.sizes) else 0.0
    return float(max(np.percentile(part, PERCENTILE) for part in pair.distances))


def mean_surface_distance(pair: Pair) -> float:
    """Average symmetric surface distance in mm: the mean over the surface voxels of both.

    Source: Heimann et al., IEEE TMI 28, 2009.
    """
    if not all(pair.sizes):
        return pair.diagonal_mm if any(pair.sizes) else 0.0
    return float(np.concatenate(pair.distances).mean())


def volume_true_ml(pair: Pair) -> float:
    """True volume in mL (of a plane: area times thickness)."""
    return pair.sizes[0] * _voxel_ml(pair)


def volume_predicted_ml(pair: Pair) -> float:
    """Predicted volume in mL."""
    return pair.sizes[1] * _voxel_ml(pair)


def volume_error_ml(pair: Pair) -> float:
    """Predicted minus true volume in mL."""
    return (pair.sizes[1] - pair.sizes[0]) * _voxel_ml(pair)


def volume_error_relative(pair: Pair) -> float:
    """Predicted minus true volume as a fraction of the true one; NaN where the true structure is empty."""
    true, predicted = pair.sizes
    return (predicted - true) / true if true else float("nan")


def volume_error_relative_absolute(pair: Pair) -> float:
    """Size of the relative volume error without its sign; NaN where the true structure is empty."""
    return abs(volume_error_relative(pair))


def surface(mask: Mask, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """Voxels of a mask with a face neighbour outside it; beyond the array is outside.

    Args:
        mask: (X, Y, Z).
        axes: axes along which neighbours are looked for; without any, every voxel is surface.
    """
    padded = np.pad(mask, 1)
    inner = mask.copy() if axes else np.zeros_like(mask)
    center = [slice(1, -1)] * 3
    for axis in axes:
        for shift in (slice(0, -2), slice(2, None)):
            inner &= padded[tuple(shift if index == axis else part for index, part in enumerate(center))]
    return mask & ~inner


def _voxel_ml(pair: Pair) -> float:
    return pair.voxel_mm3 / 1000


def _union(boxes: list[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """The smallest box around all boxes; an empty one where there is none."""
    found = [box for box in boxes if box is not None]
    if not found:
        return (slice(0, 0),) * 3
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*found, strict=True))
