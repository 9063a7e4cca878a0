"""Classification: whether probabilities mean what they say, against what a perfectly calibrated model would show."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from gyri.metrics.calibration import BINS
from gyri.report.chart import Axes, panel
from gyri.report.figures_classification import PREFIX, classes_of
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import estimate, of_metric, ordered, overall, rounded
from gyri.report.source import Source
from gyri.report.svg import Drawing
from gyri.seeds import generator
from gyri.tables import rows_of

Array = NDArray[np.float64]
DRAWS, AT_ONCE = 1000, 100
QUANTILES = (0.025, 0.975)
NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def reliability(source: Source) -> Reportlet:
    """Observed frequency against probability, in bins, with the histogram of the probabilities."""
    classes = classes_of(source)
    panels, data, notes = [], [], []
    for model in ordered(source):
        rows = source.one_seed(source.predictions, model)
        if rows.empty:
            continue
        table = bins_of(rows, classes)
        panels.append(_panel(source, model, rows, table, classes))
        data.append(table.assign(model=model))
        notes.append(f"{source.label(model)}: {in_words(source, model)}")
    if not panels:
        raise Missing("predictions.tsv has no test rows")
    first = [
        f"Probability of {classes[-1]}, as the models give it; nothing was recalibrated."
        if len(classes) == 2
        else f"Probabilities of all {len(classes)} classes, each against the rest, in one diagram; nothing was recalibrated."
    ]
    first.append(
        f"{BINS} bins of equal width. Whiskers: 95\u00a0% Wilson intervals that count every group once. Grey: where 95\u00a0% of {DRAWS} "
        "perfectly calibrated models with these probabilities lie; images of one group share their luck."
    )
    table = pd.concat(data, ignore_index=True)
    return Reportlet(
        alt="Reliability diagram of each model: observed frequency against predicted probability. " + " ".join(notes),
        panels=panels,
        legend=_legend(classes),
        data=table[["model", *[name for name in table.columns if name != "model"]]],
        notes=[*first, *notes],
    )


def bins_of(rows: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What the probabilities of one model say, and what happened, in bins of equal width.

    Args:
        rows: test predictions, each image once.
        classes: in order; of two only the last counts.

    Returns:
        One row per bin that holds an image: bin_low, bin_high, n, positive, groups, probability (mean), frequency, its interval
        low and high, and the range perfect_low to perfect_high of a perfectly calibrated model.
    """
    told = rows[[PREFIX + name for name in classes]].to_numpy(np.float64)
    columns = [len(classes) - 1] if len(classes) == 2 else list(range(len(classes)))
    truth = np.stack([(rows["target"].astype(str) == classes[column]).to_numpy() for column in columns], 1)
    groups = np.unique(rows["group"], return_inverse=True)[1]
    place = np.clip((told[:, columns] * BINS).astype(np.int64), 0, BINS - 1)
    low, high = _perfect(told, groups, place, columns)
    found = []
    for index in range(BINS):
        inside = place == index
        count = int(inside.sum())
        if not count:
            continue
        people = len(np.unique(groups[inside.any(1)]))
        frequency = float(truth[inside].mean())
        interval = wilson(frequency, people)
        found.append(
            {
                "bin_low": index / BINS,
                "bin_high": (index + 1) / BINS,
                "n": count,
                "positive": int(truth[inside].sum()),
                "groups": people,
                "probability": float(told[:, columns][inside].mean()),
                "frequency": frequency,
                "low": interval[0],
                "high": interval[1],
                "perfect_low": low[index],
                "perfect_high": high[index],
            }
        )
    return pd.DataFrame(found)


def _perfect(told: Array, groups: NDArray[np.int64], place: NDArray[np.int64], columns: list[int]) -> tuple[Array, Array]:
    """The range of the frequency in each bin, were the probabilities those of a perfectly calibrated model.

    Source: Broecker and Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007 (consistency bars).
    """
    random = generator("report", "reliability")
    ends = np.cumsum(told, axis=1)[:, :-1]
    inside = [(place[:, position][:, None] == np.arange(BINS)).astype(np.float64) for position in range(len(columns))]
    size = sum(part.sum(0) for part in inside)
    found = []
    for _ in range(0, DRAWS, AT_ONCE):
        luck = random.random((AT_ONCE, int(groups.max()) + 1))[:, groups]
        drawn = (luck[:, :, None] >= ends[None]).sum(2)
        hits = sum((drawn == column).astype(np.float64) @ part for column, part in zip(columns, inside, strict=True))
        found.append(np.divide(hits, size, out=np.full((AT_ONCE, BINS), np.nan), where=size > 0))
    every = np.concatenate(found)
    filled = np.where(np.isnan(every), 0.0, every)
    low, high = np.quantile(filled, QUANTILES, axis=0)
    return low, high


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % score interval of a share.

    Args:
        share: 0 to 1.
        n: independent observations.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    scale = 1 + NORMAL**2 / n
    middle = (share + NORMAL**2 / (2 * n)) / scale
    half = NORMAL * math.sqrt(share * (1 - share) / n + NORMAL**2 / (4 * n**2)) / scale
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _panel(source: Source, model: str, rows: pd.DataFrame, table: pd.DataFrame, classes: list[str]) -> Markup:
    """The diagram, and below it how many images have which probability."""
    drawing, axes = panel(source.label(model), (0, 1), (0, 1), size=(340, 420), note=f"n = {len(rows)}")
    colour, what = source.colour(model), "the class" if len(classes) > 2 else classes[-1]
    axes.area = (58, 30, 330, 290)
    for row in rows_of(table):
        left, right = axes.px(row["bin_low"]), axes.px(row["bin_high"])
        tip = f"a perfect model with these probabilities: {row['perfect_low']:.2f} to {row['perfect_high']:.2f}"
        top = axes.py(row["perfect_high"])
        drawing.rect(left, top - 1, right - left, axes.py(row["perfect_low"]) - top + 2, "expected", tip)
    axes.left_axis(f"share that is {what}" if len(what) < 14 else "observed share")
    drawing.line(axes.area[0], axes.area[3], axes.area[2], axes.area[3], "axis")
    axes.curve((0, 1), (0, 1), "reference", "perfect calibration")
    axes.curve(table["probability"], table["frequency"], f"curve thin {colour}")
    for row in rows_of(table):
        x = axes.px(row["probability"])
        tip = (
            f"{row['bin_low']:.1f} to {row['bin_high']:.1f}: {row['positive']} of {row['n']} images in {row['groups']} groups, "
            f"share {row['frequency']:.2f} [{row['low']:.2f}, {row['high']:.2f}], mean probability {row['probability']:.2f}"
        )
        drawing.line(x, axes.py(row["low"]), x, axes.py(row["high"]), f"whisker {colour}", tip)
        drawing.dot(x, axes.py(row["frequency"]), 4, f"solid {colour}", tip)
    _histogram(drawing, table, what, colour)
    return drawing.render("chart", model=model)


