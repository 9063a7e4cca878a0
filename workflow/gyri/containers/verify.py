"""Is an image what it should be? Asked of the image itself, not of the notes about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gyri.containers import apptainer, store
from gyri.containers.build import CONTENT_FILE
from gyri.environment import BUILD, VERSIONS, identity, image_fingerprint, recipe_hash
from gyri.errors import ContainerError, Problem
from gyri.layout import CONTAINERS


@dataclass
class Answer:
    """What was found out about an image.

    Args:
        name: of the image.
        lines: what is as it should be, for the reader.
        problems: what is not.
    """

    name: str
    lines: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def verify(name: str, clock: apptainer.Clock, folder: Path = CONTAINERS) -> Answer:
    """Hash every file of an image's packages, and compare its content with its label, with `lock.json` and with `built.json`.

    Args:
        name: of the image.
        clock: is told what is going on.
        folder: `containers` of the checkout.

    Raises:
        ContainerError: there is no such image, or it cannot be run.
    """
    apptainer.program()
    built = store.read_table("built.json", folder).get(name)
    link = folder / f"{name}.sif"
    if built is None or not link.is_file():
        problem = Problem(f"containers/{name}.sif", "no such image", "an image built on this machine", f"`{BUILD} --name {name}`")
        raise ContainerError(problem)
    sif, answer = link.resolve(), Answer(name)
    with clock.during(f"{name}: hashing the image"):
        intact = store.intact(sif, built)
    _expect(answer, "bytes of the image", built["sha256"][:16] if intact else "other bytes", built["sha256"][:16])
    origin = built["arguments"].get("base", "") if built["arguments"]["bootstrap"] == "docker" else ""
    program = CONTENT_FILE.read_text(encoding="utf-8")
    with clock.during(f"{name}: hashing every file of its packages, inside the image"):
        found = json.loads(apptainer.run_inside(str(sif), ["python", "-I", "-c", program, f"--from={origin}"]))
    compare(answer, found, apptainer.labels(sif), built, folder)
    return answer


def compare(
    answer: Answer, found: dict[str, Any], labels: dict[str, str], built: dict[str, Any], folder: Path = CONTAINERS
) -> None:
    """Compare what was found in an image with all that is said about it.

    Args:
        answer: takes what comes out.
        found: `content` and `damaged` files, as the image's Python says.
        labels: of the image.
        built: its part of `built.json`.
        folder: `containers` of the checkout.
    """
    content, name = found["content"], answer.name
    for line in found["damaged"][:5]:
        answer.problems.append(Problem(f"a file in the image {name}", line, "the bytes of the locked wheel", f"`{BUILD} --again`"))
    locked = store.read_table("lock.json", folder).get(name, {"identity": "none", "content": {}})
    _expect(answer, "content of the image", identity(content), locked["identity"])
    for line in store.differences(locked["content"], content)[:20]:
        answer.problems.append(Problem(f"content of the image {name}", line, "no difference", f"`{BUILD} --name {name}`"))
    _expect(answer, "label org.gyri.identity", labels.get("org.gyri.identity", "none"), locked["identity"])
    _expect(answer, "identity in containers/built.json", built["identity"], locked["identity"])
    _expect(answer, "recipe", built["recipe"], recipe_hash(name, built["arguments"], folder))
    answer.lines.append("versions: " + " ".join(f"{key} {content[key]}" for key in VERSIONS if key in content))
    answer.lines.append(
        f"packages: {len(content['packages'])} of Python, {len(content['base'])} of Debian, {len(found['damaged'])} damaged files"
    )
    answer.lines += [f"    {package:28} {facts['version']}" for package, facts in content["packages"].items()]


def _expect(answer: Answer, what: str, got: str, expected: str) -> None:
    if got == expected:
        answer.lines.append(f"{what}: {expected[:16]}, as it should be")
    else:
        problem = Problem(
            f"{what}, {answer.name}", got[:16], expected[:16], f"`{BUILD} --name {answer.name}` says what can be done"
        )
        answer.problems.append(problem)


def listing(folder: Path = CONTAINERS) -> list[list[str]]:
    """One row per image: name, locked content, built content, what its state is, size, file."""
    rows = [["image", "locked", "built", "state", "size", "file"]]
    locked, built = store.read_table("lock.json", folder), store.read_table("built.json", folder)
    for name in store.NAMES:
        note = built.get(name, {})
        try:
            image_fingerprint(name, folder)
            state = "ready"
        except ContainerError as error:
            state = error.problems[0].got
        size = f"{note['bytes'] / 1e6:.0f} MB" if note else "-"
        row = [
            name,
            locked.get(name, {}).get("identity", "-")[:12],
            note.get("identity", "-")[:12],
            state,
            size,
            note.get("sif", "-"),
        ]
        rows.append(row)
    return rows
