"""How alike two maps of one image are: the check with randomized weights.

A method whose map hardly changes when the weights are drawn anew shows the image or the architecture, not what was learned.
Source: Adebayo et al. 2018, arXiv:1810.03292.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIGMA, TRUNCATE = 1.5, 3.5  # of the window, in voxels: 11 voxels wide. Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861
K1, K2 = 0.01, 0.03  # the same source


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """Spearman's correlation of two absolute maps.

    Args:
        first: (X, Y, Z).
        second: (X, Y, Z).
        inside: voxels that count.

    Returns:
        NaN where a map is constant.
    """
    ranks = [pd.Series(np.abs(item[inside])).rank().to_numpy() for item in (first, second)]
    if any(len(item) < 2 or item.min() == item.max() for item in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def structural_similarity(first: NDArray[np.floating], second: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """SSIM of two absolute maps, each divided by its largest value, averaged over the voxels that count.

    Args:
        first: (X, Y, Z); axes of one voxel are not filtered.
        second: (X, Y, Z).
        inside: voxels that count.

    Returns:
        At most 1; NaN where a map is zero everywhere, or no voxel counts.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    maps = [np.abs(item).astype(np.float64) for item in (first, second)]
    if not inside.any() or any(item.max() == 0 for item in maps):
        return float("nan")
    a, b = (item / item.max() for item in maps)
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(found[inside].mean())


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    widths = [SIGMA if edge > 1 else 0.0 for edge in values.shape]
    return gaussian_filter(values, widths, truncate=TRUNCATE)
