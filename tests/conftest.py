"""Shared fixtures: tiny volumes with a non-trivial affine, and the real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def hippocampus() -> Path:
    """The Decathlon hippocampus folder; the test is skipped where it is missing."""
    folder = Path(os.environ.get("GYRI_TEST_HIPPOCAMPUS", REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"))
    if not (folder / "dataset.json").is_file():
        pytest.skip("skipped: no real data")
    return folder
