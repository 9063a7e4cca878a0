"""N4 bias field correction and affine registration to MNI152, by SimpleITK; deterministic: one thread, fixed sampling seed.

SimpleITK is imported inside the functions, since most datasets need neither.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.transforms.spatial import resample, spaced_grid
from gyri.types import Affine, Shape3

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts mm to the left and back, NIfTI to the right and front
SAMPLING_SEED = 20011
SEARCH_SPACING_MM = 3.0  # an affine map has 12 numbers: finer voxels cost time and add nothing (0.4 mm on the template itself)
N4_ITERATIONS = (
    50,
    50,
    50,
)  # one level fewer than ITK's default: the finest took anatomy for bias (0.41 of a known field left, not 0.22)
N4_GRID = 32  # voxels along the longest edge while the field is estimated; the field is smooth


@dataclass(frozen=True)
class Template:
    """The MNI152 T1 template inside nilearn (brain only, 1 mm).

    Args:
        values: (X, Y, Z) intensities in RAS+.
        affine: 4 x 4, indices to mm in MNI152 space.
    """

    values: NDArray[np.float32]
    affine: Affine


@functools.cache
def template() -> Template:
    """The template, read once per process.

    Source: Fonov et al., Unbiased nonlinear average age-appropriate brain templates from birth to adulthood, NeuroImage 47, 2009
    (ICBM 152 nonlinear symmetric 2009a), as packed with nilearn.
    """
    from importlib.resources import as_file, files

    import nibabel

    # found without importing nilearn, which takes a second
    with as_file(files("nilearn") / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz") as path:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        return Template(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, np.float64))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """SimpleITK in one thread; a filter's own setting does not reach the metric inside a registration, whose sums then vary."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@_one_thread()
