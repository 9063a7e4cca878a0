"""Saliency methods, each a pure function from a network, a batch and its targets to maps on the grid of the input.

What is explained is one number per image, the evidence: of a classifier the logit of the target class minus the mean of the other
logits (which does not change when a constant is added to all of them), of a regression the output. Networks must be in evaluation
mode, so that every image is treated by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.memory import Fitting
from gyri.models.forward import forward
from gyri.models.learning_task import LearningTask

OCCLUDED_AT_ONCE = 32
LEAST_EDGE = 4  # voxels per axis that feature maps must have: coarser ones cannot tell one part of a brain from another
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def evidence(outputs: Tensor, targets: Tensor, task: LearningTask) -> Tensor:
    """The number that is explained.

    Args:
        outputs: (B, K) of the network.
        targets: (B,) class indices; not looked at in a regression.
        task: the sizes.

    Returns:
        (B,).
    """
    if task.task == "regression":
        return outputs[:, 0]
    chosen = outputs.gather(1, targets[:, None])[:, 0]
    return chosen - (outputs.sum(1) - chosen) / (outputs.shape[1] - 1)


def gradient(
    network: nn.Module, images: Tensor, targets: Tensor, task: LearningTask, samples: int = 0, noise: float = 0.0, seed: int = 0
) -> Tensor:
    """How strongly the evidence reacts to each voxel: the absolute gradient, the largest over the channels.

    Args:
        network: in evaluation mode.
        images: (B, C, X, Y, Z) normalized.
        targets: (B,) class indices.
        task: the sizes.
        samples: noisy copies of each image over which gradients are averaged (SmoothGrad); 0: the image itself.
        noise: standard deviation of that noise, as a fraction of the image's range.
        seed: of the noise.

    Returns:
        (B, X, Y, Z), nowhere negative.

    Source: Simonyan et al. 2014, arXiv:1312.6034; SmoothGrad: Smilkov et al. 2017, arXiv:1706.03825.
    """
    if not samples:
        return _input_gradient(network, images, targets, task).abs().amax(1)
    # drawn on the processor: the same on every device
    draws = torch.Generator().manual_seed(seed)
    spread = noise * (images.amax((1, 2, 3, 4), keepdim=True) - images.amin((1, 2, 3, 4), keepdim=True))
    total = torch.zeros_like(images)
    for _ in range(samples):
        shake = torch.randn(images.shape, generator=draws).to(images.device)
        total += _input_gradient(network, images + spread * shake, targets, task)
    return (total / samples).abs().amax(1)


def _input_gradient(network: nn.Module, images: Tensor, targets: Tensor, task: LearningTask) -> Tensor:
    images = images.detach().clone().requires_grad_()
    score = evidence(forward(network, images, task), targets, task).sum()
    return torch.autograd.grad(score, images)[0]


def occlusion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    task: LearningTask,
    patch: Sequence[int],
    stride: Sequence[int],
    baseline: Sequence[float],
) -> Tensor:
    """How far the evidence falls when a box of the image is hidden.

    Args:
        network: in evaluation mode.
        images: (B, C, X, Y, Z) normalized.
        targets: (B,) class indices.
        task: the sizes.
        patch: edges of the box, in voxels.
        stride: distance between boxes, in voxels, at most their edges; the last box ends with the image.
        baseline: value of each channel in the box.

    Returns:
        (B, X, Y, Z): at each voxel the mean over the boxes that cover it; negative where hiding raises the evidence.

    Source: Zeiler and Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    starts = [_starts(size, edge, step) for size, edge, step in zip(task.shape, patch, stride, strict=True)]
    boxes = [tuple(slice(at, at + edge) for at, edge in zip(corner, patch, strict=True)) for corner in product(*starts)]
    hidden = torch.tensor(baseline, dtype=images.dtype, device=images.device)[:, None, None, None]
    fitting = Fitting("occlusion")
    maps = []
    with torch.no_grad():
        before = evidence(forward(network, images, task), targets, task)
        for image, target, whole in zip(images, targets, before, strict=True):

            def part(start: int, stop: int, image: Tensor = image, target: Tensor = target) -> Tensor:
                copies = image.repeat(stop - start, 1, 1, 1, 1)
                for copy, box in zip(copies, boxes[start:stop], strict=True):
                    copy[(slice(None), *box)] = hidden
                return evidence(forward(network, copies, task), target.expand(stop - start), task)

            falls = whole - torch.cat(fitting(part, len(boxes), OCCLUDED_AT_ONCE))
            total, covered = torch.zeros(2, *task.shape, device=images.device)
            for box, fall in zip(boxes, falls, strict=True):
                total[box] += fall
                covered[box] += 1
            maps.append(total / covered)
    return torch.stack(maps)


