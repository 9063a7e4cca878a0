"""What a baseline is: fitted in one go on a fold's training participants, tuned on its validation participants, without torch.

A baseline's file declares `ENTRIES` and `TRAINED = False`; its class has the entry's name and is built as
`name(task, generator, **arguments)`, with `task` a `LearningTask` and `generator` a NumPy generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gyri.models.learning_task import LearningTask

Targets = NDArray[np.integer[Any]] | NDArray[np.floating[Any]] | Callable[[int], NDArray[np.integer[Any]]]


class ImageRows(Protocol):
    """The images of one role with their targets, read when asked for."""

    @property
    def targets(self) -> Targets:
        """The target of every image.

        Classification: (N,) integers, the position of the class in the names of the classes. Regression: (N,) floats in the
        target's own unit. Segmentation: a function from an index to the (X, Y, Z) integer label map of that image, background 0.
        """
        ...

    def __len__(self) -> int:
        """Number of images N."""
        ...

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """One image: (C, X, Y, Z) float32, preprocessed and normalized."""
        ...


class Baseline(Protocol):
    """A model without gradient descent."""

    def __init__(self, task: LearningTask, generator: np.random.Generator, **arguments: Any) -> None: ...

    def fit(self, train: ImageRows, validation: ImageRows) -> dict[str, Any]:
        """Fit on the training images; choose what must be chosen on the validation images.

        Args:
            train: images and targets of the training participants.
            validation: those of the validation participants; never used for anything but a choice between fitted candidates.

        Returns:
            What was chosen and on how much data, as JSON, for the provenance.
        """
        ...

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict.

        Args:
            images: (B, C, X, Y, Z) float32, preprocessed and normalized.

        Returns:
            Probabilities (B, K) or (B, K, X, Y, Z) that sum to 1 over K; for regression (B, 1) in the target's own unit.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """All that was fitted, as plain arrays by name."""
        ...

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over what `state` gave; predictions are then equal to the last bit."""
        ...
