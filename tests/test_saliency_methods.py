"""Every saliency method against what is known of a hand-made network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gyri.explain.maps import explained_class
from gyri.explain.methods import class_activation, evidence, gradient, last_features, occlusion
from gyri.models.conv5_fc3 import conv5_fc3
from gyri.models.learning_task import LearningTask

CLASSES = LearningTask("classification", 2, (4, 5, 6), 3)
PLANE = LearningTask("regression", 1, (8, 9, 1), 1)
BOX = (slice(4, 8), slice(0, 4), slice(8, 12))


class Reads(nn.Module):
    """The mean over one box of the image, as the evidence for class 1."""

    def forward(self, images: Tensor) -> Tensor:
        seen = images[(slice(None), 0, *BOX)].mean((1, 2, 3))
        return torch.stack([-seen, seen], 1)


class Maps(nn.Module):
    """A convolution of one voxel, a rectifier and a mean: the maps that speak for class 1 are known."""

    def __init__(self, dimensions: int = 3):
        super().__init__()
        self.convolution = (nn.Conv3d if dimensions == 3 else nn.Conv2d)(1, 2, 1)
        self.rectifier = nn.ReLU(inplace=True)
        self.last = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([1.0, -1.0]).reshape(self.convolution.weight.shape))
            self.convolution.bias.zero_()
            self.last.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -2.0]]))

    def forward(self, images: Tensor) -> Tensor:
        features = self.rectifier(self.convolution(images))
        return self.last(features.flatten(2).mean(2))


def smooth_network(task: LearningTask) -> nn.Module:
    """Without rectifiers, so that it has a slope everywhere."""
    torch.manual_seed(3)
    convolution = (nn.Conv3d if task.dimensions == 3 else nn.Conv2d)(task.in_channels, 4, 3, padding=1)
    size = 4 * int(np.prod(task.shape))
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(size, task.n_outputs)).double().eval()


@pytest.mark.parametrize("task", [CLASSES, PLANE])
def test_gradient_is_the_finite_difference(task: LearningTask) -> None:
    network, images = smooth_network(task), torch.randn(2, task.in_channels, *task.shape, dtype=torch.float64)
    targets = torch.tensor([2, 0]) if task.task == "classification" else torch.zeros(2, dtype=torch.long)
    found = gradient(network, images, targets, task)
    assert found.shape == (2, *task.shape)
    step, outside = 1e-5, task.shape[2] - 1
    for voxel in [(0, 0, 0), (3, 4, outside), (2, 1, min(3, outside))]:
        slopes = []
        for channel in range(task.in_channels):
            moved = []
            for sign in (1, -1):
                other = images.clone()
                other[(slice(None), channel, *voxel)] += sign * step
                outputs = network(other if task.dimensions == 3 else other[..., 0])
                moved.append(evidence(outputs, targets, task))
            slopes.append((moved[0] - moved[1]) / (2 * step))
        assert torch.allclose(found[(slice(None), *voxel)], torch.stack(slopes).abs().amax(0), rtol=1e-6)


def test_evidence_is_the_logit_against_the_others() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]), torch.tensor([2, 1])
    assert evidence(outputs, targets, CLASSES).tolist() == [4.5, 3.0]
    assert torch.allclose(evidence(outputs + 7, targets, CLASSES), evidence(outputs, targets, CLASSES))
    assert evidence(outputs[:, :1], targets, PLANE).tolist() == [1.0, 0.0]
    two = LearningTask("classification", 1, (4, 4, 4), 2)
    assert explained_class(two, np.array([0, 1])).tolist() == [1, 1]
    assert explained_class(CLASSES, np.array([0, 2])).tolist() == [0, 2]


def test_smoothed_gradients_average_noisy_copies() -> None:
    network, images = smooth_network(CLASSES), torch.randn(1, 2, *CLASSES.shape, dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.long)
    plain = gradient(network, images, one, CLASSES)
    assert torch.allclose(gradient(network, images, one, CLASSES, samples=3, noise=0.0), plain)
    noisy = gradient(network, images, one, CLASSES, samples=3, noise=0.2, seed=5)
    assert not torch.allclose(noisy, plain)
    assert torch.equal(noisy, gradient(network, images, one, CLASSES, samples=3, noise=0.2, seed=5))


def test_occlusion_finds_the_only_box_that_is_read() -> None:
    task = LearningTask("classification", 1, (12, 12, 12), 2)
    images, target = torch.full((1, 1, 12, 12, 12), 5.0), torch.ones(1, dtype=torch.long)
    found = occlusion(Reads().eval(), images, target, task, (4, 4, 4), (4, 4, 4), [1.0])[0]
    expected = torch.zeros(12, 12, 12)
    expected[BOX] = 2 * (5.0 - 1.0)  # the logit falls by 4, that of the other class rises by 4
    assert torch.allclose(found, expected)
    # boxes that overlap: each voxel has the mean over those that cover it, and the last box ends with the image
    finer = occlusion(Reads().eval(), images, target, task, (4, 4, 4), (3, 3, 3), [1.0])[0]
    assert torch.isfinite(finer).all() and finer[11, 11, 11] == 0
    assert finer[5, 1, 10] == pytest.approx(6) and not finer[:3].any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_class_activation_is_the_closed_form(dimensions: int) -> None:
    shape = (6, 5, 4) if dimensions == 3 else (6, 5, 1)
    task = LearningTask("classification", 1, shape, 2)
    images = torch.randn(1, 1, *shape)
    voxels = images.numel()
    weights = torch.tensor([3.0, -2.0]) / voxels  # slope of the evidence at every voxel of each map
    expected = (weights[0] * images.relu() + weights[1] * (-images).relu())[:, 0]
    found = class_activation(Maps(dimensions).eval(), images, torch.ones(1, dtype=torch.long), task)
    assert found.shape == (1, *shape)
    assert torch.allclose(found, expected.relu(), atol=1e-7)
    # a regression has no class: the same maps keep their sign
    signed = LearningTask("regression", 1, shape, 1)
    network = Maps(dimensions).eval()
    network.last.weight = nn.Parameter(torch.tensor([[3.0, -2.0]]))
    assert torch.allclose(class_activation(network, images, torch.zeros(1, dtype=torch.long), signed), expected, atol=1e-7)


def test_class_activation_takes_the_last_maps_that_are_fine_enough() -> None:
    task = LearningTask("classification", 1, (32, 40, 32), 2)
    network = conv5_fc3(task, width=1).eval()
    name, features, _ = last_features(network, torch.randn(1, 1, 32, 40, 32).requires_grad_(), task)
    assert name == "blocks.3.normalization" and features.shape[2:] == (4, 5, 4)
    assert (features >= 0).all(), "the rectifier works in place, so that the maps are rectified"
    small = LearningTask("classification", 1, (8, 8, 8), 2)
    deepest = last_features(conv5_fc3(small, width=1).eval(), torch.randn(1, 1, 8, 8, 8).requires_grad_(), small)
    assert deepest[0] == "blocks.1.normalization" and deepest[1].shape[2:] == (4, 4, 4)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(512, 2))
    with pytest.raises(ValueError, match="without convolutions"):
        class_activation(flat, torch.randn(1, 1, 8, 8, 8), torch.ones(1, dtype=torch.long), small)


class Detector(nn.Module):
    """A network that was taught nothing but one place: a convolution, then weights that are large in one corner."""

    def __init__(self, corner: float):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)
        self.last = nn.Linear(2 * 8**3, 2)
        mask = torch.zeros(2, 8, 8, 8)
        mask[:, :4, :4, :4] = corner
        with torch.no_grad():
            self.convolution.weight.abs_()
            self.last.weight[1] = mask.flatten()
            self.last.weight[0] = 0
            self.last.weight += 1e-4 * torch.randn(self.last.weight.shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.convolution(images).relu().flatten(1))


@pytest.mark.parametrize("method", ["gradient", "occlusion", "class_activation"])
def test_maps_concentrate_on_a_planted_signal(method: str) -> None:
    task = LearningTask("classification", 1, (8, 8, 8), 2)
    images, target = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.1, torch.ones(1, dtype=torch.long)
    images[:, :, :4, :4, :4] += 2
    network = Detector(1.0).eval()
    if method == "occlusion":
        found = occlusion(network, images, target, task, (4, 4, 4), (4, 4, 4), [0.0])
    else:
        found = {"gradient": gradient, "class_activation": class_activation}[method](network, images, target, task)
    strength = np.abs(found[0].detach().numpy())
    inside = strength[:4, :4, :4].sum() / strength.sum()
    assert inside > 0.6 > 3 * 4**3 / 8**3, f"{inside:.2f} of the map, where an eighth of the voxels lies"
