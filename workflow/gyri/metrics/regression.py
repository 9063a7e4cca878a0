"""Regression: one value per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NONE = "there is no image"
NO_CORRECTION = (
    "no correction could be fitted on validation (predictions do not rise with the true values), or all true values are equal"
)
METRICS: dict[str, dict[str, Any]] = {
    "mae": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "target",
        "chance": True,
        "undefined": NONE,
    },
    "rmse": {"kind": "set", "range": (0, None), "better": "lower", "unit": "target", "undefined": NONE},
    "bias": {"kind": "case", "studentized": True, "range": (None, None), "better": "zero", "unit": "target", "undefined": NONE},
    "r2": {
        "kind": "set",
        "range": (None, 1),
        "better": "higher",
        "unit": "",
        "chance": True,
        "undefined": "all true values are equal",
    },
    "correlation": {
        "kind": "set",
        "range": (-1, 1),
        "better": "higher",
        "unit": "",
        "chance": True,
        "ranking": True,
        "undefined": "all true or all predicted values are equal",
    },
    "error_slope": {"kind": "set", "range": (None, None), "better": "zero", "unit": "", "undefined": "all true values are equal"},
    "error_slope_corrected": {
        "kind": "set",
        "range": (None, None),
        "better": "zero",
        "unit": "",
        "corrected": True,
        "undefined": NO_CORRECTION,
    },
    "mae_corrected": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "target",
        "corrected": True,
        "undefined": NO_CORRECTION,
    },
}
CONSTANT = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True)
class Regressed:
    """Images with their true and predicted value.

    Args:
        truth: (n,) in the unit of the target; or (R, n), another one for every row of weights.
        value: (n,) in the same unit.
    """

    truth: Array
    value: Array


def mae(cases: Regressed) -> Array:
    """Absolute error: (n,)."""
    return np.abs(cases.value - cases.truth)


def bias(cases: Regressed) -> Array:
    """Error, predicted minus true: (n,)."""
    return cases.value - cases.truth


def rmse(cases: Regressed, weights: Array) -> Array:
    """Root of the mean squared error.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where nothing has weight.
    """
    return np.sqrt(_mean(bias(cases) ** 2, weights))


def r2(cases: Regressed, weights: Array) -> Array:
    """Coefficient of determination: the explained share of the variance of the true values about their own mean.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,), at most 1, negative where the mean of the true values would have been better; NaN where all true values are equal.

    Source: Kvalseth, Cautionary note about R2, The American Statistician 39, 1985 (his first definition).
    """
    variance = _covariance(cases.truth, cases.truth, weights)
    unexplained = _mean(bias(cases) ** 2, weights)
    return 1 - np.divide(unexplained, variance, out=np.full(len(weights), np.nan), where=variance > 0)


def correlation(cases: Regressed, weights: Array) -> Array:
    """Pearson's correlation of true and predicted values.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where all true or all predicted values are equal.
    """
    product = _covariance(cases.truth, cases.truth, weights) * _covariance(cases.value, cases.value, weights)
    found = _covariance(cases.truth, cases.value, weights)
    return np.clip(np.divide(found, np.sqrt(product), out=np.full(len(weights), np.nan), where=product > 0), -1, 1)


def error_slope(cases: Regressed, weights: Array) -> Array:
    """Slope of the error on the true value: negative where low values are overestimated and high ones underestimated.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,), -1 for a model that always says the same; NaN where all true values are equal.

    Source: Smith et al., Estimation of brain age delta from brain imaging, NeuroImage 200, 2019.
    """
    variance = _covariance(cases.truth, cases.truth, weights)
    found = _covariance(cases.truth, bias(cases), weights)
    return np.divide(found, variance, out=np.full(len(weights), np.nan), where=variance > 0)


def error_slope_corrected(cases: Regressed, weights: Array) -> Array:
    """Slope of the error on the true value after the bias correction.

    Args:
        cases: n images with corrected values.
        weights: (R, n).

    Returns:
        (R,).
    """
    return error_slope(cases, weights)


def mae_corrected(cases: Regressed) -> Array:
    """Absolute error after the bias correction: (n,)."""
    return mae(cases)


def fit_correction(truth: Array, value: Array) -> tuple[float, float]:
    """Line of predicted on true values; its inverse, (value - offset) / slope, corrects new predictions without their truth.

    Args:
        truth: (n,) of the validation images.
        value: (n,) predicted.

    Returns:
        Offset and slope; NaN where the slope is not above 0 or the true values are all equal.

    Source: Cole et al., Brain age predicts mortality, Molecular Psychiatry 23, 2018 (theirs, which never sees the true value of the
    image it corrects; corrections that do make errors look small whatever the model knows: Butler et al., Human Brain Mapping 42, 2021).
    """
    once = np.ones((1, len(truth)))
    variance = float(_covariance(truth, truth, once)[0])
    slope = float(_covariance(truth, value, once)[0]) / variance if variance > 0 else np.nan
    if not slope > 0:
        return np.nan, np.nan
    return float(value.mean() - slope * truth.mean()), slope


def _mean(values: Array, weights: Array) -> Array:
    total = weights.sum(1)
    summed = weights @ values if values.ndim == 1 else (weights * values).sum(1)
    return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)


def _covariance(first: Array, second: Array, weights: Array) -> Array:
    """Weighted covariance (R,); exactly 0 where it is only rounding, as between equal values."""
    first, second = (part - part.mean(-1, keepdims=True) if part.size else part for part in (first, second))
    squares = np.sqrt(_mean(first**2, weights) * _mean(second**2, weights))
    found = _mean(first * second, weights) - _mean(first, weights) * _mean(second, weights)
    return np.where(np.abs(found) <= CONSTANT * squares, 0.0, found)
