"""The split: a partition by group, balanced, the same whatever the order of rows, and never with a group on two sides."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyri import split
from gyri.config.datasets import Split, SplitSettings
from gyri.errors import ConfigError, DataError, GyriError, LeakageError
from gyri.layout import Layout
from gyri.leakage import check_disjoint, check_splits
from gyri.split.allocate import allocate, features, strata
from gyri.split.balance import standardized_difference
from gyri.tables import read_table, write_table

LONG = ["group", "participant_id", "fold", "role"]


def cohort(groups: int = 40, seed: int = 0, prefix: str = "sub") -> pd.DataFrame:
    """A cohort with groups of one or two participants with one or two images each."""
    draw = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        site = "ABC"[draw.integers(3)]
        for member in range(draw.integers(1, 3)):
            person = f"{prefix}{group:03d}{'ab'[member]}"
            age, diagnosis = float(draw.normal(60, 10)), str(draw.choice(["ad", "cn"], p=[0.3, 0.7]))
            rows += [(f"{person}_{n}", person, f"g{person[:-1]}", site, age, diagnosis) for n in range(draw.integers(1, 3))]
    table = pd.DataFrame(rows, columns=["image_id", "participant_id", "group", "site", "age", "diagnosis"])
    return table.assign(session_id="", sha256_file="x", sha256_voxels="y")


def run_split(
    folder: Path, table: pd.DataFrame, excluded: Sequence[tuple[str, str]] = (), folds: int = 5, **chosen: object
) -> pd.DataFrame:
    """Run the stage and read splits.tsv."""
    layout = Layout(folder)
    write_table(layout.dataset("d", "cohort.tsv"), table, "cohort")
    gone = pd.DataFrame([(name, "because", severity) for name, severity in excluded], columns=["image_id", "reason", "severity"])
    write_table(layout.dataset("d", "excluded.tsv"), gone, "excluded")
    facts = split.run(SplitSettings(split=Split.model_validate(chosen), folds=folds), layout, "d")
    result = read_table(layout.dataset("d", "splits.tsv"), "splits")
    result.attrs["facts"] = facts
    result.attrs["balance"] = read_table(layout.dataset("d", "balance.tsv"))
    return result


@settings(max_examples=12, deadline=None)
@given(groups=st.integers(8, 60), folds=st.integers(2, 6), locked=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 5))
def test_partition_without_overlap_and_even_sizes(
    tmp_path_factory: pytest.TempPathFactory, groups: int, folds: int, locked: float, seed: int
) -> None:
    table = cohort(groups, seed)
    result = run_split(tmp_path_factory.mktemp("s"), table, folds=folds, locked=locked, stratify=["diagnosis", "age"], seed=seed)
    check_splits(result)
    unlocked = result[result["fold"] != "locked"]
    people = set(table["participant_id"])
    assert set(result["participant_id"]) == people
    tests = unlocked[unlocked["role"] == "test"]
    assert sorted(tests["participant_id"]) == sorted(set(unlocked["participant_id"]))  # each exactly once
    sizes = tests.groupby("fold")["group"].nunique()
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1
    for _, rows in unlocked.groupby("fold"):
        assert set(rows["role"]) == {"train", "validation", "test"}
        assert set(rows["participant_id"]) == set(unlocked["participant_id"])
    assert (result["role"] == "locked").any() == (locked > 0)


def test_does_not_depend_on_row_order_nor_on_a_common_prefix(tmp_path: Path) -> None:
    table = cohort(30)
    options = {"stratify": ["diagnosis", "site"], "locked": 0.1}
    first = run_split(tmp_path / "a", table, **options)
    shuffled = run_split(tmp_path / "b", table.sample(frac=1, random_state=1), **options)
    pd.testing.assert_frame_equal(first, shuffled)
    renamed = run_split(tmp_path / "c", cohort(30, prefix="zzz"), **options)
    assert list(renamed["role"]) == list(first["role"])
    assert (tmp_path / "a/datasets/d/splits.tsv").read_bytes() == (tmp_path / "b/datasets/d/splits.tsv").read_bytes()
    other = run_split(tmp_path / "e", table, seed=1, **options)
    assert not other.equals(first)


def imbalance(table: pd.DataFrame, part: np.ndarray, folds: int) -> float:
    """Summed squared distance of each fold's group counts per diagnosis and age bin from even ones."""
    labels = strata(table, ["diagnosis", "age", "site"], 4)
    total = 0.0
    for column in labels:
        counts = pd.crosstab(part, labels[column].to_numpy())
        total += float(((counts - counts.sum() / folds) ** 2).to_numpy().sum())
    return total


