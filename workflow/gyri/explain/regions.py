"""How much of a map lies in each named region, against how much of the image that region fills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shares(saliency: NDArray[np.floating], labels: NDArray[np.integer], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The share of a map's absolute value within each label.

    Args:
        saliency: (X, Y, Z).
        labels: (X, Y, Z) label values.
        names: of the label values, the background among them.

    Returns:
        One row per name that the image has: structure, voxels, share (of the map's absolute sum), volume_share (of the image's voxels),
        ratio (of the two; 1: no more than anywhere). Shares are NaN where the map is zero everywhere.
    """
    strength = np.abs(saliency).astype(np.float64).ravel()
    top = max([*names, int(labels.max(initial=0))]) + 1
    sums = np.bincount(labels.ravel(), strength, top)
    voxels = np.bincount(labels.ravel(), minlength=top)
    total = strength.sum()
    rows = []
    for value, name in sorted(names.items()):
        if voxels[value]:
            share = float(sums[value] / total) if total else float("nan")
            part = float(voxels[value] / labels.size)
            rows.append(
                {"structure": name, "voxels": int(voxels[value]), "share": share, "volume_share": part, "ratio": share / part}
            )
    return rows
