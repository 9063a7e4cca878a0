"""Sensitivity and specificity at a threshold that was chosen on the validation images of the same fold.

Two operating points: the threshold that reaches a wanted specificity on validation, and the one that reaches a wanted sensitivity.
What each reaches on the test images is given beside it: it need not be what was wanted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.metrics.classification import Classified, sensitivity, specificity

Array = NDArray[np.float64]

POINTS = ("specificity", "sensitivity")
"""What is wanted of an operating point; the key `operating_point` of a declaration names the one that its decisions come from."""
ABSENT = "no image of this class has a threshold (its validation images are all of one class)"
COMMON = {"kind": "set", "range": (0, 1), "better": "higher", "unit": "", "per_class": True, "undefined": ABSENT}
METRICS: dict[str, dict[str, Any]] = {
    "sensitivity_at_specificity": {**COMMON, "operating_point": "specificity", "enters": "positives"},
    "specificity_reached": {**COMMON, "operating_point": "specificity", "enters": "negatives"},
    "specificity_at_sensitivity": {**COMMON, "operating_point": "sensitivity", "enters": "negatives"},
    "sensitivity_reached": {**COMMON, "operating_point": "sensitivity", "enters": "positives"},
}


def threshold(truth: NDArray[np.bool_], score: Array, point: str, wanted: float) -> float:
    """The threshold that reaches a wanted specificity with the most sensitivity, or the reverse.

    Args:
        truth: (n,) which validation images are positive.
        score: (n,) probability of the positive class.
        point: one of `POINTS`.
        wanted: the least specificity or sensitivity, 0 to 1.

    Returns:
        Images with a score of at least this are called positive: 0 calls all, infinity none, others lie half way between two
        scores. NaN where a class is absent.
    """
    if truth.all() or not truth.any():
        return math.nan
    ends = np.unique(score)
    cuts = np.concatenate([[0.0], (ends[1:] + ends[:-1]) / 2, [math.inf]])
    if point == "specificity":
        reached = (score[~truth][None] < cuts[:, None]).mean(1) >= wanted - 1e-12
        return float(cuts[reached.argmax()])
    reached = (score[truth][None] >= cuts[:, None]).mean(1) >= wanted - 1e-12
    return float(cuts[len(cuts) - 1 - reached[::-1].argmax()])


def sensitivity_at_specificity(cases: Classified, weights: Array) -> Array:
    """Share of the positive images called positive, at the threshold for a specificity.

    Args:
        cases: n images, their decisions made at that threshold.
        weights: (R, n).

    Returns:
        (R,).
    """
    return sensitivity(cases, weights)


def specificity_reached(cases: Classified, weights: Array) -> Array:
    """Specificity that the threshold for a specificity really has.

    Args:
        cases: n images, their decisions made at that threshold.
        weights: (R, n).

    Returns:
        (R,).
    """
    return specificity(cases, weights)


def specificity_at_sensitivity(cases: Classified, weights: Array) -> Array:
    """Share of the negative images called negative, at the threshold for a sensitivity.

    Args:
        cases: n images, their decisions made at that threshold.
        weights: (R, n).

    Returns:
        (R,).
    """
    return specificity(cases, weights)


def sensitivity_reached(cases: Classified, weights: Array) -> Array:
    """Sensitivity that the threshold for a sensitivity really has.

    Args:
        cases: n images, their decisions made at that threshold.
        weights: (R, n).

    Returns:
        (R,).
    """
    return sensitivity(cases, weights)
