"""From causes and chance to one person's anatomy: where in the template each voxel of the person's image lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import SyntheticDataset
from gyri.seeds import generator
from gyri.synthetic import effects
from gyri.synthetic.fields import FIELD_GRID, carry, random_field
from gyri.synthetic.grids import Floats
from gyri.synthetic.people import Person

# the point that size and pose leave where it is, mm: about the middle of the brain
MIDDLE = (0.0, -18.0, 8.0)
FACE_TRAITS = 8


@dataclass(frozen=True)
class Traits:
    """What a person is born with; standard normal unless told otherwise.

    Args:
        log_scale: logarithm of the size along each axis, (3,), sex included.
        ventricles: logarithm of the ventricles' volume relative to what age makes of it.
        cortex: likewise.
        medial_temporal: likewise.
        face: shape of skull and face, (FACE_TRAITS,).
        shape: smooth random velocity field in mm, (3, X, Y, Z) on `FIELD_GRID`.
    """

    log_scale: NDArray[np.float64]
    ventricles: float
    cortex: float
    medial_temporal: float
    face: NDArray[np.float64]
    shape: Floats


def traits(person: Person, settings: SyntheticDataset) -> Traits:
    """Draw a person's traits; twins share most of each.

    Args:
        person: who.
        settings: the seed, and the effect of sex.
    """
    own = _draw(generator("synthetic", settings.seed, "person", person.label))
    if person.twin:
        common = _draw(generator("synthetic", settings.seed, "family", person.family))
        weight = effects.TWIN_CORRELATION
        own = tuple(np.sqrt(weight) * both + np.sqrt(1 - weight) * one for both, one in zip(common, own, strict=True))
    scalars, face, noise = own
    sex = effects.SEX_HALF_LOG_SIZE * settings.sex_effect * (1 if person.sex == "M" else -1)
    log_scale = sex + effects.LOG_SIZE_SD * scalars[0] + effects.LOG_AXIS_SD * scalars[1:4]
    return Traits(
        log_scale=log_scale,
        ventricles=float(effects.VENTRICLES_SD * scalars[4]),
        cortex=float(effects.CORTEX_SD * scalars[5]),
        medial_temporal=float(effects.MEDIAL_TEMPORAL_SD * scalars[6]),
        face=face.astype(np.float64),
        shape=random_field(noise),
    )


def _draw(rng: np.random.Generator) -> tuple[NDArray[np.floating], ...]:
    return rng.standard_normal(7), rng.standard_normal(FACE_TRAITS), rng.standard_normal((3, *FIELD_GRID.shape), dtype=np.float32)


def rates(born: Traits, atrophy: bool, age: float, settings: SyntheticDataset) -> dict[str, float]:
    """The rate of each cause's field: the logarithm of how much the structure's volume changes, to first order.

    Args:
        born: the person's traits.
        atrophy: whether the disease shows in the brain.
        age: in years, at the visit.
        settings: the multipliers of the effects.
    """
    decades = settings.age_effect * (age - effects.YOUNG) / 10
    ill = settings.diagnosis_effect if atrophy else 0.0
    return {
        "ventricles": effects.VENTRICLES_PER_DECADE * decades + born.ventricles,
        "cortex": effects.CORTEX_PER_DECADE * decades + born.cortex,
        "medial temporal": effects.MEDIAL_TEMPORAL_IN_PATIENTS * ill + born.medial_temporal,
    }


def velocity(born: Traits, rate: dict[str, float], causes: dict[str, Floats]) -> Floats:
    """The velocity field that turns the template into the person, (3, X, Y, Z) in mm on `FIELD_GRID`."""
    total = born.shape.copy()
    for cause, value in rate.items():
        total += np.float32(value) * causes[cause]
    return total


def in_template(points: Floats, field: Floats, log_scale: NDArray[np.float64], pose: NDArray[np.float64]) -> Floats:
    """Find the template's place for each point of a person's image: undo the pose, then the size, then the flow.

    Args:
        points: (3, ...) in mm of the scanner.
        field: the person's velocity field; it is followed backwards.
        log_scale: logarithm of the person's size along X, Y, Z.
        pose: three rotations in radians (about X, Y, Z) and three shifts in mm, (6,).

    Returns:
        (3, ...) in mm of the template.
    """
    middle = np.array(MIDDLE)
    matrix = np.diag(np.exp(-log_scale)) @ rotation(pose[:3]).T
    offset = middle - matrix @ (middle + pose[3:])
    placed = [sum(np.float32(matrix[row, axis]) * points[axis] for axis in range(3)) + np.float32(offset[row]) for row in range(3)]
    return carry(np.stack(placed), -field)


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation about X, then Y, then Z by angles in radians, 3 x 3."""
    cosine, sine = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cosine[0], -sine[0]], [0, sine[0], cosine[0]]])
    about_y = np.array([[cosine[1], 0, sine[1]], [0, 1, 0], [-sine[1], 0, cosine[1]]])
    about_z = np.array([[cosine[2], -sine[2], 0], [sine[2], cosine[2], 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def draw_pose(rng: np.random.Generator) -> NDArray[np.float64]:
    """How the head lies this time, (6,): rotations in radians, then shifts in mm."""
    spread = np.repeat([np.deg2rad(effects.POSE_DEGREES), effects.POSE_MM], 3)
    return spread * rng.standard_normal(6)
