"""How often the intervals of gyri cover the truth: simulated groups of images, 12, 20 and 60 groups.

Run: PYTHONPATH=workflow python benchmarks/interval_coverage.py [--simulations 2000] [--only dice auroc] [--groups 60], which prints the rows of
the table in benchmarks/interval_coverage.md (the seeds depend on the row only, so rows can be made apart).

Quantities with a truth known in closed form or as an integral:

- `dice`: mean of a left-skewed value (1 minus gamma-distributed errors, one part shared by a group); `failures`: the same with
  lognormal errors, so that a few cases fail badly;
- `auroc`: binormal scores with a part shared by a group, on one set;
- `balanced_accuracy`, `mcc`: of the same scores with the best threshold;
- `fold_auroc`, `fold_average_precision`: the mean over three folds whose scores have different location and scale (three models),
  groups resampled in folds;
- `r2` and `fold_correlation`: values of groups, predicted with errors of which a part is shared by the group.

The percentile interval of the plain bootstrap over groups stands beside them, and the one over images.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from gyri.metrics.classification import Classified, auroc, average_precision, balanced_accuracy, mcc
from gyri.metrics.regression import Regressed, correlation, r2
from gyri.seeds import generator
from gyri.statistics import (
    Estimate,
    Range,
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
MEANS = ("dice", "failures")
VALUE_ERROR = 0.6  # standard deviation of the errors of predicted values, as a share of that of the true ones
RECALL = 0.5 * (1 + math.erf(SEPARATION / math.sqrt(SHARED**2 + OWN**2) / 2 / math.sqrt(2)))


def _true_average_precision() -> float:
    """Precision integrated over the positives, half of the images positive."""
    thresholds = np.linspace(-8, 10, 200_001)
    spread = math.sqrt(SHARED**2 + OWN**2)
    above, false = (ndtr(-(thresholds - mean) / spread) for mean in (SEPARATION, 0.0))
    return float(np.trapezoid((above / (above + false))[::-1], above[::-1]))


TRUTH = {
    "dice": 1 - 0.05 * 2,
    "failures": 1 - 0.1 * math.exp((0.7**2 + 0.5**2) / 2),
    "auroc": 0.5 * (1 + math.erf(SEPARATION / math.sqrt(SHARED**2 + OWN**2) / 2)),
    "balanced_accuracy": RECALL,
    "mcc": 2 * RECALL - 1,
    "r2": 1 - VALUE_ERROR**2,
    "fold_correlation": 1 / math.sqrt(1 + VALUE_ERROR**2),
    "fold_average_precision": _true_average_precision(),
}
TRUTH["fold_auroc"] = TRUTH["auroc"]  # order does not change with location and scale
LIMITS: dict[str, Range] = dict.fromkeys(TRUTH, (0, 1))
LIMITS |= {"failures": (None, 1), "mcc": (-1, 1), "fold_correlation": (-1, 1), "r2": (None, 1)}


def draw(quantity: str, groups: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[Any], Array]:
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
    if quantity in ("r2", "fold_correlation"):
        true = random.normal(size=groups)[group]
        error = SHARED * random.normal(size=groups)[group] + OWN * random.normal(size=shape)
        fold = group % FOLDS
        scaled = (true + VALUE_ERROR * error) * (np.array([0.5, 1, 2])[fold] if quantity != "r2" else 1)
        return group, true, scaled
    truth = (np.arange(groups) // FOLDS % 2)[group]
    score = SEPARATION * truth + SHARED * random.normal(size=groups)[group] + OWN * random.normal(size=shape)
    if quantity.startswith("fold_"):
        fold = group % FOLDS
        score = score * np.array([0.5, 1, 2])[fold] + np.array([-1, 0, 2])[fold]
    return group, truth, score


def plain_weights(groups: int, resamples: int, random: np.random.Generator) -> Array:
    """The textbook bootstrap, for comparison."""
    return random.multinomial(groups, np.full(groups, 1 / groups), resamples).astype(np.float64)


def measured(quantity: str, truth: NDArray[Any], values: Array, group: NDArray[np.int64], weights: Array) -> Estimate:
    """The quantity in one fold, and how it varies."""
    name = quantity.removeprefix("fold_")
    if name in ("r2", "correlation"):
        function, cases = {"r2": r2, "correlation": correlation}[name], Regressed(truth, values)
        return estimate(lambda chosen: function(cases, chosen), group, weights)
    metric = {"auroc": auroc, "average_precision": average_precision, "balanced_accuracy": balanced_accuracy, "mcc": mcc}[name]
    decided = Classified(truth, (values > SEPARATION / 2).astype(int), np.stack([-values, values], 1))
    return estimate(lambda chosen: metric(decided, chosen), group, weights)


def intervals(
    quantity: str, groups: int, resamples: int, random: np.random.Generator, percentiles: bool
) -> Iterator[tuple[str, float, float]]:
    """Every kind of interval of one simulated test set; those of gyri are the same with and without the percentiles."""
    group, truth, values = draw(quantity, groups, random)
    fold = np.arange(groups) % FOLDS
    in_folds = quantity.startswith("fold_")
    weights = group_weights(fold if in_folds else np.zeros(groups, int), resamples, random)
    plain, single = plain_weights(groups, resamples, random), plain_weights(len(group), resamples, random)

    def measure(unit: NDArray[np.int64], weights: Array) -> Estimate:
        if quantity in MEANS:
            return estimate_mean(values, unit, weights)
        if not in_folds:
            return measured(quantity, truth, values, unit, weights)
        parts = [fold[group] == part for part in range(FOLDS)]
        return average([measured(quantity, truth[part], values[part], unit[part], weights) for part in parts])

    found = bca_interval(measure(group, weights), groups, FOLDS if in_folds else 1, 0.95, LIMITS[quantity])
    if found:
        yield "gyri: BCa" if quantity not in MEANS else "BCa", *found
    if quantity in MEANS:
        found = studentized_interval(values, group, weights, 0.95, LIMITS[quantity])
        if found:
            yield "gyri: studentized", *found
    if not percentiles:
        return
    yield "percentile over groups", *np.nanquantile(measure(group, plain).resampled, [0.025, 0.975])
    yield "percentile over images", *np.nanquantile(measure(np.arange(len(group)), single).resampled, [0.025, 0.975])


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--only", nargs="*", default=list(TRUTH), choices=list(TRUTH))
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--groups", type=int, nargs="*", default=list(GROUPS))
    parser.add_argument("--percentiles", action=argparse.BooleanOptionalAction, default=True, help="with the textbook intervals")
    options = parser.parse_args()
    print("| quantity | groups | interval | coverage | below | above | mean width | given |\n|---|---|---|---|---|---|---|---|")
    for quantity in options.only:
        true = TRUTH[quantity]
        for groups in options.groups:
            random, began = generator("interval_coverage", quantity, groups), time.perf_counter()
            counts: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
            for _ in range(options.simulations):
                for name, low, high in intervals(quantity, groups, options.resamples, random, options.percentiles):
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
