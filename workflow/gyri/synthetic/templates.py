"""The real anatomy: tissue maps, texture, regions and the causes' velocity fields, all in template space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.synthetic.fields import FIELD_GRID, cause_fields
from gyri.synthetic.grids import Floats, Grid, sample
from gyri.synthetic.regions import REGIONS, STRUCTURES, lateral_ventricles, region_map

# what the T1 template shows in pure fluid, grey and white matter, relative to its maximum (medians where p > 0.9)
TEMPLATE_LAW = (0.27, 0.65, 0.87)
# the cavity of the skull is the template's brain, its furrows closed over this distance, and this much fluid around it (mm)
CLOSE_MM, FLUID_MM = 10.0, 3.0


@dataclass(frozen=True)
class Patch:
    """One region's probability, cut out around it.

    Args:
        label: value in the region label map; 0 for what has no region.
        map: probability, (X, Y, Z).
        grid: where it lies.
    """

    label: int
    map: Floats
    grid: Grid


@dataclass(frozen=True)
class Template:
    """Everything about the anatomy that all participants share.

    Args:
        grid: where `tissue` and `detail` lie.
        tissue: probability of fluid, grey and white matter, (3, X, Y, Z).
        detail: the T1 template minus what tissue explains, (X, Y, Z).
        patches: the regions.
        depth: mm inside the cavity of the skull (negative outside), on `FIELD_GRID`.
        causes: velocity fields (3, X, Y, Z) on `FIELD_GRID`, by cause.
    """

    grid: Grid
    tissue: Floats
    detail: Floats
    patches: list[Patch]
    depth: Floats
    causes: dict[str, Floats]


def load_template(spacing_mm: float) -> Template:
    """Read nilearn's templates and derive what the cohort is made from.

    Args:
        spacing_mm: voxel edge of the images to make; maps are smoothed so that they can be read on such a grid.
    """
    from scipy.ndimage import gaussian_filter

    grid, (t1, grey, white) = _read(2 if spacing_mm >= 2 else 1)
    brain = t1 > 0.02
    points = grid.points()
    depth = _depth(brain, grid)
    cavity = np.clip(np.float32(0.5) + sample(depth, FIELD_GRID, points, "nearest") / 2, 0, 1)
    cavity = np.maximum(cavity, brain)
    fluid: Floats = np.clip(cavity - grey - white, 0, 1)
    explained = TEMPLATE_LAW[0] * fluid + TEMPLATE_LAW[1] * grey + TEMPLATE_LAW[2] * white
    detail = (t1 - explained) * brain
    ventricle = lateral_ventricles(points, fluid, sample(depth, FIELD_GRID, points, "nearest"))
    regions = region_map(points, grey, white, ventricle)
    # a voxel of s mm averages over a box of variance s^2/12; what the template's voxel has averaged already is taken off
    sigma = np.sqrt(max(spacing_mm**2 - grid.spacing**2, 0) / 12) / grid.spacing
    smooth = np.stack([gaussian_filter(map_, sigma, truncate=3) for map_ in (fluid, grey, white, detail)])
    causes = cause_fields(grid, fluid, grey, white, regions, STRUCTURES)
    return Template(grid, smooth[:3], smooth[3], _patches(regions, white, fluid, grid, sigma), depth, causes)


def _read(spacing: int) -> tuple[Grid, list[Floats]]:
    """The T1, grey-matter and white-matter templates at 1 or 2 mm."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    maps = []
    for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template):
        image = load(resolution=1)
        volume = np.asarray(image.dataobj, np.float32)
        origin = np.asarray(image.affine)[:3, 3]
        if spacing == 2:
            volume = np.pad(volume, [(0, size % 2) for size in volume.shape])
            half = [size // 2 for size in volume.shape]
            volume = volume.reshape(half[0], 2, half[1], 2, half[2], 2).mean((1, 3, 5), dtype=np.float32)
            origin = origin + 0.5
        maps.append(volume)
    shape = maps[0].shape
    return Grid((float(origin[0]), float(origin[1]), float(origin[2])), float(spacing), (shape[0], shape[1], shape[2])), maps


def _depth(brain: NDArray[np.bool_], grid: Grid) -> Floats:
    """Distance to the inside of the skull in mm on `FIELD_GRID`, positive inside."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    mask = sample(brain.astype(np.float32), grid, FIELD_GRID.points()) > 0.5
    step = FIELD_GRID.spacing
    around = distance_transform_edt(~mask) * step
    # closing: grow, then shrink; the growth that is left is the fluid around the brain
    within = distance_transform_edt(around < CLOSE_MM) * step
    signed = within - (CLOSE_MM - FLUID_MM) - np.where(within > 0, 0, distance_transform_edt(around >= CLOSE_MM) * step - step)
    return gaussian_filter(signed.astype(np.float32), 1.0)


def _patches(regions: NDArray[np.uint8], white: Floats, fluid: Floats, grid: Grid, sigma: float) -> list[Patch]:
    """Each region as a smoothed map in its own box, then white matter, fluid and the rest that have no region."""
    from scipy.ndimage import find_objects, gaussian_filter

    none = regions == 0
    rest = none & (white > 0.5)
    labels = regions.astype(np.int32)
    labels[rest] = len(REGIONS) + 1
    labels[none & ~rest & (fluid > 0.3)] = len(REGIONS) + 2
    patches = []
    margin = int(np.ceil(3 * sigma)) + 2
    for value, box in enumerate(find_objects(labels), 1):
        start = [max(0, side.start - margin) for side in box]
        cut = tuple(slice(low, side.stop + margin) for low, side in zip(start, box, strict=True))
        map_ = gaussian_filter((labels[cut] == value).astype(np.float32), sigma, truncate=3)
        origin = [place + grid.spacing * low for place, low in zip(grid.origin, start, strict=True)]
        here = Grid((origin[0], origin[1], origin[2]), grid.spacing, map_.shape)
        patches.append(Patch(value if value in REGIONS else 0, map_, here))
    return patches
