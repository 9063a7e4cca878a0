"""What every baseline of the catalogue must do, and the linear ones against scikit-learn on the voxels themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gyri.catalogue import builder, catalogue
from gyri.errors import ConfigError
from gyri.io import read_tensors, write_tensors
from gyri.models import linear_images
from gyri.models.baseline import Baseline, ImageRows, Targets
from gyri.models.learning_task import LearningTask

SHAPES = [(7, 6, 5), (9, 8, 1)]
CHANNELS = 2
OUTPUTS = {"classification": 3, "segmentation": 4, "regression": 1}
BASELINES = [(name, task) for name, entry in catalogue().items() if not entry.trained for task in entry.tasks]
CASES = [(name, task, shape) for (name, task), shape in product(BASELINES, SHAPES)]
contract = pytest.mark.parametrize(("name", "task", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))


@dataclass
class Rows:
    """Images of one role, in memory; counts what is read."""

    images: NDArray[np.float32]
    targets: Targets
    reads: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        self.reads += 1
        return self.images[index]


def rows(task: str, shape: tuple[int, int, int], count: int, seed: int, classes: int | None = None) -> Rows:
    """Random images with targets that hang together with them linearly."""
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((count, CHANNELS, *shape)).astype(np.float32)
    if task == "segmentation":
        labels = (images[:, 0] > 0.2).astype(np.uint8) + 2 * (np.arange(shape[0]) > shape[0] // 2).astype(np.uint8)[:, None, None]
        return Rows(images, lambda index: labels[index])
    direction = np.random.default_rng(99).standard_normal(images[0].size)
    score = images.reshape(count, -1) @ direction / np.sqrt(direction.size)
    if task == "regression":
        return Rows(images, 50 + 10 * score)
    return Rows(images, np.digitize(score, np.linspace(-0.5, 0.5, (classes or 3) - 1)))


def make(name: str, task: str, shape: tuple[int, int, int], seed: int = 0) -> Baseline:
    return builder(name)(LearningTask(task, CHANNELS, shape, OUTPUTS[task]), np.random.default_rng(seed))


def fitted(name: str, task: str, shape: tuple[int, int, int]) -> tuple[Baseline, dict[str, Any]]:
    baseline = make(name, task, shape)
    return baseline, baseline.fit(rows(task, shape, 30, 1), rows(task, shape, 12, 2))


def test_every_task_has_a_trivial_and_a_linear_baseline() -> None:
    for task, trivial in (("classification", "majority"), ("segmentation", "majority"), ("regression", "mean")):
        assert {(trivial, task), ("linear", task)} <= set(BASELINES)


@contract
def test_predictions_have_the_shape_of_the_task(name: str, task: str, shape: tuple[int, int, int]) -> None:
    baseline, _ = fitted(name, task, shape)
    for count in (1, 5):
        found = baseline.predict(rows(task, shape, count, 3).images)
        place = shape if task == "segmentation" else ()
        assert found.shape == (count, OUTPUTS[task], *place)
        assert found.dtype == np.float32 and np.isfinite(found).all()
        if task != "regression":
            assert found.min() >= 0
            np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@contract
def test_saved_and_loaded_it_predicts_the_same(name: str, task: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    baseline, _ = fitted(name, task, shape)
    write_tensors(tmp_path / "weights.safetensors", baseline.state())
    loaded = make(name, task, shape, seed=5)
    loaded.load(read_tensors(tmp_path / "weights.safetensors"))
    images = rows(task, shape, 4, 3).images
    np.testing.assert_array_equal(loaded.predict(images), baseline.predict(images))


@contract
def test_the_same_data_and_generator_give_the_same_state(name: str, task: str, shape: tuple[int, int, int]) -> None:
    first, second = fitted(name, task, shape)[0].state(), fitted(name, task, shape)[0].state()
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


@contract
def test_a_prediction_does_not_depend_on_its_batch(name: str, task: str, shape: tuple[int, int, int]) -> None:
    baseline, _ = fitted(name, task, shape)
    images = rows(task, shape, 4, 3).images
    alone = np.concatenate([baseline.predict(images[[index]]) for index in range(4)])
    np.testing.assert_allclose(baseline.predict(images), alone, rtol=1e-4, atol=1e-5)


@contract
def test_what_was_chosen_can_be_written_as_json(name: str, task: str, shape: tuple[int, int, int]) -> None:
    import json

    chosen = fitted(name, task, shape)[1]
    assert json.loads(json.dumps(chosen)) == chosen and chosen["images"] == 30


@pytest.mark.parametrize(("name", "task"), [case for case in BASELINES if case[0] != "linear"])
def test_trivial_baselines_do_not_look_at_validation(name: str, task: str) -> None:
    train, validation = rows(task, (5, 4, 3), 20, 1), rows(task, (5, 4, 3), 12, 2)
    make(name, task, (5, 4, 3)).fit(train, Rows(validation.images, lambda index: pytest.fail("validation was read")))
    assert validation.reads == 0


@pytest.mark.parametrize(("name", "task"), BASELINES)
def test_the_linear_baseline_beats_the_trivial_one(name: str, task: str) -> None:
    shape = (5, 4, 3)
    trivial = "mean" if task == "regression" else "majority"
    test = rows(task, shape, 60, 3)
    errors = {}
    for which in (trivial, "linear"):
        baseline = make(which, task, shape)
        baseline.fit(rows(task, shape, 200, 1), rows(task, shape, 60, 2))
        found = baseline.predict(test.images)
        if task == "regression":
            errors[which] = float(np.abs(found[:, 0] - test.targets).mean())
        else:
            truth = np.stack([test.targets(index) for index in range(60)]) if callable(test.targets) else test.targets
            errors[which] = float((found.argmax(1) != truth).mean())
    assert errors["linear"] < 0.8 * errors[trivial]


def test_no_baseline_imports_torch() -> None:
    code = """