def correct_bias(volume: NDArray[Any], affine: Affine, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Divide out the smooth intensity drift that the receive coils leave (N4).

    The field is estimated on a coarser copy and evaluated on every voxel.

    Args:
        volume: (X, Y, Z), or a plane with Z = 1; intensities, of which the field is estimated where they are positive.
        affine: 4 x 4, its indices to mm in RAS+.
        mask: (X, Y, Z), voxels that the field is estimated on.

    Returns:
        The corrected volume, same grid.

    Raises:
        ValueError: too few positive voxels in the mask, or the volume is too thin for the field's splines.

    Source: Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29(6), 2010; ITK's defaults but for the levels.
    """
    import SimpleITK as sitk

    mask = mask & (volume > 0)
    if mask.sum() < 64:
        raise ValueError("fewer than 64 voxels with positive intensity for N4 to work on")
    image, region = _to_itk(volume, affine), _to_itk(mask.astype(np.uint8), affine)
    if min(image.GetSize()) < 4:
        raise ValueError(f"N4 needs at least 4 voxels along each axis, the image has {image.GetSize()}")
    factor = max(1, round(max(image.GetSize()) / N4_GRID))
    factors = [max(1, min(factor, size // 8)) for size in image.GetSize()]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(N4_ITERATIONS)
    corrector.Execute(sitk.Shrink(image, factors), sitk.Shrink(region, factors))
    field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).T
    corrected = np.asarray(volume, np.float32) / np.exp(field.reshape(volume.shape)).astype(np.float32)
    if not np.isfinite(corrected).all():
        raise ValueError("N4 did not converge to a finite field")
    return corrected


@_one_thread()
def register(volume: NDArray[Any], affine: Affine, mask: NDArray[np.bool_] | None = None) -> Affine:
    """Find the affine map between the MNI152 template and an image of a brain.

    Centres of mass are aligned first, then rotation and translation, then all twelve parameters are improved, each from
    coarse to fine, to the largest mutual information. The template shows the brain only: give a brain mask where the skull is
    still there.

    Args:
        volume: (X, Y, Z) intensities.
        affine: 4 x 4, its indices to mm in RAS+.
        mask: (X, Y, Z) brain mask; voxels outside it are set to the darkest value for the search.

    Returns:
        4 x 4 from mm in MNI152 space to mm in the image's space.

    Raises:
        ValueError: a plane (Z = 1), or the search failed.

    Source: Mattes et al., PET-CT image registration in the chest using free-form deformations, IEEE TMI 22(1), 2003 (metric).
    """
    import SimpleITK as sitk

    if min(volume.shape) < 4:
        raise ValueError(f"registration needs a volume, the image has the shape {volume.shape}")
    search = np.asarray(volume, np.float32)
    search = search - search.min()
    if mask is not None:
        search = np.where(mask, search, np.float32(0))
    fixed = _coarse(template().values, template().affine)
    moving = _coarse(search, affine)
    try:
        start = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        rigid = sitk.Euler3DTransform(sitk.CompositeTransform(start).GetNthTransform(0))
        rigid = _optimize(fixed, moving, rigid)
        full = sitk.AffineTransform(3)
        full.SetCenter(rigid.GetCenter())
        full.SetMatrix(rigid.GetMatrix())
        full.SetTranslation(rigid.GetTranslation())
        full = _optimize(fixed, moving, full)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise ValueError(f"registration to MNI152 failed: {reason}") from error
    return _plausible(LPS @ _matrix(full) @ LPS)


def _plausible(world: Affine) -> Affine:
    """Refuse a map that no head explains (volume change beyond 0.25 to 4, a mirror, not finite)."""
    scale = np.linalg.det(world[:3, :3]) if np.isfinite(world).all() else 0.0
    if not 0.25 <= scale <= 4:
        raise ValueError(f"registration to MNI152 ended in an implausible change of volume ({scale:.2f} times)")
    return world


def _optimize(fixed: Any, moving: Any, transform: Any) -> Any:
    """Improve a transform from coarse to fine; the transform's own type is kept."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.25, SAMPLING_SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=100, gradientMagnitudeTolerance=1e-6, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def _coarse(volume: NDArray[Any], affine: Affine) -> Any:
    """The volume as an ITK image of at most the spacing that the search needs."""
    grid, matrix = spaced_grid(_shape(volume), affine, SEARCH_SPACING_MM)
    if (np.diag(matrix)[:3] < 1).any():  # never finer than it is
        grid, matrix = _shape(volume), np.eye(4)
    return _to_itk(resample(volume, matrix, grid), np.asarray(affine) @ matrix)


def _shape(volume: NDArray[Any]) -> Shape3:
    x, y, z = volume.shape
    return x, y, z


def _to_itk(volume: NDArray[Any], affine: Affine) -> Any:
    """An ITK image (2D for a plane) with the geometry of the affine; a shear, which ITK cannot hold, is an error of the affine."""
    import SimpleITK as sitk

    if volume.shape[2] == 1:
        image = sitk.GetImageFromArray(np.ascontiguousarray(volume[..., 0].T))
        image.SetSpacing([float(edge) for edge in np.sqrt((affine[:3, :2] ** 2).sum(0))])
        return image
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
    linear = (LPS @ affine)[:3]
    edges = np.sqrt((linear[:, :3] ** 2).sum(0))
    image.SetSpacing([float(edge) for edge in edges])
    image.SetOrigin([float(value) for value in linear[:, 3]])
    try:
        image.SetDirection([float(value) for value in _rotation(linear[:, :3] / edges).ravel()])
    except RuntimeError as error:
        raise ValueError("the affine is no rotation of a box grid") from error
    return image


def _rotation(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest orthonormal matrix: headers are rounded.

    Raises:
        ValueError: the axes are sheared by more than rounding explains.
    """
    left, _, right = np.linalg.svd(direction)
    nearest = left @ right
    if np.abs(nearest - direction).max() > 1e-2:
        raise ValueError("the axes of the image are sheared; SimpleITK works on box grids only")
    return nearest


def _matrix(transform: Any) -> Affine:
    """4 x 4 of an ITK linear transform, in ITK's mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    center = np.asarray(transform.GetCenter())
    matrix[:3, 3] = np.asarray(transform.GetTranslation()) + center - matrix[:3, :3] @ center
    return matrix
