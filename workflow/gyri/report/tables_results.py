"""Tables of numbers: every metric, every fold, the worst cases, what failed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.coverage import FEW, measured_coverage
from gyri.report.chart import plain
from gyri.report.figures_classification import PREFIX, classes_of
from gyri.report.figures_regression import test_rows
from gyri.report.gallery import case_scores, case_slices
from gyri.report.parts import NONE, Missing, Reportlet, Table, exact
from gyri.report.results import DECLARED, HEADLINE, chosen_model, decimals, headline, metric, of_metric, overall, rounded
from gyri.report.source import Source
from gyri.report.trust import absent_predictions

WORST, WORST_SHARE = 10, 0.05
MOST_FAILURES = 100


def all_metrics(source: Source) -> Reportlet:
    """Every metric of every model over all folds, with interval, n and spreads."""
    rows = overall(source)
    order = {model: rank for rank, model in enumerate(headline(source)["model"])}
    metrics = [HEADLINE[source.settings.task], *rows["metric"]]
    places = {name: rank for rank, name in enumerate(dict.fromkeys(metrics))}
    rows = rows.assign(
        a=rows["metric"].map(places),
        b=rows["structure"].map(lambda name: name not in ("mean", "", "all")),
        c=rows["model"].map(order),
    )
    rows = rows.sort_values(["a", "b", "structure", "c"], kind="stable").drop(columns=["a", "b", "c"])
    body = [_metric_row(source, row) for _, row in rows.iterrows()]
    columns = ["Metric", "Structure", "Model", "#Value", "#95\u00a0% interval", "#n images", "#n groups", "#SD folds", "#SD seeds"]
    if not rows["structure"].any():
        columns.remove("Structure")
        body = [[*cells[:1], *cells[2:]] for cells in body]
    table = Table(columns, body, "All metrics of all models over all folds", "sortable filterable", row_models=list(rows["model"]))
    return Reportlet(tables=[table], data=rows, notes=few_groups(rows))


def few_groups(rows: pd.DataFrame) -> list[str]:
    """Say how far intervals of few groups can be trusted, as it was measured in simulations."""
    few = rows[rows["n_groups"] < FEW]
    said: dict[str, list[str]] = {}
    for name, groups in sorted(set(zip(few["metric"], few["n_groups"].astype(int), strict=True))):
        found = measured_coverage(name, DECLARED.get(name, {}), groups)
        words = "was not measured"
        if found is not None:
            words = f"was {found.share:.3f} ± {found.error:.3f} at {found.groups} groups"
        said.setdefault(words, []).append(f"{metric(name).label} ({groups} groups here)")
    start = "Intervals of few groups: in simulations the coverage of a nominal 0.95 "
    return [f"{start}{words}: {', '.join(dict.fromkeys(names))}." for words, names in sorted(said.items())]


def _metric_row(source: Source, row: pd.Series) -> list[object]:
    digits = max(decimals(row["ci_low"], row["ci_high"]), 1 if abs(row["value"]) >= 10 else 2)
    interval = "none" if pd.isna(row["ci_low"]) else f"[{rounded(row['ci_low'], digits)}, {rounded(row['ci_high'], digits)}]"
    spread = [rounded(float(row[name]), digits + 1) if pd.notna(row[name]) else "n/a" for name in ("sd_folds", "sd_seeds")]
    sizes = [f"{row[name]:.0f}" if pd.notna(row[name]) else "n/a" for name in ("n", "n_groups")]
    name = Markup('<span title="{}">{}</span>').format(row["model"], source.label(row["model"]))
    value = exact(row["value"], rounded(row["value"], digits))
    return [metric(row["metric"]).label, row["structure"] or NONE, name, value, interval, *sizes, *spread]


def by_fold(source: Source) -> Reportlet:
    """Headline metric in every fold and seed."""
    name = HEADLINE[source.settings.task]
    table = source.metrics
    rows = of_metric(table[table["role"].isin(["test", "validation"])], name)
    single = rows["fold"].str.fullmatch(r"\d+")
    if not single.any():
        raise Missing("metrics.tsv has no row of a single fold")
    folds = sorted(rows.loc[single, "fold"].unique(), key=int)
    folds += [name for name in ("mean", "pooled") if (rows["fold"] == name).any()]
    body: list[list[object]] = []
    about: list[str] = []
    models = [model for model in headline(source)["model"] if (rows["model"] == model).any()]
    for model in models:
        for role in ("test", "validation"):
            own = rows[(rows["model"] == model) & (rows["role"] == role)]
            if own["seed"].str.fullmatch(r"\d+").any():
                own = own[own["seed"] != "all"]
            for seed, part in own.groupby("seed", sort=True):
                cells: list[object] = [source.label(model), seed, role]
                for fold in folds:
                    found = part[part["fold"] == fold]
                    cells.append(exact(found["value"].iloc[0], rounded(found["value"].iloc[0], 3)) if len(found) else NONE)
                body.append(cells)
                about.append(model)
    columns = ["Model", "Seed", "Role", *[f"#Fold {fold}" if fold.isdigit() else f"#{fold.capitalize()}" for fold in folds]]
    shown = Table(columns, body, f"{metric(name).label} in every fold and seed", "sortable filterable", row_models=about)
    return Reportlet(tables=[shown], data=rows)


def failed(source: Source) -> Reportlet:
    """Test images that a model should have predicted and did not."""
    missing = absent_predictions(source)
    if missing.empty:
        models = len(source.settings.models) + len(source.settings.ensembles)
        return Reportlet(
            body=Markup("<p>Every test image of the folds that were run was predicted by all {} models and ensembles.</p>").format(
                models
            )
        )
    shown = missing.head(MOST_FAILURES)
    table = Table(
        ["Image", "Participant", "Fold", "Model", "Seed"], shown.values.tolist(), "Missing predictions", classes="sortable"
    )
    notes = [
        f"{len(missing)} predictions are missing"
        + (f"; the first {MOST_FAILURES} are shown." if len(missing) > MOST_FAILURES else ".")
    ]
    return Reportlet(tables=[table], data=missing, notes=notes)


def worst_cases(source: Source) -> Reportlet:
    """The cases that the best model gets most wrong."""
    task = source.settings.task
    if task == "segmentation":
        return _worst_segmented(source)
    rows = worst_rows(source)
    count = max(WORST, round(WORST_SHARE * len(rows)))
    worst = rows.head(min(count, 30))
    try:
        slices = case_slices(source, list(worst["image_id"].head(WORST)))
    except Missing:
        slices = {}
    header = [
        "Slice",
        "Image",
        "Participant",
        "Fold",
        "True",
        "Predicted",
        "#Error" if task == "regression" else "#Probability of the true class",
    ]
    body = [
        [
            slices.get(str(row.image_id), NONE),
            row.image_id,
            row.participant_id,
            row.fold,
            _cell(row.target),
            _cell(row.prediction),
            _cell(row.score),
        ]
        for row in worst.itertuples()
    ]
    notes = [f"Model: {source.label(chosen_model(source))}. {len(worst)} of {len(rows)} test images."]
    if not slices:
        notes.append("Slices are not available: images.npy is not there.")
    return Reportlet(
        tables=[Table(header, body, "Worst cases", classes="pictured")],
        data=worst.drop(columns="score").assign(score=worst["score"]),
        notes=notes,
    )


def worst_rows(source: Source) -> pd.DataFrame:
    """Test images of the best model, the one that it gets most wrong first (classification, regression)."""
    return _wrong_classes(source) if source.settings.task == "classification" else _wrong_values(source)


def _cell(value: object) -> str:
    return plain(float(f"{value:.4g}")) if isinstance(value, float) else str(value)


def _wrong_classes(source: Source) -> pd.DataFrame:
    classes = classes_of(source)
    rows = source.one_seed(source.predictions, chosen_model(source))
    if rows.empty:
        raise Missing("predictions.tsv has no test rows of the best model")
    table = rows[[PREFIX + name for name in classes]].to_numpy(float)
    places = [classes.index(str(target)) if str(target) in classes else -1 for target in rows["target"]]
    score = np.array([table[index, place] if place >= 0 else np.nan for index, place in enumerate(places)])
    keep = ["image_id", "participant_id", "group", "fold", "model", "seed", "target", "prediction"]
    return rows[keep].assign(score=score).sort_values(["score", "image_id"])


def _wrong_values(source: Source) -> pd.DataFrame:
    found = test_rows(source)
    model = chosen_model(source)
    if model not in found:
        raise Missing("predictions.tsv has no test rows of the best model")
    rows = found[model].rename(columns={"error": "score"})
    keep = ["image_id", "participant_id", "group", "fold", "model", "seed", "target", "prediction", "score"]
    return (
        rows[keep].assign(size=rows["score"].abs()).sort_values(["size", "image_id"], ascending=[False, True]).drop(columns="size")
    )


def _worst_segmented(source: Source) -> Reportlet:
    model = chosen_model(source)
    scores = case_scores(source, model)
    count = max(WORST, round(WORST_SHARE * len(scores)))
    worst = scores.tail(min(count, 30)).iloc[::-1]
    cases = source.one_seed(source.cases[source.cases["metric"] == "dice"], model)
    structures = [name for name in dict.fromkeys(cases["structure"]) if name not in ("mean", "all", "")][:12]
    wide = cases.pivot_table(index="image_id", columns="structure", values="value", aggfunc="first")
    shown = wide.reindex(index=worst.index, columns=structures).to_numpy(float)
    body = []
    for (image_id, row), values in zip(worst.iterrows(), shown, strict=True):
        body.append(
            [
                image_id,
                row["participant_id"],
                row["fold"],
                rounded(row["value"], 3),
                *[rounded(value, 3) for value in values],
            ]
        )
    columns = ["Image", "Participant", "Fold", "#Mean Dice", *[f"#{name}" for name in structures]]
    lowest = np.quantile(scores["value"], WORST_SHARE)
    notes = [f"Model: {source.label(model)}. The worst 5 % of {len(scores)} test images have a mean Dice of {lowest:.3f} or less."]
    return Reportlet(tables=[Table(columns, body, "Worst cases", classes="sortable")], data=worst.reset_index(), notes=notes)
