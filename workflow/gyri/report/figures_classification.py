"""Classification: confusion and probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from gyri.report.chart import panel, strip, thinning, thinning_note
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import ordered
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened

PREFIX = "probability_"


def classes_of(source: Source) -> list[str]:
    """Classes in the order of the probability columns, the positive one last."""
    names = [name.removeprefix(PREFIX) for name in source.predictions.columns if name.startswith(PREFIX)]
    if not names:
        raise Missing("predictions.tsv has no probability columns")
    return names


def confusion(source: Source) -> Reportlet:
    """Counts over all test folds, with the share of each row."""
    classes = classes_of(source)
    panels, data = [], []
    for model in ordered(source):
        rows = source.one_seed(source.predictions, model)
        if rows.empty:
            continue
        truth, said = rows["target"].astype(str), rows["prediction"].astype(str)
        counts = np.array([[int(((truth == a) & (said == b)).sum()) for b in classes] for a in classes])
        panels.append(_matrix(source.label(model), counts, classes, model))
        data += [
            {"model": model, "truth": a, "prediction": b, "n": counts[i, j]}
            for i, a in enumerate(classes)
            for j, b in enumerate(classes)
        ]
    if not panels:
        raise Missing("predictions.tsv has no test rows")
    return Reportlet(
        alt="Confusion matrices: counts of test images by true and predicted class.",
        panels=panels,
        data=pd.DataFrame(data),
        notes=[_whose(source)],
    )


def _whose(source: Source) -> str:
    several = any(
        count > 1 and f"ensemble.seeds.{name}" not in source.settings.ensembles for name, count in source.settings.models.items()
    )
    start = "Out-of-fold predictions of every test image"
    return f"{start}, each once; of models with several seeds the first." if several else f"{start}, each once."


def _matrix(title: str, counts: NDArray[np.integer], classes: list[str], model: str) -> Markup:
    size = min(max(52.0, 180.0 / len(classes)), 84.0) if len(classes) < 6 else 42.0
    left, top = 104.0, 54.0
    drawing = Drawing(max(left + size * len(classes) + 12, 280), top + size * len(classes) + 30)
    drawing.text(8, 16, shortened(title, drawing.width - 100), "t b")
    drawing.text(drawing.width - 8, 16, f"n = {counts.sum()}", "t e q")
    for i, name in enumerate(classes):
        total = int(counts[i].sum())
        middle = top + size * (i + 0.5)
        drawing.text(left - 8, middle, shortened(name, left - 14), "t e", tip=name)
        drawing.text(left - 8, middle + 14, f"n = {total}", "t e q small")
        drawing.text(left + size * (i + 0.5), top - 8, shortened(name, size), "t m", tip=name)
        for j, other in enumerate(classes):
            share = counts[i, j] / total if total else 0.0
            x, y = left + size * j, top + size * i
            drawing.rect(
                x + 1,
                y + 1,
                size - 2,
                size - 2,
                "cell",
                f"true {name}, predicted {other}: {counts[i, j]} of {total}",
                share * 0.85 + 0.04,
            )
            kind = "t m over" if share > 0.55 else "t m"
            drawing.text(x + size / 2, y + size / 2 + 1, str(counts[i, j]), f"{kind} b")
            drawing.text(x + size / 2, y + size / 2 + 16, f"{100 * share:.0f} %", f"{kind} small")
    drawing.text(left + size * len(classes) / 2, top + size * len(classes) + 20, "columns: predicted, rows: true", "t m q small")
    return drawing.render("chart", model=model)


def probabilities(source: Source) -> Reportlet:
    """Predicted probability by true class."""
    classes = classes_of(source)
    panels, data = [], []
    every = thinning(len(source.kept) * len(source.shown_models()))
    for model in ordered(source):
        rows = source.one_seed(source.predictions, model)
        if rows.empty:
            continue
        panels.append(_strips(source, model, rows, classes, every))
        data.append(rows[["image_id", "participant_id", "fold", "model", "target", *[PREFIX + name for name in classes]]])
    if not panels:
        raise Missing("predictions.tsv has no test rows")
    what = f"probability of {classes[-1]}" if len(classes) == 2 else "probability of the true class"
    return Reportlet(
        alt=f"Predicted {what} for the test images of each true class.",
        panels=panels,
        data=pd.concat(data),
        notes=thinning_note(every),
        columns=2,
    )


def _strips(source: Source, model: str, rows: pd.DataFrame, classes: list[str], every: int) -> Markup:
    step, left = 50.0, 104.0
    drawing, axes = panel(
        source.label(model), (0, 1), (0, 1), size=(400, 30 + step * len(classes) + 46), left=left, note=f"n = {len(rows)}"
    )
    axes.bottom_axis(f"probability of {classes[-1]}" if len(classes) == 2 else "probability of the true class", grid=True)
    if len(classes) == 2:
        axes.drawing.line(axes.px(0.5), axes.area[1], axes.px(0.5), axes.area[3], "reference", "0.5")
    for index, name in enumerate(classes):
        part = rows[rows["target"].astype(str) == name]
        middle = axes.area[1] + step * (index + 0.5)
        drawing.text(left - 8, middle, shortened(f"true {name}", left - 12), "t e", tip=name)
        drawing.text(left - 8, middle + 14, f"n = {len(part)}", "t e q small")
        values = part[PREFIX + (classes[-1] if len(classes) == 2 else name)].to_numpy(float)
        tips = [
            f"{image}, fold {fold}: {value:.3f}" for image, fold, value in zip(part["image_id"], part["fold"], values, strict=True)
        ]
        strip(axes, middle, 17, values, source.colour(model), tips, every)
    return drawing.render("chart", model=model)
