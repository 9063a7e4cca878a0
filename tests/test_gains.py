"""What ensembles and post-processing gain, on the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gyri.config.experiments import EnsembleSettings, EvaluateSettings
from gyri.ensemble import run as average_members
from gyri.evaluate import run
from gyri.tables import read_table
from small_experiment import DATASET, Small, make
from test_comparisons import settings_of
from test_evaluate import one, rows_of

NAME = "ensemble.seeds.a"


def evaluated(small: Small, noise: float = 3.0) -> dict[str, pd.DataFrame]:
    """Two seeds of a model and their average, measured."""
    paths = [small.predict("a", fold, seed, noise) for fold in range(3) for seed in range(2)]
    members = EnsembleSettings(members=[("a", 0), ("a", 1)])
    for fold in range(3):
        average_members(members, small.layout, DATASET, "trial", NAME, str(fold))
        paths.append(small.layout.run("trial", NAME, fold, "all", "predictions.tsv"))
    settings: EvaluateSettings = settings_of(small).model_copy(update={"ensembles": {NAME: ["a"]}})
    run(settings, small.layout, DATASET, "trial", paths, 1)
    return {name: read_table(small.layout.experiment("trial", f"{name}.tsv")) for name in ("gains", "metrics", "fitted", "cases")}


@pytest.mark.parametrize(("task", "metric"), [("regression", "mae"), ("classification", "auroc"), ("segmentation", "dice")])
def test_an_ensemble_is_held_against_the_mean_of_its_members(tmp_path: Path, task: str, metric: str) -> None:
    tables = evaluated(make(tmp_path, task, persons=18 if task == "segmentation" else 30))
    gain = one(rows_of(tables["gains"], what="ensemble", metric=metric))
    whole = rows_of(tables["metrics"], metric=metric, role="test", fold="all")
    whole = whole[whole["structure"].isin(["", "mean"])]
    seeds = [one(whole, model="a", seed=seed)["value"] for seed in ("0", "1")]
    assert gain["model"] == NAME and gain["members"] == 2
    assert gain["value_with"] == pytest.approx(one(whole, model=NAME)["value"])
    assert gain["value_without"] == pytest.approx(np.mean(seeds))
    assert gain["difference"] == pytest.approx(gain["value_with"] - gain["value_without"])
    assert gain["ci_low"] < gain["difference"] < gain["ci_high"]
    if task == "regression":
        assert gain["difference"] < 0, "averaging independent noise lowers the error"


def test_the_interval_of_a_gain_is_paired(tmp_path: Path) -> None:
    """Differences of the same images vary less than the values themselves."""
    tables = evaluated(make(tmp_path, "regression", persons=30))
    gain = one(rows_of(tables["gains"], metric="mae"))
    value = one(rows_of(tables["metrics"], metric="mae", role="test", fold="all", seed="all"), model="a")
    assert gain["ci_high"] - gain["ci_low"] < value["ci_high"] - value["ci_low"]


def test_post_processing_with_and_without(tmp_path: Path) -> None:
    tables = evaluated(make(tmp_path, "segmentation", persons=18), noise=4.0)
    rows = rows_of(tables["gains"], what="post-processing", model="a")
    assert set(rows_of(rows, metric="dice")["structure"]) == {"mean", "front", "back"}
    assert set(rows["metric"]) == {"dice", "surface_dice", "hd95"}
    assert set(rows.loc[rows["metric"] != "dice", "structure"]) == {"mean"}
    whole = rows_of(tables["metrics"], model="a", role="test", fold="all", seed="all")
    for row in rows.itertuples():
        without = one(whole, metric=row.metric, structure=row.structure)["value"]
        processed = one(whole, metric=f"{row.metric}_postprocessed", structure=row.structure)["value"]
        assert (row.value_with, row.value_without) == pytest.approx((processed, without))
        assert row.difference == pytest.approx(processed - without)
        assert row.ci_low <= row.difference <= row.ci_high
    chosen = rows_of(tables["fitted"], model="a", what="post-processing")
    assert (chosen["choice"] != "none").any(), "the test sees post-processing at work"
    assert rows_of(rows, metric="dice", structure="mean")["difference"].iloc[0] > 0


def test_what_changes_nothing_gains_nothing(tmp_path: Path) -> None:
    tables = evaluated(make(tmp_path, "segmentation", persons=18), noise=0.1)
    assert (rows_of(tables["fitted"], what="post-processing")["choice"] == "none").all()
    rows = rows_of(tables["gains"], what="post-processing")
    assert len(rows) and (rows[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert rows["note"].str.startswith("nothing was chosen").all()
