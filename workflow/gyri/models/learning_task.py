"""What a network or baseline is told of the task it is built for."""

from __future__ import annotations

from dataclasses import dataclass

from gyri.types import Shape3


@dataclass(frozen=True)
class LearningTask:
    """The sizes and the task.

    Args:
        task: classification, regression or segmentation.
        in_channels: channels of the input.
        shape: (X, Y, Z) in voxels; Z = 1 means 2D.
        n_outputs: number of classes (classification), labels with background (segmentation), or targets (regression: 1).
    """

    task: str
    in_channels: int
    shape: Shape3
    n_outputs: int

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return 2 if self.shape[2] == 1 else 3
