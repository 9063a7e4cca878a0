"""What is measured of each task: values per image, and statistics of sets of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.errors import DataError, Problem, shown
from gyri.metrics import classification, regression, segmentation
from gyri.metrics.classification import Classified
from gyri.metrics.regression import Regressed
from gyri.statistics import Statistic
from gyri.tables import class_text

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
MEAN = "mean"
OTHER_PREDICTIONS = "predict with this model again (snakemake does it for you)"


@dataclass(frozen=True)
class Measure:
    """One metric of one structure or class.

    Args:
        metric: its name.
        structure: structure or class; "" where there is none, `mean` over them.
        declaration: from METRICS.
        entering: (rows,) which rows of the table of predictions count.
        values: (rows,) value per image, of a metric that is their mean; else None.
        statistic: rows -> statistic of these rows, of other metrics.
    """

    metric: str
    structure: str
    declaration: Mapping[str, Any]
    entering: Mask
    values: Array | None = None
    statistic: Callable[[Indices], Statistic] | None = None


@dataclass(frozen=True)
class Scores:
    """All that is measured of a table of predictions.

    Args:
        measures: what goes into metrics.tsv.
        columns: (metric, structure) -> value per row, what goes into cases.tsv.
        left_out: metric, structure and reason of what cannot be measured on any image.
    """

    measures: list[Measure]
    columns: dict[tuple[str, str], Array]
    left_out: list[tuple[str, str, str]] = field(default_factory=list)

    def cases(self, table: pd.DataFrame) -> pd.DataFrame:
        """cases.tsv: one row per row of the predictions, metric and structure; an undefined value is missing, its row is not."""
        columns = ["image_id", "participant_id", "group", "fold", "role", "model", "seed"]
        repeated = table[columns].loc[table.index.repeat(len(self.columns))].reset_index(drop=True)
        repeated["metric"] = [metric for metric, _ in self.columns] * len(table)
        repeated["structure"] = [structure for _, structure in self.columns] * len(table)
        repeated["value"] = np.stack(list(self.columns.values()), 1).ravel()
        return repeated


def classification_scores(table: pd.DataFrame, names: list[str]) -> Scores:
    """Measure classes.

    Args:
        table: predictions with a column probability_<class> for every class.
        names: classes in order, the positive of two last.

    Raises:
        DataError: columns, classes or probabilities that make no sense.
    """
    cases = _classified(table, names)
    columns = {
        ("correct", ""): classification.accuracy(cases),
        ("probability_of_truth", ""): classification.probability_of_truth(cases),
        ("log_loss", ""): classification.log_loss(cases),
        ("brier", ""): classification.brier(cases),
    }
    per_image = {"accuracy": columns["correct", ""], "log_loss": columns["log_loss", ""], "brier": columns["brier", ""]}
    parts = {"": cases} if len(names) == 2 else {MEAN: cases} | {name: cases.against_rest(k) for k, name in enumerate(names)}
    measures = []
    for metric, declaration in classification.METRICS.items():
        chosen = parts if declaration.get("per_class") else {"": cases}
        for structure, part in chosen.items():
            entering = _entering(part, str(declaration.get("enters", "all")))
            statistic = _of_rows(getattr(classification, metric), part)
            values = per_image.get(metric)
            measures.append(Measure(metric, structure, declaration, entering, values, None if values is not None else statistic))
    return Scores(measures, columns)


def regression_scores(table: pd.DataFrame) -> Scores:
    """Measure values.

    Raises:
        DataError: a prediction that is no finite number.
    """
    predicted = pd.to_numeric(table["prediction"], errors="coerce").to_numpy(np.float64)
    wrong = table.loc[~np.isfinite(predicted)]
    if len(wrong):
        raise DataError(_wrong_rows(wrong, "no finite number", "a number for every image"))
    cases = Regressed(table["target"].to_numpy(np.float64), predicted)
    columns = {("error", ""): regression.bias(cases), ("absolute_error", ""): regression.mae(cases)}
    per_image = {"bias": columns["error", ""], "mae": columns["absolute_error", ""]}
    everything, measures = np.ones(len(table), bool), []
    for metric, declaration in regression.METRICS.items():
        values = per_image.get(metric)
        statistic = _of_rows(getattr(regression, metric), cases)
        measures.append(Measure(metric, "", declaration, everything, values, None if values is not None else statistic))
    return Scores(measures, columns)


def segmentation_scores(table: pd.DataFrame, values: dict[tuple[str, str], Array], structures: list[str]) -> Scores:
    """Measure structures.

    Args:
        table: predictions.
        values: (metric, structure) -> value per row, of every structure.
        structures: their names.

    Returns:
        Measures of each structure and of their mean in each image (`mean`), over the structures that some image has.
    """
    present = [name for name in structures if (values["volume_true_ml", name] > 0).any()]
    measures, columns, left_out = [], dict(values), []
    for metric, declaration in segmentation.METRICS.items():
        parts = {name: values[metric, name] for name in present}
        left_out += [(metric, name, str(declaration["undefined"])) for name in structures if name not in parts]
        if parts:
            stacked = np.stack(list(parts.values()))
            defined = np.isfinite(stacked).sum(0)
            total = np.nansum(stacked, axis=0)
            columns[metric, MEAN] = np.divide(total, defined, out=np.full(len(table), np.nan), where=defined > 0)
            parts = {MEAN: columns[metric, MEAN], **parts}
        for name, part in parts.items():
            measures.append(Measure(metric, name, declaration, np.isfinite(part), part))
    return Scores(measures, columns, left_out)


def _of_rows(function: Callable[[Any, Array], Array], cases: Classified | Regressed) -> Callable[[Indices], Statistic]:
    """A metric of a set as a function of which rows."""

    def choose(rows: Indices) -> Statistic:
        chosen = type(cases)(*(getattr(cases, name)[rows] for name in cases.__dataclass_fields__))
        return lambda weights: function(chosen, weights)

    return choose


def _entering(cases: Classified, which: str) -> Mask:
    if which == "all" or cases.classes > 2:
        return np.ones(len(cases.truth), bool)
    return cases.truth == (1 if which == "positives" else 0)


def _classified(table: pd.DataFrame, names: list[str]) -> Classified:
    """Classes and probabilities of all rows, checked."""
    columns = [f"probability_{name}" for name in names]
    there = [column for column in table.columns if column.startswith("probability_")]
    if set(there) != set(columns):
        remedy = "train again, or set `classes` back to what the models were trained with"
        raise DataError(Problem("predictions", f"the columns {there}", f"{columns}", remedy))
    index = {name: position for position, name in enumerate(names)}
    truth, decision = ([index.get(class_text(value), -1) for value in table[column]] for column in ("target", "prediction"))
    probabilities = table[columns].to_numpy(np.float64)
    unsound = ~np.isclose(probabilities.sum(1), 1, atol=1e-3) | (probabilities < 0).any(1)
    problems = _wrong_rows(table[unsound], "probabilities that are negative, missing or do not sum to 1", "probabilities")
    problems += _wrong_rows(table[np.minimum(truth, decision) < 0], "an unknown class", f"one of {', '.join(names)}")
    if problems:
        raise DataError(problems)
    return Classified(np.asarray(truth), np.asarray(decision), probabilities)


def _wrong_rows(rows: pd.DataFrame, got: str, expected: str) -> list[Problem]:
    return [
        Problem(
            f"predictions of {model}, fold {fold}, seed {seed}", f"{got}: {shown(part['image_id'])}", expected, OTHER_PREDICTIONS
        )
        for (model, seed, fold), part in rows.groupby(["model", "seed", "fold"])
    ]
