"""Conv5-FC3: five convolutional blocks and three fully connected layers, for whole-brain classification and regression."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.models.arguments import Checks
from gyri.models.layers import BATCH_NORM, CONVOLUTION, initialize, pad_at_end
from gyri.models.learning_task import LearningTask

ENTRIES = {"conv5_fc3": ("classification", "regression")}

BLOCKS = 5
HIDDEN = (1300, 50)  # units of the first two fully connected layers. Source: Wen et al. 2020, doi:10.1016/j.media.2020.101694


def conv5_fc3(task: LearningTask, *, width: int = 8, dropout: float = 0.5) -> nn.Module:
    """Build the network; the dimension follows from the shape of the images.

    Five blocks of 3 x 3 (x 3) convolution, batch normalization, rectifier and max-pooling by 2, with `width` times 1, 2, 4, 8, 16
    channels; then dropout and layers with 1300, 50 and n units. Before pooling, odd edges get one more voxel, so no border voxel is
    lost; an axis that is down to one voxel is not pooled any more. Linear layers are drawn as the convolutions are.

    Batch normalization takes its statistics from the batch in training, and from its running means when it predicts. Where a batch
    gives only one value per channel (batch size 1 and one voxel left) it has no statistics, and the running ones serve in training
    too. With batches below about 4 images the statistics are rough; take a larger batch.

    Args:
        task: sizes; outputs are the classes, or 1 for regression.
        width: channels of the first block.
        dropout: fraction of the features that is dropped in training, before the first fully connected layer.

    Returns:
        (B, C, X, Y[, Z]) -> (B, n) logits or values. Weights are drawn from torch's global generator: seed it before.

    Raises:
        ConfigError: an argument that cannot be.

    Source: Wen et al. 2020, doi:10.1016/j.media.2020.101694, as in ClinicaDL, doi:10.1016/j.cmpb.2022.106818.
    """
    checks = Checks("conv5_fc3")
    checks.integer("width", width, 1)
    checks.fraction("dropout", dropout)
    checks.close()
    return Conv5FC3(task, width, dropout)


class Conv5FC3(nn.Module):
    """The network that `conv5_fc3` builds.

    Args:
        task: sizes.
        width: channels of the first block.
        dropout: fraction of features dropped.
    """

    def __init__(self, task: LearningTask, width: int, dropout: float):
        super().__init__()
        widths = [task.in_channels, *(width * 2**block for block in range(BLOCKS))]
        edges = list(task.shape[: task.dimensions])
        for _ in range(BLOCKS):
            edges = [-(-edge // 2) for edge in edges]
        features = widths[-1] * torch.Size(edges).numel()
        self.blocks = nn.ModuleList(Block(before, after, task.dimensions) for before, after in pairwise(widths))
        self.classifier = nn.Sequential(
            OrderedDict(
                dropout=nn.Dropout(dropout),
                first=nn.Linear(features, HIDDEN[0]),
                first_rectifier=nn.ReLU(inplace=True),
                second=nn.Linear(*HIDDEN),
                second_rectifier=nn.ReLU(inplace=True),
                third=nn.Linear(HIDDEN[1], task.n_outputs),
            )
        )
        initialize(self, 0.0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (B, n) of images (B, C, X, Y[, Z])."""
        for block in self.blocks:
            images = block(images)
        return self.classifier(images.flatten(1))


class Block(nn.Module):
    """Convolution, batch normalization, rectifier, pooling.

    Args:
        before: channels that come in.
        after: channels that go out.
        dimensions: 2 or 3.
    """

    def __init__(self, before: int, after: int, dimensions: int):
        super().__init__()
        self.convolution = CONVOLUTION[dimensions](before, after, 3, padding=1, bias=False)  # normalization takes it away
        self.normalization = BATCH_NORM[dimensions](after)
        self.pool = functional.max_pool3d if dimensions == 3 else functional.max_pool2d

    def forward(self, images: Tensor) -> Tensor:
        """Halve every axis, rounding up."""
        features = self._normalize(self.convolution(images)).relu_()
        window = [2 if edge > 1 else 1 for edge in features.shape[2:]]
        # after the rectifier nothing is below 0, so a zero at the edge never wins
        return self.pool(pad_at_end(features, window), window)

    def _normalize(self, features: Tensor) -> Tensor:
        norm = self.normalization
        if self.training and features.shape[0] * features[0, 0].numel() == 1:
            return functional.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(features)
