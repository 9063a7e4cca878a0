"""Grids: voxels go where the affine says, and come back."""

from __future__ import annotations

import itertools
import json

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation

from gyri.config.datasets import Preprocess, PreprocessSettings
from gyri.transforms.prepare import prepare
from gyri.transforms.spatial import (
    SpatialRecord,
    lowpass_sigma,
    orientation,
    reorient,
    resample,
    restore,
    spaced_grid,
    spacing,
    window,
)

SIGNED = list(itertools.product(itertools.permutations(range(3)), itertools.product((-1, 1), repeat=3)))


def make_affine(signed: int, edges: tuple[float, ...], angles: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    """An affine whose axes run in one of the 48 orientations, turned a little."""
    axes, signs = SIGNED[signed]
    linear = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        linear[axis, column] = sign
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ linear @ np.diag(edges)
    affine[:3, 3] = origin
    return affine


affines = st.builds(
    make_affine,
    st.integers(0, 47),
    st.tuples(*[st.floats(0.5, 3)] * 3),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(-90, 90)] * 3),
)
shapes = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**32 - 1)


def options(shape: tuple[int, int, int], **values: object) -> PreprocessSettings:
    return PreprocessSettings(preprocess=Preprocess.model_validate({"scaling": "none", **values}), shape=shape)


def one_hot(labels: np.ndarray, count: int) -> np.ndarray:
    return (np.arange(count).reshape(-1, 1, 1, 1) == labels).astype(np.float32)


def kept(record: SpatialRecord) -> np.ndarray:
    """Which voxels of the file lie on the network grid, by their indices alone."""
    indices = np.moveaxis(np.indices(record.canonical_shape), 0, -1) - np.asarray(record.offsets)
    inside = ((indices >= 0) & (indices < np.asarray(record.shape))).all(-1)
    return restore(inside, record.axes, record.flips)


@given(affines, shapes, shapes, seeds)
@settings(max_examples=150, deadline=None)
def test_labels_come_back_exactly_where_nothing_is_resampled(affine, shape, network, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    record = prepare(rng.normal(size=(1, *shape)), affine, None, options(network)).spatial
    moved = record.apply_labels(labels)
    assert moved.shape == network and moved.dtype == labels.dtype and not record.resampled
    back = record.invert(one_hot(moved, 4)).argmax(0)
    inside = kept(record)
    assert np.array_equal(back[inside], labels[inside])
    assert (back[~inside] == 0).all()
    assert np.array_equal(record.apply_labels(back.astype(np.uint8)), moved)


@given(affines, shapes, shapes, seeds)
@settings(max_examples=60, deadline=None)
def test_probabilities_come_back_bit_by_bit_and_sum_to_one(affine, shape, network, seed):
    rng = np.random.default_rng(seed)
    record = prepare(rng.normal(size=(1, *shape)), affine, None, options(network)).spatial
    probabilities = rng.dirichlet([1, 1, 1], network).transpose(3, 0, 1, 2).astype(np.float32)
    back = record.invert(probabilities)
    assert back.shape == (3, *shape) and back.dtype == np.float32
    outside = ~kept(record)
    assert (back[0][outside] == 1).all() and (back[1:][:, outside] == 0).all()
    assert np.isin(back[:, ~outside], probabilities).all()


@given(affines, shapes, shapes, seeds)
@settings(max_examples=100, deadline=None)
def test_a_landmark_keeps_its_place_in_the_world(affine, shape, network, seed):
    voxel = np.random.default_rng(seed).integers(0, shape)
    image = np.zeros((1, *shape), np.float32)
    image[(0, *voxel)] = 1
    ready = prepare(image, affine, None, options(network))
    found = np.argwhere(ready.image[0] == 1)
    assert len(found) == int(kept(ready.spatial)[tuple(voxel)])
    if len(found):
        place = ready.spatial.affine @ [*found[0], 1]
        assert np.allclose(place, affine @ [*voxel, 1], atol=1e-9)


@given(affines, st.tuples(*[st.integers(2, 9)] * 3), seeds)
@settings(max_examples=60, deadline=None)
def test_orientation_agrees_with_nibabel(affine, shape, seed):
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    oracle = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, affine))
    record = prepare(data[None], affine, None, options(oracle.shape)).spatial
    assert np.array_equal(reorient(data, record.axes, record.flips), oracle.get_fdata(dtype=np.float32))
    assert np.allclose(record.affine, oracle.affine, atol=1e-6)
    assert np.array_equal(restore(reorient(data, record.axes, record.flips), record.axes, record.flips), data)


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5).astype(np.float32) * 10


