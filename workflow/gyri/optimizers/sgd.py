"""Stochastic gradient descent with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from gyri.optimizers.groups import decay_groups

ENTRIES = {"sgd": ("classification", "regression", "segmentation")}

MOMENTUM = 0.9  # Source: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html


def sgd(parameters: Iterable[Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Make an optimizer that descends with Nesterov momentum; biases and normalizations do not decay.

    Args:
        parameters: of a network.
        learning_rate: before any schedule.
        weight_decay: added to the gradient as weight_decay x weight.
    """
    groups = decay_groups(parameters, weight_decay)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=MOMENTUM, nesterov=True, fused=True)
