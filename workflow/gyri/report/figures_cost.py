"""What a result costs: training and prediction time, memory, energy and size of each model against its headline metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.progress import duration
from gyri.report import devices
from gyri.report.chart import Axes, padded, plain
from gyri.report.figures_results import LEGEND, legend_mark
from gyri.report.forest import SMALL
from gyri.report.parts import Missing, Reportlet, Table
from gyri.report.results import HEADLINE, axis_label, estimate, headline, metric
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened, text_width

NOT_MEASURED, NOT_RECORDED = "not measured", "not recorded"
SIZE = (400.0, 300.0)
ROOM, MOST_TICKS = 0.25, 7
"""Room beside the outermost marks, in powers of ten; ticks with which an axis can still be read."""


@dataclass(frozen=True)
class Cost:
    """One kind of cost.

    Args:
        label: of the axis.
        column: of the table.
        heading: of the table's column.
    """

    label: str
    column: str
    heading: str


COSTS = (
    Cost("training time, all folds and seeds (s)", "training_s", "Training"),
    Cost("GPU time of training (s)", "gpu_s", "GPU time"),
    Cost("prediction time per image (s)", "prediction_s", "Prediction, per image"),
    Cost("largest memory of a training (MB)", "memory_mb", "Largest memory"),
    Cost("largest GPU memory of a training (MB)", "gpu_memory_mb", "GPU memory"),
    Cost("energy of training (Wh)", "energy_wh", "Energy"),
    Cost("trained parameters", "parameters", "Parameters"),
)


def cost_accuracy(source: Source) -> Reportlet:
    """The headline metric over every cost that was measured, and the costs as a table."""
    table = costs(source)
    rows = headline(source).merge(table, on="model", how="inner")
    if rows.empty:
        raise Missing("no model has both a headline metric and the provenance of its trainings")
    shown = [cost for cost in COSTS if np.isfinite(rows[cost.column].to_numpy(float)).any()]
    panels = [scatter(source, rows, cost) for cost in shown]
    without = [cost.heading for cost in COSTS if cost not in shown]
    records = [record for record in source.provenance if record.get("stage") == "train"]
    notes = ["An ensemble costs what its members cost, and its own averaging.", devices.note(records)]
    if without:
        notes.append(f"{', '.join(without)}: {NOT_MEASURED} for any model.")
    return Reportlet(
        alt=f"{metric(HEADLINE[source.settings.task]).label} of each model over {', '.join(cost.label for cost in shown)}.",
        panels=panels,
        legend=[(legend_mark(kind), words) for kind, words in LEGEND if kind != "run"],
        tables=[_table(source, rows, [cost for cost in COSTS if cost in shown or cost.column == "energy_wh"])],
        data=rows.drop(columns=["kind", "ranking"]),
        notes=notes,
        columns=2,
    )


def costs(source: Source) -> pd.DataFrame:
    """What each model cost, from the provenance of its jobs; NaN where it was not measured.

    Returns:
        Columns model, trainings and those of `COSTS`.
    """
    jobs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in source.provenance:
        jobs.setdefault(str(record.get("model", "")), {}).setdefault(str(record.get("stage")), []).append(record)
    rows = []
    for model in source.settings.models:
        train = jobs.get(model, {}).get("train", [])
        if train:
            rows.append({"model": model, **_of_trainings(train), "prediction_s": _per_image(jobs[model].get("predict-fold", []))})
    alone = {row["model"]: row for row in rows}
    for name, members in source.settings.ensembles.items():
        known = [model for model, _ in members if model in alone]
        if len(known) == len(members) and known:
            rows.append(_of_ensemble(name, [alone[model] for model in known], jobs.get(name, {}).get("ensemble", [])))
    return pd.DataFrame(rows, columns=["model", "trainings", *[cost.column for cost in COSTS]])


def _of_trainings(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sums of time and energy, largest memories, of all trainings of one model."""
    used = [devices.used([record]) for record in records]
    measured = [item for item in used if item]
    energies = [item["energy_j"] for item in measured]
    memories = [item["memory_peak_mb"] for item in measured if item["memory_peak_mb"] is not None]
    whole = len(measured) == len(records)
    return {
        "trainings": len(records),
        "training_s": float(sum(_number(record.get("seconds")) for record in records)),
        "gpu_s": float(sum(item["seconds"] for item in measured)) if whole else math.nan,
        "memory_mb": max(_number(record.get("peak_memory_mb")) for record in records),
        "gpu_memory_mb": float(max(memories)) if memories and whole else math.nan,
        "energy_wh": sum(energies) * devices.WATT_HOURS if whole and None not in energies else math.nan,
        "parameters": max(_number((record.get("facts") or {}).get("parameters")) for record in records),
    }


