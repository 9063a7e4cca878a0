"""What averaging and post-processing gain, on the same images: an ensemble against the mean of its members, with against without."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from gyri.config.experiments import EvaluateSettings
from gyri.evaluate.comparisons import paired
from gyri.evaluate.measures import MEAN, Measure, Scores
from gyri.evaluate.summary import Line, Part, Resampling, headline_scope, parts_of, resampling_of
from gyri.metrics import HEADLINE, SUBGROUPS

COLUMNS = ["what", "model", "metric", "structure", "value_with", "value_without", "difference", "ci_low", "ci_high"]
COLUMNS += ["n", "n_groups", "members", "note"]
ENSEMBLE, POSTPROCESSING = "ensemble", "post-processing"
PROCESSED = "_postprocessed"


def gains(settings: EvaluateSettings, table: pd.DataFrame, scores: Scores, role: str) -> pd.DataFrame:
    """Measure what ensembles and post-processing gain.

    Args:
        settings: which models each ensemble averages.
        table: checked and sorted predictions, with their places as index.
        scores: what was measured of its rows.
        role: test (of locked participants ensembles average folds, whose members are other trainings).

    Returns:
        gains.tsv: the difference is with minus without, whatever direction is better.
    """
    rows = table[table["role"] == role]
    resampling = resampling_of(rows, role, settings.evaluation)
    parts = {str(model): list(parts_of(part, resampling).values()) for model, part in rows.groupby("model", sort=True)}
    body = [*_of_ensembles(settings, scores, parts, resampling, role), *_of_processing(scores, parts, resampling, role)]
    return pd.DataFrame(body, columns=COLUMNS)


def _of_ensembles(
    settings: EvaluateSettings, scores: Scores, parts: dict[str, list[Part]], resampling: Resampling, role: str
) -> Iterator[dict[str, Any]]:
    """Every ensemble against the mean of the values of its members."""
    names = dict.fromkeys((HEADLINE[settings.task], *SUBGROUPS[settings.task]))
    chosen = [
        measure for name in names for measure in scores.measures if measure.metric == name and measure.structure in ("", MEAN)
    ]
    for model, members in settings.ensembles.items():
        known = [part for member in members for part in parts.get(member, [])]
        if model not in parts or not known:
            continue
        for measure in chosen:
            if measure.declaration["better"] in ("higher", "lower"):
                lines = Line(measure, parts[model], resampling, {}), Line(measure, known, resampling, {})
                yield {"what": ENSEMBLE, "model": model, "members": len(known), **_line(measure, *lines, role, resampling)}


def _of_processing(scores: Scores, parts: dict[str, list[Part]], resampling: Resampling, role: str) -> Iterator[dict[str, Any]]:
    """Every model with the post-processing that validation chose, against itself without: Dice of each structure, else of the mean."""
    by_name = {(measure.metric, measure.structure): measure for measure in scores.measures}
    for (metric, structure), processed in by_name.items():
        name = metric.removesuffix(PROCESSED)
        raw = by_name.get((name, structure))
        if name == metric or raw is None or (structure != MEAN and name != HEADLINE["segmentation"]):
            continue
        for model, own in parts.items():
            lines = Line(processed, own, resampling, {}), Line(raw, own, resampling, {})
            found = {"what": POSTPROCESSING, "model": model, **_line(raw, *lines, role, resampling)}
            if not _changed(processed, raw, own):
                found |= {"ci_low": 0.0, "ci_high": 0.0, "note": "nothing was chosen, or nothing changed"}
            yield found


def _changed(processed: Measure, raw: Measure, parts: list[Part]) -> bool:
    assert processed.values is not None and raw.values is not None
    rows = np.concatenate([part.rows for part in parts])
    return not np.array_equal(processed.values[rows], raw.values[rows], equal_nan=True)


def _line(measure: Measure, first: Line, second: Line, role: str, resampling: Resampling) -> dict[str, Any]:
    """Both values and their difference with its interval."""
    values = {"value_with": first.value(headline_scope(first, role)), "value_without": second.value(headline_scope(second, role))}
    found = paired(first, second, role, resampling, math.nan)
    numbers = {name: found[name] for name in ("difference", "ci_low", "ci_high", "n", "n_groups")}
    return {"metric": measure.metric, "structure": measure.structure, **values, **numbers, "note": ""}
