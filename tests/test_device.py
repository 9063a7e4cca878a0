"""Devices and precision: wrong gradients are avoided, and the ones avoided are really wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from gyri.device import check_threads, choose_precision
from gyri.errors import ConfigError
from gyri.models.forward import settle_precision
from gyri.models.learning_task import LearningTask

CPU = torch.device("cpu")
native = pytest.mark.skipif(choose_precision("auto", CPU) == "float32", reason="this processor does not compute in bfloat16")


def relative_error(shape: tuple[int, int, int], kernel: int) -> float:
    """Largest error of the weight gradient in bfloat16, relative to the largest gradient."""
    torch.manual_seed(0)
    convolution = nn.Conv3d(16, 32, kernel, padding=kernel // 2)
    images = torch.randn(4, 16, *shape)
    exact = convolution(images)
    direction = torch.randn_like(exact)
    exact.backward(direction)
    assert convolution.weight.grad is not None
    right = convolution.weight.grad.clone()
    convolution.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = convolution(images)
    rounded.float().backward(direction)
    return float((convolution.weight.grad - right).abs().max() / right.abs().max())


@native
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (4, 5, 4), (8, 10, 8), (16, 2, 2)])
def test_gradients_that_are_used_are_right(shape: tuple[int, int, int]) -> None:
    assert relative_error(shape, 3) < 0.05


@native
def test_gradients_that_are_avoided_are_wrong() -> None:
    """If this fails after an update of torch, the detour in settle_precision can go."""
    assert not relative_error((2, 2, 2), 3) < 0.05


@native
@pytest.mark.parametrize(("edge", "expected"), [(16, "bfloat16"), (8, "float32")])
def test_thin_maps_are_computed_in_float32(edge: int, expected: str) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d(4), nn.Conv3d(2, 2, 3, padding=1))
    task = LearningTask("segmentation", 1, (edge, edge, edge), 2)
    assert settle_precision("auto", CPU, network, task) == expected
    assert settle_precision("float32", CPU, network, task) == "float32"
    if expected == "float32":
        with pytest.raises(ConfigError, match="gradients that are right"):
            settle_precision("bfloat16", CPU, network, task)


@pytest.mark.parametrize("deterministic", ["strict", "fast"])
def test_strict_refuses_what_is_not_deterministic(deterministic: Literal["strict", "fast"]) -> None:
    code = (
        "import sys, torch; from gyri.device import prepare_torch; prepare_torch(1, sys.argv[1])\n"
        "print(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "workflow")}
    done = subprocess.run([sys.executable, "-c", code, deterministic], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(deterministic == "strict"), "False"]


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower `threads`"):
        check_threads(100_000)
