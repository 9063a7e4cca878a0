"""Batches that do not fit into memory: the same step again in parts, the same update where that can be, and a mark where it cannot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from gyri.errors import DataError
from gyri.inference import load_model
from gyri.io import read_json, read_tensors
from gyri.layout import Layout
from gyri.losses.dice_cross_entropy import dice_cross_entropy
from gyri.losses.mean_squared_error import mean_squared_error
from gyri.memory import Fitting
from gyri.models import forward
from gyri.models.learning_task import LearningTask
from gyri.models.unet import unet
from gyri.predict import run as predict
from gyri.tables import read_table
from gyri.train import curves, parts
from gyri.train.parts import separable
from packed import make_dataset, predict_settings, train_settings
from test_train import hashes, interrupt_after, train

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated memory is large try setting something"
TASK = LearningTask("segmentation", 1, (8, 8, 8), 3)
UNETS = {"instance": True, "group": True, "batch": False}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_dataset(tmp_path)


def fits_only(monkeypatch: pytest.MonkeyPatch, module: Any, most: int) -> list[int]:
    """Let a forward pass run out of memory beyond so many images, if gradients are kept (that is what takes the memory).

    Returns:
        The numbers of images that were tried, in order.
    """
    original, tried = module.forward, []

    def forward(network: nn.Module, images: Tensor, task: LearningTask) -> Tensor:
        if module is not parts or torch.is_grad_enabled():
            tried.append(len(images))
            if len(images) > most:
                original(network, images[:1], task)  # it had begun: running statistics have moved
                raise torch.OutOfMemoryError(FULL)
        return original(network, images, task)

    monkeypatch.setattr(module, "forward", forward)
    return tried


def weights(layout: Layout) -> dict[str, Any]:
    return read_tensors(layout.run("exp", "net", 0, 0, "weights.safetensors"))


@pytest.mark.parametrize(("kind", "allowed"), UNETS.items())
def test_gradients_in_parts_are_those_of_the_whole_batch_where_that_can_be(kind: str, allowed: bool) -> None:
    torch.manual_seed(0)
    network, images = unet(TASK, width=8, levels=2, normalization=kind), torch.randn(5, 1, 8, 8, 8)
    targets = torch.randint(0, 3, (5, 8, 8, 8))

    def gradient(sizes: list[int]) -> Tensor:
        network.zero_grad()
        for part, truth in zip(images.split(sizes), targets.split(sizes), strict=True):
            (dice_cross_entropy(network(part), truth).mean() * (len(part) / 5)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])

    whole, split = gradient([5]), gradient([2, 2, 1])
    error = float((whole - split).abs().max() / whole.abs().max())
    assert error < 1e-5 if allowed else error > 1e-2
    assert separable(network, dice_cross_entropy, TASK, images[:2], targets[:2]) is allowed


class Centred(nn.Module):
    """Takes the mean of the batch away: statistics over the batch without any layer that would tell."""

    def forward(self, images: Tensor) -> Tensor:
        return images - images.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("layer", "allowed"),
    [
        (nn.Identity(), True),
        (nn.GroupNorm(1, 2), True),
        (nn.InstanceNorm3d(2), True),
        (nn.InstanceNorm3d(2, track_running_stats=True), False),
        (nn.BatchNorm3d(2), False),
        (nn.BatchNorm3d(2, track_running_stats=False), False),
        (nn.Dropout(0.1), False),
        (nn.RReLU(), False),
        (Centred(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_network_does_is_tried_out_not_read_off(layer: nn.Module, allowed: bool) -> None:
    torch.manual_seed(0)
    task = LearningTask("regression", 1, (4, 4, 4), 1)
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), layer, nn.Flatten(), nn.Linear(128, 1)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(2, 1, 4, 4, 4)
    assert separable(network, mean_squared_error, task, images, torch.randn(2, 1)) is allowed
    assert not network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_loss_over_the_batch_is_not_separable() -> None:
    task = LearningTask("regression", 1, (4, 4, 4), 1)
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), torch.randn(2, 1, 4, 4, 4)

    def of_all(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def ranked(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - outputs.mean() - targets).square().flatten()

    for criterion, allowed in ((mean_squared_error, True), (of_all, False), (ranked, False)):
        assert separable(network, criterion, task, images, torch.randn(2, 1)) is allowed


def test_out_of_memory_the_step_is_done_again_in_parts(layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    settings = train_settings(epochs=3)
    whole = train(layout, settings, "whole")
    expected, before = weights(layout), read_json(layout.run("exp", "net", 0, 0, "model.json"))
    assert whole["micro_batch"] is None and whole["out_of_memory"] == [] and before["changed_batch"] is False
    tried = fits_only(monkeypatch, parts, 2)
    facts = train(layout, settings, "parts")
    assert tried == [4] + [2, 2] * 6  # once too many, then what fits for the rest
    assert facts["micro_batch"] == 2 and facts["out_of_memory"] == [{"step": 1, "micro_batch": 2}]
    card = read_json(layout.run("exp", "net", 0, 0, "model.json"))
    assert card["changed_batch"] is False and card["micro_batch"] == 2
    for name, value in weights(layout).items():
        assert np.abs(value - expected[name]).max() <= 1e-3 * max(np.abs(expected[name]).max(), 1e-3), name
    assert (
        "4 images do not fit into the memory of the device, 2 at once from now on (CUDA out of memory." in capsys.readouterr().err
    )


@pytest.mark.parametrize(("task", "network", "changed"), [("segmentation", "unet", False), ("classification", "conv5_fc3", True)])
def test_the_failed_attempt_leaves_no_trace(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, task: str, network: str, changed: bool
) -> None:
    """After running out of memory: the same draws, the same running statistics, so the bytes of a training that was told before."""
    facts = train(layout, train_settings(task, network, epochs=3, micro_batch=2), "told")
    told = hashes(layout)
    assert facts["micro_batch"] == 2 and facts["changed_batch"] is changed
    fits_only(monkeypatch, parts, 3)
    facts = train(layout, train_settings(task, network, epochs=3), "found out")
    assert facts["out_of_memory"] == [{"step": 1, "micro_batch": 2}] and facts["changed_batch"] is changed
    assert hashes(layout) == told


def test_batches_that_cannot_be_halved_evenly_weigh_every_image_the_same(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    train(layout, train_settings(epochs=2, batch_size=7), "whole")
    expected = weights(layout)
    tried = fits_only(monkeypatch, parts, 3)
    train(layout, train_settings(epochs=2, batch_size=7), "parts")
    assert tried == [7, 3, 2, 2, 3, 2, 2]
    for name, value in weights(layout).items():
        assert np.abs(value - expected[name]).max() <= 1e-3 * max(np.abs(expected[name]).max(), 1e-3), name


def test_a_training_that_goes_on_remembers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = train_settings("classification", "conv5_fc3", epochs=3)
    tried = fits_only(monkeypatch, parts, 1)
    train(layout, settings, "undisturbed")
    expected = hashes(layout)
    tried.clear()
    interrupt_after(layout, settings, 3)
    assert tried == [4, 2] + [1] * 12
    tried.clear()
    facts = train(layout, settings)
    assert tried == [1] * 12 and hashes(layout) == expected
    assert facts["changed_batch"] and [item["micro_batch"] for item in facts["out_of_memory"]] == [2, 1]


def test_a_larger_micro_batch_than_the_batch_changes_no_byte(layout: Layout) -> None:
    train(layout, train_settings(), "none")
    expected = hashes(layout)
    facts = train(layout, train_settings(micro_batch=64), "large")
    assert hashes(layout) == expected and facts["micro_batch"] is None


def test_where_one_image_does_not_fit_the_message_names_what_to_lower(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    fits_only(monkeypatch, parts, 0)
    with pytest.raises(DataError) as caught:
        train(layout, train_settings())
    text = str(caught.value)
    assert "one image alone does not fit: CUDA out of memory. Tried to allocate 2.00 GiB." in text and "try setting" not in text
    assert "width" in text and "shape" in text and "exp/net, fold 0, seed 0, step 1" in text


def test_validation_takes_fewer_images_and_finds_the_same(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    train(layout, train_settings(epochs=2), "whole")
    expected = hashes(layout)
    tried = fits_only(monkeypatch, curves, 1)
    train(layout, train_settings(epochs=2), "parts")
    assert tried == [4, 2, 1, 1, 1, 1] * 2
    # the sum of the losses is added up in other portions: only its last digit may differ
    assert {name: value for name, value in hashes(layout).items() if name != "history.tsv"} == {
        name: value for name, value in expected.items() if name != "history.tsv"
    }


@pytest.mark.parametrize(("task", "network"), [("segmentation", "unet"), ("classification", "conv5_fc3")])
def test_prediction_takes_fewer_images_and_finds_the_same(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, task: str, network: str
) -> None:
    train(layout, train_settings(task, network, epochs=1))
    predict(predict_settings(network), layout, "tiny", "exp", "net", 0, 0)
    path = layout.run("exp", "net", 0, 0, "predictions.tsv")
    expected, columns = path.read_bytes(), read_table(path).get("probability_kind1", pd.Series()).tolist()
    tried = fits_only(monkeypatch, forward, 1)
    predict(predict_settings(network), layout, "tiny", "exp", "net", 0, 0)
    assert tried[:5] == [3, 1, 1, 1, 1] and max(tried[1:]) == 1
    if task == "segmentation":
        assert path.read_bytes() == expected
    else:  # a matrix product of one row is summed in another order
        assert read_table(path)["probability_kind1"].tolist() == pytest.approx(columns, rel=1e-5)
    fits_only(monkeypatch, forward, 0)
    with pytest.raises(DataError, match="prediction of net"):
        load_model(path.parent, 1).probabilities(np.zeros((1, 1, 8, 8, 8), np.float32))


def test_what_was_done_before_it_ran_out_is_kept() -> None:
    fitting, tried = Fitting("test"), []

    def function(start: int, stop: int) -> list[int]:
        tried.append((start, stop))
        if stop - start > 3 or (start >= 4 and stop - start > 1):
            raise torch.OutOfMemoryError(FULL)
        return list(range(start, stop))

    assert list(itertools.chain(*fitting(function, 9, 5))) == list(range(9))
    assert tried == [(0, 5), (0, 2), (2, 4), (4, 6), *((index, index + 1) for index in range(4, 9))]
    assert fitting.most == 1 and fitting(function, 2, 5) == [[0], [1]]
