"""Intensities of one image: its foreground, and scaling that makes scanners and units comparable.

Scaling looks at one image only, so it is fitted on nothing and may run before any split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CLIP = 5.0
PERCENTILES = (5.0, 95.0)
HISTOGRAM_BINS = 256


@dataclass(frozen=True)
class Scaling:
    """The linear map that a channel's intensities went through: (value - center) / width, then clipped.

    Args:
        center: intensity that becomes 0.
        width: intensity range that becomes 1.
        clip: largest absolute value afterwards; None does not clip.
    """

    center: float
    width: float
    clip: float | None

    def apply(self, channel: NDArray[Any]) -> NDArray[np.float32]:
        """Scale an array of any shape."""
        scaled = (np.asarray(channel, np.float64) - self.center) / self.width
        if self.clip is not None:
            np.clip(scaled, -self.clip, self.clip, out=scaled)
        return scaled.astype(np.float32)


def fit_scaling(channel: NDArray[Any], region: NDArray[np.bool_] | None, method: Literal["robust", "zscore", "none"]) -> Scaling:
    """Find the scaling of one channel from its own voxels.

    Args:
        channel: (X, Y, Z) intensities in the image's own unit, before any padding.
        region: (X, Y, Z) voxels to look at; None takes all.
        method: robust: the median becomes 0 and the range from the 5th to the 95th percentile becomes 2, clipped at +-5, so
            that single bright voxels (vessels, spikes) move nothing; zscore: mean 0 and standard deviation 1; none: as they are.

    Returns:
        The scaling.

    Raises:
        ValueError: the region is empty or its intensities do not vary, so there is no scale.

    Source: median and inter-percentile range as location and scale: Huber & Ronchetti, Robust Statistics, 2nd ed. 2009, ch. 5 (the
    interquartile range is the better known case). The 5th and 95th percentile and the clip at 5 are gyri's choice: they span
    the tissues of a head and leave out its few brightest voxels.
    """
    if method == "none":
        return Scaling(0.0, 1.0, None)
    values = np.asarray(channel if region is None else channel[region], np.float64).ravel()
    if values.size == 0:
        raise ValueError("the region to scale over is empty")
    if method == "zscore":
        center, width, clip = float(values.mean()), float(values.std()), None
    else:
        low, center, high = (float(value) for value in np.percentile(values, [PERCENTILES[0], 50.0, PERCENTILES[1]]))
        width, clip = (high - low) / 2, CLIP
    if not width > 1e-7 * max(abs(center), np.finfo(np.float64).tiny):
        raise ValueError(f"intensities do not vary there (all about {center:.6g})")
    return Scaling(center, width, clip)


def padding_value(scaled: NDArray[np.float32]) -> float:
    """The value that padding gets: the darkest of the scaled channel.

    Air and the surround of a retinal image are the darkest parts of MR, CT and fundus images, and a value that the image has cannot
    mark its edge as something never seen; the clip bounds it.
    """
    return float(scaled.min())


def otsu_threshold(values: NDArray[Any]) -> float:
    """The threshold that best separates dark from bright: the largest variance between the two classes.

    Args:
        values: intensities, any shape.

    Returns:
        A threshold in the unit of the values; the bright class is above it.

    Raises:
        ValueError: the values do not vary.

    Source: Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9(1), 1979. The histogram spans the
    0.1st to the 99.9th percentile, so that a spike does not squeeze everything into one bin.
    """
    values = np.asarray(values, np.float64).ravel()
    low, high = np.percentile(values, [0.1, 99.9])
    if not high > low:
        low, high = values.min(), values.max()
    if not high > low:
        raise ValueError(f"intensities do not vary (all {low:.6g})")
    counts, edges = np.histogram(np.clip(values, low, high), HISTOGRAM_BINS, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sum_below = np.cumsum(counts * middles)[:-1]
    sum_all = float((counts * middles).sum())
    valid = (below > 0) & (below < total)
    safe_below, safe_above = np.where(valid, below, 1), np.where(valid, total - below, 1)
    gap = sum_below / safe_below - (sum_all - sum_below) / safe_above
    between = np.where(valid, safe_below * safe_above * gap**2, -1.0)
    # empty bins between the classes are all equally good: take their middle
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())


def foreground(channel: NDArray[Any]) -> NDArray[np.bool_]:
    """The head, brain or retina against its dark surround: the largest connected part above Otsu's threshold.

    Args:
        channel: (X, Y, Z) intensities.

    Returns:
        (X, Y, Z), True inside.

    Raises:
        ValueError: the intensities do not vary.
    """
    from scipy import ndimage

    parts, count = ndimage.label(np.asarray(channel) > otsu_threshold(channel))
    if count <= 1:
        return parts > 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == int(sizes.argmax())
