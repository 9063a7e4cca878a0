"""What only a real GPU can show; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gyri.accelerator import measured
from gyri.config.training import TrainSettings
from gyri.errors import DataError
from gyri.layout import Layout
from gyri.losses.dice_cross_entropy import dice_cross_entropy
from gyri.models.learning_task import LearningTask
from gyri.models.unet import unet
from gyri.selftest import CASES, TOLERANCES, errors, self_test
from gyri.train.parts import separable
from packed import make_dataset, train_settings
from test_train import ENVIRONMENT, command, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no GPU")
CUDA = torch.device("cuda")
LIMIT = """
import sys, torch
torch.cuda.init()
torch.cuda.set_per_process_memory_fraction(float(sys.argv.pop(1)) / torch.cuda.get_device_properties(0).total_memory)
"""


def wide(**training: object) -> TrainSettings:
    """Large enough that a batch takes many times the memory of one image."""
    return train_settings(epochs=2, batch_size=8, **training).model_copy(update={"arguments": {"width": 256, "levels": 1}})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_dataset(tmp_path)


def test_this_card_passes_within_five_seconds_in_a_new_process() -> None:
    code = "import time, torch; from gyri.selftest import self_test; torch.cuda.init(); began = time.monotonic()\n"
    code += "self_test(torch.device('cuda')); print(time.monotonic() - began)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5


def test_tolerances_leave_room_for_this_card() -> None:
    self_test(CUDA)
    for precision, tolerance in TOLERANCES.items():
        assert max(error for number, case in enumerate(CASES) for error in errors(CUDA, precision, case, number)) < tolerance / 2


def test_what_is_used_is_measured() -> None:
    with measured(CUDA) as usage:
        began, values = time.monotonic(), torch.randn(4096, 4096, device=CUDA)
        while time.monotonic() - began < 3:
            values = torch.tanh(values @ values)
        torch.cuda.synchronize()
        found = usage()
    assert isinstance(found, dict), found
    assert found["utilisation_percent"] > 10 and found["energy_j"] > 50 and found["samples"] >= 3
    assert found["memory_peak_mb"] >= 64 and found["device_memory_peak_mb"] >= found["memory_peak_mb"]


@pytest.mark.parametrize(("kind", "allowed"), [("instance", True), ("batch", False)])
def test_what_a_network_does_on_this_card_is_tried_out(kind: str, allowed: bool) -> None:
    network = unet(LearningTask("segmentation", 1, (16, 16, 16), 3), width=8, normalization=kind).to(CUDA)
    images, targets = torch.randn(2, 1, 16, 16, 16, device=CUDA), torch.zeros(2, 16, 16, 16, dtype=torch.int64, device=CUDA)
    assert separable(network, dice_cross_entropy, LearningTask("segmentation", 1, (16, 16, 16), 3), images, targets) is allowed


def test_a_card_with_too_little_memory_is_enough_in_parts(layout: Layout) -> None:
    torch.cuda.reset_peak_memory_stats()
    train(layout, wide(), "whole")
    whole = torch.cuda.max_memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    train(layout, wide(micro_batch=1), "single")
    single = torch.cuda.max_memory_reserved()
    assert single < 0.7 * whole
    line = command(layout, wide(), "parts")
    line[2] = LIMIT + line[2]
    done = subprocess.run(
        [*line[:3], str((whole + single) / 2), *line[3:]], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "do not fit into the memory of the device" in done.stderr and "'changed_batch': False" in done.stdout
    done = subprocess.run(
        [*line[:3], str(2 << 20), *line[3:-1], "none"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert DataError.__name__ in done.stderr and "one image alone does not fit" in done.stderr
