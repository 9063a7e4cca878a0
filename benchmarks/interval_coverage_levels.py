"""How often the tests of gyri call a difference that is not there: simulated groups of images, 12, 20 and 60 groups.

Run: PYTHONPATH=workflow python benchmarks/interval_coverage_levels.py [--simulations 2000] [--only paired_dice], which prints the rows
of the table in benchmarks/interval_coverage_levels.md.

- `paired_dice`, `paired_failures`: two models with the same true mean and errors of another shape; part of the error is the image's
  and common to both;
- `paired_auroc`, `paired_fold_auroc`: two models with the same true AUROC whose scores are correlated, on one set and as the mean
  over three folds whose scores have other locations and scales;
- `procedures`: two classifiers trained in every fold of a cross-validation on different features that tell equally much; no procedure
  is better, though one trained model may be;
- `permutation`: scores that know the site and nothing of the class, where the sites have different shares of patients.

Each row says how often p < 0.05. What gyri uses bears its name; textbook tests that ignore groups, folds or sites stand beside it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

import numpy as np
from interval_coverage import CHANCES, FOLDS, GROUPS, OWN, SEPARATION, SHARED, SIZES, plain_weights
from numpy.typing import NDArray
from scipy import stats

from gyri.comparison import corrected_t, permutation_p, permutations
from gyri.evaluate.permuted import classified_under
from gyri.metrics.classification import Classified, auroc
from gyri.seeds import generator
from gyri.statistics import Estimate, average, bca_interval, difference, estimate, group_weights, studentized_p, symmetric_p

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Results = Iterator[tuple[str, float]]
PERMUTATIONS, FEATURES, VALIDATION = 1000, 5, 5  # every fifth group outside the test fold validates, as with the default settings


def images(groups: int, random: np.random.Generator) -> Indices:
    """Group of each image."""
    return np.repeat(np.arange(groups), random.choice(SIZES, groups, p=CHANCES))


def scored(truth: Indices, score: Array) -> Classified:
    """Two classes with a score that is no probability."""
    return Classified(truth, truth, np.stack([-score, score], 1))


def paired_means(kind: str, groups: int, resamples: int, random: np.random.Generator) -> Results:
    """Means of two models on the same images; the errors of one are more skewed."""
    group = images(groups, random)
    size = len(group)
    common = random.gamma(1, 1, groups)[group]

    def errors(shape: float) -> Array:
        if kind == "paired_dice":
            return common + random.gamma(shape, 1 / shape, groups)[group] + random.gamma(shape, 1 / shape, size)
        width = 0.35 if shape == 1 else 0.6
        noise = width * random.normal(size=groups)[group] + width * random.normal(size=size)
        return common + np.exp(noise - width**2)

    values = 0.05 * (errors(1.0) - errors(0.5))
    weights = group_weights(np.zeros(groups, int), resamples, random)
    yield "gyri: studentized paired bootstrap", studentized_p(values, group, weights)
    plain = plain_weights(groups, resamples, random)
    sums, sizes = np.bincount(group, values, groups), np.bincount(group, minlength=groups)
    below = ((plain @ sums) / (plain @ sizes) < 0).mean()
    yield "percentile over groups", 2 * min(below, 1 - below)
    yield "paired t over images", float(stats.ttest_1samp(values, 0).pvalue)


def paired_ranking(kind: str, groups: int, resamples: int, random: np.random.Generator) -> Results:
    """AUROC of two models on the same images."""
    group = images(groups, random)
    truth, fold = (np.arange(groups) // FOLDS % 2)[group], np.arange(groups) % FOLDS
    shared = SHARED * random.normal(size=groups)[group]
    scores = [SEPARATION * truth + shared + OWN * random.normal(size=len(group)) for _ in range(2)]
    in_folds = kind == "paired_fold_auroc"
    weights = group_weights(fold if in_folds else np.zeros(groups, int), resamples, random)

    def measured(score: Array) -> Estimate:
        parts = [fold[group] == part for part in range(FOLDS)] if in_folds else [np.ones(len(group), bool)]
        found = []
        for part in parts:
            cases = scored(truth[part], score[part])
            found.append(estimate(lambda chosen, cases=cases: auroc(cases, chosen), group[part], weights))
        return average(found)

    scales = np.array([[0.5, 1, 2], [2, 0.5, 1]])[:, fold[group]] if in_folds else np.ones((2, 1))
    found = difference(measured(scores[0] * scales[0]), measured(scores[1] * scales[1]))
    yield "gyri: symmetric paired bootstrap", symmetric_p(found, groups - (FOLDS if in_folds else 1))
    bca = bca_interval(found, groups, FOLDS if in_folds else 1, 0.95, (-1, 1))
    yield "BCa", math.nan if bca is None else float(bca[0] <= 0 <= bca[1])
    below = (found.resampled < 0).mean() + (found.resampled == 0).mean() / 2
    yield "percentile over groups", 2 * min(below, 1 - below)


def procedures(groups: int, resamples: int, random: np.random.Generator) -> Results:
    """AUROC in every fold of two nearest-mean classifiers on different features."""
    folds, group = FOLDS if groups < 20 else 5, images(groups, random)
    label, fold = np.arange(groups) % 2, np.arange(groups) // 2 % folds
    truth = label[group]
    found, ratios = [], []
    for _ in range(2):
        features = 0.5 * truth[:, None] + SHARED * random.normal(size=(groups, FEATURES))[group]
        features += OWN * random.normal(size=features.shape)
        values = []
        for test in range(folds):
            held, rest = fold[group] == test, np.flatnonzero(fold != test)
            validation = rest[[place for place in range(len(rest)) if place % VALIDATION == place // VALIDATION % 2]]
            train = ~held & ~np.isin(group, validation)
            ratios.append((fold == test).sum() / (len(rest) - len(validation)))
            means = [features[train & (truth == side)].mean(0) for side in (0, 1)]
            values.append(auroc(scored(truth[held], features[held] @ (means[1] - means[0])), np.ones((1, held.sum())))[0])
        found.append(np.array(values))
    differences = found[0] - found[1]
    yield "gyri: corrected resampled t", corrected_t(differences, float(np.mean(ratios)))
    constant = differences.std() < 1e-12
    yield "t over folds", 1.0 if constant else float(stats.ttest_1samp(differences, 0).pvalue)


def permutation(groups: int, resamples: int, random: np.random.Generator) -> Results:
    """AUROC, mean over folds, of scores that tell the site only."""
    site, fold = random.integers(0, 2, groups), np.arange(groups) % FOLDS
    label = (random.random(groups) < np.where(site == 1, 0.65, 0.35)).astype(int)
    group = images(groups, random)
    truth = label[group]
    score = 0.7 * site[group] + SHARED * random.normal(size=groups)[group] + OWN * random.normal(size=len(group))
    blocks = [np.flatnonzero(group == index) for index in range(groups)]
    alone = [np.array([place]) for place in range(len(group))]
    kinds = {
        "gyri: groups within fold and site": (blocks, 2 * fold + site),
        "groups within fold, site ignored": (blocks, fold),
        "images within fold and site, groups ignored": (alone, (2 * fold + site)[group]),
    }
    for name, (units, strata) in kinds.items():
        taken = permutations(units, strata, True, PERMUTATIONS, random)
        value, null = [], []
        for part in range(FOLDS):
            held = np.flatnonzero(fold[group] == part)
            cases = scored(truth[held], score[held])
            value.append(auroc(cases, np.ones((1, len(held))))[0])
            null.append(classified_under(auroc, cases, truth[taken[:, held]]))
        defined = np.isfinite(value)  # exchanging inside a fold keeps its classes: a fold is defined in all or in none
        if defined.any():
            yield name, permutation_p(np.mean(np.array(value)[defined]), np.mean(np.array(null)[defined], axis=0), "higher")


SIMULATIONS = {
    "paired_dice": partial(paired_means, "paired_dice"),
    "paired_failures": partial(paired_means, "paired_failures"),
    "paired_auroc": partial(paired_ranking, "paired_auroc"),
    "paired_fold_auroc": partial(paired_ranking, "paired_fold_auroc"),
    "procedures": procedures,
    "permutation": permutation,
}


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--only", nargs="*", default=list(SIMULATIONS), choices=list(SIMULATIONS))
    options = parser.parse_args()
    print("| null hypothesis | groups | test | share with p < 0.05 | given |\n|---|---|---|---|---|")
    for name in options.only:
        for groups in GROUPS:
            random, began = generator("interval_coverage_levels", name, groups), time.perf_counter()
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(options.simulations):
                for test, p in SIMULATIONS[name](groups, options.resamples, random):
                    found[test].append(p)
            for test, values in found.items():
                given = np.array(values)[np.isfinite(values)]
                share = (given < 0.05).mean()
                error = math.sqrt(share * (1 - share) / len(given))
                print(
                    f"| {name} | {groups} | {test} | {share:.3f} ± {error:.3f} | {len(given) / options.simulations:.3f} |",
                    flush=True,
                )
            print(f"{name}, {groups} groups: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
