"""From what was measured to metrics.tsv: folds, their mean, pooled images, the headline; seeds and their mean; intervals, spreads.

The headline (`all`) of a ranking metric is the mean over folds, since scores of the models of different folds are on different
scales; of other metrics it is that of the pooled images. On validation and locked participants, whom several folds predict, it is
always the mean over folds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.experiments import Evaluation
from gyri.evaluate.measures import Measure, Scores
from gyri.seeds import generator
from gyri.statistics import (
    STUDENTIZED_GROUPS,
    Estimate,
    Interval,
    average,
    bca_interval,
    estimate,
    estimate_mean,
    group_weights,
    studentized_interval,
)
from gyri.tables import COLUMNS

Indices = NDArray[np.int64]
UNDEFINED = ["model", "role", "fold", "seed", "metric", "structure", "why"]
ALL, AVERAGE, POOLED = "all", "mean", "pooled"
NO_INTERVAL = "no interval: fewer than two groups, or undefined in most resamples"


@dataclass(frozen=True)
class Resampling:
    """The groups of a role and how they are resampled; the same for every model, so that models can be compared in pairs.

    Args:
        column: group -> column of the weights.
        within: (R, G) groups resampled inside their fold (all together where folds share them).
        pooled: (R, G) groups resampled all together.
        shared: whether several folds predict the same groups.
        confidence: of the intervals; None where none are wanted.
    """

    column: dict[str, int]
    within: NDArray[np.float64]
    pooled: NDArray[np.float64]
    shared: bool
    confidence: float | None


@dataclass(frozen=True)
class Part:
    """Rows of one model, role and seed.

    Args:
        rows: their places in the table of predictions.
        folds: fold of each.
        groups: column of the weights of each one's group.
    """

    rows: Indices
    folds: NDArray[np.object_]
    groups: Indices


@dataclass
class Line:
    """One metric of one model and role, for one seed or averaged over several.

    Args:
        measure: what is measured.
        parts: one per seed.
        resampling: of the role.
        kept: estimates of single seeds made so far, by the first row of the part and the scope; shared between lines.
        found: estimates and intervals of this line made so far, by scope.
    """

    measure: Measure
    parts: list[Part]
    resampling: Resampling
    kept: dict[tuple[int, str], Estimate]
    found: dict[str, Estimate] = field(default_factory=dict)
    intervals: dict[str, Interval | None] = field(default_factory=dict)

    @property
    def folds(self) -> list[str]:
        """Folds in order."""
        return sorted(set(self.parts[0].folds), key=lambda text: (len(text), text))

    def chosen(self, part: Part, scope: str) -> NDArray[np.bool_]:
        """Which of a part's rows enter."""
        entering = self.measure.entering[part.rows]
        return entering if scope == POOLED else entering & (part.folds == scope)

    def estimate(self, scope: str) -> Estimate:
        """Value and resamples of a fold, of `mean` over folds, or of the `pooled` images, averaged over seeds."""
        if scope not in self.found:
            if scope == AVERAGE:
                self.found[scope] = average([self.estimate(fold) for fold in self.folds])
            else:
                self.found[scope] = average([self._one(part, scope) for part in self.parts])
        return self.found[scope]

    def _one(self, part: Part, scope: str) -> Estimate:
        key = (int(part.rows[0]), scope)
        if key not in self.kept:
            chosen = self.chosen(part, scope)
            weights = self.resampling.pooled if scope == POOLED else self.resampling.within
            rows, groups = part.rows[chosen], part.groups[chosen]
            if self.measure.values is not None:
                self.kept[key] = estimate_mean(self.measure.values[rows], groups, weights)
            else:
                assert self.measure.statistic is not None
                self.kept[key] = estimate(self.measure.statistic(rows), groups, weights)
        return self.kept[key]

    def value(self, scope: str) -> float:
        """The value alone."""
        return self.estimate(scope).value

    def counted(self, scope: str) -> tuple[Indices, Indices]:
        """Rows and groups that stand behind a value; of a mean over folds those of the folds that have one."""
        part = self.parts[0]
        if scope == AVERAGE:
            defined = [fold for fold in self.folds if math.isfinite(self.value(fold))]
            chosen = np.isin(part.folds.astype(str), defined) & self.measure.entering[part.rows]
        else:
            chosen = self.chosen(part, scope)
        return part.rows[chosen], part.groups[chosen]

    def interval(self, scope: str) -> Interval | None:
        """The interval over groups; None where there is none."""
        if scope not in self.intervals:
            self.intervals[scope] = self._interval(scope)
        return self.intervals[scope]

    def _interval(self, scope: str) -> Interval | None:
        confidence, limits = self.resampling.confidence, self.measure.declaration["range"]
        assert confidence is not None
        part, (_, groups) = self.parts[0], self.counted(scope)
        number, strata = len(np.unique(groups)), 1
        if scope == AVERAGE and not self.resampling.shared:
            strata = sum(math.isfinite(self.value(fold)) for fold in self.folds)
        studentized = self.measure.declaration.get("studentized") and number >= STUDENTIZED_GROUPS
        if studentized and scope != AVERAGE and self.measure.values is not None:
            weights = self.resampling.pooled if scope == POOLED else self.resampling.within
            chosen = self.chosen(part, scope)
            values = np.mean([self.measure.values[item.rows[chosen]] for item in self.parts], axis=0)
            found = (
                studentized_interval(values, part.groups[chosen], weights, confidence, limits)
                if np.isfinite(values).all()
                else None
            )
            if found is not None:
                return found
        return bca_interval(self.estimate(scope), number, strata, confidence, limits)


