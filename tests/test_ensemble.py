"""Ensembles: averages of members inside a fold, over folds only on locked participants, back on the original grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gyri.config.experiments import EnsembleSettings
from gyri.ensemble import run
from gyri.errors import DataError, LeakageError
from gyri.io import write_json
from gyri.tables import read_table, write_table
from small_experiment import AFFINE, DATASET, SHAPE, make, record

MEMBERS = EnsembleSettings(members=[("a", 0), ("a", 1), ("b", 0)])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_average_of_probabilities_and_values(tmp_path: Path, task: str) -> None:
    small = make(tmp_path, task)
    tables = [read_table(small.predict(model, 1, seed)) for model, seed in MEMBERS.members]
    facts = run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 1)
    found = read_table(small.layout.run("trial", "ensemble.models.mean", 1, "all", "predictions.tsv"), "predictions")
    assert facts["images"] == len(found) == len(tables[0])
    assert set(found["seed"]) == {"all"}
    assert set(found["model"]) == {"ensemble.models.mean"}
    same = ["image_id", "participant_id", "group", "fold", "role", "target"]
    assert found[same].equals(tables[0][same])
    columns = ["prediction"] if task == "regression" else ["probability_control", "probability_patient"]
    expected = np.mean([table[columns].to_numpy(float) for table in tables], axis=0)
    np.testing.assert_allclose(found[columns].to_numpy(float), expected, rtol=1e-14)
    if task == "classification":
        assert list(found["prediction"]) == [("control", "patient")[index] for index in expected.argmax(1)]


def test_label_maps_are_averaged_on_the_network_grid(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=9)
    tables = [read_table(small.predict(model, 0, seed, noise=2.5)) for model, seed in MEMBERS.members]
    run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)
    found = read_table(small.layout.run("trial", "ensemble.models.mean", 0, "all", "predictions.tsv"), "predictions")
    folders = [small.layout.run("trial", model, 0, seed) for model, seed in MEMBERS.members]
    arrays = [np.load(folder / "probabilities.npy").astype(np.float32) for folder in folders]
    changed = 0
    for index, row in enumerate(found.itertuples()):
        image = nib.load(small.layout.experiment("trial", row.prediction))
        assert image.shape == SHAPE
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
        mean = np.mean([array[index] for array in arrays], axis=0)
        expected = np.array([0, 1, 5])[record().invert(mean).argmax(0)]
        data = np.asarray(image.dataobj)
        assert (data == expected).mean() > 0.999  # a tie may fall either way by rounding
        changed += int(
            (data != np.asarray(nib.load(small.layout.experiment("trial", tables[0]["prediction"][index])).dataobj)).sum()
        )
    assert changed, "the average should differ from its first member"


def test_one_member_is_that_member(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=6)
    table = read_table(small.predict("a", 0, 0))
    run(EnsembleSettings(members=[("a", 0)]), small.layout, DATASET, "trial", "ensemble.seeds.a", 0)
    found = read_table(small.layout.run("trial", "ensemble.seeds.a", 0, "all", "predictions.tsv"))
    for first, second in zip(table["prediction"], found["prediction"], strict=True):
        assert small.layout.experiment("trial", first).read_bytes() == small.layout.experiment("trial", second).read_bytes()


def test_same_bytes_again(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=6)
    for model, seed in MEMBERS.members:
        small.predict(model, 0, seed)
    contents = []
    for _ in range(2):
        run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)
        folder = small.layout.run("trial", "ensemble.models.mean", 0, "all")
        contents.append({path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()})
    assert contents[0] == contents[1]


def test_over_folds_on_locked_participants(tmp_path: Path) -> None:
    small = make(tmp_path, "regression", locked=6)
    tables = [read_table(small.predict("a", fold, seed, locked=True)) for seed in (0, 1) for fold in range(3)]
    settings = EnsembleSettings(members=[("a", 0), ("a", 1)], folds=[0, 1, 2])
    facts = run(settings, small.layout, DATASET, "trial/locked", "ensemble.folds.a", "all")
    found = read_table(small.layout.run("trial/locked", "ensemble.folds.a", "all", "all", "predictions.tsv"), "predictions")
    assert len(facts["members"]) == 6
    assert set(found["fold"]) == {"all"}
    np.testing.assert_allclose(found["prediction"], np.mean([table["prediction"] for table in tables], axis=0))


def test_over_folds_is_refused_where_a_fold_was_trained_on_them(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    for fold in range(3):
        small.predict("a", fold, 0)
    settings = EnsembleSettings(members=[("a", 0)], folds=[0, 1, 2])
    with pytest.raises(LeakageError, match="over folds") as caught:
        run(settings, small.layout, DATASET, "trial", "ensemble.folds.a", "all")
    assert len(caught.value.problems) == 3
    # a table of another fold smuggled into a fold is the same thing
    path = small.layout.run("trial", "a", 0, 0, "predictions.tsv")
    path.write_bytes(small.layout.run("trial", "a", 1, 0, "predictions.tsv").read_bytes())
    with pytest.raises(LeakageError, match="over folds"):
        run(settings, small.layout, DATASET, "trial", "ensemble.seeds.a", 0)


def test_members_trained_elsewhere_are_refused(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    for model, seed in MEMBERS.members:
        small.predict(model, 0, seed)
    other = small.layout.run("trial", "b", 0, 0, "model.json")
    write_json(other, {"conditions": {"torch": "2.13.0", "device": "NVIDIA H200"}})
    with pytest.raises(DataError, match="allow_mixed") as caught:
        run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)
    assert [problem.where for problem in caught.value.problems] == [str(other)]
    run(MEMBERS.model_copy(update={"allow_mixed": True}), small.layout, DATASET, "trial", "ensemble.models.mean", 0)
    write_json(other, {"conditions": {}})  # a baseline was trained nowhere
    run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)


def test_changed_batches_are_averaged_with_others_only_when_told(tmp_path: Path) -> None:
    small = make(tmp_path, "classification")
    members = [("a", 0), ("b", 0), ("c", 0)]
    for model, seed in members:
        small.predict(model, 0, seed)
    settings = EnsembleSettings(members=members)
    conditions = {"conditions": {"torch": "2.13.0", "device": "cuda"}}

    def written(**cards: dict[str, Any]) -> None:
        for model, _ in members:
            write_json(small.layout.run("trial", model, 0, 0, "model.json"), {**conditions, **cards.get(model, {})})

    def averaged(settings: EnsembleSettings = settings) -> None:
        run(settings, small.layout, DATASET, "trial", "ensemble.models.mean", 0)

    two, four = {"changed_batch": True, "micro_batch": 2}, {"changed_batch": True, "micro_batch": 4}
    written(b={"changed_batch": False, "micro_batch": 2})  # the same update in parts
    averaged()
    written(b=two)
    with pytest.raises(DataError, match="allow_changed_batch") as caught:
        averaged()
    assert "micro-batches of 2" in caught.value.problems[0].got and "whole batches" in caught.value.problems[0].expected
    written(a=two, b=two, c=four)
    with pytest.raises(DataError, match="micro-batches of 4"):
        averaged()
    averaged(settings.model_copy(update={"allow_changed_batch": True}))
    written(a=two, b=two, c=two)  # all alike
    averaged()


def test_members_must_agree(tmp_path: Path) -> None:
    small = make(tmp_path, "classification")
    paths = [small.predict(model, 0, seed) for model, seed in MEMBERS.members]
    table = read_table(paths[1])
    write_table(paths[1], table.drop(index=3))
    table = read_table(paths[2])
    table.loc[0, "target"] = "patient" if table.loc[0, "target"] == "control" else "control"
    write_table(paths[2], table)
    with pytest.raises(DataError) as caught:
        run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)
    assert len(caught.value.problems) == 2
    assert "without p" in str(caught.value)
    assert "other rows for p" in str(caught.value)


def test_missing_members_are_all_named(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    small.predict("a", 0, 0)
    with pytest.raises(DataError) as caught:
        run(MEMBERS, small.layout, DATASET, "trial", "ensemble.models.mean", 0)
    assert len(caught.value.problems) == 4
    assert all("predict" in problem.remedy for problem in caught.value.problems)


def test_probabilities_of_another_shape_are_refused(tmp_path: Path) -> None:
    small = make(tmp_path, "segmentation", persons=6)
    small.predict("a", 0, 0)
    folder = small.predict("a", 0, 1).parent
    np.save(folder / "probabilities.npy", np.load(folder / "probabilities.npy")[:-1])
    with pytest.raises(DataError, match="shape"):
        run(EnsembleSettings(members=[("a", 0), ("a", 1)]), small.layout, DATASET, "trial", "ensemble.seeds.a", 0)
