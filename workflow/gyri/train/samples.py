"""Batches of images and targets on the device."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gyri.device import free_memory
from gyri.train.job import Job

RESIDENT_FRACTION = 0.25  # of the free memory of the device
READ_AT_ONCE = 16  # images


class Samples:
    """The images and targets of one role: kept on the device where they fit, else read batch by batch. Both give the same bytes.

    Args:
        job: settings and data.
        role: train or validation.
        device: where batches go.
        resident: whether to keep all of them on the device; decided by the free memory where None.
    """

    def __init__(self, job: Job, role: str, device: torch.device, resident: bool | None = None):
        self.device, self.images, self.task = device, job.images(role), job.task
        self.scale = job.target_scale()
        voxels = len(self.images) * int(np.prod(job.task.shape))
        if resident is None:
            resident = voxels * (4 * job.task.in_channels + 1) <= RESIDENT_FRACTION * free_memory(device)
        self.kept: tuple[torch.Tensor, torch.Tensor] | None = None
        if resident:
            # another process on this device may take the memory in between
            with contextlib.suppress(torch.OutOfMemoryError):
                self.kept = self._read_all()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Some images and their targets.

        Args:
            indices: positions among the rows of the role.

        Returns:
            (B, C, X, Y, Z) float32 normalized; and class indices (B,) int64, label indices (B, X, Y, Z) int64, or standardized
            values (B, 1) float32.
        """
        if self.kept is None:
            images, targets = self._read(np.asarray(indices))
        else:
            place = torch.from_numpy(np.asarray(indices)).to(self.device)
            images, targets = (kept[place] for kept in self.kept)
        return images, targets if targets.is_floating_point() else targets.long()

    def _read(self, indices: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        targets = self.images.labels(indices) if self.task.task == "segmentation" else self.images.targets[indices]
        if self.task.task == "regression":
            mean, deviation = self.scale
            targets = ((targets - mean) / deviation).astype(np.float32)[:, None]
        return torch.from_numpy(self.images.batch(indices)).to(self.device), torch.from_numpy(targets).to(self.device)

    def _read_all(self) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self._read(np.arange(start, min(start + READ_AT_ONCE, len(self)))) for start in range(0, len(self), READ_AT_ONCE)]
        return torch.cat([images for images, _ in parts]), torch.cat([targets for _, targets in parts])
