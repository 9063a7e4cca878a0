"""The maps of one fold: of the trained network, and of the same network with weights drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gyri.catalogue import builder
from gyri.config.saliency import Saliency
from gyri.explain import methods
from gyri.inference import Model
from gyri.models.learning_task import LearningTask
from gyri.types import Shape3

Maps = NDArray[np.float32]


def randomized(model: Model, seed: int) -> nn.Module:
    """The same network with every weight drawn anew.

    Args:
        model: trained.
        seed: of the draw.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = builder(model.card["network"])(model.task, **model.card["arguments"])
    return network.to(model.device).eval().requires_grad_(False)


def frozen(model: Model) -> nn.Module:
    """The trained network, its weights without gradients."""
    assert model.network is not None
    return model.network.requires_grad_(False)


def explained_class(task: LearningTask, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class whose evidence is explained: of two the positive one (the last), of more each image's own."""
    return np.full_like(indices, 1) if task.n_outputs == 2 else indices


class Explainer:
    """Makes the maps of some images of a fold.

    Args:
        model: trained; its device and normalization are taken.
        settings: methods and their settings.
        images: (B, C, X, Y, Z) preprocessed, not normalized.
        targets: (B,) class indices; zeros for a regression.
        spacings: voxel edges of each image, mm.
        seed: of the noise.
    """

    def __init__(
        self,
        model: Model,
        settings: Saliency,
        images: NDArray[Any],
        targets: NDArray[np.int64],
        spacings: Sequence[tuple[float, float, float]],
        seed: int,
    ):
        self.model, self.settings, self.spacings, self.seed = model, settings, spacings, seed
        self.images = torch.from_numpy(model.normalization.apply(np.asarray(images, np.float32))).to(model.device)
        self.targets = torch.from_numpy(targets).to(model.device)
        # what is normalized by its training mean has the mean 0
        plain = model.normalization.method == "none"
        means = model.normalization.description["mean"]
        self.baseline = [float(value) if plain else 0.0 for value in means]

    def __call__(self, method: str, network: nn.Module) -> Maps:
        """(B, X, Y, Z) of one method, each map divided by its mean absolute value; a map that is zero everywhere stays so."""
        found = np.stack([self._one(method, network, index) for index in range(len(self.images))])
        return scaled(found)

    def layer(self) -> dict[str, Any] | None:
        """The feature maps that class activation looks at: name of the layer and their shape; None without convolutions."""
        with torch.enable_grad():
            try:
                name, features, _ = methods.last_features(
                    frozen(self.model), self.images[:1].clone().requires_grad_(), self.model.task
                )
            except ValueError:
                return None
        return {"name": name, "shape": list(features.shape[2:])}

    def _one(self, method: str, network: nn.Module, index: int) -> Maps:
        image, target, task = self.images[index : index + 1], self.targets[index : index + 1], self.model.task
        found: Tensor
        if method == "gradient":
            chosen = self.settings
            found = methods.gradient(
                network, image, target, task, chosen.smooth_samples, chosen.smooth_noise, (self.seed + index) % 2**63
            )
        elif method == "occlusion":
            patch, stride = self._boxes(index)
            found = methods.occlusion(network, image, target, task, patch, stride, self.baseline)
        else:
            found = methods.class_activation(network, image, target, task)
        return np.asarray(found[0].cpu().numpy(), np.float32)

    def _boxes(self, index: int) -> tuple[Shape3, Shape3]:
        """Edges of and distances between the boxes of an image, in voxels; planes have one voxel along Z."""
        shape, edges = self.model.task.shape, self.spacings[index]

        def voxels(wanted: float) -> Shape3:
            x, y, z = (min(max(round(wanted / edge), 1), size) for size, edge in zip(shape, edges, strict=True))
            return x, y, z

        return voxels(self.settings.patch_mm), voxels(self.settings.stride_mm)


def scaled(maps: Maps) -> Maps:
    """Maps divided by their mean absolute value, so that 1 is an average voxel.

    Args:
        maps: (B, X, Y, Z).

    Returns:
        The same shape; maps of zeros stay zeros.
    """
    means = np.abs(maps).mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return np.asarray(np.divide(maps, means, out=np.zeros_like(maps), where=means > 0), np.float32)
