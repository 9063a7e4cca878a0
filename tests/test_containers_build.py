"""What `containers build|verify|list` do and refuse, with Apptainer itself replaced (tests/cluster builds real images)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gyri.cli import main
from gyri.containers import apptainer, store, verify
from gyri.containers.build import Wish, build, check_room
from gyri.environment import apptainer_environment, environments, identity, image_fingerprint
from gyri.errors import ContainerError
from gyri.io import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
PINNED = "python@sha256:" + "0" * 64
ASKED = {"markers": {"python_version": "3.11", "python_full_version": "3.11.2", "platform_machine": "x86_64"}, "glibc": [2, 36]}


class Machine:
    """A machine with an Apptainer that only notes what it was told.

    Args:
        content: what the images it builds say they hold.
    """

    def __init__(self, content: dict[str, Any]):
        self.content, self.built, self.arguments = content, list[str](), list[dict[str, str]]()

    def build(self, image: Path, definition: Path, arguments: dict[str, str], bind: Sequence[str], log: Path, clock: Any) -> None:
        self.built.append(definition.name)
        self.arguments.append(arguments)
        image.write_text(json.dumps([self.content, len(self.built)]))

    def run_inside(self, image: str, command: Sequence[str]) -> str:
        if command[0] == "cat":
            return json.dumps(self.content)
        return json.dumps({"content": self.content, "damaged": []} if "--from" in " ".join(command) else ASKED)

    def labels(self, image: Path) -> dict[str, str]:
        return {"org.gyri.identity": identity(self.content)}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    replaced = Machine({"python": "3.11.2", "base": {"bash": "5.2"}, "packages": {"numpy": {"version": "2.4.6", "record": "a"}}})
    for name in ("build", "run_inside", "labels"):
        monkeypatch.setattr(apptainer, name, getattr(replaced, name))
    monkeypatch.setattr(apptainer, "program", lambda: "apptainer")
    monkeypatch.setattr(apptainer, "check_build_rights", lambda: None)
    monkeypatch.setattr("gyri.containers.build.check_room", lambda *_: None)
    monkeypatch.setattr("gyri.containers.wheels.download", lambda *_: [])
    monkeypatch.setenv("GYRI_CONTAINER_CACHE", str(tmp_path / "cache"))
    return replaced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`containers` of a fresh checkout, without any image."""
    shutil.copytree(REPOSITORY / "envs", tmp_path / "checkout" / "envs", ignore=shutil.ignore_patterns("c*.lock", "test.lock"))
    target = tmp_path / "checkout" / "containers"
    target.mkdir()
    for name in ("base.def", "image.def"):
        shutil.copy(REPOSITORY / "containers" / name, target)
    return target


@pytest.fixture
def clock() -> apptainer.Clock:
    return apptainer.Clock(io.StringIO())


def said(clock: apptainer.Clock) -> str:
    return clock.stream.getvalue()  # type: ignore[attr-defined]


