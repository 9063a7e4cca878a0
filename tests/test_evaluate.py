"""Evaluation: what is measured, on whom, with which interval; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from gyri.config.experiments import EnsembleSettings, EvaluateSettings, Evaluation
from gyri.ensemble import run as average_members
from gyri.errors import DataError, GyriError, LeakageError
from gyri.evaluate import record_locked_read, run
from gyri.tables import read_table, write_table
from small_experiment import AFFINE, DATASET, Small, make

FILES = ("predictions.tsv", "cases.tsv", "metrics.tsv", "undefined.tsv", "comparisons.tsv", "chance.tsv", "subgroups.tsv")


def settings_of(small: Small) -> EvaluateSettings:
    """Settings with few resamples."""
    return EvaluateSettings(
        task=small.task, target=small.target, classes=None, evaluation=Evaluation(resamples=300), baselines=["b"]
    )


def predict_all(small: Small, models: tuple[tuple[str, int, float], ...] = (("a", 2, 0.5), ("b", 1, 3.0))) -> list[Path]:
    """Predictions of every fold: model, number of seeds, noise."""
    return [small.predict(name, fold, seed, noise) for name, seeds, noise in models for fold in range(3) for seed in range(seeds)]


def evaluate(small: Small, paths: list[Path], experiment: str = "trial", threads: int = 1) -> dict[str, pd.DataFrame]:
    """Run the stage and read what it wrote."""
    run(settings_of(small), small.layout, DATASET, experiment, paths, threads)
    return {name: read_table(small.layout.experiment(experiment, name)) for name in FILES}


def rows_of(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows with these values."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def one(table: pd.DataFrame, **wanted: str) -> pd.Series:
    """The one row with these values."""
    rows = rows_of(table, **wanted)
    assert len(rows) == 1, (wanted, len(rows))
    return rows.iloc[0]


@pytest.fixture(scope="module", params=["segmentation", "classification", "regression"])
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, dict[str, pd.DataFrame]]:
    """An evaluated experiment of each task: a model with two seeds, its ensemble, and a worse model."""
    small = make(tmp_path_factory.mktemp("evaluated"), request.param, persons=24)
    paths = predict_all(small)
    name, members = "ensemble.seeds.a", EnsembleSettings(members=[("a", 0), ("a", 1)])
    for fold in range(3):
        average_members(members, small.layout, DATASET, "trial", name, fold)
        paths.append(small.layout.run("trial", name, fold, "all", "predictions.tsv"))
    return small, evaluate(small, paths)


def test_table_has_every_row_with_its_company(evaluated: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    small, tables = evaluated
    metrics = tables["metrics.tsv"]
    spread = ["n", "n_groups", "sd_folds", "sd_seeds"]
    assert list(metrics.columns) == ["model", "role", "fold", "seed", "metric", "structure", "value", "ci_low", "ci_high", *spread]
    assert not metrics.duplicated(["model", "role", "fold", "seed", "metric", "structure"]).any()
    test, validation = rows_of(metrics, role="test"), rows_of(metrics, role="validation")
    assert test[["value", "ci_low", "ci_high", "n", "n_groups"]].notna().all().all()
    assert ((test["ci_low"] <= test["value"]) & (test["value"] <= test["ci_high"])).all()
    assert len(validation)
    assert validation[["ci_low", "ci_high"]].isna().all().all()
    assert set(rows_of(test, model="a")["seed"]) == {"all", "0", "1"}
    assert set(rows_of(test, model="ensemble.seeds.a")["seed"]) == {"all"}
    assert set(rows_of(test, model="a")["fold"]) == {"all", "mean", "pooled", "0", "1", "2"}
    headline = rows_of(test, fold="all")
    assert headline["sd_folds"].notna().all()
    assert rows_of(headline, model="a", seed="all")["sd_seeds"].notna().all()
    assert rows_of(headline, model="b")["sd_seeds"].isna().all()
    whole = headline[~headline["metric"].str.contains("sensitivity|specificity")]
    assert set(whole["n"]) == {len(small.cohort)}, "n counts images"
    assert set(whole["n_groups"]) == {small.cohort["group"].nunique()}, "twins and sessions are one group"


def test_cases_and_predictions_are_complete(evaluated: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    small, tables = evaluated
    predictions, cases = tables["predictions.tsv"], tables["cases.tsv"]
    assert len(predictions) == len(small.cohort) * 2 * (2 + 1 + 1)
    keys = ["image_id", "model", "seed", "fold", "role"]
    assert set(map(tuple, cases[keys].values)) == set(map(tuple, predictions[keys].values))
    assert not cases.duplicated([*keys, "metric", "structure"]).any()
    names = {
        "segmentation": {"dice", "hd95", "mean_surface_distance", "volume_error_ml", "volume_true_ml"},
        "classification": {"correct", "log_loss", "probability_of_truth"},
        "regression": {"error", "absolute_error"},
    }
    assert names[small.task] <= set(cases["metric"])


def test_means_over_images_are_the_means_of_cases(evaluated: tuple[Small, dict[str, pd.DataFrame]]) -> None:
    small, tables = evaluated
    case, metric, structure = {
        "segmentation": ("dice", "dice", "mean"),
        "classification": ("log_loss", "log_loss", ""),
        "regression": ("absolute_error", "mae", ""),
    }[small.task]
    cases = rows_of(tables["cases.tsv"], metric=case, structure=structure, role="test", model="a")
    metrics = rows_of(tables["metrics.tsv"], metric=metric, structure=structure, role="test", model="a")
    by_seed = cases.groupby("seed")["value"].mean()
    by_fold = cases.groupby(["seed", "fold"])["value"].mean().unstack()
    assert one(metrics, fold="all", seed="0")["value"] == pytest.approx(by_seed["0"])
    assert one(metrics, fold="all", seed="all")["value"] == pytest.approx(by_seed.mean())
    assert one(metrics, fold="all", seed="all")["sd_seeds"] == pytest.approx(by_seed.std())
    assert one(metrics, fold="all", seed="1")["sd_folds"] == pytest.approx(by_fold.loc["1"].std())
    assert one(metrics, fold="mean", seed="1")["value"] == pytest.approx(by_fold.loc["1"].mean())
    assert one(metrics, fold="2", seed="all")["value"] == pytest.approx(by_fold["2"].mean())
    assert one(metrics, fold="2", seed="all")["n"] == len(cases[(cases["fold"] == "2") & (cases["seed"] == "0")])
    better = 1 if small.task == "segmentation" else -1
    other = one(tables["metrics.tsv"], metric=metric, structure=structure, role="test", model="b", fold="all", seed="all")
    assert better * (one(metrics, fold="all", seed="all")["value"] - other["value"]) > 0


def test_ranking_metrics_have_the_mean_over_folds_as_headline(tmp_path: Path) -> None:
    small = make(tmp_path, "classification", persons=30)
    tables = evaluate(small, predict_all(small, (("a", 1, 1.0),)))
    rows = rows_of(tables["predictions.tsv"], role="test")
    by_fold = [sk.roc_auc_score(part["target"] == "patient", part["probability_patient"]) for _, part in rows.groupby("fold")]
    metrics = rows_of(tables["metrics.tsv"], role="test", seed="all", metric="auroc")
    assert one(metrics, fold="all")["value"] == one(metrics, fold="mean")["value"] == pytest.approx(np.mean(by_fold))
    pooled = sk.roc_auc_score(rows["target"] == "patient", rows["probability_patient"])
    assert one(metrics, fold="pooled")["value"] == pytest.approx(pooled)
    accuracy = rows_of(tables["metrics.tsv"], role="test", seed="all", metric="accuracy")
    assert (
        one(accuracy, fold="all")["value"] == one(accuracy, fold="pooled")["value"] == (rows["target"] == rows["prediction"]).mean()
    )
    positives = int((rows["target"] == "patient").sum())
    assert one(tables["metrics.tsv"], role="test", seed="all", fold="all", metric="sensitivity")["n"] == positives


def test_shifted_folds_do_not_lower_the_headline(tmp_path: Path) -> None:
    """Models of different folds put their scores on different scales; each ranks its own images perfectly."""
    small = make(tmp_path, "classification")
    paths = predict_all(small, (("a", 1, 0.0),))
    for fold, path in enumerate(paths):
        table = read_table(path)
        score = 0.2 + 0.3 * fold + 0.01 * (table["target"] == "patient") + 0.001 * np.arange(len(table)) / len(table)
        write_table(path, table.assign(probability_patient=score, probability_control=1 - score))
    metrics = rows_of(evaluate(small, paths)["metrics.tsv"], metric="auroc", role="test", seed="all")
    assert one(metrics, fold="all")["value"] == 1
    assert one(metrics, fold="pooled")["value"] < 0.9
    assert one(metrics, fold="all")["ci_low"] < 1, "a perfect score on few groups is not certain"


def test_bytes_depend_on_neither_workers_nor_order(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    paths = predict_all(small)
    contents = []
    for order, threads in ((paths, 1), (paths[::-1], 2)):
        evaluate(small, order, threads=threads)
        contents.append([small.layout.experiment("trial", name).read_bytes() for name in FILES])
    assert contents[0] == contents[1]


def test_adding_a_model_changes_no_other(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    first = evaluate(small, predict_all(small, (("a", 2, 0.5),)))["metrics.tsv"]
    both = evaluate(small, predict_all(small))["metrics.tsv"]
    pd.testing.assert_frame_equal(first, rows_of(both, model="a").reset_index(drop=True))


def test_many_classes(tmp_path: Path) -> None:
    small = make(tmp_path, "classification", persons=36)
    persons = small.cohort["participant_id"].str[1:].astype(int)
    small.cohort["diagnosis"] = [("one", "two", "three")[number // 3 % 3] for number in persons]
    small.write()
    random, paths = np.random.default_rng(0), predict_all(small, (("a", 1, 1.0),))
    names = ["one", "three", "two"]
    for path in paths:
        table = read_table(path)
        found = random.dirichlet([1, 1, 1], len(table)) + 1.0 * (table["target"].to_numpy()[:, None] == names)
        found /= found.sum(1, keepdims=True)
        table = table.drop(columns=["probability_control", "probability_patient"])
        table[[f"probability_{name}" for name in names]] = found
        write_table(path, table.assign(prediction=np.array(names)[found.argmax(1)]))
    tables = evaluate(small, paths)
    rows = rows_of(tables["predictions.tsv"], role="test", fold="0")
    metrics = rows_of(tables["metrics.tsv"], role="test", seed="all", fold="0")
    scores = rows[[f"probability_{name}" for name in names]].to_numpy()
    expected = sk.roc_auc_score(rows["target"], scores, multi_class="ovr", labels=names)
    assert one(metrics, metric="auroc", structure="mean")["value"] == pytest.approx(expected)
    expected = sk.recall_score(rows["target"], rows["prediction"], average=None, labels=names)
    for name, value in zip(names, expected, strict=True):
        assert one(metrics, metric="sensitivity", structure=name)["value"] == pytest.approx(value)
    assert one(metrics, metric="accuracy", structure="")["value"] == (rows["target"] == rows["prediction"]).mean()


def test_what_is_undefined_has_no_row_and_is_listed(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    paths = predict_all(small, (("a", 1, 1.0), ("mean", 1, 1.0)))
    for path in paths[3:]:
        table = read_table(path)
        write_table(path, table.assign(prediction=table.groupby("fold")["target"].transform("mean")))
    tables = evaluate(small, paths)
    undefined = rows_of(tables["undefined.tsv"], model="mean", metric="correlation", role="test")
    assert {"all", "mean", "0", "1", "2"} <= set(undefined["fold"])
    assert undefined["why"].str.contains("equal").all()
    metrics = rows_of(tables["metrics.tsv"], model="mean", metric="correlation", role="test")
    assert set(metrics["fold"]) <= {"pooled"}
    assert len(rows_of(tables["metrics.tsv"], model="a", metric="correlation", role="test", fold="all")) == 2
    assert not len(rows_of(tables["undefined.tsv"], model="a"))


def test_a_fold_without_a_class_is_listed_and_not_counted(tmp_path: Path) -> None:
    small = make(tmp_path, "classification")
    alone = set(small.splits[(small.splits["fold"] == "1") & (small.splits["role"] == "test")]["participant_id"])
    small.cohort.loc[small.cohort["participant_id"].isin(alone), "diagnosis"] = "control"
    small.write()
    tables = evaluate(small, predict_all(small, (("a", 1, 1.0),)))
    metrics = rows_of(tables["metrics.tsv"], role="test", seed="all", metric="auroc")
    assert set(metrics["fold"]) == {"all", "mean", "pooled", "0", "2"}
    row = one(metrics, fold="all")
    others = ~small.cohort["participant_id"].isin(alone)
    assert row["n"] == others.sum()
    assert row["value"] == pytest.approx(metrics.loc[metrics["fold"].isin(["0", "2"]), "value"].mean())
    listed = rows_of(tables["undefined.tsv"], role="test", seed="all", metric="auroc")
    assert list(listed["fold"]) == ["1"]


def test_a_structure_that_nobody_has_is_listed(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    facts = json.loads(small.layout.dataset(DATASET, "dataset.json").read_text())
    facts["labels"]["label"]["7"] = "nowhere"
    small.layout.dataset(DATASET, "dataset.json").write_text(json.dumps(facts))
    tables = evaluate(small, predict_all(small, (("a", 1, 0.5),)))
    assert "nowhere" not in set(tables["metrics.tsv"]["structure"])
    assert set(rows_of(tables["undefined.tsv"], structure="nowhere", metric="dice")["why"]) == {
        "no image has this structure in its truth"
    }
    dice = rows_of(tables["cases.tsv"], metric="dice")
    means = dice[dice["structure"].isin(["front", "back"])].groupby(["image_id", "role"])["value"].mean()
    found = rows_of(dice, structure="mean").set_index(["image_id", "role"])["value"]
    pd.testing.assert_series_equal(found.sort_index(), means.sort_index())


def test_images_without_a_value_are_counted(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=12)
    root = small.layout.dataset(DATASET, "raw")
    name = small.cohort.loc[4, "label"]
    values = np.asarray(nib.load(root / name).dataobj).copy()
    values[values == 5] = 0
    nib.save(nib.Nifti1Image(values, AFFINE), root / name)
    refresh(small)
    tables = evaluate(small, predict_all(small, (("a", 1, 0.5),)))
    metrics = rows_of(tables["metrics.tsv"], role="test", fold="all", seed="all", structure="back")
    assert one(metrics, metric="dice")["n"] == len(small.cohort)
    assert one(metrics, metric="volume_error_relative")["n"] == len(small.cohort) - 1
    why = one(tables["undefined.tsv"], role="test", metric="volume_error_relative", structure="back")["why"]
    assert f"1 of {len(small.cohort)} images" in why
    case = one(
        tables["cases.tsv"], role="test", metric="volume_error_relative", structure="back", image_id=small.cohort.loc[4, "image_id"]
    )
    assert np.isnan(case["value"])


def refresh(small: Small) -> None:
    """Hash the files again, as the stage `dataset` would."""
    from gyri.images import row_digests

    root = small.layout.dataset(DATASET, "raw")
    digests = [row_digests(row, root) for row in small.cohort.to_dict("records")]
    small.cohort["sha256_file"], small.cohort["sha256_labels"] = zip(*digests, strict=True)
    small.write()


def test_only_the_mask_counts(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9, mask=True)
    paths = predict_all(small, (("a", 1, 0.0),))
    before = evaluate(small, paths)["metrics.tsv"]
    for path in small.layout.experiment("trial").glob("a/fold-*/seed-0/maps/*.nii.gz"):
        values = np.asarray(nib.load(path).dataobj).copy()
        values[7:] = 1  # the mask ends at 6
        nib.save(nib.Nifti1Image(values, AFFINE), path)
    after = evaluate(small, paths)["metrics.tsv"]
    pd.testing.assert_frame_equal(before, after)
    assert (rows_of(after, metric="dice", structure="front", role="test")["value"] == 1).all()


def test_missing_maps_are_all_named(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    paths = predict_all(small, (("a", 1, 0.5),))
    gone = sorted(small.layout.experiment("trial").glob("a/fold-1/seed-0/maps/*.nii.gz"))[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError) as caught:
        evaluate(small, paths)
    assert [problem.where for problem in caught.value.problems] == [str(path) for path in gone]
    assert not small.layout.experiment("trial", "metrics.tsv").exists()


def test_files_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    paths = predict_all(small, (("a", 1, 0.5),))
    maps = sorted(small.layout.experiment("trial").glob("a/fold-0/seed-0/maps/*.nii.gz"))
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), AFFINE), maps[0])
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.uint8), np.eye(4)), maps[1])
    maps[2].write_bytes(b"no image")
    label = small.layout.dataset(DATASET, "raw") / small.cohort.loc[8, "label"]
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(DataError) as caught:
        run(settings_of(small), small.layout, DATASET, "trial", paths, 2)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in (maps[0].name, maps[1].name, maps[2].name, "another affine", "changed since it was read"):
        assert part in text


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table of predictions."""
    write_table(path, change(read_table(path)))


