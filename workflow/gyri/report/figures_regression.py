"""Regression: predicted against true, agreement, and the error before and after the bias correction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.report.chart import Axes, padded, panel, thinning, thinning_note
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import estimate, of_metric, ordered, overall
from gyri.report.source import Source

Array = NDArray[np.float64]
MEAN = "mean error"
MAES = ("mae", "mae_corrected")
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
        panels.append(drawing.render("chart", model=model))
    return Reportlet(
        alt=f"Predicted against true {target} of each model, with the line where both are equal.",
        panels=panels,
        data=_data(pooled),
        notes=thinning_note(every),
    )


def bland_altman(source: Source) -> Reportlet:
    """Difference of predicted and true over their mean, with limits of agreement and the intervals of all three lines."""
    found = {model: rows.assign(mean=(rows["prediction"] + rows["target"]) / 2) for model, rows in test_rows(source).items()}
    pooled, target = pd.concat(found.values()), source.settings.target
    lines = {model: agreement(rows["error"].to_numpy(float), rows["group"].nunique()) for model, rows in found.items()}
    ends = [value for table in lines.values() for value in table[["low", "high"]].to_numpy(float).ravel()]
    x, y = padded(pooled["mean"].to_numpy(float), 0.04), padded([*pooled["error"], *ends], 0.06)
    every, panels, notes = thinning(len(pooled)), [], []
    for model, rows in found.items():
        drawing, axes = panel(source.label(model), x, y, size=(340, 330), note=f"n = {len(rows)}")
        axes.left_axis("predicted \u2212 true")
        axes.bottom_axis(f"mean of predicted and true {target}")
        left, _, right, _ = axes.area
        drawing.line(left, axes.py(0), right, axes.py(0), "axis")
        for name, value, low, high in lines[model].itertuples(index=False):
            tip = f"{name}: {value:.3g} [{low:.3g}, {high:.3g}]"
            if np.isfinite([low, high]).all():
                drawing.rect(left, axes.py(high), right - left, axes.py(low) - axes.py(high), "spread c2", tip)
            if np.isfinite(value):
                drawing.line(left, axes.py(value), right, axes.py(value), "mean" if name == MEAN else "limit", tip)
        axes.dots(rows["mean"][::every], rows["error"][::every], f"point strong {source.colour(model)}", _tips(rows[::every]))
        panels.append(drawing.render("chart", model=model))
        notes.append(f"{source.label(model)}: {_agreement_in_words(lines[model])}.")
    table = pooled.assign(mean=pooled["mean"])
    return Reportlet(
        alt=f"Bland-Altman plot of the {target} of each model. " + " ".join(notes),
        panels=panels,
        data=_data(table).assign(mean=table["mean"]),
        notes=[
            *notes,
            "Bands: 95\u00a0% intervals of mean and limits, of a normal distribution, counting every group once.",
            *thinning_note(every),
        ],
    )


def agreement(errors: Array, groups: int) -> pd.DataFrame:
    """Mean error and limits of agreement with 95 % intervals.

    Args:
        errors: predicted minus true.
        groups: independent groups behind them; the intervals count each once.

    Returns:
        Columns line, value, low, high; three rows.

    Source: Bland and Altman, Measuring agreement in method comparison studies, Statistical Methods in Medical Research 8, 1999.
    """
    from scipy.special import stdtrit

    errors = errors[np.isfinite(errors)]
    mean, spread = (float(errors.mean()), float(errors.std(ddof=1))) if len(errors) > 1 else (np.nan, np.nan)
    known = groups > 1
    factor = float(stdtrit(groups - 1, 0.975)) * spread if known else np.nan
    of_mean = factor / np.sqrt(groups)
    of_limit = factor * np.sqrt(1 / groups + LIMITS**2 / (2 * (groups - 1))) if known else np.nan
    rows = [
        (name, value, value - half, value + half)
        for name, value, half in (
            ("lower limit", mean - LIMITS * spread, of_limit),
            (MEAN, mean, of_mean),
            ("upper limit", mean + LIMITS * spread, of_limit),
        )
    ]
    return pd.DataFrame(rows, columns=["line", "value", "low", "high"])


def _agreement_in_words(lines: pd.DataFrame) -> str:
    low, mean, high = lines["value"]
    interval = f"[{_signed(lines['low'][1])}, {_signed(lines['high'][1])}]"
    return f"mean error {_signed(mean)} {interval}, limits of agreement {_signed(low)} to {_signed(high)}"


def error_against_true(source: Source) -> Reportlet:
    """Error over the true value, before and after the bias correction that was fitted on validation."""
    found = test_rows(source)
    corrections, why = _corrections(source)
    found = {model: corrected(rows, corrections) for model, rows in found.items()}
    pooled = pd.concat(found.values())
    x, y = padded(pooled["target"].to_numpy(float), 0.04), padded(_seen(pooled), 0.06)
    target, every = source.settings.target, thinning(2 * len(pooled))
    panels, notes = [], []
    for model, rows in found.items():
        colour = f"point strong {source.colour(model)}"
        for column, when in (("error", "before correction"), ("error_corrected", "after correction")):
            drawing, axes = panel(source.label(model), x, y, size=(400, 260), note=when)
            axes.left_axis("predicted \u2212 true")
            axes.bottom_axis(f"true {target}")
            drawing.line(axes.area[0], axes.py(0), axes.area[2], axes.py(0), "axis")
            shown, beyond = rows[rows[column].between(*y)], int((rows[column].notna() & ~rows[column].between(*y)).sum())
            axes.dots(shown["target"][::every], shown[column][::every], colour, _tips(shown[::every]))
            _line(axes, rows, column)
            if rows[column].isna().all():
                drawing.text(sum(axes.area[::2]) / 2, sum(axes.area[1::2]) / 2, "no correction could be fitted", "t m q")
            if beyond:
                drawing.text(axes.area[2] - 4, axes.area[1] + 12, f"{beyond} beyond the axis", "t e q small halo")
            panels.append(drawing.render("chart", model=model))
        notes.append(f"{source.label(model)}: {_slopes_in_words(source, model, rows)}.")
    columns = ["error_corrected", "correction_offset", "correction_slope"]
    return Reportlet(
        alt=f"Error of each model over the true {target}, before and after the bias correction. " + " ".join(notes),
        panels=panels,
        data=_data(pooled).assign(**{name: pooled[name] for name in columns}),
        notes=[*notes, *([why] if why else []), *thinning_note(every)],
        columns=2,
    )


def corrected(rows: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Test rows with the correction of their fold and the error that is left after it.

    Args:
        rows: of one model, with model, fold, seed, target and prediction.
        corrections: model, fold, seed, offset, slope; runs without one have none.

    Returns:
        The rows with correction_offset, correction_slope and error_corrected, NaN where nothing was fitted.
    """
    keys = pd.MultiIndex.from_frame(rows[["model", "fold", "seed"]].astype(str))
    own = corrections.set_index(["model", "fold", "seed"]).reindex(keys)
    offset, slope = own["offset"].to_numpy(np.float64), own["slope"].to_numpy(np.float64)
    left = (rows["prediction"].to_numpy(np.float64) - offset) / slope - rows["target"].to_numpy(np.float64)
    return rows.assign(correction_offset=offset, correction_slope=slope, error_corrected=left)


