"""Where images lie, what is known of them, and how two contents differ.

In the checkout: `lock.json` (tracked: what each image must hold), `built.json` and links to the images (of this machine).
In the cache, outside the checkout: the images, each with a note beside it, and the wheels they were made from.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gyri.environment import recipe_hash
from gyri.io import read_json, sha256_file, write_json
from gyri.layout import CONTAINERS

NAMES = ("torch", "tables")


def cache() -> Path:
    """The folder that holds images and wheels for all checkouts of this user."""
    chosen = os.environ.get("GYRI_CONTAINER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen).expanduser().absolute() if chosen else Path(base).expanduser().absolute() / "gyri" / "containers"


@contextlib.contextmanager
def only_one(say: Callable[[str], None]) -> Iterator[None]:
    """Let one build at a time work in the cache; a second one waits."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another build is at work in {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sif_path(name: str, arguments: dict[str, str], folder: Path = CONTAINERS) -> Path:
    """The file of an image in the cache: its name tells what it was built from."""
    return cache() / f"{name}-{recipe_hash(name, arguments, folder)[:12]}.sif"


def note_of(sif: Path) -> dict[str, Any] | None:
    """What was noted when an image was built; None where the image or its note is missing, or the image has another size."""
    note = sif.with_suffix(".json")
    if not (sif.is_file() and note.is_file()):
        return None
    found: dict[str, Any] = read_json(note)
    return found if found["bytes"] == sif.stat().st_size else None


def read_table(file: str, folder: Path = CONTAINERS) -> dict[str, Any]:
    """`lock.json` or `built.json`; empty where there is none."""
    path = folder / file
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found


def put_in_place(name: str, sif: Path, note: dict[str, Any], folder: Path = CONTAINERS) -> None:
    """Let the rules use an image: link it into the checkout and note it in `built.json`.

    Args:
        name: of the image.
        sif: the image in the cache.
        note: what was noted when it was built.
        folder: `containers` of the checkout.
    """
    status = sif.stat()
    facts = {key: note[key] for key in ("identity", "sha256", "bytes", "recipe", "arguments")}
    link, new = folder / f"{name}.sif", folder / f".new-{name}.sif"
    new.unlink(missing_ok=True)
    new.symlink_to(sif)
    new.replace(link)
    write_json(
        folder / "built.json",
        {**read_table("built.json", folder), name: {**facts, "sif": str(sif), "mtime_ns": status.st_mtime_ns}},
    )


def in_place(name: str, sif: Path, folder: Path = CONTAINERS) -> bool:
    """Whether the rules use exactly this image, unchanged."""
    built = read_table("built.json", folder).get(name)
    link = folder / f"{name}.sif"
    if built is None or not link.is_file() or link.resolve() != sif.resolve():
        return False
    status = sif.stat()
    return bool((built["bytes"], built["mtime_ns"]) == (status.st_size, status.st_mtime_ns))


def accept(name: str, note: dict[str, Any], folder: Path = CONTAINERS) -> None:
    """Write an image's content into `lock.json`."""
    table = read_table("lock.json", folder)
    write_json(folder / "lock.json", {**table, name: {"identity": note["identity"], "content": note["content"]}})


def intact(sif: Path, note: dict[str, Any]) -> bool:
    """Whether an image has the bytes that were built."""
    return sha256_file(sif) == note["sha256"]


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What two contents differ in, one line per package.

    Args:
        expected: the locked content.
        found: the other one.

    Returns:
        Lines as "numpy: 2.4.6 locked, 2.4.7 found"; none where they are equal.
    """
    lines = []
    for key in sorted({*expected, *found} - {"base", "packages"}):
        if expected.get(key) != found.get(key):
            lines.append(f"{key}: {expected.get(key, 'none')} locked, {found.get(key, 'none')} found")
    for title, part in (("package", "packages"), ("Debian package", "base")):
        before, after = expected.get(part, {}), found.get(part, {})
        for name in sorted({*before, *after}):
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            versions = [item["version"] if isinstance(item, dict) else item or "none" for item in (was, now)]
            if versions[0] == versions[1]:
                lines.append(f"{title} {name}: {versions[0]} both, but with other files")
            else:
                lines.append(f"{title} {name}: {versions[0]} locked, {versions[1]} found")
    return lines
