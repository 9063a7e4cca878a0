"""Fitting a baseline: in one go, without torch."""

from __future__ import annotations

import contextlib
from typing import Any

import pandas as pd

from gyri.catalogue import builder
from gyri.device import check_threads
from gyri.io import write_tensors
from gyri.seeds import generator
from gyri.tables import write_table
from gyri.train.checkpoint import Checkpoints
from gyri.train.job import Job
from gyri.train.lock import Lock


def fit(job: Job, checkpoints: Checkpoints, lock: Lock) -> dict[str, Any]:
    """Fit a baseline on the training images and write its files into the state folder.

    Args:
        job: settings and data; targets are given in their own unit.
        checkpoints: the state folder.
        lock: held.

    Returns:
        Facts for provenance.
    """
    check_threads(job.settings.threads)
    checkpoints.note("start", 0)
    draws = generator(*job.identity, "baseline")
    baseline = builder(job.settings.network)(job.task, draws, **job.settings.arguments)
    with _thread_limit(job.settings.threads):
        chosen = baseline.fit(job.images("train"), job.images("validation"))
    tensors = {f"network.{name}": value for name, value in baseline.state().items()}
    tensors.update({f"normalization.{name}": value for name, value in job.arrays.items()})
    row = {"epoch": 1, "step": 1, "train_loss": None, "validation_loss": None, "learning_rate": None, "selected": 1}
    lock.check()
    for file in ("weights", "last"):
        write_tensors(checkpoints.folder / f"{file}.safetensors", tensors)
    write_table(checkpoints.folder / "history.tsv", pd.DataFrame([row]), "history")
    checkpoints.note("end", 1)
    return {"device": "cpu", "precision": "float32", "trained": False, "steps": 1, "chosen": chosen}


def _thread_limit(threads: int) -> contextlib.AbstractContextManager[Any]:
    """Limit the linear algebra libraries to so many threads, since sums depend on it."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)
