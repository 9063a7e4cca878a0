"""The trivial baseline of regression: the mean of the training targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.models.baseline import ImageRows
from gyri.models.learning_task import LearningTask

ENTRIES = {"mean": ("regression",)}
TRAINED = False


class mean:
    """Predicts the mean of the training targets for every image.

    Args:
        task: regression.
        generator: not used; nothing is drawn.
    """

    def __init__(self, task: LearningTask, generator: np.random.Generator):
        self.value = np.zeros(1)

    def fit(self, train: ImageRows, validation: ImageRows) -> dict[str, Any]:
        """Average the training targets; the validation images are not looked at."""
        assert not callable(train.targets)
        self.value = np.array([np.mean(train.targets, dtype=np.float64)])
        return {"images": len(train)}

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same value for every image: (B, 1), in the unit of the target."""
        return np.full((len(images), 1), self.value[0], np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """mean: (1,) float64."""
        return {"mean": self.value}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over a state."""
        self.value = np.asarray(state["mean"])
