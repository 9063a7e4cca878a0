"""U-Net: an encoder, a decoder, and connections that skip from one to the other at every resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gyri.models.arguments import Checks
from gyri.models.layers import CONVOLUTION, SLOPE, TRANSPOSED, initialize, normalization, pad_at_end
from gyri.models.learning_task import LearningTask

ENTRIES = {"unet": ("segmentation",)}

DEFAULT_LEVELS = 4  # Source: Cicek et al. 2016, doi:10.1007/978-3-319-46723-8_49
SMALLEST_EDGE = 4  # voxels; an axis is not halved below this
NORMALIZATIONS = ("instance", "group", "batch")


def unet(task: LearningTask, *, width: int = 16, levels: int | None = None, normalization: str = "instance") -> nn.Module:
    """Build a plain U-Net; the dimension follows from the shape of the images.

    Two 3 x 3 (x 3) convolutions per level, each with normalization and leaky rectifier; down by a convolution with stride 2, up by
    a transposed one; the number of channels doubles from level to level. An axis that would fall below 4 voxels is not halved any
    more, so flat volumes work. Images are padded with zeros at the end of an axis that cannot be halved evenly, and cropped again.

    Args:
        task: sizes; outputs are the labels with background.
        width: channels of the first level.
        levels: number of resolutions; none takes 4, or as many as the shape allows.
        normalization: instance (every image by itself), group (8 channels of an image together) or batch.

    Returns:
        (B, C, X, Y[, Z]) -> (B, K, X, Y[, Z]) logits. Weights are drawn from torch's global generator: seed it before.

    Raises:
        ConfigError: an argument that cannot be, or more levels than the shape allows.

    Source: Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28; Cicek et al. 2016, doi:10.1007/978-3-319-46723-8_49; strides
        instead of pooling, instance normalization and leaky rectifier as Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.
    """
    shape = task.shape[: task.dimensions]
    checks = Checks("unet")
    checks.integer("width", width, 1)
    checks.choice("normalization", normalization, NORMALIZATIONS)
    if levels is not None:
        checks.integer("levels", levels, 1)
    checks.close()
    strides = halvings(shape, DEFAULT_LEVELS if levels is None else levels)
    if levels is not None and len(strides) + 1 < levels:
        size = " x ".join(map(str, shape))
        remedy = f"lower `levels`, or leave it out; an axis is halved down to {SMALLEST_EDGE} voxels"
        checks.problem("levels", f"{levels}, for images of {size} voxels", f"at most {len(strides) + 1}", remedy)
    checks.close()
    return UNet(task, width, strides, normalization)


def halvings(shape: tuple[int, ...], levels: int) -> list[tuple[int, ...]]:
    """The stride of every axis from each level to the next: 2 while enough voxels are left, then 1.

    Args:
        shape: voxels per axis.
        levels: number of resolutions wanted.

    Returns:
        At most `levels` - 1 tuples; fewer where no axis can be halved any more.
    """
    edges, strides = list(shape), []
    for _ in range(levels - 1):
        stride = tuple(2 if edge >= 2 * SMALLEST_EDGE else 1 for edge in edges)
        if max(stride) == 1:
            break
        strides.append(stride)
        edges = [-(-edge // step) for edge, step in zip(edges, stride, strict=True)]
    return strides


class UNet(nn.Module):
    """The network that `unet` builds.

    Args:
        task: sizes.
        width: channels of the first level.
        strides: from each level to the next, per axis.
        kind: of normalization.
    """

    def __init__(self, task: LearningTask, width: int, strides: list[tuple[int, ...]], kind: str):
        super().__init__()
        dimensions = task.dimensions
        widths = [width * 2**level for level in range(len(strides) + 1)]
        ones = (1,) * dimensions
        self.multiples = [2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(dimensions)]
        self.encoder = nn.ModuleList(
            double_convolution(before, after, stride, kind)
            for before, after, stride in zip([task.in_channels, *widths], widths, [ones, *strides], strict=False)
        )
        self.up = nn.ModuleList(
            TRANSPOSED[dimensions](widths[level + 1], widths[level], strides[level], strides[level])  # type: ignore[arg-type]
            for level in reversed(range(len(strides)))
        )
        self.decoder = nn.ModuleList(
            double_convolution(2 * widths[level], widths[level], ones, kind) for level in reversed(range(len(strides)))
        )
        self.head = CONVOLUTION[dimensions](width, task.n_outputs, 1)
        initialize(self, SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, X, Y[, Z]) of images (B, C, X, Y[, Z])."""
        features = pad_at_end(images, self.multiples)
        skipped = []
        for block in self.encoder:
            features = block(features)
            skipped.append(features)
        skipped.pop()
        for enlarge, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([enlarge(features), skipped.pop()], dim=1))
        inside = tuple(slice(size) for size in images.shape[2:])
        return self.head(features)[(..., *inside)]


def double_convolution(before: int, after: int, stride: tuple[int, ...], kind: str) -> nn.Sequential:
    """Two convolutions with normalization and rectifier; the first one may shrink the image.

    Args:
        before: channels that come in.
        after: channels that go out.
        stride: of the first convolution, per axis.
        kind: of normalization.
    """
    dimensions = len(stride)
    convolution = CONVOLUTION[dimensions]
    # no bias: the normalization after it would take it away
    return nn.Sequential(
        convolution(before, after, 3, stride, 1, bias=False),  # type: ignore[arg-type]
        normalization(kind, after, dimensions),
        nn.LeakyReLU(SLOPE, inplace=True),
        convolution(after, after, 3, 1, 1, bias=False),
        normalization(kind, after, dimensions),
        nn.LeakyReLU(SLOPE, inplace=True),
    )
