"""A few plain numbers that describe an image: intensities, contrast, noise, smoothness, size. They know nothing of any label.

They serve one question: can the acquisition site be told from images as simple as this? If it can, a network can do so too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FOREGROUND = 0.1
"""A voxel belongs to the foreground above this share of the way from the 2nd to the 98th percentile.

Source: Smith, Fast robust automated brain extraction, Human Brain Mapping 17, 2002 (his threshold between head and air).
"""
NORMAL_MAD = 0.6745  # median absolute deviation of a normal variable with standard deviation 1
MOST_VOXELS = 1_000_000
"""Voxels that are looked at per channel; of larger images only every so manieth plane along each axis."""


def names(channels: list[str]) -> list[str]:
    """Names of the features, channel after channel.

    Args:
        channels: names of the channels.
    """
    own = [f"q{round(100 * share):02d}" for share in QUANTILES]
    own += ["deviation", "skewness", "noise", "contrast_to_noise", "roughness_x", "roughness_y", "roughness_z"]
    own += ["foreground", "extent_x", "extent_y", "extent_z"]
    return [f"{channel}_{name}" for channel in channels for name in own]


def image_features(image: NDArray[np.floating]) -> Array:
    """Describe an image.

    Args:
        image: (C, X, Y, Z) on the network's grid, intensities scaled per image.

    Returns:
        One number per name of `names`, all finite; of an empty channel zeros.
    """
    return np.concatenate([_of_channel(np.asarray(channel, np.float32)) for channel in image])


def _of_channel(volume: NDArray[np.float32]) -> Array:
    """Features of one channel; noise and roughness compare each voxel looked at with its true neighbours."""
    step = max(1, int(np.ceil((volume.size / MOST_VOXELS) ** (1 / 3))))
    seen = volume[::step, ::step, ::step]
    low, high = np.quantile(seen, [0.02, 0.98])
    inside = seen > low + FOREGROUND * (high - low)
    values = seen[inside].astype(np.float64)
    if values.size < 2 or not values.std() > 0:
        return np.zeros(len(names([""])))
    deviation = values.std()
    quantiles = np.quantile(values, QUANTILES)
    skewness = float((((values - values.mean()) / deviation) ** 3).mean())
    noise, rough = _noise(volume, step, inside), [_roughness(volume, axis, step, inside) / deviation for axis in range(3)]
    contrast = (quantiles[-1] - quantiles[0]) / max(noise, 1e-3 * deviation)
    extents = [np.flatnonzero(inside.any(tuple(axis for axis in range(3) if axis != kept))) for kept in range(3)]
    sizes = [(found[-1] - found[0] + 1) / inside.shape[axis] for axis, found in enumerate(extents)]
    return np.array([*quantiles, deviation, skewness, noise, contrast, *rough, inside.mean(), *sizes])


def _roughness(volume: NDArray[np.float32], axis: int, step: int, inside: NDArray[np.bool_]) -> float:
    """Mean absolute difference of neighbours along an axis in the foreground; 0 where the axis is one voxel long."""
    moved = np.moveaxis(volume, axis, 0)
    count = (len(moved) - 1) // step if step > 1 else len(moved) - 1
    if count < 1:
        return 0.0
    first, second = (moved[start : start + count * step : step, ::step, ::step] for start in (0, 1))
    kept = np.moveaxis(inside, axis, 0)[: len(first)]
    return float(np.abs(second[kept] - first[kept]).mean()) if kept.any() else 0.0


def _noise(volume: NDArray[np.float32], step: int, inside: NDArray[np.bool_]) -> float:
    """Deviation of the noise from second differences along the first axis, which smooth tissue leaves near 0."""
    count = (len(volume) - 2) // step if step > 1 else len(volume) - 2
    if count < 1:
        return 0.0
    parts = [volume[start : start + count * step : step, ::step, ::step] for start in (0, 1, 2)]
    kept = inside[: len(parts[0])]
    bend = np.abs(parts[0] - 2 * parts[1] + parts[2])[kept]
    return float(np.median(bend) / NORMAL_MAD / np.sqrt(6)) if bend.size else 0.0
