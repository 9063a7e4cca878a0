"""N4 and registration on a brain whose map to the template is known."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.errors import DataError
from gyri.transforms import registration
from gyri.transforms.prepare import header_extent, prepare
from gyri.transforms.registration import correct_bias, register, template
from gyri.transforms.spatial import resample

SHAPE = (50, 60, 50)
AFFINE = np.array([[-4.0, 0, 0, 100], [0, 4, 0, -135], [0, 0, 4, -95], [0, 0, 0, 1]])  # X runs to the left in the file


@pytest.fixture(autouse=True)
def coarse_search(monkeypatch):
    """A coarser search and fewer iterations than the real ones: the same code, a few times faster."""
    monkeypatch.setattr(registration, "SEARCH_SPACING_MM", 4.0)
    monkeypatch.setattr(registration, "N4_GRID", 25)
    monkeypatch.setattr(registration, "N4_ITERATIONS", (20, 20, 20))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Template mm to image mm."""
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", [8, -6, 10], degrees=True).as_matrix() @ np.diag([1.05, 0.95, 1.08])
    world[:3, 3] = [12, -9, 7]
    return world


@pytest.fixture(scope="module")
def brain(truth) -> np.ndarray:
    """The template as a person with that map would look at 4 mm."""
    values = resample(template().values, np.linalg.inv(template().affine) @ np.linalg.inv(truth) @ AFFINE, SHAPE)
    return values + np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)


def settings(**values: object) -> PreprocessSettings:
    options = Preprocess.model_validate({"registration": "mni152", "spacing_mm": 4.0, **values})
    shape = header_extent((1, 1, 1), np.eye(4), PreprocessSettings(preprocess=options, shape=None))
    return PreprocessSettings(preprocess=options, shape=shape)


def test_a_known_map_is_recovered_and_the_same_every_time(brain, truth):
    found = register(brain, AFFINE)
    points = np.vstack([np.random.default_rng(1).uniform([-60, -90, -50], [60, 60, 70], (200, 3)).T, np.ones(200)])
    assert np.linalg.norm((found @ points - truth @ points)[:3], axis=0).max() < 2
    turn = np.linalg.svd(found[:3, :3])[0] @ np.linalg.svd(found[:3, :3])[2]
    expected = np.linalg.svd(truth[:3, :3])[0] @ np.linalg.svd(truth[:3, :3])[2]
    assert np.degrees(Rotation.from_matrix(turn.T @ expected).magnitude()) < 2
    assert np.array_equal(found, register(brain, AFFINE))


def test_labels_go_to_the_template_and_back(brain, truth):
    labels = ((brain > 60).astype(np.uint8) + (brain > 190)).astype(np.uint8)
    ready = prepare(brain[None], AFFINE, None, settings())
    record = ready.spatial
    assert record.world is not None and record.resampled
    oracle = nibabel.Nifti1Image(template().values, template().affine)
    expected = resample(oracle.get_fdata(), np.linalg.inv(oracle.affine) @ record.template_affine, record.shape)
    assert np.corrcoef(ready.image.ravel(), expected.ravel())[0, 1] > 0.95
    for interpolation in ("nearest", "labelwise"):
        moved = record.apply_labels(labels, interpolation)
        back = record.invert((np.arange(3).reshape(-1, 1, 1, 1) == moved).astype(np.float32)).argmax(0)
        whole = 2 * ((back > 0) & (labels > 0)).sum() / ((back > 0).sum() + (labels > 0).sum())
        assert back.shape == SHAPE and whole > 0.95
        for value in (1, 2):
            dice = 2 * ((back == value) & (labels == value)).sum() / ((back == value).sum() + (labels == value).sum())
            assert dice > 0.85
    assert np.allclose(record.affine, np.asarray(record.world) @ record.template_affine)


def test_all_registered_images_share_the_templates_window():
    whole, cropped = settings(), settings(crop="foreground")
    assert whole.shape is not None and cropped.shape is not None
    assert all(small < large for small, large in zip(cropped.shape, whole.shape, strict=True))
    assert cropped.shape == pytest.approx(np.array([146, 182, 156]) / 4, abs=2)


def test_a_plane_or_a_blank_volume_cannot_be_registered():
    for shape in ((40, 40, 1), (20, 20, 20)):
        with pytest.raises(DataError) as caught:
            prepare(np.zeros((1, *shape), np.float32), np.eye(4), None, settings(scaling="none"), "image s9")
        assert caught.value.problems[0].where == "image s9"


def test_an_implausible_map_is_refused():
    for world in (np.diag([3.0, 3, 3, 1]), np.diag([-1.0, 1, 1, 1]), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match="implausible"):
            registration._plausible(world)


def test_n4_removes_a_known_bias_and_is_the_same_every_time(brain):
    field = np.exp(0.5 * np.linspace(-1, 1, SHAPE[0]))[:, None, None] * np.ones(SHAPE)
    mask = brain > 60
    corrected = correct_bias(brain * field, AFFINE, mask)
    left = np.log(corrected[mask] / brain[mask])
    assert np.log(field[mask]).std() > 0.15 and left.std() < 0.25 * np.log(field[mask]).std()
    assert np.array_equal(corrected, correct_bias(brain * field, AFFINE, mask))


def test_n4_works_on_planes_and_inside_the_chain(brain):
    image = brain[:, :, 25:26] * np.exp(0.5 * np.linspace(-1, 1, SHAPE[0]))[:, None, None]
    chain = PreprocessSettings(preprocess=Preprocess(n4=True), shape=(56, 64, 1))
    with_n4 = prepare(image[None], AFFINE, None, chain).image
    without = prepare(image[None], AFFINE, None, chain.model_copy(update={"preprocess": Preprocess()})).image
    assert with_n4.shape == without.shape == (1, 56, 64, 1) and not np.allclose(with_n4, without, atol=0.05)


def test_n4_says_what_it_cannot_correct():
    with pytest.raises(ValueError, match="positive"):
        correct_bias(-np.ones((10, 10, 10)), np.eye(4), np.ones((10, 10, 10), bool))
    with pytest.raises(DataError, match="image s3"):
        prepare(
            -np.arange(27.0).reshape(1, 3, 3, 3),
            np.eye(4),
            None,
            PreprocessSettings(preprocess=Preprocess(n4=True), shape=(8, 8, 8)),
            "image s3",
        )
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(ValueError, match="sheared"):
        correct_bias(np.ones((10, 10, 10)), sheared, np.ones((10, 10, 10), bool))
