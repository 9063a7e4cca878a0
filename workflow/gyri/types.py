"""Array names and conventions used everywhere.

Axis order is (C, X, Y, Z): channels first, then the axes of the canonical orientation RAS+ (X grows to the right,
Y to the front, Z to the top). Batches put B first. Lengths are millimetres, angles degrees, times seconds. A 2D image is a
volume with Z = 1. Affines are 4 x 4 and map voxel indices to millimetres in RAS+.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.floating[Any]]  # (C, X, Y, Z)
LabelMap = NDArray[np.integer[Any]]  # (X, Y, Z)
Affine = NDArray[np.float64]  # (4, 4)
Shape3 = tuple[int, int, int]

Task = Literal["classification", "regression", "segmentation"]
Role = Literal["train", "validation", "test", "locked"]
