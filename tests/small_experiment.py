"""A results folder as it is before `ensemble` and `evaluate`: a small cohort, its split, and predictions of made-up models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from gyri.images import load_labels, row_digests, save_labels
from gyri.io import write_array, write_json
from gyri.layout import Layout
from gyri.tables import write_table
from gyri.transforms.spatial import SpatialRecord, orientation

SHAPE, NETWORK = (9, 8, 7), (12, 10, 8)
AFFINE = np.array([[-1.2, 0, 0, 40], [0, 0, 2.0, -20], [0, 1.0, 0, 5], [0, 0, 0, 1.0]])
STRUCTURES = {"0": "background", "1": "front", "5": "back"}
DATASET = "small"


@dataclass
class Small:
    """The folder, its cohort and its split; `predict` adds a run.

    Args:
        layout: the results folder.
        task: segmentation, classification or regression.
        cohort: cohort.tsv.
        splits: splits.tsv.
    """

    layout: Layout
    task: str
    cohort: pd.DataFrame
    splits: pd.DataFrame

    @property
    def target(self) -> str:
        """The target column."""
        return {"segmentation": "label", "classification": "diagnosis", "regression": "age"}[self.task]

    def rows(self, fold: int, roles: tuple[str, ...]) -> pd.DataFrame:
        """Images of a fold, in the order of predictions.tsv."""
        splits = self.splits[self.splits["fold"].isin([str(fold), "locked"])]
        role = dict(zip(splits["participant_id"], splits["role"], strict=True))
        table = self.cohort.assign(role=self.cohort["participant_id"].map(role))
        return table[table["role"].isin(roles)].sort_values(["role", "image_id"], ignore_index=True)

    def predict(self, model: str, fold: int, seed: int, noise: float = 1.0, locked: bool = False) -> Path:
        """Write the predictions of one run; less noise is a better model."""
        experiment = "trial/locked" if locked else "trial"
        table = self.rows(fold, ("locked",) if locked else ("validation", "test"))
        folder = self.layout.run(experiment, model, fold, seed)
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([ord(letter) for letter in model] + [fold, seed])
        rows = table[["image_id", "participant_id", "group"]].assign(
            fold=str(fold), role=table["role"], model=model, seed=str(seed)
        )
        rows["target"] = table[self.target]
        probabilities = np.zeros((0,), np.float16)
        if self.task == "regression":
            rows["prediction"] = table["age"] + noise * random.normal(size=len(table))
        elif self.task == "classification":
            score = 1 / (1 + np.exp(-2 * (table["diagnosis"] == "patient") + 1 - noise * random.normal(size=len(table))))
            rows["prediction"] = np.where(score > 0.5, "patient", "control")
            rows["probability_control"], rows["probability_patient"] = 1 - score, score
        else:
            probabilities = self._maps(table, folder, noise, random)
            base = self.layout.experiment(experiment)
            rows["prediction"] = [str((folder / "maps" / f"{name}.nii.gz").relative_to(base)) for name in table["image_id"]]
        write_array(folder / "probabilities.npy", probabilities)
        write_json(self.layout.run("trial", model, fold, seed, "model.json"), {"conditions": {"torch": "2.13.0", "device": "cpu"}})
        write_table(folder / "predictions.tsv", rows, "predictions")
        return folder / "predictions.tsv"

    def _maps(self, table: pd.DataFrame, folder: Path, noise: float, random: np.random.Generator) -> np.ndarray:
        root = self.layout.dataset(DATASET, "raw")
        values, kept = np.array([int(value) for value in STRUCTURES]), []
        for row in table.itertuples():
            truth = load_labels(root / row.label)[0].astype(int)
            wanted = np.stack([record().apply_labels((truth == value).astype(np.uint8)) for value in values]).astype(float)
            wanted[0] = 1 - wanted[1:].sum(0)
            found = np.exp(3 * wanted + noise * random.normal(size=wanted.shape))
            found = (found / found.sum(0)).astype(np.float16)
            labels = values[record().invert(found.astype(np.float32)).argmax(0)].astype(np.uint8)
            save_labels(folder / "maps" / f"{row.image_id}.nii.gz", labels, AFFINE, root / row.image_t1w)
            kept.append(found)
        return np.stack(kept)

    def write(self) -> None:
        """Write cohort.tsv and splits.tsv again, after a change."""
        write_table(self.layout.dataset(DATASET, "cohort.tsv"), self.cohort, "cohort")
        write_table(self.layout.dataset(DATASET, "splits.tsv"), self.splits, "splits")


def record() -> SpatialRecord:
    """How each image came to the network grid: moved, flipped and padded, not resampled."""
    axes, flips = orientation(SHAPE, AFFINE)
    x, y, z = (SHAPE[axis] for axis in axes)
    offsets = tuple((size - edge) // 2 for size, edge in zip((x, y, z), NETWORK, strict=True))
    affine = tuple(tuple(float(value) for value in row) for row in AFFINE)
    identity = tuple(tuple(float(value) for value in row) for row in np.eye(4))
    return SpatialRecord(SHAPE, affine, axes, flips, (x, y, z), identity, offsets, NETWORK)


def make(folder: Path, task: str, persons: int = 24, locked: int = 0, mask: bool = False, folds: int = 3) -> Small:
    """Write the cohort, the split and, for segmentation, the images.

    Args:
        folder: where `results` is made.
        task: segmentation, classification or regression.
        persons: every eighth has two images, the first two are twins.
        locked: number of persons, the last ones, who are locked away.
        mask: whether images have a mask.
        folds: number of folds.
    """
    layout, random = Layout(folder / "results"), np.random.default_rng(7)
    root = layout.dataset(DATASET, "raw")
    root.mkdir(parents=True)
    rows = []
    for person in range(persons):
        for session in range(2 if person % 8 == 5 else 1):
            name = f"p{person:02d}_s{session}"
            row = {"image_id": name, "participant_id": f"p{person:02d}", "group": "twins" if person < 2 else f"p{person:02d}"}
            row |= {"session_id": f"s{session}", "site": "", "image_t1w": f"{name}.nii.gz", "sha256_file": "", "sha256_voxels": ""}
            row |= {"label": "", "mask": "", "sha256_labels": ""}
            if task == "segmentation":
                row |= _write_images(root, name, mask, random)
            row |= {"diagnosis": ("control", "patient")[person // folds % 2], "age": float(random.normal(60, 10))}
            rows.append(row)
    cohort = pd.DataFrame(rows)
    groups = list(dict.fromkeys(cohort["group"]))
    people, away = cohort.drop_duplicates("participant_id"), set(groups[len(groups) - locked :]) if locked else set()
    inside, lines = [name for name in groups if name not in away], []
    for fold in range(folds):
        role = {name: ("test", "validation", "train")[min((index - fold) % folds, 2)] for index, name in enumerate(inside)}
        lines += [(row.group, row.participant_id, str(fold), role[row.group]) for row in people.itertuples() if row.group in role]
    lines += [(row.group, row.participant_id, "locked", "locked") for row in people.itertuples() if row.group in away]
    small = Small(layout, task, cohort, pd.DataFrame(lines, columns=["group", "participant_id", "fold", "role"]))
    small.write()
    labels = {"label": STRUCTURES} if task == "segmentation" else {}
    facts = {
        "name": "small",
        "root": str(root),
        "channels": ["t1w"],
        "channel_files": {"t1w": ["t1w"]},
        "labels": labels,
        "mask": mask,
    }
    write_json(layout.dataset(DATASET, "dataset.json"), facts)
    manifest = [{"image_id": name, "sha256": "", "spatial": record().to_json()} for name in cohort["image_id"]]
    write_json(layout.dataset(DATASET, "images.json"), {"shape": NETWORK, "channels": ["t1w"], "labels": [], "rows": manifest})
    return small


def _write_images(root: Path, name: str, mask: bool, random: np.random.Generator) -> dict[str, str]:
    """One image, its label map and its mask."""
    labels = np.zeros(SHAPE, np.uint8)
    x, y, z = random.integers(0, 3, 3)
    labels[x + 1 : x + 4, y + 1 : y + 4, z : z + 3] = 1
    labels[x + 4 : x + 6, y + 1 : y + 5, z : z + 3] = 5
    files = {"image_t1w": random.normal(size=SHAPE).astype(np.float32), "label": labels}
    if mask:
        files["mask"] = (np.arange(SHAPE[0]) < 6)[:, None, None] * np.ones(SHAPE, np.uint8)
    row = {"image_t1w": f"{name}.nii.gz", "label": "", "mask": ""}
    for column, array in files.items():
        row[column] = f"{name}.nii.gz" if column == "image_t1w" else f"{name}_{column}.nii.gz"
        nib.save(nib.Nifti1Image(array, AFFINE), root / row[column])
    row["sha256_file"], row["sha256_labels"] = row_digests(row, root)
    return row
