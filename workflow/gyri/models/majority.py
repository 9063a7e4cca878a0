"""The trivial baseline of classification and segmentation: how often each class was seen in training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.models.baseline import ImageRows
from gyri.models.learning_task import LearningTask

ENTRIES = {"majority": ("classification", "segmentation")}
TRAINED = False


class majority:
    """Predicts the frequencies of the training classes; for segmentation those at each voxel of the network grid.

    Args:
        task: classification or segmentation, and its sizes.
        generator: not used; nothing is drawn.
    """

    def __init__(self, task: LearningTask, generator: np.random.Generator):
        self.task = task
        self.frequencies = np.empty(0, np.float32)

    def fit(self, train: ImageRows, validation: ImageRows) -> dict[str, Any]:
        """Count the classes of the training images; the validation images are not looked at."""
        classes = np.arange(self.task.n_outputs)
        if self.task.task == "classification":
            assert not callable(train.targets)
            counts = np.bincount(train.targets, minlength=len(classes)).astype(np.float64)
        else:
            assert callable(train.targets)
            counts = np.zeros((len(classes), *self.task.shape))
            for index in range(len(train)):
                counts += train.targets(index)[None] == classes[:, None, None, None]
        self.frequencies = (counts / len(train)).astype(np.float32)
        return {"images": len(train)}

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same frequencies for every image: (B, K) or (B, K, X, Y, Z)."""
        return np.repeat(self.frequencies[None], len(images), axis=0)

    def state(self) -> dict[str, NDArray[Any]]:
        """frequencies: (K,) or (K, X, Y, Z) float32."""
        return {"frequencies": self.frequencies}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over a state."""
        self.frequencies = np.asarray(state["frequencies"])
