"""Metrics under exchanged labels: the predictions stay, the truth of whole groups moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gyri.metrics.classification import Classified
from gyri.metrics.regression import Regressed

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
CELLS = 2_000_000  # weights at once, to bound memory


def classified_under(function: Callable[[Classified, Array], Array], cases: Classified, truths: Indices) -> Array:
    """A metric of a set of images, with many assignments of the true classes.

    Every image enters once for each class it might have, with weight 1 for the class it has: one call measures many assignments.

    Args:
        function: a metric of kind `set`.
        cases: n images.
        truths: (m, n) index of the class that each image is given.

    Returns:
        (m,).
    """
    size, classes = len(cases.truth), cases.classes
    every = Classified(
        np.repeat(np.arange(classes), size), np.tile(cases.decision, classes), np.tile(cases.probabilities, (classes, 1))
    )
    rows = max(1, CELLS // max(size * classes, 1))
    parts = []
    for start in range(0, len(truths), rows):
        some = truths[start : start + rows]
        weights = (some[:, None, :] == np.arange(classes)[None, :, None]).reshape(len(some), -1)
        parts.append(function(every, weights.astype(np.float64)))
    return np.concatenate(parts)


def regressed_under(function: Callable[[Regressed, Array], Array], cases: Regressed, truths: Array) -> Array:
    """A metric of a set of images, with many assignments of the true values.

    Args:
        function: a metric of kind `set`.
        cases: n images.
        truths: (m, n) the value that each image is given.

    Returns:
        (m,).
    """
    rows = max(1, CELLS // max(len(cases.value), 1))
    parts = [truths[start : start + rows] for start in range(0, len(truths), rows)]
    return np.concatenate([function(Regressed(part, cases.value), np.ones(part.shape)) for part in parts])