def test_a_second_build_does_nothing(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    assert machine.built == ["base.def", "image.def"]
    before = (folder / "built.json").read_text()
    build(Wish("tables", folder=folder), clock)
    assert machine.built == ["base.def", "image.def"]
    assert "nothing to do" in said(clock)
    assert (folder / "built.json").read_text() == before
    assert image_fingerprint("tables", folder) == f"image:{identity(machine.content)[:16]}"


def test_the_second_image_stands_on_the_same_base(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    for name in ("torch", "tables"):
        build(Wish(name, accept=True, folder=folder), clock)
    assert machine.built == ["base.def", "image.def", "image.def"]
    assert environments(("torch", "tables"), True, folder).keys() == {"torch", "tables"}


def test_another_checkout_takes_the_image_from_the_cache(
    machine: Machine, folder: Path, clock: apptainer.Clock, tmp_path: Path
) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    other = (
        Path(shutil.copytree(folder.parent, tmp_path / "other", ignore=shutil.ignore_patterns("*.sif", "built.json")))
        / "containers"
    )
    build(Wish("tables", folder=other), clock)
    assert machine.built == ["base.def", "image.def"]
    assert image_fingerprint("tables", other) == image_fingerprint("tables", folder)


def test_a_rebuild_of_the_same_content_is_the_same_environment(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    before, bytes_before = image_fingerprint("tables", folder), (folder / "tables.sif").read_bytes()
    build(Wish("tables", again=True, folder=folder), clock)
    assert (folder / "tables.sif").read_bytes() != bytes_before
    assert image_fingerprint("tables", folder) == before


def test_other_content_is_not_put_in_place_unless_accepted(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    locked, before = (folder / "lock.json").read_text(), image_fingerprint("tables", folder)
    machine.content = {**machine.content, "packages": {"numpy": {"version": "2.4.7", "record": "b"}}}
    with pytest.raises(ContainerError) as error:
        build(Wish("tables", again=True, folder=folder), clock)
    assert "package numpy: 2.4.6 locked, 2.4.7 found" in str(error.value) and "--accept" in str(error.value)
    assert (folder / "lock.json").read_text() == locked
    built = len(machine.built)
    build(Wish("tables", accept=True, folder=folder), clock)
    assert len(machine.built) == built, "what was built and refused is accepted without building it again"
    assert "accepted: package numpy: 2.4.6 locked, 2.4.7 found" in said(clock)
    assert image_fingerprint("tables", folder) != before


def test_a_changed_lock_concerns_its_own_image_only(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    for name in ("torch", "tables"):
        build(Wish(name, accept=True, folder=folder), clock)
    with (folder.parent / "envs" / "tables.lock").open("a") as lock:
        lock.write("# changed\n")
    with pytest.raises(ContainerError) as error:
        environments(("torch", "tables"), True, folder)
    assert [problem.where for problem in error.value.problems] == ["containers/tables.sif"]
    build(Wish("tables", folder=folder), clock)
    assert machine.built.count("image.def") == 3
    environments(("torch", "tables"), True, folder)


def test_a_pinned_base_needs_no_debian(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", base=PINNED, accept=True, folder=folder), clock)
    assert machine.built == ["image.def"]
    assert (machine.arguments[0]["bootstrap"], machine.arguments[0]["base"]) == ("docker", PINNED)


def test_the_locked_base_is_the_default(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    machine.content["from"] = PINNED
    build(Wish("tables", base=PINNED, accept=True, folder=folder), clock)
    build(Wish("tables", folder=folder), clock)
    assert machine.built == ["image.def"] and "nothing to do" in said(clock)
    assert Wish("tables", base="debian", folder=folder).arguments["bootstrap"] == "debootstrap"


@pytest.mark.parametrize("base", ["python:3.11", "python", "python@sha256:12", "python:3.11; rm"])
def test_a_base_without_digest_is_refused(folder: Path, clock: apptainer.Clock, base: str) -> None:
    with pytest.raises(ContainerError, match="by its digest"):
        build(Wish("tables", base=base, folder=folder), clock)


def test_an_image_that_changed_in_the_cache_is_not_linked(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    sif = (folder / "tables.sif").resolve()
    sif.write_bytes(b"x" * sif.stat().st_size)
    os.utime(sif, ns=(1, 1))
    with pytest.raises(ContainerError, match="other bytes than were built"):
        build(Wish("tables", folder=folder), clock)


def test_a_failed_build_leaves_nothing_behind(
    machine: Machine, folder: Path, clock: apptainer.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: Path, definition: Path, *_: Any) -> None:
        image.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(apptainer, "build", fail)
    with pytest.raises(KeyboardInterrupt):
        build(Wish("tables", folder=folder), clock)
    assert not list(store.cache().glob("*.sif")) and not list(store.cache().glob(".partial-*"))
    assert not (folder / "built.json").exists()


# ── looking into an image ──
def test_verification_compares_all_that_is_said_about_an_image(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    assert verify.verify("tables", clock, folder).problems == []
    machine.content = {**machine.content, "python": "3.11.9"}
    problems = [problem.where for problem in verify.verify("tables", clock, folder).problems]
    assert "content of the image, tables" in problems and "label org.gyri.identity, tables" in problems
    (folder / "tables.sif").resolve().write_text("other")
    assert "bytes of the image, tables" in [problem.where for problem in verify.verify("tables", clock, folder).problems]


def test_verification_of_a_missing_image_names_the_command(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    with pytest.raises(ContainerError, match="python -m gyri containers build --name torch"):
        verify.verify("torch", clock, folder)


def test_the_list_says_what_is_ready(machine: Machine, folder: Path, clock: apptainer.Clock) -> None:
    build(Wish("tables", accept=True, folder=folder), clock)
    rows = {row[0]: row for row in verify.listing(folder)}
    assert rows["tables"][3] == "ready" and rows["tables"][1] == rows["tables"][2] == identity(machine.content)[:12]
    assert rows["torch"][3] == "no such image"


# ── the machine ──
def test_without_apptainer_the_message_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GYRI_CONTAINER_CACHE", str(tmp_path / "cache"))
    assert main(["containers", "build", "--name", "tables"]) == 1
    shown = capsys.readouterr().err
    assert "neither `apptainer` nor `singularity`" in shown and "apptainer.org" in shown and "Traceback" not in shown


def test_too_little_room_is_refused_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    with pytest.raises(ContainerError, match=r"3\.0 GB free"):
        check_room("torch", tmp_path, tmp_path)
    check_room("tables", tmp_path, tmp_path)


def test_wheels_that_are_there_need_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12.5e9))
    with pytest.raises(ContainerError, match=r"15\.0 GB for `torch`"):
        check_room("torch", tmp_path, tmp_path)
    (tmp_path / "wheels").mkdir()
    with (tmp_path / "wheels" / "x.whl").open("wb") as wheel:
        wheel.truncate(int(2.9e9))  # takes no room itself
    check_room("torch", tmp_path, tmp_path)


def test_a_folder_to_build_in_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="no such folder"):
        check_room("tables", tmp_path, tmp_path / "missing")


def fake_apptainer(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / "apptainer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("FATAL: write /tmp/x: No space left on device", "make room"),
        ("E: Failed getting release file http://mirror/dists/Release", "--mirror"),
        ("FATAL: could not use fakeroot: no mapping entry found in /etc/subuid", "/etc/subuid"),
        ("something else", "the whole log is"),
    ],
)
def test_a_failed_build_shows_what_apptainer_said_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: apptainer.Clock, words: str, remedy: str
) -> None:
    fake_apptainer(tmp_path / "bin", f"echo gyri: installing packages; echo '{words}' >&2; exit 255")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(ContainerError) as error:
        apptainer.build(tmp_path / "x.sif", Path("image.def"), {"name": "x"}, [], tmp_path / "x.log", clock)
    assert words in error.value.problems[0].got
    assert remedy in error.value.problems[0].remedy
    assert words in (tmp_path / "x.log").read_text()
    assert "installing the packages ..." in said(clock)


def test_arguments_of_a_build_reach_apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: apptainer.Clock) -> None:
    fake_apptainer(tmp_path / "bin", 'for word in "$@"; do echo "$word"; done > "$0.words"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("APPTAINER_MKSQUASHFS_ARGS", "-comp gzip")
    apptainer.build(
        tmp_path / "x.sif", Path("image.def"), {"base": "b c", "from": ""}, ["/here:/mnt:ro"], tmp_path / "x.log", clock
    )
    words = (tmp_path / "bin" / "apptainer.words").read_text().splitlines()
    fakeroot = ["--fakeroot"] if apptainer_environment() else []
    assert words == [
        "build", "--force", *fakeroot, "--bind", "/here:/mnt:ro", "--build-arg", "base=b c", "--build-arg", "from=",
        str(tmp_path / "x.sif"), "image.def",
    ]  # fmt: skip


def test_long_silence_is_filled_with_signs_of_life() -> None:
    clock = apptainer.Clock(io.StringIO(), every=0.05)
    with clock.during("waiting"):
        time.sleep(0.3)
    assert said(clock).count("waiting, for 0 s") >= 2


def test_root_without_capabilities_uses_a_user_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(text: str) -> dict[str, str]:
        (tmp_path / "status").write_text(text)
        return apptainer_environment(tmp_path / "status")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert status("Name: x\nCapEff:\t000001ffffffffff\n") == {}
    assert status("Name: x\nCapEff:\t000001fffeffffff\n") == {"APPTAINER_USERNS": "1"}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert status("Name: x\nCapEff:\t0000000000000000\n") == {}


def test_neither_spython_nor_apptainer_is_needed_to_plan() -> None:
    """The Snakefile reads notes; what drives Apptainer is imported by its own sub-command only."""
    heavy = ("spython", "packaging", "gyri.containers.build")
    code = f"import sys, gyri.environment, gyri.cli; print([name for name in {heavy} if name in sys.modules])"
    environment = {"PYTHONPATH": str(REPOSITORY / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lock_json_names_both_images_with_their_contents() -> None:
    locked = store.read_table("lock.json")
    assert set(locked) == {"torch", "tables"}
    for entry in locked.values():
        assert identity(entry["content"]) == entry["identity"]
    content = locked["torch"]["content"]
    assert content["packages"]["nvidia-cudnn-cu13"]["version"].startswith(content["cudnn"])
    assert content["torch"].startswith(content["packages"]["torch"]["version"] + "+cu")
    assert "torch" not in locked["tables"]["content"]["packages"]


def test_notes_of_a_lost_cache_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("12345")
    write_json(tmp_path / "x.json", {"bytes": 6})
    assert store.note_of(tmp_path / "x.sif") is None
    write_json(tmp_path / "x.json", {"bytes": 5})
    assert store.note_of(tmp_path / "x.sif") == {"bytes": 5}
