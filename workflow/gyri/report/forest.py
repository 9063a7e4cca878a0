"""A forest plot of any rows: label, mark with interval on one axis, and the numbers in words; wide and narrow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from gyri.report.chart import Axes, padded
from gyri.report.svg import Drawing, shortened, text_width

ROW, HEADING = 30.0, 30.0
SMALL = 0.88
"""Width of small text, as a share of that of the usual one."""
LABEL = 250.0
"""Most room for labels beside the axis, in px."""


@dataclass(frozen=True)
class Item:
    """A row of a forest plot, or a heading between rows.

    Args:
        label: what the row is about.
        value: where the mark stands; NaN for none.
        low: lower end of the interval; NaN for none.
        high: upper end.
        text: the numbers in words.
        colour: class of the mark.
        mark: solid or hollow.
        model: whom the row is about; it vanishes with it.
        small: quiet words below the label.
        band: grey range behind the mark, such as that of a null; empty for none.
        heading: whether this is a heading.
    """

    label: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    text: str = ""
    colour: str = "c1"
    mark: str = "solid"
    model: str = ""
    small: str = ""
    band: tuple[float, float] | tuple[()] = ()
    heading: bool = False


def heading(label: str) -> Item:
    """A heading between rows."""
    return Item(label, heading=True)


@dataclass(frozen=True)
class Scale:
    """The axis of a forest plot.

    Args:
        label: of the axis.
        limits: values that it does not cross; None where there is no bound.
        reference: where a dashed line stands; NaN for none.
        told: what the line means.
        include: values that the axis holds in any case.
    """

    label: str
    limits: tuple[float | None, float | None] = (None, None)
    reference: float = math.nan
    told: str = ""
    include: tuple[float, ...] = ()


def forest_plots(items: Sequence[Item], scale: Scale, title: str = "") -> tuple[Markup, Markup]:
    """The plot for a wide and for a narrow screen."""
    return plot(items, scale, 900, True, title), plot(items, scale, 380, False, title)


def plot(items: Sequence[Item], scale: Scale, width: float, beside: bool, title: str = "", model: str = "") -> Markup:
    """A forest plot.

    Args:
        items: rows from top to bottom.
        scale: the axis.
        width: of the drawing, in px.
        beside: labels and numbers beside the marks; else above them.
        title: above the plot; a panel's name.
        model: whom all of the plot is about, if one.
    """
    rows = [item for item in items if not item.heading]
    label = min(max((max(text_width(item.label), SMALL * text_width(item.small)) for item in rows), default=0) + 24, LABEL)
    label = label if beside else 12.0
    number = max((text_width(item.text) for item in rows), default=0) + 26 if beside else 12.0
    height = ROW + (8 if any(item.small for item in rows) else 0) if beside else ROW + 14
    top = 12.0 + (18 if title else 0)
    bottom = top + sum(HEADING if item.heading else height for item in items)
    drawing = Drawing(width, bottom + 46)
    if title:
        drawing.text(12, 16, shortened(title, width - 20), "t b", tip=title)
    shown = [value for item in rows for value in (item.value, item.low, item.high, *item.band)]
    known = np.array([*shown, scale.reference, *scale.include], float)
    axes = Axes(drawing, (label, top, width - number, bottom), padded(known, 0.06, scale.limits), (0, 1))
    axes.bottom_axis(scale.label, count=6 if beside else 4, grid=True)
    if math.isfinite(scale.reference):
        at = axes.px(scale.reference)
        drawing.line(at, top - 4, at, bottom, "reference", scale.told)
    place = top
    for item in items:
        if item.heading:
            drawing.line(0, place, width, place, "rule")
            drawing.text(12, place + 20, shortened(item.label, width - 24), "t b halo", tip=item.label)
            place += HEADING
            continue
        with drawing.model(item.model):
            _row(axes, item, place, height, beside)
        place += height
    return drawing.render("chart", model=model)


def _row(axes: Axes, item: Item, top: float, height: float, beside: bool) -> None:
    """Label, numbers, band, interval and mark of one row."""
    drawing, width = axes.drawing, axes.drawing.width
    middle = top + height * (0.5 if beside else 0.72)
    words = middle + 4 if beside else top + 15
    raised = 6 if beside and item.small else 0
    room = axes.area[0] - 18 if beside else width - text_width(item.text) - 34
    tip = f"{item.label}: {item.text}" + (f", {item.small}" if item.small else "")
    if item.band:
        left, right = sorted(axes.px(value) for value in item.band)
        drawing.rect(left, middle - 7, max(right - left, 2), 14, "expected", tip)
    if math.isfinite(item.low) and math.isfinite(item.high):
        left, right = axes.px(max(item.low, axes.x[0])), axes.px(min(item.high, axes.x[1]))
        drawing.line(left, middle, right, middle, f"interval {item.colour}", tip)
    if math.isfinite(item.value):
        drawing.dot(axes.px(item.value), middle, 4.6, f"{item.mark} {item.colour}", tip)
    drawing.text(12, words - raised, shortened(item.label, room), "t halo", tip=item.label)
    if item.small and beside:
        drawing.text(12, words + 8, shortened(item.small, room / SMALL), "t q small halo", tip=item.small)
    elif item.small and room - text_width(item.label) > 60:
        left = text_width(item.label) + 8
        drawing.text(12 + left, words, shortened(item.small, (room - left) / SMALL), "t q small halo", tip=item.small)
    drawing.text(width - 8, words, item.text, "t e halo")
