"""Settings of an experiment: one task on one dataset, several models, one evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gyri.config.base import NAME, Settings
from gyri.config.saliency import Saliency
from gyri.config.training import Architecture, Augmentation, Count, Training
from gyri.types import Task

Name = Annotated[str, Field(pattern=NAME)]


class Ensemble(Settings):
    """Which models are averaged."""

    seeds: bool = True
    """Average the seeds of every model that has several: `ensemble.seeds.<model>`."""
    models: list[Name] = []
    """Average these models (all their seeds): `ensemble.models.mean`."""
    allow_mixed: bool = False
    """Average models that were trained under different torch, CUDA, cuDNN or kinds of device."""


class Evaluation(Settings):
    """How results are measured."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of the groups."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    seed: int = 0
    """Seed of the bootstrap and of the permutations."""
    permutations: Annotated[int, Field(ge=1000)] = 1000
    """Exchanges of the labels of whole groups that say what chance reaches."""
    specificity: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Specificity on validation at which the sensitivity is given (classification)."""
    sensitivity: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Sensitivity on validation at which the specificity is given (classification)."""
    surface_tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    """Distance up to which surfaces count as the same, mm (segmentation)."""
    minimum_component_mm3: list[Annotated[float, Field(gt=0)]] = [10.0, 100.0]
    """Volumes below which post-processing may remove a component, cubic mm (segmentation; validation chooses)."""
    subgroups: list[str] = []
    """Columns of the cohort to divide the test images by, besides sex, age, site and diagnosis."""
    age_edges: list[float] = [20.0, 40.0, 60.0, 80.0]
    """Ages at which a new band begins, in the unit of the column `age`."""
    compare_mixed: bool = False
    """Test models against each other that were trained under different torch, CUDA, cuDNN or kinds of device."""


class Experiment(Settings):
    """One task on one dataset."""

    dataset: Name
    """Name of the dataset."""
    task: Task
    """classification, regression or segmentation."""
    target: str | None = None
    """Column to predict, or the name of the label image (default `label`) for segmentation."""
    classes: list[str] | None = None
    """Classes in order, the positive one last; all values of the target column in sorted order where none are given."""
    architectures: Annotated[dict[Name, Architecture], Field(min_length=1)]
    """Models by name. The baselines of the task are added where they are missing."""
    seeds: Count = 1
    """Seeds per network; a baseline has one."""
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    ensemble: Ensemble = Ensemble()
    evaluation: Evaluation = Evaluation()
    saliency: Saliency = Saliency()
    batch_size_predict: Count = 8
    """Images per step of prediction."""
    mirror_predict: list[Literal["x", "y", "z"]] = []
    """Axes mirrored at prediction; the results are averaged."""
    allow_changed_batch: bool = False
    """Compare and average models although some ran out of memory and were trained in micro-batches that made another training of them."""


class EnsembleSettings(Settings):
    """What the stage `ensemble` is told of one ensemble."""

    members: list[tuple[str, int]]
    """(model, seed index) of each member."""
    folds: list[int] = []
    """Folds to average over (`ensemble.folds.<model>`, locked participants only); none: inside one fold."""
    allow_mixed: bool = False
    """Average members that were trained under different conditions."""
    allow_changed_batch: bool = False
    """Average members of which some were trained in micro-batches that made another training of them."""


class EvaluateSettings(Settings):
    """What the stage `evaluate` is told."""

    task: Task
    target: str
    classes: list[str] | None
    evaluation: Evaluation
    baselines: list[str]
    """Models that are baselines."""
    ensembles: dict[str, list[str]] = {}
    """Models that each ensemble averages."""
    allow_changed_batch: bool = False
    """Compare models of which some were trained in micro-batches that made another training of them."""


class Report(Settings):
    """What the pages show."""

    hash_ids: bool = False
    """Show pseudonyms (hashes salted with `seed`) in the place of image, participant and group ids, in report.json too."""


class ReportSettings(Settings):
    """What the stage `report` is told of one experiment."""

    title: str
    experiment: str
    dataset: str
    folds: int
    run_folds: list[int]
    models: dict[str, int]
    """Number of seeds per model, baselines among them."""
    ensembles: dict[str, list[tuple[str, int]]]
    """Members per ensemble."""
    baselines: list[str]
    task: Task
    target: str
    hash_ids: bool = False
    """Pseudonyms stand in the place of image, participant and group ids."""
    id_seed: int = 0
    """Salt of the pseudonyms."""
    explained: list[str] = []
    """Networks with saliency maps."""


class IndexSettings(Settings):
    """What the index page is told."""

    title: str
    experiments: list[ReportSettings]
