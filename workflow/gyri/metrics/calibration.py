"""Calibration: do probabilities mean what they say? Two classes, or each of more against the rest.

None of these is read alone: the expected calibration error of a perfectly calibrated model is far from 0 on few images (its band is
in chance.tsv), and the slope is undefined where the classes do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.metrics.classification import ABSENT, SMALLEST, Classified

Array = NDArray[np.float64]

NONE = "there is no image"
METRICS: dict[str, dict[str, Any]] = {
    "brier_reliability": {"kind": "set", "range": (0, None), "better": "lower", "unit": "", "undefined": NONE},
    "brier_resolution": {"kind": "set", "range": (None, None), "better": "higher", "unit": "", "undefined": NONE},
    "brier_uncertainty": {"kind": "set", "range": (0, None), "better": "lower", "unit": "", "undefined": NONE},
    "calibration_slope": {
        "kind": "set",
        "range": (None, None),
        "better": "one",
        "unit": "",
        "per_class": True,
        "undefined": "a class is absent, all probabilities are equal, or the classes do not overlap",
    },
    "calibration_intercept": {
        "kind": "set",
        "range": (None, None),
        "better": "zero",
        "unit": "",
        "per_class": True,
        "undefined": ABSENT,
    },
    "expected_calibration_error": {
        "kind": "set",
        "range": (0, 1),
        "better": "lower",
        "unit": "",
        "per_class": True,
        "undefined": NONE,
    },
}
BINS = 10  # of equal width
STEPS, STEP, CLOSE = 100, 5.0, 1e-10  # of Newton's method: most, largest, and small enough to stop


def brier_reliability(cases: Classified, weights: Array) -> Array:
    """Part of the Brier score that is due to probabilities that differ from the frequencies in their bin; 0 is perfect.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); the Brier score is reliability - resolution + uncertainty, exactly.

    Source: Murphy, A new vector partition of the probability score, Journal of Applied Meteorology 12, 1973; 10 bins.
    """
    return _summed(cases, weights, lambda parts: parts[0])


def brier_resolution(cases: Classified, weights: Array) -> Array:
    """What the Brier score gains because images with different probabilities have different frequencies.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); negative where the order of probabilities inside the bins is worse than none.

    Source: Stephenson, Coelho and Jolliffe, Two extra components in the Brier score decomposition, Weather and Forecasting 23,
    2008: the resolution of bins with what is gained inside them, so that the decomposition is exact.
    """
    return _summed(cases, weights, lambda parts: parts[1])


def brier_uncertainty(cases: Classified, weights: Array) -> Array:
    """Brier score of a model that gives every image the frequency of the class: of the data, the same for every model.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,).

    Source: Murphy 1973, as `brier_reliability`.
    """
    return _summed(cases, weights, lambda parts: parts[2])


def expected_calibration_error(cases: Classified, weights: Array) -> Array:
    """Mean distance of probability and frequency over 10 bins of equal width, weighted by their images.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); more classes: each against the rest, unweighted mean.

    Source: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015, of the
    probability of the positive class; Nixon et al., Measuring calibration in deep learning, CVPR workshops 2019 (class by class).
    """
    parts = []
    for truth, score in _against_rest(cases):
        size, probability, frequency = _binned(truth, score, weights)
        parts.append(_ratio(np.abs(probability - frequency).sum(1), size.sum(1)))
    return np.mean(parts, axis=0)


def calibration_slope(cases: Classified, weights: Array) -> Array:
    """Slope of a logistic regression of the truth on the log odds of the probabilities; below 1 they are too extreme.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where the likelihood has no maximum; more classes: each against the rest, unweighted mean.

    Source: Cox, Two further applications of a model for binary regression, Biometrika 45, 1958; Van Calster et al., Calibration:
    the Achilles heel of predictive analytics, BMC Medicine 17, 2019.
    """
    return np.mean([_slopes(truth, _log_odds(score), weights) for truth, score in _against_rest(cases)], axis=0)


def calibration_intercept(cases: Classified, weights: Array) -> Array:
    """Calibration in the large: what must be added to the log odds so that their mean probability is the frequency.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); above 0 probabilities are too low; NaN where a class has no weight; more classes: as the slope.

    Source: Van Calster et al. 2019, as the slope, which is held at 1 here.
    """
    return np.mean([_intercepts(truth, _log_odds(score), weights) for truth, score in _against_rest(cases)], axis=0)


def _against_rest(cases: Classified) -> list[tuple[Array, Array]]:
    """Truth (0 or 1) and probability of each class that is held against the rest."""
    return [((cases.truth == index).astype(np.float64), cases.probabilities[:, index]) for index in cases.positives]


def _summed(cases: Classified, weights: Array, choose: Callable[[tuple[Array, Array, Array]], Array]) -> Array:
    """A part of the Brier score of two classes, summed over more (as the score itself)."""
    return np.sum([choose(_decomposed(truth, score, weights)) for truth, score in _against_rest(cases)], axis=0)


def _decomposed(truth: Array, score: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Reliability, resolution, uncertainty."""
    size, probability, frequency = _binned(truth, score, weights)
    total = weights.sum(1)
    squares = np.divide((probability - frequency) ** 2, size, out=np.zeros_like(size), where=size > 0)
    reliability = _ratio(squares.sum(1), total)
    share = _ratio(weights @ truth, total)
    uncertainty = share * (1 - share)
    return reliability, uncertainty + reliability - _ratio(weights @ (score - truth) ** 2, total), uncertainty


