"""What is fitted on the validation images of a fold, for the test images of that fold: thresholds, corrections, post-processing.

Each line of fitted.tsv names the set it was fitted on by a hash; nothing of a test image can change it. Locked participants are
measured with what was fitted before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.config.experiments import Evaluation
from gyri.errors import DataError, Problem
from gyri.io import sha256_text
from gyri.metrics import postprocessing
from gyri.metrics.classification import Classified
from gyri.metrics.operating_points import POINTS, threshold
from gyri.metrics.regression import fit_correction
from gyri.tables import read_table

Array = NDArray[np.float64]

COLUMNS = ["model", "fold", "seed", "what", "structure", "value", "choice", "n", "fitted_on"]
OFFSET, SLOPE, POSTPROCESSING = "correction offset", "correction slope", "post-processing"
RUN = ["model", "fold", "seed"]


def threshold_name(point: str) -> str:
    """How the threshold of an operating point is called in fitted.tsv."""
    return f"threshold for {point}"


def fit_thresholds(table: pd.DataFrame, cases: Classified, names: list[str], evaluation: Evaluation) -> pd.DataFrame:
    """Choose the thresholds of both operating points, for each class that is held against the rest.

    Args:
        table: predictions.
        cases: the same rows.
        names: classes in order.
        evaluation: what is wanted.

    Returns:
        fitted.tsv.
    """
    wanted = {"specificity": evaluation.specificity, "sensitivity": evaluation.sensitivity}
    lines = []
    for run, places, mark in _runs(table):
        for index in cases.positives:
            truth, score = cases.truth[places] == index, cases.probabilities[places, index]
            for point in POINTS:
                value = threshold(truth, score, point, wanted[point])
                structure = names[index] if cases.classes > 2 else ""
                lines.append([*run, threshold_name(point), structure, value, "", len(places), mark])
    return pd.DataFrame(lines, columns=COLUMNS)


def fit_corrections(table: pd.DataFrame) -> pd.DataFrame:
    """Fit the bias correction of a regression.

    Args:
        table: predictions with numbers.

    Returns:
        fitted.tsv.
    """
    lines = []
    for run, places, mark in _runs(table):
        truth, value = (table[column].to_numpy(np.float64)[places] for column in ("target", "prediction"))
        for what, number in zip((OFFSET, SLOPE), fit_correction(truth, value), strict=True):
            lines.append([*run, what, "", number, "", len(places), mark])
    return pd.DataFrame(lines, columns=COLUMNS)


def choose_postprocessing(table: pd.DataFrame, tried: dict[tuple[str, str], Array], structures: list[str]) -> pd.DataFrame:
    """Choose the post-processing of each structure: the highest mean Dice on validation, the earlier kind on a tie.

    Args:
        table: predictions.
        tried: (kind, structure) -> Dice per row, kinds in order.
        structures: their names.

    Returns:
        fitted.tsv; `value` is what is gained over none.
    """
    kinds = list(dict.fromkeys(kind for kind, _ in tried))
    lines = []
    for run, places, mark in _runs(table):
        for structure in structures:
            means = {kind: float(tried[kind, structure][places].mean()) for kind in kinds}
            best, none = postprocessing.NONE, means[postprocessing.NONE]
            for kind in kinds:
                if means[kind] > means[best] + 1e-12:
                    best = kind
            lines.append([*run, POSTPROCESSING, structure, means[best] - none, best, len(places), mark])
    return pd.DataFrame(lines, columns=COLUMNS)


def per_row(fitted: pd.DataFrame, table: pd.DataFrame, what: str, structure: str) -> pd.DataFrame:
    """What was fitted for the run that each row of the predictions belongs to.

    Args:
        fitted: fitted.tsv.
        table: predictions.
        what: for example `threshold for specificity`.
        structure: structure or class.

    Returns:
        (rows,) with the columns `value` (NaN) and `choice` (""), in parentheses where nothing was fitted.
    """
    chosen = fitted[(fitted["what"] == what) & (fitted["structure"] == structure)].set_index(RUN)[["value", "choice"]]
    found = chosen.reindex(pd.MultiIndex.from_frame(table[RUN]))
    return found.assign(choice=found["choice"].fillna("")).reset_index(drop=True)


def read_fitted(path: Path) -> pd.DataFrame:
    """Read fitted.tsv.

    Raises:
        DataError: it is not there or not whole.
    """
    remedy = "evaluate the test images first (`snakemake` does it for you)"
    if not path.is_file():
        raise DataError(Problem(str(path), "no such file", "what was fitted on validation", remedy))
    table = read_table(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(Problem(str(path), f"no column {', '.join(missing)}", "what was fitted on validation", remedy))
    return table.assign(choice=table["choice"].astype(object).fillna("").astype(str), value=table["value"].astype(np.float64))


def _runs(table: pd.DataFrame) -> Iterator[tuple[list[str], NDArray[np.int64], str]]:
    """Every model, fold and seed with the places of its validation rows and a hash of their images."""
    rows = table[table["role"] == "validation"]
    for run, part in rows.groupby(RUN, sort=True):
        images = sorted(set(part["image_id"]))
        yield [str(name) for name in run], part.index.to_numpy(), sha256_text(*images)[:16]
