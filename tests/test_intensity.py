"""Intensities: scaling does not see units, and says so when there is nothing to scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.preprocessing import RobustScaler

from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.errors import DataError
from gyri.transforms.intensity import CLIP, fit_scaling, foreground, otsu_threshold
from gyri.transforms.prepare import Prepared, prepare


def head(seed: int = 0, shape: tuple[int, int, int] = (20, 22, 18)) -> np.ndarray:
    """A bright ball in dark noise."""
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2, axis=-1)
    return (np.abs(rng.normal(0, 5, shape)) + np.where(distance < 7, rng.normal(100, 15, shape), 0)).astype(np.float64)


def prepared(
    image: np.ndarray, shape: tuple[int, int, int] = (24, 24, 24), mask: np.ndarray | None = None, **values: object
) -> Prepared:
    settings_ = PreprocessSettings(preprocess=Preprocess.model_validate(values), shape=shape)
    return prepare(np.atleast_1d(image) if image.ndim == 4 else image[None], np.eye(4), mask, settings_, "image s1")


@given(
    st.floats(1e-3, 1e4),
    st.floats(-1e3, 1e3),
    st.sampled_from(["robust", "zscore"]),
    st.sampled_from(["image", "foreground", "mask"]),
    st.integers(0, 50),
)
@settings(max_examples=80, deadline=None)
def test_the_unit_of_an_image_does_not_matter(factor, shift, scaling, region, seed):
    image = head(seed)
    mask = np.zeros(image.shape)
    mask[5:15, 5:15, 5:15] = 1
    one = prepared(image, mask=mask, scaling=scaling, scaling_region=region)
    two = prepared(factor * image + shift, mask=mask, scaling=scaling, scaling_region=region)
    # float32 input: a shift a thousand times the range costs digits, nothing else
    assert np.allclose(one.image, two.image, atol=1e-4 + 1e-5 * abs(shift) / factor)
    assert one.spatial == two.spatial


def test_robust_scaling_agrees_with_scikit_learn():
    image = head()
    oracle = RobustScaler(quantile_range=(5, 95)).fit_transform(image.reshape(-1, 1)).reshape(image.shape) * 2
    scaled = prepared(image, image.shape).image[0]
    assert np.allclose(scaled, np.clip(oracle, -CLIP, CLIP), atol=1e-5)
    assert np.median(scaled) == pytest.approx(0, abs=1e-6)
    assert np.subtract(*np.percentile(scaled, [95, 5])) == pytest.approx(2, abs=1e-4)


def test_zscore_agrees_with_scipy():
    assert np.allclose(prepared(head(), (20, 22, 18), scaling="zscore").image[0], stats.zscore(head(), axis=None), atol=1e-5)


def test_scaling_looks_at_the_region_asked_for():
    image, mask = head(), np.zeros((20, 22, 18))
    mask[8:12, 9:13, 7:11] = 1
    scaled = prepared(image, image.shape, mask, scaling_region="mask").image[0]
    assert np.median(scaled[mask > 0]) == pytest.approx(0, abs=1e-6)
    scaled = prepared(image, image.shape, scaling_region="foreground").image[0]
    assert np.median(scaled[foreground(image)]) == pytest.approx(0, abs=1e-6)


def test_single_bright_voxels_change_nothing_else():
    image = head()
    spiked = image.copy()
    spiked[3, 3, 3] = 1e6
    one, two = prepared(image, image.shape).image[0], prepared(spiked, image.shape).image[0]
    two[3, 3, 3] = one[3, 3, 3]
    assert np.abs(one - two).max() < 0.01 and prepared(spiked, image.shape).image.max() == CLIP


@given(st.tuples(*[st.integers(4, 40)] * 3))
@settings(max_examples=40, deadline=None)
def test_padding_and_cropping_do_not_shift_intensities(shape):
    image = head()
    whole, part = prepared(image, image.shape), prepared(image, shape)
    assert whole.intensity == part.intensity
    low = np.array(part.spatial.offsets)
    kept = tuple(slice(max(0, start), start + edge) for start, edge in zip(low, shape, strict=True))
    place = tuple(slice(max(0, -start), max(0, -start) + size) for start, size in zip(low, whole.image[0][kept].shape, strict=True))
    assert np.array_equal(part.image[0][place], whole.image[0][kept])
    padded = np.ones(shape, bool)
    padded[place] = False
    assert (part.image[0][padded] == whole.image.min()).all()


def test_padding_is_the_darkest_value_of_each_channel_and_zero_where_masked():
    image = np.stack([head(0), 3 - head(1)])
    ready = prepared(image, (40, 40, 40))
    for channel in range(2):
        assert ready.image[channel, 0, 0, 0] == ready.image[channel].min() == np.float32(ready.intensity["padding"][channel])
    mask = head() > 50
    ready = prepared(head(), (40, 40, 40), mask, apply_mask=True, scaling_region="mask")
    assert ready.image[0, 0, 0, 0] == 0 and np.count_nonzero(ready.image) <= mask.sum()


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (np.full((8, 8, 8), 7.0), {}),
        (np.full((8, 8, 8), 7.0), {"scaling": "zscore"}),
        (np.full((8, 8, 8), 1e6), {"scaling_region": "foreground"}),
        (np.where(np.indices((8, 8, 8)).sum(0) < 3, 5.0, 0.0), {}),  # nearly all background
        (np.where(np.indices((8, 8, 8)).sum(0) < 3, np.nan, 0.0), {}),
        (np.where(np.indices((8, 8, 8)).sum(0) < 3, np.inf, 0.0), {}),
    ],
)
def test_what_cannot_be_scaled_is_an_error_that_names_the_image(image, values):
    with pytest.raises(DataError) as caught:
        prepared(image, (8, 8, 8), **values)
    problem = caught.value.problems[0]
    assert problem.where == "image s1" and problem.got and problem.expected and problem.remedy


@pytest.mark.parametrize("values", [{"scaling_region": "mask"}, {"apply_mask": True}, {"crop": "mask"}])
@pytest.mark.parametrize("mask", [None, np.zeros((20, 22, 18)), np.ones((3, 3, 3))])
def test_a_needed_mask_that_is_missing_empty_or_of_another_shape_is_refused(values, mask):
    with pytest.raises(DataError, match="mask"):
        prepared(head(), (8, 8, 8), mask, **values)


def test_a_missing_channel_stays_zero():
    image = np.stack([head(0), np.zeros((20, 22, 18))])
    ready = prepare(
        image, np.eye(4), None, PreprocessSettings(preprocess=Preprocess(), shape=(24, 24, 24)), "image s1", missing=[1]
    )
    assert not ready.image[1].any() and ready.image[0].any()


def test_otsu_agrees_with_simpleitk():
    import SimpleITK as sitk

    image = head(3)
    oracle = sitk.OtsuThresholdImageFilter()
    oracle.SetNumberOfHistogramBins(256)
    oracle.Execute(sitk.GetImageFromArray(image))
    between = (image > min(oracle.GetThreshold(), otsu_threshold(image))) & (
        image <= max(oracle.GetThreshold(), otsu_threshold(image))
    )
    assert between.mean() < 0.005


def test_the_foreground_is_the_largest_bright_part():
    image = head()
    image[0, 0, 0] = image[1, 0, 0] = 200
    found = foreground(image)
    distance = np.linalg.norm(np.moveaxis(np.indices(image.shape), 0, -1) - (np.array(image.shape) - 1) / 2, axis=-1)
    assert not found[0, 0, 0]
    assert (found == (distance < 7)).mean() > 0.99
    assert np.array_equal(foreground(image * 1e5 - 77), found)


@pytest.mark.parametrize("crop", ["foreground", "mask"])
def test_the_window_is_centred_on_what_is_asked_for(crop):
    image = np.zeros((40, 30, 20)) + np.random.default_rng(0).normal(0, 0.1, (40, 30, 20))
    image[28:36, 2:10, 11:19] += 10
    mask = np.zeros(image.shape)
    mask[28:36, 2:10, 11:19] = 1
    ready = prepared(image, (8, 8, 8), mask, crop=crop, scaling="none")
    assert ready.spatial.offsets == (28, 2, 11) and ready.image.min() > 5
    center = prepared(image, (8, 8, 8), mask, crop="center", scaling="none")
    assert center.spatial.offsets == (16, 11, 6)


def test_an_empty_region_has_no_scale():
    with pytest.raises(ValueError, match="empty"):
        fit_scaling(head(), np.zeros((20, 22, 18), bool), "robust")