def test_stratifies_better_than_chance_and_than_scikit_learn() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    ours, chance, theirs = [], [], []
    for seed in range(4):
        table = cohort(45, seed)
        labels = strata(table, ["diagnosis", "age", "site"], 4)
        count = len(labels)
        sizes = [count // 5] * 5
        per_group = table.groupby("group")["image_id"].size()
        part = allocate(features(labels, per_group), sizes, np.random.default_rng(seed))
        assert np.bincount(part).tolist() == sizes
        ours.append(imbalance(table, part, 5))
        chance.append(imbalance(table, np.random.default_rng(seed).permutation(count) % 5, 5))
        joint = labels[["diagnosis", "site"]].agg("|".join, axis=1)  # of all three columns it finds too few members
        oracle = np.zeros(count, int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of classes with few members
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(joint, joint, labels.index)
            for fold, (_, test) in enumerate(folds):
                oracle[test] = fold
        theirs.append(imbalance(table, oracle, 5))
    assert np.mean(ours) < 0.35 * np.mean(chance)
    assert np.mean(ours) < np.mean(theirs)


def test_strata_of_a_group_are_those_of_its_members() -> None:
    table = pd.DataFrame({"group": list("aaabbc"), "sex": ["F", "F", "M", "M", "M", None], "age": [10.0, 20, 30, 11, 13, np.nan]})
    table = pd.concat([table, pd.DataFrame({"group": [f"x{n}" for n in range(12)], "sex": "F", "age": np.arange(12) + 40.5})])
    found = strata(table, ["sex", "age"], 2)
    assert found["sex"].loc[["a", "b", "c"]].tolist() == ["F", "M", "n/a"]
    assert found["age"].loc[["a", "b", "c", "x11"]].tolist() == ["bin 0", "bin 0", "n/a", "bin 1"]


def test_excluded_images_leave_and_warned_ones_stay(tmp_path: Path) -> None:
    table = cohort(20)
    person = table["participant_id"].iloc[0]
    gone = table.loc[table["participant_id"] == person, "image_id"]
    other = table["participant_id"].iloc[-1]
    excluded = [*((name, "exclude") for name in gone), (table["image_id"].iloc[-1], "warn")]
    result = run_split(tmp_path, table, excluded)
    assert person not in set(result["participant_id"])
    assert other in set(result["participant_id"])


def test_leave_one_site_out(tmp_path: Path) -> None:
    table = cohort(30)
    result = run_split(tmp_path, table, folds=3, leave_one_site_out=True, locked=0.2)
    site = table.drop_duplicates("participant_id").set_index("participant_id")["site"]
    for fold, rows in result[result["role"] == "test"].groupby("fold"):
        assert set(rows["participant_id"].map(site)) == {"ABC"[int(fold)]}
    with pytest.raises(ConfigError, match="folds: 3"):
        run_split(tmp_path, table, folds=4, leave_one_site_out=True)
    mixed = table.assign(site=["A", "B"] * (len(table) // 2) + ["A"] * (len(table) % 2))
    with pytest.raises(ConfigError, match="several sites"):
        run_split(tmp_path, mixed, folds=2, leave_one_site_out=True)
    with pytest.raises(ConfigError, match="no site for"):
        run_split(tmp_path, table.assign(site=""), folds=2, leave_one_site_out=True)


def test_refuses_what_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most the 8 groups"):
        run_split(tmp_path, cohort(8), folds=9)
    with pytest.raises(ConfigError, match="did you mean `diagnosis`"):
        run_split(tmp_path, cohort(), stratify=["diagnosys"])
    with pytest.raises(ConfigError, match="to train and one to validate"):
        run_split(tmp_path, cohort(2), folds=2)
    torn = cohort().assign(group=lambda rows: rows["image_id"])
    with pytest.raises(DataError, match="in several groups"):
        run_split(tmp_path, torn)


def test_rare_class_is_told(tmp_path: Path) -> None:
    table = cohort(30)
    table.loc[table["group"] == table["group"].iloc[0], "diagnosis"] = "rare"
    result = run_split(tmp_path, table, stratify=["diagnosis"])
    assert "rare (1)" in result.attrs["facts"]["warnings"][0]
    notes = result.attrs["balance"].query("column == 'diagnosis'")["note"]
    assert notes.str.contains("rare").all()


def predefined(folder: Path, table: pd.DataFrame) -> tuple[Path, pd.DataFrame]:
    """A correct predefined split of a cohort, as a file and as a table."""
    made = run_split(folder, table, folds=3, locked=0.1)
    path = folder / "mine.tsv"
    write_table(path, made[["participant_id", "fold", "role"]])
    return path, made


def test_predefined_split_is_taken_as_it_is(tmp_path: Path) -> None:
    table = cohort(20)
    path, made = predefined(tmp_path, table)
    again = run_split(tmp_path / "again", table, folds=3, file=str(path))
    pd.testing.assert_frame_equal(made, again)
    only_tests = made[made["role"].isin(["test", "locked"])]
    write_table(path, only_tests[["participant_id", "fold", "role"]])
    completed = run_split(tmp_path / "tests", table, folds=3, file=str(path))
    kept = completed[completed["role"].isin(["test", "locked"])]
    pd.testing.assert_frame_equal(kept[LONG].reset_index(drop=True), only_tests[LONG].reset_index(drop=True))
    assert {"train", "validation"} <= set(completed["role"])


def _drop_column(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.rename(columns={"role": "rolle"})


def _stranger(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, pd.DataFrame([("nobody", "0", "train")], columns=rows.columns)])


def _forget(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["participant_id"] != rows["participant_id"].iloc[0]]


def _wrong_role(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.replace({"role": {"validation": "valid"}})


def _fold_names(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.replace({"fold": {"0": "7"}})


def _never_tested(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.replace({"role": {"test": "validation"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_column, "rename `rolle` to `role`"),
        (_stranger, "unknown participants nobody"),
        (_forget, "no row for"),
        (_wrong_role, "did you mean `validation`"),
        (_fold_names, "the folds 1, 2, 7"),
        (_never_tested, "never tested"),
    ],
)
def test_predefined_split_that_does_not_fit(tmp_path: Path, change: object, message: str) -> None:
    table = cohort(20)
    path, made = predefined(tmp_path, table)
    write_table(path, change(made[["participant_id", "fold", "role"]]))  # type: ignore[operator]
    with pytest.raises(GyriError, match=message) as caught:
        run_split(tmp_path, table, folds=3, file=str(path))
    for problem in caught.value.problems:
        assert problem.where and problem.got and problem.expected and problem.remedy


def test_missing_predefined_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run_split(tmp_path, cohort(), file=str(tmp_path / "none.tsv"))


def test_a_group_forced_onto_two_sides_is_refused(tmp_path: Path) -> None:
    table = cohort(20)
    path, made = predefined(tmp_path, table)
    twins = made[made["fold"] == "0"].groupby("group")["participant_id"].nunique()
    group = twins.index[twins > 1][0]
    row = made[(made["group"] == group) & (made["fold"] == "0")].index[0]
    forced = made.copy()
    forced.loc[row, "role"] = "test" if made.loc[row, "role"] != "test" else "train"
    with pytest.raises(LeakageError, match=f"group {group} in"):
        check_splits(forced)
    write_table(path, forced[["participant_id", "fold", "role"]])
    with pytest.raises(LeakageError, match=f"group {group} in"):
        run_split(tmp_path, table, folds=3, file=str(path))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("g1", "p1", "0", "test"), "participant p1 in test and train"),
        (("g1", "p9", "0", "validation"), "group g1 in train and validation"),
        (("g2", "p2", "locked", "locked"), "locked group g2 inside a fold"),
        (("g9", "p1", "1", "train"), "p1 in several groups"),
        (("g9", "p9", "0", "locked"), "a locked role inside a fold"),
        (("g9", "p9", "0", "training"), "the role `training`"),
        (("g1", "p1", "0", "train"), "several rows for p1"),
    ],
)
def test_every_leak_is_refused(extra: tuple[str, ...], message: str) -> None:
    rows = [("g1", "p1", "0", "train"), ("g2", "p2", "0", "test"), ("g3", "p3", "locked", "locked")]
    check_splits(pd.DataFrame(rows, columns=LONG))
    with pytest.raises(LeakageError, match=message):
        check_splits(pd.DataFrame([*rows, extra], columns=LONG))


def test_check_disjoint() -> None:
    check_disjoint(["a", "b"], ["c"], "here")
    with pytest.raises(LeakageError, match="b on both sides"):
        check_disjoint(["a", "b"], ["b"], "here")


def test_balance_table_agrees_with_pandas(tmp_path: Path) -> None:
    table = cohort(40)
    result = run_split(tmp_path, table, stratify=["diagnosis"], locked=0.1)
    balance = result.attrs["balance"].set_index(["fold", "role", "column", "value"]).sort_index()
    people = set(result.query("fold == '2' and role == 'train'")["participant_id"])
    inside = table[table["participant_id"].isin(people)]
    unlocked = set(result.query("fold == '2'")["participant_id"])
    outside = table[table["participant_id"].isin(unlocked - people)]
    row = balance.loc[("2", "train", "age")].iloc[0]
    assert (row["n"], row["mean"], row["sd"]) == pytest.approx((len(inside), inside["age"].mean(), inside["age"].std()))
    pooled = np.sqrt((inside["age"].var() + outside["age"].var()) / 2)
    assert row["smd"] == pytest.approx((inside["age"].mean() - outside["age"].mean()) / pooled)
    counts = balance.loc[("2", "train", "diagnosis"), "n"]
    assert counts.to_dict() == inside["diagnosis"].value_counts().to_dict()
    assert balance.loc[("2", "train", "groups"), "n"].iloc[0] == inside["group"].nunique()
    assert standardized_difference((1.0, 0.0), (1.0, 0.0)) == 0
    assert np.isnan(standardized_difference((1.0, 0.0), (2.0, 0.0)))
