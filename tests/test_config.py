"""The configuration is closed, typed, and says everything that is wrong at once."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gyri.config.load import BASELINES, load_config, parse_config
from gyri.config.schema import schema
from gyri.errors import ConfigError
from gyri.settings import LATER_STAGES, ensembles, models, predict_settings, read_settings, run_folds, train_settings

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT = REPOSITORY / "config.yaml"
SMALL: dict[str, Any] = {
    "datasets": {"brains": {"format": "synthetic", "folds": 3}},
    "experiments": {
        "tissue": {"dataset": "brains", "task": "segmentation", "architectures": {"unet": {}}},
        "age": {"dataset": "brains", "task": "regression", "target": "age", "architectures": {"conv5_fc3": {"seeds": 2}}},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one value set; None removes the key."""
    content = copy.deepcopy(SMALL)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_default_configuration_is_valid() -> None:
    config = load_config(DEFAULT)
    assert set(config.experiments) == {"tissue", "diagnosis", "age"}


def test_baselines_are_always_there() -> None:
    config = parse_config(SMALL, Path("c.yaml"))
    for name, experiment in config.experiments.items():
        assert set(BASELINES[experiment.task]) <= set(models(config, name))
    assert models(config, "age") == {"conv5_fc3": 2, "mean": 1, "linear": 1}


@pytest.mark.parametrize(
    ("path", "value", "key", "remedy"),
    [
        ("datasets.brains.participant", 3, "datasets.brains.participant", "did you mean `participants`"),
        ("datasets.brains.audit", {"on_exclud": "stop"}, "datasets.brains.audit.on_exclud", "did you mean `on_exclude`"),
        ("datasets.brains.folds", 1, "datasets.brains.folds", "change the value"),
        ("datasets.brains.folds", "three", "datasets.brains.folds", "change the value"),
        ("datasets.brains.format", "dicom", "datasets.brains", "change the value"),
        ("datasets.brains.run_folds", [7], "datasets.brains.run_folds", "raise `folds`"),
        ("datasets.brains.run_folds", [], "datasets.brains.run_folds", "remove the key"),
        ("experiments.tissue.dataset", "brain", "experiments.tissue.dataset", "did you mean `brains`"),
        ("experiments.tissue.task", "segment", "experiments.tissue.task", "change the value"),
        (
            "experiments.tissue.architectures",
            {"unett": {}},
            "experiments.tissue.architectures.unett.network",
            "did you mean `unet`",
        ),
        ("experiments.tissue.architectures", {"conv5_fc3": {}}, "architectures.conv5_fc3.network", "take another"),
        ("experiments.tissue.architectures", {"unet": {"training": {"epoch": 3}}}, "unet.training.epoch", "did you mean `epochs`"),
        ("experiments.tissue.architectures", {"unet": {"training": {"epochs": 0}}}, "unet.training.epochs", "change the value"),
        ("experiments.tissue.architectures", {"locked": {"network": "unet"}}, "architectures.locked", "rename"),
        ("experiments.age.target", "group", "experiments.age.target", "table_group"),
        ("experiments.age.target", None, "experiments.age.target", "add `target"),
        ("experiments.age.ensemble", {"models": ["unet"]}, "experiments.age.ensemble.models", "take one of"),
        ("experiments.datasets", SMALL["experiments"]["tissue"], "experiments.datasets", "rename"),
        ("experiments.age.classes", ["a", "b"], "experiments.age.classes", "remove the key"),
        ("datasets.brains.spacing_mm", -1, "datasets.brains.spacing_mm", "change the value"),
        ("experiment", {}, "experiment", "did you mean `experiments`"),
    ],
)
def test_bad_configuration_says_where_what_and_how(path: str, value: Any, key: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(path, value), Path("c.yaml"))
    text = str(caught.value)
    assert "c.yaml" in text and key in text
    assert remedy in text
    for problem in caught.value.problems:
        assert problem.got and problem.expected and problem.remedy


