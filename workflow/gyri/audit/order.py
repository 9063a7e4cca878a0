"""Are neighbours in the order of names more alike than others? Then they may be one person under several ids."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gyri.audit.similarity import Matrix, Similarity

WINDOW = 8  # runs that are shuffled among themselves
MINIMUM = 20  # pairs of neighbours below which the test says nothing


def natural_order(names: list[str]) -> list[int]:
    """Positions of the names sorted as people do: scan_2 before scan_10."""

    def key(index: int) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", names[index])]

    return sorted(range(len(names)), key=key)


@dataclass(frozen=True)
class Windows:
    """The runs of a cohort in name order, in windows.

    A run is a stretch of consecutive images of one group. Only the likeness across the borders between runs is tested, so
    what is known to belong together never counts.

    Args:
        first, last: first and last image of each run (indices of images), in name order.
        group: group number of each run.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    group: NDArray[np.int64]

    @property
    def borders(self) -> int:
        """Number of neighbours in different groups."""
        return max(len(self.first) - 1, 0)

    def partners(self, run: int) -> range:
        """Runs that may come to lie beside a run: those of its own window and of the two beside it."""
        window = run // WINDOW
        return range(max(0, (window - 1) * WINDOW), min(len(self.first), (window + 2) * WINDOW))


def windows(names: list[str], groups: NDArray[np.int64]) -> Windows:
    """Find the runs of a cohort.

    Args:
        names: image ids.
        groups: group number of each image.
    """
    order = np.array(natural_order(names), np.int64)
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ends = np.append(starts[1:], len(order)) - 1
    return Windows(order[starts], order[ends], groups[order[starts]])


@dataclass
class Scan:
    """What one pass over all pairs collects.

    Args:
        closest: the most alike image of another group (N); -1 where there is none.
        content_closest, content_score: the same by content alone, without the value step, and its similarity.
        ranks: (image, other image) -> 1 / rank of the other among all images of other groups (1 for the most alike).
    """

    closest: NDArray[np.int64]
    content_closest: NDArray[np.int64]
    content_score: Matrix
    ranks: dict[tuple[int, int], float] = field(default_factory=dict)


def scan(similarity: Similarity, runs: Windows) -> Scan:
    """Go once over all pairs: the closest images of each, and the ranks that the order test may ask for."""
    count = len(similarity.groups)
    wanted: dict[int, set[int]] = {image: set() for image in range(count)}
    for run in range(len(runs.first)):
        for other in runs.partners(run):
            if runs.group[run] != runs.group[other]:
                wanted[int(runs.last[run])].add(int(runs.first[other]))
                wanted[int(runs.first[other])].add(int(runs.last[run]))
    nobody = np.full(count, -1, np.int64)
    found = Scan(nobody, nobody.copy(), np.full(count, -np.inf, np.float32))
    for start, content, row_bonus in similarity.rows():
        for image, (plain, bonus) in enumerate(zip(content, row_bonus, strict=True), start):
            row = plain + bonus
            ascending = np.sort(row[np.isfinite(row)])
            if not len(ascending):
                continue
            found.closest[image], found.content_closest[image] = row.argmax(), plain.argmax()
            found.content_score[image] = plain.max()
            others = np.array(sorted(wanted[image]), np.int64)
            above = len(ascending) - np.searchsorted(ascending, row[others], side="right")
            found.ranks |= {(image, int(other)): 1.0 / (1 + rank) for other, rank in zip(others, above, strict=True)}
    return found


@dataclass(frozen=True)
class OrderTest:
    """Result of the order test.

    Args:
        statistic: mean reciprocal rank of a neighbour among all images of other groups, 1 where neighbours are always the most
            alike. It weighs the top of the ranking, so that a few true pairs are not lost among many strangers.
        expected: its mean over the permutations.
        p: share of permutations (the observed order among them) with at least this statistic.
        closest: share of neighbours that are each other's, or one the other's, most alike image.
        closest_expected: its mean over the permutations.
        pairs: number of neighbours tested.
        permutations: number of permutations.
    """

    statistic: float
    expected: float
    p: float
    closest: float
    closest_expected: float
    pairs: int
    permutations: int


def order_test(found: Scan, runs: Windows, permutations: int, generator: np.random.Generator) -> OrderTest | None:
    """Compare neighbours in name order with neighbours after shuffling inside short windows.

    Shuffling runs of images inside windows of `WINDOW` keeps every slow change along the order (dates, scanners, sites,
    patients before controls) in the permutations, so it does not count; only what direct neighbours share counts.

    Args:
        found: ranks of a cohort.
        runs: its runs.
        permutations: number of permutations.
        generator: draws them.

    Returns:
        The result, or None where there are fewer than `MINIMUM` neighbours.

    Source: p = (b + 1) / (m + 1), Phipson and Smyth 2010, doi 10.2202/1544-6115.1585.
    """
    if runs.borders < MINIMUM:
        return None
    likeness, hit = _tables(found, runs)
    count = len(runs.first)
    observed = _neighbours(likeness, hit, np.arange(count))
    window = np.arange(count) // WINDOW
    drawn = np.array([_neighbours(likeness, hit, np.lexsort((generator.random(count), window))) for _ in range(permutations)])
    at_least = int((drawn[:, 0] >= observed[0] - 1e-12).sum())
    return OrderTest(
        statistic=observed[0],
        expected=float(drawn[:, 0].mean()),
        p=(at_least + 1) / (permutations + 1),
        closest=observed[1],
        closest_expected=float(drawn[:, 1].mean()),
        pairs=runs.borders,
        permutations=permutations,
    )


def _tables(found: Scan, runs: Windows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reciprocal rank and closeness of (run, run that follows it), as bands (runs, 3 windows); not a number inside a group."""
    count = len(runs.first)
    likeness = np.full((count, 3 * WINDOW), np.nan)
    hit = np.full((count, 3 * WINDOW), np.nan)
    for run in range(count):
        for other in runs.partners(run):
            if runs.group[run] == runs.group[other]:
                continue
            pair = int(runs.last[run]), int(runs.first[other])
            there, back = found.ranks[pair], found.ranks[pair[::-1]]
            column = other - (run // WINDOW - 1) * WINDOW
            likeness[run, column] = (there + back) / 2
            hit[run, column] = found.closest[pair[0]] == pair[1] or found.closest[pair[1]] == pair[0]
    return likeness, hit


def _neighbours(likeness: NDArray[np.float64], hit: NDArray[np.float64], order: NDArray[np.int64]) -> tuple[float, float]:
    """Mean reciprocal rank and share of closest pairs over the neighbours of an order."""
    run, other = order[:-1], order[1:]
    column = other - (run // WINDOW - 1) * WINDOW
    values = likeness[run, column]
    known = np.isfinite(values)
    if not known.any():
        return 0.0, 0.0
    return float(values[known].mean()), float(hit[run, column][known].mean())
