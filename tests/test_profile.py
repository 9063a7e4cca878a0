"""`snakemake --profile slurm`: its options exist, each rule asks for what it needs, and preflight stops before the first job."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser

from gyri.environment import recipe_hash
from gyri.io import write_json
from gyri.preflight.slurm import ATTEMPTS, RULE_MINUTES
from tiny import CONFIG, REPOSITORY, make_project, run_snakemake, write_config

PROFILE = REPOSITORY / "slurm" / "config.yaml"
RULES = {
    name: text
    for file in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
    for name, text in re.findall(r"^rule (\w+):\n((?:[ \t].*\n|\n)+)", file.read_text(), re.MULTILINE)
}
TARGETS = {"locked"}  # rules without a command
NETWORKS = {"train_model", "predict_fold", "explain_model"}


def profile() -> dict[str, Any]:
    return dict(yaml.safe_load(PROFILE.read_text()))


def test_every_key_is_an_option_and_is_explained() -> None:
    options = {option for action in get_argument_parser()._actions for option in action.option_strings}
    assert [key for key in profile() if f"--{key}" not in options] == []
    assert [path.name for path in PROFILE.parent.iterdir()] == ["config.yaml"], (
        "snakemake takes values for files that lie beside it"
    )
    before = ""
    for line in PROFILE.read_text().splitlines():
        assert not re.match(r"\w", line) or before.startswith("#"), f"unexplained: {line}"
        before = line


def test_no_arrays_and_no_retries_of_rules() -> None:
    """Array jobs leak slots, and a rule's own retries run inside the old allocation (docs/decisions.md)."""
    assert not [key for key in profile() if "array" in key]
    assert not [name for name, text in RULES.items() if re.search(r"^\s+retries:", text, re.MULTILINE)]


def test_every_rule_says_what_it_needs_or_runs_here() -> None:
    assert len(RULES) > 10
    for name in set(RULES) - TARGETS:
        assert ("**needs(" in RULES[name]) != ("localrule: True" in RULES[name]), name
        logs = re.findall(r'log:\n\s+"(.*)"', RULES[name])
        assert len(logs) == 1 and logs[0].startswith("results/logs/"), name


def test_preflight_knows_the_longest_rule_and_the_attempts() -> None:
    assert max(int(minutes) for text in RULES.values() for minutes in re.findall(r"needs\(minutes=(\d+)", text)) == RULE_MINUTES
    assert profile()["retries"] + 1 == ATTEMPTS


def test_the_page_says_what_the_rules_ask_for() -> None:
    rows = [line for line in (REPOSITORY / "docs" / "cluster.md").read_text().splitlines() if line.startswith("| `")]
    for name, text in RULES.items():
        (row,) = [line for line in rows if f"`{name}`" in line] if name not in TARGETS else [""]
        asked = re.search(r"needs\((.*)\)", text)
        numbers = re.findall(r"=(\d{2,})", asked[1]) if asked else []
        assert [number for number in numbers if number not in re.findall(r"\d+", row)] == [], name
        assert bool(asked) == ("submitting machine" not in row) or name in TARGETS, name
        assert ("twice its inputs" in row) == ("per_input=2" in text) and ("one for networks" in row) == (name in NETWORKS)


def project_with(folder: Path, site: dict[str, Any], config: dict[str, Any] = CONFIG) -> Path:
    """A project with the profile and a site."""
    project = make_project(folder, config=config)
    shutil.copytree(PROFILE.parent, project / "slurm")
    (project / "site.yaml").write_text(yaml.safe_dump(site))
    return project


