"""A tiny dataset up to normalization: raw files, cohort and split written here, store and normalization by the real stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from gyri.config.datasets import Normalize, NormalizeSettings, Preprocess, PreprocessSettings
from gyri.config.training import Augmentation, Input, PredictSettings, Training, TrainSettings
from gyri.images import row_digests
from gyri.io import write_json
from gyri.layout import Layout
from gyri.normalize import run as normalize
from gyri.preprocess import run as preprocess
from gyri.tables import write_table

SHAPE = (8, 9, 7)
GRID = (8, 8, 8)
ROLES = ("test", "validation", "train", "train", "train", "train")
AFFINE = np.array([[0, -1.5, 0, 20], [1.5, 0, 0, -5], [0, 0, 1.5, 3], [0, 0, 0, 1.0]])  # axes swapped and flipped


def make_dataset(root: Path, participants: int = 18, seed: int = 0, classes: int = 2) -> Layout:
    """Write the dataset `tiny` below root/results.

    Each image has a bright box whose size follows `age` and whose place follows `diagnosis`; the label map is the box, its two
    halves being labels 1 and 3. The roles rotate with the fold, two participants at a time; the last two are locked.
    """
    layout, raw = Layout(root / "results"), root / "raw"
    raw.mkdir(parents=True)
    rows, splits = [], []
    for index in range(participants):
        random = np.random.default_rng((seed, index))
        name, kind = f"p{index:02d}", index % classes
        age = float(random.integers(20, 80))
        labels = np.zeros(SHAPE, np.uint8)
        edge = 2 + int(age > 50)
        labels[2 : 2 + edge, 2 + kind : 4 + kind, 2:4], labels[2 : 2 + edge, 4 + kind : 6 + kind, 2:4] = 1, 3
        image = random.normal(100, 5, SHAPE) + 40 * (labels > 0)
        nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), raw / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(labels, AFFINE), raw / f"{name}_seg.nii.gz")
        row: dict[str, Any] = {"image_id": name, "participant_id": name, "group": name, "session_id": "", "site": ""}
        row |= {"image_t1w": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz", "age": age, "diagnosis": f"kind{kind}"}
        row["sha256_file"], row["sha256_labels"] = row_digests(row, raw)
        rows.append({**row, "sha256_voxels": ""})
        if index >= participants - 2:
            splits.append((name, name, "locked", "locked"))
        else:
            splits += [(name, name, str(fold), ROLES[(index // 2 + fold) % 6]) for fold in range(2)]
    write_table(layout.dataset("tiny", "cohort.tsv"), pd.DataFrame(rows), "cohort")
    write_table(layout.dataset("tiny", "excluded.tsv"), pd.DataFrame(columns=["image_id", "reason", "severity"]), "excluded")
    write_table(
        layout.dataset("tiny", "splits.tsv"), pd.DataFrame(splits, columns=["group", "participant_id", "fold", "role"]), "splits"
    )
    names = {"0": "background", "1": "front", "3": "back"}
    facts = {"name": "tiny", "format": "table", "root": str(raw), "channels": ["t1w"], "channel_files": {"t1w": ["t1w"]}}
    write_json(layout.dataset("tiny", "dataset.json"), {**facts, "labels": {"label": names}, "mask": False, "identity": "known"})
    pack(layout)
    return layout


def pack(layout: Layout) -> None:
    """Preprocess and normalize anew."""
    preprocess(PreprocessSettings(preprocess=Preprocess(), shape=GRID), layout, "tiny", 1)
    for fold in (0, 1):
        normalize(NormalizeSettings(normalize=Normalize()), layout, "tiny", fold)


def train_settings(task: str = "segmentation", network: str = "unet", **training: Any) -> TrainSettings:
    """Settings of a training that takes a second."""
    arguments = {"unet": {"width": 2, "levels": 2}}.get(network, {})
    loss = {"segmentation": "dice_cross_entropy", "classification": "cross_entropy", "regression": "mean_squared_error"}[task]
    chosen = {"epochs": 2, "batch_size": 4, "precision": "float32", "loss": loss, **training}
    return TrainSettings(
        task=task,
        target={"segmentation": "label", "classification": "diagnosis", "regression": "age"}[task],
        classes=None,
        network=network,
        arguments=arguments,
        input=Input(),
        training=Training(**chosen),
        augmentation=Augmentation(),
        seed=7,
        threads=1,
    )


def predict_settings(network: str = "unet", mirror: tuple[str, ...] = ()) -> PredictSettings:
    """Settings of a prediction."""
    return PredictSettings(network=network, batch_size=3, mirror=list(mirror), threads=1)
