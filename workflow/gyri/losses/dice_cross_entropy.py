"""Soft Dice plus cross-entropy, for label maps."""

from __future__ import annotations

import torch
from torch import Tensor

from gyri.losses.cross_entropy import cross_entropy

ENTRIES = {"dice_cross_entropy": ("segmentation",)}

SMOOTHING = 1e-5  # Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (default of nnU-Net's and of MONAI's Dice loss)


def dice_cross_entropy(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice, the mean over the structures without background, plus the cross-entropy over all voxels; both weigh 1.

    The Dice of each structure is taken over one image, not over the batch. Background is left out of it because its Dice is near 1
    from the start; it has its share in the cross-entropy. A structure that an image lacks has a Dice near 0 as soon as any of it
    is predicted.

    Args:
        outputs: (B, K, X, Y[, Z]) logits, class 0 the background.
        targets: (B, X, Y[, Z]) integers below K.
        class_weights: (K,) factors on the cross-entropy of each true class, or None; see `cross_entropy`.

    Returns:
        (B,) losses.

    Source: Drozdzal et al. 2016, doi:10.1007/978-3-319-46976-8_19 (soft Dice with the plain sum in the denominator); Isensee et
        al. 2021, doi:10.1038/s41592-020-01008-z (the sum of both losses, background left out of the Dice).
    """
    probabilities = torch.softmax(outputs.float(), dim=1)[:, 1:].flatten(2)
    classes = torch.arange(1, outputs.shape[1], device=outputs.device)
    truth = (targets.flatten(1)[:, None, :] == classes[None, :, None]).to(probabilities.dtype)
    overlap = (probabilities * truth).sum(2)
    total = probabilities.sum(2) + truth.sum(2)
    dice = (2 * overlap + SMOOTHING) / (total + SMOOTHING)
    return 1 - dice.mean(1) + cross_entropy(outputs, targets, class_weights)
