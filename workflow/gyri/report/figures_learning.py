"""Learning curves of every training, with the chosen epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.report.chart import padded, panel
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import metric
from gyri.report.source import Source
from gyri.report.svg import Drawing

NOT_METRICS = ("validation_loss",)


def histories(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """All histories in one table with model, fold and seed; and the runs whose history is missing."""
    found, missing = [], []
    for model, fold, seed in source.runs():
        if model in source.settings.baselines:
            continue
        try:
            table = source.table(source.layout.run(source.settings.experiment, model, fold, seed, "history.tsv"), "history")
        except Missing:
            missing.append(f"{model} fold {fold} seed {seed}")
            continue
        found.append(table.assign(model=model, fold=str(fold), seed=str(seed)))
    return (pd.concat(found, ignore_index=True) if found else pd.DataFrame()), missing


def curves(source: Source) -> Reportlet:
    """Training and validation loss, and the validation metric, of all folds and seeds."""
    table, missing = histories(source)
    if table.empty:
        raise Missing(
            "no history.tsv of any network" if source.networks else "the experiment has baselines only, which are fitted in one go"
        )
    models = [model for model in source.networks if (table["model"] == model).any()]
    panels = [_loss(source, table, model) for model in models]
    extra = [name for name in table.columns if name.startswith("validation_") and name not in NOT_METRICS]
    panels += [
        _metric(source, table, model, name)
        for name in extra
        for model in models
        if table.loc[table["model"] == model, name].notna().any()
    ]
    runs = table.groupby(["model", "fold", "seed"]).ngroups
    notes = [
        f"{runs} trainings of {len(models)} network{'s' if len(models) != 1 else ''}. Baselines are fitted at once and have none."
    ]
    if missing:
        notes.append(f"Not available: {', '.join(missing)}.")
    first = ["model", "fold", "seed"]
    return Reportlet(
        alt=f"Loss on training and validation participants over the epochs, {runs} trainings; the chosen epoch of each is marked.",
        panels=panels,
        legend=_legend(),
        data=table[first + [name for name in table.columns if name not in first]],
        notes=notes,
        columns=2,
    )


def _legend() -> list[tuple[Markup, str]]:
    marks = []
    for kind, words in (("curve faint", "training"), ("curve c1", "validation")):
        drawing = Drawing(26, 14)
        drawing.line(2, 7, 24, 7, kind)
        marks.append((drawing.render("mark"), words))
    drawing = Drawing(26, 14)
    drawing.dot(13, 7, 4, "chosen c1")
    return [*marks, (drawing.render("mark"), "chosen epoch")]


def _runs_of(table: pd.DataFrame, model: str) -> list[tuple[str, pd.DataFrame]]:
    return [
        (f"fold {fold}, seed {seed}", part)
        for (fold, seed), part in table[table["model"] == model].groupby(["fold", "seed"], sort=True)
    ]


def _limits(table: pd.DataFrame, names: list[str]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Axes that all models share; single values far above the rest are cut off so that the curves can be seen."""
    values = table[names].to_numpy(float)
    finite = values[np.isfinite(values)]
    ceiling = np.quantile(finite, 0.995) if finite.size else 1.0
    y = padded(np.minimum(finite, ceiling))
    epochs = table["epoch"].to_numpy(float)
    return (float(epochs.min()), max(float(epochs.max()), float(epochs.min()) + 1)), y


def _loss(source: Source, table: pd.DataFrame, model: str) -> Markup:
    x, y = _limits(table, ["train_loss", "validation_loss"])
    drawing, axes = panel(model, x, y, size=(400, 250), note=f"{len(_runs_of(table, model))} trainings")
    axes.left_axis("loss")
    axes.bottom_axis("epoch", whole=True)
    colour = source.colour(model)
    for name, run in _runs_of(table, model):
        axes.curve(run["epoch"], np.minimum(run["train_loss"], y[1]), "curve faint", f"{name}: training")
    for name, run in _runs_of(table, model):
        good = run[run["validation_loss"].notna()]
        axes.curve(good["epoch"], np.minimum(good["validation_loss"], y[1]), f"curve {colour}", f"{name}: validation")
    for name, run in _runs_of(table, model):
        chosen = _chosen(run)
        tips = [
            f"{name}: epoch {epoch:.0f}, validation loss {loss:.4g}"
            for epoch, loss in zip(chosen["epoch"], chosen["validation_loss"], strict=True)
        ]
        axes.dots(chosen["epoch"], np.minimum(chosen["validation_loss"], y[1]), f"chosen {colour}", tips, 4)
    return drawing.render("chart", model=model)


def _metric(source: Source, table: pd.DataFrame, model: str, column: str) -> Markup:
    name = metric(column.removeprefix("validation_"))
    x, y = _limits(table, [column])
    drawing, axes = panel(model, x, y, size=(400, 250), note="validation participants")
    axes.left_axis(name.label)
    axes.bottom_axis("epoch", whole=True)
    colour = source.colour(model)
    for label, run in _runs_of(table, model):
        good = run[run[column].notna()]
        axes.curve(good["epoch"], good[column], f"curve {colour}", label)
        chosen = _chosen(good)
        tips = [f"{label}: epoch {epoch:.0f}, {value:.4g}" for epoch, value in zip(chosen["epoch"], chosen[column], strict=True)]
        axes.dots(chosen["epoch"], chosen[column], f"chosen {colour}", tips, 4)
    return drawing.render("chart", model=model)


def _chosen(run: pd.DataFrame) -> pd.DataFrame:
    return run[run["selected"] == 1] if "selected" in run else run.iloc[:0]
