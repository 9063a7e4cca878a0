"""The whole workflow on tiny data: one configuration replaces another, nothing is trained twice, nothing leaks."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from gyri.io import sha256_file
from gyri.tables import read_table
from test_crate import problems
from tiny import CONFIG, jobs_of, make_project, run_snakemake, write_config

pytestmark = pytest.mark.workflow

TRAIN_SIDE = ("weights.safetensors", "last.safetensors", "history.tsv", "model.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("workflow") / "finished")
    jobs_of(run_snakemake(project))
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def trained_files(project: Path) -> dict[str, str]:
    """Hashes of everything that training left."""
    files = [path for name in TRAIN_SIDE for path in (project / "results" / "blobs").glob(f"*/fold-*/seed-*/{name}")]
    return {str(path.relative_to(project)): sha256_file(path) for path in files}


def test_outputs_are_where_the_design_says(finished: Path) -> None:
    results = finished / "results"
    run = "blobs/unet/fold-0/seed-0"
    expected = (
        "report.html report.json blobs/report.html blobs/report.json blobs/methods.md blobs/methods.bib blobs/sheets/claim.tsv "
        "blobs/ro-crate-metadata.json blobs/Snakefile blobs/metrics.tsv blobs/cases.tsv blobs/predictions.tsv "
        "blobs/comparisons.tsv blobs/chance.tsv blobs/subgroups.tsv blobs/fitted.tsv blobs/gains.tsv "
        "datasets/tiny/cohort.tsv datasets/tiny/excluded.tsv datasets/tiny/splits.tsv datasets/tiny/balance.tsv "
        "datasets/tiny/audit.tsv datasets/tiny/images.npy datasets/tiny/images.json datasets/tiny/fold-0/normalization.json "
        f"{run}/weights.safetensors {run}/history.tsv {run}/predictions.tsv {run}/provenance-train.json"
    ).split()
    assert [name for name in expected if not (results / name).is_file()] == []
    assert not list(results.glob("**/probabilities.npy")), "probabilities are kept only as long as an ensemble needs them"
    assert not list(results.rglob(".partial-*")), "no half-written file is left"


def test_every_headline_number_has_an_interval_and_its_counts(finished: Path) -> None:
    metrics = read_table(finished / "results" / "blobs" / "metrics.tsv", "metrics")
    headline = metrics[(metrics.fold == "all") & (metrics.role == "test")]
    assert {"unet", "linear", "majority"} == set(headline.model)
    assert headline[["ci_low", "ci_high", "n", "n_groups"]].notna().all().all()


def test_snakemakes_own_report_holds_the_pages(project: Path) -> None:
    done = run_snakemake(project, "--report", "report.zip")
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(project / "report.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    ours = {page: (project / "results" / page).read_bytes() for page in ("report.html", "blobs/report.html", "blobs/methods.md")}
    for page, content in ours.items():
        assert content in held.values(), f"{page} is in the archive"
    frame = b"".join(content for name, content in held.items() if content not in ours.values())
    for words in (b"All experiments", b"Experiments", b"whether the result can be", b"written from what its jobs recorded"):
        assert words in frame, words
    shell = next(content for name, content in held.items() if name.endswith("report.html") and content not in ours.values())
    assert not re.search(rb'<(?:script|link|img)[^>]+(?:src|href)="https?:', shell), "it loads nothing from a network"


def test_the_crate_of_a_real_run_is_valid(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished / "results/blobs"
    assert problems(folder, monkeypatch) == []
    entities = {item["@id"]: item for item in json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]}
    assert entities["unet/fold-0/seed-0/weights.safetensors"]["sha256"] == sha256_file(
        folder / "unet/fold-0/seed-0/weights.safetensors"
    )
    assert str(finished) not in (folder / "ro-crate-metadata.json").read_text()


@pytest.mark.parametrize("words", [[], ["--keep-going"]], ids=["stop", "keep-going"])
def test_a_run_that_fails_leaves_a_page_that_says_so(project: Path, words: list[str]) -> None:
    """Two trainings diverge; the page of the earlier run stays, and is said to be old."""
    config = copy.deepcopy(CONFIG)
    config["experiments"]["blobs"]["training"] |= {"learning_rate": 1.0e30, "gradient_clip": None}
    write_config(project, config)
    done = run_snakemake(project, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "what failed, and what there is: results/report-unfinished.html" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    page = (project / "results/blobs/report-unfinished.html").read_text()
    top = page[page.index("<h1>") : page.index("<section")]
    assert "of blobs/unet" in top and "training loss of nan" in top and "2 of 6 trainings" in top
    assert "results/logs/blobs/unet/train-fold-" in top and "is of an earlier run" in top
    assert str(project) not in page
    assert 'href="blobs/report-unfinished.html"' in (project / "results/report-unfinished.html").read_text()


def test_a_configfile_replaces_the_default(project: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["experiments"] = {"other": config["experiments"]["blobs"]}
    del config["datasets"]["tiny"]["run_folds"]
    (project / "other").mkdir()
    config["datasets"]["tiny"]["path"] = "../data"
    config["datasets"]["tiny"]["table"] = "../data/people.tsv"
    write_config(project / "other", config)
    listed = run_snakemake(project, "-n", "--configfile", "other/config.yaml").stdout
    assert "experiment=other" in listed
    assert "experiment=blobs" not in listed


def test_a_bad_configuration_is_refused_before_the_first_job(project: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["datasets"]["tiny"]["fold"] = 3
    write_config(project, config)
    done = run_snakemake(project)
    assert done.returncode != 0
    assert "did you mean `folds`" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_fewer_cores_than_threads_are_refused(project: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["threads"]["train"] = 2
    write_config(project, config)
    done = run_snakemake(project, cores=1)
    assert done.returncode != 0
    assert "as the configuration says" in done.stdout + done.stderr


def test_results_are_handed_over_when_snakemake_forgot_them(project: Path) -> None:
    before = trained_files(project)
    shutil.rmtree(project / ".snakemake")
    assert not jobs_of(run_snakemake(project)), "outputs are there: nothing to do"
    shutil.rmtree(project / ".snakemake")
    for folder in ("blobs", "report.html"):
        path = project / "results" / folder
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = jobs_of(run_snakemake(project))
    assert {"train_model unet 0", "train_model unet 1"} <= set(ran)
    assert trained_files(project) == before
    facts = json.loads((project / "results/blobs/unet/fold-0/seed-0/provenance-train.json").read_text())["facts"]
    assert facts["handed_over"] is True


def test_two_folders_give_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    second = make_project(tmp_path / "second")
    jobs_of(run_snakemake(second))
    assert trained_files(second) == trained_files(finished)
    for name in ("metrics.tsv", "cases.tsv", "predictions.tsv"):
        assert (second / "results/blobs" / name).read_bytes() == (finished / "results/blobs" / name).read_bytes()


def test_test_participants_leave_no_trace_in_training(finished: Path, tmp_path: Path) -> None:
    """The taint test: images of the test participants of fold 0 change places; nothing on the train side of fold 0 may move."""
    splits = read_table(finished / "results/datasets/tiny/splits.tsv", "splits")
    cohort = read_table(finished / "results/datasets/tiny/cohort.tsv", "cohort")
    tested = splits[(splits.fold == "0") & (splits.role == "test")].participant_id
    names = sorted(cohort[cohort.participant_id.isin(tested)].image_id)
    assert len(names) > 1
    tainted = make_project(tmp_path / "tainted")
    for folder in ("imagesTr", "labelsTr"):
        contents = [(tainted / "data" / folder / f"{name}.nii.gz").read_bytes() for name in names]
        for name, content in zip(names, contents[1:] + contents[:1], strict=True):
            (tainted / "data" / folder / f"{name}.nii.gz").write_bytes(content)
    jobs_of(run_snakemake(tainted))
    fold0 = {name: digest for name, digest in trained_files(finished).items() if "/fold-0/" in name}
    assert fold0
    assert {name: digest for name, digest in trained_files(tainted).items() if "/fold-0/" in name} == fold0
    for name in ("normalization.json", "normalization.safetensors"):
        file = Path("results/datasets/tiny/fold-0") / name
        assert (tainted / file).read_bytes() == (finished / file).read_bytes()
    other = {name: digest for name, digest in trained_files(finished).items() if "/fold-1/" in name}
    assert {name: digest for name, digest in trained_files(tainted).items() if "/fold-1/" in name} != other, "the test can fail"


def test_a_killed_run_goes_on_to_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    """Snakemake and its jobs are killed in the middle; the next call ends with the undisturbed bytes."""
    project = make_project(tmp_path / "killed")
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    limit = time.monotonic() + 120
    while not list((project / "results").glob(".checkpoints/*/*")) and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run_snakemake(project, "--unlock")
    jobs_of(run_snakemake(project))
    assert trained_files(project) == trained_files(finished)


def test_the_locked_set_is_read_only_on_request_and_counted(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["datasets"]["tiny"]["split"] = {"locked": 0.25}
    project = make_project(tmp_path / "locked", cases=16, config=config)
    assert not any("locked" in job for job in jobs_of(run_snakemake(project)))
    ran = jobs_of(run_snakemake(project, "locked"))
    assert "evaluate_locked" in ran and "average_locked ensemble.folds.unet" in ran
    metrics = read_table(project / "results/blobs/locked/metrics.tsv", "metrics")
    assert "ensemble.folds.unet" in set(metrics.model) and set(metrics.role) == {"locked"}
    reads = (project / "results/blobs/locked_reads.jsonl").read_text().splitlines()
    assert len(reads) == 1
