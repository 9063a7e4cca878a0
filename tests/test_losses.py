"""Losses against torch's and MONAI's own; optimizers; what the catalogue promises of both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gyri.catalogue import catalogue, find_entries, loss, losses, optimizer, optimizers

SHAPES = [(3, 4, 5, 6, 7), (2, 3, 8, 9), (4, 2, 6, 5, 4)]


def example(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (B, K, ...) and integer targets (B, ...)."""
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(shape, generator=generator)
    return outputs, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def task_example(task: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets of a task."""
    if task == "regression":
        outputs = torch.randn(5, 1, generator=torch.Generator().manual_seed(seed))
        return outputs, outputs.flip(0) + 1
    return example((5, 3) if task == "classification" else (3, 3, 6, 5, 4), seed)


@pytest.mark.parametrize("shape", [(6, 3), *SHAPES])
def test_cross_entropy_is_torchs(shape: tuple[int, ...]) -> None:
    outputs, targets = example(shape)
    expected = torch.nn.functional.cross_entropy(outputs, targets, reduction="none").reshape(shape[0], -1).mean(1)
    torch.testing.assert_close(loss("cross_entropy")(outputs, targets), expected)


@pytest.mark.parametrize("shape", [(6, 3), *SHAPES])
def test_class_weights_weigh_the_true_class(shape: tuple[int, ...]) -> None:
    outputs, targets = example(shape)
    weights = torch.linspace(0.5, 2, shape[1])
    expected = torch.nn.functional.cross_entropy(outputs, targets, weights, reduction="none").reshape(shape[0], -1).mean(1)
    torch.testing.assert_close(loss("cross_entropy")(outputs, targets, weights), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_dice_cross_entropy_is_monais(shape: tuple[int, ...]) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    outputs, targets = example(shape)
    oracle = monai_losses.DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
    found = loss("dice_cross_entropy")(outputs, targets)
    torch.testing.assert_close(found.mean(), oracle(outputs, targets[:, None]))
    alone = torch.stack([oracle(outputs[[index]], targets[[index], None]) for index in range(shape[0])])
    torch.testing.assert_close(found, alone)


def test_mean_squared_error_is_torchs() -> None:
    outputs, targets = task_example("regression")
    expected = torch.nn.functional.mse_loss(outputs, targets)
    torch.testing.assert_close(loss("mean_squared_error")(outputs, targets).mean(), expected)
    torch.testing.assert_close(loss("mean_squared_error")(outputs, targets[:, 0]).mean(), expected)


def test_mean_squared_error_refuses_what_would_broadcast() -> None:
    with pytest.raises(ValueError, match="shape"):
        loss("mean_squared_error")(torch.zeros(4, 1), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="class weights"):
        loss("mean_squared_error")(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(2))


CASES = [(name, task) for name, entry in losses().items() for task in entry.tasks]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_loss_gives_one_value_per_image_whatever_the_batch(name: str, task: str) -> None:
    outputs, targets = task_example(task)
    found = loss(name)(outputs, targets)
    assert found.shape == (len(outputs),)
    alone = torch.cat([loss(name)(outputs[[index]], targets[[index]]) for index in range(len(outputs))])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_loss_is_float32_and_keeps_its_gradient_with_bfloat16_outputs(name: str, task: str) -> None:
    outputs, targets = task_example(task)
    half = outputs.bfloat16().requires_grad_()
    found = loss(name)(half, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(name)(half.detach().float(), targets))
    found.mean().backward()
    assert half.grad is not None and bool(half.grad.isfinite().all()) and bool((half.grad != 0).any())


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_loss_is_smallest_for_the_truth(name: str, task: str) -> None:
    outputs, targets = task_example(task)
    perfect = targets if task == "regression" else 30 * torch.nn.functional.one_hot(targets, 3).movedim(-1, 1).float()
    assert bool((loss(name)(perfect, targets) < 1e-3).all())
    assert bool((loss(name)(outputs, targets) > 1e-3).any())


@pytest.mark.parametrize(("name", "task"), CASES)
def test_gradients_are_those_of_finite_differences(name: str, task: str) -> None:
    """Losses compute in float32, so the step is wide and the tolerance loose."""
    outputs, targets = task_example(task)
    start = outputs.clone().requires_grad_()
    loss(name)(start, targets).sum().backward()
    direction = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3))
    step = 1e-2
    up, down = (loss(name)(outputs + sign * step * direction, targets).sum() for sign in (1, -1))
    assert float(((up - down) / (2 * step)).detach()) == pytest.approx(float((start.grad * direction).sum()), rel=2e-2, abs=1e-3)


def test_a_missing_structure_gives_finite_loss_and_gradient() -> None:
    outputs, targets = example((2, 3, 6, 6, 6))
    outputs.requires_grad_()
    found = loss("dice_cross_entropy")(outputs, torch.zeros_like(targets))
    found.sum().backward()
    assert bool(found.isfinite().all()) and bool(outputs.grad.isfinite().all())


@pytest.mark.parametrize("name", list(optimizers()))
def test_every_optimizer_descends_and_decays_weights_only(name: str) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    made = optimizer(name)(network.parameters(), learning_rate=1e-2, weight_decay=0.1)
    decays = {id(parameter): group["weight_decay"] for group in made.param_groups for parameter in group["params"]}
    assert [decays[id(parameter)] for parameter in network.parameters()] == [0.1, 0, 0, 0, 0.1, 0]
    inputs, wanted = torch.randn(32, 3), torch.randn(32, 1)
    values = []
    for _ in range(60):
        found = torch.nn.functional.mse_loss(network(inputs), wanted)
        made.zero_grad()
        found.backward()
        made.step()
        values.append(float(found.detach()))
    assert values[-1] < 0.9 * values[0]


def test_adamw_is_the_plain_one_of_torch() -> None:
    found = {}
    for kind in ("gyri", "torch"):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        made = (
            optimizer("adamw")([weight], 1e-2, 0.3)
            if kind == "gyri"
            else torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.3, foreach=False)
        )
        for _ in range(5):
            made.zero_grad()
            weight.square().sum().backward()
            made.step()
        found[kind] = weight.detach()
    torch.testing.assert_close(found["gyri"], found["torch"])


def test_finding_imports_nothing() -> None:
    code = "import sys; from gyri.catalogue import *; catalogue(); losses(); optimizers(); sys.exit('torch' in sys.modules)"
    workflow = Path(__file__).resolve().parents[1] / "workflow"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(workflow)}, check=False).returncode == 0


def test_unknown_names_are_key_errors() -> None:
    for find in (loss, optimizer):
        with pytest.raises(KeyError):
            find("no_such_thing")


def test_the_same_name_in_two_files_is_refused(tmp_path: Path) -> None:
    for file in ("one", "two"):
        (tmp_path / f"{file}.py").write_text('ENTRIES = {"same": ("segmentation",)}\n')
    with pytest.raises(ValueError, match="declares same"):
        find_entries(tmp_path, "anything")


def test_a_file_is_read_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text('ENTRIES = {"new": ("regression",)}\nTRAINED = False\nraise SystemExit("was run")\n')
    entry = find_entries(tmp_path, "package")["new"]
    assert (entry.module, entry.tasks, entry.trained) == ("package.new", ("regression",), False)


def test_names_are_those_of_the_settings() -> None:
    from gyri.settings import LOSSES

    for task, name in LOSSES.items():
        assert task in losses()[name].tasks
    assert set(np.concatenate([entry.tasks for entry in catalogue().values()])) <= set(LOSSES)
