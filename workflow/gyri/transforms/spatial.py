"""Where an image's voxels go on the network grid, and the way back: orientation, resampling, cropping and padding.

Every step is kept in one affine from network indices to the indices of the canonical (RAS+) image, so that the inverse is the same
arithmetic. Where nothing was resampled, both ways only move voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gyri.types import Affine, Shape3

SPACING_TOLERANCE = 1e-3  # relative; finer differences of spacing are rounding in headers, not geometry
EDGE = 0.5 + 1e-6  # a voxel reaches half its width beyond its centre


@dataclass(frozen=True)
class SpatialRecord:
    """What was done to an image's grid, enough to do it again to its labels and to undo it.

    Args:
        original_shape: (X, Y, Z) of the file's voxel array.
        original_affine: 4 x 4, file voxel indices to mm in RAS+.
        axes: axis i of the canonical grid is axis `axes[i]` of the file.
        flips: canonical axis i runs against that axis of the file.
        grid_shape: shape of the grid before cropping and padding.
        grid_to_canonical: 4 x 4, indices of that grid to indices of the canonical grid; the identity where nothing was resampled.
        offsets: index on that grid of the first network voxel; negative where the image was padded.
        shape: (X, Y, Z) of the network grid.
        world: 4 x 4, template mm to image mm, where the image was registered.
    """

    original_shape: Shape3
    original_affine: tuple[tuple[float, ...], ...]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    grid_shape: Shape3
    grid_to_canonical: tuple[tuple[float, ...], ...]
    offsets: tuple[int, int, int]
    shape: Shape3
    world: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SpatialRecord:
        """Read what `to_json` wrote."""
        return cls(**{key: _tuples(item) for key, item in value.items()})

    def to_json(self) -> dict[str, Any]:
        """The record as plain lists and numbers."""
        return {key: _lists(item) for key, item in self.__dict__.items()}

    @property
    def resampled(self) -> bool:
        """Whether values were interpolated, not only moved."""
        return not np.array_equal(np.asarray(self.grid_to_canonical), np.eye(4))

    @property
    def canonical_shape(self) -> Shape3:
        """Shape of the image in canonical orientation."""
        x, y, z = (self.original_shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def matrix(self) -> Affine:
        """4 x 4, network indices to canonical indices."""
        return np.asarray(self.grid_to_canonical) @ translation(self.offsets)

    @property
    def affine(self) -> Affine:
        """4 x 4, network indices to mm in the space of the image (not of the template)."""
        return canonical_affine(np.asarray(self.original_affine), self.original_shape, self.axes, self.flips) @ self.matrix

    @property
    def template_affine(self) -> Affine:
        """4 x 4, network indices to mm in the template's space; equals `affine` where the image was not registered."""
        return self.affine if self.world is None else np.linalg.inv(np.asarray(self.world)) @ self.affine

    def apply_image(self, canonical: NDArray[np.float32], fill: Sequence[float]) -> NDArray[np.float32]:
        """Bring a canonical image onto the network grid.

        Args:
            canonical: (C, X, Y, Z) in canonical orientation.
            fill: value of each channel outside the image.

        Returns:
            (C, *shape).
        """
        if not self.resampled:
            return window(canonical, self.offsets, self.shape, np.asarray(fill, canonical.dtype))
        inside = within(self.matrix, self.shape, self.canonical_shape)
        channels = [
            np.where(inside, resample(channel, self.matrix, self.shape), np.float32(value))
            for channel, value in zip(canonical, fill, strict=True)
        ]
        return np.stack(channels)

    def apply_labels(
        self, labels: NDArray[np.integer[Any]], interpolation: Literal["nearest", "labelwise"] = "nearest"
    ) -> NDArray[np.integer[Any]]:
        """Bring a label image on the file's grid onto the network grid; 0 outside the image.

        Args:
            labels: integers (X, Y, Z) on the file's grid.
            interpolation: `nearest`, or `labelwise`: each label's indicator is resampled as the image is, the largest wins
                (the lower label on a tie). Labelwise borders are smoother; on a coarser grid small round structures shrink
                (a ball of 3 new voxels radius by 9 %), which nearest does not do on average.

        Returns:
            `shape`, the type of `labels`.
        """
        canonical = reorient(labels, self.axes, self.flips)
        if not self.resampled:
            return window(canonical, self.offsets, self.shape, np.zeros(1, labels.dtype))
        inside = within(self.matrix, self.shape, self.canonical_shape)
        if interpolation == "nearest":
            moved = resample(canonical, self.matrix, self.shape, order=0)
        else:
            moved = _labelwise(canonical, self.matrix, self.shape)
        return np.where(inside, moved, 0).astype(labels.dtype)

    def invert(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Bring class probabilities back onto the file's grid.

        Args:
            probabilities: (K, *shape) on the network grid.

        Returns:
            (K, *original_shape), the type of `probabilities`. Voxels outside the network grid are class 0 with probability 1.
            Where nothing was resampled values only move, otherwise they are interpolated linearly (so they still sum to 1).
        """
        outside = np.zeros(len(probabilities), probabilities.dtype)
        outside[0] = 1
        if not self.resampled:
            back = tuple(-offset for offset in self.offsets)
            return restore(window(probabilities, back, self.grid_shape, outside), self.axes, self.flips)
        matrix: Affine = np.linalg.inv(self.matrix).astype(np.float64)
        inside = within(matrix, self.canonical_shape, self.shape)
        result = np.empty((len(probabilities), *self.canonical_shape), probabilities.dtype)
        for index, channel in enumerate(probabilities):
            result[index] = np.where(
                inside, resample(np.asarray(channel, np.float32), matrix, self.canonical_shape), outside[index]
            )
        return restore(result, self.axes, self.flips)


def orientation(shape: Shape3, affine: Affine) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How to permute and flip axes so that they run closest to right, anterior and superior (RAS+).

    A plane keeps its thickness on the last axis whatever its orientation, since a 2D image is a volume with Z = 1.

    Args:
        shape: (X, Y, Z) of the file.
        affine: 4 x 4, its indices to mm.

    Returns:
        The file's axis for each canonical axis, and whether to flip it.

    Raises:
        ValueError: the affine gives an axis no direction.
    """
    from nibabel.orientations import io_orientation

    found = io_orientation(np.asarray(affine, np.float64))
    if not np.isfinite(found).all():
        raise ValueError("the affine gives at least one axis no direction")
    axes = [int(np.flatnonzero(found[:, 0] == target)[0]) for target in range(3)]
    if shape[axes[2]] != 1:
        thin = [axis for axis in axes if shape[axis] == 1]
        axes = [axis for axis in axes if axis not in thin[:1]] + thin[:1]
    flips = [bool(found[axis, 1] < 0) for axis in axes]
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def reorient(array: NDArray[Any], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> NDArray[Any]:
    """Permute and flip the last three axes into canonical orientation (a view)."""
    lead = array.ndim - 3
    moved = array.transpose(*range(lead), *(lead + axis for axis in axes))
    return np.flip(moved, tuple(lead + axis for axis in range(3) if flips[axis]))


def restore(array: NDArray[Any], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> NDArray[Any]:
    """Undo `reorient`; the result is contiguous."""
    lead = array.ndim - 3
    moved = np.flip(array, tuple(lead + axis for axis in range(3) if flips[axis]))
    return np.ascontiguousarray(moved.transpose(*range(lead), *(lead + axes.index(axis) for axis in range(3))))


def canonical_affine(affine: Affine, shape: Shape3, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Affine:
    """4 x 4, canonical indices to mm, from the file's own affine."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for target, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        step[axis, target] = -1 if flip else 1
        step[axis, 3] = shape[axis] - 1 if flip else 0
    return np.asarray(affine, np.float64) @ step


def translation(offsets: Sequence[float]) -> Affine:
    """4 x 4 that adds `offsets` to an index."""
    matrix = np.eye(4)
    matrix[:3, 3] = offsets
    return matrix


def spacing(affine: Affine) -> NDArray[np.float64]:
    """Voxel edges in mm: the lengths of an affine's columns."""
    return np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(0))


def spaced_grid(shape: Shape3, affine: Affine, spacing_mm: float | None) -> tuple[Shape3, Affine]:
    """The grid of another spacing over the same field of view, with the same centre.

    A plane (Z = 1) keeps its thickness.

    Args:
        shape: (X, Y, Z) of the present grid.
        affine: 4 x 4, its indices to mm.
        spacing_mm: wanted voxel edge in mm; None keeps the grid.

    Returns:
        Shape of the new grid (at least 1 voxel per axis), and 4 x 4 from its indices to those of the present grid.
    """
    matrix = np.eye(4)
    if spacing_mm is None:
        return shape, matrix
    sizes = list(shape)
    for axis, edge in enumerate(spacing(affine)):
        ratio = spacing_mm / edge
        if (axis == 2 and shape[2] == 1) or abs(ratio - 1) <= SPACING_TOLERANCE:
            continue
        sizes[axis] = max(1, int(np.floor(shape[axis] / ratio + 0.5)))
        matrix[axis, axis] = ratio
        matrix[axis, 3] = (shape[axis] - 1) / 2 - ratio * (sizes[axis] - 1) / 2
    return (sizes[0], sizes[1], sizes[2]), matrix


def window(array: NDArray[Any], offsets: Sequence[int], shape: Sequence[int], fill: NDArray[Any]) -> NDArray[Any]:
    """Cut a box out of the last three axes, padding where it reaches outside.

    Args:
        array: (X, Y, Z) or (C, X, Y, Z).
        offsets: first index of the box, may be negative.
        shape: size of the box.
        fill: value of the padding, one per channel (or one).

    Returns:
        A new array of the box's size and the array's type.
    """
    lead = array.shape[:-3]
    result = np.empty((*lead, *shape), array.dtype)
    result[...] = fill.reshape(*fill.shape, 1, 1, 1) if lead else fill[0]
    source: list[slice] = []
    target: list[slice] = []
    for offset, size, edge in zip(offsets, array.shape[-3:], shape, strict=True):
        low, high = max(0, offset), min(size, offset + edge)
        if high <= low:
            return result
        source.append(slice(low, high))
        target.append(slice(low - offset, high - offset))
    result[..., target[0], target[1], target[2]] = array[..., source[0], source[1], source[2]]
    return result


def lowpass_sigma(matrix: Affine, shape: Sequence[int]) -> NDArray[np.float64]:
    """Standard deviations, in input voxels, of the Gaussian that prevents aliasing when sampling more coarsely.

    A voxel's point spread is taken as a Gaussian whose full width at half maximum is the voxel's edge; the filter adds what the
    coarser voxel's spread has more: sigma^2 = (k^2 - 1) / (8 ln 2) for a step of k input voxels.

    Args:
        matrix: 4 x 4, output indices to input indices.
        shape: (X, Y, Z) of the input; an axis of one voxel is not filtered.

    Returns:
        One value per input axis, 0 where the step is not longer than a voxel.

    Source: Cardoso et al., Scale factor point spread function matching: beyond aliasing in image resampling, MICCAI 2015.
    """
    steps = np.sqrt((np.asarray(matrix)[:3, :3] ** 2).sum(1))
    steps = np.where((np.asarray(shape) == 1) | (steps <= 1 + SPACING_TOLERANCE), 1.0, steps)
    return np.sqrt((steps**2 - 1) / (8 * np.log(2)))


def resample(volume: NDArray[Any], matrix: Affine, shape: Shape3, order: Literal[0, 1] = 1) -> NDArray[Any]:
    """Sample a volume on another grid; beyond its edge the nearest voxel counts.

    Args:
        volume: (X, Y, Z).
        matrix: 4 x 4, output indices to input indices.
        shape: (X, Y, Z) of the output.
        order: 1: linear, after a low-pass filter where the output is coarser (see `lowpass_sigma`); 0: nearest neighbour.

    Returns:
        `shape`: float32 for order 1, the type of `volume` for order 0.
    """
    from scipy import ndimage

    if order == 1:
        volume = np.asarray(volume, np.float32)
        sigma = lowpass_sigma(matrix, volume.shape)
        if sigma.any():
            volume = ndimage.gaussian_filter(volume, sigma, mode="nearest")
    linear = np.asarray(matrix)[:3, :3]
    diagonal = np.diag(linear)
    # a vector makes SciPy go axis by axis, much faster than a full matrix
    steps = diagonal if np.array_equal(linear, np.diag(diagonal)) else linear
    return ndimage.affine_transform(volume, steps, np.asarray(matrix)[:3, 3], shape, order=order, mode="nearest", prefilter=False)


def within(matrix: Affine, shape: Shape3, source: Sequence[int]) -> NDArray[np.bool_]:
    """Which voxels of an output grid lie in the input's field of view (half a voxel beyond the outermost centres).

    Args:
        matrix: 4 x 4, output indices to input indices.
        shape: (X, Y, Z) of the output.
        source: (X, Y, Z) of the input.
    """
    grid = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside = np.ones(shape, bool)
    for axis, size in enumerate(source):
        place = sum(matrix[axis, part] * grid[part] for part in range(3)) + matrix[axis, 3]
        inside &= (place >= -EDGE) & (place <= size - 1 + EDGE)
    return inside


def _labelwise(labels: NDArray[Any], matrix: Affine, shape: Shape3) -> NDArray[Any]:
    """Resample the indicator of each label; the largest wins."""
    best = np.full(shape, -1.0, np.float32)
    result = np.zeros(shape, labels.dtype)
    for value in np.unique(labels):
        share = resample((labels == value).astype(np.float32), matrix, shape)
        result[share > best] = value
        np.maximum(best, share, out=best)
    return result


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
