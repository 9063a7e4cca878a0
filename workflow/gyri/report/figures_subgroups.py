"""Parts of the cohort: the best model in every subgroup, every model in every site, and whether the site can be told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.report.forest import Item, Scale, forest_plots, heading, plot
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import HEADLINE, axis_label, chosen_model, decimals, estimate, headline, metric
from gyri.report.source import Source

SITE = "site"
SITE_METRICS = {"site_from_images": "features of the images", "site_balanced_accuracy": "predictions"}
"""Metrics of chance.tsv on how well the site is told, and from what."""


def subgroup_forest(source: Source) -> Reportlet:
    """The best model by sex, age band, diagnosis and other columns, and in its worst cases."""
    rows, model = _rows(source), chosen_model(source)
    own = rows[(rows["model"] == model) & (rows["column"] != SITE)]
    if own.empty:
        raise Missing(f"subgroups.tsv has no row of {model} besides sites")
    undefined = [str(column) for column, part in own.groupby("column", sort=False) if part["value"].isna().all()]
    own = own[~own["column"].isin(undefined)]
    table = headline(source)
    whole = table[table["model"] == model].iloc[0]
    colour = source.colour(model)
    items = [_item(whole, "all test images", colour)]
    for column, part in own.groupby("column", sort=False):
        if column != "all":
            items.append(heading(str(column)))
        items += [_item(row, str(row["level"]), colour) for _, row in part.iterrows()]
    wide, narrow = forest_plots(items, _scale(source, float(whole["value"])))
    said = "; ".join(f"{item.label}: {item.text}" for item in items if not item.heading)
    count = own.drop_duplicates(["column", "level"]).shape[0]
    notes = [f"Model: {source.label(model)}. {count} subgroups; the dashed line is the value of all test images."]
    if undefined:
        notes.append(f"Not shown: {', '.join(undefined)}, in whose levels this metric is undefined; others are in the table below.")
    return Reportlet(
        alt=f"Forest plot of the {metric(HEADLINE[source.settings.task]).label} in subgroups. {said}",
        panels=[wide],
        narrow=[narrow],
        data=own,
        notes=notes,
        columns=1,
    )


def sites(source: Source) -> Reportlet:
    """Every model in every site."""
    rows = _rows(source)
    rows = rows[rows["column"] == SITE]
    if rows.empty:
        raise Missing("the test images come from one site, or the dataset has no column for it")
    whole = dict(headline(source)[["model", "value"]].itertuples(index=False, name=None))
    ends = rows[["ci_low", "ci_high"]].to_numpy(float).ravel()
    include = tuple(ends[np.isfinite(ends)].tolist())
    panels, said = [], []
    for model in [name for name in whole if (rows["model"] == name).any()]:
        own, colour = rows[rows["model"] == model], source.colour(model)
        items = [_item(row, str(row["level"]), colour, source.kind(model)) for _, row in own.iterrows()]
        scale = _scale(source, float(whole[model]), include)
        panels.append(plot(items, scale, 400, False, source.label(model), model))
        said.append(f"{source.label(model)}: {'; '.join(f'{item.label} {item.text}' for item in items)}")
    sizes = rows.drop_duplicates("level")
    counts = ", ".join(f"{row.level}: {row.n:.0f} images of {row.n_groups:.0f} groups" for row in sizes.itertuples())
    return Reportlet(
        alt=f"Forest plots of the {metric(HEADLINE[source.settings.task]).label} by site. " + ". ".join(said),
        panels=panels,
        data=rows,
        notes=[f"{len(sizes)} sites ({counts}). Dashed: value of the model over all of them."],
        columns=2,
    )


def site_probe(source: Source) -> Reportlet:
    """How well the site is told from simple features of the images, and from what each model says of them."""
    table = source.of_experiment("chance.tsv")
    rows = table[table["metric"].isin(list(SITE_METRICS))]
    if rows.empty:
        raise Missing("chance.tsv has no probe of the site")
    tested = rows[rows["value"].notna()]
    if tested.empty:
        reasons = sorted({str(note).removeprefix("not tested: ") for note in rows["note"].dropna()} - {""})
        raise Missing(f"not tested ({'; '.join(reasons) or 'no reason given'})")
    items = []
    for name, words in SITE_METRICS.items():
        part = tested[tested["metric"] == name]
        if len(part):
            items.append(heading(f"From {words}"))
        items += [_probed(source, row) for _, row in part.iterrows()]
    scale = Scale("balanced accuracy of telling the site", (0.0, 1.0))
    wide, narrow = forest_plots(items, scale)
    untested = rows[rows["value"].isna()]
    notes = [f"{_name(source, row)}: {row['note']}." for _, row in untested.iterrows()]
    said = [f"{item.label}: {item.text}" for item in items if not item.heading]
    return Reportlet(
        alt="How well the acquisition site can be told, against chance. " + "; ".join(said),
        panels=[wide],
        narrow=[narrow],
        data=rows,
        notes=notes,
        columns=1,
    )


def _rows(source: Source) -> pd.DataFrame:
    """Subgroups by the headline metric, over all structures."""
    rows = source.of_experiment("subgroups.tsv")
    rows = rows[rows["metric"] == HEADLINE[source.settings.task]]
    if rows.empty:
        raise Missing("subgroups.tsv holds no row of the headline metric")
    return rows


def _item(row: pd.Series, label: str, colour: str, kind: str = "network") -> Item:
    """A subgroup with its sizes; one without a value says why."""
    sizes = f"n = {row['n']:.0f} of {row['n_groups']:.0f} groups"
    mark, label = "hollow" if kind == "baseline" else "solid", label.replace(">=", "\u2265")
    if pd.isna(row["value"]):
        note = row["note"] if isinstance(row.get("note"), str) else "undefined"
        return Item(label, text=note, colour=colour, small=sizes)
    low, high = float(row["ci_low"]), float(row["ci_high"])
    digits = max(decimals(low, high), 2) if pd.notna(low) else 2
    text = estimate(float(row["value"]), low, high, digits)
    return Item(label, float(row["value"]), low, high, text, colour, mark, small=sizes)


def _scale(source: Source, reference: float, include: tuple[float, ...] = ()) -> Scale:
    name = HEADLINE[source.settings.task]
    label = axis_label(name, source.settings.target)
    return Scale(label, metric(name).limits, reference, f"all test images: {reference:.4g}", include)


def _probed(source: Source, row: pd.Series) -> Item:
    """A probe with its null as a band."""
    p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.3f}"
    text = f"{row['value']:.2f}, chance {row['null_mean']:.2f} ({p})"
    model = "" if row["metric"] == "site_from_images" else str(row["model"])
    colour = source.colour(model) if model else "c2"
    mark = "hollow" if model and source.kind(model) == "baseline" else "solid"
    band = (float(row["null_low"]), float(row["null_high"]))
    return Item(_name(source, row), float(row["value"]), text=text, colour=colour, mark=mark, model=model, band=band)


def _name(source: Source, row: pd.Series) -> str:
    return "image features" if row["metric"] == "site_from_images" else source.label(str(row["model"]))
