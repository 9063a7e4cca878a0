"""Classification: two classes (the positive one last) or more.

Metrics of more than two classes are the unweighted mean over classes, each against the rest ("macro"), unless their source says
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ABSENT = "a class is absent from the truth"
METRICS: dict[str, dict[str, Any]] = {
    "auroc": {
        "kind": "set",
        "range": (0, 1),
        "better": "higher",
        "unit": "",
        "chance": True,
        "ranking": True,
        "per_class": True,
        "undefined": ABSENT,
    },
    "average_precision": {
        "kind": "set",
        "range": (0, 1),
        "better": "higher",
        "unit": "",
        "chance": True,
        "ranking": True,
        "per_class": True,
        "undefined": ABSENT,
    },
    "balanced_accuracy": {"kind": "set", "range": (0, 1), "better": "higher", "unit": "", "chance": True, "undefined": ABSENT},
    "accuracy": {"kind": "case", "range": (0, 1), "better": "higher", "unit": "", "undefined": "there is no image"},
    "sensitivity": {
        "kind": "set",
        "range": (0, 1),
        "better": "higher",
        "unit": "",
        "per_class": True,
        "enters": "positives",
        "undefined": "the truth has no positive image",
    },
    "specificity": {
        "kind": "set",
        "range": (0, 1),
        "better": "higher",
        "unit": "",
        "per_class": True,
        "enters": "negatives",
        "undefined": "the truth has no negative image",
    },
    "mcc": {
        "kind": "set",
        "range": (-1, 1),
        "better": "higher",
        "unit": "",
        "chance": True,
        "undefined": "the truth has one class only",
    },
    "brier": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "",
        "undefined": "there is no image",
    },
    "log_loss": {
        "kind": "case",
        "studentized": True,
        "range": (0, None),
        "better": "lower",
        "unit": "",
        "undefined": "there is no image",
    },
}
SMALLEST = np.finfo(np.float64).eps  # probabilities below count as this in the log loss, which would else be infinite


@dataclass(frozen=True)
class Classified:
    """Images with their true class and what a model says.

    Args:
        truth: (n,) index of the true class.
        decision: (n,) index of the class decided for.
        probabilities: (n, K), K >= 2; rows sum to 1.
    """

    truth: NDArray[np.int64]
    decision: NDArray[np.int64]
    probabilities: Array

    @property
    def classes(self) -> int:
        """K."""
        return self.probabilities.shape[1]

    @property
    def positives(self) -> list[int]:
        """Classes that are each held against the rest: the last of two, or all of more."""
        return [1] if self.classes == 2 else list(range(self.classes))

    def against_rest(self, index: int) -> Classified:
        """The same images with two classes: the rest (0) and one class (1)."""
        score = self.probabilities[:, index]
        truth, decision = (self.truth == index).astype(np.int64), (self.decision == index).astype(np.int64)
        return Classified(truth, decision, np.stack([1 - score, score], 1))


def accuracy(cases: Classified) -> Array:
    """1 where the decision is right, else 0: (n,)."""
    return (cases.truth == cases.decision).astype(np.float64)


def brier(cases: Classified) -> Array:
    """Squared distance of the probabilities to the truth, (n,): of the positive of two classes (0 to 1), summed over more (0 to 2).

    Source: Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1950 (for two classes his
    sum over both is halved, as is usual).
    """
    distance = ((cases.probabilities - np.eye(cases.classes)[cases.truth]) ** 2).sum(1)
    return distance / 2 if cases.classes == 2 else distance


def log_loss(cases: Classified) -> Array:
    """Negative natural logarithm of the probability of the true class, (n,); at most 36.04, where the probability is 0."""
    return -np.log(np.clip(probability_of_truth(cases), SMALLEST, 1))


def probability_of_truth(cases: Classified) -> Array:
    """Probability given to the true class: (n,)."""
    return cases.probabilities[np.arange(len(cases.truth)), cases.truth]


def auroc(cases: Classified, weights: Array) -> Array:
    """Area under the ROC curve: the chance that a positive image scores higher than a negative one; ties count half.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where a class has no weight.

    Source: Hanley and McNeil, Radiology 143, 1982; more classes: each against the rest, unweighted mean (Fawcett, Pattern
    Recognition Letters 27, 2006, section 9.2, with equal weights).
    """

    def one(truth: Array, score: Array) -> Array:
        order, first = _ties(score)
        sorted_weights = weights[:, order]
        positive = np.add.reduceat(sorted_weights * truth[order], first, axis=1)
        negative = np.add.reduceat(sorted_weights * (1 - truth[order]), first, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        return _ratio((positive * below).sum(1), positive.sum(1) * negative.sum(1))

    return _macro(cases, one)


def average_precision(cases: Classified, weights: Array) -> Array:
    """Mean of the precision over the positive images, each at its own score as the threshold (no interpolation).

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where a class has no weight.

    Source: Saito and Rehmsmeier, PLOS ONE 10, 2015 (why, where classes are unequal); the sum is that of scikit-learn.
    """

    def one(truth: Array, score: Array) -> Array:
        order, first = _ties(-score)
        sorted_weights = weights[:, order]
        positive = np.add.reduceat(sorted_weights * truth[order], first, axis=1)
        everything = np.cumsum(np.add.reduceat(sorted_weights, first, axis=1), axis=1)
        precision = np.divide(np.cumsum(positive, axis=1), everything, out=np.zeros_like(everything), where=everything > 0)
        total = positive.sum(1)
        both = (total > 0) & (everything[:, -1] > total)
        return np.where(both, _ratio((positive * precision).sum(1), total), np.nan)

    return _macro(cases, one)


def balanced_accuracy(cases: Classified, weights: Array) -> Array:
    """Mean over classes of the share of their images that are recognized.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where a class has no weight.

    Source: Brodersen et al., The balanced accuracy and its posterior distribution, ICPR 2010.
    """
    table = _confusion(cases, weights)
    return _ratio(np.diagonal(table, axis1=1, axis2=2), table.sum(2)).mean(1)


def sensitivity(cases: Classified, weights: Array) -> Array:
    """Share of the positive images that are called positive.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where the truth has no positive image.
    """
    return _macro_decided(cases, weights, 1)


def specificity(cases: Classified, weights: Array) -> Array:
    """Share of the negative images that are called negative.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where the truth has no negative image.
    """
    return _macro_decided(cases, weights, 0)


def mcc(cases: Classified, weights: Array) -> Array:
    """Matthews correlation of decision and truth; 0 where every image gets the same decision.

    Args:
        cases: n images.
        weights: (R, n).

    Returns:
        (R,); NaN where the truth has one class only.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, Computational Biology and
    Chemistry 28, 2004; 0 for constant decisions: Chicco and Jurman, BMC Genomics 21, 2020 (the limit).
    """
    table = _confusion(cases, weights)
    total, right = table.sum((1, 2)), np.trace(table, axis1=1, axis2=2)
    true, decided = table.sum(2), table.sum(1)
    spread_true, spread_decided = (total**2 - (part**2).sum(1) for part in (true, decided))
    covariance = right * total - (true * decided).sum(1)
    tiny = 1e-12 * total**2  # rounding of sums of weights
    defined, constant = spread_true > tiny, spread_decided <= tiny
    product = np.where(defined & ~constant, spread_true * spread_decided, 1.0)
    return np.where(defined, np.where(constant, 0.0, covariance / np.sqrt(product)), np.nan)


def _macro(cases: Classified, one: Callable[[Array, Array], Array]) -> Array:
    """The mean over classes against the rest of a function of truth (0 or 1) and score."""
    parts = [one((cases.truth == index).astype(np.float64), cases.probabilities[:, index]) for index in cases.positives]
    return np.mean(parts, axis=0)


def _macro_decided(cases: Classified, weights: Array, side: int) -> Array:
    """The mean over classes against the rest of the share of positive (side 1) or negative (0) images that are called so."""
    parts = []
    for index in cases.positives:
        chosen = (cases.truth == index) == bool(side)
        called = (cases.decision == index) == bool(side)
        parts.append(_ratio(weights @ (chosen & called).astype(np.float64), weights @ chosen.astype(np.float64)))
    return np.mean(parts, axis=0)


def _confusion(cases: Classified, weights: Array) -> Array:
    """Summed weights (R, K, K): true class, decided class."""
    size = cases.classes
    cells = np.eye(size * size)[cases.truth * size + cases.decision]
    return (weights @ cells).reshape(-1, size, size)


def _ties(score: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of ascending scores, and where each run of equal scores begins in it."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _ratio(above: Array, below: Array) -> Array:
    """Quotient, NaN where the divisor is 0."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