def other_fold(small: Small, paths: list[Path]) -> None:
    """An image tested in fold 0 is tested in fold 1 too."""
    extra = rows_of(read_table(paths[0]), role="test").head(1).assign(fold="1")
    edit(paths[1], lambda table: pd.concat([table, extra]))


def both_sides(small: Small, paths: list[Path]) -> None:
    """One of the twins is validated on where the other is tested."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        twin = (table["role"] == "test") & (table["participant_id"] == "p01")
        return table.assign(role=table["role"].mask(twin, "validation"))

    for path in paths:
        edit(path, change)


def training(small: Small, paths: list[Path]) -> None:
    """A training image is measured."""
    edit(paths[0], lambda table: pd.concat([table, table.tail(1).assign(image_id="p04_s0", role="train")]))


def locked(small: Small, paths: list[Path]) -> None:
    """A locked participant slips into an ordinary evaluation."""
    edit(paths[0], lambda table: pd.concat([table, table.tail(1).assign(image_id="p04_s0", group="x", role="locked")]))


def lost_image(small: Small, paths: list[Path]) -> None:
    """A failed case is left out of one model's predictions."""
    edit(paths[2], lambda table: table.drop(index=len(table) - 1))


def invented_image(small: Small, paths: list[Path]) -> None:
    """A model predicts an image that the fold does not have."""
    edit(paths[2], lambda table: pd.concat([table, table.tail(1).assign(image_id="p99", group="p99")]))


