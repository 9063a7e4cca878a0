"""Split a dataset into folds: by group, stratified, with validation carved from training and an optional locked set."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.config.datasets import SplitSettings
from gyri.errors import ConfigError, DataError, Problem, shown
from gyri.layout import Layout
from gyri.leakage import check_splits
from gyri.progress import log
from gyri.seeds import generator
from gyri.split.allocate import allocate, features, strata
from gyri.split.balance import balance_table
from gyri.split.predefined import read_predefined
from gyri.tables import read_table, write_table

Assignment = dict[str, str]  # group -> fold ("0", ... or "locked")


def run(settings: SplitSettings, layout: Layout, dataset: str) -> dict[str, Any]:
    """Write splits.tsv and balance.tsv of a dataset.

    Args:
        settings: the split's settings and the number of folds.
        layout: where files lie.
        dataset: its name.

    Returns:
        Facts: counts of groups, participants and images, sizes of the test folds, warnings.

    Raises:
        ConfigError: folds or columns that the cohort cannot give.
        DataError, LeakageError: a predefined split that does not fit or leaks, a participant in two groups.
    """
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort")
    excluded = read_table(layout.dataset(dataset, "excluded.tsv"), "excluded")
    gone = set(excluded.loc[excluded["severity"] == "exclude", "image_id"])
    images = cohort[~cohort["image_id"].isin(gone)].sort_values("image_id", ignore_index=True)
    groups = _groups(images, dataset)
    missing = set(cohort["participant_id"]) - set(groups.index)
    splits, warnings = make_splits(images, groups, missing, settings, f"datasets.{dataset}")
    splits = splits.sort_values(["fold", "role", "group", "participant_id"], ignore_index=True)
    check_splits(splits, str(layout.dataset(dataset, "splits.tsv")))
    for column, text in warnings.items():
        log(f"split {dataset}: {column}: {text}")
    write_table(layout.dataset(dataset, "splits.tsv"), splits, "splits")
    write_table(layout.dataset(dataset, "balance.tsv"), balance_table(images, splits, warnings))
    tests = splits[splits["role"] == "test"].groupby("fold")["group"].nunique()
    return {
        "groups": int(groups.nunique()),
        "participants": len(groups),
        "images": len(images),
        "excluded_images": len(cohort) - len(images),
        "locked_groups": int(splits.loc[splits["role"] == "locked", "group"].nunique()),
        "test_groups": {str(fold): int(count) for fold, count in tests.items()},
        "warnings": [f"{column}: {text}" for column, text in warnings.items()],
    }


def make_splits(
    images: pd.DataFrame, groups: pd.Series, excluded: set[str], settings: SplitSettings, key: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Give every participant its role in every fold.

    Args:
        images: the cohort without excluded images.
        groups: group of each participant, indexed by participant_id.
        excluded: participants of whom no image is left.
        settings: the split's settings and the number of folds.
        key: configuration key of the dataset, for the messages.

    Returns:
        Columns group, participant_id, fold, role; and column -> warning.
    """
    split = settings.split
    _check_columns(images, split.stratify, split.leave_one_site_out, key)
    by_site = ["site"] if split.leave_one_site_out else []  # the locked set and validation then keep every site
    columns = list(dict.fromkeys([*split.stratify, *by_site]))
    group_strata = strata(images, columns, split.bins)
    per_group = images.groupby("group")["image_id"].size().reindex(group_strata.index)
    if split.file:
        given = read_predefined(Path(split.file), groups, excluded, settings.folds, f"{key}.split.file")
        if "" not in set(given["role"]):
            return given, {}
        tests = given[given["role"].isin(["test", "locked"])]
        folds = dict(zip(tests["group"], tests["fold"], strict=True))
    else:
        locked = _lock(group_strata, per_group, settings)
        if split.leave_one_site_out:
            folds = _by_site(images, locked, settings.folds, key)
        else:
            folds = _by_strata(group_strata.drop(index=locked), per_group, settings, key)
        folds |= dict.fromkeys(locked, "locked")
    roles = {str(fold): _roles(str(fold), folds, group_strata, per_group, settings, key) for fold in range(settings.folds)}
    rows = [
        (groups[name], name, fold, roles[fold][groups[name]])
        for fold in roles
        for name in groups.index
        if folds[groups[name]] != "locked"
    ]
    rows += [(groups[name], name, "locked", "locked") for name in groups.index if folds[groups[name]] == "locked"]
    table = pd.DataFrame(rows, columns=["group", "participant_id", "fold", "role"])
    return table, _rare(group_strata[split.stratify], settings.folds)


def _groups(images: pd.DataFrame, dataset: str) -> pd.Series:
    """The group of each participant, sorted by participant."""
    pairs = images[["participant_id", "group"]].drop_duplicates().sort_values("participant_id")
    doubled = sorted(set(pairs.loc[pairs["participant_id"].duplicated(), "participant_id"]))
    if doubled:
        got = f"images of {shown(doubled)} in several groups"
        remedy = f"correct datasets.{dataset}.group, so that a group covers whole participants"
        raise DataError(Problem(f"datasets.{dataset}.group", got, "one group per participant", remedy))
    return pairs.set_index("participant_id")["group"]


