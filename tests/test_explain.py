"""Saliency: every method against what is known of a hand-made network, the check with random weights, and the stage itself."""

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
from gyri.explain import run, template_grid
from gyri.explain.choice import choose_images
from gyri.explain.maps import explained_class, scaled
from gyri.explain.methods import class_activation, evidence, gradient, last_features, occlusion
from gyri.explain.regions import shares
from gyri.explain.similarity import rank_correlation, structural_similarity
from gyri.io import read_json, sha256_file
from gyri.layout import Layout
from gyri.models.conv5_fc3 import conv5_fc3
from gyri.models.learning_task import LearningTask
from gyri.tables import read_table
from gyri.train import run as train
from gyri.transforms.spatial import SpatialRecord
from packed import make_dataset, train_settings

CLASSES = LearningTask("classification", 2, (4, 5, 6), 3)
PLANE = LearningTask("regression", 1, (8, 9, 1), 1)
BOX = (slice(4, 8), slice(0, 4), slice(8, 12))
FILES = ("saliency.tsv", "regions.tsv", "maps.npy", "means.nii.gz", "saliency.json")


class Reads(nn.Module):
    """The mean over one box of the image, as the evidence for class 1."""

    def forward(self, images: Tensor) -> Tensor:
        seen = images[(slice(None), 0, *BOX)].mean((1, 2, 3))
        return torch.stack([-seen, seen], 1)


class Maps(nn.Module):
    """A convolution of one voxel, a rectifier and a mean: the maps that speak for class 1 are known."""

    def __init__(self, dimensions: int = 3):
        super().__init__()
        self.convolution = (nn.Conv3d if dimensions == 3 else nn.Conv2d)(1, 2, 1)
        self.rectifier = nn.ReLU(inplace=True)
        self.last = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([1.0, -1.0]).reshape(self.convolution.weight.shape))
            self.convolution.bias.zero_()
            self.last.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -2.0]]))

    def forward(self, images: Tensor) -> Tensor:
        features = self.rectifier(self.convolution(images))
        return self.last(features.flatten(2).mean(2))


def smooth_network(task: LearningTask) -> nn.Module:
    """Without rectifiers, so that it has a slope everywhere."""
    torch.manual_seed(3)
    convolution = (nn.Conv3d if task.dimensions == 3 else nn.Conv2d)(task.in_channels, 4, 3, padding=1)
    size = 4 * int(np.prod(task.shape))
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(size, task.n_outputs)).double().eval()


@pytest.mark.parametrize("task", [CLASSES, PLANE])
def test_gradient_is_the_finite_difference(task: LearningTask) -> None:
    network, images = smooth_network(task), torch.randn(2, task.in_channels, *task.shape, dtype=torch.float64)
    targets = torch.tensor([2, 0]) if task.task == "classification" else torch.zeros(2, dtype=torch.long)
    found = gradient(network, images, targets, task)
    assert found.shape == (2, *task.shape)
    step, outside = 1e-5, task.shape[2] - 1
    for voxel in [(0, 0, 0), (3, 4, outside), (2, 1, min(3, outside))]:
        slopes = []
        for channel in range(task.in_channels):
            moved = []
            for sign in (1, -1):
                other = images.clone()
                other[(slice(None), channel, *voxel)] += sign * step
                outputs = network(other if task.dimensions == 3 else other[..., 0])
                moved.append(evidence(outputs, targets, task))
            slopes.append((moved[0] - moved[1]) / (2 * step))
        assert torch.allclose(found[(slice(None), *voxel)], torch.stack(slopes).abs().amax(0), rtol=1e-6)


def test_evidence_is_the_logit_against_the_others() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]), torch.tensor([2, 1])
    assert evidence(outputs, targets, CLASSES).tolist() == [4.5, 3.0]
    assert torch.allclose(evidence(outputs + 7, targets, CLASSES), evidence(outputs, targets, CLASSES))
    assert evidence(outputs[:, :1], targets, PLANE).tolist() == [1.0, 0.0]
    two = LearningTask("classification", 1, (4, 4, 4), 2)
    assert explained_class(two, np.array([0, 1])).tolist() == [1, 1]
    assert explained_class(CLASSES, np.array([0, 2])).tolist() == [0, 2]


def test_smoothed_gradients_average_noisy_copies() -> None:
    network, images = smooth_network(CLASSES), torch.randn(1, 2, *CLASSES.shape, dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.long)
    plain = gradient(network, images, one, CLASSES)
    assert torch.allclose(gradient(network, images, one, CLASSES, samples=3, noise=0.0), plain)
    noisy = gradient(network, images, one, CLASSES, samples=3, noise=0.2, seed=5)
    assert not torch.allclose(noisy, plain)
    assert torch.equal(noisy, gradient(network, images, one, CLASSES, samples=3, noise=0.2, seed=5))


