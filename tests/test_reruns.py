"""What runs again after a change, and what does not: read from jobs that really ran."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny import CONFIG, jobs_of, make_project, run_snakemake, write_case, write_config, write_index

pytestmark = pytest.mark.workflow

MODELS = ("linear", "majority", "unet")
RESULTS = {"evaluate_experiment", "report_experiment", "report_index"}


def per_fold(rule: str, folds: tuple[int, ...], models: tuple[str, ...] = MODELS) -> set[str]:
    """Names of the jobs of a rule with a model and a fold."""
    return {f"{rule} {model} {fold}" for model in models for fold in folds}


def models_of(folds: tuple[int, ...], models: tuple[str, ...] = MODELS) -> set[str]:
    """Training and prediction of some models on some folds."""
    return per_fold("train_model", folds, models) | per_fold("predict_fold", folds, models)


def normalizations(*folds: int) -> set[str]:
    return {f"normalize_fold {fold}" for fold in folds}


EVERYTHING = (
    {"read_dataset", "audit_dataset", "split_dataset", "preprocess_images"} | normalizations(0, 1) | models_of((0, 1)) | RESULTS
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished project and a backup of it."""
    base = tmp_path_factory.mktemp("reruns")
    project = make_project(base / "project")
    assert set(jobs_of(run_snakemake(project))) == EVERYTHING
    shutil.copytree(project, base / "backup", symlinks=True)
    return base


@pytest.fixture
def project(finished: Path) -> Path:
    """The finished project as it was, in the same place: the paths of the data are part of its settings."""
    shutil.rmtree(finished / "project")
    return Path(shutil.copytree(finished / "backup", finished / "project", symlinks=True))


def set_value(path: str, value: Any) -> Callable[[Path], None]:
    """A change of one value of the configuration."""

    def change(project: Path) -> None:
        config = copy.deepcopy(CONFIG)
        place: Any = config
        *parents, last = path.split(".")
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
        write_config(project, config)

    return change


def append(module: str, text: str) -> Callable[[Path], None]:
    """A change of one file of the package (made anew if it is not there)."""

    def change(project: Path) -> None:
        with (project / "workflow" / "gyri" / module).open("a") as file:
            file.write(text)

    return change


def replace(module: str, old: str, new: str) -> Callable[[Path], None]:
    """A change inside one file of the package."""

    def change(project: Path) -> None:
        file = project / "workflow" / "gyri" / module
        text = file.read_text()
        assert old in text, f"{module} does not hold {old!r}"
        file.write_text(text.replace(old, new, 1))

    return change


def alter_image(project: Path) -> None:
    write_case(project / "data", 3, seed=1)


def add_image(project: Path) -> None:
    write_case(project / "data", 13)
    write_index(project / "data")


def other_site(project: Path) -> None:
    """A change of what jobs ask of a cluster."""
    (project / "site.yaml").write_text("partition: other\ntime: 2.0\nmemory: 2.0\ngpu: {pack: 2, unseen: warn}\n")


NEW_FUNCTION = "\n\ndef added() -> int:\n    return 1\n"
NEW_NETWORK = '"""Another network."""\n\nENTRIES = {"another": ("segmentation",)}\n'
UNET_ONLY = models_of((0, 1), ("unet",)) | RESULTS
TABLE = {
    "the bytes of one image": (alter_image, EVERYTHING),
    "one more image": (add_image, EVERYTHING),
    "one setting of one model": (set_value("experiments.blobs.architectures.unet.training", {"epochs": 1}), UNET_ONLY),
    "a comment": (append("train/loop.py", "\n# a comment\n"), set()),
    "a docstring": (replace("tables.py", '"""Tables: ', '"""Changed: '), set()),
    "a module that only evaluate imports": (append("statistics.py", NEW_FUNCTION), RESULTS),
    "a function of the training loop": (
        append("train/loop.py", NEW_FUNCTION),
        models_of((0, 1)) | RESULTS,
    ),
    "an architecture file edited": (append("models/unet.py", NEW_FUNCTION), UNET_ONLY),
    "an architecture file added": (append("models/another.py", NEW_NETWORK), set()),
    "run_folds widened": (
        set_value("datasets.tiny.run_folds", [0, 1, 2]),
        normalizations(2) | models_of((2,)) | RESULTS,
    ),
    "folds changed": (
        set_value("datasets.tiny.folds", 4),
        {"split_dataset"} | normalizations(0, 1) | models_of((0, 1)) | RESULTS,
    ),
    "another site": (other_site, set()),
    "versions: warn": (set_value("versions", "warn"), set()),
    "nothing": (lambda project: None, set()),
}


@pytest.mark.parametrize(("change", "expected"), TABLE.values(), ids=TABLE.keys())
def test_what_runs_after_a_change(project: Path, change: Callable[[Path], None], expected: set[str]) -> None:
    change(project)
    ran = jobs_of(run_snakemake(project))
    assert ran == Counter(expected)
    assert not jobs_of(run_snakemake(project)), "a second call has nothing to do"
