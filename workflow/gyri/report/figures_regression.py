"""Regression: predicted against true, and the error."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.report.chart import padded, panel, thinning, thinning_note
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import ordered
from gyri.report.source import Source

LIMITS = 1.96
"""Limits of agreement in standard deviations. Source: Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8."""


def test_rows(source: Source) -> dict[str, pd.DataFrame]:
    """Out-of-fold rows of every shown model with numeric `target`, `prediction` and `error` = prediction - target."""
    found = {}
    for model in ordered(source):
        rows = source.one_seed(source.predictions, model)
        if rows.empty:
            continue
        rows = rows.assign(
            target=pd.to_numeric(rows["target"], errors="coerce"), prediction=pd.to_numeric(rows["prediction"], errors="coerce")
        )
        found[model] = rows.assign(error=rows["prediction"] - rows["target"])
    if not found:
        raise Missing("predictions.tsv has no test rows")
    return found


def predicted_against_true(source: Source) -> Reportlet:
    """Scatter with the identity line."""
    found = test_rows(source)
    pooled = pd.concat(found.values())
    limits = padded(pooled[["target", "prediction"]].to_numpy(float).ravel(), 0.04)
    target, every = source.settings.target, thinning(len(pooled))
    panels = []
    for model, rows in found.items():
        drawing, axes = panel(source.label(model), limits, limits, size=(340, 330), note=f"n = {len(rows)}")
        axes.left_axis(f"predicted {target}")
        axes.bottom_axis(f"true {target}")
        axes.curve(limits, limits, "reference", "predicted = true")
        axes.dots(
            rows["target"][::every], rows["prediction"][::every], f"point strong {source.colour(model)}", _tips(rows[::every])
        )
        panels.append(drawing.render("chart"))
    return Reportlet(
        alt=f"Predicted against true {target} of each model, with the line where both are equal.",
        panels=panels,
        data=_data(pooled),
        notes=thinning_note(every),
    )


def error_against_true(source: Source) -> Reportlet:
    """Error over the true value, with mean error and limits of agreement."""
    found = test_rows(source)
    pooled = pd.concat(found.values())
    limits = [rows["error"].mean() + sign * LIMITS * rows["error"].std() for rows in found.values() for sign in (-1, 1)]
    x, y = padded(pooled["target"].to_numpy(float), 0.04), padded([*pooled["error"], *limits], 0.06)
    target, every = source.settings.target, thinning(len(pooled))
    panels, notes = [], []
    for model, rows in found.items():
        drawing, axes = panel(source.label(model), x, y, size=(340, 290), note=f"n = {len(rows)}")
        axes.left_axis("predicted \u2212 true")
        axes.bottom_axis(f"true {target}")
        axes.drawing.line(axes.area[0], axes.py(0), axes.area[2], axes.py(0), "axis")
        errors = rows["error"].dropna().to_numpy(float)
        axes.dots(rows["target"][::every], rows["error"][::every], f"point strong {source.colour(model)}", _tips(rows[::every]))
        if len(errors) > 1:
            mean, spread = float(errors.mean()), float(errors.std(ddof=1))
            for value, kind, name in (
                (mean, "mean", "mean error"),
                (mean - LIMITS * spread, "limit", "limit"),
                (mean + LIMITS * spread, "limit", "limit"),
            ):
                axes.drawing.line(axes.area[0], axes.py(value), axes.area[2], axes.py(value), kind, f"{name}: {value:.3g}")
            slope = _slope(rows)
            notes.append(
                f"{source.label(model)}: mean error {_signed(mean)}, limits of agreement {_signed(mean - LIMITS * spread)} to "
                f"{_signed(mean + LIMITS * spread)}, slope of the error {_signed(slope)} per unit."
            )
        panels.append(drawing.render("chart"))
    return Reportlet(
        alt=f"Error of each model over the true {target}, with mean error and limits of agreement. " + " ".join(notes),
        panels=panels,
        data=_data(pooled),
        notes=[*notes, *thinning_note(every)],
    )


def _slope(rows: pd.DataFrame) -> float:
    good = rows[["target", "error"]].dropna().to_numpy(float)
    if len(good) < 2 or np.ptp(good[:, 0]) == 0:
        return float("nan")
    centred = good - good.mean(axis=0)
    return float((centred[:, 0] @ centred[:, 1]) / (centred[:, 0] @ centred[:, 0]))


def _signed(value: float) -> str:
    return "n/a" if not np.isfinite(value) else f"{value:+.3g}".replace("-", "\u2212")


def _tips(rows: pd.DataFrame) -> list[str]:
    columns = ("image_id", "fold", "target", "prediction")
    return [
        f"{image}, fold {fold}: true {true:.4g}, predicted {said:.4g}"
        for image, fold, true, said in rows[list(columns)].itertuples(index=False)
    ]


def _data(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["image_id", "participant_id", "fold", "model", "seed", "target", "prediction", "error"]]