def _per_image(records: Sequence[dict[str, Any]]) -> float:
    """Seconds of all predictions over the images predicted, start of the program included."""
    images = sum(_number((record.get("facts") or {}).get("images")) for record in records)
    seconds = sum(_number(record.get("seconds")) for record in records)
    return seconds / images if images and math.isfinite(images) else math.nan


def _of_ensemble(name: str, members: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Members together. A model that is in it with several seeds counts with its share of the trainings for each."""
    count = {row["model"]: sum(other["model"] == row["model"] for other in members) for row in members}
    single = {row["model"]: row for row in members}.values()
    own = sum(_number(record.get("seconds")) for record in records)
    images = sum(_number((record.get("facts") or {}).get("images")) for record in records)
    averaging = own / images if images and math.isfinite(images) else math.nan
    return {
        "model": name,
        "trainings": sum(row["trainings"] for row in single),
        "training_s": sum(row["training_s"] for row in single) + (own if records else 0.0),
        "gpu_s": sum(row["gpu_s"] for row in single),
        "prediction_s": sum(row["prediction_s"] * count[row["model"]] for row in single) + averaging,
        "memory_mb": max(row["memory_mb"] for row in single),
        "gpu_memory_mb": max(row["gpu_memory_mb"] for row in single),
        "energy_wh": sum(row["energy_wh"] for row in single),
        "parameters": sum(row["parameters"] * count[row["model"]] for row in single),
    }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _table(source: Source, rows: pd.DataFrame, shown: list[Cost]) -> Table:
    """Every cost in words, `not measured` where it was not."""
    body = []
    for _, row in rows.iterrows():
        result = estimate(row["value"], row["ci_low"], row["ci_high"])
        cells = [_words(cost, float(row[cost.column])) for cost in shown]
        body.append([row["label"], result, f"{row['trainings']:.0f}", *cells])
    columns = ["Model", f"#{metric(HEADLINE[source.settings.task]).label}", "#Trainings", *[f"#{cost.heading}" for cost in shown]]
    return Table(columns, body, "Cost of each model", classes="sortable", row_models=list(rows["model"]))


def _words(cost: Cost, value: float) -> str:
    if not math.isfinite(value):
        return NOT_RECORDED if cost.column == "parameters" else NOT_MEASURED
    if cost.column in ("training_s", "gpu_s"):
        return duration(value)
    if cost.column == "prediction_s":
        return f"{value:.3g} s"
    if cost.column.endswith("_mb"):
        return f"{value:.0f} MB"
    return f"{value:.3g} Wh" if cost.column == "energy_wh" else plain(value)


def scatter(source: Source, rows: pd.DataFrame, cost: Cost) -> Markup:
    """The headline metric with its interval over one cost, on a logarithmic axis.

    Args:
        source: of the experiment.
        rows: of `headline`, with the column of the cost.
        cost: which one.
    """
    name = HEADLINE[source.settings.task]
    rows = rows[rows[cost.column].to_numpy(float) > 0]
    drawing = Drawing(*SIZE)
    powers = np.log10(np.maximum(rows[cost.column].to_numpy(float), 1e-6))
    x = (float(powers.min()) - ROOM, float(powers.max()) + ROOM)
    y = padded(rows[["value", "ci_low", "ci_high"]].to_numpy(float).ravel(), 0.08, metric(name).limits)
    axes = Axes(drawing, (58, 14, SIZE[0] - 12, SIZE[1] - 44), x, y)
    axes.left_axis(axis_label(name, source.settings.target, arrow=False))
    _logarithmic(axes, cost.label)
    places = [(axes.px(float(power)), axes.py(float(value))) for power, value in zip(powers, rows["value"], strict=True)]
    taken: list[tuple[float, float, float]] = [(height + 4, at - 7, at + 7) for at, height in places]  # the marks
    for (_, row), power in zip(rows.iterrows(), powers, strict=True):
        with drawing.model(str(row["model"])):
            _point(source, axes, row, float(power), cost, taken)
    return drawing.render("chart")


def _logarithmic(axes: Axes, label: str) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, or at powers only where there are many."""
    left, top, right, bottom = axes.area
    powers = range(math.floor(axes.x[0]), math.ceil(axes.x[1]) + 1)
    found = [(power, step) for power in powers for step in (1, 2, 5) if axes.x[0] <= power + math.log10(step) <= axes.x[1]]
    few = found if len(found) <= MOST_TICKS else [(power, step) for power, step in found if step == 1]
    for power, step in few:
        at = axes.px(power + math.log10(step))
        axes.drawing.line(at, top, at, bottom, "grid")
        axes.drawing.line(at, bottom, at, bottom + 4, "axis")
        axes.drawing.text(at, bottom + 17, _short(float(f"{step}e{power}")), "t m q")
    axes.drawing.line(left, bottom, right, bottom, "axis")
    axes.drawing.text((left + right) / 2, bottom + 35, label, "t m")


def _short(value: float) -> str:
    """A round number with k for thousands and M for millions."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size * (1 if letter == "M" else 10):
            return f"{value / size:g}\u2009{letter}"
    return f"{value:g}"


def _point(source: Source, axes: Axes, row: pd.Series, power: float, cost: Cost, taken: list[tuple[float, float, float]]) -> None:
    """Interval, mark and label of one model; the label goes where it covers no other."""
    drawing, colour = axes.drawing, source.colour(str(row["model"]))
    at, height = axes.px(power), axes.py(row["value"])
    tip = f"{row['label']}: {estimate(row['value'], row['ci_low'], row['ci_high'])}, {_words(cost, float(row[cost.column]))}"
    if pd.notna(row["ci_low"]) and pd.notna(row["ci_high"]):
        drawing.line(at, axes.py(row["ci_low"]), at, axes.py(row["ci_high"]), f"interval {colour}", tip)
    if row["kind"] == "ensemble":
        drawing.diamond(at, height, 6.5, f"solid {colour}", tip)
    elif row["kind"] == "baseline":
        drawing.dot(at, height, 4.6, f"hollow {colour}", tip)
    else:
        drawing.rect(at - 4.6, height - 4.6, 9.2, 9.2, f"solid {colour}", tip)
    text = shortened(str(row["label"]), 130)
    place, left = _free(axes, at, height, text_width(text) * SMALL, taken)
    drawing.text(left, place, text, "t small halo", tip=tip)


def _free(axes: Axes, at: float, height: float, wide: float, taken: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Baseline and left end of a label beside a mark, where it covers neither a mark nor another label, if there is such a place."""
    first = (height - 7, at + 9)
    for shift in (-7, 15, -19, 27, -31, 39, -43):
        for left in (at + 9, at - 9 - wide):
            free = all(abs(height + shift - other) >= 12 or left >= end or start >= left + wide for other, start, end in taken)
            if free and axes.area[0] <= left and left + wide <= axes.area[2] and axes.area[1] < height + shift < axes.area[3]:
                taken.append((height + shift, left, left + wide))
                return height + shift, left
    return first
