"""Augmentation: random changes of a training batch, drawn first and applied afterwards, on the device where the batch is.

What was drawn is kept apart from its application, so it can be looked at, repeated, and applied to label maps as well. All changes
of place are put together into one map of coordinates, so every image is interpolated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from gyri.config.training import Augmentation

AXES = ("x", "y", "z")
SEEDS = 2**62


@dataclass(frozen=True)
class Draws:
    """What was drawn for a batch; None stands for a kind of change that is switched off.

    What stands at a voxel of the result is found in the image at centre + matrix (voxel - centre) + shift + displacement (voxels).

    Args:
        moved: (B,) bool: images that change their place; the others are not interpolated.
        matrix: (B, 3, 3), or None where no change of place is switched on.
        shift: (B, 3) voxels.
        elastic: (B, 3, g, g, g) voxels, displacement at the nodes of a coarse grid.
        gamma: (B, C) exponents of the contrast.
        scale: (B, C) factors on the contrast.
        offset: (B, C) additions, in standard deviations of the image.
        noise: (B, C) standard deviation of the noise, in standard deviations of the image.
        noise_seed: of the noise.
    """

    moved: Tensor
    matrix: Tensor | None
    shift: Tensor | None
    elastic: Tensor | None
    gamma: Tensor | None
    scale: Tensor | None
    offset: Tensor | None
    noise: Tensor | None
    noise_seed: int


def draw(settings: Augmentation, shape: Sequence[int], generator: torch.Generator) -> Draws:
    """Draw the changes of a batch.

    Every kind of change has its own chance per image, mirroring one per axis. All kinds are drawn, in a fixed order, whether they
    are switched on or not: a changed strength of one leaves the others as they were. Voxels are taken to be cubes. In a plane
    (Z = 1) only what stays in the plane happens.

    Args:
        settings: strengths and chances.
        shape: (B, C, X, Y, Z) of the batch.
        generator: where the draws come from. One on the processor gives the same draws whatever the device of the batch, and does
            not make the device wait.

    Returns:
        The draws, on the generator's device.
    """
    batch, channels, *edges = shape
    dice = _Dice(settings.probability, generator)
    size = torch.tensor(edges, dtype=torch.float32, device=generator.device)
    flat = size == 1
    angles = dice.signed((batch, 3), (batch, 1)) * (settings.rotation_deg * pi / 180)
    zoom = 1 + dice.signed((batch, 1), (batch, 1)) * settings.scale
    shift = dice.signed((batch, 3), (batch, 1)) * settings.translation * size
    flipped = dice.happens((batch, 3)) & torch.tensor([axis in settings.mirror for axis in AXES], device=generator.device)
    nodes = (batch, 3, *[settings.elastic_grid] * 3)
    elastic = dice.normal(nodes, (batch, 1, 1, 1, 1)) * (settings.elastic * size * ~flat)[:, None, None, None]
    gamma = torch.exp(dice.signed((batch, channels), (batch, 1)) * settings.gamma)
    scale = 1 + dice.signed((batch, channels), (batch, 1)) * settings.intensity_scale
    offset = dice.signed((batch, channels), (batch, 1)) * settings.intensity_shift
    noise = dice.signed((batch, channels), (batch, 1)).abs() * settings.noise
    seed = int(torch.randint(SEEDS, (1,), generator=generator, device=generator.device))

    if flat.any():  # a turn about an axis of the plane would leave it
        angles = angles * torch.stack([~flat[1] & ~flat[2], ~flat[0] & ~flat[2], ~flat[0] & ~flat[1]])
    signs = torch.where(flipped, -1.0, 1.0)
    matrix = _rotation(angles) / zoom[:, :, None] * signs[:, None, :]
    moves = bool(settings.rotation_deg or settings.scale or settings.translation or settings.elastic or settings.mirror)
    still = torch.eye(3, device=generator.device)
    moved = (matrix != still).flatten(1).any(1) | (shift != 0).any(1) | (elastic != 0).flatten(1).any(1)
    return Draws(
        moved=moved,
        matrix=matrix if moves else None,
        shift=shift if moves else None,
        elastic=elastic if settings.elastic else None,
        gamma=gamma if settings.gamma else None,
        scale=scale if settings.intensity_scale else None,
        offset=offset if settings.intensity_shift else None,
        noise=noise if settings.noise else None,
        noise_seed=seed,
    )


def apply(images: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Apply what was drawn: first place, then contrast, then noise.

    Args:
        images: (B, C, X, Y, Z) float32, normalized; not changed.
        labels: (B, X, Y, Z) integers, or None; they move with their images and take the nearest voxel's label.
        draws: from `draw`, for this batch size and these shapes.

    Returns:
        Images and labels as they came, in shape and type. Beyond the border the image goes on with its border voxels.
    """
    if draws.matrix is not None:
        grid = coordinates(draws, images.shape[2:], images.device)
        moved = draws.moved.to(images.device)
        images = torch.where(moved[:, None, None, None, None], _sample(images, grid, "bilinear"), images)
        if labels is not None:
            found = _sample(labels[:, None].float(), grid, "nearest")[:, 0].to(labels.dtype)
            labels = torch.where(moved[:, None, None, None], found, labels)
    return _change_intensity(images, draws), labels


