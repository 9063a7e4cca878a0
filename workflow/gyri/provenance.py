"""What was done, with what, where, how long: one JSON file beside the results of every job."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.io import sha256_file, write_json
from gyri.layout import REPOSITORY
from gyri.warned import noticed, without_paths

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "nibabel", "nilearn", "SimpleITK", "torch", "snakemake")
COMMIT, CALL = "GYRI_COMMIT", "GYRI_CALL"
"""Environment variables in which snakemake tells its jobs, which need not have git, what it was started from and how."""


@contextlib.contextmanager
def recorded(path: Path, job: dict[str, Any], inputs: list[Path]) -> Iterator[dict[str, Any]]:
    """Measure a job and write its provenance when it ends well.

    Args:
        path: the JSON file.
        job: what is known before: stage, settings, code, environment, seed, wildcards.
        inputs: files the job reads; small ones are hashed (of larger ones the manifest beside them holds the hash).

    Yields:
        A dictionary that the job fills with facts.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    facts: dict[str, Any] = {}
    with noticed() as caught:
        yield facts
        found = caught.listed()
    record = {
        **job,
        "warnings": found,
        "commit": commit(),
        "call": os.environ.get(CALL) or "not recorded",
        "inputs": {str(item): sha256_file(item) for item in inputs if item.is_file() and item.stat().st_size <= 64 << 20},
        "versions": versions(),
        "device": facts.get("device", "cpu"),
        "host_kind": host_kind(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_total_mb": memory_total_mb(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "startup_seconds": round(process_age() - (time.monotonic() - clock), 3),
        "cpu_seconds": round(sum(os.times()[:4]), 3),
        "peak_memory_mb": peak_memory_mb(),
        "command": " ".join(sys.argv[1:2]),
        "facts": facts,
    }
    write_json(path, record)


def commit() -> str:
    """The git commit of the code with `+changes` where files of it were changed since; what the planner found, where it tells."""
    told = os.environ.get(COMMIT)
    if told:
        return told
    try:
        top = _git("rev-parse", "--show-toplevel")
        if Path(top).resolve() != REPOSITORY:
            return "not recorded"  # a copy that lies inside another repository
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "not recorded"


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def tell_jobs(arguments: Sequence[str]) -> None:
    """Put commit and command line into the environment for the jobs of this process, unless a process above it has done so.

    Args:
        arguments: the command line; only names of files are kept, since pages show it.
    """
    os.environ.setdefault(COMMIT, commit())
    words = [Path(word).name if os.sep in word and Path(word).is_absolute() else word for word in arguments]
    os.environ.setdefault(CALL, without_paths(" ".join(words)))


def memory_total_mb() -> int | None:
    """Memory of the machine in MB; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return None


def process_age() -> float:
    """Seconds since this process was started; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def versions() -> dict[str, str]:
    """Versions of gyri, Python and the packages that compute, without importing any of them."""
    found = {"gyri": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def host_kind() -> str:
    """The kind of processor: results are the same bytes only on the same kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Largest resident memory of this process and of its largest child, in MB."""
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(usage) / 1024, 1)
