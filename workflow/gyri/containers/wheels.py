"""The wheels of a lock, downloaded for the Python of an image by the pip of this machine.

So this machine's pip settings, proxy and certificates count, the image needs no network, and a later build downloads nothing again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyri.errors import ContainerError, Problem
from gyri.io import sha256_file

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
FIRST_LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+))?")
AT_A_TIME = 4  # downloads side by side: pip itself takes a second for each
# names of the same old platforms from before they were numbered. Source: https://peps.python.org/pep-0600/
LEGACY = {"manylinux2014": (2, 17), "manylinux2010": (2, 12), "manylinux1": (2, 5)}


@dataclass(frozen=True)
class Target:
    """The Python that will import the wheels.

    Args:
        markers: values of the environment markers, as `python_full_version`.
        glibc: version of the C library, as (2, 36).
    """

    markers: dict[str, str]
    glibc: tuple[int, int]

    @property
    def platforms(self) -> list[str]:
        """Platform tags that run there, best first."""
        machine = self.markers["platform_machine"]
        found = [f"manylinux_{self.glibc[0]}_{minor}_{machine}" for minor in range(self.glibc[1], 4, -1)]
        found += [f"{name}_{machine}" for name, version in LEGACY.items() if version <= self.glibc]
        return [*found, f"linux_{machine}"]

    @property
    def tags(self) -> frozenset[Any]:
        """All wheel tags that fit (`packaging.tags.Tag`)."""
        from packaging.tags import compatible_tags, cpython_tags

        major, minor = (int(part) for part in self.markers["python_version"].split("."))
        version = (major, minor)
        both = [*cpython_tags(version, platforms=self.platforms)]
        both += compatible_tags(version, interpreter=f"cp{major}{minor}", platforms=self.platforms)
        return frozenset(both)


# printed by the Python of the base: what pip would ask it
ASK = """
import json, os, platform, sys
version = platform.python_version()
print(json.dumps({"markers": {
    "implementation_name": sys.implementation.name, "implementation_version": version, "os_name": os.name,
    "platform_machine": platform.machine(), "platform_python_implementation": platform.python_implementation(),
    "platform_release": "", "platform_system": platform.system(), "platform_version": "", "python_full_version": version,
    "python_version": ".".join(version.split(".")[:2]), "sys_platform": sys.platform},
    "glibc": [int(part) for part in platform.libc_ver()[1].split(".")[:2]]}))
"""


@dataclass(frozen=True)
class Requirement:
    """One package of a lock.

    Args:
        name: as the lock writes it.
        version: pinned.
        hashes: sha256 of every file that may be installed.
    """

    name: str
    version: str
    hashes: frozenset[str]

    @property
    def line(self) -> str:
        """The requirement as pip reads it."""
        return f"{self.name}=={self.version} " + " ".join(f"--hash=sha256:{digest}" for digest in sorted(self.hashes))


def requirements(lock: str, target: Target) -> list[Requirement]:
    """The packages of a lock that the target needs.

    Args:
        lock: its text.
        target: the Python that will import them.

    Raises:
        ContainerError: a line is no pinned requirement.
    """
    from packaging.markers import Marker

    found = []
    for block in re.split(r"\n(?=\S)", "\n".join(line for line in lock.splitlines() if line and not line.startswith("#"))):
        match = FIRST_LINE.match(block)
        if match is None or not HASH.search(block):
            got = block.splitlines()[0] if block else "an empty lock"
            raise ContainerError(Problem("lock", f"`{got}`", "`name==version` with hashes", "make it anew with `make lock`"))
        if match["marker"] is None or Marker(match["marker"].strip()).evaluate(dict(target.markers)):
            found.append(Requirement(match["name"], match["version"], frozenset(HASH.findall(block))))
    return found


def present(folder: Path, wanted: list[Requirement], target: Target) -> dict[Requirement, Path]:
    """The wheels that are in a folder already, with the right bytes.

    Args:
        folder: of wheels.
        wanted: packages.
        target: the Python that will import them.
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename

    by_name = {(canonicalize_name(item.name), item.version): item for item in wanted}
    found: dict[Requirement, Path] = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, _, tags = parse_wheel_filename(path.name)
        item = by_name.get((name, str(version)))
        if item is not None and item not in found and tags & target.tags and sha256_file(path) in item.hashes:
            found[item] = path
    return found


def download(folder: Path, wanted: list[Requirement], target: Target, say: Callable[[str], None]) -> list[Path]:
    """Bring every wheel into a folder; what is there is not downloaded again, and what was downloaded stays after a failure.

    Args:
        folder: of wheels.
        wanted: packages.
        target: the Python that will import them.
        say: is told what is going on.

    Returns:
        The wheels, one per package.

    Raises:
        ContainerError: pip could not get one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = present(folder, wanted, target)
    missing = [item for item in wanted if item not in found]
    say(f"wheels: {len(found)} of {len(wanted)} are in {folder}, {len(missing)} to download")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {pool.submit(_pip_download, folder, item, target): item for item in missing}
        try:
            for number, done in enumerate(as_completed(running), 1):
                done.result()
                item = running[done]
                got = present(folder, [item], target)
                if item not in got:
                    expected = "a wheel with a hash of the lock"
                    raise ContainerError(Problem(f"download of {item.name}", "another file", expected, f"look into {folder}"))
                found |= got
                say(f"wheel {number}/{len(missing)}: {item.name} {item.version}, {got[item].stat().st_size / 1e6:.1f} MB")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[item] for item in wanted]


def _pip_download(folder: Path, item: Requirement, target: Target) -> None:
    """Let pip download one wheel."""
    listing = folder / f".{item.name}.txt"
    listing.write_text(item.line + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--implementation", "cp"]
    command += ["--python-version", target.markers["python_version"], "-r", str(listing)]
    for platform in target.platforms:
        command += ["--platform", platform]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        listing.unlink(missing_ok=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if not line.startswith("WARNING: Location")]
        remedy = "is there a way to the package index (see `pip config list`), and room on the disk? What was downloaded stays"
        got = "; ".join(lines[-3:]) or f"pip ended with {done.returncode}"
        raise ContainerError(Problem(f"download of {item.name} {item.version}", got, "its wheel", remedy))