def _corrections(source: Source) -> tuple[pd.DataFrame, str]:
    """Corrections of fitted.tsv; none, and why, where they are not there."""
    columns = ["model", "fold", "seed", "offset", "slope"]
    try:
        rows = source.of_experiment("fitted.tsv")
    except Missing as missing:
        return pd.DataFrame(columns=columns), f"Correction: not available ({missing})."
    rows = rows[rows["what"].astype(str).str.startswith("correction ")].astype({"model": str, "fold": str, "seed": str})
    if rows.empty:
        return pd.DataFrame(columns=columns), "Correction: not available (fitted.tsv holds none)."
    rows = rows.assign(what=rows["what"].str.removeprefix("correction "), value=pd.to_numeric(rows["value"], errors="coerce"))
    wide = rows.pivot_table(index=["model", "fold", "seed"], columns="what", values="value", dropna=False).reset_index()
    return wide.reindex(columns=columns), ""


def _seen(rows: pd.DataFrame) -> Array:
    """Errors that the axis shows: all before the correction; after it those within three times their range."""
    before, after = rows["error"].to_numpy(float), rows["error_corrected"].to_numpy(float)
    most = 3 * np.nanmax(np.abs(before), initial=0)
    return np.concatenate([before, after[np.abs(after) <= most]])


def _line(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """The least-squares line of the error over the true value, as far as it lies inside the axes."""
    good = rows[["target", column]].dropna().to_numpy(float)
    slope = slope_of(good[:, 0], good[:, 1])
    if not np.isfinite(slope):
        return
    middle = good.mean(axis=0)
    xs = np.linspace(good[:, 0].min(), good[:, 0].max(), 60)
    ys = middle[1] + slope * (xs - middle[0])
    inside = (ys >= axes.y[0]) & (ys <= axes.y[1])
    axes.curve(xs[inside], ys[inside], "fitted", f"slope {_signed(slope)}")


def _slopes_in_words(source: Source, model: str, rows: pd.DataFrame) -> str:
    """Slope of the error and mean absolute error, before and after."""
    table = overall(source)
    table = table[table["model"] == model]
    parts = []
    for name, metrics in (("slope of the error", ("error_slope", "error_slope_corrected")), ("mean absolute error", MAES)):
        before, after = (_value(of_metric(table, metric)) for metric in metrics)
        parts.append(f"{name} {before} before the correction, {after} after it")
    if rows["error_corrected"].isna().all():
        return parts[0].split(" before")[0] + "; no correction could be fitted on validation"
    return "; ".join(parts)


def _value(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "not available"
    return estimate(*rows[["value", "ci_low", "ci_high"]].to_numpy(float)[0])


def slope_of(x: Array, y: Array) -> float:
    """Slope of the least-squares line; NaN where there is none."""
    if len(x) < 2 or np.ptp(x) == 0:
        return float("nan")
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


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
