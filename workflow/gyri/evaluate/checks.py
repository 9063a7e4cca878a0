"""What must hold before anything is measured: nobody on two sides, nobody missing, everybody measured on the same images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from gyri.errors import DataError, LeakageError, Problem, shown
from gyri.layout import Layout
from gyri.loading import Target, fold_table
from gyri.tables import class_text

LOCKED = "/locked"
RUN = ["model", "seed", "fold"]
AGAIN = "predict with this model again (snakemake does it for you)"


def check_predictions(table: pd.DataFrame, layout: Layout, dataset: str, experiment: str, target: Target) -> None:
    """Refuse predictions that must not be measured, or not be compared.

    Args:
        table: all predictions of an experiment.
        layout: the results folder.
        dataset: its name.
        experiment: its name, or `<experiment>/locked`.
        target: what is predicted.

    Raises:
        LeakageError: an image or group tested in two folds or on two sides of a fold, or a role that does not belong here.
        DataError: an image, fold or seed of a model is missing, occurs twice, or has another target than the cohort.
    """
    leaks = [*_roles(table, experiment), *_two_sides(table)]
    if leaks:
        raise LeakageError(leaks)
    problems = [*_repeated(table), *_grid(table)]
    if not problems:
        problems = [*_same_images(table, layout, dataset, experiment, target)]
    if problems:
        raise DataError(problems)


def _roles(table: pd.DataFrame, experiment: str) -> Iterator[Problem]:
    """Locked participants are measured by themselves, and training participants never."""
    allowed = ["locked"] if experiment.endswith(LOCKED) else ["test", "validation"]
    for (model, seed, fold), rows in table[~table["role"].isin(allowed)].groupby(RUN):
        got = f"the roles {', '.join(sorted(set(rows['role'])))}"
        remedy = "evaluate locked participants by `snakemake locked`, the others without it"
        yield Problem(f"predictions of {model}, fold {fold}, seed {seed}", got, f"only {' and '.join(allowed)}", remedy)


def _two_sides(table: pd.DataFrame) -> Iterator[Problem]:
    """No image and no group is tested in two folds, or is both tested and validated on in one."""
    remedy = "make the split anew and run the experiment from there"
    for (model, seed), rows in table[table["role"] == "test"].groupby(["model", "seed"]):
        for column, noun in (("image_id", "image"), ("group", "group")):
            folds = rows.groupby(column)["fold"].nunique()
            if (folds > 1).any():
                where = f"predictions of {model}, seed {seed}"
                got = f"{noun} {shown(folds.index[folds > 1])} tested in several folds"
                yield Problem(where, got, f"each {noun} in the test set of one fold", remedy)
    for (model, seed, fold), rows in table.groupby(RUN):
        roles = rows.groupby("group")["role"].nunique()
        if (roles > 1).any():
            got = f"group {shown(roles.index[roles > 1])} in several roles"
            yield Problem(f"predictions of {model}, fold {fold}, seed {seed}", got, "each group in one role of a fold", remedy)


def _repeated(table: pd.DataFrame) -> Iterator[Problem]:
    repeated = table[table.duplicated([*RUN, "image_id"])]
    for (model, seed, fold), rows in repeated.groupby(RUN):
        where = f"predictions of {model}, fold {fold}, seed {seed}"
        yield Problem(where, f"{shown(rows['image_id'])} more than once", "one row per image", "name each predictions.tsv once")


def _grid(table: pd.DataFrame) -> Iterator[Problem]:
    """Every model has all its seeds in every fold, and all models have the same folds (averages over folds stand for all)."""
    runs = table[RUN].drop_duplicates()
    folds = sorted(set(runs["fold"]) - {"all"})
    for model, rows in runs[runs["fold"] != "all"].groupby("model"):
        seeds, there = sorted(set(rows["seed"])), set(zip(rows["seed"], rows["fold"], strict=True))
        missing = [f"fold {fold}, seed {seed}" for seed in seeds for fold in folds if (seed, fold) not in there]
        if missing:
            expected = (
                f"folds {', '.join(folds)} with the seeds {', '.join(seeds)}, so that all models are compared on the same images"
            )
            yield Problem(f"predictions of {model}", f"none for {shown(missing)}", expected, "run the missing ones")


def _same_images(table: pd.DataFrame, layout: Layout, dataset: str, experiment: str, target: Target) -> Iterator[Problem]:
    """Every run has exactly the images that split and cohort give it, with their groups and targets."""
    roles = ["locked"] if experiment.endswith(LOCKED) else ["test", "validation"]
    numbers = sorted(set(table["fold"]) - {"all"}) or ["0"]
    tables = {fold: fold_table(layout, dataset, fold, target, roles).set_index("image_id") for fold in numbers}
    tables["all"] = tables[numbers[0]]
    for (model, seed, fold), rows in table.groupby(RUN):
        where, expected, rows = f"predictions of {model}, fold {fold}, seed {seed}", tables[fold], rows.set_index("image_id")
        absent, besides = expected.index.difference(rows.index), rows.index.difference(expected.index)
        if len(absent):
            yield Problem(where, f"no row for {shown(absent)}", f"all {len(expected)} images of {' and '.join(roles)}", AGAIN)
        if len(besides):
            yield Problem(where, f"rows for {shown(besides)}", "only images of this fold that have the target", AGAIN)
        both = expected.index.intersection(rows.index)
        for column in ("participant_id", "group", "role"):
            differ = both[(expected.loc[both, column] != rows.loc[both, column]).to_numpy()]
            if len(differ):
                yield Problem(where, f"another {column} for {shown(differ)}", "what cohort.tsv and splits.tsv say", AGAIN)
        differ = both[_other_targets(expected.loc[both, "target"], rows.loc[both, "target"], target.task)]
        if len(differ):
            yield Problem(where, f"another target for {shown(differ)}", f"the column {target.column} of cohort.tsv", AGAIN)


def _other_targets(expected: pd.Series, got: pd.Series, task: str) -> np.ndarray:
    if task == "regression":
        # a number may change in its last digit on its way through a table
        return ~np.isclose(
            pd.to_numeric(got, errors="coerce").to_numpy(np.float64), expected.to_numpy(np.float64), rtol=1e-12, atol=0
        )
    return expected.to_numpy() != np.array([class_text(value) for value in got], dtype=object)
