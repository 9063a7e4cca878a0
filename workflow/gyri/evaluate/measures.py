"""What is measured of each task: values per image, and statistics of sets of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.errors import DataError, Problem, shown
from gyri.evaluate.fitted import OFFSET, SLOPE, per_row, threshold_name
from gyri.metrics import calibration, classification, operating_points, postprocessing, regression, segmentation
from gyri.metrics.classification import Classified
from gyri.metrics.regression import Regressed
from gyri.statistics import Statistic
from gyri.tables import class_text

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
MEAN = "mean"
OF_CLASSES: tuple[ModuleType, ...] = (classification, calibration, operating_points)
OF_STRUCTURES: tuple[ModuleType, ...] = (segmentation, postprocessing)
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


def classification_scores(table: pd.DataFrame, cases: Classified, names: list[str], fitted: pd.DataFrame) -> Scores:
    """Measure classes.

    Args:
        table: predictions.
        cases: the same rows, of `classified`.
        names: classes in order, the positive of two last.
        fitted: thresholds, of `gyri.evaluate.fitted`.
    """
    columns = {
        ("correct", ""): classification.accuracy(cases),
        ("probability_of_truth", ""): classification.probability_of_truth(cases),
        ("log_loss", ""): classification.log_loss(cases),
        ("brier", ""): classification.brier(cases),
    }
    per_image = {"accuracy": columns["correct", ""], "log_loss": columns["log_loss", ""], "brier": columns["brier", ""]}
    against = {name: cases.against_rest(index) for index, name in enumerate(names)} if len(names) > 2 else {"": cases}
    measures = []
    for module in OF_CLASSES:
        for metric, declaration in module.METRICS.items():
            function = getattr(module, metric)
            if "operating_point" in declaration:
                measures += _at_point(metric, function, declaration, table, against, fitted)
            elif metric in per_image:
                measures.append(Measure(metric, "", declaration, _entering(cases, "all"), per_image[metric]))
            else:
                whole = {MEAN: cases} if len(names) > 2 and declaration.get("per_class") else {"": cases}
                for structure, part in (whole | against if declaration.get("per_class") else whole).items():
                    entering = _entering(part, str(declaration.get("enters", "all")))
                    measures.append(Measure(metric, structure, declaration, entering, None, _of_rows(function, [part])))
    return Scores(measures, columns)


def _at_point(
    metric: str,
    function: Callable[[Any, Array], Array],
    declaration: Mapping[str, Any],
    table: pd.DataFrame,
    against: dict[str, Classified],
    fitted: pd.DataFrame,
) -> list[Measure]:
    """A metric of decisions at the thresholds that were chosen on validation; of more than two classes also their mean."""
    what, parts, given = threshold_name(declaration["operating_point"]), {}, {}
    for structure, part in against.items():
        cuts = per_row(fitted, table, what, structure)["value"].to_numpy(np.float64)
        given[structure] = ~np.isnan(cuts)
        parts[structure] = replace(part, decision=(part.probabilities[:, 1] >= np.nan_to_num(cuts, posinf=np.inf)).astype(np.int64))
    measures = [
        Measure(
            metric,
            structure,
            declaration,
            given[structure] & _entering(part, declaration["enters"]),
            None,
            _of_rows(function, [part]),
        )
        for structure, part in parts.items()
    ]
    if len(parts) > 1:
        together = np.logical_and.reduce(list(given.values()))
        measures.insert(0, Measure(metric, MEAN, declaration, together, None, _of_rows(function, list(parts.values()))))
    return measures


def regression_scores(table: pd.DataFrame, fitted: pd.DataFrame) -> Scores:
    """Measure values.

    Args:
        table: predictions that are numbers, see `check_numbers`.
        fitted: corrections, of `gyri.evaluate.fitted`.
    """
    cases = Regressed(table["target"].to_numpy(np.float64), table["prediction"].to_numpy(np.float64))
    offset, slope = (per_row(fitted, table, what, "")["value"].to_numpy(np.float64) for what in (OFFSET, SLOPE))
    corrected = Regressed(cases.truth, (cases.value - offset) / slope)
    columns = {
        ("error", ""): regression.bias(cases),
        ("absolute_error", ""): regression.mae(cases),
        ("error_corrected", ""): regression.bias(corrected),
    }
    per_image = {
        "bias": columns["error", ""],
        "mae": columns["absolute_error", ""],
        "mae_corrected": regression.mae_corrected(corrected),
    }
    measures = []
    for metric, declaration in regression.METRICS.items():
        chosen = corrected if declaration.get("corrected") else cases
        values = per_image.get(metric)
        statistic = None if values is not None else _of_rows(getattr(regression, metric), [chosen])
        measures.append(Measure(metric, "", declaration, np.isfinite(chosen.value), values, statistic))
    return Scores(measures, columns)


def check_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The predictions of a regression as numbers.

    Raises:
        DataError: a prediction that is no finite number.
    """
    predicted = pd.to_numeric(table["prediction"], errors="coerce").to_numpy(np.float64)
    wrong = table.loc[~np.isfinite(predicted)]
    if len(wrong):
        raise DataError(_wrong_rows(wrong, "no finite number", "a number for every image"))
    return table.assign(prediction=predicted)


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
    declared = {metric: declaration for module in OF_STRUCTURES for metric, declaration in module.METRICS.items()}
    for metric, declaration in declared.items():
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


def _of_rows(function: Callable[[Any, Array], Array], parts: Sequence[Classified | Regressed]) -> Callable[[Indices], Statistic]:
    """A metric of a set as a function of which rows; the mean over several."""

    def choose(rows: Indices) -> Statistic:
        chosen = [type(part)(*(getattr(part, name)[rows] for name in part.__dataclass_fields__)) for part in parts]
        if len(chosen) == 1:
            return lambda weights: function(chosen[0], weights)
        return lambda weights: np.mean([function(part, weights) for part in chosen], axis=0)

    return choose


def _entering(cases: Classified, which: str) -> Mask:
    if which == "all" or cases.classes > 2:
        return np.ones(len(cases.truth), bool)
    return cases.truth == (1 if which == "positives" else 0)


def classified(table: pd.DataFrame, names: list[str]) -> Classified:
    """Classes and probabilities of all rows, checked.

    Args:
        table: predictions with a column probability_<class> for every class.
        names: classes in order, the positive of two last.

    Raises:
        DataError: columns, classes or probabilities that make no sense.
    """
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
