"""Everything a page is made from, read when it is asked for; what is not there is said, not guessed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.config.experiments import ReportSettings
from gyri.errors import DataError
from gyri.io import read_json
from gyri.layout import Layout
from gyri.report.parts import Missing
from gyri.report.privacy import Names
from gyri.tables import read_table

STAGES = (
    "synthetic",
    "dataset",
    "audit",
    "split",
    "preprocess",
    "normalize",
    "train",
    "predict-fold",
    "ensemble",
    "evaluate",
    "explain",
)
COLOURS = 6
"""Colours that stay distinguishable for everybody (Okabe and Ito); the seventh model takes the first one again."""


def rank(stage: str) -> int:
    """Where a stage stands in the order of the stages; others come last."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


class Source:
    """The files of one experiment.

    Args:
        settings: what the report was told.
        layout: where files lie.
    """

    def __init__(self, settings: ReportSettings, layout: Layout):
        self.settings, self.layout = settings, layout
        self._tables: dict[tuple[Path, str | None], pd.DataFrame] = {}
        self._json: dict[Path, Any] = {}
        self.names = Names(str(settings.id_seed) if settings.hash_ids else None)
        for folder in (layout.root.resolve(), Path.home()):
            self.names.hide(folder)

    # ── files ──
    def table(self, path: Path, kind: str | None = None) -> pd.DataFrame:
        """A table, or `Missing`; each file is read once, and every caller gets a copy."""
        if not path.is_file():
            raise Missing(f"{self.name(path)} is not there")
        if (path, kind) not in self._tables:
            try:
                self._tables[path, kind] = self.names.table(read_table(path, kind))
            except DataError as error:
                raise Missing(f"{self.name(path)}: {error.problems[0].got}") from error
        return self._tables[path, kind].copy()

    def json(self, path: Path) -> Any:
        """A JSON file, or `Missing`; each file is read once, and nobody changes what it holds."""
        if not path.is_file():
            raise Missing(f"{self.name(path)} is not there")
        if path not in self._json:
            try:
                self._json[path] = read_json(path)
            except DataError as error:
                raise Missing(f"{self.name(path)}: {error.problems[0].got}") from error
        return self._json[path]

    def name(self, path: Path) -> str:
        """How a file is called on the page: its place below the results folder, never an absolute path."""
        try:
            return f"results/{path.relative_to(self.layout.root).as_posix()}"
        except ValueError:
            return path.name

    def of_dataset(self, name: str, kind: str | None = None) -> pd.DataFrame:
        """A table of the dataset."""
        return self.table(self.layout.dataset(self.settings.dataset, name), kind)

    def of_experiment(self, name: str, kind: str | None = None) -> pd.DataFrame:
        """A table of the experiment."""
        return self.table(self.layout.experiment(self.settings.experiment, name), kind)

    @cached_property
    def cohort(self) -> pd.DataFrame:
        """cohort.tsv."""
        return self.of_dataset("cohort.tsv", "cohort")

    @cached_property
    def splits(self) -> pd.DataFrame:
        """splits.tsv."""
        return self.of_dataset("splits.tsv", "splits")

    @cached_property
    def excluded(self) -> pd.DataFrame:
        """excluded.tsv."""
        return self.of_dataset("excluded.tsv", "excluded")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """metrics.tsv."""
        return self.of_experiment("metrics.tsv", "metrics")

    @cached_property
    def cases(self) -> pd.DataFrame:
        """cases.tsv."""
        return self.of_experiment("cases.tsv", "cases")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """predictions.tsv."""
        return self.of_experiment("predictions.tsv", "predictions")

    @cached_property
    def description(self) -> dict[str, Any]:
        """dataset.json."""
        found = self.json(self.layout.dataset(self.settings.dataset, "dataset.json"))
        self.names.hide(Path(str(found.get("root", ""))))
        return found

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The cohort without the excluded images."""
        try:
            gone = set(self.excluded["image_id"])
        except Missing:
            gone = set()
        return self.cohort[~self.cohort["image_id"].isin(gone)]

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """Every provenance file of the dataset and of the experiment, in the order of the stages, each with its `file`."""
        roots = [self.layout.dataset(self.settings.dataset), self.layout.experiment(self.settings.experiment)]
        records = []
        for root in roots:
            for path in sorted(root.rglob("provenance*.json")):
                if path.name == "provenance-report.json":
                    continue  # of an earlier page
                try:
                    records.append({**self.json(path), "file": self.name(path)})
                except (Missing, TypeError):
                    records.append({"stage": "unreadable", "file": self.name(path)})
        return records

    def runs(self) -> list[tuple[str, int, int]]:
        """(model, fold, seed) of every training that this experiment consists of."""
        counts = self.settings.models
        return [(model, fold, seed) for model in counts for fold in self.settings.run_folds for seed in range(counts[model])]

    # ── words ──
    @property
    def networks(self) -> list[str]:
        """Models that are trained (no baselines)."""
        return [model for model in self.settings.models if model not in self.settings.baselines]

    def kind(self, model: str) -> str:
        """network, baseline or ensemble."""
        if model in self.settings.baselines:
            return "baseline"
        return "ensemble" if model.startswith("ensemble.") else "network"

    def label(self, model: str) -> str:
        """How a model is called in figures."""
        if model.startswith("ensemble.seeds."):
            name = model.removeprefix("ensemble.seeds.")
            count = len(self.settings.ensembles.get(model, ())) or self.settings.models.get(name, 0)
            return f"{name}, {count} seeds" if count else f"{name}, seeds"
        if model.startswith("ensemble.folds."):
            return f"{model.removeprefix('ensemble.folds.')}, {len(self.settings.run_folds)} folds"
        if model == "ensemble.models.mean":
            names = dict.fromkeys(name for name, _ in self.settings.ensembles.get(model, ()))
            return " + ".join(names) or "mean of models"
        return model

    def colour(self, model: str) -> str:
        """Colour class of a model: its own for a network, its members' for an ensemble of seeds or folds, grey for baselines."""
        name = model
        for prefix in ("ensemble.seeds.", "ensemble.folds."):
            name = name.removeprefix(prefix)
        if name in self.networks:
            return f"c{self.networks.index(name) % COLOURS + 1}"
        return "cb" if model in self.settings.baselines else "ce"

    @property
    def pilot(self) -> bool:
        """Whether only some of the folds were run."""
        return len(self.settings.run_folds) < self.settings.folds

    def shown_models(self) -> list[str]:
        """One entry per model for figures of single cases: the ensemble of its seeds where there is one, else its first seed."""
        names = []
        for model in self.settings.models:
            averaged = f"ensemble.seeds.{model}"
            names.append(averaged if averaged in self.settings.ensembles else model)
        return names + [name for name in self.settings.ensembles if name not in names]

    def one_seed(self, table: pd.DataFrame, model: str, role: str = "test") -> pd.DataFrame:
        """Rows of one model (its first seed; `all` for an ensemble) and role, each image once."""
        rows = table[(table["model"] == model) & (table["role"] == role)]
        if rows.empty:
            return rows
        seeds = sorted(rows["seed"].unique(), key=lambda seed: (len(seed), seed))
        return rows[rows["seed"] == seeds[0]]
