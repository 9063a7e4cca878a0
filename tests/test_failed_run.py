"""A run that fails is a failed run with a page about it: what failed, where its log is, what is missing, what there is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import report_fixture
from gyri.cli import main
from gyri.layout import Layout
from gyri.report import run, run_index
from gyri.report.unfinished import PAGE, TWIN, failures, last_error, write_unfinished

ERROR = """[Sat Nov 21 17:01:02 2026]
Error in rule train_model:
    message: None
    jobid: 19
    input: results/datasets/brains/cohort.tsv
    output: {output}, results/tissue/unet/fold-0/seed-1/history.tsv
    log: results/logs/tissue/unet/train-fold-0-seed-1.log (check log file(s) for error details)
    shell:
        python -m gyri train
        (command exited with non-zero exit code)
Logfile results/logs/tissue/unet/train-fold-0-seed-1.log:
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, list[Any]]:
    """Two finished experiments; of one a training and all that follows are gone, but for its log."""
    layout = Layout(tmp_path_factory.mktemp("failed") / "results")
    settings = report_fixture.make_results(layout.root, groups=6, tasks=("segmentation", "regression"))
    shutil.rmtree(layout.run("tissue", "unet", 0, 1))
    for name in ("metrics.tsv", "cases.tsv", "predictions.tsv", "provenance-evaluate.json"):
        layout.experiment("tissue", name).unlink()
    log = layout.root / "logs/tissue/unet/train-fold-0-seed-1.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 3/30\n  1. tissue/unet\n    got:      no space in /scratch/anna <b>at all</b>\n    remedy:   free some\n")
    return layout, settings


@pytest.fixture
def tree(made: tuple[Layout, list[Any]], tmp_path: Path) -> tuple[Layout, list[Any]]:
    """A copy of it."""
    shutil.copytree(made[0].root, tmp_path / "results")
    return Layout(tmp_path / "results"), made[1]


def test_the_page_says_at_its_top_what_failed_and_what_is_missing(tree: tuple[Layout, list[Any]]) -> None:
    layout, settings = tree
    text = ERROR.format(output="results/tissue/unet/fold-0/seed-1/weights.safetensors")
    run(settings[1], layout)
    pages = write_unfinished(settings, layout, "Brains", text)
    assert [path.relative_to(layout.root).as_posix() for path in pages] == [f"tissue/{PAGE}", PAGE]
    page = layout.experiment("tissue", PAGE).read_text()
    top = page[page.index("<h1>") : page.index("<section")]
    assert "This run did not finish" in top and "train-fold-0-seed-1 of tissue/unet" in top
    assert "no space in [file] &lt;b&gt;at all&lt;/b&gt;" in top and "results/logs/tissue/unet/train-fold-0-seed-1.log" in top
    assert "1 of 15 trainings (unet, fold 0, seed 1)" in top and "anna" not in page
    assert '<figure id="learning-curves"' in page and "metrics.tsv is not there" in page, "what there is, is shown"
    twin = json.loads(layout.experiment("tissue", TWIN).read_text())
    assert twin["finished"] is False and twin["absent_trainings"] == ["unet, fold 0, seed 1"] and len(twin["failed"]) == 1
    index = (layout.root / PAGE).read_text()
    assert f'href="tissue/{PAGE}"' in index and 'href="age/report.html"' in index and "1 failed job" in index
    assert not layout.experiment("age", PAGE).exists(), "that experiment has its report"


def test_a_report_of_an_earlier_run_is_named_as_such(tree: tuple[Layout, list[Any]]) -> None:
    layout, settings = tree
    layout.experiment("tissue", "report.html").write_text("old")
    write_unfinished(settings, layout, "Brains", ERROR.format(output="x"))
    assert "is of an earlier run" in layout.experiment("tissue", PAGE).read_text()


def test_the_page_goes_when_the_report_is_written(tree: tuple[Layout, list[Any]]) -> None:
    layout, settings = tree
    write_unfinished(settings, layout, "Brains", "")
    assert layout.experiment("age", PAGE).is_file() and (layout.root / PAGE).is_file()
    run(settings[1], layout)
    assert not layout.experiment("age", PAGE).exists() and not layout.experiment("age", TWIN).exists()
    run_index(settings, layout, "Brains")
    assert not (layout.root / PAGE).exists()


def test_a_job_that_succeeded_at_another_try_did_not_fail(tree: tuple[Layout, list[Any]]) -> None:
    layout, _ = tree
    assert len(failures(ERROR.format(output="results/datasets/brains/cohort.tsv"), layout.root)) == 1
    (layout.root / "tissue/unet/fold-0/seed-1").mkdir(parents=True)
    (layout.root / "tissue/unet/fold-0/seed-1/history.tsv").write_text("")
    assert failures(ERROR.format(output="results/datasets/brains/cohort.tsv"), layout.root) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "epoch 1\nTraceback (most recent call last):\n  File x\nValueError: nothing in /home/x/\n",
            "ValueError: nothing in [file]",
        ),
        ("epoch 1\nKilled\n", "Killed"),
        ("", "the log is empty"),
        (None, "the log is not there: the job was ended from outside, or never began"),
    ],
)
def test_the_last_error_of_a_log(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "a.log").write_text(text)
    assert last_error(tmp_path / "a.log") == said


def test_no_second_failure_comes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("datasets: {}\nnonsense: 1\n")
    assert main(["unfinished"]) == 0
    assert "no page about the failure could be written" in capsys.readouterr().err


def test_half_made_files_do_not_hide_what_failed(tree: tuple[Layout, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("gyri.report.unfinished.sections", broken)
    write_unfinished(tree[1], tree[0], "Brains", ERROR.format(output="x"))
    page = tree[0].experiment("tissue", PAGE).read_text()
    assert "train-fold-0-seed-1" in page and "list index out of range" in page
