"""Every model against every other by the headline metric: paired on the same people, and over folds; Holm over the family.

Two questions, two p-values. `p`: do these trained models differ on people like these (groups are resampled, the same for both)?
`p_folds`: do the procedures that made them differ (the folds are the sample, their shared training sets are allowed for)?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from gyri.batches import batches_of
from gyri.comparison import corrected_t, holm
from gyri.config.experiments import EvaluateSettings
from gyri.evaluate.measures import Measure, Scores
from gyri.evaluate.summary import ALL, POOLED, Line, Resampling, headline_scope, parts_of, resampling_of
from gyri.io import canonical_json, read_json
from gyri.layout import Layout
from gyri.metrics import HEADLINE
from gyri.statistics import (
    STUDENTIZED_GROUPS,
    difference,
    estimate_mean,
    studentized_interval,
    studentized_p,
    symmetric_interval,
    symmetric_p,
)

COLUMNS = ["first", "second", "metric", "structure", "first_value", "second_value", "difference", "ci_low", "ci_high"]
COLUMNS += ["p", "p_holm", "p_folds", "p_folds_holm", "folds", "n", "n_groups", "comparisons", "note"]
LOCKED = "/locked"


def headline_measure(scores: Scores, task: str) -> Measure:
    """The measure that models are compared by: over all structures or classes where there are several."""
    found = [measure for measure in scores.measures if measure.metric == HEADLINE[task] and measure.structure in ("", "mean")]
    return found[0]


def compare(
    settings: EvaluateSettings,
    table: pd.DataFrame,
    scores: Scores,
    role: str,
    splits: pd.DataFrame,
    conditions: Mapping[str, set[str]],
    batches: Mapping[str, set[str]],
) -> pd.DataFrame:
    """Compare every pair of models.

    Args:
        settings: of the evaluation.
        table: checked and sorted predictions, with their places as index.
        scores: what was measured of its rows.
        role: test or locked.
        splits: splits.tsv, for the sizes of the training sets.
        conditions: what each model was trained under, of `conditions_of`.
        batches: how its batches were computed, of `batches_by_model`.

    Returns:
        comparisons.tsv, the better model first.
    """
    rows = table[table["role"] == role]
    if scores.left_out and not any(measure.metric == HEADLINE[settings.task] for measure in scores.measures):
        return pd.DataFrame(columns=COLUMNS)
    measure, resampling = headline_measure(scores, settings.task), resampling_of(rows, role, settings.evaluation)
    lines = {}
    for model, part in rows.groupby("model", sort=True):
        lines[str(model)] = Line(measure, list(parts_of(part, resampling).values()), resampling, {})
    values = {model: line.value(headline_scope(line, role)) for model, line in lines.items()}
    sign = -1 if measure.declaration["better"] == "higher" else 1
    order = sorted((model for model in lines if math.isfinite(values[model])), key=lambda model: (sign * values[model], model))
    ratio = _test_to_train(splits, sorted({fold for line in lines.values() for fold in line.folds} - {ALL}))
    body: list[dict[str, Any]] = []
    for first, second in combinations(order, 2):
        may, note = _alike(settings, conditions[first] | conditions[second], batches[first] | batches[second])
        entry: dict[str, Any] = {
            "first": first,
            "second": second,
            "metric": measure.metric,
            "structure": measure.structure,
            "note": note,
        }
        entry |= {"first_value": values[first], "second_value": values[second]}
        if may:
            entry |= paired(lines[first], lines[second], role, resampling, ratio)
        body.append(entry)
    frame = pd.DataFrame(body, columns=COLUMNS)
    for column in ("p", "p_folds"):
        frame[f"{column}_holm"] = holm(frame[column].to_numpy(np.float64))
    frame["comparisons"] = int(frame["p"].notna().sum())
    return frame


def _alike(settings: EvaluateSettings, conditions: set[str], batches: set[str]) -> tuple[bool, str]:
    """Whether two models may be compared, and what has to be said about it."""
    may, said = True, []
    for found, allowed in ((conditions, settings.evaluation.compare_mixed), (batches, settings.allow_changed_batch)):
        if len(found) > 1:
            may = may and allowed
            said.append(" and ".join(sorted(found)))
    if not said:
        return True, ""
    return may, f"{'compared although' if may else 'not compared:'} trained under {'; '.join(said)}"


def conditions_of(settings: EvaluateSettings, table: pd.DataFrame, layout: Layout, experiment: str) -> dict[str, set[str]]:
    """What each model was trained under (torch, CUDA, cuDNN, kind of device), its members for an ensemble; baselines under nothing.

    Args:
        settings: which models an ensemble averages.
        table: predictions.
        layout: the results folder.
        experiment: its name, or `<experiment>/locked`.

    Returns:
        Model -> conditions as text; several where its own runs differ.
    """
    cards = _cards(table, layout, experiment)
    return _by_model(
        settings, table, {run: canonical_json(card["conditions"]) for run, card in cards.items() if card["conditions"]}
    )


def batches_by_model(settings: EvaluateSettings, table: pd.DataFrame, layout: Layout, experiment: str) -> dict[str, set[str]]:
    """How the batches of each model were computed, as `conditions_of` gives its conditions."""
    found = {run: batches_of(card) for run, card in _cards(table, layout, experiment).items()}
    return _by_model(settings, table, {run: text for run, text in found.items() if text is not None})


Run = tuple[str, str, str]  # model, fold, seed


def _cards(table: pd.DataFrame, layout: Layout, experiment: str) -> dict[Run, dict[str, Any]]:
    """model.json of every run that is no ensemble."""
    single = table[~table["model"].str.startswith("ensemble.")]
    runs = sorted(set(zip(single["model"], single["fold"], single["seed"], strict=True)))
    return {run: read_json(layout.run(experiment.removesuffix(LOCKED), *run, "model.json")) for run in runs}


def _by_model(settings: EvaluateSettings, table: pd.DataFrame, found: Mapping[Run, str]) -> dict[str, set[str]]:
    """What was found of the runs of each model; of an ensemble, what was found of its members."""
    names = set(table["model"])
    own = {name: {text for run, text in found.items() if run[0] == name} for name in names if not name.startswith("ensemble.")}
    averaged = {}
    for model in names - set(own):
        members = settings.ensembles.get(model, [model.rpartition(".")[2]])
        averaged[model] = set().union(*(own.get(member, set()) for member in members))
    return own | averaged


def _test_to_train(splits: pd.DataFrame, folds: list[str]) -> float:
    """Groups tested over groups trained on, mean over folds; validation groups are not trained on."""
    ratios = []
    for fold in folds:
        roles = splits[splits["fold"] == fold].drop_duplicates("group")["role"]
        if (roles == "train").any():
            ratios.append((roles == "test").sum() / (roles == "train").sum())
    return float(np.mean(ratios)) if ratios else math.nan


def paired(first: Line, second: Line, role: str, resampling: Resampling, ratio: float) -> dict[str, Any]:
    """The difference of two lines on the same images with its interval and both p-values.

    Args:
        first: what the second is subtracted from.
        second: of the same role; it may be another metric of the same model.
        role: test or locked.
        resampling: of the role, the same for both.
        ratio: groups tested over groups trained on; NaN for no test over folds.
    """
    confidence = resampling.confidence or 0.95
    scopes = headline_scope(first, role), headline_scope(second, role)
    found = difference(first.estimate(scopes[0]), second.estimate(scopes[1]))
    places, groups = first.counted(scopes[0])
    number = len(np.unique(groups))
    strata = len(first.folds) if scopes[0] not in (POOLED, ALL) and not resampling.shared else 1
    interval, p = symmetric_interval(found, confidence), symmetric_p(found, number - strata)
    if first.measure.values is not None and scopes == (POOLED, POOLED):
        found, interval, p, number = _pair_of_means(first, second, resampling, confidence)
    shared = [fold for fold in first.folds if fold in second.folds and fold != ALL]
    apart = [first.value(fold) - second.value(fold) for fold in shared]
    low, high = interval or (math.nan, math.nan)
    return {
        "difference": found.value,
        "ci_low": low,
        "ci_high": high,
        "p": p,
        "p_folds": corrected_t(apart, ratio) if role == "test" and math.isfinite(ratio) else math.nan,
        "folds": len(shared),
        "n": len(np.unique(places)) if role == "test" else len(places) // max(len(shared), 1),
        "n_groups": number,
    }


def _pair_of_means(first: Line, second: Line, resampling: Resampling, confidence: float) -> tuple[Any, Any, float, int]:
    """As `paired`, of means over images: the differences of the images are a value of their own."""
    part = first.parts[0]
    values = []
    for line in (first, second):
        assert line.measure.values is not None
        # rows of all models and seeds are sorted alike, and checked to hold the same images
        values.append(np.mean([line.measure.values[item.rows] for item in line.parts], axis=0))
    apart = values[0] - values[1]
    kept = np.isfinite(apart)
    apart, groups = apart[kept], part.groups[kept]
    found = estimate_mean(apart, groups, resampling.pooled)
    number = len(np.unique(groups))
    if number >= STUDENTIZED_GROUPS:
        interval = studentized_interval(apart, groups, resampling.pooled, confidence, (None, None))
        p = studentized_p(apart, groups, resampling.pooled)
        if interval is not None or not np.any(apart):
            return found, interval or (0.0, 0.0), p, number
    return found, symmetric_interval(found, confidence), symmetric_p(found, number - 1), number
