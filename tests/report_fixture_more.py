"""Further invented tables of a finished run: what was fitted on validation, what was gained, and metrics that belong to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gyri.config.experiments import ReportSettings
from gyri.evaluate.fitted import COLUMNS as FITTED
from gyri.evaluate.gains import COLUMNS as GAINS
from gyri.layout import Layout
from gyri.metrics import calibration, classification
from gyri.metrics.classification import Classified
from gyri.metrics.regression import fit_correction
from gyri.tables import COLUMNS, write_table

CLASSES = ("control", "patient")


def more_cases(key: dict[str, Any], dice: dict[str, float], volumes: dict[str, float]) -> list[dict[str, Any]]:
    """Distances, surface Dice and volume errors that go with a Dice."""
    rows = []
    for name, value in dice.items():
        found = {"surface_dice": min(1.0, value + 0.1 * (1 - value)), "hd95": 2 + 10 * (1 - value), "dice_postprocessed": value}
        if name in volumes:
            found["volume_error_ml"] = (value - 0.8) * volumes[name]
        rows += [{**key, "metric": metric, "structure": name, "value": number} for metric, number in found.items()]
    return rows


def more(layout: Layout, settings: ReportSettings, predictions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Write fitted.tsv and gains.tsv; give the metrics with those that belong to them."""
    fitted = pd.DataFrame(_fitted(settings, predictions), columns=FITTED)
    write_table(layout.experiment(settings.experiment, "fitted.tsv"), fitted)
    write_table(layout.experiment(settings.experiment, "gains.tsv"), pd.DataFrame(_gains(settings, metrics), columns=GAINS))
    found = [_row(model, part, name, value) for model, part in _tests(predictions) for name, value in _values(settings, part)]
    return pd.concat([metrics, pd.DataFrame(found, columns=COLUMNS["metrics"])], ignore_index=True) if found else metrics


def _tests(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    rows = predictions[predictions["role"] == "test"]
    return [(str(model), part[part["seed"] == part["seed"].iloc[0]]) for model, part in rows.groupby("model", sort=False)]


def _row(model: str, part: pd.DataFrame, name: str, value: float) -> dict[str, Any]:
    """A row over all folds with an invented interval."""
    row = {"model": model, "role": "test", "fold": "all", "seed": "all", "metric": name, "structure": "", "value": value}
    return row | {
        "ci_low": value - 0.1,
        "ci_high": value + 0.1,
        "n": len(part),
        "n_groups": part["group"].nunique(),
        "sd_folds": 0.02,
        "sd_seeds": np.nan,
    }


def _values(settings: ReportSettings, rows: pd.DataFrame) -> list[tuple[str, float]]:
    if settings.task == "classification":
        p, truth = rows[f"probability_{CLASSES[1]}"].to_numpy(float), (rows["target"] == CLASSES[1]).to_numpy().astype(int)
        cases, once = Classified(truth, (p > 0.5).astype(int), np.stack([1 - p, p], 1)), np.ones((1, len(p)))
        names = ("calibration_slope", "calibration_intercept", "expected_calibration_error")
        found = [(name, float(getattr(calibration, name)(cases, once)[0])) for name in names]
        found.append(("average_precision", float(classification.average_precision(cases, once)[0])))
        found += [(name, 0.7) for name in ("sensitivity_at_specificity", "specificity_reached")]
        found += [(name, 0.8) for name in ("specificity_at_sensitivity", "sensitivity_reached")]
        return [(name, value) for name, value in found if np.isfinite(value)]
    if settings.task == "regression":
        truth, said = rows["target"].to_numpy(float), rows["prediction"].to_numpy(float)
        found = [("error_slope", float(np.polyfit(truth, said - truth, 1)[0]))]
        if np.ptp(said):
            found += [("error_slope_corrected", 0.01), ("mae_corrected", float(np.abs(said - truth).mean()) * 1.2)]
        return found
    return []


def _fitted(settings: ReportSettings, predictions: pd.DataFrame) -> list[list[Any]]:
    lines: list[list[Any]] = []
    for run, rows in predictions[predictions["role"] == "validation"].groupby(["model", "fold", "seed"], sort=True):
        end = [len(rows), "0123456789abcdef"]
        if settings.task == "classification":
            middle = float(rows[f"probability_{CLASSES[1]}"].median())
            lines += [[*run, f"threshold for {point}", "", middle, "", *end] for point in ("specificity", "sensitivity")]
        elif settings.task == "regression":
            found = fit_correction(rows["target"].to_numpy(float), rows["prediction"].to_numpy(float))
            lines += [
                [*run, f"correction {what}", "", value, "", *end] for what, value in zip(("offset", "slope"), found, strict=True)
            ]
        else:
            lines += [
                [*run, "post-processing", name, gain, choice, *end]
                for name, gain, choice in (("Anterior", 0.01, "largest component"), ("Posterior", 0.0, "none"))
            ]
    return lines


def _gains(settings: ReportSettings, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Every ensemble a little better than its members; for segmentation post-processing that helps one structure."""
    name = {"segmentation": "dice", "classification": "auroc", "regression": "mae"}[settings.task]
    rows = metrics[(metrics["fold"] == "all") & (metrics["metric"] == name)]
    found = []
    for row in rows[rows["structure"].isin(["", "mean"]) & rows["model"].isin(list(settings.ensembles))].itertuples():
        found.append(_gain("ensemble", row, 0.02, "") | {"members": len(settings.ensembles[row.model])})
    if settings.task == "segmentation":
        for row in rows.itertuples():
            nothing = row.structure == "Posterior"
            found.append(_gain("post-processing", row, 0.0 if nothing else 0.01, "nothing was chosen" if nothing else ""))
    return found


def _gain(what: str, row: Any, gain: float, note: str) -> dict[str, Any]:
    line = {"what": what, "model": row.model, "metric": row.metric, "structure": row.structure, "value_with": row.value}
    line |= {"value_without": row.value - gain, "difference": gain, "ci_low": gain * 0.2, "ci_high": gain * 1.8}
    return line | {"n": row.n, "n_groups": row.n_groups, "note": note}
