"""Build the images: wheels, base, packages, and the check against what is locked. What is there already is not made again."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyri.containers import apptainer, store, wheels
from gyri.environment import recipe_hash
from gyri.errors import ContainerError, Problem
from gyri.io import sha256_file, sha256_text, write_json
from gyri.layout import CONTAINERS

MIRROR = "http://deb.debian.org/debian"
PINNED_BASE = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")
CONTENT_FILE = Path(__file__).with_name("content.py")


@dataclass(frozen=True)
class Wish:
    """What to build.

    Args:
        name: of the image.
        mirror: of Debian.
        base: a pinned image of a registry with a Python 3.11 or later; "debian" for Debian 12 itself; None for the one that is locked.
        accept: take what was built into `lock.json` where it differs.
        again: build anew although the image is there.
        folder: `containers` of the checkout.
    """

    name: str
    mirror: str = MIRROR
    base: str | None = None
    accept: bool = False
    again: bool = False
    folder: Path = CONTAINERS

    @property
    def pinned(self) -> str:
        """The pinned image to stand on; empty for Debian itself."""
        if self.base is None:
            return str(store.read_table("lock.json", self.folder).get(self.name, {}).get("content", {}).get("from", ""))
        return "" if self.base == "debian" else self.base

    @property
    def arguments(self) -> dict[str, str]:
        """What of it decides what is in the image."""
        return {"bootstrap": "docker", "base": self.pinned} if self.pinned else {"bootstrap": "debootstrap", "base": "bookworm"}


def build(wish: Wish, clock: apptainer.Clock) -> None:
    """Build one image, unless it is there, and put it in place if it is the locked one.

    Args:
        wish: what.
        clock: is told what is going on.

    Raises:
        ContainerError: it could not be built, or it holds other things than `lock.json` says.
    """
    if wish.pinned and not PINNED_BASE.fullmatch(wish.pinned):
        remedy = "look its digest up in the registry: a name or a tag may mean another image tomorrow"
        raise ContainerError(Problem("--base", f"`{wish.pinned}`", "an image by its digest, as `python@sha256:...`", remedy))
    with store.only_one(clock.say):
        sif = store.sif_path(wish.name, wish.arguments, wish.folder)
        note = None if wish.again else store.note_of(sif)
        if note is None:
            note = _build(wish, sif, clock)
        elif store.in_place(wish.name, sif, wish.folder) and _locked(wish) == note["identity"]:
            clock.say(f"containers/{wish.name}.sif is built, content {note['identity'][:16]}, as locked: nothing to do")
            return
        elif not store.intact(sif, note):
            remedy = "delete it, or build it again with --again"
            raise ContainerError(Problem(str(sif), "other bytes than were built", f"sha256 {note['sha256'][:16]}", remedy))
        _place(wish, sif, note, clock.say)


def _build(wish: Wish, sif: Path, clock: apptainer.Clock) -> dict[str, Any]:
    """Make the image in the cache, with its note beside it."""
    apptainer.program()
    apptainer.check_build_rights()
    check_room(wish.name, store.cache(), apptainer.temporary_folder())
    clock.say(f"image {wish.name}, to {sif}")
    base = f"docker://{wish.pinned}" if wish.pinned else str(_debian(wish, clock))
    with clock.during("asking the base which Python it has"):
        asked = json.loads(apptainer.run_inside(base, ["python3", "-I", "-c", wheels.ASK]))
    target = wheels.Target(asked["markers"], tuple(asked["glibc"]))
    lock = wish.folder.parent / "envs" / f"{wish.name}.lock"
    wanted = wheels.requirements(lock.read_text(encoding="utf-8"), target)
    folder = store.cache() / "wheels"
    with clock.during(f"wheels of {len(wanted)} packages"):
        wheels.download(folder, wanted, target, clock.say)
    arguments = {
        "bootstrap": "docker" if wish.pinned else "localimage",
        "base": wish.pinned or base,
        "from": wish.pinned,
        "name": wish.name,
        "lock": str(lock),
        "content": str(CONTENT_FILE),
    }
    partial, log = sif.with_name(f".partial-{sif.name}"), sif.with_suffix(".log")
    try:
        apptainer.build(partial, wish.folder / "image.def", arguments, [f"{folder}:/mnt:ro"], log, clock)
        with clock.during("looking at the result"):
            note = _note(partial, wish)
        partial.replace(sif)
    finally:
        partial.unlink(missing_ok=True)
    write_json(sif.with_suffix(".json"), note)
    clock.say(f"built {sif.name}: {note['bytes'] / 1e6:.0f} MB, content {note['identity'][:16]}")
    return note


def _debian(wish: Wish, clock: apptainer.Clock) -> Path:
    """The base, made from Debian's packages unless it is there."""
    definition = wish.folder / "base.def"
    base = store.cache() / f"base-{sha256_text(definition.read_text(encoding='utf-8'))[:12]}.sif"
    if base.is_file() and not wish.again:
        clock.say(f"base: {base.name} is there")
        return base
    partial = base.with_name(f".partial-{base.name}")
    try:
        apptainer.build(partial, definition, {"mirror": wish.mirror}, [], base.with_suffix(".log"), clock)
        partial.replace(base)
    finally:
        partial.unlink(missing_ok=True)
    return base


