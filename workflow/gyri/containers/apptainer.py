"""Apptainer, driven through spython: what it is called, what it may do on this machine, and what it says while it works."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from gyri.environment import apptainer_environment
from gyri.errors import ContainerError, Problem
from gyri.progress import duration

INSTALL = (
    "install it (https://apptainer.org/docs/admin/main/installation.html), or `module load apptainer` where the cluster has it"
)
# what a line of its output says that it is doing now
PHASES = {
    "gyri: installing packages": "installing the packages",
    "gyri: recording": "recording what is installed",
    "Creating SIF file": "packing the image into one file",
}
UNREACHABLE = re.compile(
    r"Failed getting release file|Could not resolve|Unable to fetch|i/o timeout|no such host|connection refused", re.I
)
NO_RIGHTS = re.compile(r"subuid|subgid|newuidmap|user namespace|fakeroot", re.I)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Clock:
    """Says what is going on, with the time since the start: a moving line on a terminal, a line now and then in a file.

    Args:
        stream: where to write; standard error by default.
        every: seconds between signs of life where there is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 20.0):
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 1.0 if self.live else every
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self.stream.write(("\r\x1b[K" if self.live else "") + f"[{duration(time.monotonic() - self.began):>9}] {text}\n")
        self.stream.flush()

    @contextlib.contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Say what begins, and then, for as long as it lasts, that it goes on."""
        self.say(f"{text} ...")
        ended, began = threading.Event(), time.monotonic()

        def tick() -> None:
            while not ended.wait(self.every):
                line = f"{text}, for {duration(time.monotonic() - began)}"
                if self.live:
                    self.stream.write(f"\r\x1b[K[{duration(time.monotonic() - self.began):>9}] {line}")
                    self.stream.flush()
                else:
                    self.say(line)

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()


def program() -> str:
    """Apptainer, or Singularity where a site still calls it so.

    Raises:
        ContainerError: neither is on the PATH, or spython is not installed.
    """
    found = shutil.which("apptainer") or shutil.which("singularity")
    if found is None:
        raise ContainerError(Problem("PATH", "neither `apptainer` nor `singularity`", "Apptainer 1.1 or later", INSTALL))
    try:
        import spython  # noqa: F401
    except ModuleNotFoundError as error:
        remedy = "use the virtual environment: `make environment`, then `.venv/bin/python -m gyri containers ...`"
        raise ContainerError(Problem("spython", "not installed", "what drives Apptainer", remedy)) from error
    return found


def check_build_rights() -> None:
    """Refuse early where this user cannot build images.

    Raises:
        ContainerError: root is without its capabilities and without ids to give away.
    """
    if not apptainer_environment():
        return
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if not re.search(r"^(root|0):", text, re.MULTILINE):
            got = "no line for root, and this root lacks CAP_SYS_RESOURCE (a container or a small virtual machine)"
            raise ContainerError(Problem(str(file), got, "ids for images to be built with", f"echo root:200000:65536 >> {file}"))


def build(image: Path, definition: Path, arguments: dict[str, str], bind: Sequence[str], log: Path, clock: Clock) -> None:
    """Build an image.

    Args:
        image: the SIF to make.
        definition: its definition file; relative paths in it start at the current folder.
        arguments: values for the `{{ }}` of the definition.
        bind: folders to show to the build, as "here:there".
        log: everything that Apptainer says goes there.
        clock: is told what is going on.

    Raises:
        ContainerError: the build failed; with the last lines of the log.
    """
    from spython.utils import stream_command

    command = [program(), "build", "--force"]
    # root without its capabilities builds in a user namespace; Apptainer does the same for every other user by itself
    command += ["--fakeroot"] if apptainer_environment() else []
    command += _packing()
    for folder in bind:
        command += ["--bind", folder]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    command += [str(image), str(definition)]
    last: deque[str] = deque(maxlen=12)
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as now, log.open("w", encoding="utf-8") as handle:
        handle.write(" ".join(command) + "\n")
        now.enter_context(clock.during(f"apptainer builds {image.name.removeprefix('.partial-')}"))
        try:
            for raw in stream_command(command, output_type="both"):
                line = COLOURS.sub("", raw)
                handle.write(line)
                handle.flush()
                last.append(line.strip())
                phase = next((text for mark, text in PHASES.items() if mark in line and not line.startswith("+")), None)
                if phase:
                    now.close()
                    now.enter_context(clock.during(phase))
        except BaseException as error:
            now.close()
            _end_children()
            if not isinstance(error, subprocess.CalledProcessError):
                raise
            got = "\n              ".join(["Apptainer said:", *(line for line in last if line)])
            raise ContainerError(Problem(f"build of {definition}", got, "an image", _remedy(log))) from error


def _end_children() -> None:
    """End what this process started and wait until it has tidied up: spython keeps the process to itself."""
    import psutil

    children = psutil.Process().children()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    psutil.wait_procs(children, timeout=30)


def _packing() -> list[str]:
    """How to pack the image: zstd is read faster and made in a thirtieth of the time of the default, at the same size.

    Every Linux since 4.14 reads it. Where one is older, APPTAINER_MKSQUASHFS_ARGS="-comp gzip" chooses the default.
    """
    tool = shutil.which("mksquashfs")
    if tool is None or "APPTAINER_MKSQUASHFS_ARGS" in os.environ:
        return []
    # it ends with an error after its help, on either stream
    text = subprocess.run([tool, "-help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    return ["--mksquashfs-args", "-comp zstd -Xcompression-level 3"] if "zstd" in text else []


def _remedy(log: Path) -> str:
    """What helps against a failed build, as far as its log tells."""
    lines = log.read_text(encoding="utf-8").splitlines()[1:]  # the first is the command
    text, fatal = "\n".join(lines), "\n".join(line for line in lines if line.startswith(("FATAL", "ERROR")))
    if "No space left" in text:
        return "make room, or set APPTAINER_TMPDIR and GYRI_CONTAINER_CACHE to folders with more"
    if UNREACHABLE.search(text):
        return "the mirror or registry was not reached: `--mirror URL` names a nearer one"
    if NO_RIGHTS.search(fatal):
        return "ask for a range of ids in /etc/subuid and /etc/subgid, or build elsewhere and copy the cache (docs/containers.md)"
    return f"the whole log is {log}"


def run_inside(image: str, command: Sequence[str]) -> str:
    """Run a command inside an image and give what it printed.

    Args:
        image: a SIF, or an address as "docker://...".
        command: program and arguments.

    Raises:
        ContainerError: it failed.
    """
    from spython.utils import run_command

    options = ["--cleanenv", "--no-home", *(["--userns"] if apptainer_environment() else [])]
    done: dict[str, Any] = run_command([program(), "--silent", "exec", *options, image, *command], quiet=True)
    if done["return_code"]:
        got = "".join(done["message"]).strip()[-600:] or f"ended with {done['return_code']}"
        remedy = "does `apptainer exec IMAGE true` work on this machine? (user namespaces, squashfs)"
        raise ContainerError(Problem(f"a command inside {image}", got, "that it runs", remedy))
    return str(done["message"][0]) if done["message"] else ""


def labels(image: Path) -> dict[str, str]:
    """The labels of an image.

    Raises:
        ContainerError: the image cannot be read.
    """
    from spython.utils import run_command

    done: dict[str, Any] = run_command([program(), "inspect", "--labels", "--json", str(image)], quiet=True)
    if done["return_code"]:
        raise ContainerError(Problem(str(image), "".join(done["message"]).strip(), "a readable image", "build it again"))
    found: dict[str, str] = json.loads(done["message"][0])["data"]["attributes"]["labels"]
    return found


def temporary_folder() -> Path:
    """Where Apptainer unpacks an image while it builds it."""
    return Path(os.environ.get("APPTAINER_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
