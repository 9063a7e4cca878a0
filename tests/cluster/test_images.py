"""The images that jobs ran in: what they hold, and what a rebuilt one reruns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from project import REPOSITORY, Demo, Project, planned

from gyri.environment import apptainer_environment

RULE = re.compile(r"^rule (\w+):\n(?:(?!^rule ).*\n)*?    container:\n        IMAGES\[\"(\w+)\"\]", re.MULTILINE)
# an older release of a package that computes nothing here, by version and hash
OLDER = """certifi==2025.11.12 \\
    --hash=sha256:97de8790030bbd5c2d96b7ec782fc2f7820ef8dba6db909ccf95449f2d062d4b
"""


def rules_of(project: Project, image: str) -> set[str]:
    """The rules that name an image."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((project.folder / "workflow" / "rules").glob("*.smk")))
    return {rule for rule, name in RULE.findall(text) if name == image}


def inside(project: Project, image: str, *command: str) -> str:
    """What a command prints inside an image."""
    settings = [f"{name}={value}" for name, value in apptainer_environment().items()]
    done = project.call("env", *settings, "apptainer", "--silent", "exec", f"containers/{image}.sif", *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(folder: Path, image: str) -> dict[str, Any]:
    """What containers/lock.json says of an image."""
    locked: dict[str, Any] = json.loads((folder / "containers" / "lock.json").read_text(encoding="utf-8"))[image]["content"]
    return locked


def test_the_lock_says_what_is_in_the_image(demo: Demo) -> None:
    locked = content(REPOSITORY, "torch")
    listed = json.loads(inside(demo.project, "torch", "python", "-m", "pip", "list", "--format", "json"))
    assert {name: item["version"] for name, item in locked["packages"].items()} == {
        re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"] for item in listed
    }
    asked = "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"
    torch, cuda, cudnn = inside(demo.project, "torch", "python", "-c", asked).split()
    print(f"torch {torch}, CUDA {cuda}, cuDNN {cudnn}, {len(listed)} packages, as locked")
    major, minor, patch = map(int, locked["cudnn"].split("."))
    assert (torch, cuda, int(cudnn)) == (locked["torch"], locked["cuda"], 10000 * major + 100 * minor + patch)


def test_an_image_rebuilt_with_the_same_content_reruns_nothing(copy_of_demo: Callable[[], Project], tmp_path: Path) -> None:
    project = copy_of_demo()
    notes = project.folder / "containers" / "built.json"
    before = json.loads(notes.read_text(encoding="utf-8"))["tables"]
    # a cache of its own, since other checkouts use the image in the shared one: the wheels and the base are taken from there
    cache, shared = tmp_path / "cache", Path(before["sif"]).parent
    cache.mkdir()
    for path in (shared / "wheels", *shared.glob("base-*.sif")):
        (cache / path.name).symlink_to(path)
    project.environment["GYRI_CONTAINER_CACHE"] = str(cache)
    built = project.gyri("containers", "build", "--name", "tables")
    assert built.returncode == 0, built.stdout + built.stderr
    after = json.loads(notes.read_text(encoding="utf-8"))["tables"]
    print(f"before {before}\nafter {after}")
    assert (before["sha256"], before["mtime_ns"]) != (after["sha256"], after["mtime_ns"]), "it was built again"
    assert after["identity"] == before["identity"]
    done = project.snakemake("-n")
    assert "Nothing to be done" in done.stdout + done.stderr, planned(done.stdout + done.stderr)


def test_a_changed_requirement_reruns_the_rules_of_its_image(copy_of_demo: Callable[[], Project]) -> None:
    project = copy_of_demo()
    lock = project.folder / "envs" / "tables.lock"
    lock.write_text(re.sub(r"^certifi==(.*\\\n)+.*\n", lambda _: OLDER, lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    refused = project.snakemake("-n")
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "envs/tables.lock changed" in said
    assert "python -m gyri containers build --name tables" in said
    built = project.gyri("containers", "build", "--name", "tables")
    assert built.returncode != 0, "another content than the locked one is not taken without a word"
    assert re.search(r"certifi: \S+ locked, 2025.11.12 found", built.stdout + built.stderr), built.stdout + built.stderr
    assert project.gyri("containers", "build", "--name", "tables", "--accept").returncode == 0
    done = project.snakemake("--summary")
    assert done.returncode == 0, done.stdout + done.stderr
    changed = rules_by_status(done.stdout)
    print(changed)
    # a dry run gives "Input files updated by another job" as the only reason of whatever comes after the first of them
    assert changed.pop("params changed") == rules_of(project, "tables")
    assert set().union(*changed.values()) <= rules_of(project, "torch"), "whose files are there or, being temporary, gone"


def rules_by_status(summary: str) -> dict[str, set[str]]:
    """By what Snakemake says of an output file: the rules of such files."""
    found: dict[str, set[str]] = {}
    for row in csv.DictReader(io.StringIO(summary[summary.index("output_file\t") :]), delimiter="\t"):
        found.setdefault(row["status"], set()).add(row["rule"])
    return found
