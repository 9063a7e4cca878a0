"""Deal groups into parts of given sizes so that every stratum is spread evenly: greedy, then improved by swaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.tables import class_text

CATEGORIES = 10  # a numeric column with at most so many different values is taken as categories
PASSES = 20  # rounds of swaps; a round without an improvement ends them
PARTNERS = 256  # swap partners looked at per group; all where there are fewer, so that time grows linearly

Matrix = NDArray[np.float64]


def strata(images: pd.DataFrame, columns: list[str], bins: int) -> pd.DataFrame:
    """Give each group one stratum per column.

    Args:
        images: one row per image, with the column group and `columns`.
        columns: names of the columns to balance.
        bins: number of quantile bins of a continuous column.

    Returns:
        One row per group, sorted by name, one text column each: the commonest value of a categorical column (ties: the
        first in sorted order), the quantile bin of the mean of a continuous one, `n/a` where all are missing.
    """
    groups = images.groupby("group", sort=True)
    found = pd.DataFrame(index=sorted(images["group"].unique()))
    for column in columns:
        if is_continuous(images[column]):
            found[column] = _binned(groups[column].mean(), bins)
        else:
            text = images[column].map(class_text).replace("", "n/a")
            found[column] = text.groupby(images["group"], sort=True).agg(lambda values: sorted(values.mode())[0])
    return found


def is_continuous(values: pd.Series) -> bool:
    """Whether a column is numeric with more different values than categories would have."""
    return bool(pd.api.types.is_numeric_dtype(values)) and values.nunique() > CATEGORIES


def _binned(means: pd.Series, bins: int) -> pd.Series:
    edges = np.unique(np.quantile(means.dropna(), np.linspace(0, 1, bins + 1)[1:-1]))
    number = np.searchsorted(edges, means.to_numpy(), side="right")
    text = [f"bin {value}" if known else "n/a" for value, known in zip(number, means.notna(), strict=True)]
    return pd.Series(text, index=means.index)


def features(group_strata: pd.DataFrame, images_per_group: pd.Series) -> Matrix:
    """The quantities to balance, one row per group: an indicator of each stratum, and the number of images.

    Args:
        group_strata: one row per group, one text column per stratified column.
        images_per_group: number of images, same index.

    Returns:
        Array (groups, features), each scaled so that its total over random parts would have about the same spread.
    """
    indicators = [
        (group_strata[column] == value).to_numpy(float) for column in group_strata for value in sorted(set(group_strata[column]))
    ]
    table = np.stack([*indicators, images_per_group.to_numpy(float)], axis=1)
    spread = table.std(axis=0)
    return (table / np.where(spread > 0, spread, 1.0))[:, spread > 0]


def allocate(table: Matrix, sizes: list[int], generator: np.random.Generator) -> NDArray[np.int64]:
    """Deal groups into parts of exactly the given sizes, every feature's total in proportion to the size.

    The cost is the sum over parts and features of the squared distance from the proportional total, divided by the
    part's size. Groups with rare strata are dealt first, each to the open part where the cost grows least; then pairs
    in different parts are swapped as long as that lowers the cost.

    Args:
        table: features (groups, features); rows in an order that does not depend on the input's row order.
        sizes: number of groups of each part; they add up to the number of rows.
        generator: breaks ties.

    Returns:
        The part of each row.

    Source: the greedy order, rarest first, is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML
        PKDD 2011, doi 10.1007/978-3-642-23808-6_10); exact sizes and the swaps are added here.
    """
    count = len(table)
    share = np.array(sizes, float) / max(count, 1)
    centred = table - table.mean(axis=0)  # then every part's ideal total is zero
    weight = 1.0 / np.maximum(np.array(sizes, float), 1.0)
    part = np.full(count, -1)
    totals = np.zeros((len(sizes), table.shape[1]))
    room = np.array(sizes)
    rarity = np.round((centred**2).sum(axis=1), 9)
    for row in np.lexsort((generator.permutation(count), -rarity)):
        growth = weight * ((totals + centred[row]) ** 2 - totals**2).sum(axis=1)
        tie = np.stack([generator.random(len(sizes)), -room / np.maximum(share, 1e-12)])
        order = np.lexsort((*tie, np.round(growth, 9)))
        best = next(int(index) for index in order if room[index] > 0)
        part[row] = best
        totals[best] += centred[row]
        room[best] -= 1
    _swap(centred, part, totals, weight, generator)
    return part


def _swap(centred: Matrix, part: NDArray[np.int64], totals: Matrix, weight: Matrix, generator: np.random.Generator) -> None:
    """Swap groups between parts as long as the cost falls; changes `part` and `totals`."""
    count = len(part)
    for _ in range(PASSES):
        improved = False
        for row in generator.permutation(count):
            partners = np.arange(count) if count <= PARTNERS else generator.choice(count, PARTNERS, replace=False)
            partners = partners[part[partners] != part[row]]
            if not len(partners):
                continue
            here, there = part[row], part[partners]
            move = centred[partners] - centred[row]
            change = weight[here] * (2 * totals[here] * move + move**2).sum(axis=1)
            change += weight[there] * (-2 * totals[there] * move + move**2).sum(axis=1)
            best = int(np.argmin(change))
            if change[best] < -1e-9:
                other = partners[best]
                totals[part[row]] += move[best]
                totals[part[other]] -= move[best]
                part[row], part[other] = part[other], part[row]
                improved = True
        if not improved:
            return
