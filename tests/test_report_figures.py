"""Figures of the report: marks stand where values are, the table behind a figure is what it draws, and what is missing is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import report_fixture
from gyri.config.experiments import ReportSettings
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.report.results import alike, headline, sentence
from gyri.report.source import Source
from gyri.tables import read_table, write_table

EXPERIMENTS = {"segmentation": "tissue", "classification": "diagnosis", "regression": "age"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ReportSettings]]:
    """Invented results of the three tasks; tests that change files copy them."""
    root = tmp_path_factory.mktemp("figures") / "results"
    return root, {settings.task: settings for settings in report_fixture.make_results(root, groups=24)}


@pytest.fixture
def tree(made: tuple[Path, dict[str, ReportSettings]], tmp_path: Path) -> tuple[Path, dict[str, ReportSettings]]:
    """A copy of the results."""
    shutil.copytree(made[0], tmp_path / "results")
    return tmp_path / "results", made[1]


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
    ("change", "groups"), [({"device": "cuda"}, 2), ({"versions": {"torch": "1.0"}}, 2), ({"seconds": 3.0}, 1)]
)
def test_without_comparisons_the_provenance_tells(
    tree: tuple[Path, dict[str, ReportSettings]], change: dict[str, object], groups: int
) -> None:
    source = source_of(tree, "segmentation")
    (source.layout.experiment("tissue") / "comparisons.tsv").unlink()
    for path in source.layout.experiment("tissue", "dilated").rglob("provenance-train.json"):
        write_json(path, {**read_json(path), **change})
    assert len(alike(Source(source.settings, source.layout))) >= groups
    assert (len(alike(Source(source.settings, source.layout))) > 1) == (groups > 1)
