"""With against without: post-processing, and ensembles against the mean of their members."""

from __future__ import annotations

import pandas as pd

from gyri.report.forest import Item, Scale, forest_plots, heading
from gyri.report.parts import Missing, Reportlet, Table, exact
from gyri.report.results import HEADLINE, axis_label, decimals, metric, ordered, rounded
from gyri.report.source import Source


def postprocessing(source: Source) -> Reportlet:
    """What the post-processing that validation chose changes, on the test images."""
    rows = _rows(source, "post-processing")
    whole = rows[(rows["metric"] == HEADLINE["segmentation"]) & rows["structure"].isin(["mean", ""])]
    if whole.empty:
        raise Missing("gains.tsv has no Dice over all structures with post-processing")
    whole = whole.sort_values("model", key=lambda names: names.map(_places(source, whole)), kind="stable")
    choices = _choices(source)
    items = [_item(source, row, choices.get(str(row["model"]), "")) for _, row in whole.iterrows()]
    nothing = int((whole["difference"] == 0).sum())
    notes = [f"Dice over all structures, with minus without. For {nothing} of {len(whole)} models nothing changed."]
    return _figure(source, rows, items, HEADLINE["segmentation"], "post-processing", notes)


def ensemble_gain(source: Source) -> Reportlet:
    """Every ensemble against the mean of its members."""
    if not source.settings.ensembles:
        raise Missing("no ensemble was asked for")
    rows = _rows(source, "ensemble")
    items: list[Item] = []
    names = list(dict.fromkeys(rows["metric"]))
    name = HEADLINE[source.settings.task]
    main = rows[rows["metric"] == name] if name in names else rows[rows["metric"] == names[0]]
    for _, row in main.iterrows():
        items.append(_item(source, row, f"{row['members']:.0f} members" if pd.notna(row["members"]) else ""))
    better = {1: "above", -1: "below"}.get(metric(str(main["metric"].iloc[0])).better, "beside")
    notes = [f"Ensemble minus the mean of its members, on the same images: {better} 0 averaging helped."]
    return _figure(source, rows, items, str(main["metric"].iloc[0]), "the ensemble", notes)


def _rows(source: Source, what: str) -> pd.DataFrame:
    table = source.of_experiment("gains.tsv")
    rows = table[(table["what"] == what) & table["difference"].notna()].copy()
    if rows.empty:
        raise Missing(f"gains.tsv has no row on {what}")
    return rows.assign(model=rows["model"].astype(str), structure=rows["structure"].fillna("").astype(str))


def _places(source: Source, rows: pd.DataFrame) -> dict[str, int]:
    """Order of models: that of the other figures, the rest behind."""
    names = [*ordered(source), *rows["model"]]
    return {model: place for place, model in enumerate(dict.fromkeys(names))}


def _item(source: Source, row: pd.Series, small: str) -> Item:
    model = str(row["model"])
    mark = "hollow" if source.kind(model) == "baseline" else "solid"
    value, low, high = (float(row[name]) for name in ("difference", "ci_low", "ci_high"))
    return Item(source.label(model), value, low, high, _difference(row), source.colour(model), mark, model, small)


def _difference(row: pd.Series) -> str:
    """A difference with its sign and its interval."""
    if row["difference"] == 0 and row["ci_low"] == 0 == row["ci_high"]:
        return "no change"
    digits = max(decimals(row["ci_low"], row["ci_high"]), 3)
    return f"{_signed(row['difference'], digits)} [{_signed(row['ci_low'], digits)}, {_signed(row['ci_high'], digits)}]"


def _signed(value: float, digits: int) -> str:
    text = rounded(value, digits)
    return f"+{text}" if value > 0 else text


def _figure(source: Source, rows: pd.DataFrame, items: list[Item], name: str, what: str, notes: list[str]) -> Reportlet:
    """Differences of one metric as a forest plot, those of all metrics and structures as a table."""
    label = f"difference of the {axis_label(name, source.settings.target, arrow=False)}"
    scale = Scale(label, reference=0.0, told=f"no gain from {what}")
    items = items if len(items) > 1 else [heading(metric(name).label), *items]
    wide, narrow = forest_plots(items, scale)
    columns = ["Model", "Metric", "Structure", "#Without", "#With", "#Difference, 95\u00a0% interval", "#n images", "#n groups"]
    body = []
    for _, row in rows.iterrows():
        digits = max(decimals(row["ci_low"], row["ci_high"]), 2) if pd.notna(row["ci_low"]) else 3
        values = [exact(row[key], rounded(row[key], digits)) for key in ("value_without", "value_with")]
        counts = [f"{row[key]:.0f}" for key in ("n", "n_groups")]
        about = [source.label(row["model"]), metric(str(row["metric"])).label, row["structure"] or "all"]
        body.append([*about, *values, _difference(row), *counts])
    table = Table(columns, body, f"With and without {what}", classes="sortable folded", row_models=list(rows["model"]))
    said = [f"{item.label}: {item.text}" for item in items if not item.heading]
    return Reportlet(
        alt=f"Forest plot of the {label} with against without {what}. " + "; ".join(said),
        panels=[wide],
        narrow=[narrow],
        tables=[table],
        data=rows,
        notes=notes,
        columns=1,
    )


def _choices(source: Source) -> dict[str, str]:
    """What validation chose for each model, in words."""
    try:
        rows = source.of_experiment("fitted.tsv")
    except Missing:
        return {}
    rows = rows[rows["what"] == "post-processing"]
    found = {}
    for model, part in rows.groupby("model"):
        choices = part["choice"].astype(object).fillna("").astype(str)
        changed = sorted(set(choices[~choices.isin(["none", ""])]))
        count = int((~choices.isin(["none", ""])).sum())
        found[str(model)] = f"{count} of {len(part)} choices: {', '.join(changed)}" if changed else "none chosen in any fold"
    return found
