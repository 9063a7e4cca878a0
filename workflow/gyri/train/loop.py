"""Training a network: one plain loop, to be read from top to bottom.

Every draw is a function of (seed, fold, model, seed index, purpose, epoch or step), never of what was drawn before; so a training
that goes on from any step does what an undisturbed one would have done, and no state of a random generator needs to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pandas as pd
import torch

from gyri.accelerator import measured
from gyri.catalogue import builder, loss, optimizer
from gyri.device import describe, prepare_torch
from gyri.errors import DataError, Interrupted, Problem
from gyri.io import write_tensors
from gyri.models.forward import settle_precision
from gyri.progress import Progress, log
from gyri.seeds import derive_seed, generator
from gyri.selftest import before_start
from gyri.tables import write_table
from gyri.train.checkpoint import Checkpoints
from gyri.train.curves import BETTER, validate
from gyri.train.job import Job
from gyri.train.lock import Lock
from gyri.train.parts import Gradients
from gyri.train.samples import Samples
from gyri.train.signals import Stop
from gyri.train.state import BATCHES, TrainingState, arrays


def fit(
    job: Job, checkpoints: Checkpoints, lock: Lock, stop: Stop, versions: Literal["strict", "warn"] = "strict"
) -> dict[str, Any]:
    """Train a network and write its files into the state folder.

    Args:
        job: settings and data.
        checkpoints: the state folder; training goes on from its newest checkpoint.
        lock: held; looked at before every checkpoint.
        stop: tells whether a signal has asked to stop.
        versions: what a difference between the versions found and the locked ones does, on a GPU or in an image.

    Returns:
        Facts for provenance.

    Raises:
        Interrupted: a signal asked to stop; the state is saved.
        DataError: training diverged, the disk is full, or not one image fits into the device's memory.
        ProvenanceError: the versions are not the locked ones.
        DeviceError: the GPU computes wrong numbers.
    """
    device = prepare_torch(job.settings.threads, job.settings.training.deterministic)
    before_start(versions)
    with measured(device) as usage:
        checkpoints.usage = usage
        facts = _fit(job, checkpoints, lock, stop, device)
        return {**facts, "accelerator": usage()}


def _fit(job: Job, checkpoints: Checkpoints, lock: Lock, stop: Stop, device: torch.device) -> dict[str, Any]:
    state = prepare(job, device)
    precision = settle_precision(job.settings.training.precision, device, state.network, job.task)
    saved = checkpoints.newest()
    if saved is not None:
        state.restore(saved)
        log(f"{job.title}: going on from step {state.step}")
    here = describe(device)
    if here["device"] not in state.devices:
        state.devices.append(here["device"])
    state.capture()
    checkpoints.rehearse()
    checkpoints.note("start", state.step)
    with stop.gently():
        train(job, state, checkpoints, lock, device, precision, stop)
        finish(job, state, checkpoints)
        checkpoints.note("end", state.step)
    parameters = sum(parameter.numel() for parameter in state.network.parameters())
    early = state.epoch < job.settings.training.epochs
    facts = {"parameters": parameters, "steps": state.step, "best_epoch": state.best_epoch, "stopped_early": early}
    batches = {name: getattr(state, name) for name in BATCHES}
    # a training that went on on another kind of device is of neither kind
    here["device"] = ", then ".join(state.devices)
    return {**here, "precision": precision, "trained": True, **facts, **batches}


def train(
    job: Job,
    state: TrainingState,
    checkpoints: Checkpoints,
    lock: Lock,
    device: torch.device,
    precision: str,
    stop: Callable[[], bool],
) -> None:
    """The loop: epochs of steps, each epoch followed by a look at the validation images.

    Args:
        job, checkpoints, lock: as for `fit`.
        state: where to start; changed in place.
        device: of everything.
        precision: float32 or bfloat16.
        stop: tells whether a signal has asked to stop.
    """
    settings = job.settings.training
    training, validation = Samples(job, "train", device), Samples(job, "validation", device)
    size = min(settings.batch_size, len(training))
    batches = len(training) // size  # the few images that do not fill a batch are others in every epoch
    total = settings.epochs * batches
    weights = class_weights(job, device)
    assert settings.loss is not None  # the settings of the stage name the task's own where the user names none
    criterion = partial(loss(settings.loss), class_weights=weights)
    gradients = Gradients(job, state, training, criterion, precision)
    if settings.micro_batch is not None and settings.micro_batch < size and state.micro_batch is None:
        gradients.limit(settings.micro_batch)
    progress, note = Progress(job.title, total, start=state.step), ""
    save = partial(save_if_due, state, checkpoints, lock, stop)

    while state.epoch < settings.epochs and not out_of_patience(state, settings.patience):
        order = generator(*job.identity, "order", state.epoch).permutation(len(training))
        state.network.train()
        while state.batch < batches:
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(settings.schedule, settings.learning_rate, state.step, total)
            error = gradients.compute(order[state.batch * size : (state.batch + 1) * size])
            if settings.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clip)
            state.optimizer.step()
            state.step, state.batch = state.step + 1, state.batch + 1
            state.loss_sum += error
            state.follow()
            progress.step(f"epoch {state.epoch + 1}/{settings.epochs}{note}")
            save()
        mean = mean_loss(job, state, batches)
        found = None
        if (state.epoch + 1) % settings.validate_every == 0 or state.epoch + 1 == settings.epochs:
            # the epoch is still open: a checkpoint made in between starts again with this validation
            found = validate(job, state.evaluated, validation, criterion, precision, size, between=save)
        close_epoch(job, state, batches, mean, found)
        if found is not None:
            note = "".join(f", {name} {value:.4f}" for name, value in found.items() if value)


def save_if_due(state: TrainingState, checkpoints: Checkpoints, lock: Lock, stop: Callable[[], bool]) -> None:
    """Write a checkpoint when it is time to, or when a signal has asked to stop.

    Raises:
        Interrupted: a signal has asked to stop.
    """
    stopping = stop()
    if not stopping and not checkpoints.schedule.due():
        return
    lock.check()
    checkpoints.save(state.capture())
    if stopping:
        checkpoints.note("interrupted", state.step)
        got, remedy = f"a signal to stop after step {state.step}", "run again: training goes on from here"
        raise Interrupted(Problem("training", got, "to run to the end; the state is saved", remedy))


def prepare(job: Job, device: torch.device) -> TrainingState:
    """Build network and optimizer; the weights are drawn on the processor, so they are the same on every device."""
    settings = job.settings
    torch.manual_seed(derive_seed(*job.identity, "weights"))
    network = builder(settings.network)(job.task, **settings.arguments)
    layout = torch.channels_last_3d if job.task.dimensions == 3 else torch.channels_last
    network = network.to(device).to(memory_format=layout)
    chosen = settings.training
    made = optimizer(chosen.optimizer)(network.parameters(), chosen.learning_rate, chosen.weight_decay)
    state = TrainingState(network, made, chosen.weight_average)
    state.loss_sum = state.loss_sum.to(device)
    return state


def class_weights(job: Job, device: torch.device) -> torch.Tensor | None:
    """The weights of the classes in the loss, on the device."""
    weights = job.class_weights()
    return None if weights is None else torch.from_numpy(weights).to(device)


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """The learning rate of a step.

    Args:
        schedule: one_cycle: linear from 4 % up to the peak over the first 20 % of the steps, then down to 0 along a cosine;
            cosine: down from the peak at once; constant.
        peak: the largest rate.
        step: from 0.
        total: number of steps.

    Returns:
        The rate.

    Source: Smith and Topin, Super-convergence, arXiv:1708.07120; Loshchilov and Hutter, SGDR, arXiv:1608.03983.
    """
    warm = 0.2 if schedule == "one_cycle" else 0.0
    place = step / total
    if schedule == "constant":
        return peak
    if place < warm:
        return peak * (0.04 + 0.96 * place / warm)
    return peak * 0.5 * (1 + math.cos(math.pi * (place - warm) / (1 - warm)))


def mean_loss(job: Job, state: TrainingState, batches: int) -> float:
    """The mean training loss of the present epoch.

    Raises:
        DataError: it is no number any more.
    """
    mean = float(state.loss_sum) / batches
    if not math.isfinite(mean):
        got = f"a training loss of {mean} in epoch {state.epoch + 1}"
        remedy = "lower training.learning_rate, or take precision: float32"
        raise DataError(Problem(job.title, got, "a finite loss", remedy))
    return mean


def close_epoch(job: Job, state: TrainingState, batches: int, mean: float, found: dict[str, float | None] | None) -> None:
    """Add a row to the history, keep the weights if they are the best, and turn to the next epoch."""
    state.epoch, state.batch = state.epoch + 1, 0
    state.loss_sum.zero_()
    chosen = job.settings.training
    rate = learning_rate(chosen.schedule, chosen.learning_rate, state.step - 1, chosen.epochs * batches)
    row = {"epoch": state.epoch, "step": state.step, "train_loss": mean, "validation_loss": None, "learning_rate": rate}
    state.history.append(row)
    if found is not None:
        row.update(found)
        keep_if_best(job, state, row)


def keep_if_best(job: Job, state: TrainingState, row: dict[str, Any]) -> None:
    """Keep the weights of this epoch if it is the best so far; of equal ones the first counts."""
    name, sign = BETTER[job.target.task]
    value = row[name]
    before = next((item[name] for item in state.history if item["epoch"] == state.best_epoch), None)
    if state.best_epoch == 0 or (value is not None and (before is None or sign * value > sign * before)):
        state.best, state.best_epoch = arrays(state.evaluated), state.epoch


def out_of_patience(state: TrainingState, patience: int | None) -> bool:
    """Whether training has gone on for too long without a better validation."""
    return patience is not None and state.best_epoch > 0 and state.epoch - state.best_epoch >= patience


def finish(job: Job, state: TrainingState, checkpoints: Checkpoints) -> None:
    """Write the best and the last weights and the history into the state folder."""
    for row in state.history:
        row["selected"] = int(row["epoch"] == state.best_epoch)
    # rows that came back from a checkpoint have their keys in another order
    names = {name for row in state.history for name in row}
    first, last = ["epoch", "step", "train_loss", "validation_loss"], ["learning_rate", "selected"]
    table = pd.DataFrame(state.history, columns=[*first, *sorted(names - {*first, *last}), *last])
    normalization = {f"normalization.{name}": value for name, value in job.arrays.items()}
    for file, weights in (("weights", state.best), ("last", arrays(state.evaluated))):
        tensors = {f"network.{name}": value for name, value in weights.items()}
        write_tensors(checkpoints.folder / f"{file}.safetensors", {**tensors, **normalization})
    write_table(checkpoints.folder / "history.tsv", table, "history")
