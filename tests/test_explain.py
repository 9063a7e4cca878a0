"""The stage explain: which images, the check with random weights, what is written, what leaves no trace."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gyri import settings as choose
from gyri.config.load import parse_config
from gyri.config.saliency import ExplainSettings, Saliency
from gyri.errors import DataError
from gyri.explain import deaf_folds, run, template_grid
from gyri.explain.choice import choose_images
from gyri.explain.maps import scaled
from gyri.explain.methods import occlusion
from gyri.explain.regions import shares
from gyri.explain.similarity import rank_correlation, structural_similarity
from gyri.fingerprint import closure
from gyri.io import read_json, sha256_file
from gyri.layout import Layout
from gyri.models.learning_task import LearningTask
from gyri.plan import STARTUP_SECONDS, saliency_seconds
from gyri.tables import read_table
from gyri.train import run as train
from gyri.transforms.spatial import SpatialRecord
from packed import make_dataset, train_settings

FILES = ("saliency.tsv", "regions.tsv", "maps.npy", "means.nii.gz", "saliency.json")


def test_similarity_flags_a_method_that_ignores_the_weights() -> None:
    random = np.random.default_rng(0)
    image, everywhere = random.normal(size=(12, 12, 12)), np.ones((12, 12, 12), bool)
    edges = np.linalg.norm(np.gradient(image), axis=0)  # what an edge detector shows, whatever the weights
    assert rank_correlation(edges, 3 * edges, everywhere) == pytest.approx(1)
    assert structural_similarity(edges, 3 * edges, everywhere) == pytest.approx(1)
    other = np.linalg.norm(np.gradient(random.normal(size=(12, 12, 12))), axis=0)
    assert abs(rank_correlation(edges, other, everywhere)) < 0.15 and structural_similarity(edges, other, everywhere) < 0.3
    assert rank_correlation(edges, -edges, everywhere) == pytest.approx(1), "signs do not count"
    assert np.isnan(rank_correlation(edges, np.zeros_like(edges), everywhere))
    assert np.isnan(structural_similarity(edges, np.zeros_like(edges), everywhere))
    # only voxels inside count
    half = everywhere.copy()
    half[6:] = False
    mixed = np.where(half, edges, other)
    assert rank_correlation(edges, mixed, half) == pytest.approx(1) and rank_correlation(edges, mixed, everywhere) < 0.9


def test_shares_of_regions() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0], labels[1, 1] = 1, 7
    saliency = np.where(labels == 1, -3.0, 1.0)
    rows = {row["structure"]: row for row in shares(saliency, labels, {0: "background", 1: "one", 2: "absent", 7: "seven"})}
    assert set(rows) == {"background", "one", "seven"}
    assert rows["one"]["share"] == pytest.approx(0.5) and rows["one"]["volume_share"] == pytest.approx(0.25)
    assert rows["one"]["ratio"] == pytest.approx(2) and sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert np.isnan(shares(np.zeros((2, 2, 2)), labels, {1: "one"})[0]["ratio"])


def test_maps_are_divided_by_their_mean() -> None:
    maps = np.stack([np.full((2, 2, 2), -4.0), np.zeros((2, 2, 2))]).astype(np.float32)
    assert (scaled(maps)[0] == -1).all() and not scaled(maps)[1].any()


def fold_rows() -> pd.DataFrame:
    """Twenty images of fifteen groups, a quarter of them of class b."""
    names = [f"i{index:02d}" for index in range(20)]
    groups = [f"g{min(index, 14)}" for index in range(20)]
    return pd.DataFrame({"image_id": names, "group": groups, "target": ["b" if index % 4 == 0 else "a" for index in range(20)]})


def test_images_are_drawn_over_classes_and_groups() -> None:
    table = fold_rows()
    drawn = choose_images(table, "classification", 4, np.random.default_rng(1))
    assert sorted(drawn["target"]) == ["a", "a", "b", "b"] and drawn["group"].is_unique
    assert drawn["image_id"].tolist() == choose_images(table, "classification", 4, np.random.default_rng(1))["image_id"].tolist()
    several = {tuple(choose_images(table, "classification", 4, np.random.default_rng(seed))["image_id"]) for seed in range(9)}
    assert len(several) > 5
    assert len(choose_images(table, "classification", 99, np.random.default_rng(1))) == 15
    ages = table.assign(target=np.arange(20.0))
    thirds = choose_images(ages, "regression", 3, np.random.default_rng(2))["target"] // (20 / 3)
    assert sorted(thirds) == [0, 1, 2]


def explain_settings(task: str, folds: tuple[int, ...] = (0, 1), **saliency: object) -> ExplainSettings:
    chosen = Saliency.model_validate({"images": 2, "patch_mm": 4, "stride_mm": 4, **saliency})
    return ExplainSettings(network="conv5_fc3", task=task, saliency=chosen, folds=list(folds), seed=7, threads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Classifiers of two folds and a regression of one."""
    layout = make_dataset(tmp_path_factory.mktemp("explain"))
    for fold in (0, 1):
        settings = train_settings("classification", "conv5_fc3", epochs=12, learning_rate=0.01)
        settings.arguments.update(width=2, dropout=0.0)
        train(settings, layout, "tiny", "kinds", "net", fold, 0, f"kinds{fold}")
    settings = train_settings("regression", "conv5_fc3", epochs=2)
    settings.arguments.update(width=2)
    train(settings, layout, "tiny", "ages", "net", 0, 0, "ages")
    return layout


