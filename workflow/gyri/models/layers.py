"""Building blocks that networks share, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

SLOPE = (
    0.01  # of the leaky rectifier. Source: Maas et al. 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf
)
CHANNELS_PER_GROUP = (
    8  # close to the 16 that Wu and He 2018, doi:10.1007/978-3-030-01261-8_1, found best, with several groups at width 16
)


class InstanceNorm(nn.Module):
    """Normalizes every channel of every image by its own mean and standard deviation, then scales and shifts it.

    Args:
        channels: number of channels.

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Normalize (B, C, X, Y[, Z]); an image needs at least two voxels."""
        if images.is_cuda:
            return functional.instance_norm(images, weight=self.weight, bias=self.bias)
        # on the processor instance_norm copies channels-last data twice; batch_norm of one image at a time is the same and does not
        parts = [functional.batch_norm(image, None, None, self.weight, self.bias, training=True) for image in images.split(1)]
        return torch.cat(parts)


def normalization(kind: str, channels: int, dimensions: int) -> nn.Module:
    """A normalization layer by its name.

    Args:
        kind: `instance`, `group` (8 channels per group) or `batch`.
        channels: number of channels.
        dimensions: 2 or 3.

    Source: Ulyanov et al. 2016, arXiv:1607.08022; Wu and He 2018, doi:10.1007/978-3-030-01261-8_1; Ioffe and Szegedy 2015,
        arXiv:1502.03167.
    """
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "group":
        groups = channels // CHANNELS_PER_GROUP if channels % CHANNELS_PER_GROUP == 0 else 1
        return nn.GroupNorm(groups, channels)
    return BATCH_NORM[dimensions](channels)


def pad_at_end(images: Tensor, multiples: Sequence[int]) -> Tensor:
    """Add zeros at the end of each spatial axis, up to a multiple.

    Args:
        images: (B, C, X, Y[, Z]).
        multiples: one per spatial axis.

    Returns:
        The images themselves where nothing is missing.
    """
    missing = [-size % multiple for size, multiple in zip(images.shape[2:], multiples, strict=True)]
    if not any(missing):
        return images
    # torch.nn.functional.pad names the last axis first
    return functional.pad(images, [amount for gap in reversed(missing) for amount in (0, gap)])


def initialize(network: nn.Module, slope: float) -> None:
    """Draw the weights of all convolutions and linear layers so that the variance is kept through rectifiers; biases start at 0.

    The draws come from torch's global generator: seed it with `torch.manual_seed`, inside `torch.random.fork_rng` where the rest of
    the program must not notice.

    Args:
        network: changed in place.
        slope: of the rectifier for negative values; 0 for the plain one.

    Source: He et al. 2015, doi:10.1109/ICCV.2015.123.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear):
            transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
            nn.init.kaiming_normal_(layer.weight, a=slope, mode="fan_out" if transposed else "fan_in")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
