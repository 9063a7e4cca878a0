"""Time and memory of preprocessing the Decathlon hippocampus volumes, beside TorchIO doing the nearest thing.

Usage: GYRI_HIPPOCAMPUS=/path/to/Task04_Hippocampus PYTHONPATH=workflow python benchmarks/preprocess_hippocampus.py
Writes benchmarks/preprocess_hippocampus.md. Times are wall times of whole processes, start-up included.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from gyri.io import write_text
from gyri.layout import Layout
from gyri.tables import read_table, write_table

SHAPE = [40, 56, 40]
THREADS = 2
REPEATS = 5
COPIES = (1, 4)  # how often each volume stands in the cohort, to see whether memory grows
PEER = """
import sys
from multiprocessing import get_context
from pathlib import Path
import numpy as np

def one(path):
    import torch, torchio
    torch.set_num_threads(1)
    subject = torchio.Subject(t1=torchio.ScalarImage(path), seg=torchio.LabelMap(str(path).replace("imagesTr", "labelsTr")))
    steps = [torchio.ToCanonical(), torchio.RescaleIntensity((-1, 1), (5, 95)), torchio.CropOrPad(({0}, {1}, {2}))]
    done = torchio.Compose(steps)(subject)
    return done.t1.numpy().astype(np.float16), done.seg.numpy().astype(np.uint8)

if __name__ == "__main__":
    files = sorted(Path(sys.argv[1], "imagesTr").glob("hippocampus_*.nii.gz"))
    with get_context("spawn").Pool(2) as pool:
        rows = pool.map(one, files, chunksize=8)
    np.save(sys.argv[2] + "/images.npy", np.stack([row[0] for row in rows]))
    np.save(sys.argv[2] + "/labels.npy", np.stack([row[1] for row in rows]))
"""


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; gives wall time in s, and the peak memory of all its processes in MiB (proportional set size)."""
    began, peak = time.perf_counter(), 0
    process = psutil.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None:
        total = 0
        for member in [process, *_children(process)]:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - began, peak / 2**20


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def repeat_rows(layout: Layout, copies: int) -> int:
    """Let every image of the cohort stand there `copies` times; gives the number of rows."""
    import pandas as pd

    path = layout.dataset("hippocampus", "cohort.tsv")
    cohort = read_table(path, "cohort").drop_duplicates("sha256_file")
    parts = [cohort.assign(image_id=cohort["image_id"].str.slice(0, 15) + f"_{copy}") for copy in range(copies)]
    table = pd.concat(parts).sort_values("image_id")
    write_table(path, table, "cohort")
    return len(table)


def row(name: str, images: int, times: list[float], memory: float) -> str:
    """One line of the table."""
    ordered = sorted(times)
    middle = ordered[len(ordered) // 2]
    return f"| {name} | {images} | {middle:.2f} | {ordered[0]:.2f}-{ordered[-1]:.2f} | {memory:.0f} |"


def main() -> None:
    """Measure and write the table."""
    data = os.environ["GYRI_HIPPOCAMPUS"]
    with tempfile.TemporaryDirectory() as folder:
        layout, python = Layout(Path(folder) / "results"), [sys.executable]
        dataset = {"format": "msd", "path": data, "group": "(number + 1) // 2", "shape": SHAPE}
        experiment = {"dataset": "hippocampus", "task": "segmentation", "architectures": {"unet": {}}}
        config = Path(folder) / "config.json"  # JSON is YAML
        config.write_text(json.dumps({"datasets": {"hippocampus": dataset}, "experiments": {"parts": experiment}}))
        shared = ["--config", str(config), "--results", str(layout.root), "--dataset", "hippocampus", "--threads", str(THREADS)]
        subprocess.run([*python, "-m", "gyri", "dataset", *shared], check=True, stderr=subprocess.DEVNULL)
        write_text(layout.dataset("hippocampus", "excluded.tsv"), "image_id\treason\tseverity\n")
        script = Path(folder) / "peer.py"
        script.write_text(PEER.replace("({0}, {1}, {2})", str(tuple(SHAPE))))
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(REPEATS):  # in turn, so that other load on the machine meets all alike
            for copies in COPIES:
                key = (f"gyri, {THREADS} workers", repeat_rows(layout, copies))
                found.setdefault(key, []).append(measure([*python, "-m", "gyri", "preprocess", *shared]))
            count = len(list(Path(data, "imagesTr").glob("hippocampus_*.nii.gz")))
            found.setdefault(("TorchIO, 2 workers", count), []).append(measure([*python, str(script), data, folder]))
    lines = [row(*key, [time for time, _ in runs], max(memory for _, memory in runs)) for key, runs in found.items()]
    write_text(Path(__file__).with_suffix(".md"), report(lines))


def report(lines: list[str]) -> str:
    """The result as a page."""
    names = ("numpy", "scipy", "nibabel", "pandas", "torchio", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    edges = " x ".join(map(str, SHAPE))
    return f"""# Preprocessing the hippocampus volumes

All labelled volumes of Task04_Hippocampus to {edges}: canonical orientation, robust scaling, cropping and padding, image and label
map. Wall time of the whole job, from starting Python to the last byte, hashing of the input files included; median and range of
{REPEATS} runs in turn. Memory: largest sum over all processes (proportional set size). 840 images: each volume four times.

| what | images | seconds | range | MiB |
|---|---|---|---|---|
{chr(10).join(lines)}

TorchIO does ToCanonical, RescaleIntensity from the 5th and 95th percentile and CropOrPad, in two processes that send the arrays
back; it hashes and verifies nothing, keeps no inverse, and holds all images in memory.

Machine: {model}, {len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}
{platform.machine()}; other jobs ran beside (load average at the end {os.getloadavg()[0]:.1f}). Python {platform.python_version()},
{versions}.

Made by `benchmarks/preprocess_hippocampus.py`.
"""


if __name__ == "__main__":
    main()