import sys
import numpy as np
from test_baselines import BASELINES, fitted
for name, task in BASELINES:
    fitted(name, task, (4, 4, 4))
sys.exit("torch" in sys.modules)
"""
    tests = Path(__file__).resolve().parent
    path = f"{tests}:{tests.parent / 'workflow'}"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0


def test_majority_is_the_frequencies() -> None:
    shape = (3, 3, 3)
    train = Rows(np.zeros((5, CHANNELS, *shape), np.float32), np.array([0, 2, 2, 0, 2]))
    baseline = make("majority", "classification", shape)
    baseline.fit(train, train)
    np.testing.assert_allclose(baseline.predict(train.images[:1]), [[0.4, 0, 0.6]], atol=1e-7)
    labels = np.random.default_rng(0).integers(0, 4, (5, *shape))
    segmentation = make("majority", "segmentation", shape)
    segmentation.fit(Rows(train.images, lambda index: labels[index]), train)
    expected = np.stack([(labels == label).mean(0) for label in range(4)])
    np.testing.assert_allclose(segmentation.predict(train.images[:1])[0], expected, atol=1e-7)


def test_mean_is_the_mean() -> None:
    train = rows("regression", (3, 3, 3), 9, 0)
    baseline = make("mean", "regression", (3, 3, 3))
    baseline.fit(train, train)
    assert float(baseline.predict(train.images[:1])[0, 0]) == pytest.approx(float(np.mean(train.targets)), rel=1e-6)


@pytest.fixture
def one_strength(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Fix the strength of the regularization."""
    return lambda strength: monkeypatch.setattr(linear_images, "STRENGTHS", (strength,))


def centred(train: ImageRows, images: NDArray[Any]) -> NDArray[np.float64]:
    """Images as the linear baseline defines its regularization: centred, mean squared length 1."""
    stack = np.stack([train[index].ravel() for index in range(len(train))]).astype(np.float64)
    mean = stack.mean(0)
    return (images.reshape(len(images), -1) - mean) / np.sqrt(np.square(stack - mean).sum(1).mean())


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e2])
def test_ridge_is_scikit_learns_on_all_voxels(strength: float, one_strength: Callable[[float], None]) -> None:
    from sklearn.linear_model import Ridge

    one_strength(strength)
    train, test = rows("regression", (7, 6, 5), 25, 1), rows("regression", (7, 6, 5), 9, 3)
    baseline = make("linear", "regression", (7, 6, 5))
    baseline.fit(train, test)
    oracle = Ridge(alpha=1 / strength).fit(centred(train, train.images), train.targets)
    np.testing.assert_allclose(baseline.predict(test.images)[:, 0], oracle.predict(centred(train, test.images)), rtol=1e-4)


