"""Label maps scored on the original grid, in worker processes: one image with all its predictions at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.errors import DataError, GyriError, Problem
from gyri.images import SAME_GRID_MM, load_labels, verify_row
from gyri.metrics import segmentation
from gyri.progress import Progress
from gyri.tables import row_of, rows_of
from gyri.types import Affine

NAMES = (*segmentation.METRICS, *segmentation.DESCRIPTIONS)
FUNCTIONS = {name: getattr(segmentation, name) for name in NAMES}
AGAIN = "delete the predictions.tsv of this model, fold and seed and predict again"


@dataclass(frozen=True)
class Job:
    """One image and the maps that were predicted for it.

    Args:
        row: of the cohort.
        root: the folder its paths start at.
        target: path of the true label map, below root.
        options: volume and spacing that the truth is opened with.
        maps: place in the table of predictions -> map.
        structures: label value -> name.
    """

    row: dict[str, Any]
    root: Path
    target: str
    options: tuple[int | None, tuple[float, float] | None]
    maps: dict[int, Path]
    structures: dict[int, str]


def score_maps(
    table: pd.DataFrame, cohort: pd.DataFrame, facts: Mapping[str, Any], structures: dict[int, str], folder: Path, threads: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Score every predicted label map of an experiment.

    Args:
        table: predictions, with the columns image_id, target, prediction.
        cohort: cohort.tsv.
        facts: dataset.json.
        structures: label value -> name, without the background.
        folder: where the paths of `prediction` start.
        threads: worker processes.

    Returns:
        (metric, structure) -> one value per row of `table`.

    Raises:
        DataError: maps that are missing or do not fit their image: all of them.
    """
    jobs = _jobs(table, cohort, facts, structures, folder)
    values = {(name, structure): np.full(len(table), np.nan) for structure in structures.values() for name in NAMES}
    progress, problems = Progress("score label maps", len(jobs)), []
    for found, wrong in _mapped(jobs, threads):
        problems += wrong
        for place, structure, numbers in found:
            for name, number in zip(NAMES, numbers, strict=True):
                values[name, structure][place] = number
        progress.step()
    if problems:
        raise DataError(problems)
    return values


def score_image(job: Job) -> tuple[list[tuple[int, str, list[float]]], list[Problem]]:
    """Score all maps of one image.

    Returns:
        Place in the table, structure, and values in the order of `NAMES`; and what is wrong with files (an exception of ours does
        not come whole out of a worker process).
    """
    try:
        verify_row(job.row, job.root)
        truth, affine = load_labels(job.root / job.target, *job.options)
        mask = load_labels(job.root / job.row["mask"], *job.options)[0] > 0 if job.row.get("mask") else None
    except GyriError as error:
        return [], error.problems
    found, problems = [], []
    for place, path in job.maps.items():
        try:
            predicted, other = load_labels(path, None, job.options[1])
        except GyriError as error:
            problems += error.problems
            continue
        problem = _misfit(path, predicted.shape, other, truth.shape, affine, mask)
        if problem:
            problems.append(problem)
            continue
        whole = [np.rint(part).astype(np.int32) for part in (truth, predicted)]
        for name, pair in segmentation.pairs(whole[0], whole[1], job.structures, affine, mask):
            found.append((place, name, [float(function(pair)) for function in FUNCTIONS.values()]))
    return found, problems


def _jobs(
    table: pd.DataFrame, cohort: pd.DataFrame, facts: Mapping[str, Any], structures: dict[int, str], folder: Path
) -> list[Job]:
    """Gather the maps of each image; refuse all missing maps at once."""
    missing = [row for row in rows_of(table) if not (folder / row["prediction"]).is_file()]
    if missing:
        raise DataError(
            [
                Problem(
                    str(folder / row["prediction"]),
                    "no label map of {image_id} by {model}, fold {fold}, seed {seed}".format(**row),
                    "a map for every image: a failed prediction is not left out",
                    AGAIN,
                )
                for row in missing
            ]
        )
    rows = cohort.set_index("image_id", drop=False)
    options = (facts.get("volume"), facts.get("spacing_mm"))
    jobs = []
    for image_id, part in table.groupby("image_id", sort=True):
        maps = {place: folder / path for place, path in zip(part.index.tolist(), part["prediction"].tolist(), strict=True)}
        target = str(part["target"].iloc[0])
        jobs.append(Job(row_of(rows, str(image_id)), Path(facts["root"]), target, options, maps, structures))
    return jobs


def _mapped(jobs: list[Job], threads: int) -> Iterator[tuple[list[tuple[int, str, list[float]]], list[Problem]]]:
    """Results in the order of the jobs."""
    if threads == 1 or len(jobs) < 2:
        yield from map(score_image, jobs)
        return
    with ProcessPoolExecutor(min(threads, len(jobs))) as pool:
        yield from pool.map(score_image, jobs, chunksize=4)


def _misfit(
    path: Path, shape: tuple[int, ...], other: Affine, wanted: tuple[int, ...], affine: Affine, mask: NDArray[Any] | None
) -> Problem | None:
    """Say where grids differ."""
    if shape != wanted or not np.allclose(other, affine, rtol=0, atol=SAME_GRID_MM):
        got = f"the grid {shape}" + ("" if shape != wanted else " with another affine")
        return Problem(str(path), got, f"the grid of the true label map, {wanted}", AGAIN)
    if mask is not None and mask.shape != wanted:
        return Problem(str(path), f"a mask of shape {mask.shape}", f"the grid of the label map, {wanted}", "mend the mask")
    return None
