"""What a training is given: settings, data and names, whether a network or a baseline is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.training import TrainSettings
from gyri.loading import Images, Store, Target
from gyri.models.learning_task import LearningTask
from gyri.transforms.normalization import Normalization


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        settings: what the stage is told.
        target: what is predicted.
        task: the sizes, for the network.
        identity: (configuration seed, fold, model, seed index): every random draw derives from it and from its purpose.
        title: for the progress line.
        store: the packed images.
        table: training and validation images, as `loading.fold_table` gives them.
        description: normalization.json.
        arrays: the normalization's arrays.
    """

    settings: TrainSettings
    target: Target
    task: LearningTask
    identity: tuple[int, int, str, int]
    title: str
    store: Store
    table: pd.DataFrame
    description: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def rows(self, role: str) -> pd.DataFrame:
        """The images of one role."""
        return self.table[self.table["role"] == role]

    def images(self, role: str) -> Images:
        """Normalized images and targets of one role."""
        rows, normalization = self.rows(role), Normalization(self.description, self.arrays)
        return Images(self.store, rows["row"].to_numpy(), normalization, self.target, rows["target"].tolist())

    def target_scale(self) -> list[float]:
        """Mean and standard deviation of the training targets (regression), by which networks see them; else 0 and 1."""
        if self.target.task != "regression":
            return [0.0, 1.0]
        values = self.images("train").targets
        return [float(values.mean()), float(values.std()) or 1.0]

    def class_weights(self) -> NDArray[np.float32] | None:
        """Inverse frequencies of the classes in training, with mean 1 over the training images; None unless asked for.

        Source: King and Zeng, Logistic regression in rare events data, Political Analysis 2001.
        """
        if self.target.task != "classification" or self.settings.training.class_weights == "none":
            return None
        counts = np.bincount(self.images("train").targets, minlength=len(self.target.names))
        present = (counts > 0).sum()
        return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1)), 0).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """Numbers of images and groups, and what is odd about the targets, for provenance."""
        found: dict[str, Any] = {}
        for role in ("train", "validation"):
            rows = self.rows(role)
            found[f"{role}_images"], found[f"{role}_groups"] = len(rows), int(rows["group"].nunique())
        if self.target.task == "classification":
            for role in ("train", "validation"):
                absent = sorted(set(self.target.names) - set(self.rows(role)["target"]))
                if absent:
                    found.setdefault("warnings", []).append(f"classes absent from {role}: {', '.join(absent)}")
        return found