def summarize(table: pd.DataFrame, scores: Scores, evaluation: Evaluation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make metrics.tsv and the list of what is undefined.

    Args:
        table: checked predictions: within a model and role, every seed has the same images in the same folds; sorted by model,
            role, seed, fold, image_id.
        scores: what was measured of its rows.
        evaluation: resamples, confidence, seed.

    Returns:
        metrics.tsv and undefined.tsv.
    """
    rows: list[list[object]] = []
    undefined: list[list[object]] = []
    for role, of_role in table.groupby("role", sort=True):
        resampling = resampling_of(of_role, str(role), evaluation)
        for model, of_model in of_role.groupby("model", sort=True):
            parts = parts_of(of_model, resampling)
            undefined += [[model, role, ALL, ALL, metric, structure, why] for metric, structure, why in scores.left_out]
            for measure in scores.measures:
                for fold, seed, numbers, why in _lines(measure, parts, resampling, str(role), table):
                    name = [model, role, fold, seed, measure.metric, measure.structure]
                    if numbers is not None:
                        rows.append([*name, *numbers])
                    if why:
                        undefined.append([*name, why])
    metrics = pd.DataFrame(rows, columns=COLUMNS["metrics"])
    numbers = ["value", "ci_low", "ci_high", "sd_folds", "sd_seeds"]
    return metrics.astype(dict.fromkeys(numbers, np.float64)), pd.DataFrame(undefined, columns=UNDEFINED)


def parts_of(table: pd.DataFrame, resampling: Resampling) -> dict[str, Part]:
    """The rows of one model and role by seed.

    Args:
        table: rows of the table of predictions with their places as index.
        resampling: of the role.
    """
    parts = {}
    for seed, part in table.groupby("seed", sort=True):
        groups = np.asarray(part["group"].map(resampling.column), np.int64)
        parts[str(seed)] = Part(part.index.to_numpy(np.int64), part["fold"].to_numpy(object), groups)
    return parts


def headline_scope(line: Line, role: str) -> str:
    """What the headline of a metric is computed from."""
    if line.folds == [ALL]:
        return ALL
    return POOLED if role == "test" and not line.measure.declaration.get("ranking") else AVERAGE


def resampling_of(table: pd.DataFrame, role: str, evaluation: Evaluation) -> Resampling:
    """Draw the weights of the groups of a role; the same for the same groups and folds.

    Args:
        table: all rows of the role.
        role: validation, test or locked.
        evaluation: resamples, confidence, seed.
    """
    names = sorted(set(table["group"]))
    column = {name: index for index, name in enumerate(names)}
    folds = sorted(set(table["fold"]))
    if role == "validation":
        # tunes models and is shown, but estimates nothing: no intervals
        none = np.ones((1, len(names)))
        return Resampling(column, none, none, True, None)
    together = np.zeros(len(names), np.int64)
    pooled = group_weights(together, evaluation.resamples, generator("evaluate", evaluation.seed, role, POOLED))
    if role == "locked" or len(folds) == 1:
        return Resampling(column, pooled, pooled, role == "locked", evaluation.confidence)
    fold_of = dict(zip(table["group"], table["fold"], strict=True))
    strata = np.array([folds.index(fold_of[name]) for name in names])
    within = group_weights(strata, evaluation.resamples, generator("evaluate", evaluation.seed, role, "within folds"))
    return Resampling(column, within, pooled, False, evaluation.confidence)


def _lines(
    measure: Measure, parts: dict[str, Part], resampling: Resampling, role: str, table: pd.DataFrame
) -> Iterator[tuple[str, str, list[object] | None, str]]:
    """Every row of one metric of one model and role: fold, seed, numbers (None where undefined), and what is undefined."""
    kept: dict[tuple[int, str], Estimate] = {}
    singles = {seed: Line(measure, [part], resampling, kept) for seed, part in parts.items()}
    together = Line(measure, list(parts.values()), resampling, kept) if len(parts) > 1 else next(iter(singles.values()))
    lines = {ALL: together, **{seed: single for seed, single in singles.items() if seed != ALL}}
    for seed, line in lines.items():
        spread_seeds = list(singles.values()) if seed == ALL and len(singles) > 1 else []
        for fold, scope in _scopes(line.folds, role, bool(measure.declaration.get("ranking"))):
            value = line.value(scope)
            if not math.isfinite(value):
                yield fold, seed, None, str(measure.declaration["undefined"])
                continue
            interval = (math.nan, math.nan) if resampling.confidence is None else line.interval(scope)
            if interval is None:
                yield fold, seed, None, NO_INTERVAL
                continue
            behind, groups = line.counted(scope)
            spread = _deviation([line.value(one) for one in line.folds]) if fold in (ALL, AVERAGE, POOLED) else math.nan
            over_seeds = _deviation([single.value(scope) for single in spread_seeds])
            images, number = table["image_id"].to_numpy()[behind], len(np.unique(groups))
            why = _left_out(line, scope, table) if fold == ALL and seed == ALL else ""
            yield fold, seed, [value, *interval, len(set(images)), number, spread, over_seeds], why


def _scopes(folds: list[str], role: str, ranking: bool) -> Iterator[tuple[str, str]]:
    """What stands in the column `fold`, and what it is computed from."""
    if folds == [ALL]:  # averaged over folds before
        yield ALL, ALL
        return
    yield ALL, POOLED if role == "test" and not ranking else AVERAGE
    yield AVERAGE, AVERAGE
    if role == "test":
        yield POOLED, POOLED
    for fold in folds:
        yield fold, fold


def _left_out(line: Line, scope: str, table: pd.DataFrame) -> str:
    """Say how many images a mean over images lacks, where it lacks some."""
    if line.measure.values is None or scope == AVERAGE:
        return ""
    rows = line.parts[0].rows
    lacking = int((~line.measure.entering[rows]).sum())
    return f"the value is over the others: {lacking} of {len(rows)} images have none" if lacking else ""


def _deviation(values: list[float]) -> float:
    """Standard deviation (n - 1) of the defined values; NaN for fewer than two."""
    defined = [value for value in values if math.isfinite(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
