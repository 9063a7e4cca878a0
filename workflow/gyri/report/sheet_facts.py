"""Values behind the keys that sheets name: of provenance, of dataset.json, and counted in tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from gyri.errors import LeakageError
from gyri.leakage import check_splits
from gyri.report.parts import Missing
from gyri.report.results import estimate, headline, metric, overall
from gyri.report.source import Source
from gyri.report.told import listed, number, records, span

DIAGNOSTIC = ("auroc", "sensitivity", "specificity", "sensitivity_at_specificity", "specificity_at_sensitivity")
PEOPLE = ("age", "sex", "diagnosis", "site")


def look(source: Source, key: str) -> str:
    """The value of a key, in words.

    Args:
        source: the files.
        key: `stage.settings.name`, `stage.facts.name` or another field of provenance (`jobs`: of all stages; several values are all
            named), `dataset.json#name`, or `table.tsv#what`.

    Raises:
        Missing: the run recorded no such value.
    """
    name, _, what = key.partition("#")
    if name == "dataset.json":
        return _shown(source.description.get(what), key)
    if name.endswith(".tsv"):
        return _shown(COUNTED[key](source), key)
    stage, _, path = name.partition(".")
    found = _jobs(source, stage)
    if what == "count":
        return _shown(len(found) or None, key)
    values = [value for record in found if (value := _at(record, path)) is not _ABSENT]
    if not values:
        raise Missing(key)
    return _shown(AGGREGATES[what](values), key) if what else _several(values)


def _jobs(source: Source, stage: str) -> list[dict[str, Any]]:
    """Jobs of a stage; of trainings and predictions those of networks."""
    if stage == "jobs":
        return [record for record in source.provenance if record.get("stage") not in (None, "report", "index")]
    found = records(source, stage)
    return [record for record in found if record.get("model", "") not in source.settings.baselines]


_ABSENT = object()


def _at(record: dict[str, Any], path: str) -> Any:
    value: Any = record
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _several(values: list[Any]) -> str:
    """Different values once each; numbers as a range where there are many."""
    different = list(dict.fromkeys(map(_words, values)))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(different) > 2 and len(numbers) == len(values):
        return span(numbers)
    return " or ".join(different[:8]) + (f" and {len(different) - 8} more" if len(different) > 8 else "")


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return listed(map(_words, value)) if isinstance(value, list) else number(value)


def _shown(value: Any, key: str) -> str:
    if value is None or value == "":
        raise Missing(key)
    return _words(value)


def _energy(values: list[Any]) -> str | None:
    joules = [value["energy_j"] for value in values if isinstance(value, dict) and value.get("energy_j") is not None]
    return f"{sum(joules) / 3600:.4g} Wh" if joules else "not measured"


AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "sum": lambda values: round(sum(values), 1),
    "range": lambda values: f"{min(values)} to {max(values)}",
    "energy": _energy,
}


# ── counted in tables ──
def _headline(source: Source) -> str:
    rows = headline(source)
    parts = [f"{row['label']} {estimate(row['value'], row['ci_low'], row['ci_high'])}" for _, row in rows.iterrows()]
    return f"{metric(str(rows['metric'].iloc[0])).label if 'metric' in rows else ''} {'; '.join(parts)}".strip()


def _measured(source: Source) -> pd.DataFrame:
    return overall(source)


def _diagnostic(source: Source) -> str | None:
    rows = _measured(source)
    rows = rows[rows["metric"].isin(DIAGNOSTIC) & rows["model"].isin([*source.networks, *source.settings.ensembles])]
    parts = [
        f"{source.label(row['model'])}: {metric(row['metric']).label} {estimate(row['value'], row['ci_low'], row['ci_high'])}"
        for _, row in rows.iterrows()
    ]
    return "; ".join(parts) or None


def _spread(column: str) -> Callable[[Source], str | None]:
    def read(source: Source) -> str | None:
        values = headline(source)[column].dropna()
        return f"{values.min():.3g} to {values.max():.3g}" if len(values) else None

    return read


def _roles(source: Source) -> str:
    merged = source.kept.merge(source.splits, on="participant_id")
    merged = merged[merged["fold"].isin([*map(str, source.settings.run_folds), "locked"])]
    counts = merged.groupby("role")["image_id"].count() / merged.groupby("role")["fold"].nunique()
    return ", ".join(f"{role} {number(round(float(count), 1))}" for role, count in counts.items()) + " (mean over folds)"


def _leaks(source: Source) -> int:
    try:
        check_splits(source.splits)
    except LeakageError as error:
        return len(error.problems)
    return 0


def _without_target(source: Source) -> int:
    target = source.settings.target
    if target not in source.kept:
        raise Missing(f"cohort.tsv has no column {target}")
    values = source.kept[target]
    return int((values.isna() | (values.astype(str) == "")).sum())


def _distribution(table: pd.DataFrame, column: str) -> str | None:
    """Mean and standard deviation, or counts of at most eight values."""
    if column not in table or not len(table):
        return None
    values = table[column].replace("", None).dropna()
    if values.empty:
        return None
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and numbers.nunique() > 8:
        return f"{column}: {numbers.mean():.1f} ± {numbers.std():.1f} ({numbers.min():g} to {numbers.max():g})"
    counts = values.astype(str).value_counts().sort_index()
    return f"{column}: {', '.join(f'{value} {count}' for value, count in counts.items())}" if len(counts) <= 8 else None


def _characteristics(source: Source) -> str | None:
    people = source.kept.drop_duplicates("participant_id")
    return "; ".join(filter(None, (_distribution(people, column) for column in PEOPLE))) or None


def _target(source: Source) -> str | None:
    return _distribution(source.kept, source.settings.target) if source.settings.task != "segmentation" else None


def _subgroups(source: Source) -> pd.DataFrame:
    return source.of_experiment("subgroups.tsv")


def _best_network(source: Source) -> list[str]:
    rows = headline(source)
    return [name for name in rows["model"] if name not in source.settings.baselines][:1]


def _level(source: Source, column: str) -> str | None:
    """Values of one model in the levels of a column."""
    table = _subgroups(source)
    rows = table[(table["column"] == column) & table["model"].isin(_best_network(source)) & table["value"].notna()]
    names = list(dict.fromkeys(rows["metric"]))[:1]
    rows = rows[rows["metric"].isin(names) & rows["structure"].fillna("").isin(["", "mean"])]
    parts = [f"{row['level']} {estimate(row['value'], row['ci_low'], row['ci_high'])}" for _, row in rows.iterrows()]
    return f"{source.label(_best_network(source)[0])}, {metric(names[0]).label}: {'; '.join(parts)}" if parts else None


def _columns(source: Source) -> list[str] | None:
    names = [name for name in dict.fromkeys(_subgroups(source)["column"].dropna()) if not str(name).startswith("worst")]
    return names or None


def _worst(source: Source) -> str | None:
    names = [name for name in dict.fromkeys(_subgroups(source)["column"].dropna()) if str(name).startswith("worst")]
    return _level(source, names[0]) if names else None


def _largest(source: Source) -> str | None:
    table = source.of_dataset("balance.tsv")
    values = pd.to_numeric(table["smd"], errors="coerce").abs()
    if values.isna().all():
        return None
    row = table[values == values.max()].iloc[0]
    return f"{values.max():.2f} ({row['column']}{' ' + str(row['value']) if str(row['value']) not in ('', 'nan') else ''}, fold {row['fold']})"


COUNTED: dict[str, Callable[[Source], Any]] = {
    "balance.tsv#largest": _largest,
    "cohort.tsv#characteristics": _characteristics,
    "cohort.tsv#images": lambda source: len(source.cohort),
    "cohort.tsv#kept": lambda source: len(source.kept),
    "cohort.tsv#kept_participants": lambda source: int(source.kept["participant_id"].nunique()),
    "cohort.tsv#participants": lambda source: int(source.cohort["participant_id"].nunique()),
    "cohort.tsv#sites": lambda source: _distribution(source.kept.drop_duplicates("participant_id"), "site"),
    "cohort.tsv#target": _target,
    "cohort.tsv#without_target": _without_target,
    "comparisons.tsv#pairs": lambda source: int(source.of_experiment("comparisons.tsv")["p"].notna().sum()),
    "excluded.tsv#images": lambda source: int(source.excluded["image_id"].nunique()),
    "excluded.tsv#reasons": lambda source: sorted(set(source.excluded["reason"])),
    "metrics.tsv#diagnostic": _diagnostic,
    "metrics.tsv#headline": _headline,
    "metrics.tsv#metrics": lambda source: "; ".join(dict.fromkeys(metric(name).label for name in _measured(source)["metric"])),
    "metrics.tsv#models": lambda source: "; ".join(source.label(name) for name in dict.fromkeys(_measured(source)["model"])),
    "metrics.tsv#sd_folds": _spread("sd_folds"),
    "metrics.tsv#sd_seeds": _spread("sd_seeds"),
    "predictions.tsv#columns": lambda source: [
        name for name in source.predictions.columns if str(name).startswith(("prediction", "probability"))
    ],
    "splits.tsv#leaks": _leaks,
    "splits.tsv#roles": _roles,
    "subgroups.tsv#columns": _columns,
    "subgroups.tsv#sites": lambda source: _level(source, "site"),
    "subgroups.tsv#worst": _worst,
}
