"""One image from its file's grid to the network grid: the same way in preprocessing and for new scans.

Order: canonical orientation, N4, intensity scaling, mask, registration and resampling, cropping and padding. Scaling looks at the
image's own voxels, before resampling and padding add others.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.errors import DataError, Problem
from gyri.images import SAME_GRID_MM
from gyri.transforms.intensity import fit_scaling, foreground, padding_value
from gyri.transforms.spatial import SpatialRecord, canonical_affine, orientation, reorient, spaced_grid, spacing
from gyri.types import Affine, Shape3

PACKED_MAX = 65504.0  # of float16, the type of the packed store
Region = NDArray[np.bool_]  # (X, Y, Z) in canonical orientation
Box = tuple[NDArray[np.intp], NDArray[np.intp]]  # lowest index and one past the highest, per axis


@dataclass(frozen=True)
class Prepared:
    """An image on the network grid.

    Args:
        image: (C, X, Y, Z) scaled intensities.
        spatial: how its grid came about, to do the same to labels and to undo it.
        intensity: how its intensities came about: method, and center, width and padding of each channel; JSON-able.
    """

    image: NDArray[np.float32]
    spatial: SpatialRecord
    intensity: dict[str, Any]


class Source:
    """An image in canonical orientation, before its voxels are interpolated.

    Args:
        image: (C, X, Y, Z) on the file's grid.
        affine: 4 x 4, file indices to mm in RAS+.
        mask: (X, Y, Z) on the same grid, inside where above 0, or None.
        name: names the image in messages.
        missing: channels that the image lacks.

    Raises:
        DataError: NaN or infinite values, a mask of another shape, an affine without three directions.
    """

    def __init__(
        self, image: NDArray[Any], affine: Affine, mask: NDArray[Any] | None, name: str = "image", missing: Collection[int] = ()
    ):
        self.name, self.file_affine = name, np.asarray(affine, np.float64)
        self.file_shape = _shape(image)
        self.present = [channel for channel in range(len(image)) if channel not in missing]
        if not np.isfinite(image).all():
            raise self.refuse("NaN or infinite intensities", "finite numbers", "mend or remove the image")
        if mask is not None and mask.shape != self.file_shape:
            raise self.refuse(
                f"a mask of shape {mask.shape}", f"the image's shape {self.file_shape}", "make the mask on the image's grid"
            )
        try:
            self.axes, self.flips = orientation(self.file_shape, self.file_affine)
        except ValueError as error:
            raise self.refuse(str(error), "an affine with three directions", "mend the header") from error
        self.image = np.array(reorient(np.asarray(image, np.float32), self.axes, self.flips))
        self.mask = None if mask is None else np.ascontiguousarray(reorient(np.asarray(mask) > 0, self.axes, self.flips))
        self.affine = canonical_affine(self.file_affine, self.file_shape, self.axes, self.flips)
        self.shape = _shape(self.image)

    def refuse(self, got: str, expected: str, remedy: str) -> DataError:
        """An error that names the image."""
        return DataError(Problem(self.name, got, expected, remedy))

    def needed_mask(self, setting: str) -> Region:
        """The mask, which a setting asks for."""
        if self.mask is None:
            raise self.refuse("no mask", f"a mask, since `{setting}`", "name masks in the dataset, or change that setting")
        if not self.mask.any():
            raise self.refuse("an empty mask", f"a mask with voxels above 0, since `{setting}`", "mend or remove the image")
        return self.mask

    @functools.cached_property
    def foreground(self) -> Region:
        """The foreground of the first channel that the image has."""
        try:
            return foreground(self.image[self.present[0]])
        except ValueError as error:
            raise self.refuse(str(error), "a foreground brighter than its surround", "remove the image") from error


@dataclass(frozen=True)
class Grid:
    """The grid of an image before cropping and padding.

    Args:
        shape: (X, Y, Z).
        to_canonical: 4 x 4, its indices to those of the canonical image.
        box: what is centred in the network grid.
        world: 4 x 4, template mm to image mm, where the image was registered.
    """

    shape: Shape3
    to_canonical: Affine
    box: Box
    world: Affine | None = None


def prepare(
    image: NDArray[Any],
    affine: Affine,
    mask: NDArray[Any] | None,
    settings: PreprocessSettings,
    name: str = "image",
    missing: Collection[int] = (),
) -> Prepared:
    """Bring one image onto the network grid and the common intensity scale.

    Args:
        image: (C, X, Y, Z) intensities on the file's grid.
        affine: 4 x 4, file indices to mm in RAS+.
        mask: (X, Y, Z) on the same grid, inside where above 0; None where there is none.
        settings: what to do; `shape` must be set.
        name: names the image in messages.
        missing: channels that the image lacks; they become 0, the middle of scaled intensities.

    Returns:
        The image with its records.

    Raises:
        DataError: NaN or infinite values, a mask that is needed and missing or empty or of another shape, intensities that do
            not vary or do not fit into float16, an affine or a volume that a step cannot work with.
        ValueError: `settings.shape` is not set (see `extent`).
    """
    if settings.shape is None:
        raise ValueError("the shape must be known before an image is prepared; see `extent`")
    options = settings.preprocess
    source = Source(image, affine, mask, name, missing)
    if options.n4:
        _correct_bias(source)
    grid = _grid(source, options)
    scaled, intensity = _scale(source, options)
    low, high = grid.box
    offsets = [int(value) for value in (low + high - np.asarray(settings.shape)) // 2]
    record = SpatialRecord(
        original_shape=source.file_shape,
        original_affine=_rows(source.file_affine),
        axes=source.axes,
        flips=source.flips,
        grid_shape=grid.shape,
        grid_to_canonical=_rows(grid.to_canonical),
        offsets=(offsets[0], offsets[1], offsets[2]),
        shape=settings.shape,
        world=None if grid.world is None else _rows(grid.world),
    )
    ready = record.apply_image(scaled, intensity["padding"])
    largest = float(np.abs(ready).max())
    if not largest <= PACKED_MAX:
        got, expected = f"scaled intensities up to {largest:.6g}", f"at most {PACKED_MAX:.0f}, the largest of float16"
        raise source.refuse(got, expected, "set `scaling: robust`")
    return Prepared(ready, record, intensity)


def header_extent(shape: Shape3, affine: Affine, settings: PreprocessSettings, name: str = "image") -> Shape3 | None:
    """What `extent` would say, from the header alone; None where it takes the voxels to know."""
    options = settings.preprocess
    if options.registration == "mni152":
        low, high = _template_grid(options)[2]
        return _shape_of(high - low)
    if options.crop != "center":
        return None
    return extent(np.broadcast_to(np.float32(0), (1, *shape)), affine, None, settings, name)


def extent(
    image: NDArray[Any],
    affine: Affine,
    mask: NDArray[Any] | None,
    settings: PreprocessSettings,
    name: str = "image",
    missing: Collection[int] = (),
) -> Shape3:
    """The smallest network shape that holds all of an image, of its foreground or of its mask, as `crop` says.

    Args: as for `prepare`; `settings.shape` is not looked at.
    """
    low, high = _grid(Source(image, affine, mask, name, missing), settings.preprocess).box
    return _shape_of(high - low)


def same_grid(first: Affine, second: Affine) -> bool:
    """Whether two affines agree but for rounding."""
    return bool(np.allclose(first, second, rtol=0, atol=SAME_GRID_MM))


def _correct_bias(source: Source) -> None:
    """Divide the bias field out of each channel."""
    from gyri.transforms.registration import correct_bias

    region = source.mask if source.mask is not None and source.mask.any() else source.foreground
    try:
        for channel in source.present:
            source.image[channel] = correct_bias(source.image[channel], source.affine, region)
    except ValueError as error:
        raise source.refuse(str(error), "an image that N4 can correct", "remove the image, or set `n4: false`") from error


def _grid(source: Source, options: Preprocess) -> Grid:
    """Resampled grid of an image and the box on it that will be centred."""
    if options.registration == "mni152":
        return _registered_grid(source, options)
    edges = spacing(source.affine)
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise source.refuse(f"voxel edges of {edges} mm", "positive lengths", "mend the header")
    shape, to_canonical = spaced_grid(source.shape, source.affine, options.spacing_mm)
    if options.crop == "center":
        return Grid(shape, to_canonical, (np.zeros(3, np.intp), np.asarray(shape)))
    region = source.needed_mask("crop: mask") if options.crop == "mask" else source.foreground
    return Grid(shape, to_canonical, _bounds(region, to_canonical))


def _registered_grid(source: Source, options: Preprocess) -> Grid:
    """The template's grid, and where it lies in the image.

    After registration all brains lie alike, so the window is the template's for every image: centred on its grid, or on
    its brain for crop `foreground` and `mask`.
    """
    from gyri.transforms.registration import register

    try:
        world = register(source.image[source.present[0]], source.affine, source.mask)
    except ValueError as error:
        raise source.refuse(
            str(error), "an image that can be registered", "remove the image, or set `registration: none`"
        ) from error
    shape, affine, box = _template_grid(options)
    return Grid(shape, np.linalg.inv(source.affine) @ world @ affine, box, world)


def _template_grid(options: Preprocess) -> tuple[Shape3, Affine, Box]:
    """Shape, affine (indices to MNI152 mm) and box of the template's grid at the wanted spacing."""
    from gyri.transforms.registration import template

    values, affine = template().values, template().affine
    shape, matrix = spaced_grid(_shape(values), affine, options.spacing_mm)
    if options.crop == "center":
        return shape, affine @ matrix, (np.zeros(3, np.intp), np.asarray(shape))
    return shape, affine @ matrix, _bounds(values > 0, matrix)


