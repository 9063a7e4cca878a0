"""Which parameters decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and the scales and shifts of normalizations, which have one axis, do not.

    Args:
        parameters: of a network, in its order.
        weight_decay: of the weights.

    Returns:
        Parameter groups for an optimizer; a group without parameters is left out.

    Source: He et al. 2019, doi:10.1109/CVPR.2019.00065, section 3.1.
    """
    given = [parameter for parameter in parameters if parameter.requires_grad]
    weights = [parameter for parameter in given if parameter.ndim > 1]
    others = [parameter for parameter in given if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