def test_the_stage_writes_maps_of_test_images_only(trained: Layout) -> None:
    facts = run(explain_settings("classification"), trained, "tiny", "kinds", "net")
    folder = trained.saliency("kinds", "net")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    table, maps = read_table(folder / "saliency.tsv"), np.load(folder / "maps.npy", allow_pickle=False)
    assert facts["images"] == 4 and len(table) == len(maps) == 2 * 2 * 3 * 2 and table["map"].tolist() == list(range(24))
    splits = read_table(trained.dataset("tiny", "splits.tsv"), "splits")
    tested = splits[splits["role"] == "test"]
    assert set(zip(table["participant_id"], table["fold"], strict=True)) <= set(
        zip(tested["participant_id"], tested["fold"], strict=True)
    )
    filled = maps[(table["empty"] == "no").to_numpy()]
    assert np.allclose(np.abs(filled).mean(axis=(1, 2, 3)), 1, atol=1e-5) and len(filled) > 12
    compared = table[table["randomized"] == "yes"]
    assert compared["rank_correlation"].notna().any() and table.loc[table["randomized"] == "no", "ssim"].isna().all()
    assert set(table["explained"]) == {"kind1"}
    about = read_json(folder / "saliency.json")
    assert about["space"] == "network" and about["layer"]["shape"] == [4, 4, 4]
    image = nib.load(folder / "means.nii.gz")
    assert image.shape == (8, 8, 8, 6) and int(image.header["sform_code"]) == 0, "no space is claimed"
    volume = about["volumes"][0]
    rows = table[(table["method"] == "gradient") & (table["randomized"] == "no") & (table["empty"] == "no")]
    assert volume == {"method": "gradient", "randomized": "no", "maps": len(rows)}
    assert np.allclose(np.asarray(image.dataobj)[..., 0], maps[rows["map"]].mean(0), atol=1e-5)
    regions = read_table(folder / "regions.tsv")
    assert set(regions["structure"]) == {"background", "front", "back"} and set(regions["label"]) == {"label"}


def test_the_same_bytes_again_and_other_images_for_another_seed(trained: Layout) -> None:
    folder = trained.saliency("kinds", "net")
    run(explain_settings("classification"), trained, "tiny", "kinds", "net")
    before = {name: sha256_file(folder / name) for name in FILES}
    run(explain_settings("classification"), trained, "tiny", "kinds", "net")
    assert {name: sha256_file(folder / name) for name in FILES} == before
    run(explain_settings("classification").model_copy(update={"seed": 8}), trained, "tiny", "kinds", "net")
    assert sha256_file(folder / "maps.npy") != before["maps.npy"]


def test_images_that_are_not_tested_leave_no_trace(trained: Layout) -> None:
    """The taint test: whatever is not in the test role of a fold that is explained is overwritten; the maps may not move."""
    folder, store = trained.saliency("ages", "net"), trained.dataset("tiny", "images.npy")
    settings = explain_settings("regression", (0,), methods=["gradient", "occlusion"])
    run(settings, trained, "tiny", "ages", "net")
    before = sha256_file(folder / "maps.npy")
    splits = read_table(trained.dataset("tiny", "splits.tsv"), "splits")
    tested = set(splits.loc[(splits["role"] == "test") & (splits["fold"] == "0"), "participant_id"])
    rows = read_json(trained.dataset("tiny", "images.json"))["rows"]
    content = store.read_bytes()
    try:
        images = np.load(store)
        for place, row in enumerate(rows):
            if row["participant_id"] not in tested:
                images[place] = np.nan
        np.save(store, images)
        run(settings, trained, "tiny", "ages", "net")
        assert sha256_file(folder / "maps.npy") == before
        images[:] = 0
        np.save(store, images)
        with pytest.raises(DataError, match="another content"):
            run(settings, trained, "tiny", "ages", "net")
    finally:
        store.write_bytes(content)
    assert set(read_table(folder / "saliency.tsv")["explained"]) == {"age"}


