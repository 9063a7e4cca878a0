"""Warnings of a stage: printed as before, kept in its provenance in short and without paths, whatever process gave them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from gyri import provenance
from gyri.warned import LONGEST, MOST, join, note, noticed, shared, so_far, without_paths

REPOSITORY = Path(__file__).resolve().parents[1]


def warn_there(number: int) -> None:
    warnings.warn(f"worker {number}", RuntimeWarning, stacklevel=1)


def test_warnings_and_logged_warnings_are_kept() -> None:
    with noticed() as caught, warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("division of /home/anna/study/scan.nii.gz went wrong", RuntimeWarning, stacklevel=1)
        logging.getLogger("library").warning("odd header in %s", "/data/x.nii")
        logging.getLogger("library").info("not worth a word")
        note("versions differ")
        found = caught.listed()
        assert so_far() == found
    assert found == [
        {"kind": "RuntimeWarning", "message": "division of [file] went wrong", "count": 3},
        {"kind": "warning", "message": "odd header in [file]", "count": 1},
        {"kind": "gyri", "message": "versions differ", "count": 1},
    ]
    assert so_far() == [] and not Path(caught.name).exists()


def test_they_are_printed_as_before() -> None:
    script = (
        "import logging, warnings; from gyri.warned import noticed\n"
        "with noticed():\n"
        " warnings.warn('odd division'); logging.getLogger('library').warning('odd header'); logging.info('not worth a word')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY / "workflow")
    assert "UserWarning: odd division" in done.stderr and done.stderr.endswith("odd header\n") and "not worth" not in done.stderr


def test_what_a_stage_silences_is_not_told_of() -> None:
    with noticed() as caught:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("known", RuntimeWarning, stacklevel=1)
        assert caught.listed() == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_are_heard(method: str) -> None:
    with noticed() as caught:
        with ProcessPoolExecutor(1, get_context(method), join, shared()) as pool:
            list(pool.map(warn_there, range(2)))
        assert [item["message"] for item in caught.listed()] == ["worker 0", "worker 1"]


def test_there_is_an_end() -> None:
    with noticed() as caught:
        for number in range(MOST + 5):
            note(f"number {number} " + LONGEST * "x")
        found = caught.listed()
    assert len(found) == MOST + 1 and found[-1]["count"] == 5 and found[-1]["message"].startswith("5 more")
    assert all(len(item["message"]) <= LONGEST for item in found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read '/home/anna/a b.nii'", "cannot read '[file] b.nii'"),
        ("~/study/x.py:3: RuntimeWarning", "[file]:3: RuntimeWarning"),
        ("C:\\Users\\anna\\x.nii", "[file]"),
        ("/scratch is full", "[file] is full"),
        ("mean and/or 3/4 of 1 m/s", "mean and/or 3/4 of 1 m/s"),
        ("two\n lines", "two lines"),
    ],
)
def test_no_path_is_left(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_provenance_holds_them_with_commit_call_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.COMMIT, "0123abc+changes")
    monkeypatch.delenv(provenance.CALL, raising=False)
    provenance.tell_jobs(["snakemake", "-c2", "--configfile", "/home/anna/mine.yaml"])
    with provenance.recorded(tmp_path / "provenance.json", {"stage": "split"}, []):
        warnings.warn("look at this", UserWarning, stacklevel=1)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["warnings"] == [{"kind": "UserWarning", "message": "look at this", "count": 1}]
    assert (record["commit"], record["call"]) == ("0123abc+changes", "snakemake -c2 --configfile mine.yaml")
    assert record["cores"] >= 1 and record["memory_total_mb"] > 100


def test_the_commit_says_whether_files_were_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    answers = {"rev-parse --show-toplevel": str(provenance.REPOSITORY), "rev-parse HEAD": "4f2", "status": " M Snakefile"}
    monkeypatch.setattr(
        provenance, "_git", lambda *words: next(text for key, text in answers.items() if " ".join(words).startswith(key))
    )
    assert provenance.commit() == "4f2+changes"
    answers["status"] = ""
    assert provenance.commit() == "4f2"
    answers["rev-parse --show-toplevel"] = "/"
    assert provenance.commit() == "not recorded"
