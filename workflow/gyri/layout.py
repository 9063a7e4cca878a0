"""Where every file of a run lies, below the results folder, and the checkout that it runs from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINERS = REPOSITORY / "containers"


@dataclass(frozen=True)
class Layout:
    """Paths below one results folder.

    Args:
        root: the results folder, `results` by default.
    """

    root: Path = Path("results")

    def dataset(self, dataset: str, name: str = "") -> Path:
        """A file of a dataset: cohort.tsv, dataset.json, excluded.tsv, splits.tsv, images.npy, ..."""
        return self.root / "datasets" / dataset / name

    def fold(self, dataset: str, fold: int | str, name: str = "") -> Path:
        """A file of a dataset's fold: normalization.json, normalization.safetensors."""
        return self.dataset(dataset) / f"fold-{fold}" / name

    def experiment(self, experiment: str, name: str = "") -> Path:
        """A file of an experiment: predictions.tsv, cases.tsv, metrics.tsv, report.html, ..."""
        return self.root / experiment / name

    def run(self, experiment: str, model: str, fold: int | str, seed: int | str, name: str = "") -> Path:
        """A file of one training, or of one ensemble (seed `all`)."""
        return self.root / experiment / model / f"fold-{fold}" / f"seed-{seed}" / name

    def saliency(self, experiment: str, model: str, name: str = "") -> Path:
        """A file of a model's saliency maps: saliency.tsv, regions.tsv, maps.npy, means.nii.gz, saliency.json."""
        return self.root / experiment / model / "saliency" / name

    def checkpoint(self, fingerprint: str) -> Path:
        """The folder where a training keeps its state; no declared output lies there."""
        return self.root / ".checkpoints" / fingerprint
