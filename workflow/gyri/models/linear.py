"""The classical baseline: a linear model of voxels."""

from __future__ import annotations

import numpy as np

from gyri.models.arguments import Checks
from gyri.models.baseline import Baseline
from gyri.models.learning_task import LearningTask
from gyri.models.linear_images import LinearImages
from gyri.models.linear_voxels import LinearVoxels

ENTRIES = {"linear": ("classification", "regression", "segmentation")}
TRAINED = False


def linear(task: LearningTask, generator: np.random.Generator, *, samples: int = 50_000) -> Baseline:
    """Build the linear baseline of a task.

    Classification: L2-regularized logistic regression on all voxels of the image; regression: ridge regression on them;
    segmentation: multinomial logistic regression of each voxel's label on its intensities and its place. The strength of the
    regularization is chosen on the validation participants, from a fixed grid.

    Args:
        task: what to predict, and the sizes.
        generator: draws the training voxels (segmentation).
        samples: number of training voxels (segmentation), over all images and labels.

    Raises:
        ConfigError: an argument that cannot be.

    Source: Wen et al. 2020, doi:10.1016/j.media.2020.101694: none of their networks beat a linear model of voxels.
    """
    checks = Checks("linear")
    checks.integer("samples", samples, 100)
    checks.close()
    return LinearVoxels(task, generator, samples) if task.task == "segmentation" else LinearImages(task)