def test_occlusion_finds_the_only_box_that_is_read() -> None:
    task = LearningTask("classification", 1, (12, 12, 12), 2)
    images, target = torch.full((1, 1, 12, 12, 12), 5.0), torch.ones(1, dtype=torch.long)
    found = occlusion(Reads().eval(), images, target, task, (4, 4, 4), (4, 4, 4), [1.0])[0]
    expected = torch.zeros(12, 12, 12)
    expected[BOX] = 2 * (5.0 - 1.0)  # the logit falls by 4, that of the other class rises by 4
    assert torch.allclose(found, expected)
    # boxes that overlap: each voxel has the mean over those that cover it, and the last box ends with the image
    finer = occlusion(Reads().eval(), images, target, task, (4, 4, 4), (3, 3, 3), [1.0])[0]
    assert torch.isfinite(finer).all() and finer[11, 11, 11] == 0
    assert finer[5, 1, 10] == pytest.approx(6) and not finer[:3].any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_class_activation_is_the_closed_form(dimensions: int) -> None:
    shape = (6, 5, 4) if dimensions == 3 else (6, 5, 1)
    task = LearningTask("classification", 1, shape, 2)
    images = torch.randn(1, 1, *shape)
    voxels = images.numel()
    weights = torch.tensor([3.0, -2.0]) / voxels  # slope of the evidence at every voxel of each map
    expected = (weights[0] * images.relu() + weights[1] * (-images).relu())[:, 0]
    found = class_activation(Maps(dimensions).eval(), images, torch.ones(1, dtype=torch.long), task)
    assert found.shape == (1, *shape)
    assert torch.allclose(found, expected.relu(), atol=1e-7)
    # a regression has no class: the same maps keep their sign
    signed = LearningTask("regression", 1, shape, 1)
    network = Maps(dimensions).eval()
    network.last.weight = nn.Parameter(torch.tensor([[3.0, -2.0]]))
    assert torch.allclose(class_activation(network, images, torch.zeros(1, dtype=torch.long), signed), expected, atol=1e-7)


def test_class_activation_takes_the_last_maps_that_are_fine_enough() -> None:
    task = LearningTask("classification", 1, (32, 40, 32), 2)
    network = conv5_fc3(task, width=1).eval()
    name, features, _ = last_features(network, torch.randn(1, 1, 32, 40, 32).requires_grad_(), task)
    assert name == "blocks.3.normalization" and features.shape[2:] == (4, 5, 4)
    assert (features >= 0).all(), "the rectifier works in place, so that the maps are rectified"
    small = LearningTask("classification", 1, (8, 8, 8), 2)
    deepest = last_features(conv5_fc3(small, width=1).eval(), torch.randn(1, 1, 8, 8, 8).requires_grad_(), small)
    assert deepest[0] == "blocks.1.normalization" and deepest[1].shape[2:] == (4, 4, 4)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(512, 2))
    with pytest.raises(ValueError, match="without convolutions"):
        class_activation(flat, torch.randn(1, 1, 8, 8, 8), torch.ones(1, dtype=torch.long), small)


class Detector(nn.Module):
    """A network that was taught nothing but one place: a convolution, then weights that are large in one corner."""

    def __init__(self, corner: float):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)
        self.last = nn.Linear(2 * 8**3, 2)
        mask = torch.zeros(2, 8, 8, 8)
        mask[:, :4, :4, :4] = corner
        with torch.no_grad():
            self.convolution.weight.abs_()
            self.last.weight[1] = mask.flatten()
            self.last.weight[0] = 0
            self.last.weight += 1e-4 * torch.randn(self.last.weight.shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.convolution(images).relu().flatten(1))


@pytest.mark.parametrize("method", ["gradient", "occlusion", "class_activation"])
def test_maps_concentrate_on_a_planted_signal(method: str) -> None:
    task = LearningTask("classification", 1, (8, 8, 8), 2)
    images, target = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.1, torch.ones(1, dtype=torch.long)
    images[:, :, :4, :4, :4] += 2
    network = Detector(1.0).eval()
    if method == "occlusion":
        found = occlusion(network, images, target, task, (4, 4, 4), (4, 4, 4), [0.0])
    else:
        found = {"gradient": gradient, "class_activation": class_activation}[method](network, images, target, task)
    strength = np.abs(found[0].detach().numpy())
    inside = strength[:4, :4, :4].sum() / strength.sum()
    assert inside > 0.6 > 3 * 4**3 / 8**3, f"{inside:.2f} of the map, where an eighth of the voxels lies"


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
    assert choose.report_settings(config, "e").explained == ["conv5_fc3"]
    experiment["saliency"] = {"methods": []}
    assert choose.explained(parse_config(content, Path("c.yaml")), "e") == []
