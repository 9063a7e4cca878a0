"""Configurations that people copy from are valid, and small enough pilots of them run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gyri.config.load import load_config, parse_config
from tiny import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")


@pytest.mark.parametrize("file", [*EXAMPLES, REPOSITORY / "config.yaml"], ids=lambda file: file.name)
def test_example_is_valid(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLE.findall(file.read_text()):
        monkeypatch.setenv(name, str(tmp_path))
    assert load_config(file).experiments


@pytest.mark.parametrize("page", ["README.md", "docs/datasets.md", "docs/reruns.md"])
def test_yaml_in_the_docs_is_valid(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whole configurations as they stand; pieces with a `datasets:` get an experiment."""
    found = 0
    text = (REPOSITORY / page).read_text()
    for name in VARIABLE.findall(text):
        monkeypatch.setenv(name, str(tmp_path))
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        content = yaml.safe_load(block)
        if not isinstance(content, dict) or "datasets" not in content:
            continue
        name = next(iter(content["datasets"]))
        experiment = {"dataset": name, "task": "segmentation", "architectures": {"majority": {}}}
        content.setdefault("experiments", {"example": experiment})
        assert parse_config(content, tmp_path / "example.yaml").datasets
        found += 1
    assert found or page == "docs/reruns.md"


def test_examples_have_names_of_their_own() -> None:
    """Configurations may share results/: no dataset or experiment stands in two of them."""
    seen: dict[str, str] = {}
    for file in [*EXAMPLES, REPOSITORY / "config.yaml"]:
        content = yaml.safe_load(file.read_text())
        for name in (*(f"dataset {key}" for key in content["datasets"]), *(f"experiment {key}" for key in content["experiments"])):
            assert name not in seen, f"{name} stands in {file.name} and in {seen[name]}"
            seen[name] = file.name
