"""Calibration and operating points: against scikit-learn, SciPy and by hand, on random and degenerate images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_curve

from gyri.metrics import calibration
from gyri.metrics.classification import Classified, brier
from gyri.metrics.operating_points import POINTS, threshold

PROBABILITIES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.31, 0.5, 0.75, 0.9, 0.999, 1.0]), st.booleans()), min_size=1, max_size=30
)


def two_classes(score: np.ndarray, truth: np.ndarray) -> Classified:
    """Images with the probability of the positive class."""
    score = np.asarray(score, float)
    return Classified(np.asarray(truth).astype(np.int64), (score > 0.5).astype(np.int64), np.stack([1 - score, score], 1))


def overlapping(seed: int, n: int = 80) -> tuple[Classified, np.ndarray]:
    """Probabilities that are too extreme, and weights."""
    random = np.random.default_rng(seed)
    odds = random.normal(size=n)
    truth = random.random(n) < 1 / (1 + np.exp(-0.6 * odds - 0.4))
    return two_classes(1 / (1 + np.exp(-2 * odds)), truth), random.integers(1, 4, n).astype(float)


@given(PROBABILITIES)
@settings(deadline=None)
def test_the_brier_score_is_its_parts(pairs: list[tuple[float, bool]]) -> None:
    cases, ones = two_classes([p for p, _ in pairs], [y for _, y in pairs]), np.ones((1, len(pairs)))
    reliability, resolution, uncertainty = (
        getattr(calibration, f"brier_{name}")(cases, ones)[0] for name in ("reliability", "resolution", "uncertainty")
    )
    expected = brier_score_loss(cases.truth, cases.probabilities[:, 1], labels=[0, 1])
    assert reliability - resolution + uncertainty == pytest.approx(expected, abs=1e-12)
    assert brier(cases).mean() == pytest.approx(expected, abs=1e-12)
    assert reliability >= 0
    assert 0 <= uncertainty <= 0.25 + 1e-15


def test_parts_of_the_brier_score_of_more_classes() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 60)
    cases, ones = Classified(random.integers(0, 3, 60), probabilities.argmax(1), probabilities), np.ones((1, 60))
    parts = [getattr(calibration, f"brier_{name}")(cases, ones)[0] for name in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier(cases).mean())
    alone = [calibration.brier_reliability(cases.against_rest(index), ones)[0] for index in range(3)]
    assert parts[0] == pytest.approx(sum(alone))


@pytest.mark.parametrize("seed", range(3))
def test_expected_calibration_error_against_scikit_learn(seed: int) -> None:
    cases, _ = overlapping(seed)
    score = cases.probabilities[:, 1]
    frequency, mean = calibration_curve(cases.truth, score, n_bins=10)
    counts = np.histogram(score, np.linspace(0, 1, 11))[0]
    expected = (np.abs(frequency - mean) * counts[counts > 0]).sum() / counts.sum()
    assert calibration.expected_calibration_error(cases, np.ones((1, 80)))[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_slope_against_scikit_learn_and_scipy(seed: int) -> None:
    cases, weights = overlapping(seed)
    odds = np.log(cases.probabilities[:, 1] / cases.probabilities[:, 0])
    found = calibration.calibration_slope(cases, weights[None])[0]
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(odds[:, None], cases.truth, sample_weight=weights)
    assert found == pytest.approx(fitted.coef_[0, 0], rel=1e-4)

    def loss(beta: np.ndarray) -> float:
        line = beta[0] + beta[1] * odds
        return float((weights * (np.logaddexp(0, line) - cases.truth * line)).sum())

    assert found == pytest.approx(minimize(loss, [0, 1], tol=1e-12).x[1], rel=1e-4)
    intercept = calibration.calibration_intercept(cases, weights[None])[0]
    zero = brentq(lambda shift: (weights * (1 / (1 + np.exp(-odds - shift)) - cases.truth)).sum(), -20, 20)
    assert intercept == pytest.approx(zero, abs=1e-9)


def test_slope_and_intercept_say_what_is_wrong() -> None:
    random = np.random.default_rng(5)
    odds = random.normal(0, 1.5, 40_000)
    truth = random.random(40_000) < 1 / (1 + np.exp(-odds))
    ones = np.ones((1, 40_000))
    right = two_classes(1 / (1 + np.exp(-odds)), truth)
    assert calibration.calibration_slope(right, ones)[0] == pytest.approx(1, abs=0.05)
    assert calibration.calibration_intercept(right, ones)[0] == pytest.approx(0, abs=0.05)
    extreme = two_classes(1 / (1 + np.exp(-2 * odds)), truth)
    assert calibration.calibration_slope(extreme, ones)[0] == pytest.approx(0.5, abs=0.03)
    low = two_classes(1 / (1 + np.exp(1 - odds)), truth)
    assert calibration.calibration_intercept(low, ones)[0] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("score", "truth"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1]),
        ([0.9, 0.8, 0.1, 0.2], [0, 0, 1, 1]),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]),
        ([0.2, 0.3, 0.4, 0.5], [1, 1, 1, 1]),
    ],
    ids=["separated", "touching", "reversed", "constant", "one class"],
)
def test_slope_without_a_maximum_is_undefined(score: list[float], truth: list[int]) -> None:
    assert np.isnan(calibration.calibration_slope(two_classes(np.array(score), np.array(truth)), np.ones((1, 4)))[0])


@given(PROBABILITIES, st.integers(0, 2**16))
@settings(deadline=None)
def test_slopes_of_many_resamples_are_those_of_each(pairs: list[tuple[float, bool]], seed: int) -> None:
    cases = two_classes([p for p, _ in pairs], [y for _, y in pairs])
    weights = np.random.default_rng(seed).integers(0, 3, (6, len(pairs))).astype(float)
    together = calibration.calibration_slope(cases, weights)
    for row, value in zip(weights, together, strict=True):
        kept = np.repeat(np.arange(len(pairs)), row.astype(int))
        alone = calibration.calibration_slope(two_classes(cases.probabilities[kept, 1], cases.truth[kept]), np.ones((1, len(kept))))
        np.testing.assert_allclose(alone[0], value, rtol=1e-5, atol=1e-6)


# ── thresholds ──
@given(PROBABILITIES, st.sampled_from(POINTS), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
@settings(deadline=None)
def test_a_threshold_reaches_what_is_wanted_and_no_better_one_does(
    pairs: list[tuple[float, bool]], point: str, wanted: float
) -> None:
    score, truth = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    cut = threshold(truth, score, point, wanted)
    if truth.all() or not truth.any():
        assert math.isnan(cut)
        return
    false_alarms, hits, _ = roc_curve(truth, score, drop_intermediate=False)
    mine = (score[~truth] < cut).mean(), (score[truth] >= cut).mean()
    reached, gained = mine if point == "specificity" else mine[::-1]
    theirs = (1 - false_alarms, hits) if point == "specificity" else (hits, 1 - false_alarms)
    assert reached >= wanted - 1e-12
    assert gained == pytest.approx(theirs[1][theirs[0] >= wanted - 1e-12].max())


def test_thresholds_by_hand() -> None:
    score, truth = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9]), np.array([False, False, True, False, True, True])
    assert threshold(truth, score, "specificity", 0.9) == pytest.approx(0.65)
    assert threshold(truth, score, "specificity", 0.6) == pytest.approx(0.25)
    assert threshold(truth, score, "sensitivity", 0.9) == pytest.approx(0.25)
    assert threshold(truth, score, "sensitivity", 0.6) == pytest.approx(0.65)
    assert threshold(~truth, 1 - score, "specificity", 0.0) == 0
    assert threshold(np.array([True, False]), np.array([0.2, 0.8]), "specificity", 1.0) == math.inf
