"""Reading a BIDS dataset of 10,000 images: gyri's own reader beside pybids, ancpbids and bids2table.

Each reader runs in a process of its own and lists the T1w and T2w images with subject and session. The files are empty: only
names count.

    PYTHONPATH=workflow python benchmarks/bids_reading.py [--peers PYTHON] [--files N] [--repeats N]

PYTHON is an interpreter with pybids, ancpbids and bids2table (`pip install pybids ancpbids bids2table`). Writes bids_reading.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

READERS = {
    "gyri": (
        "from gyri.dataset import bids; from gyri.config.datasets import BidsDataset",
        "found = len(bids.read(BidsDataset(format='bids', path=folder, "
        "images={'t1w': {'suffix': 'T1w'}, 't2w': {'suffix': 'T2w'}})).files()) - 2",
        "pydantic",
    ),
    "ancpbids": (
        "import ancpbids",
        "found = len([item.get_entities() for item in ancpbids.load_dataset(folder).query("
        "suffix=['T1w', 'T2w'], extension='.nii.gz', return_type='object')])",
        "ancpbids",
    ),
    "pybids": (
        "import bids",
        "layout = bids.BIDSLayout(folder, validate=False); found = len([item.get_entities() for item in "
        "layout.get(suffix=['T1w', 'T2w'], extension='.nii.gz')])",
        "pybids",
    ),
    "pybids, no metadata": (
        "import bids",
        "layout = bids.BIDSLayout(folder, indexer=bids.BIDSLayoutIndexer(validate=False, index_metadata=False)); "
        "found = len([item.get_entities() for item in layout.get(suffix=['T1w', 'T2w'], extension='.nii.gz')])",
        "pybids",
    ),
    "bids2table": (
        "import bids2table",
        "table = bids2table.index_dataset(folder).to_pylist(); found = sum(row['suffix'] in ('T1w', 'T2w') for row in table)",
        "bids2table",
    ),
}
MEASURE = """
import json, resource, sys, time
from importlib.metadata import version
folder = {folder!r}
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
began, before = time.perf_counter(), used()
{load}
loaded, between = time.perf_counter(), used()
{read}
done, after = time.perf_counter(), used()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([loaded - began, done - loaded, after - between, peak, found, version({package!r})]))
"""


def make_dataset(folder: Path, files: int) -> None:
    """Write a BIDS dataset of empty images: two sessions and two contrasts per participant."""
    participants = [f"sub-{number:04d}" for number in range(1, files // 4 + 1)]
    (folder / "dataset_description.json").write_text('{"Name": "benchmark", "BIDSVersion": "1.8.0", "DatasetType": "raw"}\n')
    (folder / "participants.tsv").write_text("participant_id\tage\n" + "".join(f"{name}\t50\n" for name in participants))
    for name in participants:
        for session in ("ses-1", "ses-2"):
            anat = folder / name / session / "anat"
            anat.mkdir(parents=True)
            for suffix in ("T1w", "T2w"):
                (anat / f"{name}_{session}_{suffix}.nii.gz").touch()


def measure(python: str, folder: Path, reader: str) -> list[Any] | str:
    """Seconds to import, to read, of processor time for it, peak resident MiB, images found, version; or why there is no result."""
    load, read, package = READERS[reader]
    code = MEASURE.format(folder=str(folder), load=load, read=read, package=package)
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def main() -> None:
    """Measure all readers and write the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the other readers")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    lines = [
        "| Reader | Version | Import, s | Read, s | Processor, s | Peak memory, MiB | Images found |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        make_dataset(Path(name), options.files)
        for reader in READERS:
            python = sys.executable if reader == "gyri" else options.peers
            results = [measure(python, Path(name), reader) for _ in range(options.repeats)]
            good = [result for result in results if not isinstance(result, str)]
            if not good:
                lines.append(f"| {reader} | | not measured: {results[0]} | | | | |")
                continue
            load, read, work, peak = (min(result[index] for result in good) for index in range(4))
            version = "this repository" if reader == "gyri" else good[0][5]
            lines.append(f"| {reader} | {version} | {load:.2f} | {read:.2f} | {work:.2f} | {peak:.0f} | {good[0][4]} |")
            print(lines[-1], flush=True)
    head = (
        f"# Reading a BIDS dataset of {options.files} images\n\n"
        f"Each figure is the smallest of {options.repeats} runs, each in a process of its own; empty files, a warm file cache, "
        "2 cores shared with other work. "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}. Made by `bids_reading.py`.\n\n"
    )
    target = Path(__file__).with_suffix(".md")
    tail = target.read_text().partition("\n## Decision")[1:] if target.is_file() else ("", "")
    target.write_text(head + "\n".join(lines) + "\n" + "".join(tail))


if __name__ == "__main__":
    main()
