"""Metrics: one contract for every declared one, and independent oracles (scikit-learn, SciPy, MONAI)."""

from __future__ import annotations

import inspect
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn import metrics as sk

from gyri.metrics import calibration, classification, operating_points, postprocessing, regression, segmentation
from gyri.metrics.classification import Classified
from gyri.metrics.regression import Regressed
from gyri.metrics.segmentation import Pair, pairs, surface

OF_CLASSES = (classification, calibration, operating_points)
ALL = [(module, name) for module in (*OF_CLASSES, regression, segmentation, postprocessing) for name in module.METRICS]
AFFINE = np.array([[0, -1.5, 0, 3], [0.8, 0, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])
SPACING = (0.8, 1.5, 2.5)


def classified(random: np.random.Generator, kind: str, classes: int = 2, n: int = 40) -> Classified:
    """Random or degenerate images with classes."""
    truth = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes)) + 1.5 * np.eye(classes)[truth]
    if kind == "single":
        truth[:] = classes - 1
    if kind == "constant":
        logits[:] = logits[0]
    if kind == "ties":
        logits = np.round(logits)
    if kind == "perfect":
        logits = 30 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Classified(truth, probabilities.argmax(1), probabilities)


def regressed(random: np.random.Generator, kind: str, n: int = 40) -> Regressed:
    """Random or degenerate images with values."""
    truth = random.normal(60, 12, n)
    value = truth + random.normal(0, 6, n)
    if kind == "single":
        truth[:] = 61.3
    if kind == "constant":
        value[:] = 59.7
    if kind == "ties":
        truth, value = np.round(truth, -1), np.round(value, -1)
    if kind == "perfect":
        value = truth.copy()
    return Regressed(truth, value)


def blob(random: np.random.Generator, shape: tuple[int, ...] = (14, 12, 9)) -> np.ndarray:
    """A random connected-looking mask that touches an edge now and then."""
    field = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return field > np.quantile(field, 0.75)


def pair(truth: np.ndarray, predicted: np.ndarray, affine: np.ndarray = AFFINE) -> Pair:
    """The pair that the evaluation makes of two masks."""
    return next(found for _, found in pairs(truth.astype(int), predicted.astype(int), {1: "a"}, affine))


def cases_of(module: ModuleType, kind: str, random: np.random.Generator) -> Any:
    """Inputs of a module's metrics."""
    if module in OF_CLASSES:
        return classified(random, kind, 3 if kind == "many" else 2)
    if module is regression:
        return regressed(random, kind)
    masks = [blob(random), blob(random)]
    if kind == "single":
        masks = [
            mask & (np.arange(mask.size).reshape(mask.shape) == 500) for mask in (np.ones_like(masks[0]), np.ones_like(masks[1]))
        ]
    if kind == "constant":
        masks[1][:] = False
    if kind == "ties":
        masks[0][:], masks[1][:] = False, False
    if kind == "perfect":
        masks[1] = masks[0]
    return pair(*masks)


KINDS = ["random", "many", "single", "constant", "ties", "perfect"]


