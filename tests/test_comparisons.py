"""Between models, against chance, in subgroups, and what is fitted on validation: from predictions to the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gyri.config.experiments import EvaluateSettings, Evaluation
from gyri.errors import DataError
from gyri.evaluate import run
from gyri.evaluate.subgroups import WORST_NAME, levels_of, worst_mean
from gyri.io import read_json, write_json
from gyri.tables import read_table, write_table
from small_experiment import DATASET, Small, make
from test_evaluate import one, rows_of

MODELS = (("a", 2, 0.5), ("b", 1, 3.0), ("c", 1, 3.5))


def settings_of(small: Small, **more: object) -> EvaluateSettings:
    """Settings with few resamples."""
    evaluation = Evaluation.model_validate({"resamples": 400, **more})
    return EvaluateSettings(task=small.task, target=small.target, classes=None, evaluation=evaluation, baselines=["c"])


def evaluated(small: Small, models: tuple[tuple[str, int, float], ...] = MODELS, **more: object) -> dict[str, pd.DataFrame]:
    """Predict with made-up models, evaluate, read the tables."""
    paths = [small.predict(name, fold, seed, noise) for name, seeds, noise in models for fold in range(3) for seed in range(seeds)]
    return again(small, paths, **more)


def again(small: Small, paths: list[Path], **more: object) -> dict[str, pd.DataFrame]:
    """Evaluate these predictions and read the tables."""
    run(settings_of(small, **more), small.layout, DATASET, "trial", paths, 1)
    names = ("comparisons", "chance", "subgroups", "fitted", "metrics", "predictions", "cases")
    return {name: read_table(small.layout.experiment("trial", f"{name}.tsv")) for name in names}


def with_people(small: Small) -> Small:
    """Give the cohort sex and site, the same for both images of a person."""
    number = small.cohort["participant_id"].str[1:].astype(int)
    small.cohort["sex"] = np.where(number % 2 == 0, "F", "M")
    small.cohort["site"] = np.where(number // 2 % 2 == 0, "north", "south")
    small.write()
    return small


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, dict[str, pd.DataFrame]]:
    small = with_people(make(tmp_path_factory.mktemp("comparisons"), "regression", persons=36))
    return small, evaluated(small)


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, dict[str, pd.DataFrame]]:
    small = with_people(make(tmp_path_factory.mktemp("comparisons"), "classification", persons=36))
    return small, evaluated(small)


# ── between models ──
def test_every_pair_is_compared_and_the_number_is_said(regression: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    table, metrics = regression[1]["comparisons"], regression[1]["metrics"]
    assert list(zip(table["first"], table["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")], "the better one first"
    assert (table["comparisons"] == 3).all()
    for row in table.itertuples():
        values = [
            one(metrics, model=name, metric="mae", role="test", fold="all", seed="all")["value"] for name in (row.first, row.second)
        ]
        assert (row.first_value, row.second_value) == pytest.approx(tuple(values))
        assert row.difference == pytest.approx(values[0] - values[1])
        assert row.ci_low <= row.difference <= row.ci_high
        assert (row.p < 0.05) == (not row.ci_low <= 0 <= row.ci_high)
        assert row.p_holm >= row.p
    assert table["p"].iloc[0] < 0.001
    assert table["p"].iloc[2] > 0.05


def test_the_difference_is_that_of_the_images(regression: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    errors = rows_of(regression[1]["cases"], metric="absolute_error", role="test").groupby(["model", "image_id"])["value"].mean()
    apart = errors["a"] - errors["b"]
    row = one(regression[1]["comparisons"], first="a", second="b")
    assert row["difference"] == pytest.approx(apart.mean())
    plain = stats.ttest_1samp(apart, 0).confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((plain.low, plain.high), rel=0.35)


def test_p_over_folds_is_the_corrected_t(regression: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    small, tables = regression
    means = rows_of(tables["cases"], metric="absolute_error", role="test").groupby(["model", "seed", "fold"])["value"].mean()
    means = means.groupby(["model", "fold"]).mean()
    apart = (means["a"] - means["b"]).to_numpy()
    roles = small.splits.drop_duplicates(["group", "fold"]).groupby(["fold", "role"]).size().unstack()
    ratio = (roles["test"] / roles["train"]).mean()
    t = apart.mean() / np.sqrt((1 / 3 + ratio) * apart.var(ddof=1))
    row = one(tables["comparisons"], first="a", second="b")
    assert row["p_folds"] == pytest.approx(2 * stats.t.sf(abs(t), 2))
    assert row["folds"] == 3
    assert row["n_groups"] == small.cohort["group"].nunique()


def test_ranking_models_are_compared_by_the_mean_over_folds(classification: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    table, metrics = classification[1]["comparisons"], classification[1]["metrics"]
    row = table.iloc[0]
    values = [
        one(metrics, model=name, metric="auroc", role="test", fold="mean", seed="all")["value"]
        for name in (row["first"], row["second"])
    ]
    assert row["difference"] == pytest.approx(values[0] - values[1])
    assert row["ci_low"] <= row["difference"] <= row["ci_high"]


def test_a_model_against_itself_does_not_differ(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    paths = [small.predict("a", fold, 0, 1.0) for fold in range(3)]
    for fold in range(3):
        path = small.layout.run("trial", "copy", fold, 0, "predictions.tsv")
        write_table(path, read_table(paths[fold]).assign(model="copy"))
        write_json(path.parent / "model.json", {"conditions": {}})
        paths.append(path)
    row = again(small, paths)["comparisons"].iloc[0]
    assert (row["difference"], row["ci_low"], row["ci_high"], row["p"], row["p_folds"]) == (0, 0, 0, 1, 1)


def test_other_conditions_are_not_compared_unless_told(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    paths = [small.predict(name, fold, 0, noise) for name, noise in (("a", 1.0), ("b", 2.0), ("c", 3.0)) for fold in range(3)]
    write_json(small.layout.run("trial", "b", 1, 0, "model.json"), {"conditions": {"torch": "2.13.0", "device": "cuda"}})
    write_json(small.layout.run("trial", "c", 0, 0, "model.json"), {"conditions": {}})
    table = again(small, paths)["comparisons"]
    mixed = table[(table["first"] == "b") | (table["second"] == "b")]
    assert len(mixed) == 2
    assert mixed[["difference", "p", "p_holm", "p_folds"]].isna().all().all()
    assert mixed["note"].str.startswith("not compared: trained under").all()
    assert mixed["note"].str.contains("cuda").all()
    assert (table["comparisons"] == 1).all()
    allowed = again(small, paths, compare_mixed=True)["comparisons"]
    assert allowed["p"].notna().all()
    assert (allowed["comparisons"] == 3).all()
    assert allowed["note"].fillna("").str.startswith("compared although").sum() == 2


# ── chance ──
def test_chance_is_the_mean_of_the_null(classification: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    chance, metrics = classification[1]["chance"], classification[1]["metrics"]
    table = rows_of(chance, null="labels exchanged")
    assert set(table["metric"]) == {"auroc", "average_precision", "balanced_accuracy", "mcc"}
    assert (table["permutations"] == 1000).all()
    for row in table.itertuples():
        value = one(metrics, model=row.model, metric=row.metric, role="test", fold="all", seed="all")["value"]
        assert row.value == pytest.approx(value)
        assert row.null_low <= row.null_mean <= row.null_high
        assert 1 / 1001 <= row.p <= 1
    best = one(table, model="a", metric="auroc")
    assert best["p"] == pytest.approx(1 / 1001)
    assert best["null_mean"] == pytest.approx(0.5, abs=0.05)
    precision = one(table, model="a", metric="average_precision")
    assert precision["null_mean"] > 0.5, "chance of the average precision is above the share of patients on few images"


def test_random_labels_are_at_chance(tmp_path: Path) -> None:
    small = with_people(make(tmp_path, "classification", persons=36))
    paths = [small.predict("a", fold, 0, 1.0) for fold in range(3)]
    random = np.random.default_rng(3)
    for path in paths:
        score = random.random(len(read_table(path)))
        table = read_table(path).assign(probability_patient=score, probability_control=1 - score)
        write_table(path, table.assign(prediction=np.where(score > 0.5, "patient", "control")))
    row = one(again(small, paths)["chance"], metric="auroc", null="labels exchanged")
    assert row["p"] > 0.02
    assert row["null_low"] < row["value"] < row["null_high"]


def test_calibration_has_the_band_of_a_perfect_model(classification: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    table = rows_of(classification[1]["chance"], metric="expected_calibration_error")
    assert set(table["null"]) == {"perfectly calibrated"}
    assert (table["null_mean"] > 0.03).all(), "a perfect model is far from 0 on few images"
    assert len(table) == 3


def test_regression_is_compared_with_exchanged_ages(regression: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    table = rows_of(regression[1]["chance"], null="labels exchanged", model="a")
    assert set(table["metric"]) == {"mae", "r2", "correlation"}
    assert (table["p"] <= 2 / 1001).all()
    assert one(table, metric="r2")["null_mean"] < -0.5, "chance is not 0 for a model that varies"


def test_the_site_is_told_where_predictions_tell_it(tmp_path: Path) -> None:
    small = with_people(make(tmp_path, "regression", persons=36))
    paths = [small.predict(name, fold, 0, 1.0) for name in ("a", "b") for fold in range(3)]
    site = dict(zip(small.cohort["image_id"], small.cohort["site"], strict=True))
    for path in paths[:3]:
        table = read_table(path)
        shift = np.where([site[name] == "south" for name in table["image_id"]], 60.0, 0.0)
        write_table(path, table.assign(prediction=table["prediction"] + shift))
    table = rows_of(again(small, paths)["chance"], null="sites exchanged")
    told, untold = one(table, model="a"), one(table, model="b")
    assert told["value"] > 0.8
    assert told["p"] <= 0.002
    assert untold["p"] > 0.02
    assert untold["null_mean"] == pytest.approx(0.5, abs=0.06)


def test_no_site_is_said(tmp_path: Path) -> None:
    table = rows_of(evaluated(make(tmp_path, "regression"), (("a", 1, 1.0),))["chance"], null="sites exchanged")
    assert table["value"].isna().all()
    assert table["note"].str.startswith("not tested").all()


# ── subgroups ──
def test_subgroups_are_the_metrics_of_their_images(regression: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    small, tables = regression
    table = rows_of(tables["subgroups"], model="a", metric="mae")
    assert {"sex", "age", "site", "diagnosis", "all"} == set(table["column"])
    errors = rows_of(tables["cases"], metric="absolute_error", role="test", model="a")
    people = small.cohort.set_index("image_id")
    for level in ("F", "M"):
        inside = errors[people.loc[errors["image_id"], "sex"].to_numpy() == level]
        row = one(table, column="sex", level=level)
        assert row["value"] == pytest.approx(inside["value"].mean())
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["n"], row["n_groups"]) == (inside["image_id"].nunique(), inside["group"].nunique())
    assert rows_of(table, column="age")["n"].sum() == len(small.cohort)
    worst = one(table, level=WORST_NAME)
    assert worst["value"] > errors["value"].quantile(0.9)


def test_subgroups_without_a_value_are_listed(classification: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    table = rows_of(classification[1]["subgroups"], model="a", column="diagnosis")
    ranking = rows_of(table, metric="auroc")
    assert set(ranking["level"]) == {"control", "patient"}
    assert ranking["value"].isna().all()
    assert (ranking["note"] == "undefined in these images").all()
    assert rows_of(table, metric="accuracy")["value"].notna().all()


def test_named_columns_and_bands() -> None:
    cohort = pd.DataFrame(
        {
            "image_id": list("abcdefgh"),
            "age": [10, 20, 39.9, 40, 85, np.nan, 60, 60],
            "sex": ["F"] * 8,
            "iq": range(90, 98),
            "hand": list("lrlrlrlr"),
        }
    )
    base = EvaluateSettings(
        task="regression", target="iq", classes=None, evaluation=Evaluation(subgroups=["iq", "hand"]), baselines=[]
    )
    levels = levels_of(cohort, base, "cohort.tsv")
    assert set(levels) == {"age", "iq", "hand"}, "one sex only is no subgroup"
    assert [levels["age"].get(name) for name in "abcdefgh"] == [
        "< 20",
        "20 to < 40",
        "20 to < 40",
        "40 to < 60",
        ">= 80",
        None,
        "60 to < 80",
        "60 to < 80",
    ]
    assert len(set(levels["iq"].values())) == 3
    wrong = base.model_copy(update={"evaluation": Evaluation(subgroups=["weight"])})
    with pytest.raises(DataError, match="weight"):
        levels_of(cohort, wrong, "cohort.tsv")


def test_worst_mean_by_hand() -> None:
    values = np.arange(60.0)
    weights = np.vstack([np.ones(60), 2 * np.ones(60), np.r_[np.ones(30), np.zeros(30)], np.zeros(60)])
    found = worst_mean(values, values, weights)
    assert found[:3] == pytest.approx([(59 + 58 + 57) / 3, (59 + 58 + 57) / 3, (29 + 0.5 * 28) / 1.5])
    assert np.isnan(found[3])
    assert worst_mean(values[:5], -values[:5], np.ones((1, 5)))[0] == 0


# ── what is fitted on validation ──
def test_thresholds_come_from_validation_and_are_applied_to_test(classification: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    _, tables = classification
    fitted = rows_of(tables["fitted"], model="b", what="threshold for specificity", seed="0")
    rows = rows_of(tables["predictions"], model="b", role="test").merge(fitted[["fold", "value"]], on="fold")
    patient, called = rows["target"] == "patient", rows["probability_patient"] >= rows["value"]
    metrics = rows_of(tables["metrics"], model="b", role="test", fold="all", seed="all")
    assert one(metrics, metric="sensitivity_at_specificity")["value"] == pytest.approx(called[patient].mean())
    assert one(metrics, metric="specificity_reached")["value"] == pytest.approx((~called)[~patient].mean())
    for fold, cut in zip(fitted["fold"], fitted["value"], strict=True):
        tuned = rows_of(tables["predictions"], model="b", role="validation", fold=fold)
        assert (tuned.loc[tuned["target"] == "control", "probability_patient"] < cut).mean() >= 0.9


def test_the_bias_correction_comes_from_validation(tmp_path: Path) -> None:
    small = make(tmp_path, "regression", persons=36)
    paths = [small.predict("a", fold, 0, 1.0) for fold in range(3)]
    for path in paths:
        table = read_table(path)
        write_table(path, table.assign(prediction=30 + 0.5 * table["prediction"]))
    tables = again(small, paths)
    metrics = rows_of(tables["metrics"], role="test", fold="all", seed="all")
    assert one(metrics, metric="error_slope")["value"] == pytest.approx(-0.5, abs=0.05)
    assert one(metrics, metric="error_slope_corrected")["value"] == pytest.approx(0, abs=0.1)
    assert one(metrics, metric="mae_corrected")["value"] < 0.5 * one(metrics, metric="mae")["value"]
    rows = rows_of(tables["predictions"], role="validation", fold="1")
    line = stats.linregress(rows["target"], rows["prediction"])
    fitted = rows_of(tables["fitted"], fold="1").set_index("what")["value"]
    assert (fitted["correction offset"], fitted["correction slope"]) == pytest.approx((line.intercept, line.slope))


@pytest.mark.parametrize("task", ["classification", "regression", "segmentation"])
def test_test_images_change_nothing_that_is_fitted(tmp_path: Path, task: str) -> None:
    """Predictions of the test images change places within a fold; what was fitted stays as it was, byte for byte."""
    small = make(tmp_path, task, persons=18)
    paths = [small.predict("a", fold, 0, 2.0) for fold in range(3)]
    file = small.layout.experiment("trial", "fitted.tsv")
    said = ["prediction", *(name for name in read_table(paths[0]).columns if name.startswith("probability_"))]
    contents = []
    for role in ("", "test", "validation"):
        for path in paths:
            table = read_table(path)
            rows = table.index[table["role"] == role]
            table.loc[rows, said] = table.loc[np.roll(rows, 1), said].to_numpy()
            write_table(path, table)
        again(small, paths)
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]
    assert contents[2] != contents[1], "the test can fail"


def test_postprocessing_helps_where_validation_says_so(tmp_path: Path) -> None:
    import nibabel as nib

    from small_experiment import AFFINE

    small = make(tmp_path, "segmentation", persons=12)
    paths = [small.predict("a", fold, 0, 0.0) for fold in range(3)]
    for path in small.layout.experiment("trial").glob("a/fold-*/seed-0/maps/*.nii.gz"):
        values = np.asarray(nib.load(path).dataobj).copy()
        values[8, 7, 6] = 1  # a speck far from the structure
        nib.save(nib.Nifti1Image(values, AFFINE), path)
    tables = again(small, paths)
    fitted = rows_of(tables["fitted"], what="post-processing")
    assert set(rows_of(fitted, structure="front")["choice"]) == {"largest component"}
    assert set(rows_of(fitted, structure="back")["choice"]) == {"none"}
    metrics = rows_of(tables["metrics"], role="test", fold="all", seed="all")
    assert one(metrics, metric="dice", structure="front")["value"] < 1
    assert one(metrics, metric="dice_postprocessed", structure="front")["value"] == 1
    assert one(metrics, metric="hd95_postprocessed", structure="front")["value"] == 0
    assert (
        one(metrics, metric="dice_postprocessed", structure="back")["value"]
        == one(metrics, metric="dice", structure="back")["value"]
    )


def test_the_tolerance_of_surfaces_is_a_setting(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    paths = [small.predict("a", fold, 0, 3.0) for fold in range(3)]
    values = [
        one(
            again(small, paths, surface_tolerance_mm=tolerance)["metrics"],
            role="test",
            fold="all",
            seed="all",
            metric="surface_dice",
            structure="mean",
        )["value"]
        for tolerance in (0.1, 2.0, 50.0)
    ]
    assert values[0] < values[1] < values[2] == 1


def test_conditions_of_an_ensemble_are_those_of_its_members(tmp_path: Path) -> None:
    from gyri.evaluate.comparisons import conditions_of

    small = make(tmp_path, "regression")
    for name in ("a", "b"):
        small.predict(name, 0, 0)
    write_json(small.layout.run("trial", "b", 0, 0, "model.json"), {"conditions": {"device": "cuda"}})
    assert read_json(small.layout.run("trial", "a", 0, 0, "model.json"))["conditions"]["device"] == "cpu"
    table = pd.DataFrame(
        {"model": ["a", "b", "ensemble.models.mean", "ensemble.seeds.b"], "fold": "0", "seed": ["0", "0", "all", "all"]}
    )
    settings = settings_of(small).model_copy(update={"ensembles": {"ensemble.models.mean": ["a", "b"], "ensemble.seeds.b": ["b"]}})
    found = conditions_of(settings, table, small.layout, "trial")
    assert len(found["ensemble.models.mean"]) == 2
    assert found["ensemble.seeds.b"] == found["b"]