def _starts(size: int, edge: int, step: int) -> list[int]:
    """Where boxes begin along an axis, so that every voxel is covered."""
    last = max(size - edge, 0)
    return [*range(0, last, step), last]


def class_activation(network: nn.Module, images: Tensor, targets: Tensor, task: LearningTask) -> Tensor:
    """Which places of the last feature maps carry the evidence (Grad-CAM), brought to the grid of the image.

    Feature maps are weighted by the mean gradient of the evidence and summed. Of a classifier only what speaks for the class is kept;
    a regression has no class, so its maps keep their sign, as in regression activation maps.

    Args:
        network: in evaluation mode, with a convolution.
        images: (B, C, X, Y, Z) normalized.
        targets: (B,) class indices.
        task: the sizes.

    Returns:
        (B, X, Y, Z).

    Raises:
        ValueError: the network has no convolution.

    Source: Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74; for regression Wang and Yang 2017, arXiv:1703.10757.
    """
    with torch.enable_grad():
        _, features, outputs = last_features(network, images.detach().clone().requires_grad_(), task)
        score = evidence(outputs, targets, task).sum()
        slopes = torch.autograd.grad(score, features)[0]
    places = tuple(range(2, features.ndim))
    found = (slopes.mean(places, keepdim=True) * features).sum(1, keepdim=True).detach().float()
    found = found.relu() if task.task == "classification" else found
    mode = "bilinear" if task.dimensions == 2 else "trilinear"
    # on the processor: the same on every device
    upsampled = functional.interpolate(found.cpu(), size=task.shape[: task.dimensions], mode=mode, align_corners=False)[:, 0]
    return upsampled if task.dimensions == 3 else upsampled[..., None]


def last_features(network: nn.Module, images: Tensor, task: LearningTask) -> tuple[str, Tensor, Tensor]:
    """The last maps that any layer hands on, at or after a convolution, with at least `LEAST_EDGE` voxels along every axis.

    A rectifier that works in place on a layer's output is in them, since it changes the very same tensor. Where no maps are that fine,
    those of the last convolution serve.

    Args:
        network: in evaluation mode.
        images: (B, C, X, Y, Z), with gradients asked for.
        task: the sizes.

    Returns:
        Name of the layer, its maps (B, F, x, y[, z]), the outputs of the network (B, K).

    Raises:
        ValueError: the network has no convolution.
    """
    seen: list[tuple[str, Tensor]] = []
    convolved: list[tuple[str, Tensor]] = []
    least = [min(LEAST_EDGE, edge) for edge in task.shape[: task.dimensions]]

    def look(name: str, module: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 2 + task.dimensions:
            return
        if isinstance(module, CONVOLUTIONS):
            convolved.append((name, output))
        if convolved and all(edge >= most for edge, most in zip(output.shape[2:], least, strict=True)):
            seen.append((name, output))

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in network.named_modules() if name]
    try:
        outputs = forward(network, images, task)
    finally:
        for hook in hooks:
            hook.remove()
    if not convolved:
        raise ValueError("a network without convolutions has no feature maps")
    name, features = (seen or convolved)[-1]
    return name, features, outputs