def test_what_has_no_maps_says_why(trained: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    train(train_settings("regression", "mean"), trained, "tiny", "ages", "mean", 0, 0, "mean")
    with pytest.raises(DataError, match="one number per image"):
        run(explain_settings("regression", (0,)), trained, "tiny", "ages", "mean")
    monkeypatch.setattr("gyri.explain.methods.CONVOLUTIONS", ())
    run(explain_settings("regression", (0,)), trained, "tiny", "ages", "net")
    about = read_json(trained.saliency("ages", "net", "saliency.json"))
    assert about["skipped"] == {"class_activation": "the network has no convolutions"} and about["layer"] is None
    assert about["methods"] == ["gradient", "occlusion"]


def test_a_network_that_ignores_its_input_is_a_warning() -> None:
    rows = [("0", "no", "yes"), ("0", "yes", "no"), ("1", "no", "yes"), ("1", "no", "no")]
    (said,) = deaf_folds(pd.DataFrame(rows, columns=["fold", "randomized", "empty"]))
    assert said.startswith("fold 0") and "does not depend on the image" in said


def test_only_registered_images_are_in_template_space() -> None:
    eye = tuple(tuple(row) for row in np.eye(4).tolist())
    moved = tuple(tuple(row) for row in (np.eye(4) + np.eye(4, k=3)).tolist())
    plain = SpatialRecord((4, 4, 4), eye, (0, 1, 2), (False,) * 3, (4, 4, 4), eye, (0, 0, 0), (4, 4, 4))
    # another person lies elsewhere in the scanner, and on the same place of the template
    first = SpatialRecord((4, 4, 4), eye, (0, 1, 2), (False,) * 3, (4, 4, 4), eye, (0, 0, 0), (4, 4, 4), eye)
    second = SpatialRecord((4, 4, 4), moved, (0, 1, 2), (False,) * 3, (4, 4, 4), eye, (0, 0, 0), (4, 4, 4), moved)
    shifted = SpatialRecord((4, 4, 4), moved, (0, 1, 2), (False,) * 3, (4, 4, 4), eye, (0, 0, 0), (4, 4, 4), eye)
    found = template_grid([first, second])
    assert found is not None and np.allclose(found, np.eye(4))
    assert template_grid([plain]) is None and template_grid([first, plain]) is None and template_grid([first, shifted]) is None


def test_the_plan_counts_the_boxes(tmp_path: Path) -> None:
    experiment = {"dataset": "d", "task": "regression", "target": "age", "architectures": {"conv5_fc3": {}}}
    source = {"format": "synthetic", "folds": 3, "spacing_mm": 6, "shape": [32, 40, 32]}
    config = parse_config({"datasets": {"d": source}, "experiments": {"e": experiment}}, Path("c.yaml"))
    # 30 mm are 5 voxels: 7 x 8 x 7 boxes, 4 images, 3 folds, trained and random weights
    whole = saliency_seconds(config, Layout(tmp_path), "e", 0.01)
    assert whole - STARTUP_SECONDS[True] == pytest.approx(7 * 8 * 7 * 4 * 3 * 2 * 0.01)
    task = LearningTask("regression", 1, (32, 40, 32), 1)
    calls: list[int] = []

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(len(images))
            return images.mean((1, 2, 3, 4))[:, None]

    occlusion(Counted().eval(), torch.zeros(1, 1, 32, 40, 32), torch.zeros(1, dtype=torch.long), task, (5, 5, 5), (5, 5, 5), [0.0])
    assert sum(calls) == 1 + 7 * 8 * 7
    assert saliency_seconds(config, Layout(tmp_path), "e", None) == STARTUP_SECONDS[True]


def test_settings_are_closed_and_reach_the_stage() -> None:
    with pytest.raises(ValidationError, match="never hidden"):
        Saliency(patch_mm=10, stride_mm=20)
    with pytest.raises(ValidationError):
        Saliency.model_validate({"methods": ["guided_backprop"]})
    experiment = {
        "dataset": "d",
        "task": "regression",
        "target": "age",
        "architectures": {"conv5_fc3": {}},
        "saliency": {"images": 3},
    }
    tissue = {"dataset": "d", "task": "segmentation", "architectures": {"unet": {}}}
    content = {
        "datasets": {"d": {"format": "synthetic", "folds": 3, "run_folds": [1]}},
        "experiments": {"e": experiment, "t": tissue},
    }
    config = parse_config(content, Path("c.yaml"))
    found = choose.explain_settings(config, "e", "conv5_fc3")
    assert found.saliency.images == 3 and found.folds == [1] and choose.explained(config, "e") == ["conv5_fc3"]
    assert choose.explained(config, "t") == []
    assert choose.stage_modules("explain", found) == ["gyri.explain", "gyri.models.conv5_fc3"]
    # editing a method reruns the maps, not the training; the page reads files and needs no torch
    assert "gyri.explain.methods" in closure(choose.stage_modules("explain", found))
    for stage, settings in (("train", choose.train_settings), ("predict-fold", choose.predict_settings)):
        assert not [name for name in closure(choose.stage_modules(stage, settings(config, "e", "conv5_fc3"))) if "explain" in name]
    assert not [name for name in closure(["gyri.report"]) if "explain" in name]
    assert choose.report_settings(config, "e").explained == ["conv5_fc3"]
    experiment["saliency"] = {"methods": []}
    assert choose.explained(parse_config(content, Path("c.yaml")), "e") == []