@pytest.mark.parametrize(("module", "name"), ALL, ids=[name for _, name in ALL])
def test_contract(module: ModuleType, name: str) -> None:
    """Every declared metric: documented, finite or NaN, inside its range, silent on degenerate inputs; weights mean repetitions."""
    declared, function = module.METRICS[name], getattr(module, name)
    assert set(declared) >= {"kind", "range", "better", "unit", "undefined"}
    assert declared["kind"] in ("case", "set")
    assert declared["better"] in ("higher", "lower", "zero", "one")
    assert inspect.getdoc(function)
    low, high = declared["range"]
    bottom, top = -np.inf if low is None else low, np.inf if high is None else high
    for kind in KINDS:
        random = np.random.default_rng(3)
        cases = cases_of(module, kind, random)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if declared["kind"] == "case":
                values = np.atleast_1d(function(cases))
            else:
                n = len(cases.truth)
                weights = random.integers(0, 4, (5, n)).astype(float)
                values = function(cases, np.vstack([np.ones(n), weights, np.zeros(n)]))
                assert np.isnan(values[-1])
                for row, value in zip(weights, values[1:], strict=False):
                    repeated = random.permutation(np.repeat(np.arange(n), row.astype(int)))
                    again = type(cases)(*(getattr(cases, part)[repeated] for part in cases.__dataclass_fields__))
                    np.testing.assert_allclose(function(again, np.ones((1, len(repeated))))[0], value, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(function(cases, 7 * weights), values[1:-1], rtol=1e-9, atol=1e-9)
        inside = np.isnan(values) | ((values >= bottom - 1e-12) & (values <= top + 1e-12))
        assert inside.all(), (kind, values)
        if kind in ("random", "perfect") and (kind, name) != ("perfect", "calibration_slope"):
            assert np.isfinite(values[0])


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("kind", ["random", "ties", "constant", "perfect"])
def test_classification_against_scikit_learn(classes: int, kind: str) -> None:
    random = np.random.default_rng(classes)
    cases = classified(random, kind, classes)
    weights = random.integers(1, 5, (3, len(cases.truth))).astype(float)
    for row in weights:
        given = {"sample_weight": row}
        score = cases.probabilities[:, 1] if classes == 2 else cases.probabilities
        onehot = np.eye(classes)[cases.truth]
        average = "binary" if classes == 2 else "macro"
        expected = {
            "auroc": sk.roc_auc_score(cases.truth, score, multi_class="ovr", **given),
            "average_precision": sk.average_precision_score(onehot[:, 1] if classes == 2 else onehot, score, **given),
            "balanced_accuracy": sk.balanced_accuracy_score(cases.truth, cases.decision, **given),
            "sensitivity": sk.recall_score(cases.truth, cases.decision, average=average, **given),
            "mcc": sk.matthews_corrcoef(cases.truth, cases.decision, **given),
        }
        if classes == 2:
            expected["specificity"] = sk.recall_score(cases.truth, cases.decision, pos_label=0, **given)
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(classification, name)(cases, row[None])[0], value, atol=1e-12, err_msg=name)
        means = {
            "accuracy": sk.accuracy_score(cases.truth, cases.decision, **given),
            "log_loss": sk.log_loss(cases.truth, cases.probabilities, labels=range(classes), **given),
            "brier": sk.brier_score_loss(cases.truth, score, labels=range(classes), **given),
        }
        for name, value in means.items():
            np.testing.assert_allclose(
                np.average(getattr(classification, name)(cases), weights=row), value, atol=1e-12, err_msg=name
            )


def test_undefined_is_nan_and_limits_are_kept() -> None:
    one = classified(np.random.default_rng(0), "single")
    ones = np.ones((1, len(one.truth)))
    for name in ("auroc", "average_precision", "balanced_accuracy", "mcc", "specificity"):
        assert np.isnan(getattr(classification, name)(one, ones)[0]), name
    constant = classified(np.random.default_rng(0), "constant")
    assert classification.auroc(constant, ones)[0] == 0.5
    assert classification.mcc(constant, ones)[0] == 0
    sure = Classified(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]))
    assert classification.log_loss(sure)[0] == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize("kind", ["random", "ties", "perfect"])
def test_regression_against_scikit_learn_and_scipy(kind: str) -> None:
    random = np.random.default_rng(1)
    cases = regressed(random, kind)
    row = random.integers(1, 5, len(cases.truth)).astype(float)
    given = {"sample_weight": row}
    assert np.average(regression.mae(cases), weights=row) == pytest.approx(
        sk.mean_absolute_error(cases.truth, cases.value, **given)
    )
    expected = sk.root_mean_squared_error(cases.truth, cases.value, **given)
    assert regression.rmse(cases, row[None])[0] == pytest.approx(expected, abs=1e-12)
    assert regression.r2(cases, row[None])[0] == pytest.approx(sk.r2_score(cases.truth, cases.value, **given))
    repeated = np.repeat(np.arange(len(row)), row.astype(int))
    expected = stats.pearsonr(cases.truth[repeated], cases.value[repeated]).statistic
    assert regression.correlation(cases, row[None])[0] == pytest.approx(expected)


