"""Cross-entropy of class probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

ENTRIES = {"cross_entropy": ("classification", "segmentation")}


def cross_entropy(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Negative logarithm of the probability of the true class; for label maps the mean over voxels.

    Args:
        outputs: (B, K) or (B, K, X, Y[, Z]) logits.
        targets: (B,) or (B, X, Y[, Z]) integers below K.
        class_weights: (K,) factors on the loss of each true class, or None. They are not normalized within a batch: weights whose
            mean over the training images is 1 leave the size of the loss as it was.

    Returns:
        (B,) losses.
    """
    # gather instead of nll_loss, whose spatial form has no deterministic kernel on CUDA.
    # Source: https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
    index = targets.long()
    losses = -torch.log_softmax(outputs.float(), dim=1).gather(1, index[:, None]).squeeze(1)
    if class_weights is not None:
        losses = losses * class_weights.to(losses)[index]
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses
