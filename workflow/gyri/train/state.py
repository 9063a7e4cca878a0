"""What changes while a network is trained, and how it goes into a checkpoint and comes back bit by bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gyri.train.checkpoint import State

Arrays = dict[str, NDArray[Any]]
BATCHES = ("micro_batch", "changed_batch", "out_of_memory")
KEPT = (*BATCHES, "devices")  # goes into a checkpoint as it is


@dataclass
class TrainingState:
    """Network, optimizer and counters.

    Args:
        network: on its device, in its memory format.
        optimizer: of its parameters.
        decay: per step, of the moving average of the weights; 0 for none.
        step: optimizer steps done.
        epoch: epochs done.
        batch: batches done of the present epoch.
        loss_sum: of these batches, on the device.
        history: one dictionary per epoch.
        best: weights of the best epoch so far; empty before the first.
        best_epoch: its number, from 1; 0 before the first.
        micro_batch: images that are taken at once; None for the whole batch.
        changed_batch: whether that made another training of it than the whole batch would have been.
        out_of_memory: the steps at which it was halved, with what was left.
        devices: the kinds of device it was trained on so far, in order.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    decay: float = 0.0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Arrays = field(default_factory=dict)
    best_epoch: int = 0
    micro_batch: int | None = None
    changed_batch: bool = False
    out_of_memory: list[dict[str, int]] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.network).requires_grad_(False) if self.decay else None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is an average."""
        return self.average or self.network

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights towards the present ones.

        The first steps use a smaller decay, (1 + t) / (10 + t), so that the random start is soon forgotten.
        Source: tf.train.ExponentialMovingAverage (num_updates); Polyak and Juditsky, SIAM J. Control Optim. 1992.
        """
        if self.average is None:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        present = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(present[name], 1 - decay)
            else:
                value.copy_(present[name])

    def capture(self) -> State:
        """Everything as arrays and JSON."""
        tensors = {**_prefixed("network", arrays(self.network)), **_prefixed("best", self.best)}
        if self.average is not None:
            tensors.update(_prefixed("average", arrays(self.average)))
        plain: list[list[Any]] = []
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{index}.{name}"] = to_array(value)
                else:
                    plain.append([index, name, value])
        tensors["loss_sum"] = to_array(self.loss_sum)
        facts = {
            "epoch": self.epoch,
            "batch": self.batch,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "optimizer": plain,
            **{name: getattr(self, name) for name in KEPT},
        }
        return State(self.step, tensors, facts)

    def restore(self, saved: State) -> None:
        """Take everything back from a checkpoint, in place, so that devices and memory formats stay."""
        load(self.network, _part("network", saved.tensors))
        if self.average is not None:
            load(self.average, _part("average", saved.tensors))
        self.best = _part("best", saved.tensors)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        found: dict[int, dict[str, Any]] = {}
        for name, value in _part("optimizer", saved.tensors).items():
            index, _, key = name.partition(".")
            tensor, like = torch.from_numpy(np.array(value)), parameters[int(index)]
            if tensor.shape == like.shape:
                # moments lie in memory as their weights do, else fused optimizers would take another path
                tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
            found.setdefault(int(index), {})[key] = tensor
        for index, name, value in saved.facts["optimizer"]:
            found.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": found, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.loss_sum.copy_(torch.from_numpy(np.array(saved.tensors["loss_sum"])))
        self.step, self.epoch, self.batch = saved.step, saved.facts["epoch"], saved.facts["batch"]
        self.history, self.best_epoch = list(saved.facts["history"]), saved.facts["best_epoch"]
        for name in KEPT:
            setattr(self, name, saved.facts[name])


def arrays(network: nn.Module) -> Arrays:
    """Weights and buffers of a network as arrays of its own names, copied to the host."""
    return {name: to_array(value) for name, value in network.state_dict().items()}


def load(network: nn.Module, found: Arrays) -> None:
    """Put arrays back into a network."""
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in found.items()})


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy of a tensor as a contiguous array on the host."""
    return np.array(tensor.detach().cpu().numpy(), order="C", copy=True)


def _prefixed(prefix: str, found: Arrays) -> Arrays:
    return {f"{prefix}.{name}": value for name, value in found.items()}


def _part(prefix: str, found: Arrays) -> Arrays:
    return {name[len(prefix) + 1 :]: value for name, value in found.items() if name.startswith(prefix + ".")}