@pytest.mark.parametrize("offset", [0.0, 1e6, 0.1])
def test_regression_of_constants_is_undefined(offset: float) -> None:
    random = np.random.default_rng(2)
    weights = random.integers(0, 4, (20, 30)).astype(float)
    flat, varied = np.full(30, 0.1 + offset), random.normal(size=30)
    assert np.isnan(regression.correlation(Regressed(varied, flat), weights)).all()
    assert np.isnan(regression.correlation(Regressed(flat, varied), weights)).all()
    assert np.isnan(regression.r2(Regressed(flat, varied), weights)).all()


@pytest.mark.parametrize("seed", range(4))
def test_segmentation_against_monai(seed: int) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    random = np.random.default_rng(seed)
    truth, predicted = blob(random), blob(random)
    found = pair(truth, predicted)
    batch = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    expected = monai.compute_dice(*batch).item()
    assert segmentation.dice(found) == pytest.approx(expected, abs=1e-6)
    expected = monai.compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=SPACING).item()
    assert segmentation.hd95(found) == pytest.approx(expected, abs=1e-4)
    expected = monai.compute_average_surface_distance(*batch, include_background=True, symmetric=True, spacing=SPACING).item()
    assert segmentation.mean_surface_distance(found) == pytest.approx(expected, abs=1e-4)


def test_distances_against_a_distance_transform() -> None:
    random = np.random.default_rng(9)
    truth, predicted = blob(random), blob(random)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, predicted)]
    assert (surface(truth) == edges[0]).all()
    maps = [ndimage.distance_transform_edt(~edge, sampling=SPACING) for edge in edges]
    expected = sorted(maps[1][edges[0]]), sorted(maps[0][edges[1]])
    for found, wanted in zip(pair(truth, predicted).distances, expected, strict=True):
        np.testing.assert_allclose(sorted(found), wanted)


def test_segmentation_by_hand() -> None:
    truth, predicted = np.zeros((20, 10, 6), bool), np.zeros((20, 10, 6), bool)
    truth[4, 5, 3], predicted[7, 5, 3] = True, True
    one = pair(truth, predicted)
    assert segmentation.dice(one) == 0
    assert segmentation.hd95(one) == pytest.approx(3 * 0.8)
    assert segmentation.volume_true_ml(one) == pytest.approx(0.8 * 1.5 * 2.5 / 1000)
    assert segmentation.volume_error_ml(one) == 0
    predicted[7, 6, 3] = True
    assert segmentation.volume_error_relative(pair(truth, predicted)) == 1
    assert segmentation.volume_error_relative(pair(predicted, truth)) == -0.5
    assert segmentation.volume_error_relative_absolute(pair(predicted, truth)) == 0.5


def test_empty_structures() -> None:
    some, none = blob(np.random.default_rng(0)), np.zeros((14, 12, 9), bool)
    diagonal = float(np.linalg.norm(np.array(some.shape) * SPACING))
    for masks in ((some, none), (none, some)):
        assert segmentation.dice(pair(*masks)) == 0
        assert segmentation.hd95(pair(*masks)) == segmentation.mean_surface_distance(pair(*masks)) == pytest.approx(diagonal)
    both = pair(none, none)
    assert segmentation.dice(both) == 1
    assert segmentation.hd95(both) == segmentation.mean_surface_distance(both) == 0
    assert np.isnan(segmentation.volume_error_relative(both))
    assert np.isnan(segmentation.volume_error_relative(pair(none, some)))