def twice(small: Small, paths: list[Path]) -> None:
    """The same predictions twice."""
    paths.append(paths[0])


def lost_fold(small: Small, paths: list[Path]) -> None:
    """One model lacks a fold that another has."""
    paths.pop()


def lost_seed(small: Small, paths: list[Path]) -> None:
    """One seed of a model lacks a fold."""
    paths.remove(small.layout.run("trial", "a", 2, 1, "predictions.tsv"))


def other_target(small: Small, paths: list[Path]) -> None:
    """The target of the predictions is not that of the cohort."""
    edit(paths[0], lambda table: table.assign(target=table["target"] + 1))


def other_group(small: Small, paths: list[Path]) -> None:
    """The groups changed since the predictions were made."""
    edit(paths[0], lambda table: table.assign(group=table["group"] + "x"))


def not_a_number(small: Small, paths: list[Path]) -> None:
    """A prediction is missing."""
    edit(paths[0], lambda table: table.assign(prediction=table["prediction"].mask(table.index == 2)))


GUARDS: list[tuple[Callable[[Small, list[Path]], None], type[GyriError], str]] = [
    (other_fold, LeakageError, "tested in several folds"),
    (both_sides, LeakageError, "in several roles"),
    (training, LeakageError, "the roles train"),
    (locked, LeakageError, "the roles locked"),
    (lost_image, DataError, "no row for p"),
    (invented_image, DataError, "rows for p99"),
    (twice, DataError, "more than once"),
    (lost_fold, DataError, "none for fold 2, seed 0"),
    (lost_seed, DataError, "none for fold 2, seed 1"),
    (other_target, DataError, "another target"),
    (other_group, DataError, "another group"),
    (not_a_number, DataError, "no finite number"),
]


