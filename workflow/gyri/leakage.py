"""The guard of every split: no group on two sides, checked again wherever a split is used."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from gyri.errors import LeakageError, Problem, shown

ROLES = ("train", "validation", "test", "locked")


def check_splits(splits: pd.DataFrame, where: str = "splits.tsv") -> None:
    """Refuse a split in which a group or a participant is on two sides.

    Args:
        splits: long form with the text columns group, participant_id, fold, role; one row per participant and fold,
            locked participants with fold and role `locked` only.
        where: name of the table, for the messages.

    Raises:
        LeakageError: with every problem found.
    """
    table = splits[["group", "participant_id", "fold", "role"]].astype(str)
    problems = [*_wrong_roles(table, where), *_participants_in_two_groups(table, where)]
    for column, noun in (("group", "group"), ("participant_id", "participant")):
        problems += _two_sides(table, column, noun, where)
        problems += _locked_in_fold(table, column, noun, where)
    problems += _repeated(table, where)
    if problems:
        raise LeakageError(problems)


def check_disjoint(first: Iterable[str], second: Iterable[str], where: str) -> None:
    """Refuse two sets of groups that share a member.

    Args:
        first, second: groups, for example those a model was fitted on and those it is tested on.
        where: what is compared, for the message.

    Raises:
        LeakageError: with the shared groups.
    """
    shared = sorted(set(first) & set(second))
    if shared:
        raise LeakageError(Problem(where, f"{shown(shared)} on both sides", "no group on two sides", "make the split anew"))


def _wrong_roles(table: pd.DataFrame, where: str) -> list[Problem]:
    wrong = sorted(set(table["role"]) - set(ROLES))
    remedy = "correct the role column"
    problems = [Problem(where, f"the role `{role}`", f"one of {', '.join(ROLES)}", remedy) for role in wrong]
    mixed = table[(table["role"] == "locked") != (table["fold"] == "locked")]
    if len(mixed):
        got = f"a locked role inside a fold, or the reverse, for {shown(sorted(set(mixed['participant_id'])))}"
        problems.append(Problem(where, got, "role `locked` in fold `locked` and nowhere else", remedy))
    return problems


def _participants_in_two_groups(table: pd.DataFrame, where: str) -> list[Problem]:
    counts = table.groupby("participant_id")["group"].nunique()
    wrong = list(counts.index[counts > 1])
    if not wrong:
        return []
    return [
        Problem(
            where, f"{shown(wrong)} in several groups", "one group per participant", "make the group cover all images of a person"
        )
    ]


def _two_sides(table: pd.DataFrame, column: str, noun: str, where: str) -> list[Problem]:
    problems = []
    for fold, rows in table[table["fold"] != "locked"].groupby("fold"):
        counts = rows.groupby(column)["role"].nunique()
        wrong = rows[rows[column].isin(counts.index[counts > 1])]
        if len(wrong):
            got = shown(f"{noun} {name} in {' and '.join(sorted(set(sides)))}" for name, sides in wrong.groupby(column)["role"])
            remedy = f"give all rows of a {noun} the same role in a fold"
            problems.append(Problem(f"{where}: fold {fold}", got, f"each {noun} in one role", remedy))
    return problems


def _locked_in_fold(table: pd.DataFrame, column: str, noun: str, where: str) -> list[Problem]:
    locked = set(table.loc[table["fold"] == "locked", column])
    wrong = sorted(locked & set(table.loc[table["fold"] != "locked", column]))
    if not wrong:
        return []
    remedy = f"lock all rows of the {noun} or none"
    return [Problem(where, f"locked {noun} {shown(wrong)} inside a fold", f"a locked {noun} outside every fold", remedy)]


def _repeated(table: pd.DataFrame, where: str) -> list[Problem]:
    doubled = table[table.duplicated(["participant_id", "fold"])]
    if not len(doubled):
        return []
    got = f"several rows for {shown(sorted(set(doubled['participant_id'])))}"
    return [Problem(where, got, "one row per participant and fold", "remove the repeated rows")]
