"""How often the intervals of gyri cover the truth: simulated groups of images, 12, 20 and 60 groups.

Run: PYTHONPATH=workflow python benchmarks/interval_coverage.py [--simulations 4000] > benchmarks/interval_coverage.md

Four quantities, each with a truth known in closed form:

- `dice`: mean of a left-skewed value (1 minus gamma-distributed errors, one part shared by a group); `failures`: the same with
  lognormal errors, so that a few cases fail badly;
- `auroc`: binormal scores with a part shared by a group, on one set;
- `fold_auroc`: the mean over three folds whose scores have different location and scale (three models), groups resampled in folds.

The percentile interval of the plain bootstrap over groups stands beside them, and the one over images.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gyri.metrics.classification import Classified, auroc
from gyri.seeds import generator
from gyri.statistics import (
    Estimate,
    average,
    bca_interval,
    estimate,
    estimate_mean,
    group_weights,
    studentized_interval,
)

Array = NDArray[np.float64]
GROUPS = (12, 20, 60)
FOLDS, SEPARATION, SHARED, OWN = 3, 1.2, 0.8, 0.6
SIZES, CHANCES = (1, 2, 3), (0.6, 0.3, 0.1)
TRUTH = {
    "dice": 1 - 0.05 * 2,
    "failures": 1 - 0.1 * math.exp((0.7**2 + 0.5**2) / 2),
    "auroc": 0.5 * (1 + math.erf(SEPARATION / math.sqrt(SHARED**2 + OWN**2) / 2)),
}
TRUTH["fold_auroc"] = TRUTH["auroc"]  # order does not change with location and scale
LIMITS = {"dice": (0, 1), "failures": (None, 1), "auroc": (0, 1), "fold_auroc": (0, 1)}


def draw(quantity: str, groups: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """One simulated test set: group of each image, its class, its value or score."""
    group = np.repeat(np.arange(groups), random.choice(SIZES, groups, p=CHANCES))
    shape = len(group)
    if quantity == "dice":
        return group, np.zeros(shape, int), 1 - 0.05 * (random.gamma(1, 1, groups)[group] + random.gamma(1, 1, shape))
    if quantity == "failures":
        return (
            group,
            np.zeros(shape, int),
            1 - 0.1 * np.exp(0.7 * random.normal(size=groups)[group] + 0.5 * random.normal(size=shape)),
        )
    truth = (np.arange(groups) // FOLDS % 2)[group]
    score = SEPARATION * truth + SHARED * random.normal(size=groups)[group] + OWN * random.normal(size=shape)
    if quantity == "fold_auroc":
        fold = group % FOLDS
        score = score * np.array([0.5, 1, 2])[fold] + np.array([-1, 0, 2])[fold]
    return group, truth, score


def plain_weights(groups: int, resamples: int, random: np.random.Generator) -> Array:
    """The textbook bootstrap, for comparison."""
    return random.multinomial(groups, np.full(groups, 1 / groups), resamples).astype(np.float64)


def auroc_of(truth: NDArray[np.int64], score: Array, group: NDArray[np.int64], weights: Array) -> Estimate:
    """The AUROC and how it varies."""
    cases = Classified(truth, truth, np.stack([-score, score], 1))
    return estimate(lambda chosen: auroc(cases, chosen), group, weights)


def intervals(quantity: str, groups: int, resamples: int, random: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """Every kind of interval of one simulated test set."""
    group, truth, values = draw(quantity, groups, random)
    fold = np.arange(groups) % FOLDS
    weights = group_weights(fold if quantity == "fold_auroc" else np.zeros(groups, int), resamples, random)
    plain, single = plain_weights(groups, resamples, random), plain_weights(len(group), resamples, random)

    def measure(unit: NDArray[np.int64], weights: Array) -> Estimate:
        if quantity in ("dice", "failures"):
            return estimate_mean(values, unit, weights)
        if quantity == "auroc":
            return auroc_of(truth, values, unit, weights)
        parts = [fold[group] == part for part in range(FOLDS)]
        return average([auroc_of(truth[part], values[part], unit[part], weights) for part in parts])

    found = bca_interval(measure(group, weights), groups, FOLDS if quantity == "fold_auroc" else 1, 0.95, LIMITS[quantity])
    if found:
        yield "gyri: BCa", *found
    if quantity in ("dice", "failures"):
        found = studentized_interval(values, group, weights, 0.95, LIMITS[quantity])
        if found:
            yield "gyri: studentized", *found
    yield "percentile over groups", *np.nanquantile(measure(group, plain).resampled, [0.025, 0.975])
    yield "percentile over images", *np.nanquantile(measure(np.arange(len(group)), single).resampled, [0.025, 0.975])


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    print("| quantity | groups | interval | coverage | below | above | mean width | given |\n|---|---|---|---|---|---|---|---|")
    for quantity, true in TRUTH.items():
        for groups in GROUPS:
            random, began = generator("interval_coverage", quantity, groups), time.perf_counter()
            counts: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
            for _ in range(options.simulations):
                for name, low, high in intervals(quantity, groups, options.resamples, random):
                    for index, value in enumerate((1, true < low, true > high, high - low)):
                        counts[name][index] += value
            for name, (given, below, above, width) in counts.items():
                share = 1 - (below + above) / given
                error = math.sqrt(share * (1 - share) / given)
                print(
                    f"| {quantity} | {groups} | {name} | {share:.3f} ± {error:.3f} | {below / given:.3f} | {above / given:.3f}"
                    f" | {width / given:.4f} | {given / options.simulations:.3f} |",
                    flush=True,
                )
            print(f"{quantity}, {groups} groups: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
