"""How well the acquisition site is told from plain features of the images, with the folds of the split: a line of chance.tsv.

It says what is in the images before any network: where sites differ, a model that predicts something else can lean on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.config.experiments import EvaluateSettings
from gyri.evaluate.chance import COLUMNS, SITES, Null, tell_site
from gyri.tables import read_table

METRIC = "site_from_images"


def site_from_images(settings: EvaluateSettings, table: pd.DataFrame, site: dict[str, str], features: Path) -> pd.DataFrame:
    """Probe the images for their site.

    Args:
        settings: of the evaluation.
        table: checked and sorted predictions; only their test images, groups and folds are used.
        site: image -> site, "" where it is not known.
        features: features.tsv of the dataset.

    Returns:
        One line of chance.tsv, of no model; without a value, `note` says why.
    """
    line: dict[str, Any] = {"model": "", "metric": METRIC, "structure": "", "null": SITES}
    if not features.is_file():
        return _frame({**line, "note": "not tested: features.tsv is not there"})
    rows = table[table["role"] == "test"].drop_duplicates("image_id").sort_values("image_id")
    known = read_table(features).set_index("image_id")
    missing = sorted(set(rows["image_id"]) - set(known.index))
    if missing:
        return _frame({**line, "note": f"not tested: features.tsv lacks {len(missing)} images, the first is {missing[0]}"})
    values = known.loc[rows["image_id"]].to_numpy(np.float64)
    found = tell_site(Null(rows, site, settings, "test"), rows, values, site, "all images have the same features")
    return _frame({**line, **found, "p_holm": found.get("p", np.nan)})


def _frame(line: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([line], columns=COLUMNS)
