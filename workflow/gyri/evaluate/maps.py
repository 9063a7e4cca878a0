"""Label maps scored on the original grid, in worker processes: one image with all its predictions at a time.

Twice where that is needed: once as they are, and with every kind of post-processing tried on validation images; then, post-processed
as was chosen there, the test images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.experiments import Evaluation
from gyri.errors import DataError, GyriError, Problem
from gyri.images import SAME_GRID_MM, load_labels, verify_row
from gyri.metrics import postprocessing, segmentation
from gyri.metrics.segmentation import Pair
from gyri.progress import Progress
from gyri.tables import row_of, rows_of
from gyri.types import Affine

NAMES = (*segmentation.METRICS, *segmentation.DESCRIPTIONS)
FUNCTIONS = {name: getattr(segmentation, name) for name in NAMES}
PROCESSED = {name: getattr(postprocessing, name) for name in postprocessing.METRICS}
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
        evaluation: tolerance and kinds of post-processing.
        tried: places for which every kind of post-processing is tried.
        chosen: place -> structure -> kind of post-processing, in the second round.
    """

    row: dict[str, Any]
    root: Path
    target: str
    options: tuple[int | None, tuple[float, float] | None]
    maps: dict[int, Path]
    structures: dict[int, str]
    evaluation: Evaluation
    tried: frozenset[int] = frozenset()
    chosen: dict[int, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MapScores:
    """What was measured of every row of a table of predictions.

    Args:
        values: (metric, structure) -> (rows,).
        tried: (kind of post-processing, structure) -> (rows,) Dice; NaN where it was not tried.
        jobs: to look at the maps again.
    """

    values: dict[tuple[str, str], NDArray[np.float64]]
    tried: dict[tuple[str, str], NDArray[np.float64]]
    jobs: list[Job]


Found = list[tuple[int, str, list[float], list[float]]]


def score_maps(
    table: pd.DataFrame,
    cohort: pd.DataFrame,
    facts: Mapping[str, Any],
    structures: dict[int, str],
    folder: Path,
    evaluation: Evaluation,
    threads: int,
) -> MapScores:
    """Score every predicted label map of an experiment.

    Args:
        table: predictions, with the columns image_id, target, prediction.
        cohort: cohort.tsv.
        facts: dataset.json.
        structures: label value -> name, without the background.
        folder: where the paths of `prediction` start.
        evaluation: tolerance and kinds of post-processing.
        threads: worker processes.

    Returns:
        Values as the maps are, and the Dice of every kind of post-processing of the validation images.

    Raises:
        DataError: maps that are missing or do not fit their image: all of them.
    """
    jobs = _jobs(table, cohort, facts, structures, folder, evaluation)
    kinds = postprocessing.names(evaluation.minimum_component_mm3)
    values = {(name, structure): np.full(len(table), np.nan) for structure in structures.values() for name in NAMES}
    tried = {(kind, structure): np.full(len(table), np.nan) for structure in structures.values() for kind in kinds}
    for place, structure, numbers, dices in _all(jobs, score_image, "score label maps", threads):
        for name, number in zip(NAMES, numbers, strict=True):
            values[name, structure][place] = number
        for kind, number in zip(kinds, dices, strict=False):
            tried[kind, structure][place] = number
    return MapScores(values, tried, jobs)


def score_processed(found: MapScores, choices: dict[str, list[str]], threads: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Score the maps again, post-processed as was chosen.

    Args:
        found: of the maps as they are.
        choices: structure -> kind of post-processing per row; "" where none was chosen, which has no value.
        threads: worker processes.

    Returns:
        (metric, structure) -> (rows,), of the metrics of `gyri.metrics.postprocessing`.
    """
    values = {}
    for structure, kinds in choices.items():
        unchanged = np.array([kind == postprocessing.NONE for kind in kinds])
        for name in PROCESSED:
            values[name, structure] = np.where(unchanged, found.values[name.removesuffix("_postprocessed"), structure], np.nan)
    again = []
    for job in found.jobs:
        wanted = {place: {name: kinds[place] for name, kinds in choices.items()} for place in job.maps}
        chosen = {
            place: {name: kind for name, kind in row.items() if kind not in ("", postprocessing.NONE)}
            for place, row in wanted.items()
        }
        chosen = {place: row for place, row in chosen.items() if row}
        if chosen:
            again.append(replace(job, maps={place: job.maps[place] for place in chosen}, chosen=chosen))
    for place, structure, numbers, _ in _all(again, score_image_processed, "score post-processed label maps", threads):
        for name, number in zip(PROCESSED, numbers, strict=True):
            values[name, structure][place] = number
    return values


def score_image(job: Job) -> tuple[Found, list[Problem]]:
    """Score all maps of one image.

    Returns:
        Place in the table, structure, values in the order of `NAMES`, Dice after every kind of post-processing where they are tried;
        and what is wrong with files (an exception of ours does not come whole out of a worker process).
    """

    def measure(place: int, name: str, pair: Pair) -> list[tuple[list[float], list[float]]]:
        dices = []
        if place in job.tried:
            dices = [segmentation.dice(item) for _, item in postprocessing.candidates(pair, job.evaluation.minimum_component_mm3)]
        return [([float(function(pair)) for function in FUNCTIONS.values()], dices)]

    return _scored(job, measure)


def score_image_processed(job: Job) -> tuple[Found, list[Problem]]:
    """Score the maps of one image after the chosen post-processing: as `score_image`, values in the order of `PROCESSED`."""

    def measure(place: int, name: str, pair: Pair) -> list[tuple[list[float], list[float]]]:
        kind = job.chosen[place].get(name)
        if kind is None:
            return []
        item = dict(postprocessing.candidates(pair, job.evaluation.minimum_component_mm3))[kind]
        return [([float(function(item)) for function in PROCESSED.values()], [])]

    return _scored(job, measure)


def _scored(job: Job, measure: Callable[[int, str, Pair], list[tuple[list[float], list[float]]]]) -> tuple[Found, list[Problem]]:
    """Open the truth and every map of an image and measure each structure."""
    try:
        verify_row(job.row, job.root)
        truth, affine = load_labels(job.root / job.target, *job.options)
        mask = load_labels(job.root / job.row["mask"], *job.options)[0] > 0 if job.row.get("mask") else None
    except GyriError as error:
        return [], error.problems
    found: Found = []
    problems: list[Problem] = []
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
        tolerance = job.evaluation.surface_tolerance_mm
        for name, pair in segmentation.pairs(whole[0], whole[1], job.structures, affine, mask, tolerance):
            found += [(place, name, *numbers) for numbers in measure(place, name, pair)]
    return found, problems


def _jobs(
    table: pd.DataFrame,
    cohort: pd.DataFrame,
    facts: Mapping[str, Any],
    structures: dict[int, str],
    folder: Path,
    evaluation: Evaluation,
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
        tried = frozenset(part.index[part["role"] == "validation"].tolist())
        row = row_of(rows, str(image_id))
        jobs.append(Job(row, Path(facts["root"]), target, options, maps, structures, evaluation, tried))
    return jobs


def _all(
    jobs: list[Job], score: Callable[[Job], tuple[Found, list[Problem]]], words: str, threads: int
) -> Iterator[tuple[int, str, list[float], list[float]]]:
    """What is found of all jobs, in their order.

    Raises:
        DataError: all that is wrong with files.
    """
    progress, problems = Progress(words, len(jobs)), []
    for found, wrong in _mapped(jobs, score, threads):
        problems += wrong
        yield from found
        progress.step()
    if problems:
        raise DataError(problems)


def _mapped(
    jobs: list[Job], score: Callable[[Job], tuple[Found, list[Problem]]], threads: int
) -> Iterator[tuple[Found, list[Problem]]]:
    """Results in the order of the jobs."""
    if threads == 1 or len(jobs) < 2:
        yield from map(score, jobs)
        return
    with ProcessPoolExecutor(min(threads, len(jobs))) as pool:
        yield from pool.map(score, jobs, chunksize=4)


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
