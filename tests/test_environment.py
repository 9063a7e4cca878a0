"""Which environment a job runs in, and what happens where it is not the expected one."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest

from gyri import environment
from gyri.environment import (
    check_versions,
    cudnn_text,
    describe_job,
    environment_fingerprint,
    expected_versions,
    found_versions,
    identity,
    image_fingerprint,
    recipe_hash,
    verify_environment,
)
from gyri.errors import ContainerError, ProvenanceError
from gyri.fingerprint import OUTSIDE, closure
from gyri.io import sha256_file, write_json

CONTENT = {"base": {"bash": "5.2"}, "packages": {}, "python": "3.11.2", "torch": "2.13.0+cu130", "cuda": "13.0", "cudnn": "9.20.0"}
ARGUMENTS = {"bootstrap": "localimage", "base": "base"}
FAKE_LOCK = """# CUDA
nvidia-cuda-runtime==13.0.96 ; sys_platform == 'linux' \\
    --hash=sha256:00
nvidia-cudnn-cu13==9.20.0.48 \\
    --hash=sha256:00
torch==2.13.0 \\
    --hash=sha256:00
"""


@pytest.fixture
def in_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if this process ran in the image `torch`; returns the folder of its lock."""
    write_json(tmp_path / "content.json", CONTENT)
    write_json(tmp_path / "containers" / "lock.json", {"torch": {"identity": identity(CONTENT), "content": CONTENT}})
    monkeypatch.setattr(environment, "CONTENT", tmp_path / "content.json")
    monkeypatch.setattr(environment, "CONTAINERS", tmp_path / "containers")
    monkeypatch.setenv("GYRI_IMAGE", "torch")
    return tmp_path / "containers"


@pytest.fixture
def in_venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the virtual environment were made from a lock with the CUDA build; returns that lock."""
    (tmp_path / "gyri.lock").write_text(FAKE_LOCK)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path / "gyri.lock"


def fake_torch(monkeypatch: pytest.MonkeyPatch, version: str, cuda: str | None, cudnn: int | None) -> None:
    backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: cudnn))
    torch = types.SimpleNamespace(__version__=version, version=types.SimpleNamespace(cuda=cuda), backends=backends)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder `containers` with an image, its notes and its lock, beside the lock of its packages."""
    folder = tmp_path / "checkout" / "containers"
    folder.mkdir(parents=True)
    (folder.parent / "envs").mkdir()
    for name in ("containers/base.def", "containers/image.def", "envs/torch.lock"):
        (folder.parent / name).write_text(name)
    sif = tmp_path / "cache.sif"
    sif.write_bytes(b"image")
    (folder / "torch.sif").symlink_to(sif)
    note = {"identity": identity(CONTENT), "sif": str(sif), "sha256": sha256_file(sif), "bytes": 5}
    note |= {"mtime_ns": sif.stat().st_mtime_ns, "recipe": recipe_hash("torch", ARGUMENTS, folder), "arguments": ARGUMENTS}
    write_json(folder / "built.json", {"torch": note})
    write_json(folder / "lock.json", {"torch": {"identity": identity(CONTENT), "content": CONTENT}})
    return folder


def test_inside_and_outside_an_image_give_the_same_name(built: Path, in_image: Path) -> None:
    assert image_fingerprint("torch", built) == environment_fingerprint() == f"image:{identity(CONTENT)[:16]}"


def test_the_same_content_in_another_order_is_the_same_environment(in_image: Path) -> None:
    before = environment_fingerprint()
    environment.CONTENT.write_text(json.dumps(dict(reversed(CONTENT.items())), indent=4))
    assert environment_fingerprint() == before
    environment.CONTENT.write_text(json.dumps({**CONTENT, "base": {"bash": "5.3"}}))
    assert environment_fingerprint() != before


def test_outside_an_image_the_lock_counts(in_venv: Path) -> None:
    before = environment_fingerprint()
    assert before.startswith("lock:")
    in_venv.write_text(FAKE_LOCK + "# more\n")
    assert environment_fingerprint() != before
    in_venv.unlink()
    assert environment_fingerprint().startswith("unlocked:")


def refusal(folder: Path) -> str:
    with pytest.raises(ContainerError) as error:
        image_fingerprint("torch", folder)
    assert "python -m gyri containers build --name torch" in str(error.value)
    return str(error.value)


def test_a_missing_image_is_refused(built: Path) -> None:
    (built / "torch.sif").unlink()
    assert "no such image" in refusal(built)
    (built / "built.json").unlink()
    assert "no such image" in refusal(built)


