"""Tests: does a model differ from another, and does it know more than chance. They say nothing about models not tested.

Two questions that are easily confused:

- `corrected_t`: do two training *procedures* differ? Folds are the sample, and their overlapping training sets are allowed for.
- `gyri.statistics.studentized_p` and `bca_p` of paired differences: do *these trained models* differ, on people like these?

And one against chance: `permutations` of whole groups inside strata, `permutation_p`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def corrected_t(differences: Sequence[float], test_to_train: float) -> float:
    """Corrected resampled t-test: two-sided p for differences of two models in the folds of a cross-validation.

    Args:
        differences: one per fold.
        test_to_train: groups in a test set over groups in its training set.

    Returns:
        p with (folds - 1) degrees of freedom; NaN for fewer than two folds; 1 where all differences are 0, and the smallest
        positive number where they are all the same and not 0.

    Source: Nadeau and Bengio, Inference for the generalization error, Machine Learning 52, 2003 (their corrected resampled t-test).
    """
    from scipy.special import stdtr

    values = np.asarray(differences, np.float64)
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return math.nan
    mean, error = values.mean(), math.sqrt((1 / count + test_to_train) * values.var(ddof=1))
    if error <= 1e-12 * np.abs(values).max():
        return 1.0 if mean == 0 else float(np.finfo(np.float64).tiny)
    return float(2 * stdtr(count - 1, -abs(mean) / error))


def holm(p: Sequence[float] | Array) -> Array:
    """P-values adjusted for their number; missing ones stay missing and do not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    values = np.asarray(p, np.float64)
    adjusted = np.full(len(values), np.nan)
    given = np.flatnonzero(np.isfinite(values))
    order = given[np.argsort(values[given], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def permutations(blocks: Sequence[Indices], strata: Indices, alike: bool, count: int, generator: np.random.Generator) -> Indices:
    """Exchange the labels of whole groups inside strata.

    Args:
        blocks: places of the images of each group, (n,) in all, each place once.
        strata: (G,) stratum of each group, for example its fold and site: labels stay in it.
        alike: whether all images of every group have the same label. If not, groups take labels from groups with as many images.
        count: m.
        generator: source of the draws.

    Returns:
        (m, n): from which image each image takes its label.

    Source: Winkler et al., Multi-level block permutation, NeuroImage 123, 2015 (whole-block exchange).
    """
    sizes = np.array([len(block) for block in blocks])
    taken = np.empty((count, int(sizes.sum())), np.int64)
    kinds = strata if alike else np.unique(np.stack([strata, sizes], 1), axis=0, return_inverse=True)[1].ravel()
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        orders = generator.permuted(np.tile(members, (count, 1)), axis=1)
        for position, member in enumerate(members.tolist()):
            if alike:
                first = np.array([blocks[index][0] for index in members.tolist()])
                taken[:, blocks[member]] = first[np.searchsorted(members, orders[:, position])][:, None]
            else:
                table = np.stack([blocks[index] for index in members.tolist()])
                taken[:, blocks[member]] = table[np.searchsorted(members, orders[:, position])]
    return taken


def permutation_p(value: float, null: Array, better: str) -> float:
    """One-sided p of a value among those under the null: (b + 1) / (m + 1), b of them at least as good.

    Args:
        value: what was measured.
        null: (m,) the same with exchanged labels; undefined ones do not count.
        better: "higher" or "lower".

    Returns:
        p; NaN where the value or all of the null is undefined.

    Source: Phipson and Smyth, Permutation p-values should never be zero, Statistical Applications in Genetics and Molecular
    Biology 9, 2010.
    """
    null = null[np.isfinite(null)]
    if not math.isfinite(value) or not len(null):
        return math.nan
    sign = 1 if better == "higher" else -1
    slack = 1e-12 * max(abs(value), 1.0)  # the same sums in another order
    return float(((sign * null >= sign * value - slack).sum() + 1) / (len(null) + 1))
