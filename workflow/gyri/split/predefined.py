"""A split that the user brings: read, checked against the cohort and against leakage."""

from __future__ import annotations

import difflib
from pathlib import Path

import pandas as pd

from gyri.errors import DataError, Problem, shown
from gyri.leakage import ROLES, check_splits
from gyri.tables import read_table

NEEDED = ["participant_id", "fold", "role"]


def read_predefined(path: Path, groups: pd.Series, excluded: set[str], folds: int, where: str) -> pd.DataFrame:
    """Read a predefined split and check it.

    Args:
        path: TSV with participant_id, fold (0, 1, ... or `locked`), role. Where it names test and locked participants
            only, everybody else of a fold is still to be divided into train and validation (role "").
        groups: group of each participant of the cohort, indexed by participant_id.
        excluded: participants of the cohort that the audit excluded; their rows are passed over.
        folds: number of folds.
        where: configuration key, for the messages.

    Returns:
        Columns group, participant_id, fold, role.

    Raises:
        DataError: columns, participants, folds or roles that do not fit, all of them.
        LeakageError: a participant or group on two sides of a fold.
    """
    table = _read(path, where)
    problems = [*_unknown(table, groups, excluded, path), *_wrong_labels(table, folds, path)]
    if problems:
        raise DataError(problems)
    table = table[table["participant_id"].isin(groups.index)].copy()
    table["group"] = table["participant_id"].map(groups)
    table = table[["group", *NEEDED]]
    check_splits(table, str(path))
    partial = not set(table["role"]) & {"train", "validation"}
    problems = _not_tested_once(table, groups, path)
    problems += [] if partial else _incomplete(table, groups, folds, path)
    if problems:
        raise DataError(problems)
    return _with_open_roles(table, groups, folds) if partial else table


def _read(path: Path, where: str) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(Problem(where, f"{path}, which does not exist", "a table with " + ", ".join(NEEDED), "correct the path"))
    table = read_table(path)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        near = [difflib.get_close_matches(name, list(table.columns), n=1, cutoff=0.5) for name in missing]
        hint = ", ".join(f"rename `{found[0]}` to `{name}`" for name, found in zip(missing, near, strict=True) if found)
        got = f"no column {', '.join(missing)}"
        raise DataError(Problem(str(path), got, f"the columns {', '.join(NEEDED)}", hint or "add the columns"))
    return table[NEEDED].astype(str)


def _unknown(table: pd.DataFrame, groups: pd.Series, excluded: set[str], path: Path) -> list[Problem]:
    problems = []
    known = set(groups.index)
    strangers = sorted(set(table["participant_id"]) - known - excluded)
    if strangers:
        near = difflib.get_close_matches(strangers[0], sorted(known), n=1, cutoff=0.5)
        remedy = "remove them, or correct participant_id" + (f" (did you mean `{near[0]}`?)" if near else "")
        problems.append(Problem(str(path), f"unknown participants {shown(strangers)}", "participants of the cohort", remedy))
    absent = sorted(known - set(table["participant_id"]))
    only_tests = set(table["role"]) <= {"test", "locked"}
    if absent:
        expected = "every participant tested in one fold or locked" if only_tests else "every participant of the cohort"
        problems.append(Problem(str(path), f"no row for {shown(absent)}", expected, "add their rows"))
    return problems


def _wrong_labels(table: pd.DataFrame, folds: int, path: Path) -> list[Problem]:
    problems = []
    wanted = [str(fold) for fold in range(folds)]
    found = set(table["fold"]) - {"locked"}
    if found != set(wanted):
        expected = f"the folds {', '.join(wanted)} (and locked), since `folds` is {folds}"
        remedy = "set `folds` to the number of folds in the file; an official test set belongs into fold and role `locked`"
        problems.append(Problem(str(path), f"the folds {', '.join(sorted(found)) or '(none)'}", expected, remedy))
    roles = sorted(set(table["role"]) - set(ROLES))
    if roles:
        near = difflib.get_close_matches(roles[0], ROLES, n=1, cutoff=0.3)
        remedy = f"did you mean `{near[0]}`?" if near else "correct the role column"
        problems.append(Problem(str(path), f"the roles {', '.join(roles)}", f"one of {', '.join(ROLES)}", remedy))
    return problems


def _not_tested_once(table: pd.DataFrame, groups: pd.Series, path: Path) -> list[Problem]:
    tested = table[table["role"] == "test"]["participant_id"].value_counts()
    locked = set(table.loc[table["role"] == "locked", "participant_id"])
    expected = "every participant that is not locked tested in exactly one fold"
    problems = []
    often = sorted(tested.index[tested > 1])
    if often:
        problems.append(Problem(str(path), f"{shown(often)} tested in several folds", expected, "test each in one fold"))
    never = sorted(set(groups.index) - set(tested.index) - locked)
    if never:
        remedy = "give each a test fold, or lock it (an official test set is fold and role `locked`)"
        problems.append(Problem(str(path), f"{shown(never)} never tested", expected, remedy))
    return problems


def _incomplete(table: pd.DataFrame, groups: pd.Series, folds: int, path: Path) -> list[Problem]:
    problems = []
    locked = set(table.loc[table["role"] == "locked", "participant_id"])
    for fold in map(str, range(folds)):
        rows = table[table["fold"] == fold]
        absent = sorted(set(groups.index) - locked - set(rows["participant_id"]))
        if absent:
            got = f"no row for {shown(absent)}"
            problems.append(Problem(f"{path}: fold {fold}", got, "every participant in every fold", "add their rows"))
        empty = sorted({"train", "validation", "test"} - set(rows["role"]))
        if empty:
            remedy = "add such rows, or list test and locked rows only: then training and validation are drawn"
            problems.append(Problem(f"{path}: fold {fold}", f"nobody with role {', '.join(empty)}", "all three roles", remedy))
    return problems


def _with_open_roles(table: pd.DataFrame, groups: pd.Series, folds: int) -> pd.DataFrame:
    """Add a row with role "" for whoever a fold does not test."""
    locked = set(table.loc[table["role"] == "locked", "participant_id"])
    parts = [table]
    for fold in map(str, range(folds)):
        tested = table[(table["fold"] == fold) & (table["role"] == "test")]
        rest = [name for name in groups.index if name not in locked and groups[name] not in set(tested["group"])]
        parts.append(pd.DataFrame({"group": [groups[name] for name in rest], "participant_id": rest, "fold": fold, "role": ""}))
    return pd.concat(parts, ignore_index=True)
