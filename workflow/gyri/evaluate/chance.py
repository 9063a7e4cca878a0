"""What chance reaches: labels of whole groups exchanged inside fold and site, predictions left as they are.

Chance is the mean of that null, not a number from a textbook: it depends on the shares of the classes, on the sites, and on what the
metric does with ties and constants. For the calibration error the null is a perfectly calibrated model with these probabilities. And,
the other way round, whether the predictions tell the site: a classifier of the site, fitted on the predictions of the other folds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.comparison import holm, permutation_p, permutations
from gyri.config.experiments import EvaluateSettings
from gyri.evaluate.measures import OF_CLASSES
from gyri.evaluate.permuted import classified_under, regressed_under
from gyri.metrics import regression
from gyri.metrics.calibration import expected_calibration_error
from gyri.metrics.classification import Classified, balanced_accuracy
from gyri.metrics.regression import Regressed
from gyri.seeds import generator

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = ["model", "metric", "structure", "null", "value", "null_mean", "null_low", "null_high", "p", "p_holm", "permutations"]
COLUMNS += ["n", "n_groups", "note"]
EXCHANGED, CALIBRATED, SITES = "labels exchanged", "perfectly calibrated", "sites exchanged"
SITE_METRIC = "site_balanced_accuracy"
LEAST_SITE = 3  # groups that a site needs to be told from others


class Null:
    """The images of a role and how their labels may be exchanged.

    Args:
        rows: all predictions of the role, with their places as index.
        site: image -> site, "" where it is not known.
        settings: of the evaluation.
        role: test or locked.
    """

    def __init__(self, rows: pd.DataFrame, site: dict[str, str], settings: EvaluateSettings, role: str):
        once = rows.drop_duplicates("image_id").sort_values("image_id")
        self.image = {name: place for place, name in enumerate(once["image_id"])}
        self.groups = sorted(set(once["group"]))
        number = {name: index for index, name in enumerate(self.groups)}
        self.group = np.array([number[name] for name in once["group"]])
        self.blocks = [np.flatnonzero(self.group == index) for index in range(len(self.groups))]
        sites = ["+".join(sorted({site.get(name, "") for name in once["image_id"].to_numpy()[block]})) for block in self.blocks]
        folds = [once["fold"].to_numpy()[block[0]] if role == "test" else "" for block in self.blocks]
        self.in_fold = np.unique(folds, return_inverse=True)[1]
        self.strata = np.unique([f"{fold}\t{name}" for fold, name in zip(folds, sites, strict=True)], return_inverse=True)[1]
        self.count, self.seed, self.role = settings.evaluation.permutations, settings.evaluation.seed, role

    def places(self, rows: pd.DataFrame) -> Indices:
        """Image of each row."""
        return np.array([self.image[name] for name in rows["image_id"]])

    def exchange(self, truth: NDArray[Any], strata: Indices, purpose: str) -> Indices:
        """From which image each image takes its truth: (m, images)."""
        alike = all(len(np.unique(truth[block])) == 1 for block in self.blocks)
        random = generator("chance", self.seed, self.role, purpose)
        return permutations(self.blocks, strata, alike, self.count, random)


def chance(
    settings: EvaluateSettings,
    table: pd.DataFrame,
    cases: Classified | Regressed | None,
    role: str,
    site: dict[str, str],
    features: Array,
) -> pd.DataFrame:
    """Measure what chance reaches.

    Args:
        settings: of the evaluation.
        table: checked and sorted predictions, with their places as index.
        cases: the same rows; None for segmentation, whose labels cannot be exchanged between images.
        role: test or locked.
        site: image -> site.
        features: (rows, F) what each model says of each image, for the probe of the site.

    Returns:
        chance.tsv.
    """
    rows = table[table["role"] == role]
    null = Null(rows, site, settings, role)
    lines: list[dict[str, Any]] = []
    for model, part in rows.groupby("model", sort=True):
        if cases is not None:
            lines += [{"model": model, **line} for line in _exchanged(null, part, cases)]
        if isinstance(cases, Classified):
            lines.append({"model": model, **_calibrated(null, part, cases)})
        lines.append({"model": model, **_site(null, part, site, features)})
    frame = pd.DataFrame(lines, columns=COLUMNS)
    frame["p_holm"] = np.nan
    for _, places in frame.groupby(["metric", "null"]).groups.items():
        frame.loc[places, "p_holm"] = holm(frame.loc[places, "p"].to_numpy(np.float64))
    return frame


def _exchanged(null: Null, part: pd.DataFrame, cases: Classified | Regressed) -> Iterator[dict[str, Any]]:
    """The metrics that are compared with exchanged labels."""
    truth: NDArray[Any] = np.zeros(len(null.image), cases.truth.dtype)
    truth[null.places(part)] = cases.truth[part.index]
    truths = truth[null.exchange(truth, null.strata, "labels")]
    for module in OF_CLASSES if isinstance(cases, Classified) else (regression,):
        for metric, declaration in module.METRICS.items():
            if not declaration.get("chance"):
                continue
            function = _of_set(getattr(module, metric), declaration)
            runs = list(_runs(part, bool(declaration.get("ranking")) or null.role != "test"))
            values, nulls = [], []
            for run in runs:
                chosen = type(cases)(*(getattr(cases, name)[run.index] for name in cases.__dataclass_fields__))
                given = truths[:, null.places(run)]
                values.append(function(chosen, np.ones((1, len(run))))[0])
                if isinstance(chosen, Classified):
                    nulls.append(classified_under(function, chosen, given))
                else:
                    nulls.append(regressed_under(function, chosen, given))
            several = isinstance(cases, Classified) and cases.classes > 2 and declaration.get("per_class")
            yield {
                "metric": metric,
                "structure": "mean" if several else "",
                "null": EXCHANGED,
                **_against(null, _mean(values), np.array([_mean(column) for column in np.array(nulls).T]), declaration["better"]),
            }


def _calibrated(null: Null, part: pd.DataFrame, cases: Classified) -> dict[str, Any]:
    """The calibration error of a perfectly calibrated model with the same probabilities; images of a group share their luck."""
    random = generator("chance", null.seed, null.role, "calibrated")
    luck = random.random((null.count, len(null.groups)))
    values, nulls = [], []
    for run in _runs(part, null.role != "test"):
        chosen = Classified(*(getattr(cases, name)[run.index] for name in cases.__dataclass_fields__))
        ends = np.cumsum(chosen.probabilities, axis=1)[:, :-1]
        drawn = luck[:, null.group[null.places(run)]]
        truths = (drawn[:, :, None] >= ends[None]).sum(2)
        values.append(expected_calibration_error(chosen, np.ones((1, len(run))))[0])
        nulls.append(classified_under(expected_calibration_error, chosen, truths))
    structure = "mean" if cases.classes > 2 else ""
    found = _against(null, _mean(values), np.mean(nulls, axis=0), "higher")  # the question is whether it is worse
    return {"metric": "expected_calibration_error", "structure": structure, "null": CALIBRATED, **found}


def _site(null: Null, part: pd.DataFrame, site: dict[str, str], features: Array) -> dict[str, Any]:
    """How well the site is told from what the model says of an image."""
    run = part[part["seed"] == sorted(part["seed"].unique())[0]]
    found = tell_site(null, run, features[run.index], site, "the model says the same of every image")
    return {"metric": SITE_METRIC, "structure": "", "null": SITES, **found}


def tell_site(null: Null, run: pd.DataFrame, values: Array, site: dict[str, str], constant: str) -> dict[str, Any]:
    """How well a logistic regression tells the site, in folds that it has not seen; groups lie in one fold each.

    Args:
        null: the images of the role.
        run: their rows, each image once, with image_id, group and fold.
        values: (rows, F) what the site is told from.
        site: image -> site, "" where it is not known.
        constant: what to say where all values are the same.

    Returns:
        Columns of chance.tsv; without a value, `note` says why.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = np.array([site.get(name, "") for name in run["image_id"]])
    counts = run.assign(site=names).groupby("site")["group"].nunique()
    kept = counts.index[(counts >= LEAST_SITE) & (counts.index != "")]
    known = np.isin(names, kept)
    run, names, values = run[known], names[known], values[known]
    folds = sorted(run["fold"].unique())
    values = values[:, np.isfinite(values).all(0)]
    if null.role != "test" or len(kept) < 2 or len(folds) < 2:
        return {"note": f"not tested: needs two folds and two sites of at least {LEAST_SITE} groups"}
    if not values.shape[1] or (np.ptp(values, axis=0) == 0).all():
        return {"note": f"not tested: {constant}"}
    said = np.empty(len(run), object)
    for fold in folds:
        held = (run["fold"] == fold).to_numpy()
        if len(set(names[~held])) < 2:
            return {"note": "not tested: a fold holds all images of a site"}
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said[held] = model.fit(values[~held], names[~held]).predict(values[held])
    index = {name: place for place, name in enumerate(kept)}
    truth, decision = (np.array([index[name] for name in column]) for column in (names, said))
    chosen = Classified(truth, decision, np.eye(len(kept))[decision])
    everywhere = np.array([index.get(site.get(name, ""), -1) for name in null.image])
    truths = everywhere[null.exchange(everywhere, np.where(_without(null, everywhere), -1, null.in_fold), "site")]
    nulls = classified_under(balanced_accuracy, chosen, truths[:, null.places(run)])
    value = float(balanced_accuracy(chosen, np.ones((1, len(run))))[0])
    return {**_against(null, value, nulls, "higher"), "n": len(run), "n_groups": run["group"].nunique()}