def test_planes_have_no_upper_surface() -> None:
    random = np.random.default_rng(4)
    truth, predicted = blob(random, (30, 26, 1)), blob(random, (30, 26, 1))
    found = pair(truth, predicted, np.diag([1.0, 2.0, 5.0, 1.0]))
    flat = [mask[..., 0] & ~ndimage.binary_erosion(mask[..., 0]) for mask in (truth, predicted)]
    maps = [ndimage.distance_transform_edt(~edge, sampling=(1, 2)) for edge in flat]
    expected = max(np.percentile(maps[1][flat[0]], 95), np.percentile(maps[0][flat[1]], 95))
    assert segmentation.hd95(found) == pytest.approx(expected)
    empty = pair(truth, np.zeros_like(predicted), np.diag([1.0, 2.0, 5.0, 1.0]))
    assert segmentation.hd95(empty) == pytest.approx(np.hypot(30, 52))


def test_pairs_crop_and_mask_change_nothing_else() -> None:
    random = np.random.default_rng(5)
    truth, predicted = random.integers(0, 4, (2, 9, 8, 7))
    mask = np.zeros(truth.shape, bool)
    mask[2:7, 1:7, :5] = True
    for name, found in pairs(truth, predicted, {1: "a", 3: "c", 9: "never"}, AFFINE, mask):
        value = {"a": 1, "c": 3, "never": 9}[name]
        first, second = (truth == value) & mask, (predicted == value) & mask
        assert found.sizes == (first.sum(), second.sum())
        whole = Pair(first, second, AFFINE, found.diagonal_mm)
        for metric in segmentation.METRICS:
            function = getattr(segmentation, metric)
            np.testing.assert_allclose(function(found), function(whole), err_msg=metric)


@pytest.mark.parametrize("seed", range(3))
def test_error_slope_and_its_correction_against_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.normal(60, 12, 50)
    value = 30 + 0.5 * truth + random.normal(0, 3, 50)
    row = random.integers(1, 5, 50)
    repeated = np.repeat(np.arange(50), row)
    expected = stats.linregress(truth[repeated], (value - truth)[repeated]).slope
    cases = Regressed(truth, value)
    assert regression.error_slope(cases, row[None].astype(float))[0] == pytest.approx(expected)
    offset, slope = regression.fit_correction(truth, value)
    fitted = stats.linregress(truth, value)
    assert (offset, slope) == pytest.approx((fitted.intercept, fitted.slope))
    corrected = Regressed(truth, (value - offset) / slope)
    assert regression.error_slope_corrected(corrected, np.ones((1, 50)))[0] == pytest.approx(0, abs=1e-9)
    assert regression.mae_corrected(corrected).mean() == pytest.approx(np.abs(corrected.value - truth).mean())


def test_no_correction_where_predictions_do_not_rise() -> None:
    truth = np.linspace(20, 80, 13)
    for value in (np.full(13, 50.0), 100 - truth):
        assert np.isnan(regression.fit_correction(truth, value)).all()
    assert np.isnan(regression.fit_correction(np.full(13, 50.0), truth)).all()
    assert regression.error_slope(Regressed(truth, np.full(13, 50.0)), np.ones((1, 13)))[0] == pytest.approx(-1)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "correlation", "error_slope"])
def test_a_truth_for_every_row_of_weights(name: str) -> None:
    random = np.random.default_rng(6)
    cases, weights = regressed(random, "random", 25), random.integers(0, 3, (7, 25)).astype(float)
    truths, function = np.stack([random.permutation(cases.truth) for _ in range(7)]), getattr(regression, name)
    many = Regressed(truths, cases.value)
    if regression.METRICS[name]["kind"] == "case":
        np.testing.assert_array_equal(function(many), [function(Regressed(row, cases.value)) for row in truths])
        return
    alone = [function(Regressed(row, cases.value), part[None])[0] for row, part in zip(truths, weights, strict=True)]
    np.testing.assert_allclose(function(many, weights), alone, rtol=1e-12)
