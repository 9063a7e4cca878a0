"""The how-to pages are followed step by step in a copy of the repository: their files are written, their commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (file|append): (\S+) -->\n```(?:python|yaml)\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["add_a_model.md", "add_a_dataset.md", "add_a_metric.md", "add_a_figure.md"])
def test_how_to(page: str, tmp_path: Path) -> None:
    for name in ("workflow", "tests"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    text = (REPOSITORY / "docs" / page).read_text()
    blocks = BLOCK.findall(text)
    assert blocks
    for kind, name, content in blocks:
        path = tmp_path / name
        assert path.exists() == (kind == "append"), name
        with path.open("a") as file:
            file.write(content)
    environment = {**os.environ, "PYTHONPATH": "workflow", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = [line for block in COMMANDS.findall(text) for line in block.splitlines()]
    assert commands
    for command in commands:
        shell = ["bash", "-o", "pipefail", "-c", command]
        done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        shutil.rmtree(tmp_path / "scans", ignore_errors=True)
        if "pytest" in command:
            assert re.search(r"\d+ passed", done.stdout), done.stdout
