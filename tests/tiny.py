"""A tiny Decathlon-like dataset and a real Snakemake on a copy of the repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (12, 14, 10)
CONFIG: dict[str, Any] = {
    "datasets": {
        "tiny": {
            "format": "msd",
            "path": "data",
            "table": "data/people.tsv",
            "shape": [12, 16, 12],
            "folds": 3,
            "run_folds": [0, 1],
            "audit": {"permutations": 99},
        }
    },
    "experiments": {
        "blobs": {
            "dataset": "tiny",
            "task": "segmentation",
            "architectures": {"unet": {"arguments": {"width": 2}}, "linear": {}, "majority": {}},
            "training": {"epochs": 2, "batch_size": 2, "precision": "float32"},
            "evaluation": {"resamples": 100},
        }
    },
    "threads": dict.fromkeys(("dataset", "audit", "preprocess", "train", "predict", "evaluate"), 1),
}


def write_case(folder: Path, number: int, seed: int = 0) -> None:
    """Write one image with a bright blob, and the label map of the blob (1: its lower half, 2: its upper half)."""
    random = np.random.default_rng((seed, number))
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"))
    centre = np.array(SHAPE).reshape(3, 1, 1, 1) / 2 + random.uniform(-1.5, 1.5, (3, 1, 1, 1))
    inside = ((grid - centre) ** 2).sum(0) < random.uniform(2.5, 4.0) ** 2
    labels = inside * (1 + (grid[2] > centre[2]))
    image = random.normal(100, 10, SHAPE) + 60 * inside
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    for name, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", labels.astype(np.uint8))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), folder / name / f"blob_{number:03d}.nii.gz")


def write_index(folder: Path) -> None:
    """Write dataset.json and a table of people for the cases that are there."""
    names = sorted(path.name for path in (folder / "imagesTr").glob("*.nii.gz"))
    facts = {
        "name": "Blobs",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "lower", "2": "upper"},
        "numTraining": len(names),
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    lines = ["image_id\tage\tdiagnosis"]
    lines += [f"{name.split('.')[0]}\t{40 + 3 * index}\t{('control', 'patient')[index % 2]}" for index, name in enumerate(names)]
    (folder / "people.tsv").write_text("\n".join(lines) + "\n")


def make_project(folder: Path, cases: int = 12, config: dict[str, Any] | None = None) -> Path:
    """A copy of the repository with tiny data and a tiny configuration."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "workflow"):
        source = REPOSITORY / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    for number in range(1, cases + 1):
        write_case(folder / "data", number)
    write_index(folder / "data")
    write_config(folder, config or CONFIG)
    return folder


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.yaml."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def run_snakemake(folder: Path, *arguments: str, cores: int = 2) -> subprocess.CompletedProcess[str]:
    """Run the real Snakemake in a project."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--rerun-incomplete", "--show-failed-logs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def jobs_of(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Which jobs ran: "rule" or "rule model fold", counted, read from Snakemake's account of what it did."""
    assert done.returncode == 0, done.stdout + done.stderr
    jobs: Counter[str] = Counter()
    blocks = re.split(r"\n(?=\[[A-Z][a-z]{2} [A-Z][a-z]{2} )", done.stdout + done.stderr)
    for block in blocks:
        rule = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
        if rule and rule[1] != "all":
            wildcards = dict(re.findall(r"(\w+)=([^,\s]+)", next(iter(re.findall(r"wildcards: (.*)", block)), "")))
            parts = [rule[1], *(wildcards[key] for key in ("model", "ensemble", "fold") if key in wildcards)]
            jobs[" ".join(parts)] += 1
    return jobs
