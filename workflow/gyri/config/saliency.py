"""Settings of saliency maps: which methods, on how many images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gyri.config.base import Settings
from gyri.config.training import Count, NotNegative, Positive
from gyri.types import Task

Method = Literal["gradient", "occlusion", "class_activation"]


class Saliency(Settings):
    """Which parts of the images a network reacts to (classification and regression; the first seed of each network)."""

    methods: list[Method] = ["gradient", "occlusion", "class_activation"]
    """gradient, occlusion, class_activation; an empty list makes no maps."""
    images: Count = 4
    """Test images per fold, drawn from the seed over classes or thirds of the target."""
    patch_mm: Positive = 30.0
    """Edge of the box that occlusion hides, mm."""
    stride_mm: Positive = 30.0
    """Distance between two boxes, mm; at most their edge."""
    smooth_samples: Annotated[int, Field(ge=0)] = 0
    """Noisy copies over which a gradient is averaged (SmoothGrad); 0 takes the image itself."""
    smooth_noise: NotNegative = 0.15
    """Standard deviation of that noise, as a fraction of the image's range."""

    @model_validator(mode="after")
    def _no_gaps(self) -> Saliency:
        if self.stride_mm > self.patch_mm:
            raise ValueError("stride_mm of at most patch_mm, or voxels between the boxes are never hidden")
        return self


class ExplainSettings(Settings):
    """What the stage `explain` is told of one model."""

    network: str
    task: Task
    saliency: Saliency
    folds: list[int]
    """Folds that were run."""
    seed: int
    """The configuration's seed; what is drawn for (images, weights, noise) is added to it."""
    threads: int
