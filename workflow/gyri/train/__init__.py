"""Training: one model on one fold with one seed, resumable, and never done twice for the same inputs.

The result is kept beside the checkpoints; a job with the same fingerprint is handed it without torch being imported.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gyri import __version__
from gyri.catalogue import catalogue
from gyri.config.training import TrainSettings
from gyri.errors import DataError, Problem
from gyri.io import sha256_text, write_json
from gyri.layout import Layout
from gyri.loading import FIT_ROLES, Store, Target, find_target, fold_table, input_digest, open_store, read_normalization
from gyri.models.learning_task import LearningTask
from gyri.train.checkpoint import RESULT, Checkpoints
from gyri.train.job import Job
from gyri.train.lock import Lock
from gyri.train.schedule import Schedule
from gyri.train.signals import Stop, stop_signals
from gyri.transforms.spatial import SpatialRecord, spacing
from gyri.usage import total
from gyri.warned import so_far

CONDITIONS = ("torch", "device", "cuda", "cudnn")  # models that differ in these are neither ranked nor averaged
FILES = ("weights.safetensors", "last.safetensors", "history.tsv", "model.json")

__all__ = ["FILES", "checkpoint_key", "run"]


def run(
    settings: TrainSettings,
    layout: Layout,
    dataset: str,
    experiment: str,
    model: str,
    fold: int,
    seed: int,
    fingerprint: str,
    end: float | None = None,
    versions: Literal["strict", "warn"] = "strict",
) -> dict[str, Any]:
    """Train a network, or fit a baseline, on a fold's training participants.

    Args:
        settings: what the stage is told.
        layout: the results folder.
        dataset: its name.
        experiment: its name.
        model: its name in the experiment.
        fold: number of the fold.
        seed: index of the seed.
        fingerprint: hash of settings, code and environment; with the inputs it names the state folder.
        end: when the allocation ends, on `time.monotonic`; None where that is not known. A checkpoint is made before it.
        versions: what a difference between the versions found and the locked ones does, on a GPU or in an image.

    Returns:
        Facts for provenance; `handed_over` is True where an earlier result was taken.

    Raises:
        Interrupted: a signal asked to stop; the state is saved.
        DataError: the inputs cannot be used, or training diverged, or not one image fits into the device's memory.
    """
    target = find_target(layout, dataset, settings.task, settings.target, settings.classes)
    key = checkpoint_key(layout, dataset, experiment, model, fold, seed, target, fingerprint)
    checkpoints = Checkpoints(layout.checkpoint(key), key, Schedule(settings.training.checkpoint_seconds, end))
    output = layout.run(experiment, model, fold, seed)
    names = {"dataset": dataset, "experiment": experiment, "model": model, "fold": fold, "seed": seed}
    trained = False
    with stop_signals() as stop:
        while (facts := checkpoints.hand_over(output)) is None:
            lock = Lock(checkpoints.folder)
            if not lock.acquire(finished=(checkpoints.folder / RESULT).is_file):
                continue
            try:
                if not (checkpoints.folder / RESULT).is_file():
                    checkpoints.tidy()
                    _train(settings, layout, names, target, checkpoints, lock, stop, versions)
                    trained = True
            finally:
                lock.release()
    used = total([session["accelerator"] for session in facts["sessions"] if "accelerator" in session])
    return {**facts, **({"accelerator": used} if used else {}), "handed_over": not trained, "checkpoint": key[:16]}


def checkpoint_key(
    layout: Layout, dataset: str, experiment: str, model: str, fold: int, seed: int, target: Target, fingerprint: str
) -> str:
    """The name of the state folder: a hash of all that the result depends on, the contents of the inputs among them."""
    inputs = input_digest(layout, dataset, fold, target)
    return sha256_text(fingerprint, inputs, dataset, experiment, model, str(fold), str(seed))


def _train(
    settings: TrainSettings,
    layout: Layout,
    names: dict[str, Any],
    target: Target,
    checkpoints: Checkpoints,
    lock: Lock,
    stop: Stop,
    versions: Literal["strict", "warn"],
) -> None:
    """Make the result in the state folder."""
    store = open_store(layout, names["dataset"])
    description, arrays = read_normalization(layout, names["dataset"], names["fold"])
    table = fold_table(layout, names["dataset"], names["fold"], target, FIT_ROLES)
    _check_roles(Counter(table["role"]), layout.dataset(names["dataset"], "splits.tsv"), names)
    n_outputs = 1 if target.task == "regression" else len(target.names)
    task = LearningTask(task=target.task, in_channels=store.images.shape[1], shape=store.shape, n_outputs=n_outputs)
    identity = (settings.seed, names["fold"], names["model"], names["seed"])
    title = "{experiment}/{model}, fold {fold}, seed {seed}".format(**names)
    job = Job(settings, target, task, identity, title, store, table, description, arrays)
    # each of the two imports only what it needs: a baseline no torch, a network no scikit-learn
    if catalogue()[settings.network].trained:
        from gyri.train.loop import fit as fit_network

        facts = fit_network(job, checkpoints, lock, stop, versions)
    else:
        from gyri.train.baselines import fit as fit_baseline

        facts = fit_baseline(job, checkpoints, lock)
    write_json(checkpoints.folder / "model.json", _card(job, store, names, facts))
    lock.check()
    images = job.facts()
    checkpoints.finish(FILES, {**facts, **images, "warnings": [*images.get("warnings", []), *so_far()]})


def _card(job: Job, store: Store, names: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """model.json: everything that applying the model to a new scan needs."""
    settings, target = job.settings, job.target
    return {
        **names,
        "task": target.task,
        "target": target.column,
        "names": target.names,
        "label_values": target.values,
        "network": settings.network,
        "arguments": settings.arguments,
        "learning_task": {key: getattr(job.task, key) for key in ("task", "in_channels", "shape", "n_outputs")},
        "channels": store.channels,
        "preprocess": store.manifest["settings"],
        "normalization": job.description,
        "target_scale": job.target_scale() if facts["trained"] else [0.0, 1.0],
        "seen": _seen(job, store),
        "precision": facts.get("precision", "float32"),
        "deterministic": settings.training.deterministic,
        "threads": settings.threads,
        "trained": facts["trained"],
        "micro_batch": facts.get("micro_batch"),
        "changed_batch": facts.get("changed_batch", False),
        "conditions": {name: facts[name] for name in CONDITIONS if name in facts} if facts["trained"] else {},
        "version": __version__,
    }


def _seen(job: Job, store: Store) -> dict[str, Any]:
    """What the training images were like, so that a new scan unlike them is noticed."""
    records = [SpatialRecord.from_json(store.manifest["rows"][row]["spatial"]) for row in job.rows("train")["row"]]
    edges = np.stack([np.sort(spacing(np.asarray(record.original_affine))) for record in records])
    return {"spacing_mm": [edges.min(0).tolist(), edges.max(0).tolist()]}  # shortest edge first


def _check_roles(counts: Counter[str], path: Path, names: dict[str, Any]) -> None:
    """Training needs two images, and validation one."""
    problems = []
    for role, least in (("train", 2), ("validation", 1)):
        if counts[role] < least:
            where = f"{path}: fold {names['fold']}"
            got = f"{counts[role]} {role} images with a target"
            remedy = "take fewer folds, another validation fraction, or a target with fewer gaps"
            problems.append(Problem(where, got, f"at least {least}", remedy))
    if problems:
        raise DataError(problems)
