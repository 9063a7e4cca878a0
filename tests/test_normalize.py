"""Normalization: right numbers, of the training participants and of nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from gyri import normalize
from gyri.config.datasets import Normalize, NormalizeSettings
from gyri.errors import DataError, LeakageError
from gyri.io import read_json, read_tensors
from gyri.layout import Layout
from gyri.normalize import draw_patches, global_statistics, training_images, whitening
from gyri.tables import read_table, write_table
from gyri.transforms.normalization import Normalization
from gyri.transforms.packing import sha256_row

ROLES = ["train", "train", "validation", "test", "train", "test", "train", "locked"]
METHODS = ["global", "voxel", "pca", "zca", "none"]
FILES = ("normalization.json", "normalization.safetensors")


def write_store(root: Path, images: np.ndarray) -> Layout:
    """A packed store of one image per participant, roles as in ROLES; participants 0 and 1 are one group."""
    layout = Layout(root / "results")
    images = images.astype(np.float16)
    labels = np.zeros((len(images), 0, *images.shape[2:]), np.uint8)
    rows = [
        {
            "image_id": f"s{index}",
            "participant_id": f"p{index}",
            "group": f"g{max(index, 1)}",
            "sha256": sha256_row(image, labels[index]),
        }
        for index, image in enumerate(images)
    ]
    manifest = {
        "shape": list(images.shape[2:]),
        "channels": [f"c{index}" for index in range(images.shape[1])],
        "labels": [],
        "rows": rows,
    }
    layout.dataset("d").mkdir(parents=True)
    np.save(layout.dataset("d", "images.npy"), images)
    np.save(layout.dataset("d", "labels.npy"), labels)
    layout.dataset("d", "images.json").write_text(json.dumps(manifest))
    splits = [
        {
            "group": row["group"],
            "participant_id": row["participant_id"],
            "fold": "locked" if role == "locked" else "0",
            "role": role,
        }
        for row, role in zip(rows, ROLES, strict=True)
    ]
    write_table(layout.dataset("d", "splits.tsv"), pd.DataFrame(splits), "splits")
    return layout


def random_images(seed: int = 0, shape: tuple[int, ...] = (2, 8, 9, 7)) -> np.ndarray:
    """Smooth images, so that neighbouring voxels are correlated."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(len(ROLES), *shape))
    return gaussian_filter(noise, (0, 0, 0.7, 0.7, 0.7)) * 3 + np.arange(shape[0]).reshape(-1, 1, 1, 1)


def options(method: str, **values: object) -> NormalizeSettings:
    return NormalizeSettings(normalize=Normalize.model_validate({"method": method, "patch": 3, "samples": 1000, **values}))


def fitted(layout: Layout, method: str, **values: object) -> list[bytes]:
    normalize.run(options(method, **values), layout, "d", 0)
    return [layout.fold("d", 0, name).read_bytes() for name in FILES]


@pytest.mark.parametrize("method", METHODS)
def test_only_training_participants_leave_a_trace(tmp_path, method):
    images = random_images()
    before = fitted(write_store(tmp_path / "0", images), method)
    for index in (1, 2, 3, 7):  # one of each role
        role, tainted = ROLES[index], images.copy()
        tainted[index] += 100 * np.random.default_rng(index).normal(size=images.shape[1:])
        after = fitted(write_store(tmp_path / f"taint{index}", tainted), method)
        assert (after == before) == (role != "train")
        if role == "train" and method != "none":
            assert after[0] != before[0]


def test_permuting_all_other_participants_changes_nothing(tmp_path):
    images = random_images()
    others = [index for index, role in enumerate(ROLES) if role != "train"]
    permuted = images.copy()
    permuted[others] = images[others[::-1]]
    for method in METHODS:
        first = fitted(write_store(tmp_path / f"{method}0", images), method)
        assert first == fitted(write_store(tmp_path / f"{method}1", permuted), method)


