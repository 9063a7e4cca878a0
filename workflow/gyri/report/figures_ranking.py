"""Classification at every threshold: ROC and precision-recall curves with their spread over folds, and the operating points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from gyri.metrics import operating_points
from gyri.report.chart import Axes, panel
from gyri.report.figures_classification import PREFIX, classes_of
from gyri.report.folds import Array, Curve, precision_points, roc_points, thinned, together
from gyri.report.parts import Missing, Reportlet, Table
from gyri.report.results import decimals, estimate, of_metric, ordered, overall, shared_digits
from gyri.report.source import COLOURS, Source
from gyri.report.svg import Drawing
from gyri.tables import rows_of

Of = Callable[[NDArray[np.floating], NDArray[np.bool_]], tuple[Array, Array]]
SPREAD = (
    "The band reaches from the lowest to the highest fold at each place, the thick line is the mean over folds. "
    "It is the spread of the folds, not a confidence interval."
)


@dataclass(frozen=True)
class Kind:
    """A kind of curve.

    Args:
        points: of scores and truth.
        x: label of the axis.
        y: label of the axis.
        metric: the area that is written into the panel, mean over folds.
        name: its short name.
        corner: where it is written, as shares of the panel's width and height.
        place: of a decision: from true and false positives, positives and negatives to a point.
    """

    points: Of
    x: str
    y: str
    metric: str
    name: str
    corner: tuple[float, float]
    place: Callable[[int, int, int, int], tuple[float, float]]


ROC = Kind(roc_points, "1 \u2212 specificity", "sensitivity", "auroc", "AUROC", (0.97, 0.05), lambda tp, fp, p, n: (fp / n, tp / p))
PRECISION = Kind(
    precision_points,
    "sensitivity (recall)",
    "precision",
    "average_precision",
    "AP",
    (0.03, 0.05),
    lambda tp, fp, p, n: (tp / p, tp / (tp + fp) if tp + fp else float("nan")),
)


def roc(source: Source) -> Reportlet:
    """Receiver operating characteristic of each model."""
    return _figure(source, ROC)


def precision_recall(source: Source) -> Reportlet:
    """Precision over sensitivity of each model."""
    return _figure(source, PRECISION)


def _figure(source: Source, kind: Kind) -> Reportlet:
    """A panel per model, a band, a mean and thin curves per class, and the operating points of each fold."""
    classes = classes_of(source)
    shown = classes[1:] if len(classes) == 2 else classes
    chosen, why = _thresholds(source)
    panels, data, seen = [], [], False
    for model in ordered(source):
        rows = source.one_seed(source.predictions, model)
        if rows.empty:
            continue
        drawing, axes = panel(source.label(model), (0, 1), (0, 1), size=(340, 330), note=f"n = {len(rows)}")
        axes.left_axis(kind.y)
        axes.bottom_axis(kind.x)
        for index, name in enumerate(shown):
            colour = source.colour(model) if len(classes) == 2 else f"c{index % COLOURS + 1}"
            curves = _curves(rows, name, kind)
            own = chosen[(chosen["model"] == model) & (chosen["structure"] == ("" if len(classes) == 2 else name))]
            points = _decisions(rows, own, name, kind)
            _draw(axes, curves, points, colour, kind, "" if len(classes) == 2 else f"{name}, ")
            data += [_table(model, name, curve) for curve in curves] + [points.assign(model=model, **{"class": name})]
            seen |= bool(curves)
        _area(source, model, axes, kind)
        panels.append(drawing.render("chart", model=model))
    if not seen:
        raise Missing("no fold has test images of two classes")
    told = f"Positive class: {classes[-1]}." if len(classes) == 2 else f"Each of {len(classes)} classes against the others."
    table = pd.concat([part for part in data if len(part)], ignore_index=True)
    first = ["model", "class", "fold", "what", "threshold", "x", "y", "n"]
    return Reportlet(
        alt=f"{kind.y.capitalize()} over {kind.x} of each model, one curve per fold, with band and mean. {told}",
        panels=panels,
        legend=_legend(shown if len(classes) > 2 else []),
        tables=[_reached(source)] if kind is ROC and _reached_rows(source) is not None else [],
        data=table.reindex(columns=first).rename(columns={"x": kind.x.replace("\u2212", "-"), "y": kind.y}),
        notes=[f"{told} {kind.name} is the mean over folds with its 95\u00a0% interval. {SPREAD}", *([why] if why else [])],
    )


def _curves(rows: pd.DataFrame, name: str, kind: Kind) -> list[Curve]:
    """The curve of each fold that has positive and negative images."""
    found = []
    for fold, part in rows.groupby("fold", sort=True):
        positive = (part["target"].astype(str) == name).to_numpy()
        if positive.any() and not positive.all():
            x, y = thinned(*kind.points(part[PREFIX + name].to_numpy(float), positive))
            found.append(Curve(x, y, str(fold), len(part), int(positive.sum())))
    return found


def _decisions(rows: pd.DataFrame, chosen: pd.DataFrame, name: str, kind: Kind) -> pd.DataFrame:
    """Where the thresholds that were chosen on validation lead on the test images of each fold."""
    found = []
    for fold, what, cut in chosen[["fold", "what", "value"]].itertuples(index=False):
        part = rows[rows["fold"] == fold]
        positive = (part["target"].astype(str) == name).to_numpy()
        if np.isnan(cut) or not positive.any() or positive.all():
            continue
        said = part[PREFIX + name].to_numpy(float) >= cut
        counts = int((said & positive).sum()), int((said & ~positive).sum())
        x, y = kind.place(*counts, int(positive.sum()), int((~positive).sum()))
        found.append({"fold": fold, "what": what, "threshold": cut, "x": x, "y": y, "n": len(part)})
    return pd.DataFrame(found, columns=["fold", "what", "threshold", "x", "y", "n"])


def _draw(axes: Axes, curves: list[Curve], points: pd.DataFrame, colour: str, kind: Kind, about: str) -> None:
    """Band, reference, curves, mean and operating points, from the back to the front."""
    if kind is ROC:
        axes.curve((0, 1), (0, 1), "reference", "chance")
    elif curves:
        share = sum(curve.positive for curve in curves) / sum(curve.n for curve in curves)
        axes.curve((0, 1), (share, share), "reference", f"{about}chance: {share:.3f} of the images are positive")
    if len(curves) > 1:
        spread = together(curves)
        outline = [(axes.px(x), axes.py(y)) for x, y in spread.band]
        axes.drawing.path(outline, f"spread {colour}", closed=True)
        for curve in curves:
            axes.curve(curve.x, curve.y, f"curve thin {colour}", f"{about}{_told(curve)}")
        axes.curve(spread.x, spread.mean, f"curve bold {colour}", f"{about}mean of {len(curves)} folds")
    else:
        for curve in curves:
            axes.curve(curve.x, curve.y, f"curve bold {colour}", f"{about}{_told(curve)}")
    for row in rows_of(points):
        x, y = float(row["x"]), float(row["y"])
        if np.isfinite(y):
            words = f"{about}fold {row['fold']}, {row['what']} {row['threshold']:.3g}"
            tip = f"{words}: {kind.x.split(' (')[0]} {x:.2f}, {kind.y} {y:.2f}"
            _mark(axes.drawing, axes.px(x), axes.py(y), str(row["what"]), colour, tip)


def _told(curve: Curve) -> str:
    return f"fold {curve.fold}: n = {curve.n}, {curve.positive} positive"


def _mark(drawing: Drawing, x: float, y: float, what: str, colour: str, tip: str = "") -> None:
    """A hollow circle or diamond."""
    if what.endswith("sensitivity"):
        drawing.diamond(x, y, 5.2, f"hollow {colour}", tip)
    else:
        drawing.dot(x, y, 4, f"hollow {colour}", tip)


def _area(source: Source, model: str, axes: Axes, kind: Kind) -> None:
    """Write the area below the curves with its interval into the panel."""
    rows = of_metric(overall(source), kind.metric)
    own = rows[rows["model"] == model]
    if own.empty:
        return
    value, low, high = own[["value", "ci_low", "ci_high"]].to_numpy(float)[0]
    text = f"{kind.name} {estimate(value, low, high, shared_digits(rows))}"
    x, y = axes.px(kind.corner[0]), axes.py(kind.corner[1])
    axes.drawing.text(x, y, text, "t b halo" + (" e" if kind.corner[0] > 0.5 else ""))


def _table(model: str, name: str, curve: Curve) -> pd.DataFrame:
    return pd.DataFrame(
        {"model": model, "class": name, "fold": curve.fold, "what": "curve", "x": curve.x, "y": curve.y, "n": curve.n}
    )


def _legend(classes: list[str]) -> list[tuple[Markup, str]]:
    """What the lines and marks are; of several classes also their colours."""
    band, thin, bold = Drawing(26, 14), Drawing(26, 14), Drawing(26, 14)
    band.rect(2, 1, 22, 12, "spread ce")
    thin.line(2, 7, 24, 7, "curve thin ce")
    bold.line(2, 7, 24, 7, "curve bold ce")
    found = [(bold, "mean over folds"), (thin, "one fold"), (band, "lowest to highest fold")]
    for point in operating_points.POINTS:
        drawing = Drawing(26, 14)
        _mark(drawing, 13, 7, point, "ce")
        found.append((drawing, f"threshold for {point}"))
    for index, name in enumerate(classes):
        drawing = Drawing(26, 14)
        drawing.line(2, 7, 24, 7, f"curve bold c{index % COLOURS + 1}")
        found.append((drawing, name))
    return [(drawing.render("mark"), words) for drawing, words in found]


# ── operating points ──
def _thresholds(source: Source) -> tuple[pd.DataFrame, str]:
    """Thresholds of fitted.tsv; none, and why, where they are not there."""
    columns = ["model", "fold", "seed", "what", "structure", "value"]
    try:
        rows = source.of_experiment("fitted.tsv")
    except Missing as missing:
        return pd.DataFrame(columns=columns), f"Operating points: not available ({missing})."
    rows = rows[rows["what"].astype(str).str.startswith("threshold for ")].copy()
    if rows.empty:
        return pd.DataFrame(columns=columns), "Operating points: not available (fitted.tsv holds no threshold)."
    rows["seed"] = rows["seed"].astype(str)
    first = rows.groupby("model")["seed"].transform(lambda seeds: min(seeds, key=lambda seed: (len(seed), seed)))
    rows = rows[rows["seed"] == first]
    return rows.assign(value=pd.to_numeric(rows["value"], errors="coerce"))[columns], ""


def wanted(source: Source) -> dict[str, float]:
    """What each operating point was to reach on validation, from the provenance of the evaluation."""
    for record in source.provenance:
        if record.get("stage") == "evaluate":
            told = (record.get("settings") or {}).get("evaluation") or {}
            return {point: float(told[point]) for point in operating_points.POINTS if point in told}
    return {}


def _reached_rows(source: Source) -> pd.DataFrame | None:
    rows = overall(source)
    found = rows[rows["metric"].isin(list(operating_points.METRICS))]
    return found if len(found) else None


def _reached(source: Source) -> Table:
    """Sensitivity and specificity on the test images at both thresholds."""
    rows, asked = overall(source), wanted(source)
    pairs = {
        "specificity": ("sensitivity_at_specificity", "specificity_reached"),
        "sensitivity": ("sensitivity_reached", "specificity_at_sensitivity"),
    }
    body, models = [], []
    for model in ordered(source):
        for point, names in pairs.items():
            cells = [_cell(of_metric(rows[rows["model"] == model], name)) for name in names]
            goal = f"{point} ≥ {asked[point]:g}" if point in asked else point
            body.append([source.label(model), goal, *cells])
            models.append(model)
    columns = ["Model", "Threshold chosen on validation for", "#Sensitivity on test", "#Specificity on test"]
    return Table(columns, body, "Operating points", classes="sortable", row_models=models)


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "n/a"
    value, low, high = rows[["value", "ci_low", "ci_high"]].to_numpy(float)[0]
    return estimate(value, low, high, decimals(low, high))
