"""The command line: every stage by hand, plan, check, models; and no module imports what it does not need."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gyri.cli import main
from gyri.cli.stages import STAGES
from tiny import CONFIG, write_case, write_index

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny data and a configuration with baselines only; the working directory is there."""
    for number in range(1, 13):
        write_case(tmp_path / "data", number)
    write_index(tmp_path / "data")
    config = copy.deepcopy(CONFIG)
    config["experiments"]["blobs"]["architectures"] = {"majority": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_stage_by_hand(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--dataset", "tiny", "--experiment", "blobs"]
    for stage in ("dataset", "audit", "split", "preprocess"):
        assert main([stage, "--dataset", "tiny"]) == 0, capsys.readouterr().err
    for fold in ("0", "1"):
        assert main(["normalize", "--dataset", "tiny", "--fold", fold]) == 0
        for model in ("majority", "linear"):
            assert main(["train", *run, "--model", model, "--fold", fold]) == 0, capsys.readouterr().err
            assert main(["predict-fold", *run, "--model", model, "--fold", fold]) == 0, capsys.readouterr().err
    for command in (["evaluate", *run], ["report", "--experiment", "blobs"], ["index"]):
        assert main(command) == 0, capsys.readouterr().err
    assert "majority" in (project / "results/blobs/metrics.tsv").read_text()
    assert (project / "results/report.html").stat().st_size > 1000
    record = json.loads((project / "results/blobs/majority/fold-0/seed-0/provenance-train.json").read_text())
    assert {"settings", "code", "environment", "inputs", "seed", "versions", "device", "seconds", "peak_memory_mb"} <= set(record)
    assert main(["predict", "results/blobs/majority", "data/imagesTr/blob_001.nii.gz", "-o", "out"]) == 0, capsys.readouterr().err
    assert (project / "out" / "predictions.tsv").is_file()


def test_plan_counts_jobs_and_times_a_step(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["plan", "config.yaml"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "6 trainings" in told and "6 predictions" in told
    assert "unet" in told and " ms, " in told and "MB" in told


def test_check_and_models(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "config.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["experiments"]["blobs"]["architectures"]["linear"]
    assert main(["models"]) == 0
    assert "conv5_fc3" in capsys.readouterr().out


def test_help_lists_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in (*STAGES, "plan", "predict"))


@pytest.mark.parametrize("stage", ["split", "normalize", "report", "evaluate"])
def test_stages_without_networks_import_no_torch(stage: str) -> None:
    code = f"import sys, gyri.cli, gyri.{stage}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY / "workflow")}, check=False)
    assert done.returncode == 0


def test_nothing_of_the_package_imports_snakemake() -> None:
    code = (
        "import importlib, pkgutil, sys, gyri\n"
        "for item in pkgutil.walk_packages(gyri.__path__, 'gyri.'):\n"
        "    if not item.name.endswith('__main__'): importlib.import_module(item.name)\n"
        "sys.exit('snakemake' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY / "workflow")}, check=False)
    assert done.returncode == 0
