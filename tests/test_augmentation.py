"""Augmentation: against SciPy, and by its properties."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from gyri.config.training import Augmentation
from gyri.transforms.augmentation import Draws, apply, coordinates, draw

SHAPE = (3, 2, 14, 11, 9)
OFF = {
    "rotation_deg": 0.0,
    "scale": 0.0,
    "translation": 0.0,
    "elastic": 0.0,
    "mirror": [],
    "gamma": 0.0,
    "intensity_scale": 0.0,
    "intensity_shift": 0.0,
    "noise": 0.0,
}
STRONG = {
    "rotation_deg": 30.0,
    "scale": 0.3,
    "translation": 0.2,
    "elastic": 0.05,
    "mirror": ["x", "y", "z"],
    "gamma": 0.5,
    "intensity_scale": 0.4,
    "intensity_shift": 0.4,
    "noise": 0.3,
}
PLACE = ("rotation_deg", "scale", "translation", "elastic", "mirror")


def only(*names: str, probability: float = 1.0) -> Augmentation:
    """Settings with some kinds of change on, strongly."""
    return Augmentation(probability=probability, **{**OFF, **{name: STRONG[name] for name in names}})


def batch(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random images and label maps (a cut through them)."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = gaussian_filter(noise, (0, 0, 1.5, 1.5, 1.5 if shape[4] > 1 else 0))
    images = torch.from_numpy((smooth / smooth.std()).astype(np.float32))
    return images, (images[:, 0] > 0.3).long()


def generator(seed: int = 0) -> torch.Generator:
    """A generator of torch on the processor."""
    return torch.Generator().manual_seed(seed)


def voxels_of(draws: Draws, shape: tuple[int, int, int]) -> np.ndarray:
    """The map of coordinates in voxels, (B, 3, X, Y, Z), as SciPy wants it."""
    grid = coordinates(draws, shape, torch.device("cpu")).numpy()[..., ::-1]
    half = np.array([max(edge - 1, 1) / 2 for edge in shape])
    return np.moveaxis(grid * half + (np.array(shape) - 1) / 2, -1, 1)


def test_nothing_changes_when_all_is_off() -> None:
    images, labels = batch()
    found, moved = apply(images, labels, draw(only(), images.shape, generator()))
    assert torch.equal(found, images)
    assert moved is not None and torch.equal(moved, labels)


def test_nothing_changes_with_probability_zero() -> None:
    images, labels = batch()
    found, moved = apply(images, labels, draw(only(*STRONG, probability=0.0), images.shape, generator()))
    torch.testing.assert_close(found, images)
    assert moved is not None and torch.equal(moved, labels)


def test_identity_map_through_the_interpolation() -> None:
    images, labels = batch()
    draws = draw(only("rotation_deg"), images.shape, generator())
    still = dataclasses.replace(draws, matrix=torch.eye(3).repeat(3, 1, 1), shift=torch.zeros(3, 3))
    found, moved = apply(images, labels, still)
    torch.testing.assert_close(found, images, rtol=1e-4, atol=1e-4)
    assert moved is not None and torch.equal(moved, labels)


@pytest.mark.parametrize("seed", range(3))
def test_affine_is_scipys(seed: int) -> None:
    images, labels = batch(seed=seed)
    draws = draw(only("rotation_deg", "scale", "translation", "mirror"), images.shape, generator(seed))
    found, moved = apply(images, labels, draws)
    assert draws.matrix is not None and draws.shift is not None and moved is not None
    centre = (np.array(SHAPE[2:]) - 1) / 2
    for index in range(SHAPE[0]):
        matrix, shift = draws.matrix[index].double().numpy(), draws.shift[index].double().numpy()
        offset = centre - matrix @ centre + shift
        for channel in range(SHAPE[1]):
            expected = affine_transform(images[index, channel].double().numpy(), matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(found[index, channel], expected, atol=2e-4)
        nearest = affine_transform(labels[index].numpy(), matrix, offset, order=0, mode="nearest")
        assert (moved[index].numpy() == nearest).mean() > 0.99  # halves may be rounded the other way


def test_elastic_is_scipys() -> None:
    images, _ = batch()
    draws = draw(only("elastic", "rotation_deg"), images.shape, generator(4))
    found, _ = apply(images, None, draws)
    places = voxels_of(draws, SHAPE[2:])  # type: ignore[arg-type]
    for index in range(SHAPE[0]):
        expected = map_coordinates(images[index, 0].double().numpy(), places[index], order=1, mode="nearest")
        np.testing.assert_allclose(found[index, 0], expected, atol=2e-4)


def test_elastic_displacement_has_the_deviation_of_the_setting_everywhere_and_is_smooth() -> None:
    settings = only("elastic")
    shape = (1500, 1, 12, 8, 10)
    places = voxels_of(draw(settings, shape, generator()), shape[2:])  # type: ignore[arg-type]
    still = np.stack(np.meshgrid(*[np.arange(edge) for edge in shape[2:]], indexing="ij"))
    displacement = places - still
    expected = settings.elastic * np.array(shape[2:])
    for axis in range(3):
        np.testing.assert_allclose(displacement[:, axis].std(0), expected[axis], rtol=0.12)
        assert np.abs(np.diff(displacement[:, axis], axis=1)).mean() < 0.5 * expected[axis]


@pytest.mark.parametrize("names", [PLACE, ("elastic",), ("mirror",), ("rotation_deg",)])
def test_images_and_labels_move_together(names: tuple[str, ...]) -> None:
    """The label map, moved as an image and cut at one half, is the moved label map but for voxels on the edge."""
    _, labels = batch((4, 1, 20, 18, 16))
    draws = draw(only(*names), (4, 1, 20, 18, 16), generator(1))
    as_image, moved = apply(labels[:, None].float(), labels, draws)
    assert moved is not None and not torch.equal(moved, labels)
    inside = (as_image[:, 0] < 0.01) | (as_image[:, 0] > 0.99)
    assert inside.float().mean() > 0.4
    assert torch.equal(moved[inside], as_image[:, 0][inside].round().long())
    agree = ((as_image[:, 0] > 0.5).long() == moved).float().mean()
    assert agree > 0.95


def test_mirror_is_exact_and_an_involution() -> None:
    images, labels = batch()
    settings = only("mirror").model_copy(update={"mirror": ["x"]})
    draws = draw(settings, images.shape, generator())
    once, moved = apply(images, labels, draws)
    torch.testing.assert_close(once, images.flip(2), rtol=1e-4, atol=1e-4)
    assert moved is not None and torch.equal(moved, labels.flip(1))
    twice, back = apply(once, moved, draws)
    torch.testing.assert_close(twice, images, rtol=1e-4, atol=1e-4)
    assert back is not None and torch.equal(back, labels)


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    images, labels = batch()
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(results))  # the global generator has no part in it
        found, moved = apply(images, labels, draw(only(*STRONG), images.shape, generator(seed)))
        assert moved is not None
        results.append((found, moved))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


def test_draws_can_be_applied_again_and_leave_the_input_alone() -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    draws = draw(only(*STRONG), images.shape, generator())
    first, second = apply(images, labels, draws), apply(images, labels, draws)
    assert torch.equal(first[0], second[0])
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])


@pytest.mark.parametrize("name", list(STRONG))
def test_a_kind_switched_off_leaves_the_draws_of_the_others(name: str) -> None:
    everything = draw(only(*STRONG), SHAPE, generator(2))
    fewer = draw(only(*(other for other in STRONG if other != name)), SHAPE, generator(2))
    assert everything.noise_seed == fewer.noise_seed
    for field in ("elastic", "gamma", "scale", "offset", "noise"):
        one, other = getattr(everything, field), getattr(fewer, field)
        assert one is None or other is None or torch.equal(one, other)


def test_each_kind_has_the_chance_of_the_setting() -> None:
    count = 4000
    settings = only(*STRONG, probability=0.3)
    draws = draw(settings, (count, 2, 8, 8, 8), generator())
    changed = {
        "shift": (draws.shift != 0).any(1),  # type: ignore[union-attr]
        "elastic": (draws.elastic != 0).flatten(1).any(1),  # type: ignore[union-attr]
        "gamma": (draws.gamma != 1).all(1),  # type: ignore[union-attr]
        "scale": (draws.scale != 1).all(1),  # type: ignore[union-attr]
        "offset": (draws.offset != 0).all(1),  # type: ignore[union-attr]
        "noise": (draws.noise != 0).all(1),  # type: ignore[union-attr]
        "mirror": torch.linalg.det(draws.matrix) < 0,
    }
    for name, flags in changed.items():
        chance = 0.3 if name != "mirror" else 3 * 0.3 * 0.7**2 + 0.3**3  # one or three axes of three
        assert abs(float(flags.float().mean()) - chance) < 0.03, name


def test_draws_stay_inside_the_settings() -> None:
    settings = only(*STRONG)
    edges = torch.tensor([8.0, 10.0, 12.0])
    draws = draw(settings, (500, 1, 8, 10, 12), generator())
    assert draws.matrix is not None and draws.shift is not None and draws.gamma is not None and draws.noise is not None
    sizes = torch.linalg.det(draws.matrix).abs() ** (-1 / 3)
    assert 0.7 - 1e-4 <= float(sizes.min()) < 0.75 and 1.25 < float(sizes.max()) <= 1.3 + 1e-4
    assert bool((draws.shift.abs() <= 0.2 * edges + 1e-5).all())
    assert float(draws.gamma.log().abs().max()) <= 0.5 + 1e-6
    assert float(draws.noise.min()) >= 0 and float(draws.noise.max()) <= 0.3
    turns = draw(only("rotation_deg"), (500, 1, 8, 8, 8), generator()).matrix
    assert turns is not None
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand(500, 3, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("names", [tuple(STRONG), PLACE, ("elastic",), ("mirror", "noise")])
def test_planes_stay_planes(names: tuple[str, ...]) -> None:
    shape = (4, 2, 17, 13, 1)
    images, labels = batch(shape)
    draws = draw(only(*names), shape, generator())
    found, moved = apply(images, labels, draws)
    assert found.shape == images.shape and moved is not None and moved.shape == labels.shape
    assert bool(found.isfinite().all())
    if draws.matrix is not None:
        assert torch.equal(draws.matrix[:, 2, :2], torch.zeros(4, 2)) and torch.equal(draws.matrix[:, :2, 2], torch.zeros(4, 2))


def test_a_plane_moves_as_a_volume_of_equal_planes() -> None:
    images, _ = batch((2, 1, 17, 13, 1))
    draws = draw(only("rotation_deg", "translation"), images.shape, generator(3))
    plane, _ = apply(images, None, draws)
    volume, _ = apply(images.repeat(1, 1, 1, 1, 5), None, draws)
    torch.testing.assert_close(volume[..., 2:3], plane, atol=1e-4, rtol=1e-4)


def test_intensity_is_what_the_draws_say() -> None:
    images, labels = batch()
    draws = draw(only("intensity_scale", "intensity_shift"), images.shape, generator())
    found, moved = apply(images, labels, draws)
    assert moved is labels and draws.scale is not None and draws.offset is not None
    mean, deviation = images.mean((2, 3, 4)), images.std((2, 3, 4), correction=0)
    torch.testing.assert_close(found.std((2, 3, 4), correction=0), deviation * draws.scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean((2, 3, 4)), mean + draws.offset * deviation, rtol=1e-4, atol=1e-5)


def test_noise_has_the_deviation_drawn() -> None:
    images, _ = batch((2, 1, 24, 24, 24))
    draws = draw(only("noise"), images.shape, generator())
    found, _ = apply(images, None, draws)
    assert draws.noise is not None
    torch.testing.assert_close((found - images).std((2, 3, 4)), draws.noise * images.std((2, 3, 4)), rtol=0.05, atol=1e-3)


def test_gamma_keeps_order_and_range_and_constant_images() -> None:
    images, _ = batch()
    images[1] = 2.5
    draws = draw(only("gamma"), images.shape, generator())
    found, _ = apply(images, None, draws)
    torch.testing.assert_close(found.amin((2, 3, 4)), images.amin((2, 3, 4)))
    torch.testing.assert_close(found.amax((2, 3, 4)), images.amax((2, 3, 4)))
    assert torch.equal(found[1], images[1])
    order = images[0, 0].flatten().argsort()
    assert bool((found[0, 0].flatten()[order].diff() >= -1e-5).all())


def test_labels_keep_type_and_gain_no_values() -> None:
    images, _ = batch()
    labels = torch.tensor([0, 7, 65000])[torch.randint(3, (3, 14, 11, 9), generator=generator())].to(torch.int32)
    _, moved = apply(images, labels, draw(only(*PLACE), images.shape, generator()))
    assert moved is not None and moved.dtype == labels.dtype and set(moved.unique().tolist()) <= {0, 7, 65000}


def test_no_operation_is_refused_as_nondeterministic() -> None:
    images, labels = batch()
    torch.use_deterministic_algorithms(True)
    try:
        apply(images, labels, draw(only(*STRONG), images.shape, generator()))
    finally:
        torch.use_deterministic_algorithms(False)
