"""The validation of an epoch: loss and one metric per task, on the network grid.

These numbers choose an epoch and draw the learning curves; those of the report are computed by `evaluate` on the original grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gyri.memory import Fitting
from gyri.models.forward import forward
from gyri.train.job import Job
from gyri.train.samples import Samples

# what chooses the epoch, and whether more (1) or less (-1) of it is better. The loss is finer than accuracy or AUROC on a few dozen
# validation images; for label images Dice is what is wanted, and thousands of voxels make it fine enough.
BETTER = {"segmentation": ("validation_dice", 1), "classification": ("validation_loss", -1), "regression": ("validation_loss", -1)}


@torch.no_grad()
def validate(
    job: Job,
    network: nn.Module,
    samples: Samples,
    criterion: Callable[..., torch.Tensor],
    precision: str,
    size: int,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:
    """Loss and metric over the validation images.

    Args:
        job: settings and data.
        network: on the device of the samples.
        samples: validation.
        criterion: the loss, one value per image.
        precision: float32 or bfloat16.
        size: images per step, if they fit.
        between: called after each step; what it raises ends the validation.

    Returns:
        validation_loss, and validation_dice (mean over images and structures), or validation_auroc (mean of one class against the
        rest) and validation_accuracy, or validation_mae in the unit of the target; None where undefined.
    """
    network.eval()

    def step(start: int, stop: int) -> tuple[float, NDArray[Any], NDArray[Any]]:
        images, targets = samples.batch(np.arange(start, stop))
        with torch.autocast(samples.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            found = forward(network, images, job.task)
        found = found.float()
        loss = float(criterion(found, targets).double().sum())
        truth = targets.cpu().numpy() if job.target.task != "segmentation" else np.empty(0)
        summary = _summary(job, found, targets)
        between()
        return loss, summary, truth

    losses, outputs, truth = zip(*Fitting(f"{job.title}, validation")(step, len(samples), size), strict=True)
    results = np.concatenate(outputs)
    mean = sum(losses, 0.0) / len(samples)
    return {"validation_loss": mean if math.isfinite(mean) else None, **_metrics(job, results, np.concatenate(truth))}


def _summary(job: Job, outputs: torch.Tensor, targets: torch.Tensor) -> NDArray[Any]:
    """What the metric needs of a batch: Dice per image and structure, probabilities, or values."""
    if job.target.task == "segmentation":
        return dice(outputs.argmax(1), targets, outputs.shape[1]).cpu().numpy()
    return (outputs.softmax(1) if job.target.task == "classification" else outputs).cpu().numpy()


def _metrics(job: Job, results: NDArray[Any], truth: NDArray[Any]) -> dict[str, float | None]:
    if job.target.task == "segmentation":
        return {"validation_dice": None if np.isnan(results).all() else float(np.nanmean(results))}
    if job.target.task == "classification":
        scores = [auroc(truth == index, results[:, index]) for index in range(results.shape[1])]
        defined = [score for score in scores if score is not None]
        mean = float(np.mean(defined)) if defined else None
        return {"validation_auroc": mean, "validation_accuracy": float((results.argmax(1) == truth).mean())}
    return {"validation_mae": float(np.abs(results - truth).mean() * job.target_scale()[1])}


def dice(found: torch.Tensor, truth: torch.Tensor, count: int) -> torch.Tensor:
    """Dice of each image and structure.

    Args:
        found, truth: label indices (B, X, Y, Z).
        count: number of labels with the background.

    Returns:
        (B, count - 1) float64; not a number where a structure is absent from both.

    Source: Dice, Measures of the amount of ecologic association between species, Ecology 1945.
    """
    columns = []
    for label in range(1, count):
        one, other = (found == label).flatten(1), (truth == label).flatten(1)
        columns.append(2 * (one & other).sum(1).double() / (one.sum(1) + other.sum(1)).double())
    return torch.stack(columns, 1)


def auroc(positive: NDArray[np.bool_], score: NDArray[Any]) -> float | None:
    """Area under the ROC curve by ranks, ties counted half; None where one class is absent.

    Source: Hanley and McNeil, Radiology 1982.
    """
    count, rest = int(positive.sum()), int((~positive).sum())
    if not count or not rest:
        return None
    _, place, repeats = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(repeats) - (repeats - 1) / 2)[place]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))
