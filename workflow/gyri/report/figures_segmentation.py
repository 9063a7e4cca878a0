"""Segmentation: overlap and distances per structure, overlap and volume error against size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.io import read_array
from gyri.report.chart import padded, panel, strip, thinning, thinning_note
from gyri.report.figures_regression import agreement
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import axis_label, chosen_model, metric, ordered
from gyri.report.source import Source
from gyri.report.svg import shortened

MOST_STRUCTURES = 14
OVERLAP, TRUE_VOLUME = "dice", "volume_true_ml"


def case_values(source: Source, name: str = OVERLAP) -> pd.DataFrame:
    """A metric of every test case, shown model and structure (without `mean`), where it is defined."""
    table = source.cases
    table = table[(table["metric"] == name) & ~table["structure"].isin(["mean", "all", ""]) & table["value"].notna()]
    parts = [source.one_seed(table, model) for model in ordered(source)]
    rows = pd.concat(parts) if parts else table.iloc[:0]
    if rows.empty:
        raise Missing(f"cases.tsv has no `{name}` of test images")
    return rows


def dice_per_structure(source: Source) -> Reportlet:
    """Overlap: one panel per structure, one strip per model."""
    return _per_structure(source, OVERLAP)


def surface_dice_per_structure(source: Source) -> Reportlet:
    """Agreement of the surfaces."""
    return _per_structure(source, "surface_dice")


def hd95_per_structure(source: Source) -> Reportlet:
    """Distance of the surfaces."""
    return _per_structure(source, "hd95")


def _per_structure(source: Source, metric_name: str) -> Reportlet:
    rows, about = case_values(source, metric_name), metric(metric_name)
    label = axis_label(metric_name, source.settings.target, arrow=False)
    best_first = rows.groupby("structure")["value"].median().sort_values(ascending=about.better < 0)
    order = list(best_first.index)
    names = order if len(order) <= MOST_STRUCTURES else order[: MOST_STRUCTURES // 2] + order[-MOST_STRUCTURES // 2 :]
    start = [0.0] if about.better < 0 else []  # a distance is judged from 0
    limits = padded([*start, *rows["value"]], 0.03, about.limits)
    models = [model for model in ordered(source) if (rows["model"] == model).any()]
    every = thinning(len(rows))
    panels = [_structure(source, rows[rows["structure"] == name], name, models, limits, every, label) for name in names]
    notes = []
    if len(names) < len(order):
        notes.append(f"The {len(names)} structures with the best and worst median out of {len(order)}; all are in the table.")
    notes += thinning_note(every)
    medians = [f"{name}: median {rows.loc[rows['structure'] == name, 'value'].median():.3g}" for name in names]
    return Reportlet(
        alt=f"{label} of every test image, for {len(models)} models. Over all models, {'; '.join(medians)}.",
        panels=panels,
        data=rows[["image_id", "fold", "model", "structure", "value"]],
        notes=notes,
        columns=2,
    )


def _structure(
    source: Source, rows: pd.DataFrame, name: str, models: list[str], limits: tuple[float, float], every: int, label: str
) -> Markup:
    step, left = 40.0, 132.0
    drawing, axes = panel(shortened(name, 260), limits, (0, 1), size=(420, 30 + step * len(models) + 46), left=left)
    drawing.text(drawing.width - 10, 16, f"n = {rows['image_id'].nunique()} images", "t e q")
    axes.bottom_axis(label, grid=True)
    for index, model in enumerate(models):
        part = rows[rows["model"] == model]
        middle = axes.area[1] + step * (index + 0.5)
        tips = [
            f"{image}, fold {fold}: {value:.4g}"
            for image, fold, value in zip(part["image_id"], part["fold"], part["value"], strict=True)
        ]
        with drawing.model(model):
            drawing.text(left - 8, middle + 4, shortened(source.label(model), left - 12), "t e", tip=source.label(model))
            strip(axes, middle, 13, part["value"].to_numpy(float), source.colour(model), tips, every)
    return drawing.render("chart")


def volume_error(source: Source) -> Reportlet:
    """Predicted minus true volume of the best model over the true volume, with mean and limits of agreement."""
    model = chosen_model(source)
    rows = case_values(source, "volume_error_ml")
    rows = rows[rows["model"] == model]
    if rows.empty:
        raise Missing(f"cases.tsv has no test rows of {model}")
    volumes, unit = true_volumes(source)
    if unit != "mL":
        raise Missing(f"cases.tsv has no `{TRUE_VOLUME}`")
    rows = rows.merge(volumes, on=["image_id", "structure"], how="inner")
    names, every = list(dict.fromkeys(rows["structure"]))[:MOST_STRUCTURES], thinning(len(rows))
    panels, notes = [], [f"Model: {source.label(model)}."]
    for index, name in enumerate(names):
        part = rows[rows["structure"] == name]
        lines = agreement(part["value"].to_numpy(float), part["group"].nunique())
        x, y = padded(part["volume"].to_numpy(float)), padded([0.0, *part["value"], *lines["value"]])
        drawing, axes = panel(name, x, y, size=(340, 270), note=f"n = {len(part)}")
        axes.left_axis("predicted \u2212 true (mL)")
        axes.bottom_axis("true volume (mL)", count=4)
        drawing.line(axes.area[0], axes.py(0), axes.area[2], axes.py(0), "axis")
        for told, value in lines[["line", "value"]].dropna().itertuples(index=False):
            kind = "limit" if "limit" in told else "mean"
            drawing.line(axes.area[0], axes.py(value), axes.area[2], axes.py(value), kind, f"{told}: {value:.3g} mL")
        tips = [
            f"{image}: true {volume:.4g} mL, error {value:+.3g} mL"
            for image, volume, value in part[["image_id", "volume", "value"]].itertuples(index=False)
        ]
        axes.dots(part["volume"][::every], part["value"][::every], f"point strong c{index % 6 + 1}", tips[::every])
        panels.append(drawing.render("chart", model=model))
        low, mean, high = lines["value"]
        relative = 100 * mean / part["volume"].mean() if part["volume"].mean() > 0 else float("nan")
        words = f"{name}: mean error {mean:+.3g} mL ({relative:+.2g} % of the mean volume), limits {low:+.3g} to {high:+.3g} mL."
        notes.append(words.replace("-", "\u2212"))
    return Reportlet(
        alt="Volume error over the true volume of each structure. " + " ".join(notes),
        panels=panels,
        data=rows[["image_id", "participant_id", "fold", "model", "structure", "volume", "value"]],
        notes=[*notes, *thinning_note(every)],
    )


def dice_against_volume(source: Source) -> Reportlet:
    """Dice of the best model over the size of the structure in the truth."""
    model = chosen_model(source)
    rows = case_values(source)
    rows = rows[rows["model"] == model]
    if rows.empty:
        raise Missing(f"cases.tsv has no test rows of {model}")
    volumes, unit = true_volumes(source)
    rows = rows.merge(volumes, on=["image_id", "structure"], how="inner")
    rows = rows[rows["volume"] > 0]
    if rows.empty:
        raise Missing("no structure has a volume in the truth")
    names = list(dict.fromkeys(rows["structure"]))[:MOST_STRUCTURES]
    y = padded(rows["value"].to_numpy(float), 0.04, (0.0, 1.0))
    panels, every = [], thinning(len(rows))
    for index, name in enumerate(names):
        part = rows[rows["structure"] == name]
        drawing, axes = panel(name, padded(part["volume"].to_numpy(float)), y, size=(340, 260), note=f"n = {len(part)}")
        axes.left_axis("Dice coefficient")
        axes.bottom_axis(f"true volume ({unit})", count=4)
        tips = [
            f"{image}: {volume:.4g} {unit}, Dice {value:.3f}"
            for image, volume, value in part[["image_id", "volume", "value"]].itertuples(index=False)
        ]
        axes.dots(part["volume"][::every], part["value"][::every], f"point strong c{index % 6 + 1}", tips[::every])
        panels.append(drawing.render("chart"))
    return Reportlet(
        alt=f"Dice coefficient of {source.label(model)} over the true volume of each structure.",
        panels=panels,
        data=rows[["image_id", "participant_id", "fold", "structure", "volume", "value"]],
        notes=[f"Model: {source.label(model)}.", *thinning_note(every)],
    )


def true_volumes(source: Source) -> tuple[pd.DataFrame, str]:
    """Volume of every structure of every image: from cases.tsv where it is, else counted on the network's grid.

    Returns:
        Columns image_id, structure, volume; and the unit.
    """
    table = source.cases
    rows = table[table["metric"] == TRUE_VOLUME].drop_duplicates(["image_id", "structure"])
    if len(rows):
        return rows[["image_id", "structure", "value"]].rename(columns={"value": "volume"}), "mL"
    return _counted(source), "voxels of the network's grid"


def _counted(source: Source) -> pd.DataFrame:
    folder = source.layout.dataset(source.settings.dataset)
    if not (folder / "labels.npy").is_file():
        raise Missing("cases.tsv has no volumes and labels.npy is not there")
    record = source.json(folder / "images.json")
    names = source.description.get("labels", {}).get(source.settings.target, {})
    if source.settings.target not in record.get("labels", []) or not names:
        raise Missing(f"dataset.json names no structures of `{source.settings.target}`")
    labels = read_array(folder / "labels.npy")
    channel = record["labels"].index(source.settings.target)
    rows = []
    for index, item in enumerate(record["rows"]):
        counts = np.bincount(np.asarray(labels[index, channel]).ravel())
        rows += [
            {"image_id": item["image_id"], "structure": name, "volume": int(counts[int(value)]) if int(value) < len(counts) else 0}
            for value, name in names.items()
            if int(value)
        ]
    return pd.DataFrame(rows, columns=["image_id", "structure", "volume"])