def _histogram(drawing: Drawing, table: pd.DataFrame, what: str, colour: str) -> None:
    """Images per bin, those of the class below those of the rest."""
    most = float(table["n"].max())
    axes = Axes(drawing, (58, 306, 330, 376), (0, 1), (0, most * 1.05))
    axes.left_axis("images", count=2)
    axes.bottom_axis(f"predicted probability of {what}")
    for row in rows_of(table):
        left, width = axes.px(row["bin_low"]) + 1, axes.px(row["bin_high"]) - axes.px(row["bin_low"]) - 2
        own, every = axes.py(row["positive"]), axes.py(row["n"])
        drawing.rect(left, own, width, axes.py(0) - own, f"count {colour}", f"{what}: {row['positive']} of {row['n']}")
        drawing.rect(left, every, width, own - every, "count rest", f"not {what}: {row['n'] - row['positive']} of {row['n']}")


def _legend(classes: list[str]) -> list[tuple[Markup, str]]:
    """What the marks are."""
    what = "the class" if len(classes) > 2 else classes[-1]
    marks = [Drawing(26, 14) for _ in range(4)]
    marks[0].line(13, 0, 13, 14, "whisker ce")
    marks[0].dot(13, 7, 4, "solid ce")
    marks[1].rect(2, 2, 22, 10, "expected")
    marks[2].rect(6, 2, 14, 10, "count ce")
    marks[3].rect(6, 2, 14, 10, "count rest")
    words = ("share in a bin with its interval", "a perfect model", f"truly {what}", f"not {what}")
    return [(drawing.render("mark"), text) for drawing, text in zip(marks, words, strict=True)]


# ── in words ──
def in_words(source: Source, model: str) -> str:
    """Calibration error, slope and intercept of a model, and how to read them."""
    rows = overall(source)
    rows = rows[rows["model"] == model]
    parts = [_error(source, model, of_metric(rows, "expected_calibration_error"))]
    slope = of_metric(rows, "calibration_slope")
    readings = ("probabilities are too extreme", "probabilities are too cautious", "1 is within the interval")
    parts.append(_read(slope, "slope", 1.0, readings))
    intercept = of_metric(rows, "calibration_intercept")
    readings = ("probabilities are too high", "probabilities are too low", "0 is within the interval")
    parts.append(_read(intercept, "intercept", 0.0, readings))
    return "; ".join(parts) + "."


def _error(source: Source, model: str, rows: pd.DataFrame) -> str:
    if rows.empty:
        return "calibration error not available"
    value, low, high = rows[["value", "ci_low", "ci_high"]].to_numpy(float)[0]
    text = f"expected calibration error {estimate(value, low, high)}"
    try:
        chance = source.of_experiment("chance.tsv")
    except Missing:
        return text
    own = chance[(chance["model"] == model) & (chance["null"] == "perfectly calibrated") & chance["value"].notna()]
    if own.empty:
        return text
    null = own.iloc[0]
    return f"{text} (a perfect model: {rounded(null['null_low'], 2)} to {rounded(null['null_high'], 2)}, p = {null['p']:.2g})"


def _read(rows: pd.DataFrame, name: str, ideal: float, readings: tuple[str, str, str]) -> str:
    """A number with what it means: below the ideal, above it, or not told apart from it."""
    if rows.empty:
        return f"{name} undefined"
    value, low, high = rows[["value", "ci_low", "ci_high"]].to_numpy(float)[0]
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{name} {rounded(value, 2)}"
    reading = readings[0] if high < ideal else readings[1] if low > ideal else readings[2]
    return f"{name} {estimate(value, low, high)}, {reading}"