def test_all_problems_at_once() -> None:
    content = changed("datasets.brains.folds", 1)
    content["experiments"]["age"]["taget"] = "age"
    with pytest.raises(ConfigError) as caught:
        parse_config(content, Path("c.yaml"))
    assert len(caught.value.problems) == 2


def test_unset_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GYRI_NOWHERE", raising=False)
    with pytest.raises(ConfigError, match="GYRI_NOWHERE is not set") as caught:
        parse_config(changed("datasets.brains", {"format": "msd", "path": "${GYRI_NOWHERE}"}), Path("c.yaml"))
    assert "export GYRI_NOWHERE=" in caught.value.problems[0].remedy


def test_yaml_is_safe_and_strict(tmp_path: Path) -> None:
    for text in ("!!python/object/apply:os.system ['true']", "a: 1\na: 2", "a: [1"):
        file = tmp_path / "c.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            load_config(file)
    with pytest.raises(ConfigError, match="readable configuration file"):
        load_config(tmp_path / "none.yaml")


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    content = changed("experiments.age.training", {"learning_rate": 0.0})
    content["experiments"]["age"]["training"]["learning_rate"] = "PLACE"
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(content).replace("PLACE", "1e-3"))
    assert train_settings(load_config(file), "age", "conv5_fc3").training.learning_rate == 1e-3


def test_paths_start_at_the_configuration_file(tmp_path: Path) -> None:
    content = changed("datasets.brains", {"format": "msd", "path": "data", "split": {"file": "split.tsv"}})
    config = parse_config(content, tmp_path / "c.yaml")
    assert config.datasets["brains"].path == str(tmp_path.resolve() / "data")  # type: ignore[union-attr]
    assert config.datasets["brains"].split.file == str(tmp_path.resolve() / "split.tsv")


def test_schema_in_the_repository_is_the_types() -> None:
    file = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(file.read_text()) == schema(), "run: python -m gyri schema > workflow/schemas/config.schema.json"


def test_schema_is_closed() -> None:
    for name, kind in schema()["$defs"].items():
        assert kind.get("additionalProperties") is False, name


def test_default_configuration_explains_every_key() -> None:
    text = DEFAULT.read_text()
    skipped = {
        "path",
        "images",
        "labels",
        "label_values",
        "mask",
        "volume",
        "table",
        "image_id",
        "participant",
        "session",
    }  # in docs/datasets.md
    for kind in schema()["$defs"].values():
        for key in set(kind.get("properties", {})) - skipped:
            assert re.search(rf"(^|[\s{{#]){key}:", text, re.MULTILINE), f"config.yaml does not explain {key}"


def test_each_stage_is_told_only_what_concerns_it() -> None:
    """A setting of one stage leaves the settings of the others as they are."""
    base = parse_config(SMALL, Path("c.yaml"))
    other = parse_config(changed("datasets.brains.folds", 4), Path("c.yaml"))
    assert read_settings(base, "brains") == read_settings(other, "brains")
    assert set(type(base.datasets["brains"]).model_fields) >= LATER_STAGES
    epochs = parse_config(changed("experiments.age.architectures", {"conv5_fc3": {"training": {"epochs": 3}}}), Path("c.yaml"))
    assert train_settings(base, "age", "conv5_fc3") != train_settings(epochs, "age", "conv5_fc3")
    assert train_settings(base, "age", "linear") == train_settings(epochs, "age", "linear")
    assert predict_settings(base, "age", "conv5_fc3") == predict_settings(epochs, "age", "conv5_fc3")


def test_run_folds_and_ensembles() -> None:
    config = parse_config(changed("datasets.brains.run_folds", [2, 0]), Path("c.yaml"))
    assert run_folds(config.datasets["brains"]) == [0, 2]
    assert ensembles(config, "age")["ensemble.seeds.conv5_fc3"].members == [("conv5_fc3", 0), ("conv5_fc3", 1)]
