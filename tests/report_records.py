"""What jobs of a whole experiment recorded, with all their settings, for tests of what pages write from provenance."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import report_fixture
from gyri.config.datasets import (
    Audit,
    AuditSettings,
    Normalize,
    NormalizeSettings,
    Preprocess,
    PreprocessSettings,
    Split,
    SplitSettings,
    SyntheticDataset,
)
from gyri.config.experiments import EnsembleSettings, EvaluateSettings, Evaluation
from gyri.config.saliency import ExplainSettings, Saliency
from gyri.config.training import Augmentation, Input, PredictSettings, Training, TrainSettings
from gyri.layout import Layout
from gyri.report.source import Source
from gyri.settings import LATER_STAGES

TASKS = {"tissue": "segmentation", "diagnosis": "classification", "age": "regression"}
READ = ("cohort", "excluded", "kept", "description", "splits", "metrics", "cases", "predictions")
Sources = dict[str, Source]
FACTS: dict[str, dict[str, Any]] = {
    "audit": {"warn": 1, "exclude": 1},
    "split": {"locked_groups": 2},
    "preprocess": {"shape": [16, 20, 16]},
    "train": {
        "parameters": 1234,
        "best_epoch": 11,
        "precision": "float32",
        "train_images": 20,
        "train_groups": 18,
        "validation_images": 6,
        "stopped_early": False,
        "accelerator": {"energy_j": 3600.0},
    },
    "evaluate": {"images": 14, "groups": 11, "undefined": 3},
}


def make_sources(folder: Path) -> Sources:
    """Finished results of three experiments, their tables read once."""
    layout = Layout(folder / "results")
    report_fixture.make_results(layout.root)
    made = {name: Source(report_fixture.settings_of(task, name), layout) for name, task in TASKS.items()}
    for source in made.values():
        for name in READ:
            getattr(source, name)
    return made


def full_settings(task: str) -> dict[str, dict[str, Any]]:
    """All settings of every stage, with their defaults, for the caller to change."""
    return copy.deepcopy(_full_settings(task))


@cache
def _full_settings(task: str) -> dict[str, dict[str, Any]]:
    target = {"segmentation": "label", "classification": "diagnosis", "regression": "age"}[task]
    loss = {"segmentation": "dice_cross_entropy", "classification": "cross_entropy", "regression": "mean_squared_error"}[task]
    train = TrainSettings(
        task=task,  # type: ignore[arg-type]
        target=target,
        classes=None,
        network="unet" if task == "segmentation" else "conv5_fc3",
        arguments={},
        input=Input(),
        training=Training(loss=loss),
        augmentation=Augmentation(),
        seed=0,
        threads=1,
    )
    stages: dict[str, BaseModel] = {
        "audit": AuditSettings(audit=Audit(), targets=[]),
        "split": SplitSettings(split=Split(), folds=3),
        "preprocess": PreprocessSettings(preprocess=Preprocess(), shape=None),
        "normalize": NormalizeSettings(normalize=Normalize()),
        "train": train,
        "predict-fold": PredictSettings(network=train.network, batch_size=8, mirror=[], threads=1),
        "ensemble": EnsembleSettings(members=[(train.network, 0), (train.network, 1)]),
        "evaluate": EvaluateSettings(task=task, target=target, classes=None, evaluation=Evaluation(), baselines=["linear"]),  # type: ignore[arg-type]
        "explain": ExplainSettings(
            network=train.network,
            task=task,  # type: ignore[arg-type]
            saliency=Saliency(),
            folds=[0],
            seed=0,
            threads=1,
        ),
    }
    found = {stage: settings.model_dump(mode="json") for stage, settings in stages.items()}
    synthetic = SyntheticDataset(format="synthetic").model_dump(mode="json", exclude=LATER_STAGES)
    return {**found, "dataset": {"source": synthetic}}


def records_of(task: str, stages: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One job of every stage and model."""
    records = []
    for stage, settings in stages.items():
        for model in report_fixture.MODELS[task]:
            record = report_fixture.provenance(stage, copy.deepcopy(settings), model=model, file=f"{stage}/{model}")
            record["facts"] = copy.deepcopy(FACTS.get(stage, {}))
            if stage in ("train", "predict-fold") and model in ("linear", "majority", "mean"):
                record["settings"]["network"] = model
            records.append(record)
    for name in ("unet", "conv5_fc3"):
        records.append(report_fixture.provenance("ensemble", stages["ensemble"], model=f"ensemble.seeds.{name}"))
    return [*records, report_fixture.provenance("ensemble", stages["ensemble"], model="ensemble.models.mean")]


def source_of(sources: Sources, experiment: str, stages: dict[str, dict[str, Any]], **fields: Any) -> Source:
    source = copy.copy(sources[experiment])
    source.__dict__["provenance"] = [{**copy.deepcopy(record), **fields} for record in records_of(TASKS[experiment], stages)]
    return source
