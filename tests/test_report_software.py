"""The page says whether jobs ran in containers, and in which."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gyri.report.software import sentences, software

TORCH, TABLES, VENV = "image:00000000000000aa", "image:00000000000000bb", "lock:00000000000000cc"


def source(*pairs: tuple[str, str | None]) -> Any:
    return SimpleNamespace(provenance=[{"stage": stage, "environment": environment} for stage, environment in pairs])


@pytest.mark.parametrize(
    ("pairs", "containers", "words"),
    [
        ([("train", TORCH), ("evaluate", TABLES)], True, "All jobs ran in containers."),
        ([("train", VENV), ("evaluate", VENV)], False, "No containers were used."),
        ([("train", TORCH), ("evaluate", VENV)], "partly", "Some jobs ran in containers, others did not"),
        ([("train", None)], None, "It is not recorded"),
    ],
)
def test_containers_or_not(pairs: list[tuple[str, str | None]], containers: Any, words: str) -> None:
    assert software(source(*pairs))["containers"] == containers
    assert sentences(source(*pairs))[0].startswith(words)


def test_every_identity_is_named_with_its_stages() -> None:
    found = source(("train", TORCH), ("predict-fold", TORCH), ("evaluate", TABLES), ("report", VENV))
    assert software(found)["environments"] == [
        {"kind": "image", "identity": "00000000000000aa", "stages": ["predict-fold", "train"]},
        {"kind": "image", "identity": "00000000000000bb", "stages": ["evaluate"]},
    ]
    assert "Container image 00000000000000aa: predict-fold, train." in sentences(found)
