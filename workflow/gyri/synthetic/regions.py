"""A coarse region map in template space: deep structures from seeds of an atlas, lobes by the nearest of a few invented points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.synthetic.grids import Floats

STRUCTURES = (
    "hippocampus",
    "amygdala",
    "thalamus",
    "basal ganglia",
    "lateral ventricle",
    "frontal cortex",
    "parietal cortex",
    "temporal cortex",
    "occipital cortex",
    "cerebellum",
)
# left structures are odd, right ones even, so that a left-right mirror is a swap of neighbours
REGIONS = {
    2 * index + side: f"{name} {hand}" for index, name in enumerate(STRUCTURES) for side, hand in ((1, "left"), (2, "right"))
}

# Seeds on the right, mm MNI152, and how far (mm) the structure reaches from them. Hippocampus, amygdala, thalamus and basal
# ganglia are Seitzman et al. 2020's spheres (nilearn.datasets.fetch_coords_seitzman_2018), mirrored; the hippocampus has
# two there, between which points were put along the bend of the template's grey matter.
DEEP: dict[str, tuple[float, list[tuple[float, float, float]]]] = {
    "hippocampus": (
        6.0,
        [(24, -11, -21), (27, -16, -18.5), (30, -21, -15.5), (31, -27, -11), (29, -32, -7), (25, -37, -2)],
    ),
    "amygdala": (7.0, [(20, -2, -22), (23, -4, -19)]),
    "thalamus": (9.0, [(4, -9, 8), (19, -29, 1), (14, -14, 12), (9, -9, 1), (14, -20, 1), (17, -22, 10)]),
    "basal ganglia": (
        8.0,
        [(12, 17, -5), (12, 18, 7), (14, -1, 18), (28, -9, 8), (28, -8, -4), (26, 0, -2), (25, 6, 7), (19, -5, -4)],
    ),
}
# Points on the right, mm MNI152, to the nearest of which a piece of cortex belongs. Ours; they stand for no published atlas.
LOBES: dict[str, list[tuple[float, float, float]]] = {
    "frontal cortex": [
        (8, 60, 0), (8, 45, 25), (8, 20, 45), (8, -5, 60), (30, 50, 10), (42, 30, 15), (45, 10, 30), (40, -8, 50),
        (28, 20, 50), (25, 35, -12), (50, 20, 5), (8, 35, -15), (30, -15, 62), (8, -14, 68), (6, 25, 25), (38, 12, -2),
    ],
    "parietal cortex": [
        (8, -62, 40), (8, -45, 50), (30, -60, 48), (52, -35, 42), (50, -58, 35), (38, -36, 55), (12, -40, 68), (8, -38, 30),
        (56, -22, 32), (24, -66, 56),
    ],
    "temporal cortex": [
        (38, 12, -30), (55, 0, -18), (60, -25, -2), (58, -45, 5), (50, -30, -22), (50, -55, -12), (28, -25, -24), (30, 0, -36),
        (32, -42, -14), (50, -12, 2), (46, -8, -36),
    ],
    "occipital cortex": [
        (10, -85, 8), (10, -72, 5), (28, -88, 5), (40, -78, 5), (12, -82, 28), (28, -80, 28), (14, -75, -6), (30, -70, -10),
        (8, -98, -2),
    ],
}  # fmt: skip
# seed points of the cerebellum, nearer to which grey matter is no cortex of the occipital or temporal lobe
CEREBELLUM: list[tuple[float, float, float]] = [
    (10, -55, -22), (30, -55, -32), (40, -65, -36), (25, -75, -38), (10, -75, -32), (15, -50, -50), (35, -45, -42),
    (6, -60, -36), (25, -62, -24), (38, -56, -28), (20, -85, -38), (46, -62, -42), (12, -64, -12),
]  # fmt: skip


def region_map(points: Floats, grey: Floats, white: Floats, ventricle: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give every voxel of the template its region.

    Args:
        points: (3, X, Y, Z), mm MNI152.
        grey: grey-matter probability, (X, Y, Z).
        white: white-matter probability, (X, Y, Z).
        ventricle: the lateral ventricles, (X, Y, Z).

    Returns:
        Values of `REGIONS`, 0 elsewhere, (X, Y, Z).
    """
    from scipy.spatial import cKDTree

    found = np.zeros(grey.shape, np.uint8)
    inside = (grey + white > 0.4) & ~ventricle
    place = points[:, inside].T.astype(np.float64)
    right = place[:, 0] >= 0
    place[:, 0] = np.abs(place[:, 0])
    lobes: dict[str, list[tuple[float, float, float]]] = {**LOBES, "cerebellum": CEREBELLUM}
    owners = [STRUCTURES.index(name) for name in lobes for _ in lobes[name]]
    nearest = cKDTree(np.array([seed for name in lobes for seed in lobes[name]], np.float64)).query(place)[1]
    structure = np.array(owners)[nearest]
    here = grey[inside]
    # the white matter of the cerebellum belongs to it; that of the brain belongs to no lobe
    wanted = (here > 0.5) | ((structure == STRUCTURES.index("cerebellum")) & (place[:, 1] < -42))
    for name in ("basal ganglia", "thalamus", "amygdala", "hippocampus"):
        reach, seeds = DEEP[name]
        distance = cKDTree(np.array(seeds, np.float64)).query(place)[0]
        member = (distance < reach) & (here > 0.3)
        structure[member], wanted[member] = STRUCTURES.index(name), True
    value = 2 * structure + 1 + right
    found[inside] = np.where(wanted, value, 0)
    found[ventricle] = 2 * STRUCTURES.index("lateral ventricle") + 1 + (points[0][ventricle] >= 0)
    return found


def lateral_ventricles(points: Floats, fluid: Floats, depth: Floats) -> NDArray[np.bool_]:
    """Find the lateral ventricles: the largest pool of fluid that lies within a box deep in the brain.

    Args:
        points: (3, X, Y, Z), mm MNI152.
        fluid: probability of cerebrospinal fluid, (X, Y, Z).
        depth: distance to the inside of the skull in mm, (X, Y, Z).
    """
    from scipy.ndimage import label

    low, high = np.array([-42, -66, -6]), np.array([42, 38, 36])
    box = np.all((points >= low.reshape(3, 1, 1, 1)) & (points <= high.reshape(3, 1, 1, 1)), axis=0)
    pools, _ = label((fluid > 0.4) & (depth > 15))
    size = np.bincount(pools.ravel())
    size[0] = 0
    size[np.unique(pools[~box])] = 0
    return pools == int(size.argmax())
