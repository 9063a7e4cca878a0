"""Evaluation: every model of an experiment on the same images, with intervals over groups and the spread over folds and seeds."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.config.experiments import EvaluateSettings
from gyri.errors import DataError, Problem
from gyri.evaluate.checks import LOCKED, check_predictions
from gyri.evaluate.maps import score_maps
from gyri.evaluate.measures import Scores, classification_scores, regression_scores, segmentation_scores
from gyri.evaluate.summary import summarize
from gyri.io import canonical_json, read_json, sha256_text
from gyri.layout import Layout
from gyri.loading import find_target
from gyri.progress import log
from gyri.tables import read_table, write_table

ORDER = ["model", "role", "seed", "fold", "image_id"]


def run(
    settings: EvaluateSettings, layout: Layout, dataset: str, experiment: str, predictions: list[Path], threads: int
) -> dict[str, Any]:
    """Measure every model.

    Args:
        settings: what the stage is told.
        layout: the results folder.
        dataset: its name.
        experiment: its name, or `<experiment>/locked`.
        predictions: predictions.tsv of every model, fold and seed, in any order.
        threads: worker processes (the result does not depend on them).

    Returns:
        Facts for provenance.

    Raises:
        LeakageError: an image or group tested in two folds, or on two sides of one.
        DataError: images, models, folds or seeds are missing, or files cannot be used.
    """
    if not predictions:
        where = str(layout.experiment(experiment))
        raise DataError(Problem(where, "no predictions.tsv", "predictions of at least one model", "run `predict-fold` first"))
    table = pd.concat([read_table(path, "predictions") for path in predictions], ignore_index=True)
    table = table.sort_values(ORDER, ignore_index=True, kind="stable")
    target = find_target(layout, dataset, settings.task, settings.target, settings.classes)
    check_predictions(table, layout, dataset, experiment, target)
    scores = _score(settings, table, layout, dataset, experiment, threads, target.names)
    log(f"{experiment}: measure {table['model'].nunique()} models with {settings.evaluation.resamples} resamples")
    metrics, undefined = summarize(table, scores, settings.evaluation)
    write_table(layout.experiment(experiment, "predictions.tsv"), table, "predictions")
    write_table(layout.experiment(experiment, "cases.tsv"), scores.cases(table), "cases")
    write_table(layout.experiment(experiment, "undefined.tsv"), undefined)
    write_table(layout.experiment(experiment, "metrics.tsv"), metrics, "metrics")
    measured = table[table["role"].isin(["test", "locked"])]
    return {
        "device": "cpu",
        "images": int(measured["image_id"].nunique()),
        "groups": int(measured["group"].nunique()),
        "models": int(table["model"].nunique()),
        "undefined": len(undefined),
    }


def record_locked_read(layout: Layout, experiment: str, settings: EvaluateSettings) -> Path:
    """Append one line to the file that counts how often the locked participants were evaluated; the report prints the count.

    Args:
        layout: the results folder.
        experiment: its name, without `/locked`.
        settings: of this evaluation; their hash tells whether it was the same one again.

    Returns:
        The file, `locked_reads.jsonl` of the experiment. Nothing ever shortens it.
    """
    path = layout.experiment(experiment.removesuffix(LOCKED), "locked_reads.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "experiment": experiment.removesuffix(LOCKED),
        "settings": sha256_text(canonical_json(settings.model_dump(mode="json"))),
    }
    # one write to a file opened for appending: two evaluations at once leave two whole lines
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, (canonical_json(record) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with path.open(encoding="utf-8") as handle:
        log(f"{record['experiment']}: the locked participants are evaluated for time number {sum(1 for _ in handle)} ({path})")
    return path


def _score(
    settings: EvaluateSettings,
    table: pd.DataFrame,
    layout: Layout,
    dataset: str,
    experiment: str,
    threads: int,
    names: list[str],
) -> Scores:
    """What each task measures of each row."""
    if settings.task == "classification":
        return classification_scores(table, names)
    if settings.task == "regression":
        return regression_scores(table)
    facts = read_json(layout.dataset(dataset, "dataset.json"))
    structures = {int(value): name for value, name in facts["labels"][settings.target].items() if int(value)}
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort")
    values = score_maps(table, cohort, facts, structures, layout.experiment(experiment), threads)
    return segmentation_scores(table, values, list(structures.values()))