@pytest.mark.parametrize("strength", [1e-1, 1.0, 1e2])
@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_is_scikit_learns_on_all_voxels(strength: float, classes: int, one_strength: Callable[[float], None]) -> None:
    from sklearn.linear_model import LogisticRegression

    one_strength(strength)
    train, test = (rows("classification", (7, 6, 5), count, seed, classes) for count, seed in ((25, 1), (9, 3)))
    baseline = builder("linear")(LearningTask("classification", CHANNELS, (7, 6, 5), classes), np.random.default_rng(0))
    baseline.fit(train, test)
    oracle = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(centred(train, train.images), train.targets)
    expected = oracle.predict_proba(centred(train, test.images))
    np.testing.assert_allclose(baseline.predict(test.images), expected, atol=5e-4)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_blocks_do_not_change_the_result(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = (rows(task, (7, 6, 5), count, seed) for count, seed in ((23, 1), (10, 2), (5, 3)))
    found = []
    for size in (2**28, 4 * train[0].size * 7):
        monkeypatch.setattr(linear_images, "BLOCK_BYTES", size)
        baseline = make("linear", task, (7, 6, 5))
        baseline.fit(train, validation)
        found.append(baseline.predict(test.images))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_validation_images_choose_the_regularization() -> None:
    """Where the validation targets are noise the strongest regularization is best; where they follow the images a weaker one."""
    train, validation = rows("regression", (7, 6, 5), 60, 1), rows("regression", (7, 6, 5), 60, 2)
    chosen = {}
    for name, targets in (("true", validation.targets), ("noise", np.random.default_rng(0).permutation(validation.targets))):
        chosen[name] = make("linear", "regression", (7, 6, 5)).fit(train, Rows(validation.images, targets))["strength"]
    assert chosen["noise"] < chosen["true"]


def test_a_class_absent_from_training_gets_probability_zero() -> None:
    train = rows("classification", (4, 4, 3), 20, 1, classes=2)
    baseline = make("linear", "classification", (4, 4, 3))
    baseline.fit(train, Rows(train.images, np.full(20, 2)))
    found = baseline.predict(train.images)
    assert np.array_equal(found[:, 2], np.zeros(20)) and found[:, :2].min() > 0


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_equal_images_and_one_class_do_not_break_it(task: str) -> None:
    images = np.ones((6, CHANNELS, 3, 3, 3), np.float32)
    for targets in (np.zeros(6, np.int64), np.array([0, 1, 1, 1, 0, 1])):
        baseline = make("linear", task, (3, 3, 3))
        baseline.fit(Rows(images, targets), Rows(images, targets))
        expected = targets.mean() if task == "regression" else (targets == 1).mean()
        assert float(baseline.predict(images)[0, 0 if task == "regression" else 1]) == pytest.approx(expected, abs=1e-6)


def test_sampled_voxels_give_the_probabilities_of_all_of_them() -> None:
    """A rare label is drawn as often as a common one; the weights undo that."""
    shape, generator = (20, 20, 10), np.random.default_rng(0)
    images = np.zeros((6, CHANNELS, *shape), np.float32)
    labels = (generator.random((6, *shape)) < 0.05).astype(np.uint8)
    baseline = builder("linear")(LearningTask("segmentation", CHANNELS, shape, 2), generator, samples=4000)
    train = Rows(images, lambda index: labels[index])
    facts = baseline.fit(train, train)
    assert facts["voxels"] <= 4000
    assert float(baseline.predict(images[:1])[:, 1].mean()) == pytest.approx(0.05, abs=0.01)


def test_a_wrong_number_of_samples_is_told() -> None:
    with pytest.raises(ConfigError, match="samples"):
        builder("linear")(LearningTask("segmentation", 1, (4, 4, 4), 2), np.random.default_rng(0), samples=0)


@pytest.mark.real_data
def test_hippocampus_in_a_few_seconds(hippocampus: Path) -> None:
    """The linear baseline finds the hippocampus by place and intensity, to about 0.7 Dice."""
    import nibabel as nib

    images, labels = [], []
    for path in sorted((hippocampus / "labelsTr").glob("hippocampus_0*.nii.gz"))[:24]:
        volume = np.asarray(nib.load(hippocampus / "imagesTr" / path.name).dataobj, np.float32)[:32, :48, :28]
        images.append(((volume - volume.mean()) / volume.std())[None])
        labels.append(np.asarray(nib.load(path).dataobj).astype(np.uint8)[:32, :48, :28])
    smallest = tuple(int(edge) for edge in np.min([image.shape[1:] for image in images], axis=0))
    cut = (..., *(slice(edge) for edge in smallest))
    stack, truth = np.stack([image[cut] for image in images]), np.stack([label[cut] for label in labels])
    scores = {}
    for name in ("majority", "linear"):
        task = LearningTask("segmentation", 1, smallest, 3)  # type: ignore[arg-type]
        baseline = builder(name)(task, np.random.default_rng(0))
        baseline.fit(Rows(stack[:14], lambda index: truth[index]), Rows(stack[14:18], lambda index: truth[14 + index]))
        found, expected = baseline.predict(stack[18:]).argmax(1) > 0, truth[18:] > 0
        scores[name] = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert scores["linear"] > max(0.5, scores["majority"])