def _check_columns(images: pd.DataFrame, stratify: list[str], by_site: bool, key: str) -> None:
    problems = []
    for name in stratify:
        if name not in images.columns:
            near = difflib.get_close_matches(name, [str(column) for column in images.columns], n=1, cutoff=0.5)
            remedy = f"did you mean `{near[0]}`?" if near else f"take one of {', '.join(images.columns)}"
            problems.append(Problem(f"{key}.split.stratify", f"`{name}`", "a column of cohort.tsv", remedy))
    if by_site:
        unknown = sorted(images.loc[images["site"] == "", "image_id"])
        if unknown:
            remedy = f"name the column with `{key}.site`, or fill it in"
            problems.append(
                Problem(f"{key}.split.leave_one_site_out", f"no site for {shown(unknown)}", "a site for every image", remedy)
            )
        sites = images.groupby("group")["site"].nunique()
        mixed = sorted(sites.index[sites > 1])
        if mixed:
            remedy = "leave them out, or split by strata with `stratify: [site]`"
            problems.append(
                Problem(f"{key}.split.leave_one_site_out", f"groups at several sites: {shown(mixed)}", "one site per group", remedy)
            )
    if problems:
        raise ConfigError(problems)


def _lock(group_strata: pd.DataFrame, per_group: pd.Series, settings: SplitSettings) -> list[str]:
    """Groups that are locked away from every fold."""
    if not settings.split.locked:
        return []
    count = len(group_strata)
    size = max(1, round(settings.split.locked * count))
    part = allocate(features(group_strata, per_group), [size, count - size], generator("split", settings.split.seed, "locked"))
    return [str(name) for name in group_strata.index[part == 0]]


def _by_strata(group_strata: pd.DataFrame, per_group: pd.Series, settings: SplitSettings, key: str) -> Assignment:
    """The fold in which each group is tested; sizes differ by one group at most."""
    count, folds = len(group_strata), settings.folds
    if folds > count:
        raise ConfigError(
            Problem(
                f"{key}.folds", str(folds), f"at most the {count} groups that are not locked", "lower `folds` or `split.locked`"
            )
        )
    sizes = [count // folds + (fold < count % folds) for fold in range(folds)]
    table = features(group_strata, per_group.reindex(group_strata.index))
    part = allocate(table, sizes, generator("split", settings.split.seed, "folds"))
    return {str(name): str(fold) for name, fold in zip(group_strata.index, part, strict=True)}


def _by_site(images: pd.DataFrame, locked: list[str], folds: int, key: str) -> Assignment:
    """Each site, in sorted order, is one fold."""
    open_images = images[~images["group"].isin(locked)]
    sites = sorted(set(open_images["site"]))
    if len(sites) != folds:
        got = f"{folds}, with {len(sites)} sites: {shown(sites)}"
        raise ConfigError(
            Problem(f"{key}.folds", got, "the number of sites, since leave_one_site_out is on", f"set `folds: {len(sites)}`")
        )
    return {str(group): str(sites.index(site)) for group, site in zip(open_images["group"], open_images["site"], strict=True)}


def _roles(
    fold: str, folds: Assignment, group_strata: pd.DataFrame, per_group: pd.Series, settings: SplitSettings, key: str
) -> dict[str, str]:
    """The role of each unlocked group in one fold; validation is a stratified share of what is not tested."""
    rest = [name for name in group_strata.index if folds[name] not in (fold, "locked")]
    if len(rest) < 2:
        got = f"{len(rest)} group(s) outside the test part of fold {fold}"
        raise ConfigError(
            Problem(f"{key}.folds", got, "at least one group to train and one to validate", "add data, or lower `split.locked`")
        )
    size = min(max(1, round(settings.split.validation * len(rest))), len(rest) - 1)
    table = features(group_strata.loc[rest], per_group.loc[rest])
    draw = generator("split", settings.split.seed, "validation", int(fold))
    part = allocate(table, [size, len(rest) - size], draw)
    roles = {name: "test" for name in group_strata.index if folds[name] == fold}
    return roles | {name: "validation" if side == 0 else "train" for name, side in zip(rest, part, strict=True)}


def _rare(group_strata: pd.DataFrame, folds: int) -> dict[str, str]:
    """Strata with fewer groups than folds: some folds must go without."""
    warnings = {}
    for column in group_strata:
        counts = group_strata[column].value_counts().sort_index()
        rare = [f"{value} ({count})" for value, count in counts.items() if count < folds]
        if rare:
            warnings[str(column)] = f"fewer groups than the {folds} folds have {shown(rare)}; some folds test none of them"
    return warnings
