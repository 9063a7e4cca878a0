"""What splitting the hippocampus set by volume instead of by person does to the Dice coefficient.

Give the results folders of two runs of the same configuration: one with the group expression, one without it. Every volume is a test volume
once in each; differences are taken per volume, and persons ((number + 1) // 2) are resampled.

    PYTHONPATH=workflow .venv/bin/python benchmarks/hippocampus_leak.py BY_PERSON BY_VOLUME > benchmarks/hippocampus_leak.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from gyri.seeds import generator
from gyri.statistics import group_weights, studentized_interval
from gyri.tables import read_table

RESAMPLES = 2000


def test_dice(results: Path) -> pd.DataFrame:
    """Dice of every test volume, mean of both structures, one column per model."""
    cases = read_table(results / "hippocampus" / "cases.tsv", "cases")
    cases = cases[(cases.role == "test") & (cases.metric == "dice") & (cases.structure == "mean")]
    return cases.pivot_table(index="image_id", columns="model", values="value")


def partners_apart(results: Path) -> tuple[int, int]:
    """How many test volumes have their partner among the volumes that the model learned from (train or validation), of how many."""
    splits = read_table(results / "datasets" / "hippocampus" / "splits.tsv", "splits")
    cohort = read_table(results / "datasets" / "hippocampus" / "cohort.tsv", "cohort")
    splits = splits.merge(cohort[["participant_id", "image_id"]], on="participant_id")
    splits["person"] = [person(image) for image in splits.image_id]
    count = total = 0
    for _, fold in splits.groupby("fold"):
        learned = set(fold[fold.role != "test"].person)
        tested = fold[fold.role == "test"].person
        count, total = count + int(tested.isin(learned).sum()), total + len(tested)
    return count, total


def person(image_id: str) -> int:
    """The person behind a volume."""
    return (int("".join(letter for letter in image_id if letter.isdigit())) + 1) // 2


def mean_with_interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % interval, persons resampled."""
    weights = group_weights(np.zeros(len(set(groups)), int), RESAMPLES, generator("hippocampus_leak"))
    low, high = studentized_interval(values, groups, weights, 0.95, (-1.0, 1.0))
    return float(values.mean()), low, high


def main() -> None:
    """Print the comparison."""
    by_person, by_volume = (test_dice(Path(argument)) for argument in sys.argv[1:3])
    assert list(by_person.index) == list(by_volume.index)
    persons = np.array([person(name) for name in by_person.index])
    groups = np.unique(persons, return_inverse=True)[1]
    print("# Hippocampus: split by person and by volume\n")
    for title, folder in (("by person", sys.argv[1]), ("by volume", sys.argv[2])):
        count, total = partners_apart(Path(folder))
        print(f"- {title}: {count} of {total} test volumes have the other hippocampus of the same person on the learning side")
    print(
        f"\nMean Dice of anterior and posterior, {len(persons)} volumes of {groups.max() + 1} persons, 95 % interval over persons.\n"
    )
    print("| model | by person | by volume | difference, by volume minus by person |\n|---|---|---|---|")
    for model in by_person.columns:
        columns = (by_person[model], by_volume[model], by_volume[model] - by_person[model])
        cells = ["{:.4f} [{:.4f}, {:.4f}]".format(*mean_with_interval(column.to_numpy(), groups)) for column in columns]
        print(f"| {model} | {cells[0]} | {cells[1]} | {cells[2]} |")


if __name__ == "__main__":
    main()
