"""Which test images are looked at: drawn from the seed, spread over classes or thirds of the target, never by result."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

STRATA = 3  # of a continuous target


def choose_images(table: pd.DataFrame, task: str, count: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw images of one fold, one per group, from each class (or third of the target) in turn.

    Args:
        table: test rows of the fold, as `gyri.loading.fold_table` gives them.
        task: classification or regression.
        count: how many; fewer where there are fewer groups.
        random: makes the draw; nothing that a model said enters.

    Returns:
        The rows, sorted by image_id.
    """
    strata = pd.Series(_strata(table, task), index=table.index)
    drawn = table.loc[table.index[random.permutation(len(table))]].drop_duplicates("group")
    names = sorted(strata.unique())
    order = [names[place] for place in random.permutation(len(names))]
    turns = drawn.groupby(strata[drawn.index], sort=False).cumcount()
    places = strata[drawn.index].map({name: place for place, name in enumerate(order)})
    picked = drawn.assign(turn=turns, place=places).sort_values(["turn", "place"], kind="stable").head(count)
    return picked.drop(columns=["turn", "place"]).sort_values("image_id", ignore_index=True)


def _strata(table: pd.DataFrame, task: str) -> NDArray[np.str_]:
    """The class of each row, or its third of the target's ranks."""
    if task == "classification":
        return table["target"].to_numpy(str)
    ranks = table["target"].rank(method="first").to_numpy() - 1
    return (ranks * STRATA // max(len(table), 1)).astype(int).astype(str)
