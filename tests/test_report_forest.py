"""Figures of errors, gains, subgroups, sites and costs: what they draw is what the tables say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gyri.config.experiments import ReportSettings
from gyri.io import read_json, write_json
from gyri.report.figures_cost import cost_accuracy, costs
from gyri.report.figures_gains import ensemble_gain, postprocessing
from gyri.report.figures_regression import agreement, bland_altman, error_against_true
from gyri.report.figures_segmentation import hd95_per_structure, surface_dice_per_structure, volume_error
from gyri.report.figures_subgroups import site_probe, sites, subgroup_forest
from gyri.report.forest import Item, Scale, heading, plot
from gyri.report.parts import Missing
from gyri.report.source import Source
from gyri.tables import read_table
from test_report_figures import rewrite, source_of

Made = tuple[Path, dict[str, ReportSettings]]


# ── regression ──
def test_limits_of_agreement_by_hand() -> None:
    errors = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    lines = agreement(errors, 4).set_index("line")
    spread = np.std([1, 2, 3, 4], ddof=1)
    assert list(lines["value"]) == pytest.approx([2.5 - 1.96 * spread, 2.5, 2.5 + 1.96 * spread])
    half = 3.182446305284263 * spread  # 97.5 % quantile of t with 3 degrees of freedom
    assert lines.loc["mean error", "high"] - 2.5 == pytest.approx(half / 2)
    assert lines.loc["upper limit", "high"] - lines.loc["upper limit", "value"] == pytest.approx(
        half * np.sqrt(1 / 4 + 1.96**2 / 6)
    )
    assert agreement(errors, 1)[["low", "high"]].isna().all(axis=None), "one group has no interval"


def test_limits_hold_nineteen_of_twenty_errors(made: Made) -> None:
    part = bland_altman(source_of(made, "regression"))
    for _, rows in part.data.groupby("model"):
        assert rows["mean"].to_numpy() == pytest.approx((rows["prediction"] + rows["target"]) / 2)
        low, _, high = agreement(rows["error"].to_numpy(), 9)["value"]
        assert rows["error"].between(low, high).mean() > 0.85
    assert len(part.panels) == part.data["model"].nunique()
    assert all(panel.count("<circle") == len(part.data) // len(part.panels) for panel in part.panels)


def test_the_correction_is_the_one_of_the_fold(made: Made) -> None:
    source = source_of(made, "regression")
    part, fitted = error_against_true(source), source.of_experiment("fitted.tsv")
    fitted = fitted.astype({"fold": str, "seed": str}).set_index(["model", "fold", "seed", "what"])["value"]
    for row in part.data.sample(30, random_state=0).itertuples():
        offset, slope = (fitted[row.model, row.fold, row.seed, f"correction {name}"] for name in ("offset", "slope"))
        expected = (row.prediction - offset) / slope - row.target
        assert row.error_corrected == pytest.approx(expected, nan_ok=True)
        assert row.error == pytest.approx(row.prediction - row.target)
    assert part.data.loc[part.data["model"] == "mean", "error_corrected"].isna().all()
    assert any(
        note.startswith("mean: slope of the error \u22121.0") and "no correction could be fitted" in note for note in part.notes
    )


def test_without_corrections_the_figure_shows_what_there_is(tree: Made) -> None:
    source = source_of(tree, "regression")
    source.layout.experiment("age", "fitted.tsv").unlink()
    part = error_against_true(source)
    assert any("Correction: not available (results/age/fitted.tsv is not there)" in note for note in part.notes)
    assert part.data["error_corrected"].isna().all() and part.data["error"].notna().all()


# ── segmentation ──
@pytest.mark.parametrize(
    ("make", "name"),
    [(surface_dice_per_structure, "surface_dice"), (hd95_per_structure, "hd95"), (volume_error, "volume_error_ml")],
)
def test_a_metric_that_was_not_measured_is_missing(tree: Made, make: Any, name: str) -> None:
    source = source_of(tree, "segmentation")
    cases = source.cases
    part = make(source)
    known = cases[(cases["metric"] == name) & (cases["role"] == "test")].set_index(["image_id", "model", "structure", "seed"])[
        "value"
    ]
    for row in part.data.sample(20, random_state=1).itertuples():
        seed = "all" if row.model.startswith("ensemble") else "0"
        assert row.value == known[row.image_id, row.model, row.structure, seed]
    with pytest.raises(Missing, match=f"cases.tsv has no `{name}`"):
        make(rewrite(source, "cases.tsv", cases[cases["metric"] != name]))


# ── gains ──
@pytest.mark.parametrize(
    ("make", "what", "task"), [(postprocessing, "post-processing", "segmentation"), (ensemble_gain, "ensemble", "age")]
)
def test_gains_are_drawn_as_they_were_measured(tree: Made, make: Any, what: str, task: str) -> None:
    source = source_of(tree, "regression" if task == "age" else task)
    rows = source.of_experiment("gains.tsv")
    part = make(source)
    assert len(part.data) == (rows["what"] == what).sum() == len(part.tables[0].rows)
    with pytest.raises(Missing, match=f"no row on {what}"):
        make(rewrite(source, "gains.tsv", rows[rows["what"] != what]))
    source.layout.experiment(source.settings.experiment, "gains.tsv").unlink()
    with pytest.raises(Missing, match=r"gains\.tsv is not there"):
        make(source)


def test_nothing_changed_is_said(made: Made) -> None:
    texts = [str(cell) for row in postprocessing(source_of(made, "segmentation")).tables[0].rows for cell in row]
    assert "no change" in texts and any(text.startswith("+0.010 [+0.002") for text in texts)


# ── forest plots ──
def test_marks_and_intervals_stand_where_the_values_are() -> None:
    items = [heading("part"), Item("<b>one</b>", 0.25, 0.1, 0.5, "0.25 [0.10, 0.50]", model="a"), Item("two", text="undefined")]
    for beside in (True, False):
        svg = str(plot(items, Scale("share", (0.0, 1.0), 0.4, include=(0.0, 1.0)), 900, beside))
        ticks = dict(re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="t m q">([\d.]+)</text>', svg))
        places = {float(value): float(at) for at, value in ticks.items()}
        zero, unit = places[0.0], places[1.0] - places[0.0]
        (mark,) = re.findall(r'<circle cx="([\d.]+)"', svg)
        ((left, right),) = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="interval', svg)
        (line,) = re.findall(r'<line x1="([\d.]+)"[^>]* class="reference"', svg)
        found = [(float(at) - zero) / unit for at in (mark, left, right, line)]
        assert found == pytest.approx([0.25, 0.1, 0.5, 0.4], abs=0.002)
        assert "&lt;b&gt;one" in svg and "<b>" not in svg and 'data-model="a"' in svg and ">undefined<" in svg


def test_subgroups_and_sites_are_apart(made: Made) -> None:
    source = source_of(made, "segmentation")
    forest, apart = subgroup_forest(source), sites(source)
    assert set(forest.data["column"]) == {"sex", "all"} and set(apart.data["column"]) == {"site"}
    assert "worst 5 %" in forest.alt and "n = 9 of 6 groups" in str(forest.panels[0])
    assert len(apart.panels) == apart.data["model"].nunique() > 3
    for row in apart.data.itertuples():
        assert f"{row.value:.2f} [" in apart.alt


def test_one_site_is_no_figure(tree: Made) -> None:
    source = source_of(tree, "segmentation")
    rows = source.of_experiment("subgroups.tsv")
    with pytest.raises(Missing, match="one site"):
        sites(rewrite(source, "subgroups.tsv", rows[rows["column"] != "site"]))


def test_the_probe_of_the_site_shows_value_and_null(tree: Made) -> None:
    source = source_of(tree, "regression")
    part = site_probe(source)
    assert "image features: 0.90, chance 0.50 (p = 0.001)" in part.alt and 'class="expected"' in part.panels[0]
    assert any("not tested" in note for note in part.notes), "models without a probe are named"
    rows = source.of_experiment("chance.tsv")
    rows.loc[rows["metric"] == "site_from_images", ["value", "note"]] = [np.nan, "not tested: features.tsv is not there"]
    with pytest.raises(Missing, match=r"features\.tsv is not there"):
        site_probe(rewrite(source, "chance.tsv", rows))


# ── cost ──
def test_costs_are_those_of_the_jobs(tree: Made) -> None:
    source = source_of(tree, "segmentation")
    table = costs(source).set_index("model")
    assert table.loc["dilated", "training_s"] == pytest.approx(3 * 160) and table.loc["dilated", "trainings"] == 3
    assert table.loc["ensemble.models.mean", "training_s"] == pytest.approx(6 * 95 + 3 * 160 + 3 * 0.8)
    assert table["energy_wh"].isna().all() and table["gpu_s"].isna().all()
    part = cost_accuracy(source)
    assert any("energy: not measured" in note for note in part.notes)
    assert [row[-1] for row in part.tables[0].rows] == ["not measured"] * len(part.data)
    used = {"name": "GPU", "driver": "1", "energy_from": "counter", "seconds": 50.0, "samples": 50, "utilisation_percent": 80.0}
    used |= {"memory_peak_mb": 900, "device_memory_peak_mb": 1000, "energy_j": 7200.0, "shared": False}
    for path in source.layout.experiment("tissue").rglob("provenance-train.json"):
        record = read_json(path)
        write_json(path, {**record, "facts": {"accelerator": used, "parameters": 1234}})
    table = costs(Source(source.settings, source.layout)).set_index("model")
    found = table.loc["dilated", ["gpu_s", "energy_wh", "gpu_memory_mb", "parameters"]]
    assert list(found) == pytest.approx([150, 6, 900, 1234])
    assert table.loc["ensemble.models.mean", "parameters"] == 3 * 1234
    part = cost_accuracy(Source(source.settings, source.layout))
    assert len(part.panels) == 6 and "6 Wh" in {cell for row in part.tables[0].rows for cell in row}


def test_energy_of_some_trainings_is_no_energy_of_all(tree: Made) -> None:
    source = source_of(tree, "segmentation")
    path = next(source.layout.experiment("tissue", "unet").rglob("provenance-train.json"))
    used = {"seconds": 5.0, "samples": 5, "utilisation_percent": 8.0, "memory_peak_mb": 9, "device_memory_peak_mb": 10}
    used |= {"energy_j": 7.0, "shared": False, "name": "GPU", "driver": "1", "energy_from": "counter"}
    write_json(path, {**read_json(path), "facts": {"accelerator": used}})
    table = costs(Source(source.settings, source.layout)).set_index("model")
    assert np.isnan(table.loc["unet", "energy_wh"]) and np.isnan(table.loc["ensemble.seeds.unet", "energy_wh"])


def test_tables_are_what_the_files_hold(made: Made) -> None:
    source = source_of(made, "classification")
    rows = read_table(source.layout.experiment("diagnosis", "metrics.tsv"), "metrics")
    part = cost_accuracy(source)
    whole = rows[(rows["metric"] == "auroc") & (rows["fold"] == "all") & (rows["role"] == "test")].set_index("model")
    assert isinstance(part.data, pd.DataFrame)
    for row in part.data.itertuples():
        assert (row.value, row.ci_low, row.ci_high) == tuple(whole.loc[row.model, ["value", "ci_low", "ci_high"]])
