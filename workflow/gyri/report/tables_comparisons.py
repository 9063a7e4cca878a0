"""Tables beside the metrics: models against each other, against chance, and in subgroups."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from gyri.report.figures_subgroups import SITE_METRICS
from gyri.report.parts import NONE, Missing, Reportlet, Table, exact
from gyri.report.results import decimals, metric, rounded
from gyri.report.source import Source

SITE = "balanced accuracy of telling the site"


def comparisons(source: Source) -> Reportlet:
    """Every pair of models by the headline metric."""
    rows = source.of_experiment("comparisons.tsv")
    if rows.empty:
        raise Missing("comparisons.tsv holds no pair of models")
    body = []
    for _, row in rows.iterrows():
        digits = _digits(row["ci_low"], row["ci_high"])
        number = NONE if pd.isna(row["difference"]) else exact(row["difference"], rounded(row["difference"], digits))
        tests = [_p(row[name]) for name in ("p", "p_holm", "p_folds", "p_folds_holm")]
        names = [source.label(str(row[name])) for name in ("first", "second")]
        body.append([*names, number, _interval(row, digits), *tests, row["note"] if isinstance(row["note"], str) else ""])
    name, count = metric(str(rows["metric"].iloc[0])).label, int(rows["comparisons"].iloc[0])
    columns = [
        "Model",
        "against",
        "#Difference",
        "#95\u00a0% interval",
        "#p",
        "#p, Holm",
        "#p over folds",
        "#p over folds, Holm",
        "Note",
    ]
    refused = int(rows["difference"].isna().sum())
    notes = [
        f"{name}, first minus second. {count} comparison{'s' if count != 1 else ''} in the family that Holm\u2019s procedure allows for."
    ]
    if refused:
        notes.append(f"{refused} pairs are not compared: see the notes.")
    about = [f"{first} {second}" for first, second in zip(rows["first"], rows["second"], strict=True)]
    table = Table(columns, body, f"{name} of every pair of models", "sortable", row_models=about)
    return Reportlet(tables=[table], data=rows, notes=notes)


def compared_although(source: Source) -> int:
    """Number of pairs that were compared by override, though they were trained under different conditions."""
    try:
        notes = source.of_experiment("comparisons.tsv")["note"]
    except Missing:
        return 0
    return int(notes.astype(object).fillna("").astype(str).str.startswith("compared although").sum())


def chance(source: Source) -> Reportlet:
    """What chance reaches."""
    rows = source.of_experiment("chance.tsv")
    if rows.empty:
        raise Missing("chance.tsv holds no row")
    body = []
    for _, row in rows.iterrows():
        digits = _digits(row["null_low"], row["null_high"])
        label = SITE if row["metric"] in SITE_METRICS else metric(str(row["metric"])).label
        cells: list[object] = [source.label(str(row["model"])) if row["model"] else "none: image features", label, row["null"]]
        if pd.isna(row["value"]):
            body.append([*cells, NONE, NONE, NONE, NONE, NONE, row["note"] if isinstance(row["note"], str) else ""])
            continue
        band = f"[{rounded(row['null_low'], digits)}, {rounded(row['null_high'], digits)}]"
        cells += [exact(row["value"], rounded(row["value"], digits)), rounded(row["null_mean"], digits), band]
        body.append([*cells, _p(row["p"]), _p(row["p_holm"]), ""])
    columns = ["Model", "Metric", "Null", "#Value", "#Chance", "#95\u00a0% of the null", "#p", "#p, Holm", "Note"]
    count = int(rows["permutations"].max()) if rows["permutations"].notna().any() else 0
    notes = [f"{count} draws. Holm\u2019s procedure allows for the models of one metric."]
    about = [str(model) if model else "" for model in rows["model"]]
    table = Table(columns, body, "Against chance", "sortable filterable", row_models=about)
    return Reportlet(tables=[table], data=rows, notes=notes)


def subgroups(source: Source) -> Reportlet:
    """Metrics of every subgroup."""
    rows = source.of_experiment("subgroups.tsv")
    if rows.empty:
        raise Missing("subgroups.tsv holds no row")
    body = []
    for _, row in rows.iterrows():
        digits = _digits(row["ci_low"], row["ci_high"])
        value = NONE if pd.isna(row["value"]) else exact(row["value"], rounded(row["value"], digits))
        cells = [metric(str(row["metric"])).label, row["column"], row["level"], source.label(str(row["model"])), value]
        note = row["note"] if isinstance(row["note"], str) else ""
        body.append([*cells, _interval(row, digits), f"{row['n']:.0f}", f"{row['n_groups']:.0f}", note])
    columns = ["Metric", "Column", "Level", "Model", "#Value", "#95\u00a0% interval", "#n images", "#n groups", "Note"]
    count = rows.drop_duplicates(["column", "level"]).shape[0]
    notes = [f"{count} subgroups were looked at; nothing here is a test, and with so many some differ by chance."]
    table = Table(columns, body, "Subgroups", "sortable filterable", row_models=list(rows["model"].astype(str)))
    return Reportlet(tables=[table], data=rows, notes=notes)


def _digits(low: float, high: float) -> int:
    return 3 if pd.isna(low) or pd.isna(high) else max(decimals(low, high), 2)


def _interval(row: pd.Series, digits: int) -> str | Markup:
    if pd.isna(row["ci_low"]):
        return "none"
    return f"[{rounded(row['ci_low'], digits)}, {rounded(row['ci_high'], digits)}]"


def _p(value: float) -> str | Markup:
    """A p-value, as small as it is shown."""
    if pd.isna(value):
        return NONE
    return exact(value, "< 0.001" if value < 0.001 else f"{value:.3f}")
