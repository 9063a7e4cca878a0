"""A trained model as it is used: preprocessed images in, probabilities or values out. Torch is imported for networks only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gyri.catalogue import builder
from gyri.device import check_threads, choose_precision, describe, prepare_torch
from gyri.errors import DataError, Problem
from gyri.io import read_json, read_tensors
from gyri.layout import Layout
from gyri.loading import Store, Target
from gyri.memory import Fitting
from gyri.models.learning_task import LearningTask
from gyri.seeds import generator
from gyri.transforms.normalization import Normalization

if TYPE_CHECKING:
    import torch
    from torch import nn

    Opened = tuple["Compute", dict[str, Any], torch.device | None, nn.Module | None]

AXES = {"x": 2, "y": 3, "z": 4}
Compute = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Model:
    """One trained network or fitted baseline.

    Args:
        card: model.json.
        compute: normalized images (B, C, X, Y, Z) to probabilities or values.
        normalization: of its fold.
        facts: device and precision, for provenance.
        device: where it computes; None for a baseline.
        network: in evaluation mode, on the device; None for a baseline.
    """

    def __init__(
        self,
        card: dict[str, Any],
        compute: Compute,
        normalization: Normalization,
        facts: dict[str, Any],
        device: torch.device | None = None,
        network: nn.Module | None = None,
    ):
        self.card, self.compute, self.normalization, self.facts = card, compute, normalization, facts
        self.device, self.network = device, network

    @property
    def task(self) -> LearningTask:
        """The sizes it was built for."""
        return learning_task(self.card)

    @property
    def target(self) -> Target:
        """What it predicts."""
        return Target(self.card["task"], self.card["target"], self.card["names"], self.card["label_values"])

    def probabilities(self, images: NDArray[Any], mirror: Sequence[str] = ()) -> NDArray[np.float32]:
        """Predict a batch.

        Args:
            images: (B, C, X, Y, Z) preprocessed as the training images were, not normalized.
            mirror: axes (x, y, z); the results over all their combinations are averaged.

        Returns:
            float32: probabilities (B, K) or (B, K, X, Y, Z), or values (B, 1) in the unit of the target.
        """
        normalized = self.normalization.apply(np.asarray(images, np.float32))
        combinations: list[tuple[int, ...]] = [()]
        for axis in mirror:
            combinations += [(*axes, AXES[axis]) for axes in combinations]
        total: NDArray[np.float32] | None = None
        for axes in combinations:
            found = self.compute(np.ascontiguousarray(np.flip(normalized, axes)))
            found = np.flip(found, axes) if found.ndim == 5 else found
            total = found if total is None else total + found
        assert total is not None
        mean, deviation = self.card["target_scale"]
        result = total / np.float32(len(combinations))
        return np.ascontiguousarray(
            result * np.float32(deviation) + np.float32(mean) if self.target.task == "regression" else result
        )


def load_model(folder: Path, threads: int) -> Model:
    """Open a trained model.

    Args:
        folder: holds model.json and weights.safetensors.
        threads: of the processor.

    Raises:
        DataError: files that cannot be read, or that do not fit each other or this version.
    """
    card = read_json(folder / "model.json")
    path = folder / "weights.safetensors"
    try:
        tensors = read_tensors(path)
        task = learning_task(card)
        normalization = Normalization(card["normalization"], _part("normalization", tensors))
        opened = _open_network if card["trained"] else _open_baseline
        compute, facts, device, network = opened(card, task, _part("network", tensors), threads)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        got = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(Problem(str(path), got, "weights that fit model.json", "train the model again")) from error
    except Exception as error:  # safetensors raises a type of its own that is not exported by its stubs
        if type(error).__name__ != "SafetensorError":
            raise
        raise DataError(Problem(str(path), str(error), "a whole safetensors file", "train the model again")) from error
    return Model(card, compute, normalization, facts, device, network)


def learning_task(card: dict[str, Any]) -> LearningTask:
    """The sizes that model.json names."""
    return LearningTask(**{**card["learning_task"], "shape": tuple(card["learning_task"]["shape"])})


def check_fit(card: dict[str, Any], store: Store, layout: Layout, dataset: str, fold: int, path: Path) -> None:
    """Refuse a model that was trained on another store or another split than there is now.

    Args:
        card: model.json.
        store: the packed images of now.
        layout: the results folder.
        dataset: its name.
        fold: number of the fold.
        path: of model.json, for messages.

    Raises:
        DataError: with every difference.
    """
    remedy = "train the model again (snakemake does it for you)"
    problems = []
    for key, now in (("channels", store.channels), ("preprocess", store.manifest["settings"]), ("fold", fold)):
        if card[key] != now:
            problems.append(Problem(f"{path}: {key}", str(card[key])[:200], str(now)[:200], remedy))
    normalization = layout.fold(dataset, fold, "normalization.json")
    if normalization.is_file() and read_json(normalization) != card["normalization"]:
        got = "a model trained on other participants, or normalized otherwise"
        problems.append(Problem(str(path), got, f"the training participants of {normalization}", remedy))
    if problems:
        raise DataError(problems)


def _open_network(card: dict[str, Any], task: LearningTask, tensors: dict[str, NDArray[Any]], threads: int) -> Opened:
    device = prepare_torch(threads, card["deterministic"])
    precision = choose_precision("float32" if card["precision"] == "float32" else "auto", device)
    import torch

    from gyri.models.forward import forward

    network = builder(card["network"])(task, **card["arguments"])
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
    network = network.to(device).to(memory_format=torch.channels_last_3d if task.dimensions == 3 else torch.channels_last).eval()

    fitting = Fitting(f"prediction of {card['model']}")

    def compute(images: NDArray[np.float32]) -> NDArray[np.float32]:
        def part(start: int, stop: int) -> NDArray[np.float32]:
            with torch.inference_mode():
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    outputs = forward(network, torch.from_numpy(images[start:stop]).to(device), task)
                outputs = outputs.float() if task.task == "regression" else outputs.float().softmax(1)
            return np.asarray(outputs.cpu().numpy())

        parts = fitting(part, len(images), len(images))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return compute, {**describe(device), "precision": precision}, device, network


def _open_baseline(card: dict[str, Any], task: LearningTask, tensors: dict[str, NDArray[Any]], threads: int) -> Opened:
    check_threads(threads)
    baseline = builder(card["network"])(task, generator("unused: a loaded baseline draws nothing"), **card["arguments"])
    baseline.load(tensors)
    return lambda images: np.asarray(baseline.predict(images), np.float32), {"device": "cpu", "precision": "float32"}, None, None


def _part(prefix: str, found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) + 1 :]: value for name, value in found.items() if name.startswith(prefix + ".")}
