"""How hard the synthetic cohort is: a linear model of voxels on five cohorts, with the effects on and off.

    PYTHONPATH=workflow python benchmarks/synthetic_difficulty.py [--seeds 1 2 3 4 5] [--participants 60] [--spacing 6]

Each cohort is made, split (3 folds by family), preprocessed and normalized by gyri's own stages with the settings of
config.yaml. Two linear models follow: scikit-learn's logistic and ridge regression with fixed regularization on all participants
outside the test fold, and gyri's baseline `linear`, which gives a fifth of them to validation to choose its regularization.
The mean over the folds is printed: AUROC for diagnosis, R2 for age.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from gyri import dataset, preprocess, split, synthetic
from gyri.config.datasets import PreprocessSettings, ReadSettings, SplitSettings, SyntheticDataset
from gyri.io import read_array, read_json
from gyri.layout import Layout
from gyri.models.learning_task import LearningTask
from gyri.models.linear_images import LinearImages
from gyri.tables import read_table, write_table

CONFIG = Path(__file__).parents[1] / "config.yaml"
OFF = {"age_effect": 0.0, "diagnosis_effect": 0.0, "sex_effect": 0.0, "site_effect": 0.0}


class Rows:
    """Images and targets of one role, as the baseline wants them."""

    def __init__(self, images: NDArray[np.float32], targets: NDArray[np.floating]):
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.images[index]


def cohort(source: SyntheticDataset, folder: Path) -> tuple[NDArray[np.float32], pd.DataFrame, pd.DataFrame]:
    """Run the stages: preprocessed images (N, C, X, Y, Z), the rows of the cohort in the same order, and the splits."""
    layout = Layout(folder)
    name = "brains"
    reading = ReadSettings(source=source)
    synthetic.run(reading, layout, name, 2)
    dataset.run(reading, layout, name, 2)
    nothing = pd.DataFrame({"image_id": [], "reason": [], "severity": []}, dtype=str)
    write_table(layout.dataset(name, "excluded.tsv"), nothing, "excluded")
    split.run(SplitSettings(split=source.split, folds=source.folds), layout, name)
    preprocess.run(PreprocessSettings(preprocess=source.preprocess, shape=source.shape), layout, name, 2)
    order = [row["image_id"] for row in read_json(layout.dataset(name, "images.json"))["rows"]]
    table = read_table(layout.dataset(name, "cohort.tsv"), "cohort").set_index("image_id").loc[order].reset_index()
    images = np.asarray(read_array(layout.dataset(name, "images.npy")), np.float32)
    return images, table, read_table(layout.dataset(name, "splits.tsv"), "splits")


def scikit_learn(
    images: NDArray[np.float32], target: NDArray[np.floating], train: NDArray[np.bool_], task: str
) -> NDArray[np.floating]:
    """Scores of all images by a model of the training images; the rotation to their span changes no prediction."""
    flat = images.reshape(len(images), -1)
    flat = (flat - flat[train].mean()) / flat[train].std()
    model = LogisticRegression(C=1.0, max_iter=5000) if task == "classification" else Ridge(alpha=1.0)
    fitted = make_pipeline(PCA(svd_solver="full"), model).fit(flat[train], target[train])
    return fitted.decision_function(flat) if task == "classification" else fitted.predict(flat)


def baseline(
    images: NDArray[np.float32], target: NDArray[np.floating], train: NDArray[np.bool_], validation: NDArray[np.bool_], task: str
) -> NDArray[np.floating]:
    """Scores of all images by gyri's baseline `linear`."""
    scaled = (images - images[train].mean()) / images[train].std()
    sizes = (images.shape[2], images.shape[3], images.shape[4])
    model = LinearImages(LearningTask(task, images.shape[1], sizes, 2 if task == "classification" else 1))
    typed = target.astype(np.int64) if task == "classification" else target
    model.fit(Rows(scaled[train], typed[train]), Rows(scaled[validation], typed[validation]))
    return model.predict(scaled)[:, -1].astype(np.float64)


def measure(images: NDArray[np.float32], table: pd.DataFrame, splits: pd.DataFrame) -> dict[str, float]:
    """Mean over the test folds of each measure."""
    targets = {
        "classification": (table["diagnosis"] == "patient").to_numpy(float),
        "regression": table["age"].to_numpy(float),
    }
    found: dict[str, list[float]] = {}
    for _, rows in splits.groupby("fold"):
        role = table["participant_id"].map(rows.set_index("participant_id")["role"])
        train, validation, test = ((role == name).to_numpy() for name in ("train", "validation", "test"))
        for task, target in targets.items():
            score = roc_auc_score if task == "classification" else r2_score
            name = "auroc" if task == "classification" else "r2"
            outside = scikit_learn(images, target, train | validation, task)
            tuned = baseline(images, target, train, validation, task)
            found.setdefault(f"{name}_sklearn", []).append(score(target[test], outside[test]))
            found.setdefault(f"{name}_linear", []).append(score(target[test], tuned[test]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Print one line per cohort and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--participants", type=int, default=60)
    parser.add_argument("--spacing", type=float, default=6.0)
    arguments = parser.parse_args()
    base = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["datasets"]["brains"]
    base |= {"participants": arguments.participants, "spacing_mm": arguments.spacing}
    if arguments.spacing != 6:
        base["shape"] = None
    for title, effects in (("on", {}), ("off", OFF)):
        lines = []
        for seed in arguments.seeds:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                line = measure(*cohort(SyntheticDataset.model_validate({**base, "seed": seed, **effects}), Path(folder)))
            lines.append(line)
            numbers = "  ".join(f"{name} {value:6.3f}" for name, value in line.items())
            print(f"effects {title}  seed {seed}  {numbers}  ({time.monotonic() - began:.0f} s)", flush=True)
        means = "  ".join(f"{name} {np.mean([line[name] for line in lines]):6.3f}" for name in lines[0])
        print(f"effects {title}  mean    {means}", flush=True)


if __name__ == "__main__":
    main()