def _without(null: Null, site: Indices) -> NDArray[np.bool_]:
    """Groups without a known site: they only exchange among themselves."""
    return np.array([(site[block] < 0).any() for block in null.blocks])


def _runs(part: pd.DataFrame, by_fold: bool) -> Iterator[pd.DataFrame]:
    """Rows of every seed, and of every fold where values are averaged over folds."""
    for _, run in part.groupby(["seed", "fold"] if by_fold else ["seed"], sort=True):
        yield run


def _of_set(function: Callable[..., Array], declaration: dict[str, Any]) -> Callable[[Any, Array], Array]:
    """A metric as a function of images and weights."""
    if declaration["kind"] == "set":
        return function
    return lambda cases, weights: (weights * function(cases)).sum(1) / weights.sum(1)


def _mean(values: Any) -> float:
    """The mean of what is defined."""
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else math.nan


def _against(null: Null, value: float, found: Array, better: str) -> dict[str, Any]:
    """Value, null and p."""
    defined = found[np.isfinite(found)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (math.nan, math.nan)
    return {
        "value": value,
        "null_mean": float(defined.mean()) if len(defined) else math.nan,
        "null_low": float(low),
        "null_high": float(high),
        "p": permutation_p(value, found, better),
        "permutations": len(defined),
        "n": len(null.image),
        "n_groups": len(null.groups),
        "note": "",
    }
