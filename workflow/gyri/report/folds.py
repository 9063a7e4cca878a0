"""Curves of several folds together: thinned for drawing, their mean, and the band between the lowest and the highest of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Points = list[tuple[float, float]]
MOST = 120
"""Points of one curve that are drawn at most; between them lies less than a line's width."""


@dataclass(frozen=True)
class Curve:
    """A curve of one fold.

    Args:
        x: (P,) never falling; equal neighbours make a vertical step.
        y: (P,).
        fold: its name.
        n: images behind it.
        positive: how many of them are positive.
    """

    x: Array
    y: Array
    fold: str
    n: int
    positive: int


@dataclass(frozen=True)
class Spread:
    """What several curves have in common.

    Args:
        x: (Q,) each place twice: before and after a vertical step there.
        low: (Q,) lowest of the curves.
        mean: (Q,) their mean.
        high: (Q,) highest of the curves.
    """

    x: Array
    low: Array
    mean: Array
    high: Array

    @property
    def band(self) -> Points:
        """The outline of the band."""
        upper = list(zip(self.x.tolist(), self.high.tolist(), strict=True))
        return upper + list(zip(self.x.tolist(), self.low.tolist(), strict=True))[::-1]


def thinned(x: Array, y: Array, most: int = MOST) -> tuple[Array, Array]:
    """A curve without points inside straight parts, and with at most `most` points, evenly along its way.

    Args:
        x: (P,) horizontal places.
        y: (P,) vertical places.
        most: points to keep; both ends always stay.
    """
    if len(x) > 2:
        before, after = np.stack([np.diff(x)[:-1], np.diff(y)[:-1]]), np.stack([np.diff(x)[1:], np.diff(y)[1:]])
        straight = (np.abs(before[0] * after[1] - before[1] * after[0]) < 1e-15) & ((before * after).sum(0) >= 0)
        keep = np.concatenate([[True], ~straight, [True]])
        x, y = x[keep], y[keep]
    if len(x) > most:
        way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        places = np.unique(np.searchsorted(way, np.linspace(0, way[-1], most)).clip(0, len(x) - 1))
        x, y = x[places], y[places]
    return x, y


def sides(curve: Curve, at: Array) -> tuple[Array, Array]:
    """Height of a curve just before and just after each of some places; they differ only at a vertical step.

    Args:
        curve: the curve.
        at: (Q,) places within its range.
    """
    first = np.searchsorted(curve.x, at, "left").clip(0, len(curve.x) - 1)
    last = (np.searchsorted(curve.x, at, "right") - 1).clip(0, len(curve.x) - 1)
    between = np.interp(at, curve.x, curve.y)
    there = first <= last
    return np.where(there, curve.y[first], between), np.where(there, curve.y[last], between)


def together(curves: Sequence[Curve]) -> Spread:
    """Lowest, mean and highest of several curves at every place where one of them bends."""
    at = np.unique(np.concatenate([curve.x for curve in curves]))
    heights = np.stack([np.stack(sides(curve, at), 1).ravel() for curve in curves])
    return Spread(np.repeat(at, 2), heights.min(0), heights.mean(0), heights.max(0))


def roc_points(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """False and true positive rate at every threshold, ties taken together.

    Args:
        scores: (N,) higher means positive.
        positive: (N,) truth; both classes must be there.

    Returns:
        Two arrays that start at 0 and end at 1.
    """
    hits, alarms = _counts(scores, positive)
    return np.append(0.0, alarms / (~positive).sum()), np.append(0.0, hits / positive.sum())


def precision_points(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Recall and precision as steps: at each recall the precision of the highest threshold that reaches it.

    The area below the steps is the average precision; straight lines between the points would promise more than any threshold gives.

    Args:
        scores: (N,) higher means positive.
        positive: (N,) truth; a positive image must be there.

    Returns:
        Two arrays; recall from 0 to 1.

    Source: Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006 (no straight lines).
    """
    hits, alarms = _counts(scores, positive)
    gained = np.flatnonzero(np.diff(hits, prepend=0))
    recall, precision = hits[gained] / positive.sum(), hits[gained] / (hits[gained] + alarms[gained])
    return np.append(0.0, np.repeat(recall, 2)[:-1]), np.repeat(precision, 2)


def _counts(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Positive and negative images at or above each threshold, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return np.cumsum(truth)[last].astype(np.float64), np.cumsum(~truth)[last].astype(np.float64)
