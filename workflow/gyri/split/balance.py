"""How alike the sides of each fold are: counts, means and standardized differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gyri.split.allocate import is_continuous

COLUMNS = ["fold", "role", "column", "value", "n", "fraction", "mean", "sd", "smd", "note"]
NOT_DESCRIBED = ("image_id", "participant_id", "group", "session_id", "sha256_file", "sha256_voxels", "sha256_labels")
MAXIMUM_CATEGORIES = 20  # a text column with more different values is a name or a comment, not a category


def balance_table(images: pd.DataFrame, splits: pd.DataFrame, notes: dict[str, str]) -> pd.DataFrame:
    """Describe every role of every fold.

    Args:
        images: the cohort without excluded images.
        splits: long form, see the split stage.
        notes: column -> remark that stands beside that column's rows.

    Returns:
        Columns fold, role, column, value, n, fraction, mean, sd, smd, note. The rows `groups`, `participants` and `images`
        count; a continuous column has one row with mean and sd, a categorical one a row per value. smd is the
        standardized mean difference between this role and the rest of the fold's images (for `locked`: all others).
    """
    described = [name for name in images.columns if _describable(name, images[name])]
    rows: list[dict[str, Any]] = []
    for (fold, role), members in splits.groupby(["fold", "role"], sort=True):
        inside = images["participant_id"].isin(set(members["participant_id"]))
        everyone = set(splits["participant_id"]) if fold == "locked" else set(splits.loc[splits["fold"] == fold, "participant_id"])
        outside = images["participant_id"].isin(everyone) & ~inside
        key = {"fold": fold, "role": role}
        rows.append({**key, "column": "groups", "n": members["group"].nunique()})
        rows.append({**key, "column": "participants", "n": len(members)})
        rows.append({**key, "column": "images", "n": int(inside.sum())})
        for name in described:
            describe = _continuous if is_continuous(images[name]) else _categorical
            note = notes.get(name, "")
            rows += [{**key, "column": name, "note": note, **row} for row in describe(images[name], inside, outside)]
    return pd.DataFrame(rows, columns=COLUMNS).replace({"value": {np.nan: ""}, "note": {np.nan: ""}})


def standardized_difference(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Difference of two means over the root of the mean of their variances.

    Args:
        first, second: (mean, variance).

    Returns:
        The standardized mean difference; 0 where both are constant and equal, not a number where constant and different.

    Source: Austin, Statistics in Medicine 28:3083 (2009), doi 10.1002/sim.3697; below 0.1 is commonly called negligible.
    """
    difference, spread = first[0] - second[0], np.sqrt((first[1] + second[1]) / 2)
    if spread > 0:
        return float(difference / spread)
    return 0.0 if difference == 0 else float("nan")


def _describable(name: str, values: pd.Series) -> bool:
    if name in NOT_DESCRIBED or name.startswith(("image_", "label", "mask")):
        return False
    different = set(values.dropna()) - {""}
    return len(different) > 1 and (is_continuous(values) or len(different) <= MAXIMUM_CATEGORIES)


def _continuous(values: pd.Series, inside: pd.Series, outside: pd.Series) -> list[dict[str, Any]]:
    here, there = values[inside].dropna(), values[outside].dropna()
    row: dict[str, Any] = {"value": "", "n": len(here), "fraction": len(here) / max(int(inside.sum()), 1)}
    if len(here):
        row["mean"] = float(here.mean())
    if len(here) > 1:
        row["sd"] = float(here.std())
    if len(here) > 1 and len(there) > 1:
        row["smd"] = standardized_difference((here.mean(), here.var()), (there.mean(), there.var()))
    return [row]


def _categorical(values: pd.Series, inside: pd.Series, outside: pd.Series) -> list[dict[str, Any]]:
    text = values.map(
        lambda value: "n/a" if pd.isna(value) or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
    )
    rows = []
    for value in sorted(set(text)):
        here, there = text[inside] == value, text[outside] == value
        row: dict[str, Any] = {"value": value, "n": int(here.sum()), "fraction": float(here.mean()) if len(here) else 0.0}
        if len(here) and len(there):
            p, q = float(here.mean()), float(there.mean())
            row["smd"] = standardized_difference((p, p * (1 - p)), (q, q * (1 - q)))
        rows.append(row)
    return rows