def _note(sif: Path, wish: Wish) -> dict[str, Any]:
    """What is remembered of an image: its content, as it says itself, and its bytes."""
    content = json.loads(apptainer.run_inside(str(sif), ["cat", "/opt/gyri/content.json"]))
    identity = apptainer.labels(sif).get("org.gyri.identity", "none")
    return {
        "identity": identity,
        "content": content,
        "sha256": sha256_file(sif),
        "bytes": sif.stat().st_size,
        "recipe": recipe_hash(wish.name, wish.arguments, wish.folder),
        "arguments": wish.arguments,
        "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _place(wish: Wish, sif: Path, note: dict[str, Any], say: Callable[[str], None]) -> None:
    """Put an image in place if it is the locked one, or is accepted as such."""
    locked = store.read_table("lock.json", wish.folder).get(wish.name)
    if locked is None or locked["identity"] != note["identity"]:
        lines = store.differences(locked["content"], note["content"]) if locked else ["containers/lock.json has no such image yet"]
        if not wish.accept:
            raise ContainerError(_other_content(wish, sif, lines))
        for line in lines:
            say(f"accepted: {line}")
        store.accept(wish.name, note, wish.folder)
        say(f"containers/lock.json: {wish.name} is {note['identity'][:16]} now; commit it")
    store.put_in_place(wish.name, sif, note, wish.folder)
    say(f"containers/{wish.name}.sif -> {sif}")


def _other_content(wish: Wish, sif: Path, lines: list[str]) -> Problem:
    shown = lines[:20] + ([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])
    got = "\n              ".join([f"{sif.name} holds other things:", *shown])
    remedy = "--accept takes it into the lock (its rules then run again), --again builds anew, --mirror names the Debian it is built from"
    return Problem(f"image {wish.name}", got, "the content that containers/lock.json names", remedy)


def _locked(wish: Wish) -> str | None:
    found = store.read_table("lock.json", wish.folder).get(wish.name)
    return found["identity"] if found else None


@dataclass(frozen=True)
class Room:
    """Bytes that a build takes.

    Args:
        wheels: in the cache, unless they are there.
        image: in the cache.
        unpacked: in Apptainer's temporary folder, while it builds.
    """

    wheels: float
    image: float
    unpacked: float


# measured for torch 2.13.0
ROOM = {"torch": Room(2.9e9, 3.1e9, 9.0e9), "tables": Room(0.16e9, 0.3e9, 1.2e9)}


def check_room(name: str, cache: Path, temporary: Path) -> None:
    """Refuse to begin what would fill a disk.

    Args:
        name: of the image.
        cache: where wheels and image go.
        temporary: where Apptainer unpacks it.

    Raises:
        ContainerError: too little room.
    """
    room = ROOM[name]
    there = sum(path.stat().st_size for path in (cache / "wheels").glob("*.whl"))
    needed: dict[int, tuple[Path, float]] = {}
    for folder, size in ((cache, max(room.wheels - there, 0) + room.image), (temporary, room.unpacked)):
        if not folder.is_dir():
            raise ContainerError(Problem(str(folder), "no such folder", "a folder to build in", "make it, or name another one"))
        device = folder.stat().st_dev
        needed[device] = (folder, needed.get(device, (folder, 0.0))[1] + size)
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            remedy = (
                "make room, or set GYRI_CONTAINER_CACHE (wheels and images) or APPTAINER_TMPDIR (while building) to other disks"
            )
            raise ContainerError(Problem(str(folder), f"{free / 1e9:.1f} GB free", f"{size / 1e9:.1f} GB for `{name}`", remedy))
