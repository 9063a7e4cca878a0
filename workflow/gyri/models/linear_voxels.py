"""A linear model of single voxels for segmentation: logistic regression on intensity, smoothed intensity and place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.models.baseline import ImageRows
from gyri.models.learning_task import LearningTask
from gyri.models.logistic import Classes, Examples, Floats, choose_logistic, class_probabilities

STRENGTHS = (1e-4, 1e-2, 1.0)  # inverse regularization, for standardized features
SMOOTHING = 1.5  # voxels, standard deviation of the Gaussian
VOXELS_AT_ONCE = 2**17  # in prediction


class LinearVoxels:
    """Multinomial logistic regression of a voxel's label.

    The features of a voxel are the intensities of all channels, the same smoothed, its coordinates from -1 to 1 along each axis,
    and all products of two of these.

    Args:
        task: segmentation.
        generator: draws the training voxels.
        samples: number of training voxels, over all images and labels.
    """

    def __init__(self, task: LearningTask, generator: np.random.Generator, samples: int):
        self.task, self.generator, self.samples = task, generator, samples
        self.classes: Classes = np.zeros(0, np.int64)
        self.coefficients = np.zeros((0, 0), np.float32)
        self.intercepts = np.zeros(0, np.float32)

    def fit(self, train: ImageRows, validation: ImageRows) -> dict[str, Any]:
        """Fit on sampled voxels of the training images; choose the regularization by log loss on those of the validation images.

        Of every image the same number of voxels is drawn from each label, as far as there are so many; weights undo that, so the
        probabilities are those of voxels as they occur. Place in the image is used, so images should be roughly aligned.
        """
        drawn = self._sample(train)
        mean, deviation = drawn.features.mean(0), drawn.features.std(0)
        deviation[deviation == 0] = 1.0
        judged = self._sample(validation)
        fitted = Examples((drawn.features - mean) / deviation, drawn.classes, drawn.weights)
        others = Examples((judged.features - mean) / deviation, judged.classes, judged.weights)
        model, strength = choose_logistic(fitted, others, STRENGTHS, self.task.n_outputs)
        coefficients = model.coefficients / deviation
        self.classes = model.classes
        self.coefficients = coefficients.astype(np.float32)
        self.intercepts = (model.intercepts - coefficients @ mean).astype(np.float32)
        return {"strength": strength, "voxels": len(drawn.classes), "validation_voxels": len(judged.classes), "images": len(train)}

    def _sample(self, images: ImageRows) -> Examples:
        """Draw voxels from every image and label, with weights that undo the drawing; their mean is 1."""
        assert callable(images.targets)
        each = max(1, self.samples // (len(images) * self.task.n_outputs))
        features: list[Floats] = []
        classes: list[Classes] = []
        weights: list[Floats] = []
        for row in range(len(images)):
            labels = images.targets(row).ravel()
            basis = _basis(images[row], self.task.dimensions)
            for label in np.unique(labels):
                places = np.flatnonzero(labels == label)
                taken = self.generator.choice(places, min(each, len(places)), replace=False, shuffle=False)
                features.append(_products(basis[taken]).astype(np.float64))
                classes.append(np.full(len(taken), label, np.int64))
                weights.append(np.full(len(taken), len(places) / len(taken)))
        weight = np.concatenate(weights)
        return Examples(np.concatenate(features), np.concatenate(classes), weight / weight.mean())

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (B, K, X, Y, Z)."""
        found = np.empty((len(images), self.task.n_outputs, int(np.prod(images.shape[2:]))), np.float32)
        for place, image in enumerate(images):
            basis = _basis(image, self.task.dimensions)
            for start in range(0, len(basis), VOXELS_AT_ONCE):
                part = slice(start, start + VOXELS_AT_ONCE)
                scores = _products(basis[part]) @ self.coefficients.T + self.intercepts
                found[place, :, part] = class_probabilities(scores, self.classes, self.task.n_outputs).T
        return found.reshape(len(images), self.task.n_outputs, *images.shape[2:])

    def state(self) -> dict[str, NDArray[Any]]:
        """classes: (k,) the labels seen in training; coefficients: (k, features) and intercepts: (k,) float32."""
        return {"classes": self.classes, "coefficients": self.coefficients, "intercepts": self.intercepts}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over a state."""
        names = ("classes", "coefficients", "intercepts")
        self.classes, self.coefficients, self.intercepts = (np.asarray(state[name]) for name in names)


def _basis(image: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    """Intensity and smoothed intensity of every channel, and the coordinates: (voxels, 2 C + dimensions)."""
    from scipy.ndimage import gaussian_filter

    image = np.asarray(image, np.float32)
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in image.shape[1 : 1 + dimensions]]
    grids = np.meshgrid(*axes, indexing="ij")
    smooth = [gaussian_filter(channel, SMOOTHING, mode="nearest") for channel in image]
    return np.stack([part.ravel() for part in (*image, *smooth, *grids)], axis=1)


def _products(basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features themselves and all products of two of them."""
    first, second = np.triu_indices(basis.shape[1])
    return np.concatenate([basis, basis[:, first] * basis[:, second]], axis=1)