def test_global_and_voxel_statistics_agree_with_numpy(tmp_path):
    images = random_images()
    layout = write_store(tmp_path, images)
    training = images.astype(np.float16).astype(np.float64)[[index for index, role in enumerate(ROLES) if role == "train"]]
    normalize.run(options("voxel", epsilon=1e-12), layout, "d", 0)
    description, arrays = read_json(layout.fold("d", 0, FILES[0])), read_tensors(layout.fold("d", 0, FILES[1]))
    assert description["mean"] == pytest.approx(training.mean((0, 2, 3, 4)), rel=1e-12)
    assert description["std"] == pytest.approx(training.std((0, 2, 3, 4)), rel=1e-9)
    assert description["n_images"] == 4 and description["n_groups"] == 3 and description["fold"] == 0
    floor = 0.1 * training.std((0, 2, 3, 4)).reshape(-1, 1, 1, 1)
    assert np.allclose(arrays["mean"], training.mean(0), atol=1e-6)
    assert np.allclose(arrays["std"], np.maximum(training.std(0), floor), atol=1e-6)


@given(st.integers(1, 6), st.floats(-1000, 1000), st.floats(0.01, 100))
@hypothesis_settings(max_examples=30, deadline=None)
def test_running_sums_do_not_lose_digits(count, mean, std):
    images = np.random.default_rng(count).normal(mean, std, (count, 1, 3, 4, 5))
    found = global_statistics(list(images), 1e-300)  # type: ignore[arg-type]
    assert found[0] == pytest.approx(images.mean((0, 2, 3, 4)), rel=1e-10, abs=1e-10)
    assert found[1] == pytest.approx(images.std((0, 2, 3, 4)), rel=1e-9)


def test_voxels_that_never_vary_in_training_do_not_explode(tmp_path):
    images = random_images()
    images[:, :, 0] = -1.5
    layout = write_store(tmp_path, images)
    normalize.run(options("voxel"), layout, "d", 0)
    normalization = Normalization.load(layout.fold("d", 0))
    new = np.full((1, *images.shape[1:]), 2.0)
    assert np.abs(normalization.apply(new)).max() < 60


@pytest.mark.parametrize("method", ["global", "voxel", "pca"])
def test_applied_to_the_training_images_the_mean_is_zero_and_the_variance_one(tmp_path, method):
    images = random_images().astype(np.float16)
    layout = write_store(tmp_path, images)
    normalize.run(options(method), layout, "d", 0)
    training = images[[index for index, role in enumerate(ROLES) if role == "train"]]
    axes = (0,) if method == "voxel" else (0, 2, 3, 4)
    found = Normalization.load(layout.fold("d", 0)).apply(training)
    assert found.dtype == np.float32 and np.allclose(found.mean(axes), 0, atol=1e-4)
    spread = found.std(axes)
    assert np.isclose(spread, 1, atol=1e-2).mean() > 0.95 and spread.max() < 1.01  # the few below: voxels under the floor


@pytest.mark.parametrize("method", ["pca", "zca"])
@pytest.mark.parametrize("shape", [(2, 8, 9, 7), (1, 12, 11, 1)])
def test_whitened_training_patches_have_the_identity_as_covariance(tmp_path, method, shape):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(ROLES), *shape))
    images = noise + 0.8 * np.roll(noise, 1, 2) + 0.3 * noise[:, :1]
    layout = write_store(tmp_path, images)
    normalize.run(options(method), layout, "d", 0)
    normalization = Normalization.load(layout.fold("d", 0))
    training = training_images(layout, "d", 0)
    mean, std = (np.asarray(normalization.description[name]) for name in ("mean", "std"))
    flat = draw_patches(training, mean, std, options(method).normalize, 0)
    edges = (3, 3, 3) if shape[-1] > 1 else (3, 3, 1)
    patches = flat.reshape(len(flat), shape[0], *edges) * std.reshape(-1, 1, 1, 1) + mean.reshape(-1, 1, 1, 1)
    white = normalization.whiten_patches(patches)
    assert white.shape == ((len(flat), flat.shape[1]) if method == "pca" else patches.shape)
    covariance = np.cov(white.reshape(len(flat), -1).T.astype(np.float64), bias=True)
    assert np.allclose(covariance, np.eye(len(covariance)), atol=5e-3)
    assert np.allclose(white.reshape(len(flat), -1).mean(0), 0, atol=1e-4)


