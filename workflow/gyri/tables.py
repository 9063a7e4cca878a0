"""Tables: tab-separated, UTF-8, `n/a` for what is missing, identifiers always text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.errors import DataError, Problem
from gyri.io import atomic

MISSING = "n/a"
TEXT_COLUMNS = ["image_id", "participant_id", "group", "session_id", "site", "sha256_file", "sha256_voxels", "sha256_labels"]
TEXT_COLUMNS += ["role", "model", "fold", "seed", "metric", "structure", "check", "status", "detail", "reason", "severity"]
KEYS = ["model", "role", "fold", "seed", "metric", "structure"]

COLUMNS = {
    "cohort": ["image_id", "participant_id", "group", "session_id", "site", "sha256_file", "sha256_voxels"],
    "excluded": ["image_id", "reason", "severity"],
    "splits": ["group", "participant_id", "fold", "role"],
    "history": ["epoch", "step", "train_loss", "validation_loss"],
    "predictions": ["image_id", "participant_id", "group", "fold", "role", "model", "seed", "target", "prediction"],
    "cases": ["image_id", "participant_id", "group", "fold", "role", "model", "seed", "metric", "structure", "value"],
    "metrics": [*KEYS, "value", "ci_low", "ci_high", "n", "n_groups", "sd_folds", "sd_seeds"],
}


def read_table(path: Path, kind: str | None = None) -> pd.DataFrame:
    """Read a tab-separated table.

    Args:
        path: the file.
        kind: a key of `COLUMNS`; its columns must be there.

    Returns:
        The table. Identifier-like columns, and every column that begins with image_, label or mask, are text with
        missing values as ""; other columns are numbers where all their values are, else text.

    Raises:
        DataError: missing file, no table, or missing columns (all of them named).
    """
    path = Path(path)
    try:
        # "NA" or "None" may be a real diagnosis or site: only n/a and the empty cell are missing
        head = pd.read_csv(path, sep="\t", nrows=0)
        text = [name for name in head.columns if name in TEXT_COLUMNS or name.startswith(("image_", "label", "mask"))]
        table = pd.read_csv(
            path, sep="\t", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[MISSING, ""], encoding="utf-8"
        )
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(Problem(str(path), str(error), "a tab-separated table", "make the file anew")) from error
    table[text] = table[text].fillna("")
    missing = [name for name in COLUMNS.get(kind or "", []) if name not in table.columns]
    if missing:
        raise DataError(
            Problem(str(path), f"no column {', '.join(missing)}", f"the columns of a {kind} table", "make the file anew")
        )
    return table


def write_table(path: Path, table: pd.DataFrame, kind: str | None = None) -> None:
    """Write a tab-separated table; floats keep 17 significant digits where they need them, so nothing is lost.

    Raises:
        ValueError: columns of its kind are missing (a mistake of ours, not of the user).
    """
    missing = [name for name in COLUMNS.get(kind or "", []) if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: a {kind} table needs the columns {missing}")
    with atomic(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep=MISSING, lineterminator="\n", encoding="utf-8")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table in order, each as {column: value}."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def row_of(table: pd.DataFrame, label: str) -> dict[str, Any]:
    """One row of a table as {column: value}, by its label in the index."""
    return {str(name): value for name, value in table.loc[label].items()}


def class_text(value: Any) -> str:
    """A class as text: 1.0 and 1 are both "1", a missing value is ""."""
    if pd.isna(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