def test_an_image_that_changed_since_it_was_built_is_refused(built: Path) -> None:
    sif = (built / "torch.sif").resolve()
    os.utime(sif, ns=(1, 1))
    assert "changed since it was built" in refusal(built)


@pytest.mark.parametrize("file", ["containers/base.def", "containers/image.def", "envs/torch.lock"])
def test_an_image_of_another_recipe_is_refused(built: Path, file: str) -> None:
    (built.parent / file).write_text("changed")
    assert "changed since then" in refusal(built)


def test_an_image_that_is_not_the_locked_one_is_refused(built: Path) -> None:
    write_json(built / "lock.json", {"torch": {"identity": "0" * 64, "content": {}}})
    assert "as containers/lock.json says" in refusal(built)


def test_a_missing_lock_of_packages_is_explained(built: Path) -> None:
    (built.parent / "envs" / "torch.lock").unlink()
    with pytest.raises(ContainerError, match=r"envs/torch\.lock"):
        image_fingerprint("torch", built)


def test_a_job_in_another_environment_stops(in_image: Path) -> None:
    verify_environment(environment_fingerprint())
    with pytest.raises(ProvenanceError, match="as planned"):
        verify_environment("image:0123456789abcdef")


@pytest.mark.parametrize(("number", "text"), [(92000, "9.20.0"), (90102, "9.1.2"), (8902, "8.9.2")])
def test_cudnn_numbers_are_readable(number: int, text: str) -> None:
    assert cudnn_text(number) == text


def test_versions_as_locked_pass(in_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, "2.13.0+cu130", "13.0", 92000)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.2")
    assert found_versions() == expected_versions()
    assert check_versions("strict") == "versions are as locked: python 3.11.2 torch 2.13.0+cu130 cuda 13.0 cudnn 9.20.0"


@pytest.mark.parametrize(("cudnn", "found"), [(91000, "9.10.0"), (None, "none")])
def test_another_cudnn_stops_or_warns(in_image: Path, monkeypatch: pytest.MonkeyPatch, cudnn: int | None, found: str) -> None:
    fake_torch(monkeypatch, "2.13.0+cu130", "13.0", cudnn)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.2")
    with pytest.raises(ProvenanceError) as error:
        check_versions("strict")
    assert len(error.value.problems) == 1
    assert (error.value.problems[0].got, error.value.problems[0].expected) == (found, "9.20.0, as locked")
    line = check_versions("warn")
    assert line.startswith("WARNING") and f"found {found}, expected 9.20.0" in line


def test_the_virtual_environment_is_compared_with_its_lock(in_venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, "2.13.0+cu130", "13.0", 92000)
    assert expected_versions() == {"torch": "2.13.0+cu130", "cuda": "13.0", "cudnn": "9.20.0"}
    assert check_versions("strict").startswith("versions are as locked")
    fake_torch(monkeypatch, "2.13.0+cpu", None, None)
    with pytest.raises(ProvenanceError, match=r"13\.0, as locked"):
        check_versions("strict")


def test_the_cpu_build_against_its_lock(in_venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_venv.write_text("torch==2.13.0+cpu \\\n    --hash=sha256:00\n")
    fake_torch(monkeypatch, "2.13.0+cpu", None, None)
    assert check_versions("strict").endswith("torch 2.13.0+cpu")
    fake_torch(monkeypatch, "2.13.0+cu130", "13.0", 92000)
    with pytest.raises(ProvenanceError):
        check_versions("strict")


def test_without_a_lock_it_says_that_nothing_was_compared(in_venv: Path) -> None:
    in_venv.unlink()
    assert "not made from a lock" in check_versions("strict")


def test_the_head_of_a_log(in_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node03")
    assert describe_job() == [
        "job: slurm 17 on node03",
        f"environment: image torch {identity(CONTENT)[:12]}",
        "versions: python 3.11.2 torch 2.13.0+cu130 cuda 13.0 cudnn 9.20.0",
    ]


def test_the_head_of_a_log_without_image_and_slurm(in_venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    lines = describe_job()
    assert lines[0].startswith("job: local on ")
    assert lines[1] == f"environment: {in_venv.parent.name} lock {environment_fingerprint()[5:17]}"
    assert lines[2].startswith("versions: python ") and " torch " in lines[2]


def test_what_names_the_environment_makes_no_job_run_again() -> None:
    assert "gyri.environment" in OUTSIDE
    assert "gyri.environment" not in closure(["gyri.train", "gyri.predict", "gyri.report", "gyri.evaluate"])
