"""Segmentation after post-processing: small or lesser components removed, holes filled; which, is chosen on validation.

The rule: every candidate is tried on the validation images of the fold, structure by structure; the one with the highest mean Dice
is applied to the test images, an earlier one on a tie (`none` comes first). Components touch by a face, an edge or a corner; only
background is filled, never another structure; removed voxels become background. Each structure is measured by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.metrics.segmentation import METRICS as RAW
from gyri.metrics.segmentation import Pair, dice, hd95, surface_dice

Mask = NDArray[np.bool_]

NONE = "none"
METRICS: dict[str, dict[str, Any]] = {f"{name}_postprocessed": RAW[name] for name in ("dice", "surface_dice", "hd95")}


def dice_postprocessed(pair: Pair) -> float:
    """Dice of a post-processed structure."""
    return dice(pair)


def surface_dice_postprocessed(pair: Pair) -> float:
    """Surface Dice of a post-processed structure."""
    return surface_dice(pair)


def hd95_postprocessed(pair: Pair) -> float:
    """95th percentile Hausdorff distance of a post-processed structure in mm."""
    return hd95(pair)


def names(minima_mm3: Sequence[float]) -> list[str]:
    """The candidates in order.

    Args:
        minima_mm3: smallest volumes of components that are kept.
    """
    removing = [NONE, "largest component", *(f"components of at least {size:g} mm3" for size in minima_mm3)]
    return [*removing, "holes filled", *(f"{name}, holes filled" for name in removing[1:])]


def candidates(pair: Pair, minima_mm3: Sequence[float]) -> Iterator[tuple[str, Pair]]:
    """A structure after every candidate.

    Args:
        pair: the structure.
        minima_mm3: smallest volumes of components that are kept.

    Yields:
        Name and pair, in the order of `names`; the very same pair where nothing changes.
    """
    flat = tuple(0 if axis not in pair.axes else slice(None) for axis in range(3))  # a plane is not closed above and below
    predicted = pair.predicted[flat]
    background = np.zeros_like(predicted) if pair.background is None else pair.background[flat]
    removed = list(_removed(predicted, minima_mm3, pair.voxel_mm3))
    everything = [*removed, *(_filled(mask, background | (predicted & ~mask)) for mask in removed)]
    for name, mask in zip(names(minima_mm3), everything, strict=True):
        yield name, pair if np.array_equal(mask, predicted) else replace(pair, predicted=mask.reshape(pair.predicted.shape))


def _removed(predicted: Mask, minima_mm3: Sequence[float], voxel_mm3: float) -> Iterator[Mask]:
    """The mask itself, its largest component, and its components of at least each volume."""
    from scipy.ndimage import label

    yield predicted
    numbered, count = label(predicted, np.ones((3,) * predicted.ndim))
    if count < 2:
        sizes = np.array([0, predicted.sum()])
    else:
        sizes = np.bincount(numbered.ravel())
        sizes[0] = 0
    yield predicted & (numbered == sizes.argmax())
    for minimum in minima_mm3:
        yield predicted & (sizes * voxel_mm3 >= minimum - 1e-9)[numbered]


def _filled(mask: Mask, free: Mask) -> Mask:
    """The mask with its holes, as far as they are free."""
    from scipy.ndimage import binary_fill_holes

    return mask | (binary_fill_holes(mask) & free)