def test_zca_is_symmetric_and_nearest_to_the_patches():
    patches = np.random.default_rng(0).normal(size=(2000, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    parts = whitening(patches, Normalize(method="zca", epsilon=1e-9))
    matrix = (parts["components"].T * parts["scale"]) @ parts["components"]
    assert np.allclose(matrix, matrix.T, atol=1e-6)
    centred = patches - patches.mean(0)
    pca = centred @ (parts["components"].T * parts["scale"])
    assert ((centred @ matrix - centred) ** 2).sum() < ((pca - centred) ** 2).sum()


def test_pca_agrees_with_scikit_learn_up_to_signs():
    patches = np.random.default_rng(0).normal(size=(3000, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    parts = whitening(patches, Normalize(method="pca", components=3, epsilon=1e-12))
    oracle = PCA(3, whiten=True, svd_solver="full").fit(patches)
    found = (patches - parts["mean"]) @ parts["components"].T * parts["scale"]
    expected = oracle.transform(patches)
    assert np.allclose(np.abs((found * expected).mean(0)), 1, atol=1e-2)
    assert (parts["components"][np.arange(3), np.abs(parts["components"]).argmax(1)] > 0).all()


def test_tensors_and_arrays_give_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    images = random_images()
    for method in METHODS:
        layout = write_store(tmp_path / method, images)
        normalize.run(options(method), layout, "d", 0)
        normalization = Normalization.load(layout.fold("d", 0))
        x = images[:3].astype(np.float32)
        for _ in range(2):
            assert np.allclose(normalization.apply(torch.from_numpy(x)).numpy(), normalization.apply(x), atol=1e-6)
        if method in ("pca", "zca"):
            patches = x[:, :, :3, :3, :3]
            expected = normalization.whiten_patches(patches)
            assert np.allclose(normalization.whiten_patches(torch.from_numpy(patches)).numpy(), expected, atol=1e-4)
            with pytest.raises(ValueError, match="fitted on"):
                normalization.whiten_patches(x)
        else:
            with pytest.raises(ValueError, match="whitens no"):
                normalization.whiten_patches(x)


def test_arrays_of_another_method_are_refused():
    with pytest.raises(ValueError, match="voxel needs"):
        Normalization({"method": "voxel", "mean": [0.0], "std": [1.0]}, {})


def test_a_group_on_two_sides_is_refused(tmp_path):
    layout = write_store(tmp_path, random_images())
    splits = read_table(layout.dataset("d", "splits.tsv"), "splits")
    splits.loc[splits["participant_id"] == "p3", "group"] = "g1"
    write_table(layout.dataset("d", "splits.tsv"), splits, "splits")
    with pytest.raises(LeakageError):
        normalize.run(options("global"), layout, "d", 0)


def test_a_changed_row_an_empty_fold_and_a_large_patch_are_refused(tmp_path):
    images = random_images()
    layout = write_store(tmp_path, images)
    with pytest.raises(DataError, match="no training image"):
        normalize.run(options("global"), layout, "d", 3)
    with pytest.raises(DataError, match="patch"):
        normalize.run(options("pca", patch=9), layout, "d", 0)
    np.save(layout.dataset("d", "images.npy"), images[:4].astype(np.float16))
    with pytest.raises(DataError, match="shape"):
        normalize.run(options("global"), layout, "d", 0)
    images[0] += 1
    np.save(layout.dataset("d", "images.npy"), images.astype(np.float16))
    with pytest.raises(DataError, match="s0"):
        normalize.run(options("global"), layout, "d", 0)


def test_the_drawn_patches_depend_on_seed_and_fold(tmp_path):
    training = training_images(write_store(tmp_path, random_images()), "d", 0)
    mean, std = global_statistics(training, 1e-5)
    one = draw_patches(training, mean, std, options("pca").normalize, 0)
    assert np.array_equal(one, draw_patches(training, mean, std, options("pca").normalize, 0))
    assert not np.array_equal(one, draw_patches(training, mean, std, options("pca").normalize, 1))
    assert not np.array_equal(one, draw_patches(training, mean, std, options("pca", seed=1).normalize, 0))