@pytest.mark.parametrize(("damage", "error", "message"), GUARDS, ids=[item[0].__name__ for item in GUARDS])
def test_guards(tmp_path: Path, damage: Callable[[Small, list[Path]], None], error: type[GyriError], message: str) -> None:
    small = make(tmp_path, "regression")
    paths = predict_all(small)
    damage(small, paths)
    with pytest.raises(error, match=message) as caught:
        evaluate(small, paths)
    for problem in caught.value.problems:
        assert all((problem.where, problem.got, problem.expected, problem.remedy))
    assert not small.layout.experiment("trial", "metrics.tsv").exists()


@pytest.mark.parametrize("change", [{"probability_patient": 0.9, "probability_control": 0.9}, {"prediction": "healthy"}])
def test_classes_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    small = make(tmp_path, "classification")
    paths = predict_all(small, (("a", 1, 1.0),))
    edit(paths[0], lambda table: table.assign(**change))
    with pytest.raises(DataError, match="predictions of a, fold 0, seed 0"):
        evaluate(small, paths)


def test_no_predictions_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one model"):
        evaluate(make(tmp_path, "regression"), [])


def test_a_missing_target_is_not_expected(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    small.cohort.loc[3, "age"] = np.nan
    small.write()
    paths = predict_all(small, (("a", 1, 1.0),))
    for path in paths:
        edit(path, lambda table: table[table["target"].notna()])
    metrics = evaluate(small, paths)["metrics.tsv"]
    assert one(metrics, role="test", fold="all", seed="all", metric="mae")["n"] == len(small.cohort) - 1


def test_one_fold_alone_is_a_pilot(tmp_path: Path) -> None:
    small = make(tmp_path, "regression", persons=30)
    metrics = rows_of(evaluate(small, [small.predict("a", 1, 0)])["metrics.tsv"], role="test", seed="all", metric="mae")
    assert set(metrics["fold"]) == {"all", "mean", "pooled", "1"}
    assert metrics["value"].nunique() == 1
    assert metrics["sd_folds"].isna().all()
    assert metrics["ci_low"].notna().all()


def test_locked_participants(tmp_path: Path) -> None:
    small = make(tmp_path, "regression", persons=36, locked=12)
    paths = [small.predict("a", fold, seed, locked=True) for fold in range(3) for seed in (0, 1)]
    members = EnsembleSettings(members=[("a", 0), ("a", 1)], folds=[0, 1, 2])
    average_members(members, small.layout, DATASET, "trial/locked", "ensemble.folds.a", "all")
    paths.append(small.layout.run("trial/locked", "ensemble.folds.a", "all", "all", "predictions.tsv"))
    with pytest.raises(DataError, match=r"fitted\.tsv"):
        evaluate(small, paths, "trial/locked")
    run(
        settings_of(small),
        small.layout,
        DATASET,
        "trial",
        [small.predict("a", fold, seed) for fold in range(3) for seed in (0, 1)],
        1,
    )
    small.layout.experiment("trial", "metrics.tsv").unlink()
    tables = evaluate(small, paths, "trial/locked")
    metrics = rows_of(tables["metrics.tsv"], metric="mae")
    assert set(metrics["role"]) == {"locked"}
    assert metrics["ci_low"].notna().all()
    images = set(metrics["n"])
    assert len(images) == 1, "the same locked images in every fold are not counted again"
    assert images == {len(small.rows(0, ("locked",)))}
    assert set(rows_of(metrics, model="ensemble.folds.a")["fold"]) == {"all"}
    assert set(rows_of(metrics, model="a", seed="all")["fold"]) == {"all", "mean", "0", "1", "2"}
    assert not small.layout.experiment("trial", "metrics.tsv").exists()
    with pytest.raises(LeakageError, match="the roles locked"):
        evaluate(small, paths, "trial")


def test_every_read_of_the_locked_set_is_written_down(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    for count in (1, 2, 3):
        path = record_locked_read(small.layout, "trial", settings_of(small))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == count
    assert path == small.layout.experiment("trial", "locked_reads.jsonl")
    assert {"time", "settings", "experiment"} == set(lines[0])
    assert lines[0]["experiment"] == "trial"
