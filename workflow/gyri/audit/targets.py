"""Are the targets that the experiments need in the cohort, and do they make sense?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from gyri.audit.images import ImageReport
from gyri.config.datasets import NeededTarget
from gyri.errors import Problem, nearest, shown
from gyri.images import label_columns
from gyri.tables import class_text

NOT_TARGETS = ("image_id", "participant_id", "group", "session_id", "mask", "sha256_file", "sha256_voxels", "sha256_labels")


def check_targets(cohort: pd.DataFrame, targets: list[NeededTarget], reports: dict[str, ImageReport]) -> list[Problem]:
    """Check every needed target; images without a value get a warning, since only that experiment goes without them.

    Args:
        cohort: all images.
        targets: what the experiments need.
        reports: by image id; missing values are noted in them.

    Returns:
        Every problem that makes an experiment impossible.
    """
    usable = cohort[[reports[name].status != "exclude" for name in cohort["image_id"]]]
    problems = []
    for target in targets:
        where = f"experiments.{target.experiment}.target"
        if target.task == "segmentation":
            problems += _segmentation(cohort, target, reports, where)
            continue
        if target.column not in cohort.columns:
            known = [name for name in cohort.columns if name not in NOT_TARGETS and not name.startswith(("image_", "label"))]
            problems.append(
                Problem(
                    where, f"`{target.column}`, no column of the cohort", "a column of the cohort", nearest(target.column, known)
                )
            )
            continue
        _note_missing(target, cohort[cohort[target.column].map(class_text) == ""]["image_id"], reports)
        known_rows = usable[usable[target.column].map(class_text) != ""]
        check = _classification if target.task == "classification" else _regression
        problems += check(known_rows, target, where)
    return problems


def _segmentation(cohort: pd.DataFrame, target: NeededTarget, reports: dict[str, ImageReport], where: str) -> list[Problem]:
    labels = label_columns(cohort.columns)
    if target.column not in labels or not (cohort[target.column] != "").any():
        got = f"`{target.column}`, " + ("which no image has" if target.column in labels else "no label image of the data set")
        known = [name.removeprefix("label_") for name in labels if name != target.column]
        remedy = (
            nearest(target.column.removeprefix("label_"), known)
            if known
            else "name the label images in the data set, or change the task"
        )
        return [Problem(where, got, "a label image of the data set", remedy)]
    _note_missing(target, cohort.loc[cohort[target.column] == "", "image_id"], reports)
    return []


def _classification(rows: pd.DataFrame, target: NeededTarget, where: str) -> list[Problem]:
    values = rows[target.column].map(class_text)
    found = sorted(set(values))
    problems = []
    if target.classes is not None:
        strange = sorted(set(found) - set(target.classes))
        if strange:
            ids = rows.loc[values.isin(strange), "image_id"]
            got = f"the values {', '.join(strange)} in `{target.column}` ({shown(ids)})"
            add = f"add it to experiments.{target.experiment}.classes, or empty these cells"
            remedy = f"{nearest(strange[0], target.classes)} (or {add})"
            problems.append(Problem(where, got, f"one of the classes {', '.join(target.classes)}", remedy))
        absent = [name for name in target.classes if name not in found]
        if absent:
            key = f"experiments.{target.experiment}.classes"
            got = f"no image of class {', '.join(absent)}; `{target.column}` has {', '.join(found) or 'no value'}"
            problems.append(Problem(key, got, "images of every class", "remove the class, or correct its spelling"))
    elif len(found) < 2:
        got = f"only {', '.join(found) or 'missing values'} in `{target.column}`"
        problems.append(Problem(where, got, "at least two classes", "choose another target, or add images"))
    return problems


def _regression(rows: pd.DataFrame, target: NeededTarget, where: str) -> list[Problem]:
    numbers = pd.to_numeric(rows[target.column], errors="coerce")
    wrong = rows[~np.isfinite(numbers.to_numpy(float))]
    if len(wrong):
        examples = ", ".join(sorted({str(value) for value in wrong[target.column]})[:3])
        got = f"values such as {examples} in `{target.column}` ({shown(wrong['image_id'])})"
        return [Problem(where, got, "finite numbers", "write numbers, and n/a for what is missing")]
    if numbers.nunique() < 2:
        got = f"{'one value' if len(numbers) else 'missing values'} only in `{target.column}`"
        return [Problem(where, got, "values that differ", "choose another target")]
    return []


def _note_missing(target: NeededTarget, ids: Iterable[str], reports: dict[str, ImageReport]) -> None:
    for name in ids:
        reports[name].add("target", "warn", f"no {target.column}: left out of experiment {target.experiment}")
