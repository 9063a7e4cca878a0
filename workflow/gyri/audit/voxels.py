"""Compare the voxels of two images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gyri.audit.descriptors import block_means
from gyri.images import load_row

COMMON = (48, 48, 48)  # grid on which images of different shapes are compared


def correlation(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], first: int, second: int) -> float:
    """Pearson correlation of the voxels of two images.

    Args:
        rows: rows of cohort.tsv.
        facts: dataset.json.
        first, second: which rows.

    Returns:
        The correlation over all channels; images of different shapes are averaged to a common grid first. 0 where one is constant.
    """
    images = [load_row(rows[index], facts)[0].astype(np.float64) for index in (first, second)]
    if images[0].shape != images[1].shape:
        shape = COMMON if images[0].shape[3] > 1 else (*COMMON[:2], 1)
        images = [np.stack([block_means(channel, shape) for channel in image]) for image in images]
    x, y = (image.ravel() for image in images)
    x, y = x - x.mean(), y - y.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y / length) if length > 0 else 0.0
