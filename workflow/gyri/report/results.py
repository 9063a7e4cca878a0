"""Numbers in words: which metric is the headline, how values are rounded, what the answer is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from markupsafe import Markup

from gyri.metrics import HEADLINE, calibration, classification, operating_points, postprocessing, regression, segmentation
from gyri.report.parts import Missing, exact
from gyri.report.source import Source


@dataclass(frozen=True)
class Metric:
    """How a metric is named and read.

    Args:
        label: name in figures and tables.
        better: 1 where higher is better, -1 where lower is, 0 where a value near `ideal` is.
        limits: values it cannot leave; None where there is no bound.
        unit: "target" for the unit of the target.
        ideal: the value that is best where neither higher nor lower is.
    """

    label: str
    better: int = 0
    limits: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    ideal: int = 0


MODULES = (segmentation, postprocessing, classification, calibration, operating_points, regression)
DECLARED = {name: declared for module in MODULES for name, declared in module.METRICS.items()}
BETTER = {"higher": 1, "lower": -1}
LABELS = {
    "auroc": "AUROC",
    "bias": "mean error",
    "brier": "Brier score",
    "brier_reliability": "Brier score, reliability",
    "brier_resolution": "Brier score, resolution",
    "brier_uncertainty": "Brier score, uncertainty",
    "dice": "Dice coefficient",
    "dice_postprocessed": "Dice coefficient, post-processed",
    "error_slope": "slope of the error",
    "error_slope_corrected": "slope of the error, corrected",
    "hd95": "HD95",
    "hd95_postprocessed": "HD95, post-processed",
    "mae": "mean absolute error",
    "mae_corrected": "mean absolute error, corrected",
    "mcc": "Matthews correlation",
    "r2": "R²",
    "rmse": "root mean squared error",
    "surface_dice": "surface Dice",
    "surface_dice_postprocessed": "surface Dice, post-processed",
    "volume_error_ml": "volume error",
    "volume_error_relative": "relative volume error",
    "volume_error_relative_absolute": "absolute relative volume error",
}
"""Names that differ from the key with blanks for its underscores."""


def metric(name: str) -> Metric:
    """How a metric is read, from its declaration; one that is declared nowhere keeps its name and has no direction."""
    declared = DECLARED.get(name, {})
    label = LABELS.get(name, name.replace("_", " "))
    better, limits = declared.get("better", ""), declared.get("range", (None, None))
    return Metric(label, BETTER.get(better, 0), limits, declared.get("unit", ""), int(better == "one"))


def axis_label(name: str, target: str, arrow: bool = True) -> str:
    """Name of a metric with its unit and the direction in which it gets better."""
    found = metric(name)
    unit = f" ({target} units)" if found.unit == "target" else f" ({found.unit})" if found.unit else ""
    direction = (
        {1: ", higher is better", -1: ", lower is better", 0: f", {found.ideal} is best" if name in DECLARED else ""}[found.better]
        if arrow
        else ""
    )
    return f"{found.label}{unit}{direction}"


def decimals(low: float, high: float) -> int:
    """Digits after the point that an interval deserves: the first digit of its half width is the last one shown.

    Values up to 1, such as shares, have at least two, values up to 100 at least one.
    """
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return 3
    largest = max(abs(low), abs(high))
    least = 2 if largest <= 1 else 1 if largest <= 100 else 0
    return min(max(-math.floor(math.log10(half)), least), 4)


def rounded(value: float, digits: int) -> str:
    """A number with a true minus sign; `n/a` where there is none."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.lstrip("-")


def estimate(value: float, low: float, high: float, digits: int | None = None) -> str:
    """A value with its interval: 0.82 [0.74, 0.88]."""
    digits = decimals(low, high) if digits is None else digits
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{rounded(value, digits)} [no interval]"
    return f"{rounded(value, digits)} [{rounded(low, digits)}, {rounded(high, digits)}]"


def sizes(row: pd.Series) -> str:
    """What stands behind a number: n = 60 images of 48 groups."""
    count, groups = _count(row["n"]), _count(row["n_groups"])
    return f"n = {count} image{'' if count == '1' else 's'} of {groups} group{'' if groups == '1' else 's'}"


def _count(value: float) -> str:
    return f"{int(value)}" if pd.notna(value) else "n/a"


