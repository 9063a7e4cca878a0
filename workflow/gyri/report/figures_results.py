"""The answer: forest plots of every model, baseline and ensemble."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.report.chart import Axes, padded
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import (
    HEADLINE,
    axis_label,
    decimals,
    estimate,
    headline,
    metric,
    of_metric,
    overall,
    rounded,
    shared_digits,
    sizes,
)
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened, text_width

ROW = 34.0
LEGEND = (
    ("network", "network"),
    ("ensemble", "ensemble"),
    ("baseline", "baseline"),
    ("run", "one fold and seed"),
)


def forest(source: Source) -> Reportlet:
    """Headline metric of every model with its interval."""
    rows = headline(source)
    name = HEADLINE[source.settings.task]
    runs = _runs(source, name)
    notes = [f"{sizes(rows.iloc[0])} for every model." if _same_size(rows) else "n differs between models: see the rows."]
    if rows["ranking"].nunique() > 1:
        notes.append(
            "Models in different blocks were trained under different versions or kinds of device: they are not ranked against each other."
        )
    listed = [f"{row['label']}: {estimate(row['value'], row['ci_low'], row['ci_high'])}" for _, row in rows.iterrows()]
    return Reportlet(
        alt=f"Forest plot of the {metric(name).label}, out of fold. " + "; ".join(listed),
        panels=[_forest(source, rows, runs, name, 900, beside=True)],
        narrow=[_forest(source, rows, runs, name, 380, beside=False)],
        legend=[(legend_mark(kind), words) for kind, words in LEGEND],
        data=rows.drop(columns="kind"),
        notes=notes,
        columns=1,
    )


def other_metrics(source: Source) -> Reportlet:
    """Small forest plots of the other metrics."""
    rows = overall(source)
    names = [name for name in dict.fromkeys(rows["metric"]) if name != HEADLINE[source.settings.task]]
    order = {model: rank for rank, model in enumerate(headline(source)["model"])}
    panels, tables = [], []
    for name in names:
        chosen = of_metric(rows, name).copy()
        if chosen.empty:
            continue
        chosen["kind"] = [source.kind(model) for model in chosen["model"]]
        chosen["label"] = [source.label(model) for model in chosen["model"]]
        # one order in all panels: that of the headline
        chosen = chosen.sort_values("model", key=lambda column: column.map(order)).reset_index(drop=True)
        panels.append(_forest(source, chosen, _runs(source, name), name, 400, beside=False))
        tables.append(chosen)
    if not panels:
        raise Missing("metrics.tsv has no other metric over all structures")
    return Reportlet(
        alt=f"Forest plots of {', '.join(metric(name).label for name in names)} for every model.",
        panels=panels,
        data=pd.concat(tables).drop(columns="kind"),
        columns=2,
    )


def locked(source: Source) -> Reportlet:
    """Headline metric on the locked participants."""
    table = source.table(source.layout.experiment(f"{source.settings.experiment}/locked", "metrics.tsv"), "metrics")
    name = HEADLINE[source.settings.task]
    rows = of_metric(overall(source, "locked", table), name).copy()
    if rows.empty:
        raise Missing(f"the locked set has no `{name}`")
    rows["kind"] = [
        "ensemble" if model.startswith("ensemble.folds.") and _trained(source, model) else "baseline" for model in rows["model"]
    ]
    rows["label"] = [source.label(model) for model in rows["model"]]
    rows = rows.sort_values("value", ascending=metric(name).better < 0).reset_index(drop=True)
    listed = [f"{row['label']}: {estimate(row['value'], row['ci_low'], row['ci_high'])}" for _, row in rows.iterrows()]
    return Reportlet(
        alt=f"Forest plot of the {metric(name).label} on locked participants. " + "; ".join(listed),
        panels=[_forest(source, rows, rows.iloc[:0], name, 900, beside=True)],
        narrow=[_forest(source, rows, rows.iloc[:0], name, 380, beside=False)],
        data=rows.drop(columns="kind"),
        columns=1,
    )


def _trained(source: Source, model: str) -> bool:
    return model.removeprefix("ensemble.folds.") not in source.settings.baselines


def legend_mark(kind: str) -> Markup:
    """The mark of a kind of model, for legends."""
    drawing = Drawing(26, 14)
    if kind == "run":
        drawing.dot(13, 7, 2.2, "point ce")
    else:
        drawing.line(2, 7, 24, 7, f"interval {'cb' if kind == 'baseline' else 'ce'}")
        _mark(drawing, 13, 7, kind, "cb" if kind == "baseline" else "ce", "")
    return drawing.render("mark")


def _mark(drawing: Drawing, x: float, y: float, kind: str, colour: str, tip: str) -> None:
    if kind == "ensemble":
        drawing.diamond(x, y, 6.5, f"solid {colour}", tip)
    elif kind == "baseline":
        drawing.dot(x, y, 4.6, f"hollow {colour}", tip)
    else:
        drawing.rect(x - 4.6, y - 4.6, 9.2, 9.2, f"solid {colour}", tip)


def _same_size(rows: pd.DataFrame) -> bool:
    return rows["n"].nunique() == 1 and rows["n_groups"].nunique() == 1


def _runs(source: Source, name: str) -> pd.DataFrame:
    """Values of single folds and seeds, where metrics.tsv has them."""
    table = source.metrics
    rows = of_metric(table[table["role"] == "test"], name)
    rows = rows[rows["fold"].str.fullmatch(r"\d+")]
    single = rows[rows["seed"].str.fullmatch(r"\d+") | rows["model"].str.startswith("ensemble.")]
    return single if len(single) else rows


def _forest(source: Source, rows: pd.DataFrame, runs: pd.DataFrame, name: str, width: float, beside: bool) -> Markup:
    """A forest plot: label and numbers beside each interval (wide), or above it (narrow)."""
    digits = shared_digits(rows)
    texts = [estimate(row["value"], row["ci_low"], row["ci_high"], _digits(row, digits)) for _, row in rows.iterrows()]
    if not _same_size(rows):
        texts = [f"{text}, n = {row['n']:.0f}" for text, (_, row) in zip(texts, rows.iterrows(), strict=True)]
    left = min(max(text_width(label) for label in rows["label"]) + 22, 260) if beside else 12.0
    right = width - (max(text_width(text) for text in texts) + 26 if beside else 12)
    row_height = ROW if beside else ROW + 10
    top = 12.0 if beside else 30.0
    bottom = top + row_height * len(rows)
    drawing = Drawing(width, bottom + 46)
    if not beside:
        drawing.text(left, 16, metric(name).label, "t b")
    shown = rows[["value", "ci_low", "ci_high"]].to_numpy(float).ravel()
    spread = runs[runs["model"].isin(rows["model"])]["value"].to_numpy(float)
    axes = Axes(drawing, (left, top, right, bottom), padded(np.concatenate([shown, spread]), 0.05, metric(name).limits), (0, 1))
    axes.bottom_axis(axis_label(name, source.settings.target), count=6 if beside else 4, grid=True)
    best = _best_baseline(rows, name)
    if best is not None:
        drawing.line(axes.px(best), top - 4, axes.px(best), bottom, "reference", f"best baseline: {best:.4g}")
    blocks = _blocks(rows)
    for index, (_, row) in enumerate(rows.iterrows()):
        middle = top + row_height * (index + (0.42 if beside else 0.6))
        if index and blocks[index] != blocks[index - 1]:
            drawing.line(0, top + row_height * index, width, top + row_height * index, "rule")
        where = (12.0, middle + 4, width - 8.0, middle + 4) if beside else (12.0, middle - 13, width - 12.0, middle - 13)
        with drawing.model(str(row["model"])):
            _row(axes, row, runs, middle, source.colour(row["model"]))
            _words(drawing, row, texts[index], where, left if beside else right - text_width(texts[index]))
    return drawing.render("chart")


def _blocks(rows: pd.DataFrame) -> list[str]:
    """What keeps rows together between two rules: models that may be ranked against each other, and baselines."""
    last = (rows["kind"] == "baseline").iloc[::-1].cummin().iloc[::-1]  # baselines that only baselines follow
    numbers = rows["ranking"] if "ranking" in rows else [0] * len(rows)
    return ["baselines" if alone else str(number) for alone, number in zip(last, numbers, strict=True)]


def _digits(row: pd.Series, digits: int) -> int:
    """The decimals of the figure, or more where the interval would vanish."""
    vanishes = rounded(row["ci_low"], digits) == rounded(row["ci_high"], digits)
    return max(decimals(row["ci_low"], row["ci_high"]), digits) if vanishes and row["ci_high"] > row["ci_low"] else digits


def _words(drawing: Drawing, row: pd.Series, text: str, where: tuple[float, float, float, float], room: float) -> None:
    kind = "t halo" if row["kind"] == "baseline" else "t b halo"
    drawing.text(where[0], where[1], shortened(row["label"], room - 16), kind, tip=row["model"])
    drawing.text(where[2], where[3], text, f"{kind} e")


def _row(axes: Axes, row: pd.Series, runs: pd.DataFrame, middle: float, colour: str) -> None:
    """One model: single runs, interval, estimate."""
    drawing = axes.drawing
    for _, run in runs[runs["model"] == row["model"]].iterrows():
        if pd.notna(run["value"]):
            seed = "" if run["seed"] in ("all", "") else f", seed {run['seed']}"
            drawing.dot(axes.px(run["value"]), middle + 9, 2.3, f"point {colour}", f"fold {run['fold']}{seed}: {run['value']:.4g}")
    tip = f"{row['label']}: {estimate(row['value'], row['ci_low'], row['ci_high'])}, {sizes(row)}"
    if pd.notna(row["ci_low"]) and pd.notna(row["ci_high"]):
        low, high = axes.px(max(row["ci_low"], axes.x[0])), axes.px(min(row["ci_high"], axes.x[1]))
        drawing.line(low, middle, high, middle, f"interval {colour}", tip)
    if pd.notna(row["value"]):
        _mark(drawing, axes.px(row["value"]), middle, row["kind"], colour, tip)


def _best_baseline(rows: pd.DataFrame, name: str) -> float | None:
    """What training has to beat."""
    baselines = rows.loc[rows["kind"] == "baseline", "value"].dropna()
    better = metric(name).better
    if baselines.empty or better == 0:
        return None
    return float(baselines.max() if better > 0 else baselines.min())
