"""What every network of the catalogue must do; a network in a new file is tested without a word here."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from gyri.catalogue import builder, catalogue, loss
from gyri.config.load import load_config
from gyri.errors import ConfigError
from gyri.io import read_tensors, write_tensors
from gyri.models.forward import settle_precision
from gyri.models.layers import InstanceNorm, pad_at_end
from gyri.models.learning_task import LearningTask
from gyri.models.unet import halvings
from gyri.settings import LOSSES

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SHAPES = [(17, 20, 13), (19, 14, 1)]  # nothing is divisible by a power of 2
OUTPUTS = {"classification": 3, "segmentation": 4, "regression": 1}
NETWORKS = [(name, task) for name, entry in catalogue().items() if entry.trained for task in entry.tasks]
CASES = [(name, task, shape) for (name, task), shape in product(NETWORKS, SHAPES)]
contract = pytest.mark.parametrize(("name", "task", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))


@pytest.fixture(autouse=True)
def deterministic():
    """As in training: an operation that is not deterministic is an error."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make(name: str, task: str, shape: tuple[int, int, int], channels: int = 2, seed: int = 0) -> nn.Module:
    """A network with its default arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(name)(LearningTask(task, channels, shape, OUTPUTS[task]))


def images(shape: tuple[int, int, int], count: int = 2, channels: int = 2, seed: int = 0) -> torch.Tensor:
    """Random images: (B, C, X, Y, Z), or (B, C, X, Y) for planes."""
    values = torch.randn(count, channels, *shape, generator=torch.Generator().manual_seed(seed))
    return values[..., 0] if shape[2] == 1 else values


def expected_shape(task: str, shape: tuple[int, int, int], count: int) -> tuple[int, ...]:
    place = (shape if shape[2] > 1 else shape[:2]) if task == "segmentation" else ()
    return (count, OUTPUTS[task], *place)


def truth(task: str, batch: torch.Tensor) -> torch.Tensor:
    """Targets that can be learned from the images."""
    if task == "segmentation":
        return (batch[:, 0] > 0).long() + 2 * (batch[:, 1] > 0).long()
    if task == "classification":
        return torch.arange(len(batch)) % 3
    return torch.linspace(-1.5, 1.5, len(batch))[:, None]


def test_there_are_networks_for_every_task() -> None:
    assert {task for _, task in NETWORKS} == set(OUTPUTS)


@contract
def test_output_has_the_shape_of_the_task(name: str, task: str, shape: tuple[int, int, int]) -> None:
    network = make(name, task, shape)
    for training, count in product((True, False), (1, 3)):
        outputs = network.train(training)(images(shape, count))
        assert outputs.shape == expected_shape(task, shape, count)
        assert outputs.dtype == torch.float32 and bool(outputs.isfinite().all())


@contract
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("half", [False, True])
def test_gradient_reaches_every_parameter(name: str, task: str, shape: tuple[int, int, int], device: str, half: bool) -> None:
    network = make(name, task, shape).to(device)
    batch = images(shape, 4)
    sizes = LearningTask(task, 2, shape, OUTPUTS[task])
    if half and settle_precision("auto", torch.device(device), network, sizes) == "float32":
        pytest.skip("never trained in bfloat16 here")
    with torch.autocast(device, torch.bfloat16, enabled=half):
        outputs = network(batch.to(device))
    loss(LOSSES[task])(outputs, truth(task, batch).to(device)).mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
        assert half or bool((parameter.grad != 0).any()), key


@contract
def test_weights_follow_from_the_seed(name: str, task: str, shape: tuple[int, int, int]) -> None:
    first, again, other = (make(name, task, shape, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@contract
def test_a_step_repeats_to_the_last_bit(name: str, task: str, shape: tuple[int, int, int]) -> None:
    batch = images(shape, 4)
    gradients = []
    for _ in range(2):
        network = make(name, task, shape)
        torch.manual_seed(0)
        loss(LOSSES[task])(network(batch), truth(task, batch)).mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@contract
def test_saved_and_loaded_it_predicts_the_same(name: str, task: str, shape: tuple[int, int, int], tmp_path) -> None:
    network = make(name, task, shape)
    network.train()(images(shape, 4, seed=1))  # running means are part of the state
    write_tensors(tmp_path / "weights.safetensors", {key: value.numpy() for key, value in network.state_dict().items()})
    loaded = make(name, task, shape, seed=9)
    found = read_tensors(tmp_path / "weights.safetensors")
    loaded.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in found.items()})
    with torch.no_grad():
        assert torch.equal(network.eval()(images(shape)), loaded.eval()(images(shape)))


@contract
def test_a_prediction_does_not_depend_on_its_batch(name: str, task: str, shape: tuple[int, int, int]) -> None:
    network = make(name, task, shape).eval()
    batch = images(shape, 3)
    with torch.no_grad():
        alone = torch.cat([network(batch[[index]]) for index in range(3)])
        torch.testing.assert_close(network(batch), alone, rtol=1e-3, atol=1e-3)


@contract
def test_the_memory_layout_changes_only_rounding(name: str, task: str, shape: tuple[int, int, int]) -> None:
    network, batch = make(name, task, shape).eval(), images(shape)
    layout = torch.channels_last_3d if shape[2] > 1 else torch.channels_last
    with torch.no_grad():
        plain = network(batch)
        turned = network.to(memory_format=layout)(batch.contiguous(memory_format=layout))
    torch.testing.assert_close(plain, turned, rtol=1e-3, atol=1e-3)


@contract
def test_it_learns_eight_images_by_heart(name: str, task: str, shape: tuple[int, int, int]) -> None:
    network, batch = make(name, task, shape).train(), images(shape, 8)
    targets = truth(task, batch)
    torch.manual_seed(0)
    steps = torch.optim.AdamW(network.parameters(), lr=3e-3)
    values = []
    for _ in range(40):
        value = loss(LOSSES[task])(network(batch), targets).mean()
        steps.zero_grad()
        value.backward()
        steps.step()
        values.append(float(value.detach()))
    assert np.mean(values[-3:]) < 0.35 * values[0], values


@pytest.mark.parametrize(("name", "task"), NETWORKS)
@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 2, 1), (5, 40, 3), (24, 32, 24), (33, 5, 1)], ids=str)
def test_small_and_flat_shapes(name: str, task: str, shape: tuple[int, int, int]) -> None:
    network = make(name, task, shape)
    outputs = network.train()(images(shape, 1))
    assert outputs.shape == expected_shape(task, shape, 1)
    outputs.sum().backward()
    with torch.no_grad():
        assert bool(network.eval()(images(shape, 1)).isfinite().all())


@pytest.mark.parametrize(("name", "task"), NETWORKS)
def test_every_argument_has_a_default_and_wrong_ones_are_told_all_at_once(name: str, task: str) -> None:
    arguments = catalogue()[name].arguments
    assert arguments
    with pytest.raises(ConfigError) as caught:
        builder(name)(LearningTask(task, 1, (8, 8, 8), OUTPUTS[task]), **dict.fromkeys(arguments, "wrong"))
    told = [problem.where for problem in caught.value.problems]
    assert len(told) == len(arguments) and all(any(argument in where for where in told) for argument in arguments)


@pytest.mark.parametrize("kind", ["instance", "group", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unet_with_every_normalization(kind: str, shape: tuple[int, int, int]) -> None:
    network = builder("unet")(LearningTask("segmentation", 2, shape, 4), normalization=kind, width=6, levels=2)
    network(images(shape)).square().mean().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in network.parameters())


def test_unet_refuses_more_levels_than_the_shape_allows() -> None:
    with pytest.raises(ConfigError, match="at most 3"):
        builder("unet")(LearningTask("segmentation", 1, (16, 9, 7), 2), levels=4)
    builder("unet")(LearningTask("segmentation", 1, (16, 9, 7), 2), levels=3)


@pytest.mark.parametrize(
    ("shape", "levels", "expected"),
    [
        ((40, 56, 40), 4, [(2, 2, 2)] * 3),
        ((64, 64, 6), 4, [(2, 2, 1)] * 3),
        ((64, 64, 12), 4, [(2, 2, 2), (2, 2, 1), (2, 2, 1)]),
        ((7, 7), 4, []),
        ((9, 9), 4, [(2, 2)]),
        ((40, 56, 40), 1, []),
    ],
)
def test_axes_are_halved_while_voxels_are_left(shape: tuple[int, ...], levels: int, expected: list[tuple[int, ...]]) -> None:
    assert halvings(shape, levels) == expected


@pytest.mark.parametrize("shape", [(3, 4, 5, 6, 7), (2, 4, 5, 6)])
def test_instance_norm_is_torchs(shape: tuple[int, ...]) -> None:
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer = InstanceNorm(shape[1])
    torch.testing.assert_close(layer(batch), nn.functional.instance_norm(batch))


def test_padding_is_at_the_end_and_only_where_needed() -> None:
    batch = torch.randn(2, 1, 5, 8, 3)
    padded = pad_at_end(batch, [4, 4, 2])
    assert padded.shape == (2, 1, 8, 8, 4)
    assert torch.equal(padded[:, :, :5, :8, :3], batch) and float(padded.sum() - batch.sum()) == pytest.approx(0, abs=1e-4)
    assert pad_at_end(batch, [5, 2, 1]) is batch


def test_conv5_fc3_sees_every_border_voxel() -> None:
    """With pooling that rounds down, the last planes of an odd axis would have no influence."""
    shape = (9, 11, 7)
    network = make("conv5_fc3", "classification", shape, channels=1).eval()
    batch = images(shape, 1, 1).requires_grad_()
    influence = torch.zeros_like(batch)
    for seed in range(4):
        values = images(shape, 1, 1, seed).requires_grad_()
        network(values).square().sum().backward()
        influence += values.grad.abs()
    assert all(float(influence.amax((0, 1)).select(axis, -1).max()) > 0 for axis in range(3))
    assert batch.grad is None


def test_conv5_fc3_trains_on_one_image_of_one_voxel() -> None:
    network = make("conv5_fc3", "regression", (1, 1, 1)).train()
    network(images((1, 1, 1), 1)).sum().backward()


def test_an_unknown_argument_is_refused_with_the_nearest_right_one(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    text = """
datasets: {brains: {format: synthetic, participants: 20}}
experiments:
  tissue: {dataset: brains, task: segmentation, architectures: {unet: {arguments: {widht: 8}}, linear: {arguments: {samples: 500}}}}
"""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    assert problem.where.endswith("architectures.unet.arguments.widht") and "`width`" in problem.remedy
