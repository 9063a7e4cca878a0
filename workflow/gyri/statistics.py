"""Intervals for what was measured on grouped images: groups are resampled, never images.

What is estimated is the performance of these trained models on people like these: groups are random, models are fixed. How much
another training would change is what the spread over seeds and folds says, not these intervals.

Two kinds, chosen by the metric (coverage of both, measured: docs/statistics.md):

- `studentized_interval` for means of a continuous value per image, from `STUDENTIZED_GROUPS` groups on;
- `bca_interval` for everything else.

Sources: Davison and Hinkley, Bootstrap Methods and their Application, Cambridge 1997 (sections 3.8 clustered data, 5.2 studentized,
5.3.2 BCa, 3.2 several samples); Efron, Better bootstrap confidence intervals, JASA 82, 1987; Hesterberg, What teachers should
know about the bootstrap, The American Statistician 69, 2015 (percentiles widened for small samples); Hesterberg, Unbiasing the
bootstrap: bootknife sampling vs. smoothing, Proceedings of the Section on Statistics and the Environment, ASA 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Statistic = Callable[[Array], Array]  # weights of images (R, n) -> values (R,)
Interval = tuple[float, float]
Range = tuple[float | None, float | None]

STUDENTIZED_GROUPS = 10  # below, a standard error is itself too uncertain to divide by
DEFINED = 0.5  # share of the resamples in which a metric must be defined
CELLS = 2_000_000  # weights expanded to images at once, to bound memory


@dataclass(frozen=True)
class Estimate:
    """A value and how it varies with the groups it was measured on.

    Args:
        value: the value; NaN where undefined.
        resampled: (R,) its values in the resamples; NaN where undefined.
        influence: (G,) empirical influence of each group, divided by the number of groups in its stratum; 0 where it has none.
    """

    value: float
    resampled: Array
    influence: Array


def group_weights(strata: Indices, resamples: int, generator: np.random.Generator) -> Array:
    """How often each group stands in each resample, drawn by the bootknife within each stratum.

    One group, drawn at random, is left out and as many as there were are drawn from the rest, so that the variance of a mean is
    not too small by the factor (n - 1) / n, which matters where folds hold few groups. A stratum of one group keeps it.

    Args:
        strata: (G,) stratum of each group, for example its fold.
        resamples: R.
        generator: source of the draws.

    Returns:
        (R, G) whole numbers as float64.

    Source: Hesterberg 2004 (see the module).
    """
    weights = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        size = len(members)
        if size == 1:
            weights[:, members] = 1
            continue
        omitted = generator.integers(0, size, (resamples, 1))
        drawn = generator.integers(0, size - 1, (resamples, size))
        drawn += drawn >= omitted
        cells = (np.arange(resamples)[:, None] * size + drawn).ravel()
        weights[:, members] = np.bincount(cells, minlength=resamples * size).reshape(resamples, size)
    return weights


def estimate(statistic: Statistic, group: Indices, weights: Array) -> Estimate:
    """Evaluate a statistic on all images, in every resample, and without each group in turn.

    Args:
        statistic: weights of images (R, n) -> values (R,).
        group: (n,) index of each image's group, a column of `weights`. All groups that occur form one stratum.
        weights: (R, G) of `group_weights`; it may have columns of other strata.

    Returns:
        The estimate; its influence has G entries.
    """
    if not len(group):
        return undefined(*weights.shape)
    groups = weights.shape[1]
    present = np.unique(group)
    value = float(statistic(np.ones((1, len(group))))[0])
    if not math.isfinite(value):
        return undefined(*weights.shape)
    without = np.ones((len(present), groups))
    without[np.arange(len(present)), present] = 0
    left = _chunked(statistic, without, group)
    return Estimate(value, _chunked(statistic, weights, group), _influence(left, present, groups))


def estimate_mean(values: Array, group: Indices, weights: Array) -> Estimate:
    """As `estimate`, of the mean over images, by sums per group.

    Args:
        values: (n,) all finite.
        group: (n,) as in `estimate`.
        weights: (R, G).
    """
    if not len(values):
        return undefined(*weights.shape)
    groups = weights.shape[1]
    present = np.unique(group)
    sums, sizes = _sums(values, group, groups)
    without = _quotient(sums.sum() - sums[present], sizes.sum() - sizes[present])
    resampled = _quotient(weights @ sums, weights @ sizes)
    return Estimate(float(sums.sum() / sizes.sum()), resampled, _influence(without, present, groups))


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, both estimated with the same weights: the resamples are drawn in pairs."""
    return Estimate(first.value - second.value, first.resampled - second.resampled, first.influence - second.influence)


