"""The code fingerprint follows imports, ignores comments and docstrings, and refuses what it does not cover."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ASK = "import sys; from gyri.fingerprint import code_fingerprint as f; print(*[f([name]) for name in sys.argv[1:]])"


def fingerprints(package: Path, *modules: str) -> list[str]:
    """Fingerprints computed by a fresh process on a copy of the package."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, *modules], env={"PYTHONPATH": str(package)}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "workflow" / "gyri", tmp_path / "gyri", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_comments_and_docstrings_do_not_count(package: Path) -> None:
    before = fingerprints(package, "gyri.evaluate", "gyri.train")
    file = package / "gyri" / "tables.py"
    text = file.read_text()
    file.write_text(
        "# a comment\n" + text.replace('"""Tables: ', '"""Another docstring: ', 1).replace("import pandas", "import  pandas", 1)
    )
    assert file.read_text() != text
    assert fingerprints(package, "gyri.evaluate", "gyri.train") == before


def test_a_change_concerns_those_who_import_it(package: Path) -> None:
    names = ("gyri.evaluate", "gyri.train", "gyri.report")
    before = fingerprints(package, *names)
    with (package / "gyri" / "statistics.py").open("a") as file:
        file.write("\n\nCHANGED = 1\n")
    after = fingerprints(package, *names)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_template_beside_the_code_counts(package: Path) -> None:
    before = fingerprints(package, "gyri.report", "gyri.train")
    with (package / "gyri" / "report" / "style.css").open("a") as file:
        file.write("\n/* changed */\n")
    after = fingerprints(package, "gyri.report", "gyri.train")
    assert after[0] != before[0] and after[1] == before[1]


def test_one_network_concerns_no_other(package: Path) -> None:
    names = ("gyri.models.unet", "gyri.models.conv5_fc3", "gyri.train")
    before = fingerprints(package, *names)
    with (package / "gyri" / "models" / "unet.py").open("a") as file:
        file.write("\n\nCHANGED = 1\n")
    (package / "gyri" / "models" / "added.py").write_text('"""A network."""\n\nENTRIES = {"added": ("regression",)}\n')
    after = fingerprints(package, *names)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_verification_refuses_changed_code_and_uncovered_modules(package: Path) -> None:
    ask = (
        "from gyri.errors import ProvenanceError\nfrom gyri.fingerprint import code_fingerprint, verify_code\n"
        "verify_code(['gyri.split'], code_fingerprint(['gyri.split']))\n"
        "try:\n    verify_code(['gyri.split'], 'other')\nexcept ProvenanceError as error:\n    print('changed:', 'as planned' in str(error))\n"
        "import gyri.models.unet\n"
        "try:\n    verify_code(['gyri.split'], code_fingerprint(['gyri.split']))\nexcept ProvenanceError as error:\n"
        "    print('uncovered:', 'gyri.models.unet' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", ask], env={"PYTHONPATH": str(package)}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["changed:", "True", "uncovered:", "True"]
