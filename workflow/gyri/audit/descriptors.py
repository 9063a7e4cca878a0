"""What an image looks like in a few hundred numbers, so that images of one person can be found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.02, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.98)
BLOCKS_3D = (8, 8, 8)
BLOCKS_2D = (22, 22, 1)
SAMPLE = 1 << 18  # voxels from which the value step is read
ON_GRID = 0.02  # a value may lie this far from the grid of values, in steps (float32 rounding of a few thousand steps)
SAME_STEP = 2e-6  # relative difference of two steps that count as equal
WHOLE = 2e-7  # relative distance from a whole number that counts as none (float32 keeps 6e-8)
CONVENTIONS = (1.0, 100.0, 255.0, 1000.0, 4095.0, 65535.0)  # ranges that software scales to


@dataclass(frozen=True)
class Descriptor:
    """One image in numbers.

    Args:
        summary: intensity scale and quantiles, sharpness along each axis, grid, label volumes (1D, not a number where unknown).
        blocks: mean intensity of a coarse grid of blocks, standardized per image (1D).
        step: smallest distance between two intensities where all lie on one regular grid, else 0.
    """

    summary: NDArray[np.float32]
    blocks: NDArray[np.float32]
    step: float


def describe(
    image: NDArray[np.float32], spacing: NDArray[np.float64], labels: NDArray[np.float32] | None, values: list[int]
) -> Descriptor:
    """Describe one image.

    Args:
        image: (C, X, Y, Z), finite, at least one channel not constant.
        spacing: voxel spacing in mm (3).
        labels: label map (X, Y, Z), or None.
        values: declared label values whose volumes are told.

    Returns:
        The descriptor; its length depends on the number of channels and values only.
    """
    parts = [_channel(channel) for channel in image]
    volumes = [np.log1p(float((labels == value).sum())) if labels is not None else np.nan for value in values]
    grid = [*np.log(image.shape[1:]), *np.log(np.maximum(spacing, 1e-6))]
    summary = np.concatenate([*(part[0] for part in parts), grid, volumes])
    step = next((found for found in map(value_step, image) if found > 0), 0.0)
    return Descriptor(summary.astype(np.float32), np.concatenate([part[1] for part in parts]).astype(np.float32), step)


def value_step(channel: NDArray[np.float32]) -> float:
    """The distance between neighbouring intensities of a scan that was stored in integers and scaled afterwards.

    The scale factor of a scan is often its own (chosen by its largest value), so two images with exactly the same step
    are, as a rule, parts or copies of one scan.

    Args:
        channel: (X, Y, Z).

    Returns:
        The step, or 0 where intensities lie on no regular grid, or on one that many scans share by convention
        (whole numbers, or whole numbers divided to a common range).
    """
    flat = channel.ravel()
    values = np.unique(flat[:: max(1, flat.size // SAMPLE)]).astype(np.float64)
    if len(values) < 16 or len(values) > flat.size / 4:
        return 0.0
    distance = np.diff(values)
    smallest = float(distance.min())
    step = float(np.median(distance[distance < 1.5 * smallest]))
    extent = values[-1] - values[0]
    levels = np.round(extent / step)
    step = float(extent / levels)  # over the whole extent the rounding of single values averages out
    position = (values - values[0]) / step
    if levels > 1 << 16 or np.abs(position - np.round(position)).max() > ON_GRID:
        return 0.0
    ratios = [step, *(scale / step for scale in CONVENTIONS)]
    whole = any(abs(ratio - round(ratio)) <= WHOLE * ratio and round(ratio) > 0 for ratio in ratios)
    return 0.0 if whole else step


def block_means(volume: NDArray[np.floating], blocks: tuple[int, int, int]) -> NDArray[np.float64]:
    """Mean over a coarse grid of blocks that covers the volume, voxels shared by two blocks counted in part.

    Args:
        volume: (X, Y, Z).
        blocks: number of blocks along each axis.

    Returns:
        Array of shape `blocks`.
    """
    result = np.asarray(volume, np.float64)
    for axis, count in enumerate(blocks):
        result = np.moveaxis(np.tensordot(_averaging(volume.shape[axis], count), result, axes=(1, axis)), 0, axis)
    return result


def _averaging(length: int, count: int) -> NDArray[np.float64]:
    """Matrix (count, length) whose row k averages the k-th of `count` equal parts of an axis."""
    edges = np.linspace(0, length, count + 1)
    voxel = np.arange(length)
    overlap = np.minimum(edges[1:, None], voxel + 1) - np.maximum(edges[:-1, None], voxel)
    overlap = np.clip(overlap, 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def _channel(channel: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Summary and blocks of one channel; not a number throughout for a channel without contrast (a missing one)."""
    shape = BLOCKS_2D if channel.shape[2] == 1 else BLOCKS_3D
    foreground = channel[channel > channel.min()].astype(np.float64)  # without the zeros around a masked brain
    quantiles = np.quantile(foreground, QUANTILES) if foreground.size else np.zeros(len(QUANTILES))
    spread = quantiles[-2] - quantiles[1]
    size = len(QUANTILES) + 9
    if not spread > 0:
        return np.full(size, np.nan), np.full(np.prod(shape), np.nan)
    values = channel.astype(np.float64)
    first = [_log_mean(np.diff(values, axis=axis), spread, np.mean) for axis in range(3)]
    second = [_log_mean(np.diff(values, 2, axis=axis), spread, np.median) for axis in range(3)]
    median = quantiles[len(QUANTILES) // 2]
    scale = [np.log(spread), np.log(abs(median) + 1e-6 * spread), np.log1p((values.max() - median) / spread)]
    summary = np.array([*scale, *((quantiles - median) / spread), *first, *second])
    return summary, np.clip((block_means(values, shape) - median) / spread, -2, 2).ravel()


def _log_mean(difference: NDArray[np.float64], spread: float, mean) -> float:  # type: ignore[no-untyped-def]
    """Logarithm of the typical absolute difference; 0 along an axis too short to have one."""
    return float(np.log(mean(np.abs(difference)) / spread + 1e-6)) if difference.size else 0.0
