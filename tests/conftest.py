"""Shared fixtures: tiny volumes with a non-trivial affine, and the real data where it is at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gyri.config.experiments import ReportSettings

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def hippocampus() -> Path:
    """The Decathlon hippocampus folder; the test is skipped where it is missing."""
    folder = Path(os.environ.get("GYRI_TEST_HIPPOCAMPUS", REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"))
    if not (folder / "dataset.json").is_file():
        pytest.skip("skipped: no real data")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ReportSettings]]:
    """Invented results of the three tasks, by task; tests that change files take `tree`."""
    import report_fixture

    root = tmp_path_factory.mktemp("invented") / "results"
    return root, {settings.task: settings for settings in report_fixture.make_results(root, groups=18)}


@pytest.fixture
def tree(made: tuple[Path, dict[str, ReportSettings]], tmp_path: Path) -> tuple[Path, dict[str, ReportSettings]]:
    """A copy of the invented results."""
    shutil.copytree(made[0], tmp_path / "results")
    return tmp_path / "results", made[1]
