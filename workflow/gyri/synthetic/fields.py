"""Velocity fields: smooth motions of tissue from causes and from chance, and the flow along them.

A person's anatomy is the template carried along a velocity field for one unit of time. Every step of the flow is small
enough to be invertible, so their composition is, whatever the effect sizes are.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from gyri.synthetic.effects import RANDOM_SHAPE
from gyri.synthetic.grids import Floats, Grid, sample

# covers the field of view; lengths that the Fourier transform likes
FIELD_GRID = Grid((-106.0, -136.0, -106.0), 4.0, (54, 66, 56))
# smoothing of the causes' sources, mm: the size of the motions' finest detail
SOURCE_SIGMA = 3.0
# how far (mm) from hippocampus and amygdala cortex shrinks with them, and how far from these the fluid lies that takes the room
MEDIAL_REACH, NEIGHBOURHOOD = 14.0, 16.0


def cause_fields(
    grid: Grid, fluid: Floats, grey: Floats, white: Floats, regions: NDArray[np.uint8], structures: tuple[str, ...]
) -> dict[str, Floats]:
    """The velocity field of each cause at unit rate: the logarithm of the structure's volume changes by 1, to first order.

    Args:
        grid: where the maps lie.
        fluid: probability of fluid, (X, Y, Z); likewise `grey` and `white`.
        regions: region label map, (X, Y, Z).
        structures: names in the order of the labels (2 i + 1 left, 2 i + 2 right).

    Returns:
        cause -> (3, X, Y, Z) in mm on `FIELD_GRID`.
    """

    def belongs(*names: str) -> NDArray[np.bool_]:
        wanted = [2 * structures.index(name) + side for name in names for side in (1, 2)]
        return np.isin(regions, wanted)

    cortex = grey * belongs("frontal cortex", "parietal cortex", "temporal cortex", "occipital cortex")
    ventricle = fluid * belongs("lateral ventricle")
    medial = belongs("hippocampus", "amygdala") * (grey + white)
    medial = medial + grey * belongs("temporal cortex") * _near(medial > 0.5, MEDIAL_REACH, grid)
    close = _near(medial > 0.5, NEIGHBOURHOOD, grid)
    outside = fluid * ~belongs("lateral ventricle")
    return {
        # ventricles push white matter away; cortex leaves its room to the fluid outside of the brain
        "ventricles": flow_field(_source(ventricle, white, grid)),
        "cortex": flow_field(_source(cortex, outside, grid)),
        "medial temporal": flow_field(_source(medial, (fluid + 0.1 * white) * close, grid)),
    }


def _near(mask: NDArray[np.bool_], reach: float, grid: Grid) -> Floats:
    from scipy.ndimage import distance_transform_edt

    return (distance_transform_edt(~mask) * grid.spacing < reach).astype(np.float32)


def _source(structure: Floats, yields: Floats, grid: Grid) -> Floats:
    """Rate of growth: on average 1 in `structure`, and as much loss in what yields, so that the rest stays where it is."""
    from scipy.ndimage import gaussian_filter

    total = structure.sum(dtype=np.float64)
    source = structure - yields * (total / yields.sum(dtype=np.float64))
    smooth = gaussian_filter(source.astype(np.float32), SOURCE_SIGMA / grid.spacing)
    # smoothing takes from thin structures what their neighbours gain: give it back
    reached = (smooth * structure).sum(dtype=np.float64) / total
    return sample(smooth / np.float32(reached), grid, FIELD_GRID.points())


@functools.cache
def _frequencies() -> tuple[NDArray[np.float64], ...]:
    """Angular frequencies along X, Y and Z in radians per mm, shaped to broadcast over a half spectrum."""
    sizes, step = FIELD_GRID.shape, FIELD_GRID.spacing
    parts = (np.fft.fftfreq(sizes[0], step), np.fft.fftfreq(sizes[1], step), np.fft.rfftfreq(sizes[2], step))
    shaped = (part.reshape([-1 if axis == at else 1 for at in range(3)]) for axis, part in enumerate(parts))
    return tuple(2 * np.pi * np.asarray(part, np.float64) for part in shaped)


def flow_field(source: Floats) -> Floats:
    """The curl-free velocity field whose divergence is `source`: the gradient of the solution of Poisson's equation.

    Args:
        source: rate of growth per unit of time on `FIELD_GRID`, (X, Y, Z); its mean is taken off.

    Returns:
        Velocity in mm, (3, X, Y, Z).
    """
    from scipy.fft import irfftn, rfftn

    waves = _frequencies()
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    square[0, 0, 0] = 1.0
    potential = -rfftn(source.astype(np.float64)) / square
    potential[0, 0, 0] = 0
    return np.stack([irfftn(1j * wave * potential, FIELD_GRID.shape) for wave in waves]).astype(np.float32)


@functools.cache
def _spectrum() -> NDArray[np.float64]:
    """Amplitude by which white noise is multiplied to become a random shape: Gaussian kernels, each with its own variance."""
    waves = _frequencies()
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    total = np.zeros_like(square)
    for sigma, spread in RANDOM_SHAPE.items():
        power = np.exp(-square * sigma**2)
        # half spectrum: all but the first and last planes along Z stand for two
        twice = np.full(power.shape[2], 2.0)
        twice[0] = 1.0
        if FIELD_GRID.shape[2] % 2 == 0:
            twice[-1] = 1.0
        total += power * spread**2 * math.prod(FIELD_GRID.shape) / (power * twice).sum()
    return np.sqrt(total)


def random_field(noise: NDArray[np.floating]) -> Floats:
    """Turn white noise (3, X, Y, Z) on `FIELD_GRID` into a smooth velocity field in mm with the spreads of `RANDOM_SHAPE`."""
    from scipy.fft import irfftn, rfftn

    axes = (1, 2, 3)
    return irfftn(rfftn(noise, axes=axes) * _spectrum(), FIELD_GRID.shape, axes=axes).astype(np.float32)


def steps(velocity: Floats) -> int:
    """Number of steps in which a flow along `velocity` is a chain of invertible maps.

    A step x -> x + v(x) / n is invertible when v / n changes by less than one mm per mm. The trilinear field
    changes at most as fast as its neighbouring voxels differ; half of the limit is used.
    """
    slopes = [np.abs(np.diff(velocity, axis=axis)).max(axis=(1, 2, 3)) for axis in (1, 2, 3)]
    lipschitz = float(np.sqrt((np.stack(slopes) ** 2).sum())) / FIELD_GRID.spacing
    return max(4, math.ceil(lipschitz / 0.5))


def carry(points: Floats, velocity: Floats, count: int | None = None) -> Floats:
    """Carry points along a velocity field for one unit of time.

    Args:
        points: (3, ...) in mm.
        velocity: (3, X, Y, Z) in mm on `FIELD_GRID`; it goes on unchanged beyond the edge.
        count: number of steps; as many as needed when none.

    Returns:
        Where the points arrive, (3, ...).
    """
    count = count or steps(velocity)
    for _ in range(count):
        moved = np.stack([sample(part, FIELD_GRID, points, "nearest") for part in velocity])
        points = points + moved / np.float32(count)
    return points
