"""Post-processing and surface Dice: by hand, and against SciPy and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gyri.metrics import segmentation
from gyri.metrics.postprocessing import candidates, names
from gyri.metrics.segmentation import Pair, pairs
from test_metrics import AFFINE, SPACING, blob, pair

CUBE = np.diag([2.0, 1.0, 1.0, 1.0])  # 2 cubic mm per voxel


def of_map(predicted: np.ndarray, mask: np.ndarray | None = None, affine: np.ndarray = CUBE) -> Pair:
    """Structure 1 of a predicted map whose truth is the whole image."""
    return next(found for _, found in pairs(np.ones_like(predicted), predicted, {1: "a"}, affine, mask))


def after(pair_of: Pair, minima: tuple[float, ...] = (4.0,)) -> dict[str, np.ndarray]:
    """What every candidate predicts."""
    return {name: found.predicted for name, found in candidates(pair_of, minima)}


def test_candidates_by_hand() -> None:
    predicted = np.zeros((9, 9, 9), int)
    predicted[1:6, 1:6, 1:6] = 1
    predicted[3, 3, 3] = 0  # a hole
    predicted[2, 2, 2] = 2  # another structure inside
    predicted[6, 6, 6] = 1  # touches by a corner
    predicted[8, 8, 8] = 1  # one voxel apart
    predicted[8, 0, 0:2] = 1  # two voxels, 4 cubic mm
    found = after(of_map(predicted))
    assert (
        list(found)
        == names((4.0,))
        == [
            "none",
            "largest component",
            "components of at least 4 mm3",
            "holes filled",
            "largest component, holes filled",
            "components of at least 4 mm3, holes filled",
        ]
    )
    raw = predicted == 1
    body = raw.copy()
    body[8] = False
    pieces = raw.copy()
    pieces[8, 8, 8] = False
    hole = np.zeros_like(raw)
    hole[3, 3, 3] = True
    assert (found["none"] == raw).all()
    assert (found["largest component"] == body).all(), "a corner holds together"
    assert (found["components of at least 4 mm3"] == pieces).all()
    assert (found["holes filled"] == (raw | hole)).all(), "another structure is not overwritten"
    assert (found["largest component, holes filled"] == (body | hole)).all()


def test_nothing_is_filled_outside_the_mask_and_planes_can_have_holes() -> None:
    predicted = np.ones((5, 5, 5), int)
    predicted[2, 2, 2] = 0
    mask = np.ones(predicted.shape, bool)
    mask[2, 2, 2] = False
    assert not after(of_map(predicted, mask))["holes filled"][2, 2, 2]
    assert after(of_map(predicted))["holes filled"][2, 2, 2]
    plane = predicted[:, :, 2:3]
    assert after(of_map(plane))["holes filled"][2, 2, 0]


def test_what_changes_nothing_is_the_very_same_pair() -> None:
    solid, empty = np.zeros((6, 6, 6), int), np.zeros((6, 6, 6), int)
    solid[1:4, 1:4, 1:4] = 1
    for predicted in (solid, empty):
        original = of_map(predicted)
        assert all(found is original for _, found in candidates(original, (10.0, 30.0)))
    assert [found.sizes[1] for _, found in candidates(of_map(solid), (1000.0,))] == [27, 27, 0, 27, 27, 0]


@pytest.mark.parametrize("seed", range(6))
def test_candidates_against_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted = (random.random((12, 11, 10)) < 0.25).astype(int)
    found = after(of_map(predicted), (10.0,))
    numbered, count = ndimage.label(predicted, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(predicted, numbered, range(1, count + 1))
    assert found["largest component"].sum() == sizes.max()
    assert found["components of at least 10 mm3"].sum() == sizes[2 * sizes >= 10].sum()
    assert (found["holes filled"] == ndimage.binary_fill_holes(predicted)).all()


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.6])
@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_against_monai(seed: int, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    random = np.random.default_rng(seed)
    truth, predicted = blob(random), blob(random)
    found = next(item for _, item in pairs(truth.astype(int), predicted.astype(int), {1: "a"}, AFFINE, None, tolerance))
    batch = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    expected = monai.compute_surface_dice(*batch, [tolerance], include_background=True, spacing=SPACING).item()
    assert segmentation.surface_dice(found) == pytest.approx(expected, abs=1e-6)


def test_surface_dice_of_empty_structures_and_of_a_shift() -> None:
    some, none = blob(np.random.default_rng(0)), np.zeros((14, 12, 9), bool)
    assert segmentation.surface_dice(pair(none, none)) == 1
    assert segmentation.surface_dice(pair(some, none)) == segmentation.surface_dice(pair(none, some)) == 0
    truth, predicted = np.zeros((20, 10, 6), bool), np.zeros((20, 10, 6), bool)
    truth[4, 5, 3], predicted[5, 5, 3] = True, True
    assert segmentation.surface_dice(pair(truth, predicted)) == 1, "0.8 mm apart, 1 mm allowed"
    predicted[5, 5, 3], predicted[6, 5, 3] = False, True
    assert segmentation.surface_dice(pair(truth, predicted)) == 0
