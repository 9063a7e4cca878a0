"""Figure of the index page that sets experiments with different metrics beside each other."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from gyri.report.chart import Axes, padded
from gyri.report.figures_results import LEGEND, legend_mark
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import HEADLINE, best_models, headline, metric, rounded
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened
from gyri.tables import rows_of

ROW = 26


def gains(sources: list[Source]) -> Reportlet:
    """Every trained model and ensemble on the way from the best baseline (0) to a perfect result (1), an experiment after the other."""
    table = pd.DataFrame([row for source in sources for row in _gains(source)])
    if table.empty:
        raise Missing("no experiment has both metrics.tsv and a baseline")
    said = [f"{row['experiment']}, {row['label']}: {rounded(row['gain'], 2)}" for row in rows_of(table)]
    words = "No interval: the model was not compared with that baseline (comparisons.tsv)." if table["ci_low"].isna().any() else ""
    return Reportlet(
        alt="Gain over the best baseline. " + "; ".join(said),
        panels=[_drawn(table, 900, 250)],
        narrow=[_drawn(table, 380, 130)],
        legend=[(legend_mark(kind), words) for kind, words in LEGEND if kind in ("network", "ensemble")],
        data=table.drop(columns=["colour", "kind"]),
        notes=[words] if words else [],
        columns=1,
    )


def _gains(source: Source) -> list[dict[str, Any]]:
    try:
        rows, (_, baseline) = headline(source), best_models(source)
    except Missing:
        return []
    about = metric(HEADLINE[source.settings.task])
    perfect = about.limits[1] if about.better > 0 else about.limits[0]
    if baseline is None or perfect is None or perfect == baseline["value"]:
        return []
    way = perfect - float(baseline["value"])
    found = []
    for row in rows_of(rows[rows["kind"] != "baseline"]):
        edges = sorted(edge / way for edge in _difference(source, row["model"], str(baseline["model"])))
        found.append(
            {
                "experiment": source.settings.experiment,
                "metric": about.label,
                "model": row["model"],
                "label": row["label"],
                "baseline": baseline["label"],
                "gain": (row["value"] - float(baseline["value"])) / way,
                "ci_low": edges[0] if edges else math.nan,
                "ci_high": edges[-1] if edges else math.nan,
                "kind": row["kind"],
                "colour": source.colour(row["model"]),
            }
        )
    return found


def _difference(source: Source, model: str, baseline: str) -> list[float]:
    """Interval of the model's value minus the baseline's on the same participants; empty where they were not compared."""
    try:
        pairs = source.of_experiment("comparisons.tsv")
    except Missing:
        return []
    for first, second, sign in ((model, baseline, 1), (baseline, model, -1)):
        rows = pairs[(pairs["first"] == first) & (pairs["second"] == second)].dropna(subset=["ci_low", "ci_high"])
        if len(rows):
            return [sign * float(rows[name].iloc[0]) for name in ("ci_low", "ci_high")]
    return []


def _drawn(table: pd.DataFrame, width: float, left: float) -> Markup:
    """One row per model below the name of its experiment."""
    count = len(table) + table["experiment"].nunique()
    bottom = 12 + count * ROW
    drawing = Drawing(width, bottom + 44)
    low, high = padded([0.0, *table[["gain", "ci_low", "ci_high"]].to_numpy(float).ravel()], 0.06)
    axes = Axes(drawing, (left, 8, width - (70 if width > 500 else 12), bottom), (low, min(high, 1.05)), (0, 1))
    axes.bottom_axis("gain: 0 best baseline, 1 perfect", 5, grid=True)
    drawing.line(axes.px(0), 8, axes.px(0), bottom, "reference")
    y = 8.0
    for (experiment, name), rows in table.groupby(["experiment", "metric"], sort=False):
        drawing.text(4, y + 17, shortened(f"{experiment}, {name}", left + 180), "t b halo")
        y += ROW
        for row in rows_of(rows):
            colour, gain = row["colour"], row["gain"]
            tip = f"{row['label']} against {row['baseline']}: {rounded(gain, 2)}"
            if not math.isnan(row["ci_low"]):
                tip += f" [{rounded(row['ci_low'], 2)}, {rounded(row['ci_high'], 2)}]"
                drawing.line(axes.px(row["ci_low"]), y + 13, axes.px(row["ci_high"]), y + 13, f"interval {colour}", tip)
            if row["kind"] == "ensemble":
                drawing.diamond(axes.px(gain), y + 13, 6.2, f"solid {colour}", tip)
            else:
                drawing.rect(axes.px(gain) - 4.6, y + 8.4, 9.2, 9.2, f"solid {colour}", tip)
            drawing.text(left - 8, y + 17, shortened(row["label"], left - 12), "t e")
            if width > 500:
                drawing.text(width - 4, y + 17, rounded(gain, 2), "t e")
            y += ROW
    return drawing.render("chart")
