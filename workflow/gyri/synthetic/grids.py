"""Regular grids in millimetres of template space (MNI152, RAS+), and reading volumes at points of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gyri.types import Affine, Shape3

Floats = NDArray[np.float32]

# the field of view of every image, mm: room for a large head, the face down to the mouth, and a little pose
FIELD_OF_VIEW = (192.0, 240.0, 192.0)
FIELD_CENTRE = (0.0, -9.0, 8.0)


@dataclass(frozen=True)
class Grid:
    """An isotropic grid along the axes of RAS+.

    Args:
        origin: centre of voxel (0, 0, 0) in mm.
        spacing: voxel edge in mm.
        shape: voxels along X, Y, Z.
    """

    origin: tuple[float, float, float]
    spacing: float
    shape: Shape3

    @property
    def affine(self) -> Affine:
        """Voxel indices to mm, 4 x 4."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    def points(self) -> Floats:
        """Centres of all voxels in mm, (3, X, Y, Z)."""
        axes = [start + self.spacing * np.arange(size) for start, size in zip(self.origin, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)

    def indices(self, points: Floats) -> Floats:
        """Points in mm (3, ...) as fractional voxel indices (3, ...)."""
        origin = np.array(self.origin, np.float32).reshape((3,) + (1,) * (points.ndim - 1))
        return (points - origin) / np.float32(self.spacing)


def image_grid(spacing_mm: float) -> Grid:
    """The grid of the images: the field of view in voxels of `spacing_mm`, centred on the head."""
    shape = tuple(max(1, math.ceil(size / spacing_mm - 1e-6)) for size in FIELD_OF_VIEW)
    origin = tuple(centre - spacing_mm * (size - 1) / 2 for centre, size in zip(FIELD_CENTRE, shape, strict=True))
    return Grid((origin[0], origin[1], origin[2]), spacing_mm, (shape[0], shape[1], shape[2]))


def sample(volume: NDArray[Any], grid: Grid, points: Floats, outside: Literal["constant", "nearest"] = "constant") -> Floats:
    """Read a volume at points, trilinearly.

    Args:
        volume: (X, Y, Z) on `grid`.
        grid: where the voxels of `volume` lie.
        points: (3, ...) in mm.
        outside: `constant` (0) or `nearest` beyond the edge of the grid.

    Returns:
        Values, (...), float32.
    """
    from scipy.ndimage import map_coordinates

    return map_coordinates(volume, grid.indices(points), output=np.float32, order=1, mode=outside, prefilter=False)
