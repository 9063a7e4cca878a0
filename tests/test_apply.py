"""New scans: the same result as for an image of the cohort, the average of members, all problems at once."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gyri.apply import predict_new
from gyri.errors import DataError
from gyri.inference import load_model
from gyri.layout import Layout
from gyri.loading import open_store
from gyri.predict import run as predict
from gyri.tables import read_table
from gyri.train import run as train
from packed import AFFINE, SHAPE, make_dataset, predict_settings, train_settings


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = make_dataset(tmp_path_factory.mktemp("segmenter"))
    for fold, seed in ((0, 0), (0, 1), (1, 0)):
        train(train_settings(epochs=3, learning_rate=0.02), layout, "tiny", "exp", "net", fold, seed, "f")
    return layout


def raw(layout: Layout, *names: str) -> list[Path]:
    return [layout.root.parent / "raw" / f"{name}.nii.gz" for name in names]


def test_one_run_gives_what_predict_gave(segmenter: Layout, tmp_path: Path) -> None:
    predict(predict_settings(), segmenter, "tiny", "exp", "net", 0, 0)
    folder = segmenter.run("exp", "net", 0, 0)
    predict_new(folder, raw(segmenter, "p00", "p13"), tmp_path / "out", 1)
    table = read_table(tmp_path / "out" / "predictions.tsv")
    assert list(table["image_id"]) == ["p00", "p13"]
    for name in ("p00", "p13"):
        new, old = nib.load(tmp_path / "out" / "maps" / f"{name}.nii.gz"), nib.load(folder / "maps" / f"{name}.nii.gz")
        assert new.shape == SHAPE and np.array_equal(new.affine, old.affine)
        assert np.array_equal(np.asarray(new.dataobj), np.asarray(old.dataobj))


def test_a_model_folder_averages_its_members(tmp_path: Path) -> None:
    layout = make_dataset(tmp_path / "data")
    for fold, seed in ((0, 0), (0, 1), (1, 0)):
        train(train_settings("regression", "conv5_fc3", epochs=1), layout, "tiny", "exp", "net", fold, seed, "f")
    facts = predict_new(layout.experiment("exp") / "net", raw(layout, "p16"), tmp_path / "out", 1)
    assert facts["members"] == 3
    image = np.asarray(open_store(layout, "tiny").images[16:17])
    alone = [
        load_model(layout.run("exp", "net", fold, seed), 1).probabilities(image)[0, 0] for fold, seed in ((0, 0), (0, 1), (1, 0))
    ]
    assert read_table(tmp_path / "out" / "predictions.tsv")["prediction"].item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_files_folders_and_tables_name_scans(segmenter: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.nii.gz").write_bytes(raw(segmenter, "p01")[0].read_bytes())
    (tmp_path / "table.tsv").write_text("image_id\timage_t1w\tage\nfirst\tscans/a.nii.gz\t3\nsecond\tscans/b.nii.gz\t4\n")
    (tmp_path / "table.csv").write_text("image\nscans/a.nii.gz\n")
    model = segmenter.run("exp", "net", 0, 0)
    expected = {"folder": ["a", "b"], "table.tsv": ["first", "second"], "table.csv": ["a"]}
    for what, names in expected.items():
        predict_new(model, [folder if what == "folder" else tmp_path / what], tmp_path / f"out-{what}", 1)
        assert list(read_table(tmp_path / f"out-{what}" / "predictions.tsv")["image_id"]) == names


def test_classification_gives_probabilities(tmp_path: Path) -> None:
    layout = make_dataset(tmp_path / "data")
    train(train_settings("classification", "linear"), layout, "tiny", "exp", "net", 0, 0, "f")
    predict_new(layout.experiment("exp") / "net", raw(layout, "p16", "p17"), tmp_path / "out", 1)
    table = read_table(tmp_path / "out" / "predictions.tsv")
    assert np.allclose(table[["probability_kind0", "probability_kind1"]].sum(axis=1), 1)
    assert set(table["prediction"]) <= {"kind0", "kind1"}


def test_a_scan_unlike_the_training_images_is_warned_of(segmenter: Layout, tmp_path: Path) -> None:
    values = np.asarray(nib.load(raw(segmenter, "p01")[0]).dataobj)
    nib.save(nib.Nifti1Image(values, np.diag([4.0, 4, 4, 1])), tmp_path / "coarse.nii.gz")
    facts = predict_new(
        segmenter.run("exp", "net", 0, 0), [tmp_path / "coarse.nii.gz", *raw(segmenter, "p01")], tmp_path / "out", 1
    )
    warnings = read_table(tmp_path / "out" / "predictions.tsv")["warning"]
    assert facts["warnings"] == 1 and "4 x 4 x 4" in warnings[0] and warnings.isna()[1]


def test_all_problems_come_at_once_and_nothing_is_written(segmenter: Layout, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.tsv").write_text("image_id\timage_t1w\nx\tgone.nii.gz\n")
    (tmp_path / "columns.csv").write_text("file\nx\n")
    good = raw(segmenter, "p01")
    paths = [tmp_path / name for name in ("text.txt", "empty", "gone.nii", "table.tsv", "columns.csv")]
    with pytest.raises(DataError) as caught:
        predict_new(tmp_path / "nowhere", [*paths, *good, *good], tmp_path / "out", 1)
    assert len(caught.value.problems) == 7
    assert all(problem.got and problem.expected and problem.remedy for problem in caught.value.problems)
    assert not (tmp_path / "out").exists()


def test_unreadable_scans_are_named_together(segmenter: Layout, tmp_path: Path) -> None:
    cut = raw(segmenter, "p01")[0].read_bytes()[:-50]
    (tmp_path / "cut.nii.gz").write_bytes(cut)
    nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), AFFINE), tmp_path / "nan.nii.gz")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((*SHAPE, 2)).astype(np.float32), AFFINE), tmp_path / "two.nii.gz")
    with pytest.raises(DataError) as caught:
        predict_new(segmenter.run("exp", "net", 0, 0), [tmp_path], tmp_path / "out", 1)
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "out" / "predictions.tsv").exists() and not list(tmp_path.glob("out/.partial*"))


def test_earlier_predictions_are_not_overwritten(segmenter: Layout, tmp_path: Path) -> None:
    model = segmenter.run("exp", "net", 0, 0)
    predict_new(model, raw(segmenter, "p01"), tmp_path / "out", 1)
    with pytest.raises(DataError, match="name another folder"):
        predict_new(model, raw(segmenter, "p01"), tmp_path / "out", 1)


def test_members_trained_for_different_things_are_refused(segmenter: Layout, tmp_path: Path) -> None:
    for seed, source in ((0, "seed-0"), (1, "seed-1")):
        folder = tmp_path / "net" / "fold-0" / f"seed-{seed}"
        folder.mkdir(parents=True)
        text = (segmenter.experiment("exp") / "net" / "fold-0" / source / "model.json").read_text()
        (folder / "model.json").write_text(text if seed == 0 else text.replace("front", "other"))
    with pytest.raises(DataError, match="another names"):
        predict_new(tmp_path / "net", raw(segmenter, "p01"), tmp_path / "out", 1)
