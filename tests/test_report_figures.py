"""Figures of the report: marks stand where values are, the table behind a figure is what it draws, and what is missing is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from scipy import stats

from gyri.config.experiments import ReportSettings
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.metrics.calibration import expected_calibration_error
from gyri.metrics.classification import Classified, average_precision
from gyri.report.figures_calibration import bins_of, reliability, wilson
from gyri.report.figures_ranking import precision_recall, roc
from gyri.report.folds import MOST, precision_points, roc_points, thinned
from gyri.report.results import alike, headline, sentence
from gyri.report.source import Source
from gyri.tables import read_table, write_table


def source_of(made: tuple[Path, dict[str, ReportSettings]], task: str) -> Source:
    return Source(made[1][task], Layout(made[0]))


def rewrite(source: Source, name: str, change: pd.DataFrame) -> Source:
    """The experiment with another table; read anew."""
    write_table(source.layout.experiment(source.settings.experiment, name), change)
    return Source(source.settings, source.layout)


# ── models that may not be ranked ──
def refuse(source: Source, first: str, second: str) -> Source:
    rows = read_table(source.layout.experiment(source.settings.experiment, "comparisons.tsv"))
    pair = rows["first"].isin([first, second]) & rows["second"].isin([first, second])
    assert pair.sum() == 1
    rows["note"] = rows["note"].astype(object)
    rows.loc[pair, ["difference", "p", "p_holm"]] = float("nan")
    rows.loc[pair, "note"] = "not compared: trained under torch 2.10 and torch 2.9"
    return rewrite(source, "comparisons.tsv", rows)


def test_models_that_were_trained_differently_are_not_ranked(tree: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(tree, "segmentation")
    assert len(alike(source)) == 1 and "the highest of 4 trained models" in sentence(source)
    trained = [*source.networks, *source.settings.ensembles]
    for other in trained:
        if other != "dilated":
            source = refuse(source, other, "dilated")
    assert alike(source) == [[model for model in trained if model != "dilated"], ["dilated"]]
    words = str(sentence(source))
    assert "not ranked as one" in words and "highest of 4" not in words and "the highest of 3 that were trained alike" in words
    assert "<strong>dilated</strong> reaches" in words
    rows = headline(source)
    assert list(rows["ranking"][:4]) == [0, 0, 0, 1]
    assert list(rows["model"])[3] == "dilated" and rows["value"][:3].is_monotonic_decreasing


def test_override_ranks_them_again(tree: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(tree, "segmentation")
    source = refuse(source, "unet", "dilated")
    assert len(alike(source)) == 2
    rows = source.of_experiment("comparisons.tsv")
    rows["note"] = rows["note"].str.replace("not compared:", "compared although")
    assert len(alike(rewrite(source, "comparisons.tsv", rows))) == 1


@pytest.mark.parametrize(
    ("change", "apart"), [({"device": "cuda"}, True), ({"versions": {"torch": "1.0"}}, True), ({"seconds": 3.0}, False)]
)
def test_without_comparisons_the_provenance_tells(
    tree: tuple[Path, dict[str, ReportSettings]], change: dict[str, object], apart: bool
) -> None:
    source = source_of(tree, "segmentation")
    (source.layout.experiment("tissue") / "comparisons.tsv").unlink()
    for path in source.layout.experiment("tissue", "dilated").rglob("provenance-train.json"):
        write_json(path, {**read_json(path), **change})
    groups = alike(Source(source.settings, source.layout))
    assert ["unet", "ensemble.seeds.unet"] in groups if apart else len(groups) == 1


# ── places in drawings ──
def values_of(
    panel: Markup, kind: str, area: tuple[float, ...], x: tuple[float, float], y: tuple[float, float]
) -> list[np.ndarray]:
    """The points of every path of a class in an SVG, as values."""
    left, top, right, bottom = area
    found = []
    for path in re.findall(rf'<path d="M([^"Z]+)Z?" class="{kind}"', str(panel)):
        points = np.array([[float(number) for number in pair.split(",")] for pair in path.split("L")])
        points[:, 0] = x[0] + (points[:, 0] - left) / (right - left) * (x[1] - x[0])
        points[:, 1] = y[0] + (bottom - points[:, 1]) / (bottom - top) * (y[1] - y[0])
        found.append(points)
    return found


SQUARE: dict[str, Any] = {"area": (58, 30, 330, 286), "x": (0, 1), "y": (0, 1)}
PIXEL = 0.1 / 250  # what a decimal of a coordinate is worth


@pytest.mark.parametrize("figure", [roc, precision_recall])
def test_curves_are_those_of_the_table_and_lie_in_the_band(made: tuple[Path, dict[str, ReportSettings]], figure: Any) -> None:
    part = figure(source_of(made, "classification"))
    table = part.data[part.data["what"] == "curve"]
    x, y = table.columns[5:7]
    for panel, (_, rows) in zip(part.panels, table.groupby("model", sort=False), strict=True):
        drawn = values_of(panel, "curve thin [a-z0-9]+", **SQUARE)
        assert len(drawn) == rows["fold"].nunique() == 3
        for points, (_, own) in zip(drawn, rows.groupby("fold", sort=True), strict=True):
            assert points == pytest.approx(own[[x, y]].to_numpy(float), abs=PIXEL)
        (band,) = values_of(panel, "spread [a-z0-9]+", **SQUARE)
        half = len(band) // 2
        upper, lower = band[:half], band[half:][::-1]
        assert upper[:, 0] == pytest.approx(lower[:, 0])
        for points in drawn:
            for at, height in points:
                there = np.abs(upper[:, 0] - at) < 2 * PIXEL
                assert lower[there, 1].min() - 2 * PIXEL <= height <= upper[there, 1].max() + 2 * PIXEL


def test_operating_points_are_what_the_thresholds_do_to_test_images(made: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(made, "classification")
    part, fitted = roc(source), source.of_experiment("fitted.tsv")
    points = part.data[part.data["what"] == "threshold for specificity"]
    assert len(points) == 3 * part.data["model"].nunique()
    for row in points.itertuples(index=False):
        seed = "all" if row.model.startswith("ensemble") else "0"
        cut = fitted[
            (fitted["model"] == row.model) & (fitted["fold"].astype(str) == row.fold) & (fitted["seed"].astype(str) == seed)
        ]
        assert row.threshold == cut.loc[cut["what"] == row.what, "value"].item()
        rows = source.predictions.query("role == 'test' and model == @row.model and fold == @row.fold and seed == @seed")
        called, patient = rows["probability_patient"] >= row.threshold, rows["target"] == "patient"
        assert (row[5], row[6]) == pytest.approx((called[~patient].mean(), called[patient].mean()))
    (table,) = part.tables
    assert {cells[1] for cells in table.rows} == {"specificity", "sensitivity"}, "no wanted value is invented"


def test_without_what_was_fitted_the_curves_say_so(tree: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(tree, "classification")
    source.layout.experiment("diagnosis", "fitted.tsv").unlink()
    part = roc(source)
    assert set(part.data["what"]) == {"curve"}
    assert any("Operating points: not available (results/diagnosis/fitted.tsv is not there)" in note for note in part.notes)


# ── curves ──
@pytest.mark.parametrize("n", [8, 60, 3000])
def test_area_below_the_steps_is_the_average_precision(n: int) -> None:
    random = np.random.default_rng(n)
    truth, score = random.random(n) < 0.4, random.random(n).round(2)
    recall, precision = precision_points(score, truth)
    cases = Classified(truth.astype(int), truth.astype(int), np.stack([1 - score, score], 1))
    assert np.trapezoid(precision, recall) == pytest.approx(average_precision(cases, np.ones((1, n)))[0])


def test_a_thinned_curve_keeps_its_course() -> None:
    random = np.random.default_rng(0)
    truth = random.random(5000) < 0.5
    x, y = roc_points(random.normal(size=5000) + truth, truth)
    few_x, few_y = thinned(x, y)
    assert len(few_x) <= MOST and (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.02
    corner = thinned(np.array([0, 0, 0, 0.5, 1.0]), np.array([0, 0.5, 1.0, 1.0, 1.0]))
    assert np.array_equal(corner, [[0, 0, 1], [0, 1, 1]])


# ── calibration ──
def test_bins_hold_everybody_and_make_the_calibration_error(made: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(made, "classification")
    rows = source.one_seed(source.predictions, "linear")
    table = bins_of(rows, ["control", "patient"])
    assert table["n"].sum() == len(rows) and table["positive"].sum() == (rows["target"] == "patient").sum()
    p = rows["probability_patient"].to_numpy(float)
    cases = Classified((rows["target"] == "patient").to_numpy().astype(int), (p > 0.5).astype(int), np.stack([1 - p, p], 1))
    error = (table["n"] * (table["probability"] - table["frequency"]).abs()).sum() / len(rows)
    assert error == pytest.approx(expected_calibration_error(cases, np.ones((1, len(rows))))[0])
    assert (table["low"] <= table["frequency"] + 1e-12).all() and (table["frequency"] <= table["high"] + 1e-12).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (12, 12), (40, 90)])
def test_wilson_agrees_with_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high))


def predicted(n: int, truth_of: Any, classes: int = 2, seed: int = 1) -> pd.DataFrame:
    """Predictions with known calibration; every person has two images with the same luck."""
    random = np.random.default_rng(seed)
    told = random.dirichlet(np.ones(classes), n)
    luck = np.repeat(random.random(n // 2), 2)
    truth = (luck[:, None] >= np.cumsum(truth_of(told), axis=1)).sum(1).clip(0, classes - 1)
    frame = pd.DataFrame({f"probability_{chr(97 + index)}": told[:, index] for index in range(classes)})
    return frame.assign(target=[chr(97 + index) for index in truth], group=np.repeat(np.arange(n // 2), 2).astype(str))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_perfect_model_lies_in_the_grey_boxes(classes: int) -> None:
    def inside(truth_of: Any) -> float:
        tables = [bins_of(predicted(200, truth_of, classes, seed), [chr(97 + i) for i in range(classes)]) for seed in range(8)]
        table = pd.concat(tables)
        return float(((table["perfect_low"] <= table["frequency"]) & (table["frequency"] <= table["perfect_high"])).mean())

    assert inside(lambda told: told) > 0.88
    assert inside(lambda told: np.full_like(told, 1 / classes)) < 0.6, "a model whose probabilities mean nothing leaves them"


def test_more_than_two_classes_have_their_own_curves(tree: tuple[Path, dict[str, ReportSettings]]) -> None:
    source = source_of(tree, "classification")
    rows, random = source.predictions.copy(), np.random.default_rng(0)
    rows["probability_other"] = random.random(len(rows)) * 0.5
    shown = ["probability_control", "probability_patient", "probability_other"]
    rows[shown] = rows[shown].div(rows[shown].sum(axis=1), axis=0)
    rows.loc[random.random(len(rows)) < 0.3, "target"] = "other"
    source = rewrite(source, "predictions.tsv", rows)
    part = roc(source)
    assert set(part.data["class"]) == {"control", "patient", "other"}
    assert [words for _, words in part.legend][-3:] == ["control", "patient", "other"]
    assert "Each of 3 classes against the others." in part.notes[0]
    assert (reliability(source).data.groupby("model")["n"].sum() == 3 * len(source.one_seed(rows, "linear"))).all()