def _scale(source: Source, options: Preprocess) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Scale each channel over the region asked for, and put 0 outside the mask where that is asked for."""
    region = None
    if options.scaling != "none" and options.scaling_region == "mask":
        region = source.needed_mask("scaling_region: mask")
    elif options.scaling != "none" and options.scaling_region == "foreground":
        region = source.foreground
    kept = source.needed_mask("apply_mask: true") if options.apply_mask else None
    scaled = np.zeros_like(source.image)
    facts: dict[str, Any] = {"method": options.scaling, "center": [], "width": [], "padding": []}
    for channel in range(len(source.image)):
        center, width, padding = 0.0, 1.0, 0.0
        if channel in source.present:
            try:
                scaling = fit_scaling(source.image[channel], region, options.scaling)
            except ValueError as error:
                where = f"channel {channel}, region `{options.scaling_region}`: {error}"
                remedy = "remove the image, or set another `scaling_region` (foreground, mask)"
                raise source.refuse(where, "intensities that vary", remedy) from error
            center, width = scaling.center, scaling.width
            scaled[channel] = scaling.apply(source.image[channel])
            if kept is not None:
                scaled[channel][~kept] = 0
            else:
                padding = padding_value(scaled[channel])
        for key, value in (("center", center), ("width", width), ("padding", padding)):
            facts[key].append(value)
    return scaled, facts


def _bounds(region: Region, matrix: Affine) -> Box:
    """The box around the True voxels, on a grid with another spacing.

    Args:
        region: (X, Y, Z).
        matrix: 4 x 4, indices of that grid to those of `region`; without rotation.
    """
    found = [np.flatnonzero(region.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    low, high = (np.array([indices[end] for indices in found]) for end in (0, -1))
    steps, start = np.diag(matrix)[:3], matrix[:3, 3]
    # a voxel reaches half its width beyond its centre, on both grids
    first = np.floor((low - 0.5 - start) / steps + 0.5 + 1e-6).astype(np.intp)
    last = np.ceil((high + 0.5 - start) / steps + 0.5 - 1e-6).astype(np.intp)
    return first, last


def _shape(array: NDArray[Any]) -> Shape3:
    x, y, z = array.shape[-3:]
    return x, y, z


def _shape_of(sizes: NDArray[np.intp]) -> Shape3:
    x, y, z = (int(size) for size in sizes)
    return x, y, z


def _rows(matrix: Affine) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