@pytest.mark.parametrize("signed", [0, 5, 13, 22, 31, 47])
def test_finer_resampling_agrees_with_nibabel_in_world_space(signed):
    affine = make_affine(signed, (2.0, 1.5, 3.0), (10, -5, 8), (-20, 30, 5))
    data = smooth((14, 17, 11))
    canonical = spaced_grid((14, 17, 11), affine, 1.0)[0]
    ready = prepare(data[None], affine, None, options((40, 40, 40), spacing_mm=1.0))
    oracle = resample_from_to(nibabel.Nifti1Image(data, affine), ((40, 40, 40), ready.spatial.affine), order=1, mode="nearest")
    margin = [slice((40 - edge) // 2 + 2, (40 + edge) // 2 - 2) for edge in ready.spatial.grid_shape]
    assert sorted(ready.spatial.grid_shape) == sorted(canonical) and np.allclose(spacing(ready.spatial.affine), 1)
    assert np.allclose(ready.image[0][tuple(margin)], oracle.get_fdata()[tuple(margin)], atol=1e-4)


@pytest.mark.parametrize("spacing_mm", [0.7, 1.3, 4.0])
def test_nearest_labels_agree_with_nibabel_in_world_space(spacing_mm):
    affine = make_affine(19, (2.0, 1.5, 3.1), (4, 3, -6), (3, 4, 5))
    labels = (smooth((15, 16, 17)) > 0).astype(np.uint8) + (smooth((15, 16, 17), 1) > 0).astype(np.uint8)
    record = prepare(labels[None], affine, None, options((24, 24, 24), spacing_mm=spacing_mm)).spatial
    oracle = resample_from_to(nibabel.Nifti1Image(labels, affine), ((24, 24, 24), record.affine), order=0, mode="nearest")
    indices = np.vstack([np.indices((24, 24, 24)).reshape(3, -1), np.ones(24**3)])
    place = (np.linalg.inv(affine) @ record.affine @ indices)[:3].reshape(3, 24, 24, 24)
    edge = np.reshape([15, 16, 17], (3, 1, 1, 1))
    inside = ((place > -0.5) & (place < edge - 0.5)).all(0)
    expected = np.where(inside, np.asarray(oracle.dataobj), 0)
    clear = (np.abs(place % 1 - 0.5) > 1e-6).all(0)  # what lies exactly half way may fall on either side
    assert np.array_equal(record.apply_labels(labels)[clear], expected[clear])


def test_the_new_grid_has_the_same_centre_and_field_of_view():
    affine = make_affine(7, (1.0, 1.2, 0.9), (5, 5, 5), (1, 2, 3))
    shape, matrix = spaced_grid((31, 40, 25), affine, 2.0)
    centre = (np.array([31, 40, 25]) - 1) / 2
    assert np.allclose(matrix @ [*(np.array(shape) - 1) / 2, 1], [*centre, 1])
    assert np.abs(np.array(shape) * 2.0 - np.array([31, 40, 25]) * [1.0, 1.2, 0.9]).max() <= 1.0
    assert spaced_grid((31, 40, 25), affine, None) == ((31, 40, 25), pytest.approx(np.eye(4)))
    assert spaced_grid((31, 40, 25), np.diag([2.0005, 2, 2, 1]), 2.0)[0] == (31, 40, 25)


def test_the_lowpass_agrees_with_torchio():
    from torchio import Resample

    factors = np.array([1.5, 2.0, 4.0])
    expected = Resample._get_sigmas(factors, (1.0, 1.0, 1.0))
    assert lowpass_sigma(np.diag([*factors, 1]), (9, 9, 9)) == pytest.approx(expected)
    assert not lowpass_sigma(np.diag([0.5, 1, 0.9, 1]), (9, 9, 9)).any()
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
    assert not lowpass_sigma(turned, (9, 9, 9)).any()  # turning alone samples no more coarsely


def test_coarser_resampling_removes_what_the_new_grid_cannot_hold():
    x = np.arange(64)
    wave = np.broadcast_to(np.cos(np.pi * x * 0.9)[:, None, None], (64, 8, 8)).astype(np.float32)
    matrix = spaced_grid((64, 8, 8), np.eye(4), 3.0)[1]
    shape = spaced_grid((64, 8, 8), np.eye(4), 3.0)[0]
    unfiltered = wave[1::3]
    filtered = resample(wave, matrix, shape)
    assert np.abs(unfiltered).max() > 0.9 and np.abs(filtered[1:-1]).max() < 0.01
    flat = resample(np.full((64, 8, 8), 7, np.float32), matrix, shape)
    assert np.allclose(flat, 7, atol=1e-5)


@pytest.mark.parametrize("spacing_mm", [0.8, 2.5])
@pytest.mark.parametrize("signed", [0, 29])
def test_resampled_probabilities_come_back_linearly(spacing_mm, signed):
    affine = make_affine(signed, (1.5, 1.5, 1.5), (0, 0, 0), (-12, -8, 5))
    shape = (18, 20, 16)
    record = prepare(smooth(shape)[None], affine, None, options((48, 48, 48), spacing_mm=spacing_mm)).spatial
    grid = record.affine @ np.vstack([np.indices(record.shape).reshape(3, -1), np.ones(48**3)])
    ramp = (0.5 + 0.005 * grid[0] - 0.004 * grid[1] + 0.003 * grid[2]).reshape(record.shape)
    back = record.invert(np.stack([1 - ramp, ramp]).astype(np.float32))
    place = affine @ np.vstack([np.indices(shape).reshape(3, -1), np.ones(np.prod(shape))])
    expected = (0.5 + 0.005 * place[0] - 0.004 * place[1] + 0.003 * place[2]).reshape(shape)
    assert np.allclose(back[1], expected, atol=1e-5) and np.allclose(back.sum(0), 1, atol=1e-6)


def test_outside_a_resampled_network_grid_is_background():
    affine = np.diag([1.0, 1, 1, 1])
    record = prepare(smooth((24, 24, 24))[None], affine, None, options((6, 6, 6), spacing_mm=2.0)).spatial
    back = record.invert(np.stack([np.zeros((6, 6, 6)), np.ones((6, 6, 6))]).astype(np.float32))
    inside = np.zeros((24, 24, 24), bool)
    inside[6:18, 6:18, 6:18] = True
    assert np.array_equal(back.argmax(0) == 1, inside) and np.array_equal(back[0], (~inside).astype(np.float32))


@pytest.mark.parametrize("spacing_mm", [0.7, 2.0])
@pytest.mark.parametrize("interpolation", ["nearest", "labelwise"])
def test_resampled_labels_come_back_nearly(spacing_mm, interpolation):
    distance = np.linalg.norm(np.moveaxis(np.indices((30, 30, 30)), 0, -1) - 14.3, axis=-1)
    labels = (distance < 11).astype(np.uint8) + (distance < 6)
    record = prepare(labels[None].astype(float), np.eye(4), None, options((48, 48, 48), spacing_mm=spacing_mm)).spatial
    moved = record.apply_labels(labels, interpolation)
    back = record.invert(one_hot(moved, 3)).argmax(0)
    assert set(np.unique(moved)) == {0, 1, 2}
    for value in (1, 2):
        dice = 2 * ((back == value) & (labels == value)).sum() / ((back == value).sum() + (labels == value).sum())
        assert dice > (0.95 if spacing_mm < 1 else 0.87)
        assert (moved == value).sum() * spacing_mm**3 == pytest.approx(
            (labels == value).sum(), rel=0.2 if interpolation == "labelwise" else 0.06
        )


@given(affines, shapes, st.sampled_from(["nearest", "labelwise"]), st.floats(0.6, 4), seeds)
@settings(max_examples=50, deadline=None)
def test_interpolation_invents_no_labels(affine, shape, interpolation, spacing_mm, seed):
    labels = np.random.default_rng(seed).choice([0, 3, 200], shape).astype(np.uint8)
    record = prepare(labels[None].astype(float), affine, None, options((8, 8, 8), spacing_mm=spacing_mm)).spatial
    assert set(np.unique(record.apply_labels(labels, interpolation))) <= {0, *np.unique(labels)}


@given(affines, st.integers(0, 2), st.integers(2, 9), st.integers(2, 9), seeds)
@settings(max_examples=60, deadline=None)
def test_planes_stay_planes_with_their_thickness_last(affine, thin, first, second, seed):
    shape = [first, second]
    shape.insert(thin, 1)
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    for spacing_mm in (None, 0.9):
        record = prepare(labels[None].astype(float), affine, None, options((16, 16, 1), spacing_mm=spacing_mm)).spatial
        assert record.canonical_shape[2] == 1 and record.grid_shape[2] == 1
        moved = record.apply_labels(labels)
        assert moved.shape == (16, 16, 1) and record.invert(one_hot(moved, 3)).shape == (3, *shape)
        if spacing_mm is None:
            assert np.array_equal(record.invert(one_hot(moved, 3)).argmax(0), labels)


@given(affines, shapes, st.sampled_from([None, 1.7]))
@settings(max_examples=40, deadline=None)
def test_records_survive_json(affine, shape, spacing_mm):
    record = prepare(
        np.random.default_rng(0).normal(size=(1, *shape)), affine, None, options((8, 8, 8), spacing_mm=spacing_mm)
    ).spatial
    assert SpatialRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(shapes, shapes, st.tuples(*[st.integers(-12, 12)] * 3), seeds)
@settings(max_examples=80, deadline=None)
def test_windows_agree_with_padding_and_slicing(shape, edge, offsets, seed):
    array = np.random.default_rng(seed).normal(size=(2, *shape))
    wide = np.pad(array, [(0, 0), *[(30, 30)] * 3], constant_values=np.nan)
    part = wide[(slice(None), *(slice(30 + low, 30 + low + size) for low, size in zip(offsets, edge, strict=True)))]
    expected = np.where(np.isnan(part), np.array([-1.0, -2.0]).reshape(2, 1, 1, 1), part)
    assert np.array_equal(window(array, offsets, edge, np.array([-1.0, -2.0])), expected)


def test_an_affine_without_three_directions_is_refused():
    with pytest.raises(ValueError, match="direction"):
        orientation((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]))
