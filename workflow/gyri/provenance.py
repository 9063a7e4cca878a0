"""What was done, with what, where, how long: one JSON file beside the results of every job."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.io import sha256_file, write_json

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "nibabel", "nilearn", "SimpleITK", "torch", "snakemake")


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
    yield facts
    record = {
        **job,
        "inputs": {str(item): sha256_file(item) for item in inputs if item.is_file() and item.stat().st_size <= 64 << 20},
        "versions": versions(),
        "device": facts.get("device", "cpu"),
        "host_kind": host_kind(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "startup_seconds": round(process_age() - (time.monotonic() - clock), 3),
        "cpu_seconds": round(sum(os.times()[:4]), 3),
        "peak_memory_mb": peak_memory_mb(),
        "command": " ".join(sys.argv[1:2]),
        "facts": facts,
    }
    write_json(path, record)


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
