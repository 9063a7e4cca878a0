"""Mean squared error of continuous targets."""

from __future__ import annotations

from torch import Tensor

ENTRIES = {"mean_squared_error": ("regression",)}


def mean_squared_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Squared difference, the mean over the values of an image.

    Args:
        outputs: (B, n) values.
        targets: (B, n) values, or (B,) where n is 1.
        class_weights: must be None: there are no classes.

    Returns:
        (B,) losses.

    Raises:
        ValueError: class weights, or targets of another shape (which would broadcast silently).
    """
    if class_weights is not None:
        raise ValueError("mean_squared_error knows no class weights")
    expected = outputs.float().flatten(1)
    given = targets.float().reshape(len(targets), -1)
    if given.shape != expected.shape:
        raise ValueError(f"outputs of shape {tuple(outputs.shape)}, targets of shape {tuple(targets.shape)}")
    return (expected - given).square().mean(1)
