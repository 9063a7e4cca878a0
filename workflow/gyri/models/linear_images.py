"""A linear model of a whole image: logistic regression or ridge regression on all of its voxels.

There are many more voxels than images. Both models give the same predictions, to rounding, in the space that the n images span:
with the images' inner products (n x n) and their eigenvectors, fitting takes seconds whatever the number of voxels. Images are
read in blocks, so memory is bounded.

Source: Hastie and Tibshirani 2004, doi:10.1093/biostatistics/kxh010 (quadratic regularization, more features than examples).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.models.baseline import ImageRows
from gyri.models.learning_task import LearningTask
from gyri.models.logistic import Classes, Examples, choose_logistic, class_probabilities

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # inverse regularization, for images whose mean squared length is 1
BLOCK_BYTES = 256 * 2**20  # of images in memory at a time; two blocks are held
RANK = 1e-10  # eigenvalues below this part of the largest one are rounding


class LinearImages:
    """Logistic regression or ridge regression on voxels.

    Args:
        task: classification or regression.
    """

    def __init__(self, task: LearningTask):
        self.task = task
        self.weights = np.zeros((0, task.in_channels, *task.shape), np.float32)
        self.intercepts = np.zeros(0)
        self.classes: Classes = np.zeros(0, np.int64)

    def fit(self, train: ImageRows, validation: ImageRows) -> dict[str, Any]:
        """Fit with every strength of the grid on the training images; keep the best on the validation images.

        Regularization is chosen by log loss (classification) or squared error (regression). Images are centred by the mean training
        image and scaled by one number, so the grid does not depend on their unit.
        """
        centre = _mean_image(train)
        products = _inner_products(train, train, centre)
        scale = np.trace(products) / len(train) or 1.0
        values, vectors = np.linalg.eigh(products / scale)
        kept = values > RANK * max(values.max(), 1.0)
        values, vectors = values[kept], vectors[:, kept]
        basis = vectors / np.sqrt(values)
        scores = vectors * np.sqrt(values)
        others = _inner_products(validation, train, centre) / scale @ basis
        fit = self._fit_classes if self.task.task == "classification" else self._fit_values
        coefficients, intercepts, strength = fit(scores, others, np.asarray(train.targets), np.asarray(validation.targets))
        primal = _combine(train, centre, basis @ coefficients.T / scale)
        self.weights = primal.reshape(len(coefficients), *train[0].shape).astype(np.float32)
        self.intercepts = intercepts - primal @ centre
        return {"strength": strength, "rank": int(kept.sum()), "images": len(train), "validation_images": len(validation)}

    def _fit_classes(
        self, scores: NDArray[Any], others: NDArray[Any], targets: NDArray[Any], truth: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], float]:
        train = Examples(scores, targets, np.ones(len(targets)))
        model, strength = choose_logistic(train, Examples(others, truth, np.ones(len(truth))), STRENGTHS, self.task.n_outputs)
        self.classes = model.classes
        return model.coefficients, model.intercepts, strength

    def _fit_values(
        self, scores: NDArray[Any], others: NDArray[Any], targets: NDArray[Any], truth: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], float]:
        mean = targets.mean(dtype=np.float64)
        squares = np.square(scores).sum(0)  # the columns of scores are orthogonal, so ridge regression is a division
        slopes = [scores.T @ (targets - mean) / (squares + 1 / strength) for strength in STRENGTHS]
        errors = [np.square(others @ slope + mean - truth).mean() for slope in slopes]
        best = int(np.argmin(errors))
        return slopes[best][None], np.array([mean]), STRENGTHS[best]

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (B, K), or values (B, 1) in the unit of the target."""
        flat = np.asarray(images, np.float32).reshape(len(images), -1)
        found = flat @ self.weights.reshape(len(self.weights), -1).T + self.intercepts
        if self.task.task == "regression":
            return found.astype(np.float32)
        return class_probabilities(found, self.classes, self.task.n_outputs).astype(np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """weights: (k, C, X, Y, Z) float32; intercepts: (k,) float64; classes: (k,) those seen in training (none in regression)."""
        return {"weights": self.weights, "intercepts": self.intercepts, "classes": self.classes}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over a state."""
        self.weights, self.intercepts, self.classes = (np.asarray(state[name]) for name in ("weights", "intercepts", "classes"))


def _blocks(images: ImageRows) -> list[range]:
    """Runs of images that fit into memory together."""
    size = max(1, BLOCK_BYTES // max(1, images[0].size * 4))
    return [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]


def _read(images: ImageRows, rows: range, centre: NDArray[Any]) -> NDArray[np.float32]:
    """Images of a block, centred: (b, p) float32."""
    block = np.empty((len(rows), len(centre)), np.float32)
    for place, row in enumerate(rows):
        block[place] = images[row].ravel() - centre
    return block


def _mean_image(images: ImageRows) -> NDArray[np.float64]:
    total = np.zeros(images[0].size)
    for row in range(len(images)):
        total += images[row].ravel()
    return total / len(images)


def _inner_products(first: ImageRows, second: ImageRows, centre: NDArray[Any]) -> NDArray[np.float64]:
    """Inner products (n, m) of the centred images of two sets."""
    products = np.empty((len(first), len(second)))
    for rows in _blocks(first):
        block = _read(first, rows, centre)
        for columns in _blocks(second):
            other = block if first is second and rows == columns else _read(second, columns, centre)
            products[rows.start : rows.stop, columns.start : columns.stop] = block @ other.T
    return (products + products.T) / 2 if first is second else products


def _combine(images: ImageRows, centre: NDArray[Any], factors: NDArray[Any]) -> NDArray[np.float64]:
    """Sums of the centred images, weighted by each column of the factors (n, k): (k, p)."""
    total = np.zeros((factors.shape[1], len(centre)))
    for rows in _blocks(images):
        total += factors[rows.start : rows.stop].T.astype(np.float32) @ _read(images, rows, centre)
    return total
