"""Evaluation: every model of an experiment on the same images, with intervals over groups and the spread over folds and seeds."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.experiments import EvaluateSettings
from gyri.errors import DataError, Problem
from gyri.evaluate.chance import chance
from gyri.evaluate.checks import LOCKED, check_predictions
from gyri.evaluate.comparisons import batches_by_model, compare, conditions_of
from gyri.evaluate.fitted import POSTPROCESSING, choose_postprocessing, fit_corrections, fit_thresholds, per_row, read_fitted
from gyri.evaluate.gains import gains
from gyri.evaluate.maps import score_maps, score_processed
from gyri.evaluate.measures import (
    Scores,
    check_numbers,
    classification_scores,
    classified,
    regression_scores,
    segmentation_scores,
)
from gyri.evaluate.site import site_from_images
from gyri.evaluate.subgroups import levels_of, subgroups
from gyri.evaluate.summary import summarize
from gyri.io import canonical_json, read_json, sha256_text
from gyri.layout import Layout
from gyri.loading import find_target
from gyri.metrics.classification import Classified
from gyri.metrics.regression import Regressed
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
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort")
    levels = levels_of(cohort, settings, str(layout.dataset(dataset, "cohort.tsv")))
    measured_as = _score(settings, table, layout, dataset, experiment, threads, target.names, cohort)
    table, scores = measured_as.table, measured_as.scores
    log(f"{experiment}: measure {table['model'].nunique()} models with {settings.evaluation.resamples} resamples")
    metrics, undefined = summarize(table, scores, settings.evaluation)
    role = "locked" if experiment.endswith(LOCKED) else "test"
    site = dict(zip(cohort["image_id"], cohort["site"], strict=True))
    splits = read_table(layout.dataset(dataset, "splits.tsv"), "splits")
    trained = [of(settings, table, layout, experiment) for of in (conditions_of, batches_by_model)]
    write_table(layout.experiment(experiment, "predictions.tsv"), table, "predictions")
    write_table(layout.experiment(experiment, "cases.tsv"), scores.cases(table), "cases")
    if role == "test":
        write_table(layout.experiment(experiment, "fitted.tsv"), measured_as.fitted)
        write_table(layout.experiment(experiment, "gains.tsv"), gains(settings, table, scores, role))
    write_table(layout.experiment(experiment, "subgroups.tsv"), subgroups(settings, table, scores, role, levels))
    write_table(layout.experiment(experiment, "comparisons.tsv"), compare(settings, table, scores, role, splits, *trained))
    found = chance(settings, table, measured_as.cases, role, site, measured_as.features)
    if role == "test":
        found = pd.concat([found, site_from_images(settings, table, site, layout.dataset(dataset, "features.tsv"))])
    write_table(layout.experiment(experiment, "chance.tsv"), found)
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


@dataclass(frozen=True)
class Measured:
    """What each task measures of each row.

    Args:
        table: the predictions, numbers as numbers.
        scores: what was measured.
        fitted: fitted.tsv.
        cases: the rows as classes or values; None for segmentation.
        features: (rows, F) what the model says of the image: log odds, the value, or volumes.
    """

    table: pd.DataFrame
    scores: Scores
    fitted: pd.DataFrame
    cases: Classified | Regressed | None
    features: NDArray[np.float64]


def _score(
    settings: EvaluateSettings,
    table: pd.DataFrame,
    layout: Layout,
    dataset: str,
    experiment: str,
    threads: int,
    names: list[str],
    cohort: pd.DataFrame,
) -> Measured:
    """Fit on validation (locked participants are measured with what was fitted before) and measure every row."""
    locked = experiment.endswith(LOCKED)
    before = read_fitted(layout.experiment(experiment.removesuffix(LOCKED), "fitted.tsv")) if locked else None
    if settings.task == "classification":
        cases = classified(table, names)
        fitted = fit_thresholds(table, cases, names, settings.evaluation) if before is None else before
        odds = np.log(np.clip(cases.probabilities, 1e-6, 1))
        return Measured(table, classification_scores(table, cases, names, fitted), fitted, cases, odds[:, 1:] - odds[:, :1])
    if settings.task == "regression":
        table = check_numbers(table)
        fitted = fit_corrections(table) if before is None else before
        values = Regressed(*(table[column].to_numpy(np.float64) for column in ("target", "prediction")))
        return Measured(table, regression_scores(table, fitted), fitted, values, values.value[:, None])
    facts = read_json(layout.dataset(dataset, "dataset.json"))
    structures = {int(value): name for value, name in facts["labels"][settings.target].items() if int(value)}
    found = score_maps(table, cohort, facts, structures, layout.experiment(experiment), settings.evaluation, threads)
    fitted = choose_postprocessing(table, found.tried, list(structures.values())) if before is None else before
    choices = {name: per_row(fitted, table, POSTPROCESSING, name)["choice"].tolist() for name in structures.values()}
    scored = {**found.values, **score_processed(found, choices, threads)}
    volumes = np.stack([found.values["volume_predicted_ml", name] for name in structures.values()], 1)
    return Measured(table, segmentation_scores(table, scored, list(structures.values())), fitted, None, volumes)
