"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from gyri.optimizers.groups import decay_groups

ENTRIES = {"adamw": ("classification", "regression", "segmentation")}


def adamw(parameters: Iterable[Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Make an AdamW optimizer; biases and normalizations do not decay.

    Args:
        parameters: of a network.
        learning_rate: before any schedule.
        weight_decay: multiplied by the learning rate at every step.

    Source: Loshchilov and Hutter 2019, https://openreview.net/forum?id=Bkg6RiCqY7
    """
    # fused: one kernel for all parameters; the same bytes at every run
    return torch.optim.AdamW(decay_groups(parameters, weight_decay), lr=learning_rate, fused=True)
