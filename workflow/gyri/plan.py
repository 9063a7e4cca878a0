"""What a configuration will cost before it is run: jobs, hours and memory, from one timed step of every network."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gyri import settings as choose
from gyri.catalogue import catalogue
from gyri.config.load import Config
from gyri.config.training import TrainSettings
from gyri.io import read_json
from gyri.layout import Layout
from gyri.models.learning_task import LearningTask
from gyri.progress import duration, log
from gyri.types import Shape3

# a process with torch takes about 2 s to start and a stage without it 1 s (measured, 2 cores); they matter for tiny runs only
STARTUP_SECONDS = {True: 2.0, False: 1.0}
TIMED_STEPS = 3
SMALL_JOBS_PER_DATASET = 4


@dataclass(frozen=True)
class Cost:
    """What the trainings of one model cost.

    Args:
        jobs: number of trainings.
        seconds: of one training with its prediction; None where it cannot be known yet.
        memory_mb: peak memory of one training; None likewise.
        note: why, or on what it was measured.
        image_seconds: a forward pass of one image; None where it was not measured.
    """

    jobs: int
    seconds: float | None
    memory_mb: float | None
    note: str
    image_seconds: float | None = None


def describe(config: Config, layout: Layout) -> str:
    """Say what a configuration will cost.

    Args:
        config: the configuration.
        layout: a results folder; what was preprocessed there already makes the estimate exact in the sizes.

    Returns:
        A table to print. Times are those of this machine with the threads of the configuration.
    """
    lines = [f"{'experiment':16} {'model':24} {'jobs':>5} {'each':>14} {'memory':>10}  note"]
    total, jobs = 0.0, Counter({"dataset stages": 0, "trainings": 0, "predictions": 0, "ensembles": 0, "saliency maps": 0})
    for dataset, source in config.datasets.items():
        jobs["dataset stages"] += SMALL_JOBS_PER_DATASET + len(choose.run_folds(source)) + (source.format == "synthetic")
        total += STARTUP_SECONDS[False] * (SMALL_JOBS_PER_DATASET + len(choose.run_folds(source)))
        log(f"{dataset}: {_images(config, layout, dataset)} images")
    for experiment, chosen in config.experiments.items():
        folds = len(choose.run_folds(config.datasets[chosen.dataset]))
        for model, seeds in choose.models(config, experiment).items():
            cost = estimate(config, layout, experiment, model, folds * seeds)
            each = "unknown" if cost.seconds is None else duration(cost.seconds)
            memory = "unknown" if cost.memory_mb is None else f"{cost.memory_mb:.0f} MB"
            lines.append(f"{experiment:16} {model:24} {cost.jobs:5} {each:>14} {memory:>10}  {cost.note}")
            total += (cost.seconds or 0.0) * cost.jobs
            jobs["trainings"] += cost.jobs
            jobs["predictions"] += cost.jobs
            if model in choose.explained(config, experiment):
                jobs["saliency maps"] += 1
                total += saliency_seconds(config, layout, experiment, cost.image_seconds)
        jobs["ensembles"] += folds * len(choose.ensembles(config, experiment))
        total += STARTUP_SECONDS[False] * (2 + folds * len(choose.ensembles(config, experiment)))
    jobs["results"] = 2 * len(config.experiments) + 1
    counted = ", ".join(f"{count} {name}" for name, count in jobs.items())
    lines += ["", f"{sum(jobs.values())} jobs: {counted}"]
    lines.append(
        f"one after the other: {duration(total)} ({total / 3600:.2f} h), {config.threads.train} thread(s) each, without waiting in queues"
    )
    return "\n".join(lines)


def estimate(config: Config, layout: Layout, experiment: str, model: str, jobs: int) -> Cost:
    """Time one step of a model and multiply.

    Args:
        config: the configuration.
        layout: a results folder.
        experiment: its name.
        model: its name.
        jobs: how many trainings there will be.

    Returns:
        The cost.
    """
    settings = choose.train_settings(config, experiment, model)
    dataset = config.experiments[experiment].dataset
    source = config.datasets[dataset]
    images = _images(config, layout, dataset)
    train = round(images * (1 - 1 / source.folds) * (1 - source.split.validation) * (1 - source.split.locked))
    if not catalogue()[settings.network].trained:
        return Cost(jobs, 2 * STARTUP_SECONDS[False], None, "fitted in one go")
    task = _learning_task(config, layout, experiment)
    if task is None:
        return Cost(jobs, None, None, "no `shape` in the configuration and nothing preprocessed yet")
    context = multiprocessing.get_context("spawn")  # a process of its own, so that the peak memory is this network's
    with context.Pool(1) as pool:
        step, forward, memory, device = pool.apply(time_step, (settings, task))
    batches = max(train // settings.training.batch_size, 1)
    validated = images / source.folds / settings.training.batch_size / settings.training.validate_every
    seconds = settings.training.epochs * (batches * step + validated * forward) + 2 * STARTUP_SECONDS[True]
    note = f"{settings.training.epochs} epochs of {batches} steps at {step * 1000:.0f} ms, {device}"
    note += ", at most" if settings.training.patience else ""
    return Cost(jobs, seconds, memory, note, forward / settings.training.batch_size)


def saliency_seconds(config: Config, layout: Layout, experiment: str, image_seconds: float | None) -> float:
    """What the saliency maps of one network cost; nearly all of it are the forward passes of occlusion.

    Args:
        config: the configuration.
        layout: a results folder.
        experiment: its name.
        image_seconds: a forward pass of one image; where it is not known only the start of the process counts.
    """
    chosen = config.experiments[experiment]
    source, asked = config.datasets[chosen.dataset], chosen.saliency
    task = _learning_task(config, layout, experiment)
    if image_seconds is None or task is None or "occlusion" not in asked.methods:
        return STARTUP_SECONDS[True]
    spacing = source.preprocess.spacing_mm or getattr(source, "spacing_mm", None) or 1.0
    edge = spacing if isinstance(spacing, int | float) else min(spacing)
    patch, stride = (max(round(wanted / edge), 1) for wanted in (asked.patch_mm, asked.stride_mm))
    boxes = math.prod(math.ceil(max(size - patch, 0) / stride) + 1 for size in task.shape)
    # of trained and of random weights
    return STARTUP_SECONDS[True] + 2 * boxes * asked.images * len(choose.run_folds(source)) * image_seconds


def time_step(settings: TrainSettings, task: LearningTask) -> tuple[float, float, float, str]:
    """Run a few steps of a network on random images.

    Args:
        settings: of the training.
        task: the sizes.

    Returns:
        Seconds of a training step, seconds of a forward pass, peak memory in MB, the device.
    """
    import torch

    from gyri import catalogue as parts
    from gyri.device import prepare_torch
    from gyri.models.forward import forward, settle_precision
    from gyri.provenance import peak_memory_mb

    chosen = settings.training
    device = prepare_torch(settings.threads, chosen.deterministic)
    network = parts.builder(settings.network)(task, **settings.arguments).to(device)
    network = network.to(memory_format=torch.channels_last_3d if task.dimensions == 3 else torch.channels_last)
    precision = settle_precision(chosen.precision, device, network, task)
    optimizer = parts.optimizer(chosen.optimizer)(network.parameters(), learning_rate=1e-6, weight_decay=0.0)
    criterion = parts.loss(chosen.loss or "")
    images = torch.rand(chosen.batch_size, task.in_channels, *task.shape, device=device)
    targets = _random_targets(task, chosen.batch_size, device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = forward(network, images, task)
        loss = criterion(outputs.float(), targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def look() -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            forward(network, images, task)

    seconds = _median_time(step, device), _median_time(look, device)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_memory_mb()
    return (*seconds, memory, f"{device.type}, {precision}")


def _median_time(action: Any, device: Any) -> float:
    """The median time of an action after one for warming up."""
    import torch

    times = []
    for _ in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[TIMED_STEPS // 2]


def _random_targets(task: LearningTask, batch: int, device: Any) -> Any:
    """Targets of the right kind for a loss."""
    import torch

    if task.task == "regression":
        return torch.rand(batch, device=device)
    size = (batch, *task.shape) if task.task == "segmentation" else (batch,)
    return torch.randint(task.n_outputs, size, device=device)


def _learning_task(config: Config, layout: Layout, experiment: str) -> LearningTask | None:
    """The sizes, from what was preprocessed, else from the configuration; None where neither tells."""
    chosen = config.experiments[experiment]
    manifest = layout.dataset(chosen.dataset, "images.json")
    shape: Shape3 | None = config.datasets[chosen.dataset].shape
    channels, outputs = 1, len(chosen.classes or ["", ""])
    if manifest.is_file():
        content = read_json(manifest)
        x, y, z = content["shape"]
        shape, channels = (x, y, z), len(content["channels"])
    elif isinstance(images := getattr(config.datasets[chosen.dataset], "images", None), dict):
        channels = len(images)
    facts = layout.dataset(chosen.dataset, "dataset.json")
    if chosen.task == "segmentation":
        labels = read_json(facts)["labels"].get(choose.target_column(chosen), {}) if facts.is_file() else {}
        outputs = len(labels) or 4
    if shape is None:
        return None
    return LearningTask(chosen.task, channels, shape, 1 if chosen.task == "regression" else outputs)


def _images(config: Config, layout: Layout, dataset: str) -> int:
    """How many images a dataset has: counted where it was preprocessed, else where it was read, else from its listing."""
    manifest = layout.dataset(dataset, "images.json")
    if manifest.is_file():
        return len(read_json(manifest)["rows"])
    source = config.datasets[dataset]
    if source.format == "synthetic":
        return math.ceil(source.participants * (1 + 1.5 * source.multi_session))
    from gyri.dataset import count_images

    return count_images(choose.read_settings(config, dataset), layout, dataset)