def coordinates(draws: Draws, shape: Sequence[int], device: torch.device) -> Tensor:
    """Where the content of each voxel of the result is found.

    Args:
        draws: with a matrix and a shift.
        shape: (X, Y, Z).
        device: where to compute.

    Returns:
        (B, X, Y, Z, 3), as `torch.nn.functional.grid_sample` wants it: last axis first, -1 and 1 at the centres of border voxels.
    """
    assert draws.matrix is not None and draws.shift is not None
    half = torch.tensor([max(edge - 1, 1) / 2 for edge in shape], dtype=torch.float32, device=device)
    matrix = (draws.matrix.to(device) * half[None, None, :] / half[None, :, None]).flip(1)
    grid = (draws.shift.to(device) / half).flip(1)[:, None, None, None, :]
    for axis, edge in enumerate(shape):
        along = torch.linspace(-1, 1, edge, device=device) if edge > 1 else torch.zeros(1, device=device)
        part = along[None, :, None] * matrix[:, None, :, axis]
        grid = grid + part.reshape(len(part), *[edge if other == axis else 1 for other in range(3)], 3)
    if draws.elastic is None:
        return grid
    field = (draws.elastic.to(device) / half[:, None, None, None]).flip(1)
    for edge in shape:  # the leading spatial axis is spread out and put last: three times, and all are in order again
        field = torch.tensordot(field, _spline(field.shape[2], edge, device), dims=([2], [1]))
    return grid + field.permute(0, 2, 3, 4, 1)


def _spline(nodes: int, edge: int, device: torch.device) -> Tensor:
    """Weights (edge, nodes) of cubic B-splines; their squares sum to 1, so that the field has the nodes' variance everywhere.

    Source: Unser 1999, doi:10.1109/79.799930 (the cubic B-spline).
    """
    voxels = torch.linspace(0, nodes - 1, edge, device=device) if edge > 1 else torch.full((1,), (nodes - 1) / 2, device=device)
    distance = (voxels[:, None] - torch.arange(nodes, device=device)).abs()
    near = 2 / 3 - distance.square() + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    weights = torch.where(distance < 1, near, far)
    return weights / weights.square().sum(1, keepdim=True).sqrt()


def _sample(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=True)


def _change_intensity(images: Tensor, draws: Draws) -> Tensor:
    """Contrast exponent, contrast, shift and noise, each per image and channel."""
    if draws.gamma is not None:
        images = _gamma(images, _spread(draws.gamma, images))
    if draws.scale is None and draws.offset is None and draws.noise is None:
        return images
    variance, mean = torch.var_mean(images, dim=(2, 3, 4), keepdim=True, correction=0)
    deviation = variance.sqrt()
    if draws.scale is not None or draws.offset is not None:
        scale = torch.ones_like(mean) if draws.scale is None else _spread(draws.scale, images)
        offset = torch.zeros_like(mean) if draws.offset is None else _spread(draws.offset, images) * deviation
        images = torch.addcmul(mean * (1 - scale) + offset, images, scale)
    if draws.noise is not None:
        generator = torch.Generator(images.device).manual_seed(draws.noise_seed)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = torch.addcmul(images, noise, _spread(draws.noise, images) * deviation)
    return images


def _gamma(images: Tensor, exponents: Tensor) -> Tensor:
    """Raise intensities, brought to 0 to 1 between the darkest and the brightest voxel, to a power."""
    lowest = images.amin((2, 3, 4), keepdim=True)
    width = (images.amax((2, 3, 4), keepdim=True) - lowest).clamp(min=torch.finfo(images.dtype).tiny)
    changed = ((images - lowest) / width).pow(exponents) * width + lowest
    return torch.where(exponents == 1, images, changed)


def _spread(values: Tensor, images: Tensor) -> Tensor:
    """(B, C) values, to be multiplied with (B, C, X, Y, Z) images."""
    return values.to(images.device)[:, :, None, None, None]


def _rotation(angles: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about x, then y, then z, of angles (B, 3) in radians."""
    result = torch.eye(3, device=angles.device)
    for axis in range(3):
        first, second = [other for other in range(3) if other != axis]
        cosine, sine = torch.cos(angles[:, axis]), torch.sin(angles[:, axis])
        turn = torch.zeros(len(angles), 3, 3, device=angles.device)
        turn[:, axis, axis] = 1
        turn[:, first, first] = turn[:, second, second] = cosine
        sign = -1.0 if axis == 1 else 1.0
        turn[:, first, second], turn[:, second, first] = -sign * sine, sign * sine
        result = turn @ result
    return result


class _Dice:
    """Draws values of which each image gets its own with some chance, and else 0.

    Args:
        probability: the chance.
        generator: where the draws come from.
    """

    def __init__(self, probability: float, generator: torch.Generator):
        self.probability, self.generator = probability, generator

    def happens(self, shape: tuple[int, ...]) -> Tensor:
        """True with the chance given."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device) < self.probability

    def signed(self, shape: tuple[int, ...], gates: tuple[int, ...]) -> Tensor:
        """Uniform in [-1, 1), times what happens."""
        values = torch.rand(shape, generator=self.generator, device=self.generator.device) * 2 - 1
        return values * self.happens(gates)

    def normal(self, shape: tuple[int, ...], gates: tuple[int, ...]) -> Tensor:
        """Standard normal, times what happens."""
        values = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return values * self.happens(gates)