def undefined(resamples: int, groups: int) -> Estimate:
    """The estimate of what has no value."""
    return Estimate(math.nan, np.full(resamples, np.nan), np.zeros(groups))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates made with the same weights, as over folds or seeds; those without a value are left out.

    A resample in which some of them are undefined counts with the mean of the others.
    """
    kept = [item for item in estimates if math.isfinite(item.value)]
    if len(kept) < 2:
        return kept[0] if kept else estimates[0]
    resampled = np.stack([item.resampled for item in kept])
    defined = np.isfinite(resampled)
    mean = _quotient(np.where(defined, resampled, 0).sum(0), defined.sum(0).astype(np.float64))
    return Estimate(float(np.mean([item.value for item in kept])), mean, np.mean([item.influence for item in kept], axis=0))


def bca_interval(found: Estimate, groups: int, strata: int, confidence: float, limits: Range) -> Interval | None:
    """Bias-corrected and accelerated interval, with quantiles of Student's t for the normal ones (Hesterberg 2015).

    Args:
        found: the value in the resamples.
        groups: number of groups that enter.
        strata: number of strata they were resampled in; groups - strata are the degrees of freedom.
        confidence: for example 0.95.
        limits: values that the metric cannot leave.

    Returns:
        Low and high end; None where fewer than two groups enter or the metric is undefined in more than half of the resamples.
        Where no resample differs from the value, see `extreme_interval`.
    """
    resampled = found.resampled[np.isfinite(found.resampled)]
    if not math.isfinite(found.value) or groups < 2 or len(resampled) < DEFINED * len(found.resampled):
        return None
    differs = np.abs(resampled - found.value) > 1e-12 * max(abs(found.value), 1e-300)
    if not differs.any():
        return extreme_interval(found.value, groups, confidence, limits)
    from scipy.special import ndtr, ndtri, stdtrit

    below = (differs & (resampled < found.value)).mean() + (~differs).mean() / 2
    shift = ndtri(np.clip(below, 0.5 / len(resampled), 1 - 0.5 / len(resampled)))
    spread = (found.influence**2).sum()
    acceleration = (found.influence**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    tail = (1 - confidence) / 2
    step = shift + stdtrit(max(groups - strata, 1), np.array([tail, 1 - tail]))
    bend = 1 - acceleration * step
    # a bend of 0 or less has passed the pole: the quantile is the outermost one on that side
    quantiles = np.where(bend > 0, ndtr(shift + step / np.where(bend > 0, bend, 1)), [0.0, 1.0])
    low, high = np.quantile(resampled, quantiles)
    return float(min(low, found.value)), float(max(high, found.value))


def symmetric_interval(found: Estimate, confidence: float) -> Interval | None:
    """Symmetric interval for a difference between two models: as far on both sides as the resamples go from the value.

    BCa calls differences of AUROC that are not there a little too often (0.064 at 20 groups, 0.060 at 60), this does not.

    Args:
        found: the difference.
        confidence: for example 0.95.

    Returns:
        Low and high end; None where the difference is undefined in more than half of the resamples.

    Source: Hall, On symmetric bootstrap confidence intervals, Journal of the Royal Statistical Society B 50, 1988.
    """
    resampled = found.resampled[np.isfinite(found.resampled)]
    if not math.isfinite(found.value) or len(resampled) < DEFINED * len(found.resampled):
        return None
    reach = float(np.quantile(np.abs(resampled - found.value), confidence))
    return found.value - reach, found.value + reach


def symmetric_p(found: Estimate, freedom: int) -> float:
    """Two-sided p for a true difference of 0: one minus the confidence at which `symmetric_interval` would end at 0.

    Args:
        found: the difference.
        freedom: groups minus strata.

    Returns:
        p; 1 for a difference of 0; NaN where there is no interval. Where no resample reaches 0, the tail is that of Student's t if it
        is smaller than what the resamples can show.
    """
    resampled = found.resampled[np.isfinite(found.resampled)]
    if symmetric_interval(found, DEFINED) is None:
        return math.nan
    if found.value == 0:
        return 1.0
    from scipy.special import stdtr

    reached = int((np.abs(resampled - found.value) >= abs(found.value)).sum())
    p, spread = (reached + 1) / (len(resampled) + 1), float(resampled.std(ddof=1))
    if not reached and spread > 0:
        p = min(p, float(2 * stdtr(max(freedom, 1), -abs(found.value) / spread)))
    return p


def studentized_p(values: Array, group: Indices, weights: Array) -> float:
    """Two-sided p for a true mean of 0: one minus the confidence at which `studentized_interval` would end at 0.

    Args:
        values: (n,) all finite, for example differences between two models.
        group: as in `studentized_interval`.
        weights: as in `studentized_interval`.

    Returns:
        p; 1 where all values are 0; NaN where there is no interval; beyond the resamples as in `symmetric_p`.
    """
    if not np.any(values):
        return 1.0
    found = _studentized(values, group, weights)
    if found is None:
        return math.nan
    from scipy.special import ndtri, stdtr

    mean, error, ratios, groups = found
    reached = min((ratios >= mean / error).sum(), (ratios <= mean / error).sum())
    p = 2 * stdtr(groups - 1, ndtri((reached + 1) / (len(ratios) + 1)))
    if not reached:
        p = min(p, 2 * stdtr(groups - 1, -abs(mean / error)))
    return float(min(p, 1))


def studentized_interval(values: Array, group: Indices, weights: Array, confidence: float, limits: Range) -> Interval | None:
    """Studentized ("bootstrap-t") interval of the mean over images, with a standard error over groups in every resample.

    Args:
        values: (n,) all finite.
        group: (n,) index of each image's group, a column of `weights`.
        weights: (R, G) of `group_weights`; its columns for the groups that occur are one stratum.
        confidence: for example 0.95.
        limits: values that the mean cannot leave; the interval is cut there.

    Returns:
        Low and high end; None where the standard error is 0 in the images or in more than half of the resamples.

    The quantiles are taken a little further out, at those levels of the normal distribution that Student's t (groups minus one
    degrees of freedom) puts in place of the nominal ones: without it the mean of values with rare bad failures is covered too
    rarely (0.929 instead of 0.946 at 20 groups; docs/statistics.md).

    Source: Davison and Hinkley 1997, section 5.2; the standard error of a ratio of sums over groups: Cochran, Sampling
    Techniques, Wiley 1977, section 6.4.
    """
    found = _studentized(values, group, weights)
    if found is None:
        return None
    from scipy.special import ndtr, stdtrit

    mean, error, ratios, groups = found
    tail = float(ndtr(stdtrit(groups - 1, (1 - confidence) / 2)))
    upper, lower = np.quantile(ratios, [1 - tail, tail])
    low, high = float(mean - upper * error), float(mean - lower * error)
    bottom, top = (-math.inf if limits[0] is None else limits[0]), (math.inf if limits[1] is None else limits[1])
    return max(low, bottom), min(high, top)


def extreme_interval(value: float, groups: int, confidence: float, limits: Range) -> Interval:
    """Interval for a value that no resample changes.

    At the best or worst possible value (every group perfect) resampling shows no spread, though another group might differ: the
    share of groups that would differ is at most 1 - a^(1/G) with a = (1 - confidence) / 2, and each could move the value through
    its whole range. Inside the range, or where it has no two bounds, a value that nothing changes (the AUROC of a constant
    score) stands by itself.

    Args:
        value: the value.
        groups: G, groups that enter.
        confidence: for example 0.95.
        limits: lowest and highest possible value.

    Source: Clopper and Pearson, Biometrika 26, 1934, for 0 of G.
    """
    low, high = limits
    if low is None or high is None or value not in (low, high):
        return value, value
    reach = (high - low) * (1 - ((1 - confidence) / 2) ** (1 / groups))
    return (value - reach, value) if value == high else (value, value + reach)


def _sums(values: Array, group: Indices, groups: int) -> tuple[Array, Array]:
    """Sum of the values and number of images of every group."""
    return np.bincount(group, values, groups).astype(np.float64), np.bincount(group, minlength=groups).astype(np.float64)


def _studentized(values: Array, group: Indices, weights: Array) -> tuple[float, float, Array, int] | None:
    """Mean, its standard error, the studentized resamples, and the number of groups; None where a standard error is 0."""
    sums, sizes = _sums(values, group, weights.shape[1])
    mean, error = _mean_and_error(sums, sizes, np.ones((1, weights.shape[1])))
    means, errors = _mean_and_error(sums, sizes, weights)
    usable = errors > 1e-9 * error[0]  # smaller ones are rounding: a resample of one value only
    if not error[0] > 1e-12 * np.abs(values).max() or usable.mean() < DEFINED:
        return None
    return float(mean[0]), float(error[0]), (means[usable] - mean[0]) / errors[usable], int((sizes > 0).sum())


def _mean_and_error(sums: Array, sizes: Array, weights: Array) -> tuple[Array, Array]:
    """Mean over images and its standard error over groups, in every resample."""
    total, count = weights @ sizes, weights @ (sizes > 0).astype(np.float64)
    mean = _quotient(weights @ sums, total)
    squares = weights @ sums**2 - 2 * mean * (weights @ (sums * sizes)) + mean**2 * (weights @ sizes**2)
    factor = np.divide(count, count - 1, out=np.zeros_like(count), where=count > 1)
    return mean, _quotient(np.sqrt(np.maximum(squares, 0) * factor), total)


def _influence(without: Array, present: Indices, groups: int) -> Array:
    """Influence of each group over the number of groups, from the values without it (an undefined one counts as no influence)."""
    influence, size = np.zeros(groups), len(present)
    defined = np.isfinite(without)
    if defined.any():
        influence[present] = np.where(defined, without[defined].mean() - np.where(defined, without, 0), 0) * (size - 1) / size
    return influence


def _chunked(statistic: Statistic, weights: Array, group: Indices) -> Array:
    """A statistic for all rows of group weights, some rows at a time."""
    rows = max(1, CELLS // max(len(group), 1))
    return np.concatenate([statistic(weights[start : start + rows][:, group]) for start in range(0, len(weights), rows)])


def _quotient(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
