"""How long `make demo` takes, and how much of it is start-up and scheduling.

Runs the default configuration from nothing in a copy of the checkout and reads the provenance of every job. With C cores and a wall time T
there are C x T core-seconds. Start-up: from the start of each process to its work, and the import of the libraries that the work begins with
(measured here, in this run). Scheduling: core-seconds in which no job ran. The rest is work.

    .venv/bin/python benchmarks/demo.py [FOLDER THAT IS KEPT] > benchmarks/demo.md
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CORES = 2
LIMIT_SECONDS, LIMIT_SHARE = 360, 0.25


def import_seconds(module: str, repeats: int = 5) -> float:
    """The median time to import a module in a new process, less that of an empty one."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return statistics.median(run(f"import {module}") - run("import numpy") for _ in range(repeats))


def library_of(record: dict) -> str | None:
    """The heavy library that a job's work begins by importing."""
    network = record["settings"].get("network", "")
    if network in ("unet", "conv5_fc3"):
        return "torch"
    if record["stage"] == "train" and network == "linear" and record["settings"]["task"] != "regression":
        return "sklearn.linear_model"
    return "nilearn.datasets" if record["stage"] == "synthetic" else None


def main() -> None:
    """Run the demo and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "gyri"
        project.mkdir(parents=True)
        for name in ("Snakefile", "config.yaml", "workflow"):
            source = REPOSITORY / name
            shutil.copytree(source, project / name) if source.is_dir() else shutil.copy(source, project)
        command = [sys.executable, "-m", "snakemake", "--cores", str(CORES), "--scheduler", "greedy", "--quiet", "all"]
        began = time.perf_counter()
        subprocess.run(command, cwd=project, check=True, stdout=sys.stderr)
        wall = time.perf_counter() - began
        began = time.perf_counter()
        again = subprocess.run(command[:-2], cwd=project, check=True, capture_output=True, text=True)
        second = time.perf_counter() - began
        records = [json.loads(path.read_text()) for path in (project / "results").rglob("provenance-*.json")]
        assert "Nothing to be done" in again.stdout + again.stderr
    libraries = {name for record in records if (name := library_of(record))}
    imports = {name: import_seconds(name) for name in sorted(libraries)}
    startup = sum(record["startup_seconds"] + imports.get(library_of(record) or "", 0.0) for record in records)
    busy = 0.0
    for record in records:
        threads = record["settings"].get(
            "threads", CORES if record["stage"] in ("synthetic", "dataset", "audit", "preprocess", "evaluate") else 1
        )
        busy += (record["startup_seconds"] + record["seconds"]) * threads
    idle = CORES * wall - busy
    share = (startup + max(idle, 0.0)) / (CORES * wall)
    networks = sum(record["stage"] == "train" and library_of(record) == "torch" for record in records)
    print("# The demo\n")
    print(
        f"{platform.platform()}, {CORES} of {os.cpu_count()} cores, Python {platform.python_version()}, {json.dumps(records[0]['versions'])}\n"
    )
    print("| what | measured | allowed |\n|---|---|---|")
    print(f"| wall time, {len(records)} jobs, {networks} trainings of networks | {wall:.0f} s | {LIMIT_SECONDS} s |")
    print(f"| a second call, which has nothing to do | {second:.1f} s | 10 s |")
    print(f"| start-up and scheduling, share of core-seconds | {share:.2f} | {LIMIT_SHARE} |")
    print(f"\nStart-up {startup:.0f} core-seconds, idle cores {idle:.0f}, of {CORES * wall:.0f}.")
    print("Imports: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in imports.items()) + ".")


if __name__ == "__main__":
    main()
