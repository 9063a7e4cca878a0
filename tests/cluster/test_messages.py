"""What is wrong with a cluster's settings is said in words that its user can act on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest
from project import SITE, Project, change_yaml, states

TARGET = "results/age/conv5_fc3/fold-0/seed-0/weights.safetensors"


@pytest.fixture
def project(copy_of_demo: Callable[[], Project]) -> Project:
    """The finished demo, of which one small network must be trained again."""
    copy = copy_of_demo()
    (copy.folder / TARGET).unlink()
    shutil.rmtree(copy.folder / "results" / ".checkpoints")  # or its finished result would be handed over
    return copy


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed, said all of these words, and showed nobody a traceback."""
    said = done.stdout + done.stderr
    print(said)
    assert done.returncode != 0
    assert [word for word in words if word not in said] == []
    assert "Traceback" not in said


def test_a_wrong_account(project: Project) -> None:
    change_yaml(project.folder / "site.yaml", {"account": "nobodys"})
    refused(project.snakemake(TARGET), "nobodys", "site.yaml")
    assert project.jobs() == []


def test_a_folder_to_bind_that_is_not_there(project: Project) -> None:
    change_yaml(project.folder / "site.yaml", {"bind": ["/mnt/not/there"]})
    refused(project.snakemake(TARGET), "/mnt/not/there", "site.yaml")
    assert project.jobs() == []


def test_a_missing_image(project: Project) -> None:
    (project.folder / "containers" / "torch.sif").unlink()
    refused(project.snakemake(TARGET), "containers/torch.sif", "python -m gyri containers build")
    assert project.jobs() == []


def test_another_cuda_than_the_locked_one(project: Project) -> None:
    path = project.folder / "containers" / "lock.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    found = lock["torch"]["content"]["cuda"]
    lock["torch"]["content"]["cuda"] = "12.6"
    path.write_text(json.dumps(lock), encoding="utf-8")
    refused(project.snakemake("--retries", "0", TARGET), "version of cuda", found, "12.6", "versions: warn")
    assert states(project.jobs()) == ["FAILED"]


def test_the_site_of_the_tests_is_a_sound_one(project: Project) -> None:
    done = project.gyri("preflight")
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    assert str(SITE["account"]) in done.stdout