def _binned(truth: Array, score: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Summed weights, probabilities and truths of every bin: (R, bins) each."""
    bins = np.eye(BINS)[np.clip((score * BINS).astype(np.int64), 0, BINS - 1)]
    return weights @ bins, weights @ (bins * score[:, None]), weights @ (bins * truth[:, None])


def _log_odds(score: Array) -> Array:
    """Log odds, at most 36.04 from 0."""
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(kept) - np.log1p(-kept)


def _slopes(truth: Array, log_odds: Array, weights: Array) -> Array:
    """Slopes (R,) of weighted logistic regressions, by Newton's method on standardized log odds."""
    found = np.full(len(weights), np.nan)
    solvable = np.flatnonzero(_overlap(truth, log_odds, weights))
    if not len(solvable):
        return found
    width = log_odds.std()
    x, w = (log_odds - log_odds.mean()) / width, weights[solvable]
    share = (w @ truth) / w.sum(1)
    intercept, slope = np.log(share / (1 - share)), np.zeros(len(w))
    for _ in range(STEPS):
        p = _logistic(intercept[:, None] + slope[:, None] * x)
        rest, bend = w * (truth - p), w * p * (1 - p)
        a, b, c = bend.sum(1), bend @ x, bend @ x**2
        first, second = rest.sum(1), rest @ x
        area = np.maximum(a * c - b * b, 1e-300)
        moves = np.clip([(c * first - b * second) / area, (a * second - b * first) / area], -STEP, STEP)
        intercept, slope = intercept + moves[0], slope + moves[1]
        if np.abs(moves).max() < CLOSE:
            break
    found[solvable] = np.where(np.abs(moves).max(0) < 1e-6, slope / width, np.nan)
    return found


def _overlap(truth: Array, log_odds: Array, weights: Array) -> NDArray[np.bool_]:
    """Whether both classes are there and neither lies wholly on one side of the other (R,), so that a slope exists."""
    there = weights > 0
    ends = []
    for side in (0, 1):
        chosen = there & (truth == side)
        ends.append(
            (np.where(chosen, log_odds, np.inf).min(1, initial=np.inf), np.where(chosen, log_odds, -np.inf).max(1, initial=-np.inf))
        )
    (low0, high0), (low1, high1) = ends
    return np.isfinite(low0) & np.isfinite(low1) & (high0 > low1) & (high1 > low0)


def _intercepts(truth: Array, log_odds: Array, weights: Array) -> Array:
    """Intercepts (R,) for a slope of 1, by Newton's method inside a bracket: the summed probability grows with the intercept."""
    wanted, total = weights @ truth, weights.sum(1)
    found = np.full(len(weights), np.nan)
    solvable = np.flatnonzero((wanted > 0) & (wanted < total))
    if not len(solvable):
        return found
    w, side = weights[solvable], 1 - 2 * truth
    low = np.full(len(w), -2 * np.log(1 / SMALLEST) - np.log(len(truth) + 1.0))
    high, middle = -low, np.zeros(len(w))
    for _ in range(STEPS):
        # what is missing to 0 or 1, which is exact also where probabilities are very near them
        off = _logistic(side * (middle[:, None] + log_odds))
        missing = w * off
        excess, steepness = missing @ side, (missing * (1 - off)).sum(1)
        low, high = np.where(excess > 0, low, middle), np.where(excess > 0, middle, high)
        newton = middle - np.divide(excess, steepness, out=np.full(len(w), np.inf), where=steepness > 0)
        step = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2) - middle
        middle = middle + step
        if np.abs(step).max() < CLOSE:
            break
    found[solvable] = middle
    return found


def _logistic(x: Array) -> Array:
    from scipy.special import expit

    return expit(x)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