def overall(source: Source, role: str = "test", table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The headline rows: over all folds and seeds, on one role.

    Raises:
        Missing: there is none.
    """
    table = source.metrics if table is None else table
    rows = table[(table["role"] == role) & (table["fold"] == "all")].copy()
    rows = rows[rows["seed"].isin(["all", ""]) | ~rows["model"].isin(rows.loc[rows["seed"] == "all", "model"])]
    if rows.empty:
        raise Missing(f"metrics.tsv has no row of fold `all` and role `{role}`")
    return rows


def of_metric(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a metric over all structures: structure `mean` where there is one, else the rows without structure."""
    rows = rows[rows["metric"] == name]
    for structure in ("mean", "", "all"):
        chosen = rows[rows["structure"] == structure]
        if not chosen.empty:
            return chosen
    return rows if rows["structure"].nunique() == 1 else rows.iloc[:0]


def headline(source: Source) -> pd.DataFrame:
    """The headline metric of every model, with the columns `kind`, `label` and `ranking`.

    Baselines stand last. The others stand best first, but only among those that may be ranked against each other: these have the
    same number in `ranking`, and other numbers follow in the order of the configuration.

    Raises:
        Missing: no model has it.
    """
    name = HEADLINE[source.settings.task]
    rows = of_metric(overall(source), name).copy()
    if rows.empty:
        raise Missing(f"metrics.tsv has no `{name}` over all folds")
    rows["kind"] = [source.kind(model) for model in rows["model"]]
    rows["label"] = [source.label(model) for model in rows["model"]]
    rows["place"] = rows["value"] * (1 if metric(name).better < 0 else -1)
    rows["last"] = rows["kind"] == "baseline"
    found = {model: number for number, group in enumerate(alike(source)) for model in group}
    rows["ranking"] = [found.get(model, 0) for model in rows["model"]]
    return rows.sort_values(["last", "ranking", "place", "model"]).drop(columns=["last", "place"]).reset_index(drop=True)


def alike(source: Source) -> list[list[str]]:
    """Trained models and ensembles in groups: those of one group were trained alike, or may be compared by override.

    Models of different groups were trained under different versions or kinds of device, and are not ranked against each other.
    """
    refused = _refused(source)
    groups: list[list[str]] = []
    for model in [*source.networks, *source.settings.ensembles]:
        home = next((group for group in groups if not any(frozenset((model, other)) in refused for other in group)), None)
        if home is None:
            groups.append([model])
        else:
            home.append(model)
    return groups


def _refused(source: Source) -> set[frozenset[str]]:
    """Pairs of models that the evaluation did not compare; where its table is not there, those whose provenance differs."""
    try:
        rows = source.of_experiment("comparisons.tsv")
    except Missing:
        return _different(source)
    chosen = rows[rows["note"].astype(object).fillna("").astype(str).str.startswith("not compared")]
    return {frozenset(pair) for pair in chosen[["first", "second"]].itertuples(index=False, name=None)}


def _different(source: Source) -> set[frozenset[str]]:
    """Pairs of trained models with different torch, CUDA, cuDNN or device in their provenance."""
    seen: dict[str, set[str]] = {model: set() for model in source.networks}
    for record in source.provenance:
        if record.get("stage") == "train" and record.get("model") in seen:
            versions = record.get("versions") or {}
            under = [versions.get(name) for name in ("torch", "cuda", "cudnn")]
            seen[record["model"]].add(f"{under} {record.get('device')}")
    for name, members in source.settings.ensembles.items():
        seen[name] = {text for model, _ in members for text in seen.get(model, set())}
    return {frozenset(pair) for pair in combinations(seen, 2) if len(seen[pair[0]] | seen[pair[1]]) > 1}


def best_models(source: Source) -> tuple[pd.Series | None, pd.Series | None]:
    """The best network or ensemble (of the first group of `alike`), and the best baseline."""
    rows = headline(source)
    baseline = rows["kind"] == "baseline"
    chosen = [part.iloc[0] if len(part) else None for part in (rows[~baseline], rows[baseline])]
    return chosen[0], chosen[1]


def ordered(source: Source) -> list[str]:
    """The models shown in figures of single cases, in the order of the headline."""
    try:
        places = {model: place for place, model in enumerate(headline(source)["model"])}
    except Missing:
        places = {}
    return sorted(source.shown_models(), key=lambda model: places.get(model, len(places)))


def chosen_model(source: Source) -> str:
    """The model whose cases are shown: the best of the trained ones, else the best of all."""
    best, baseline = best_models(source)
    row = best if best is not None else baseline
    assert row is not None
    return str(row["model"])


def _phrase(row: pd.Series, digits: int) -> Markup:
    number = exact(row["value"], rounded(row["value"], digits))
    interval = (
        f"[{rounded(row['ci_low'], digits)}, {rounded(row['ci_high'], digits)}]" if pd.notna(row["ci_low"]) else "[no interval]"
    )
    return Markup('<span class="number">{} {}</span>').format(number, interval)


def sentence(source: Source) -> Markup:
    """The answer in words, written from metrics.tsv. Models that may not be ranked against each other are named apart."""
    rows = headline(source)
    trained, (_, baseline) = rows[rows["kind"] != "baseline"], best_models(source)
    name, digits = metric(HEADLINE[source.settings.task]), shared_digits(rows)
    best = [group.iloc[0] for _, group in trained.groupby("ranking", sort=True)]
    parts = []
    if len(best) > 1:
        parts.append(
            Markup("Not all models were trained under the same versions and kind of device, so they are not ranked as one.")
        )
    for row in best or ([] if baseline is None else [baseline]):
        parts.append(
            Markup("{}<strong>{}</strong> reaches {} {} of {} ({}){}.").format(
                "The ensemble " if row["kind"] == "ensemble" else "",
                row["label"],
                "an" if name.label[0] in "aeiouAEIOUR" else "a",
                name.label,
                _phrase(row, digits),
                sizes(row),
                _rank(trained[trained["ranking"] == row["ranking"]], name, len(best) > 1),
            )
        )
    if best and baseline is not None:
        parts.append(Markup("The best baseline, {}, reaches {}.").format(baseline["label"], _phrase(baseline, digits)))
        for row in best:
            start = Markup("{}: ").format(row["label"]) if len(best) > 1 else Markup("")
            parts.append(start + _comparison(source, row, baseline, name.better))
    elif best:
        parts.append(Markup("No baseline has this metric, so nothing says whether this is more than a trivial model reaches."))
    return Markup(" ").join(parts)


def _rank(rows: pd.DataFrame, name: Metric, several: bool) -> str:
    if len(rows) < 2:
        return ""
    word = "lowest" if name.better < 0 else "highest"
    return f", the {word} of {len(rows)} " + ("that were trained alike" if several else "trained models and ensembles")


def _comparison(source: Source, best: pd.Series, baseline: pd.Series, better: int) -> str:
    if pd.isna(best["ci_low"]) or pd.isna(baseline["ci_low"]):
        return "Without intervals the two cannot be compared."
    if better * (best["value"] - baseline["value"]) <= 0:
        return "The baseline is at least as good: nothing was gained by training."
    if frozenset((best["model"], baseline["model"])) in _refused(source):
        return "The two are not compared: trained under different versions or kinds of device."
    tested = _tested(source, best["model"], baseline["model"])
    if tested is not None:
        p = "p < 0.001" if tested["p_holm"] < 0.001 else f"p = {tested['p_holm']:.3f}"
        words = "they differ" if tested["p_holm"] < 0.05 else "no difference is established"
        return f"On the same participants {words} ({p}, allowing for {int(tested['comparisons'])} comparisons)."
    apart = best["ci_low"] > baseline["ci_high"] if better > 0 else best["ci_high"] < baseline["ci_low"]
    if apart:
        return "The two 95\u00a0% intervals do not overlap."
    return "The two 95\u00a0% intervals overlap, and no paired test was made: this run alone does not establish a difference."


def _tested(source: Source, first: str, second: str) -> pd.Series | None:
    """The row of comparisons.tsv of two models, where they were tested."""
    try:
        rows = source.of_experiment("comparisons.tsv")
    except Missing:
        return None
    both = rows[(rows["first"] == first) & (rows["second"] == second) & rows["p_holm"].notna()]
    return both.iloc[0] if len(both) else None


def shared_digits(rows: pd.DataFrame) -> int:
    """Decimals that suit most of the intervals of one metric, so that numbers stand in line."""
    found = [decimals(low, high) for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True) if pd.notna(low) and high > low]
    return sorted(found)[len(found) // 2] if found else 3
