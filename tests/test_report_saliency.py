"""Saliency on the page: mean maps beside random weights, what is alarming is said, what may not be shown is black."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gyri.config.experiments import ReportSettings
from gyri.config.saliency import ExplainSettings, Saliency
from gyri.explain import run
from gyri.layout import Layout
from gyri.report.assemble import made
from gyri.report.colours import RAMPS, overlaid
from gyri.report.figures_saliency import (
    saliency_check,
    saliency_examples,
    saliency_mean,
    saliency_regions,
    slice_png,
    verdict,
)
from gyri.report.parts import Missing
from gyri.report.saliency import SPACES, explained, ground_of
from gyri.report.source import Source
from gyri.train import run as train
from packed import make_dataset, train_settings

SETTINGS = ReportSettings(
    title="gyri",
    experiment="kinds",
    dataset="tiny",
    folds=2,
    run_folds=[0],
    models={"net": 1, "majority": 1},
    ensembles={},
    baselines=["majority"],
    task="classification",
    target="diagnosis",
    explained=["net"],
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    found = make_dataset(tmp_path_factory.mktemp("saliency"))
    settings = train_settings("classification", "conv5_fc3", epochs=8, learning_rate=0.01)
    settings.arguments.update(width=2, dropout=0.0)
    train(settings, found, "tiny", "kinds", "net", 0, 0, "kinds")
    chosen = Saliency(images=2, patch_mm=4, stride_mm=4)
    asked = ExplainSettings(network="conv5_fc3", task="classification", saliency=chosen, folds=[0], seed=7, threads=1)
    run(asked, found, "tiny", "kinds", "net")
    return found


def test_every_method_stands_beside_its_random_weights(layout: Layout) -> None:
    part = saliency_mean(Source(SETTINGS, layout))
    assert len(part.panels) == 6 and all('data-model="net"' in panel for panel in part.panels)
    for place, words in enumerate(("trained weights", "random weights") * 3):
        assert words in part.panels[place]
    assert part.data is not None and part.data["method"].tolist() == [
        name for name in ("gradient", "occlusion", "class_activation") for _ in range(2)
    ]
    assert SPACES["network"] in part.notes and not any("MNI152" in note for note in part.notes)
    assert any("4 \u00d7 4 \u00d7 4 voxels" in note for note in part.notes)


def test_the_check_has_a_dot_per_pair_and_a_verdict_per_method(layout: Layout) -> None:
    source = Source(SETTINGS, layout)
    part = saliency_check(source)
    pairs = explained(source)[0].table["rank_correlation"].notna().sum()
    assert part.panels[0].count("<circle") == pairs > 0
    assert len(part.notes) == 1 + 3 and part.data is not None and len(part.data) == 6


@pytest.mark.parametrize(("values", "alarming"), [([0.9, 0.6], True), ([0.69, 0.69], False), ([-0.9, 0.1], False)])
def test_alike_maps_are_called_alarming(values: list[float], alarming: bool) -> None:
    said = verdict(pd.DataFrame({"rank_correlation": values, "ssim": [0.1, 0.2]}))
    assert ("alarming" in said) == alarming and ("change with the weights" in said) != alarming
    assert "2 pairs" in said and "SSIM 0.15" in said
    assert "no pair" in verdict(pd.DataFrame({"rank_correlation": [], "ssim": []}))


def test_a_network_that_ignores_its_input_is_called_out(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(SETTINGS, layout)
    (item,) = explained(source)
    assert not any("does not depend" in note for note in saliency_mean(source).notes)
    dead = item.table.assign(empty=np.where(item.table["randomized"] == "no", "yes", item.table["empty"]))
    monkeypatch.setattr("gyri.report.figures_saliency.explained", lambda _: [replace(item, table=dead)])
    assert any("alarming: the output of fold 0 does not depend on the image" in note for note in saliency_mean(source).notes)
    with pytest.raises(Missing, match="zero everywhere"):
        saliency_examples(source)
    silent = item.table.assign(empty=np.where(item.table["method"] == "class_activation", "yes", "no"))
    monkeypatch.setattr("gyri.report.figures_saliency.explained", lambda _: [replace(item, table=silent)])
    assert any("nothing speaks for the class" in note for note in saliency_mean(source).notes)


def test_examples_are_of_different_classes_and_regions_are_ranked(layout: Layout) -> None:
    source = Source(SETTINGS, layout)
    part = saliency_examples(source)
    assert part.data is not None and part.data["target"].nunique() == 2 and len(part.panels) == 2 * 3
    (table,) = saliency_regions(source).tables
    assert {row[2] for row in table.rows} == {"background", "front", "back"} and len(table.rows) == 9
    ratios = [float(str(row[5]).split('"')[1]) for row in table.rows if '"' in str(row[5])]
    assert ratios == sorted(ratios, reverse=True)


def test_pseudonyms_stand_for_ids(layout: Layout) -> None:
    source = Source(SETTINGS.model_copy(update={"hash_ids": True, "id_seed": 3}), layout)
    ids = set(explained(Source(SETTINGS, layout))[0].table["image_id"])
    text = "".join(saliency_examples(source).panels) + saliency_examples(source).alt
    assert ids and not any(name in text for name in ids)
    assert saliency_mean(source).panels


def test_what_may_not_be_shown_is_black_and_without_colour() -> None:
    grey = np.array([[np.nan, 0.5], [0.5, 0.5]])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(slice_png(grey, np.ones((2, 2)))))))
    assert pixels[1, 0].tolist() == [0, 0, 0], "the first column, at the bottom"
    assert pixels[0, 0].tolist() == pixels[1, 1].tolist() != [0, 0, 0]
    large = Image.open(io.BytesIO(base64.b64decode(slice_png(np.ones((300, 200)), np.ones((300, 200))))))
    assert max(large.size) <= 128, "colours of fine images are thinned out, so that the page stays small"
    assert overlaid(np.full((1, 1), 0.5), np.zeros((1, 1))).tolist() == [[[128, 128, 128]]], (
        "a map of zeros leaves the picture alone"
    )


def test_pictures_of_large_images_are_masked(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(SETTINGS, layout)
    name = explained(source)[0].table["image_id"].iloc[0]
    assert np.isfinite(ground_of(source, name).grey).all(), "12 mm hold no face"
    monkeypatch.setattr("gyri.report.privacy.FACELESS_MM", 1.0)
    monkeypatch.setattr("gyri.report.privacy.NEAR_MM", 0.0)
    hidden = np.isnan(ground_of(source, name).grey)
    assert hidden.any() and not hidden.all()


def test_colours_rise_evenly_in_lightness_and_tell_the_sign_apart() -> None:
    for ramp in RAMPS:
        assert ramp.shape == (256, 3) and ramp.min() >= 0 and ramp.max() <= 1
        linear = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        lightness = 116 * np.cbrt(luminance) - 16  # CIE 1976
        steps = np.diff(lightness[::16])
        assert (steps > 0).all() and steps.max() < 2 * steps.min()
    assert (RAMPS[1][:, 0] > RAMPS[1][:, 2]).all() and (RAMPS[0][:, 2] > RAMPS[0][:, 0]).all(), "warm above 0, cold below"


def test_what_is_missing_says_why(layout: Layout, tmp_path: Path) -> None:
    def reason(**update: object) -> str:
        with pytest.raises(Missing) as caught:
            explained(Source(SETTINGS.model_copy(update=update), layout))
        return str(caught.value)

    assert "one number per image" in reason(task="segmentation")
    assert "`saliency.methods` is empty" in reason(explained=[])
    assert "no network was trained" in reason(explained=[], models={"majority": 1})
    assert reason(explained=["other"]) == "results/kinds/other/saliency/saliency.json is not there"
    part = {"make": "saliency_mean", "title": "Mean saliency", "caption": "", "optional": True}
    assert made(Source(SETTINGS.model_copy(update={"explained": []}), layout), part)["skipped"], "nobody asked for it"
    lost = made(Source(SETTINGS.model_copy(update={"explained": ["other"]}), layout), part)
    assert lost["missing"] and not lost["skipped"], "a failed stage shows as missing"
    path = layout.saliency("kinds", "net", "means.nii.gz")
    content = path.read_bytes()
    try:
        path.write_bytes(content[:40])
        assert "cannot be read" in reason()
    finally:
        path.write_bytes(content)
