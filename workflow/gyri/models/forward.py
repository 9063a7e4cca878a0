"""Calling a network: planes lose their empty third axis on the way in and get it back on the way out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from gyri.device import choose_precision
from gyri.errors import ConfigError, Problem
from gyri.models.learning_task import LearningTask


def forward(network: nn.Module, images: torch.Tensor, task: LearningTask) -> torch.Tensor:
    """Run a network on a batch.

    Args:
        network: takes (B, C, X, Y, Z), or (B, C, X, Y) where the task is 2D.
        images: (B, C, X, Y, Z), Z = 1 where the task is 2D.
        task: the sizes.

    Returns:
        (B, n_outputs), or (B, n_outputs, X, Y, Z) for segmentation.
    """
    if task.dimensions == 3:
        return network(images.to(memory_format=torch.channels_last_3d))
    outputs = network(images[..., 0].to(memory_format=torch.channels_last))
    return outputs[..., None] if outputs.ndim == 4 else outputs


def settle_precision(
    wanted: Literal["auto", "float32", "bfloat16"], device: torch.device, network: nn.Module, task: LearningTask
) -> Literal["float32", "bfloat16"]:
    """What a network's convolutions compute in: as `choose_precision` says, but float32 where bfloat16 gives wrong gradients.

    On processors the weight gradient of a 3D convolution in bfloat16 is wrong where its input is thinner along X than the kernel is wide,
    and not a single voxel (`tests/test_device.py` shows it for torch 2.13.0: errors of any size, from uninitialized memory).

    Args:
        wanted: the setting.
        device: where.
        network: on that device; it is run once on zeros.
        task: the sizes.

    Raises:
        ConfigError: bfloat16 is asked for and would be wrong.
    """
    precision = choose_precision(wanted, device)
    if precision == "float32" or device.type != "cpu" or not _has_thin_convolution(network, device, task):
        return precision
    if wanted == "bfloat16":
        got = "bfloat16 on a processor, with 3D convolutions on maps thinner than their kernels"
        remedy = "take precision: auto or float32, larger images (`shape`), or fewer halvings"
        raise ConfigError(Problem("training.precision", got, "gradients that are right", remedy))
    return "float32"


def _has_thin_convolution(network: nn.Module, device: torch.device, task: LearningTask) -> bool:
    """Whether any 3D convolution sees an input thinner along its first axis than its kernel, but not of one voxel."""
    found: list[bool] = []

    def look(module: nn.Conv3d, inputs: tuple[torch.Tensor]) -> None:
        found.append(1 < inputs[0].shape[2] < module.kernel_size[0])

    hooks = [module.register_forward_pre_hook(look) for module in network.modules() if isinstance(module, nn.Conv3d)]
    training = network.training
    network.eval()
    with torch.no_grad():
        forward(network, torch.zeros(1, task.in_channels, *task.shape, device=device), task)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return any(found)
