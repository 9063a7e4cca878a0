"""Stage preprocess: every image on one grid and one intensity scale, in one packed store.

Per-image operations only, so that the store depends on no split. Worker processes write their rows straight into the files;
nothing but small records comes back, so memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri import images
from gyri.config.datasets import PreprocessSettings
from gyri.errors import DataError, Problem
from gyri.io import atomic, read_json, write_json
from gyri.layout import Layout
from gyri.progress import Progress
from gyri.transforms.features import image_features, names
from gyri.transforms.packing import allocate, sha256_row, write_row
from gyri.transforms.prepare import extent, header_extent, prepare, same_grid
from gyri.types import Affine, LabelMap, Shape3
from gyri.warned import join, shared

SHAPE_MULTIPLE = 8  # three halvings, as most encoders do
QUEUED_PER_WORKER = 4
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """What a worker needs to prepare any row.

    Args:
        facts: dataset.json.
        labels: label columns, and "mask" last where the dataset has masks.
        label_type: uint8 or uint16.
        settings: what to do; the shape may still be open in the first pass.
        images: file of the packed images, once there is one.
        packed_labels: file of the packed labels, once there is one.
    """

    facts: Mapping[str, Any]
    labels: tuple[str, ...]
    label_type: str
    settings: PreprocessSettings
    images: Path = Path()
    packed_labels: Path = Path()


Task = Callable[[Job, int, Row], Any]


def run(settings: PreprocessSettings, layout: Layout, dataset: str, threads: int) -> dict[str, Any]:
    """Write images.npy, labels.npy, features.tsv and images.json.

    Args:
        settings: what is done to each image.
        layout: where files lie.
        dataset: its name.
        threads: worker processes; the bytes do not depend on them.

    Returns:
        Facts for provenance: images, shape, bytes.

    Raises:
        DataError: every image that cannot be prepared, all at once.
    """
    facts = read_json(layout.dataset(dataset, "dataset.json"))
    rows = _rows(layout, dataset)
    job = Job(facts, _label_names(rows[0], facts), _label_type(facts), settings)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(_workers(min(threads, len(rows))))
        if settings.shape is None:
            shape = common_shape(_run_all(pool, _measure, job, rows, "image sizes"))
            job = replace(job, settings=settings.model_copy(update={"shape": shape}))
        shape = job.settings.shape or (0, 0, 0)
        packed = stack.enter_context(atomic(layout.dataset(dataset, "images.npy")))
        packed_labels = stack.enter_context(atomic(layout.dataset(dataset, "labels.npy")))
        size = allocate(packed, (len(rows), len(facts["channels"]), *shape), "<f2")
        size += allocate(packed_labels, (len(rows), len(job.labels), *shape), np.dtype(job.label_type).str)
        job = replace(job, images=packed, packed_labels=packed_labels)
        records = _run_all(pool, _write, job, rows, "preprocess")
        # a manifest must never stand beside arrays that are not its own
        layout.dataset(dataset, "images.json").unlink(missing_ok=True)
    _write_features(layout, dataset, records, list(facts["channels"]))
    manifest = {
        "shape": list(shape),
        "channels": list(facts["channels"]),
        "labels": list(job.labels),
        "settings": job.settings.model_dump(mode="json"),
        "rows": records,
    }
    write_json(layout.dataset(dataset, "images.json"), manifest)
    return {"images": len(rows), "shape": list(shape), "bytes": size}


def common_shape(sizes: list[Shape3]) -> Shape3:
    """The smallest shape that holds all, rounded up to a multiple of 8; planes (Z = 1) stay planes."""
    x, y, z = (max(size[axis] for size in sizes) for axis in range(3))
    x, y, z = (edge if edge == 1 else -(-edge // SHAPE_MULTIPLE) * SHAPE_MULTIPLE for edge in (x, y, z))
    return x, y, z


def _rows(layout: Layout, dataset: str) -> list[dict[str, Any]]:
    """The rows of the cohort that are not excluded, sorted by image_id."""
    from gyri.tables import read_table, rows_of  # pandas: workers import this module and need no tables

    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort")
    excluded = read_table(layout.dataset(dataset, "excluded.tsv"), "excluded")
    kept = cohort[~cohort["image_id"].isin(set(excluded["image_id"]))].sort_values("image_id")
    if kept.empty:
        where, got = str(layout.dataset(dataset, "excluded.tsv")), f"all {len(cohort)} images are excluded"
        raise DataError(Problem(where, got, "at least one image", "mend the images, see audit.tsv"))
    columns = ["image_id", "participant_id", "group", "sha256_file", "sha256_labels", "mask"]
    names = [*columns, *images.channel_columns(cohort.columns), *images.label_columns(cohort.columns)]
    # keep the cohort's own order of columns: that of the channels is part of their meaning
    return rows_of(kept[[name for name in cohort.columns if name in names]])


def _write_features(layout: Layout, dataset: str, records: list[dict[str, Any]], channels: list[str]) -> None:
    """Move the features out of the records into features.tsv, which nothing but the probe of the site reads."""
    import pandas as pd

    from gyri.tables import write_table  # workers import this module and need no tables

    table = pd.DataFrame([record.pop("features") for record in records], columns=names(channels))
    table.insert(0, "image_id", [record["image_id"] for record in records])
    write_table(layout.dataset(dataset, "features.tsv"), table)


def _label_names(row: Row, facts: Mapping[str, Any]) -> tuple[str, ...]:
    return (*images.label_columns(row), *(["mask"] if facts.get("mask") and "mask" in row else []))


def _label_type(facts: Mapping[str, Any]) -> str:
    """The smallest type that holds every declared label."""
    values = [int(value) for names in facts.get("labels", {}).values() for value in names]
    return "uint8" if max(values, default=0) < 256 else "uint16"


def _workers(count: int) -> contextlib.AbstractContextManager[ProcessPoolExecutor | None]:
    """Worker processes, or None for one thread, which works in this process."""
    if count <= 1:
        return contextlib.nullcontext()
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), join, shared())


def _run_all(pool: ProcessPoolExecutor | None, task: Task, job: Job, rows: list[dict[str, Any]], title: str) -> list[Any]:
    """Do a task for every row and give the results in the rows' order.

    Only a few rows are under way at a time, so that what waits does not grow with the dataset.

    Raises:
        DataError: the problems of all rows.
    """
    bar, results = Progress(title, len(rows)), [None] * len(rows)
    problems: dict[int, list[Problem]] = {}

    def keep(index: int, outcome: tuple[Any, list[Problem]]) -> None:
        results[index] = outcome[0]
        if outcome[1]:
            problems[index] = outcome[1]
        bar.step()

    if pool is None:
        for index, row in enumerate(rows):
            keep(index, _attempt(task, job, index, row))
    else:
        _run_parallel(pool, task, job, rows, keep)
    if problems:
        raise DataError([problem for index in sorted(problems) for problem in problems[index]])
    return results


def _run_parallel(
    pool: ProcessPoolExecutor,
    task: Task,
    job: Job,
    rows: list[dict[str, Any]],
    keep: Callable[[int, tuple[Any, list[Problem]]], None],
) -> None:
    """Feed the workers and hand each outcome to `keep`."""
    waiting: dict[Future[Any], int] = {}
    limit = QUEUED_PER_WORKER * (os.cpu_count() or 1)
    todo = iter(enumerate(rows))
    try:
        while True:
            for index, row in todo:
                waiting[pool.submit(_attempt, task, job, index, row)] = index
                if len(waiting) >= limit:
                    break
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                keep(waiting.pop(future), future.result())
    except BrokenProcessPool as error:
        remedy = "give the job more memory, or lower threads.preprocess"
        raise DataError(Problem("preprocess", "a worker process was killed", "all workers alive", remedy)) from error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _attempt(task: Task, job: Job, index: int, row: Row) -> tuple[Any, list[Problem]]:
    """Do one task; problems come back as values, since exceptions with arguments do not travel between processes."""
    try:
        return task(job, index, row), []
    except DataError as error:
        return None, error.problems


def _measure(job: Job, index: int, row: Row) -> Shape3:
    """The size that one image needs; its voxels are read only where the header does not tell."""
    name, root = f"image {row['image_id']}", Path(job.facts["root"])
    file = root / next(row[column] for column in images.channel_columns(row) if row[column])
    head = images.header(file)
    affine = head.get("affine")
    if affine is not None or head["format"] == "picture":
        x, y, z = head["shape"]
        # pictures have no orientation, and their pixel size is the same for all
        found = header_extent((x, y, z), _picture_affine(job) if affine is None else np.asarray(affine), job.settings, name)
        if found is not None:
            return found
    values, affine, mask, missing = _load(job, row)
    return extent(values, affine, mask, job.settings, name, missing)


def _picture_affine(job: Job) -> Affine:
    edges = job.settings.spacing_mm or (1.0, 1.0)
    return np.diag([edges[0], edges[1], 1.0, 1.0])


def _load(job: Job, row: Row) -> tuple[NDArray[np.float32], Affine, NDArray[Any] | None, list[int]]:
    """Open the channels and the mask of a row; the channels that it lacks are named."""
    values, affine = images.load_row(row, job.facts)
    missing, start = [], 0
    for column in images.channel_columns(row):
        size = len(job.facts["channel_files"][column.removeprefix("image_")])
        missing += list(range(start, start + size)) if not row[column] else []
        start += size
    mask = _load_labels(job, row, "mask", values.shape[1:], affine) if row.get("mask") else None
    return values, affine, mask, missing


def _load_labels(job: Job, row: Row, column: str, shape: tuple[int, ...], affine: Affine) -> LabelMap:
    """Open a label image or mask and make sure that it lies on the image's grid and holds labels.

    Raises:
        DataError: another grid, or values that are no integers from 0 to the largest of the packed type (masks: any number).
    """
    path = Path(job.facts["root"]) / row[column]
    values, other = images.load_labels(path, job.settings.volume, job.settings.spacing_mm)
    if values.shape != shape or not same_grid(affine, other):
        got = f"the grid {values.shape}, or another affine"
        raise DataError(
            Problem(str(path), got, f"the grid of its image, {shape}", "resample the labels to the image, or exclude it")
        )
    if column == "mask":
        return (values > 0).astype(np.uint8)
    top = int(np.iinfo(job.label_type).max)
    whole = values.astype(np.int64) if np.isfinite(values).all() else np.full(1, -1)
    if whole.min() < 0 or whole.max() > top or not (whole == values).all():
        got = f"label values from {values.min():.6g} to {values.max():.6g}, or fractions"
        raise DataError(Problem(str(path), got, f"integers from 0 to {top}", "declare all label values, or mend the labels"))
    return whole.astype(job.label_type)


def _write(job: Job, index: int, row: Row) -> dict[str, Any]:
    """Prepare one row, write it to its place in the store, and give its record."""
    images.verify_row(row, Path(job.facts["root"]))
    values, affine, mask, missing = _load(job, row)
    ready = prepare(values, affine, mask, job.settings, f"image {row['image_id']}", missing)
    packed = ready.image.astype(np.float16)
    labels = np.zeros((len(job.labels), *ready.spatial.shape), job.label_type)
    for layer, column in enumerate(job.labels):
        if row[column]:
            known = mask if column == "mask" and mask is not None else _load_labels(job, row, column, values.shape[1:], affine)
            labels[layer] = ready.spatial.apply_labels(known, job.settings.preprocess.label_interpolation)
    write_row(job.images, index, packed)
    write_row(job.packed_labels, index, labels)
    return {
        "image_id": row["image_id"],
        "participant_id": row["participant_id"],
        "group": row["group"],
        "sha256": sha256_row(packed, labels),
        "spatial": ready.spatial.to_json(),
        "intensity": ready.intensity,
        "missing": [column for column in (*images.channel_columns(row), *job.labels) if not row[column]],
        "features": image_features(packed).tolist(),
    }