def plan(project: Path, *arguments: str) -> dict[str, list[str]]:
    """Of each rule, the resources of its jobs as a dry run of the profile says them; `local` for those that run here."""
    # env-modules: no rule names any, so that jobs run in .venv; the images need not be built for these tests
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "-n", "--software-deployment-method", "env-modules"]
    done = subprocess.run([*command, *arguments], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs: dict[str, list[str]] = {}
    for local, rule, text in re.findall(r"^ *(local)?rule (\w+):\n((?: +\S.*\n?)+)", done.stdout + done.stderr, re.MULTILINE):
        model = re.search(r"model=(\w+)", text)
        found = re.search(r"resources: (.*)", text)
        jobs.setdefault(f"{rule} {model[1]}" if model else rule, []).append("local" if local else found[1] if found else "")
    jobs["groups"] = re.findall(r"Group job (\w+)", done.stdout + done.stderr)
    return jobs


@pytest.mark.workflow
def test_networks_get_a_gpu_and_nothing_else_does(tmp_path: Path) -> None:
    site = {"account": "lab", "partition": "cpu", "time": 0.5, "longest_minutes": 100, "gpu": {"partition": "gpu", "type": "a100"}}
    jobs = plan(project_with(tmp_path / "project", site))
    for rule in ("train_model", "predict_fold"):
        (asked,) = set(jobs[f"{rule} unet"])
        assert "gres=gpu:a100:1" in asked and "slurm_partition=gpu" in asked
        for model in ("linear", "majority"):
            assert not any("gpu" in item for item in jobs[f"{rule} {model}"])
            assert all("slurm_partition=cpu" in item for item in jobs[f"{rule} {model}"])
    for rule in ("read_dataset", "audit_dataset", "preprocess_images", "normalize_fold", "evaluate_experiment"):
        assert all("slurm_account=lab" in item and "gpu" not in item and "mem_mb=" in item for item in jobs[rule]), jobs[rule]
    assert "runtime=100" in jobs["train_model unet"][0], "half of 240 min is more than the partition grants"
    assert "runtime=30" in jobs["read_dataset"][0]
    for rule in ("split_dataset", "report_experiment", "report_index"):
        assert set(jobs[rule]) == {"local"} or "slurm_account" not in jobs[rule][0]
    assert jobs["groups"] == []


@pytest.mark.workflow
def test_the_other_form_and_a_cluster_without_gpus(tmp_path: Path) -> None:
    project = project_with(tmp_path / "project", {"gpu": {"request": "gpus", "type": "a100"}})
    jobs = plan(project)
    assert "gpu=1" in jobs["train_model unet"][0] and "gpu_model=a100" in jobs["train_model unet"][0]
    assert "gres" not in jobs["train_model unet"][0] and "gpu" not in jobs["train_model linear"][0]
    (project / "site.yaml").write_text("gpu: {request: none}\n")
    assert "gpu" not in plan(project)["train_model unet"][0]
    (project / "site.yaml").write_text("gpu: {request: gpus, pack: 2}\n")
    refused = run_snakemake(project, "--profile", "slurm", "-n", "--software-deployment-method", "env-modules")
    assert refused.returncode and "take `request: gres`" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.workflow
def test_trainings_of_one_model_are_packed(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["datasets"]["tiny"].pop("run_folds")
    config["experiments"]["blobs"]["architectures"]["wide"] = {"network": "unet"}
    config["experiments"]["blobs"]["seeds"] = 2
    project = project_with(tmp_path / "project", {"gpu": {"pack": 4}}, config)
    groups = plan(project)["groups"]
    assert sorted(groups) == ["pack_blobs_unet"] * 2 + ["pack_blobs_wide"] * 2, "six trainings each: four and two"
    assert "gpu" not in str(plan(project, "--until", "normalize_fold")["groups"])


@pytest.mark.workflow
def test_preflight_stops_before_the_first_job(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["threads"]["train"] = 4096
    project = make_project(tmp_path / "project", config=config)
    done = run_snakemake(project)
    assert done.returncode and "fewer than the threads of train (4096)" in done.stderr
    assert "Traceback" not in done.stderr and "Finished job" not in done.stderr
    assert run_snakemake(project, "-n").returncode == 0, "a dry run looks at nothing"
    write_config(project, CONFIG)
    assert run_snakemake(project, "--until", "read_dataset").returncode == 0, "nothing stays locked"


def pretend_images(project: Path) -> None:
    """Files and notes that stand for images which were built here; nothing can run in them."""
    folder = project / "containers"
    shutil.copytree(REPOSITORY / "containers", folder, ignore=shutil.ignore_patterns("*.sif", "built.json"))
    shutil.copytree(REPOSITORY / "envs", project / "envs")
    arguments = {"bootstrap": "debootstrap", "base": "bookworm"}
    notes, lock = {}, {}
    for name in ("torch", "tables"):
        image = folder / f"{name}.sif"
        image.write_bytes(b"image")
        status = image.stat()
        notes[name] = {"identity": "0" * 64, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "arguments": arguments}
        notes[name]["recipe"] = recipe_hash(name, arguments, folder)
        lock[name] = {"identity": "0" * 64, "content": {}}
    write_json(folder / "built.json", notes)
    write_json(folder / "lock.json", lock)


@pytest.mark.workflow
def test_a_folder_that_cannot_be_bound_is_named_with_containers_only(tmp_path: Path) -> None:
    project = project_with(tmp_path / "project", {"bind": ["/mnt/not/there"]})
    pretend_images(project)
    plan(project)
    with_containers = run_snakemake(project, "--profile", "slurm", "-n")
    said = with_containers.stdout + with_containers.stderr
    assert with_containers.returncode and "/mnt/not/there" in said and "site.yaml" in said
    assert "Traceback" not in said
