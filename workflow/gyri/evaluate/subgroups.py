"""The same metrics in parts of the cohort: by sex, age band, site, diagnosis and named columns; and in the worst cases.

Nothing is tested here: intervals of subgroups are wide, and many subgroups are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.experiments import EvaluateSettings
from gyri.errors import DataError, Problem
from gyri.evaluate.measures import Measure, Scores
from gyri.evaluate.summary import Line, headline_scope, parts_of, resampling_of
from gyri.metrics import SUBGROUPS
from gyri.statistics import Statistic
from gyri.tables import class_text

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = ["model", "column", "level", "metric", "structure", "value", "ci_low", "ci_high", "n", "n_groups", "note"]
USUAL = ("sex", "age", "site", "diagnosis")
WORST = 0.05
WORST_NAME = "worst 5 %"
FEW_VALUES, BANDS = 6, 3  # numbers with more different values are cut into bands with equally many images
UNDEFINED = "undefined in these images"
NO_INTERVAL = "no interval: fewer than two groups, or undefined in most resamples"


def levels_of(cohort: pd.DataFrame, settings: EvaluateSettings, where: str) -> dict[str, dict[str, str]]:
    """Which subgroup each image belongs to.

    Args:
        cohort: cohort.tsv.
        settings: columns and edges of age bands.
        where: the file, for messages.

    Returns:
        Column -> image -> level, for every column with at least two levels; images without a value have none.

    Raises:
        DataError: a named column is not there.
    """
    missing = [name for name in settings.evaluation.subgroups if name not in cohort.columns]
    if missing:
        columns = ", ".join(cohort.columns)
        raise DataError(
            Problem(f"{where}: {', '.join(missing)}", "no such column", f"one of {columns}", "change `evaluation.subgroups`")
        )
    found = {}
    for name in dict.fromkeys([*(name for name in USUAL if name in cohort.columns), *settings.evaluation.subgroups]):
        levels = _bands(cohort[name], settings.evaluation.age_edges if name == "age" else None)
        by_image = {image: level for image, level in zip(cohort["image_id"], levels, strict=True) if level}
        if len(set(by_image.values())) > 1:
            found[name] = by_image
    return found


def _bands(values: pd.Series, edges: list[float] | None) -> list[str]:
    """The level of each value as text; numbers of many values as bands."""
    numeric = pd.api.types.is_numeric_dtype(values)
    if not numeric or (edges is None and values.nunique() <= FEW_VALUES):
        return [class_text(value) for value in values]
    if edges is None:
        edges = [float(edge) for edge in np.unique(np.quantile(values.dropna(), np.arange(1, BANDS) / BANDS))]
    edges = sorted(edges)
    names = [
        f"< {edges[0]:g}",
        *(f"{low:g} to < {high:g}" for low, high in pairwise(edges)),
        f">= {edges[-1]:g}",
    ]
    return ["" if pd.isna(value) else names[int(np.searchsorted(edges, value, side="right"))] for value in values]


def subgroups(
    settings: EvaluateSettings, table: pd.DataFrame, scores: Scores, role: str, levels: dict[str, dict[str, str]]
) -> pd.DataFrame:
    """Measure the subgroups.

    Args:
        settings: of the evaluation.
        table: checked and sorted predictions, with their places as index.
        scores: what was measured of its rows.
        role: test or locked.
        levels: of `levels_of`.

    Returns:
        subgroups.tsv.
    """
    rows = table[table["role"] == role]
    resampling = resampling_of(rows, role, settings.evaluation)
    chosen = [
        measure
        for name in SUBGROUPS[settings.task]
        for measure in scores.measures
        if measure.metric == name and measure.structure in ("", "mean")
    ]
    masks = [(column, level, np.array([of.get(name) == level for name in table["image_id"]])) for column, level, of in _all(levels)]
    body: list[list[Any]] = []
    for model, part in rows.groupby("model", sort=True):
        parts = list(parts_of(part, resampling).values())
        for measure in chosen:
            for column, level, mask in masks:
                if mask[part.index].any():
                    inside = replace(measure, entering=measure.entering & mask)
                    body.append(
                        [
                            model,
                            column,
                            level,
                            measure.metric,
                            measure.structure,
                            *_numbers(Line(inside, parts, resampling, {}), role),
                        ]
                    )
            worst = _worst(measure)
            if worst is not None:
                line = Line(worst, parts, resampling, {})
                name = [model, "all", WORST_NAME, measure.metric, measure.structure]
                body.append([*name, *_numbers(line, role)])
    return pd.DataFrame(body, columns=COLUMNS)


def _all(levels: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Column, level, and image -> level."""
    for column, of in levels.items():
        for level in sorted(set(of.values()), key=_order):
            yield column, level, of


def _order(level: str) -> tuple[int, float, str]:
    """Bands by their first number, `<` before all."""
    words = [word for word in level.replace(">=", "").split() if word.replace(".", "").isdigit()]
    return (0 if level.startswith("<") else 1, float(words[0]) if words and level != words[0] else 0.0, level)


def _numbers(line: Line, role: str) -> list[Any]:
    """Value, interval, sizes and note of a line."""
    scope = headline_scope(line, role)
    value = line.value(scope)
    rows, groups = line.counted(scope)
    sizes = [len(np.unique(rows)) if role == "test" else len(rows) // max(len(line.folds), 1), len(np.unique(groups))]
    if not math.isfinite(value):
        chosen = line.measure.entering[line.parts[0].rows]
        sizes = [int(chosen.sum()), len(np.unique(line.parts[0].groups[chosen]))]
        return [math.nan, math.nan, math.nan, *sizes, UNDEFINED]
    interval = line.interval(scope)
    return [value, *(interval or (math.nan, math.nan)), *sizes, "" if interval else NO_INTERVAL]


def _worst(measure: Measure) -> Measure | None:
    """The mean over the worst cases, of metrics that have a value per image with an order; counts all images it looks at."""
    values, better = measure.values, measure.declaration["better"]
    if values is None or not measure.declaration.get("studentized") or better not in ("higher", "lower"):
        return None
    declaration = {key: value for key, value in measure.declaration.items() if key != "studentized"}
    badness = -values if better == "higher" else values

    def choose(rows: Indices) -> Statistic:
        return lambda weights: worst_mean(values[rows], badness[rows], weights)

    return replace(measure, declaration=declaration, values=None, statistic=choose)


def worst_mean(values: Array, badness: Array, weights: Array) -> Array:
    """Mean over the worst 5 % of the images, by weight (the expected shortfall); a part of an image where 5 % is no whole number.

    Args:
        values: (n,).
        badness: (n,) larger is worse.
        weights: (R, n).

    Returns:
        (R,); NaN where nothing has weight. Of fewer than 20 images it is the worst one.
    """
    order = np.argsort(-badness, kind="stable")
    sorted_weights = weights[:, order]
    total = sorted_weights.sum(1)
    wanted = np.maximum(WORST * total, 1.0)
    taken = np.clip(wanted[:, None] - (np.cumsum(sorted_weights, axis=1) - sorted_weights), 0, sorted_weights)
    share = taken.sum(1)
    return np.divide(taken @ values[order], share, out=np.full(len(weights), np.nan), where=share > 0)
