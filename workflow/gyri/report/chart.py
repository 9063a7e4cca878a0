"""Axes, scales and marks that the figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.report.svg import Drawing, shortened, text_width

Values: TypeAlias = Sequence[float] | NDArray[Any] | pd.Series
MOST_POINTS = 6000
"""Points drawn in one figure at most."""
PANEL = (340.0, 250.0)
"""Size of a panel in px: two stand side by side on a desk, one fills a phone."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]
    # quotients of large numbers by small steps are rounded by more than a step's share
    return [tick for tick in found if low - 1e-6 * step <= tick <= high + 1e-6 * step]


def plain(value: float) -> str:
    """A tick label: as many digits as needed, thousands with a thin space."""
    if abs(value) >= 1e4:
        return f"{value:,.0f}".replace(",", "\u2009")
    return f"{value:.6g}".replace("-", "\u2212")


def padded(values: Values, share: float = 0.06, within: tuple[float | None, float | None] = (None, None)) -> tuple[float, float]:
    """The range of the finite values with some room on both sides.

    Args:
        values: any numbers.
        share: room on each side, as a fraction of the range.
        within: limits that the room does not cross; None where there is none.
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = (high - low) * share or abs(high) * 0.05 or 0.5
    low, high = low - room, high + room
    low = low if within[0] is None else max(low, within[0])
    high = high if within[1] is None else min(high, within[1])
    return (low, high) if high > low else (low - 0.5, low + 0.5)


class Axes:
    """A plotting area in a drawing.

    Args:
        drawing: where to draw.
        area: left, top, right, bottom of the plotting area in px.
        x: values at the left and right edge.
        y: values at the bottom and top edge.
    """

    def __init__(self, drawing: Drawing, area: tuple[float, float, float, float], x: tuple[float, float], y: tuple[float, float]):
        self.drawing, self.area, self.x, self.y = drawing, area, x, y

    def px(self, value: float) -> float:
        """Horizontal position of a value, in px."""
        left, _, right, _ = self.area
        return left + (value - self.x[0]) / (self.x[1] - self.x[0]) * (right - left)

    def py(self, value: float) -> float:
        """Vertical position of a value, in px."""
        _, top, _, bottom = self.area
        return bottom - (value - self.y[0]) / (self.y[1] - self.y[0]) * (bottom - top)

    def bottom_axis(self, label: str, count: int = 5, grid: bool = False, whole: bool = False) -> None:
        """Ticks, numbers and label below; only whole numbers if `whole`."""
        left, top, right, bottom = self.area
        for value in ticks(*self.x, count):
            if whole and value != round(value):
                continue
            at = self.px(value)
            if grid:
                self.drawing.line(at, top, at, bottom, "grid")
            self.drawing.line(at, bottom, at, bottom + 4, "axis")
            self.drawing.text(at, bottom + 17, plain(value), "t m q")
        self.drawing.line(left, bottom, right, bottom, "axis")
        self.drawing.text((left + right) / 2, bottom + 35, label, "t m")

    def left_axis(self, label: str, count: int = 5) -> None:
        """Grid lines, numbers and label on the left."""
        left, top, right, bottom = self.area
        for value in ticks(*self.y, count):
            at = self.py(value)
            self.drawing.line(left, at, right, at, "grid")
            self.drawing.text(left - 6, at + 4, plain(value), "t e q")
        self.drawing.text(13, (top + bottom) / 2, label, "t m", rotate=True)

    def curve(self, xs: Values, ys: Values, kind: str, tip: str = "") -> None:
        """A line through points; a value that is not finite interrupts it."""
        points: list[tuple[float, float]] = []
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                points.append((self.px(x), self.py(y)))
            else:
                self.drawing.path(points, kind, tip=tip)
                points = []
        self.drawing.path(points, kind, tip=tip)

    def dots(self, xs: Values, ys: Values, kind: str, tips: Sequence[str], radius: float = 2.6) -> None:
        """Points; those that are not finite are left out."""
        for x, y, tip in zip(xs, ys, tips, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                self.drawing.dot(self.px(x), self.py(y), radius, kind, tip)


def panel(
    title: str,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    size: tuple[float, float] = PANEL,
    left: float = 58,
    kind: str = "t b",
    note: str = "",
) -> tuple[Drawing, Axes]:
    """A drawing with a title and room for axes on the left and below.

    Args:
        title: above the plotting area.
        x: values at the left and right edge.
        y: values at the bottom and top edge.
        size: of the drawing in px.
        left: room for the left axis, in px.
        kind: class of the title.
        note: quiet text at the right of the title.
    """
    width, height = size
    drawing = Drawing(width, height)
    drawing.text(left, 16, shortened(title, width - left - text_width(note) - 14), kind, tip=title)
    if note:
        drawing.text(width - 8, 16, note, "t e q")
    return drawing, Axes(drawing, (left, 30, width - 10, height - 44), x, y)


def thinning(total: int) -> int:
    """Each so manieth point of a figure is drawn, so that a page of ten thousand cases stays small."""
    return max(1, -(-total // MOST_POINTS))


def thinning_note(every: int) -> list[str]:
    """What a figure says when it does not draw every point."""
    return [f"Of every {every} cases one is drawn; boxes and lines are of all."] if every > 1 else []


def swarm(positions: Values, step: float, limit: float) -> list[float]:
    """Offsets that keep points of a strip apart, the same ones every time.

    Args:
        positions: of the points along the strip, in px.
        step: distance between two points across the strip, in px.
        limit: largest offset, in px; points beyond it overlap.
    """
    taken: dict[int, int] = {}
    offsets = []
    for position in positions:
        key = round(position / (step * 0.9)) if math.isfinite(position) else 0
        rank = taken.get(key, 0)
        taken[key] = rank + 1
        offset = (rank + 1) // 2 * step * (1 if rank % 2 else -1)
        offsets.append(offset if abs(offset) <= limit else math.copysign(abs(offset) % max(limit, 1e-9), offset))
    return offsets


def strip(axes: Axes, at: float, half: float, values: NDArray[np.floating], kind: str, tips: Sequence[str], every: int = 1) -> None:
    """One horizontal strip of points with a box (quartiles) and the median.

    Args:
        axes: the plotting area; only its x scale is used.
        at: vertical middle of the strip, in px.
        half: half height of the strip, in px.
        values: the points.
        kind: colour class, such as `c1`.
        tips: one per point.
        every: only each so manieth point is drawn; the box is of all.
    """
    keep = np.isfinite(values)
    values, tips = values[keep], [tip for tip, good in zip(tips, keep, strict=True) if good]
    if not values.size:
        return
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    across = axes.drawing
    across.rect(axes.px(low), at - half, axes.px(high) - axes.px(low), 2 * half, f"box {kind}")
    positions = [axes.px(float(value)) for value in values[::every]]
    for position, offset, tip in zip(positions, swarm(positions, 4.2, half - 1), tips[::every], strict=True):
        across.dot(position, at + offset, 2.2, f"point {kind}", tip)
    across.line(axes.px(middle), at - half - 2, axes.px(middle), at + half + 2, "median", f"median {middle:.4g}")
