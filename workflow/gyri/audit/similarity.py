"""How alike the images of a cohort are, pair by pair, in blocks of rows so that memory grows linearly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.audit.descriptors import SAME_STEP, Descriptor

BLOCK_COMPONENTS = 40  # principal components of the blocks that count; see benchmarks/same_person.md
PER_COMPONENT = 5  # images needed for each component
CLIP = 4.0  # robust z-scores are cut off here
SHARED_STEP = 4  # a step that more images share is a convention of the data set, not the mark of one scan
SAME_SCAN = 4.0  # added to the similarity (at most 2) of two images with the same step
ROWS = 256

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Similarity:
    """Similarity of all pairs of images, computed when asked for.

    Args:
        summary, blocks: unit vectors of each image, (N, P) and (N, Q): whitened descriptors.
        raw_blocks: unit vectors of each image's blocks before anything is taken off (N, B).
        cohort_blocks: the same after the cohort's mean image is taken off.
        steps: number of the value step that an image shares with a few others, -1 for none (N).
        groups: group number of each image (N).
    """

    summary: Matrix
    blocks: Matrix
    raw_blocks: Matrix
    cohort_blocks: Matrix
    steps: NDArray[np.int64]
    groups: NDArray[np.int64]

    def rows(self) -> Iterator[tuple[int, Matrix, Matrix]]:
        """Yield (first row, similarity in content (rows, N), what the value step adds to it).

        The first is minus infinity between images of one group.
        """
        for first in range(0, len(self.groups), ROWS):
            part = slice(first, first + ROWS)
            content = self.summary[part] @ self.summary.T + self.blocks[part] @ self.blocks.T
            same_scan = (self.steps[part, None] == self.steps[None]) & (self.steps[part, None] >= 0)
            content[self.groups[part, None] == self.groups[None]] = -np.inf
            yield first, content, np.float32(SAME_SCAN) * same_scan


def build(descriptors: list[Descriptor], groups: list[str]) -> Similarity:
    """Prepare the similarity of a cohort.

    Args:
        descriptors: one per image, all of one length.
        groups: group of each image.

    Returns:
        The similarity: the cosine of the whitened summaries plus the cosine of the whitened blocks (each from -1 to 1), plus
        `SAME_SCAN` where two images share the value step.
    """
    summary = _robust(np.stack([each.summary for each in descriptors]).astype(np.float64))
    blocks = np.stack([each.blocks for each in descriptors]).astype(np.float64)
    raw = np.where(np.isfinite(blocks), blocks, 0.0)
    blocks = _filled(blocks)
    kept = max(1, min(BLOCK_COMPONENTS, len(descriptors) // PER_COMPONENT))
    centre = blocks.mean(axis=0) if len(blocks) > 2 else 0.0  # of two images the mean would make opposites
    return Similarity(
        _unit(_whitened(summary, max(1, min(summary.shape[1], len(descriptors) // PER_COMPONENT)))),
        _unit(_whitened(blocks, kept)),
        _unit(raw - raw.mean(axis=1, keepdims=True)),
        _unit(blocks - centre),
        shared_steps([each.step for each in descriptors]),
        np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64),
    )


def shared_steps(steps: list[float]) -> NDArray[np.int64]:
    """Number the value steps that two to `SHARED_STEP` images have in common.

    Args:
        steps: value step of each image, 0 for none.

    Returns:
        The same number for images with the same step, -1 for all others.
    """
    numbers = np.full(len(steps), -1, np.int64)
    order = [index for index in np.argsort(np.array(steps), kind="stable") if steps[index] > 0]
    runs: list[list[int]] = []
    for index in order:
        if runs and steps[index] <= steps[runs[-1][-1]] * (1 + SAME_STEP):
            runs[-1].append(int(index))
        else:
            runs.append([int(index)])
    for number, run in enumerate(run for run in runs if 2 <= len(run) <= SHARED_STEP):
        numbers[run] = number
    return numbers


def _robust(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """z-scores by median and median absolute deviation, cut off; what is unknown counts as the median."""
    values = _filled(values)
    distance = values - np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(distance), axis=0)
    deviation = distance.std(axis=0)
    spread = np.where(spread > 1e-6 * deviation, spread, deviation)
    return np.clip(distance / np.where(spread > 0, spread, 1.0), -CLIP, CLIP)


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unknown entries replaced by the median of their column (0 where the whole column is unknown)."""
    known = np.isfinite(values)
    if known.all():
        return values
    columns = np.ma.median(np.ma.array(values, mask=~known), axis=0)
    return np.where(known, values, np.ma.filled(columns, 0.0))


def _whitened(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Scores on the first principal components, each with variance 1."""
    left, size, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    kept = min(count, int((size > 1e-6 * max(float(size[0]), 1e-30)).sum()))
    return left[:, : max(kept, 1)]


def _unit(values: NDArray[np.float64]) -> Matrix:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1.0)).astype(np.float32)
