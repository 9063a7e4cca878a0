"""The gradients of one batch: in one go where it fits, else in parts that are added up.

In parts the update is mathematically the same only if every image is treated by itself: no statistics over the batch, no random
draws inside the network, one loss per image. This is tried out on the network itself, not read off its layers; a network that fails
is marked (`changed_batch`), and later stages do not compare it with others unless they are told to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gyri.memory import first_line, halved
from gyri.models.forward import forward
from gyri.models.learning_task import LearningTask
from gyri.progress import log
from gyri.seeds import derive_seed
from gyri.train.job import Job
from gyri.train.samples import Samples
from gyri.train.state import TrainingState
from gyri.transforms import augmentation

# of the largest output; rounding (TF32 too) stays far below, and statistics of two images of other contrast far above
TOLERANCE = 1e-2


class Gradients:
    """Computes the gradients of batches.

    Args:
        job: settings and data.
        state: the network; how many images fit at once is kept there, so that it goes into checkpoints.
        samples: training images.
        criterion: the loss, one value per image.
        precision: float32 or bfloat16.
    """

    def __init__(self, job: Job, state: TrainingState, samples: Samples, criterion: Callable[..., Tensor], precision: str):
        self.job, self.state, self.samples, self.criterion, self.precision = job, state, samples, criterion, precision

    def limit(self, images: int) -> None:
        """Take no more images at once from now on, and find out what that changes."""
        self.state.micro_batch = images
        if self.state.changed_batch:
            return
        pair = self.samples.batch(np.arange(2))
        self.state.changed_batch = not separable(self.state.network, self.criterion, self.job.task, *pair)
        if self.state.changed_batch:
            log(f"{self.job.title}: this network does not treat every image by itself, so it is marked (changed_batch)")

    def compute(self, indices: NDArray[Any]) -> Tensor:
        """Leave the gradients of a batch in the network, halving what is taken at once until it fits.

        Args:
            indices: positions among the training images.

        Returns:
            The mean loss.

        Raises:
            DataError: not even a single image fits.
        """
        while True:
            buffers = [buffer.clone() for buffer in self.state.network.buffers()]  # a failed attempt moves running statistics
            try:
                return self._attempt(indices)
            except torch.OutOfMemoryError as error:
                reason = first_line(error)
            # after the except clause, whose traceback keeps what was computed so far
            self.state.optimizer.zero_grad(set_to_none=True)
            _put_back(self.state.network, buffers)
            tried = min(self.state.micro_batch or len(indices), len(indices))
            self.limit(halved(tried, f"{self.job.title}, step {self.state.step + 1}", reason))
            self.state.out_of_memory.append({"step": self.state.step + 1, "micro_batch": tried // 2})

    def _attempt(self, indices: NDArray[Any]) -> Tensor:
        """One pass; all draws are those of the step, whatever was tried before."""
        torch.manual_seed(derive_seed(*self.job.identity, "step", self.state.step))
        self.state.optimizer.zero_grad(set_to_none=True)
        images, targets = self.samples.batch(indices)
        images, targets = augment(self.job, images, targets, self.state.step)
        size, most = len(indices), self.state.micro_batch or len(indices)
        if most >= size:
            error = self._losses(images, targets).mean()
            error.backward()
            return error.detach()
        total = torch.zeros((), device=images.device)
        for places in np.array_split(np.arange(size), -(-size // most)):
            part = slice(places[0], places[-1] + 1)
            error = self._losses(images[part], targets[part]).mean() * (len(places) / size)
            error.backward()
            total += error.detach()
        return total

    def _losses(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = forward(self.state.network, images, self.job.task)
        return self.criterion(outputs.float(), targets)


def augment(job: Job, images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Change a batch at random, on its device; label images move with their images."""
    settings = job.settings.augmentation
    if settings is None:
        return images, targets
    # drawn on the processor: the same on every device
    draws = torch.Generator().manual_seed(derive_seed(*job.identity, "augmentation", step))
    labels = targets if job.target.task == "segmentation" else None
    images, labels = augmentation.apply(images, labels, augmentation.draw(settings, images.shape, draws))
    return images, targets if labels is None else labels


@torch.no_grad()
def separable(network: nn.Module, criterion: Callable[..., Tensor], task: LearningTask, images: Tensor, targets: Tensor) -> bool:
    """Whether a network in training treats every image by itself: alone as with another one, with no draws and no running statistics.

    Args:
        network: not changed.
        criterion: the loss.
        task: the sizes.
        images: two of them; the second is changed in contrast, so that statistics of both together differ from those of each.
        targets: theirs.

    Returns:
        False also where two images do not fit into the memory at once, so that it cannot be tried.
    """
    images = torch.cat([images[:1], 3 * images[1:] + 1])
    device, training = images.device, network.training
    buffers = [buffer.clone() for buffer in network.buffers()]
    generators = _generators(device)
    network.train()
    try:
        together = forward(network, images, task).float()
        drew = any(not torch.equal(*pair) for pair in zip(generators, _generators(device), strict=True))
        moved = any(not torch.equal(*pair) for pair in zip(buffers, network.buffers(), strict=True))
        alone = torch.cat([forward(network, image, task).float() for image in images.split(1)])
        losses = criterion(together, targets)
        each = torch.cat([criterion(together[index : index + 1], targets[index : index + 1]).reshape(-1) for index in range(2)])
    except torch.OutOfMemoryError:
        return False
    finally:
        _put_back(network, buffers)
        network.train(training)
    return not drew and not moved and _close(together, alone) and losses.shape == each.shape and _close(losses, each)


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())


def _generators(device: torch.device) -> list[Tensor]:
    """States of the random generators that a network on this device draws from."""
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found


@torch.no_grad()
def _put_back(network: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, before in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(before)
