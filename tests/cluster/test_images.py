"""The images that jobs ran in: what they hold, and what a rebuilt one reruns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from project import Demo, Project, planned

# where snakemake lists the rules by image, so that the test need not
RULE = re.compile(r"^rule (\w+):\n(?:(?!^rule ).*\n)*?    container:\n        IMAGES\[\"(\w+)\"\]", re.MULTILINE)


def rules_of(project: Project, image: str) -> set[str]:
    """The rules that name an image."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((project.folder / "workflow" / "rules").glob("*.smk")))
    return {rule for rule, name in RULE.findall(text) if name == image}


def inside(project: Project, image: str, *command: str) -> str:
    """What a command prints inside an image."""
    done = project.call("apptainer", "--silent", "exec", f"containers/{image}.sif", *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lock_says_what_is_in_the_image(demo: Demo) -> None:
    content = json.loads((demo.project.folder / "containers" / "lock.json").read_text(encoding="utf-8"))["torch"]["content"]
    listed = json.loads(inside(demo.project, "torch", "python", "-m", "pip", "list", "--format", "json"))
    installed = {item["name"].lower().replace("_", "-"): item["version"] for item in listed}
    locked = {name.lower().replace("_", "-"): item["version"] for name, item in content["packages"].items()}
    assert locked == installed
    asked = "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"
    torch, cuda, cudnn = inside(demo.project, "torch", "python", "-c", asked).split()
    major, minor, patch = map(int, content["cudnn"].split("."))
    assert (torch, cuda, int(cudnn)) == (content["torch"], content["cuda"], 10000 * major + 100 * minor + patch)


def test_an_image_rebuilt_with_the_same_content_reruns_nothing(copy_of_demo: Callable[[], Project]) -> None:
    project = copy_of_demo()
    notes = project.folder / "containers" / "built.json"
    before = json.loads(notes.read_text(encoding="utf-8"))["tables"]
    built = project.gyri("containers", "build", "--name", "tables", "--again")
    assert built.returncode == 0, built.stdout + built.stderr
    after = json.loads(notes.read_text(encoding="utf-8"))["tables"]
    assert after["mtime_ns"] != before["mtime_ns"], "it was built again"
    assert after["identity"] == before["identity"]
    done = project.snakemake("-n")
    assert "Nothing to be done" in done.stdout + done.stderr, planned(done.stdout)


def test_a_changed_requirement_reruns_the_rules_of_its_image(copy_of_demo: Callable[[], Project]) -> None:
    project = copy_of_demo()
    lock = project.folder / "envs" / "tables.lock"
    text = lock.read_text(encoding="utf-8")
    print(text[:500])
    raise NotImplementedError
