"""The images' definitions, contents, locks and messages, as far as no Apptainer is needed (tests/cluster builds real ones)."""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import sys
from base64 import urlsafe_b64encode
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any

import pytest

from gyri.catalogue import catalogue, losses, optimizers
from gyri.containers import content, store, wheels
from gyri.environment import identity
from gyri.errors import ContainerError
from gyri.fingerprint import closure, module_path

REPOSITORY = Path(__file__).resolve().parents[1]
TORCH_STAGES = ("gyri.train", "gyri.predict", "gyri.explain", "gyri.apply")
TABLES_STAGES = tuple(
    f"gyri.{name}"
    for name in ["synthetic", "dataset", "audit", "split", "preprocess", "normalize", "ensemble", "evaluate", "report", "settings"]
)
MARKERS = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
PYTHON = wheels.Target(MARKERS, (2, 36))


# ── content ──
def install(folder: Path, name: str, version: str, *, noise: str = "", body: bytes = b"1\n", turned: bool = False) -> None:
    """Put a package into a folder as an installer does, with bytecode and notes of its own."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_bytes(body)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    digest = urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    rows = [(f"{name}/__init__.py", f"sha256={digest}", len(body)), (f"{info.name}/RECORD", "", "")]
    rows += [(f"{name}/__pycache__/__init__.cpython-311.pyc", "", ""), (f"{info.name}/INSTALLER", f"sha256={noise}", 1)]
    with (info / "RECORD").open("w", newline="") as handle:
        csv.writer(handle).writerows(reversed(rows) if turned else rows)


def contents_of(folder: Path) -> dict[str, Any]:
    return content.packages(list(distributions(path=[str(folder)])))


def test_content_does_not_depend_on_order_bytecode_or_installer(tmp_path: Path) -> None:
    install(tmp_path / "one", "alpha", "1.0", noise="a")
    install(tmp_path / "one", "be.ta", "2.0")
    install(tmp_path / "two", "be.ta", "2.0", noise="b", turned=True)
    install(tmp_path / "two", "alpha", "1.0", turned=True)
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "two")
    assert list(contents_of(tmp_path / "one")) == ["alpha", "be-ta"]


def test_content_depends_on_versions_and_files(tmp_path: Path) -> None:
    install(tmp_path / "one", "alpha", "1.0")
    install(tmp_path / "two", "alpha", "1.1")
    install(tmp_path / "three", "alpha", "1.0", body=b"2\n")
    found = [identity(contents_of(tmp_path / name)) for name in ("one", "two", "three")]
    assert len(set(found)) == 3


def test_a_file_that_was_altered_after_installation_is_found(tmp_path: Path) -> None:
    install(tmp_path, "alpha", "1.0")
    assert content.damaged(list(distributions(path=[str(tmp_path)]))) == []
    (tmp_path / "alpha" / "__init__.py").write_text("3\n")
    assert content.damaged(list(distributions(path=[str(tmp_path)]))) == ["alpha/__init__.py: other bytes than its package has"]
    (tmp_path / "alpha" / "__init__.py").unlink()
    assert content.damaged(list(distributions(path=[str(tmp_path)]))) == ["alpha/__init__.py: missing"]


def test_the_image_and_the_planner_name_a_content_alike() -> None:
    value = {"b": {"ü": "1"}, "a": ["x"], "python": "3.11.2"}
    assert content.identity(value) == identity(value)


def test_content_runs_without_the_package() -> None:
    """It is copied into the build, where gyri is not."""
    tree = ast.parse(Path(content.__file__).read_text())
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {str(name).split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"torch"}


def test_differences_are_told_package_by_package() -> None:
    before = {
        "python": "3.11.2",
        "base": {"bash": "5.2"},
        "packages": {"numpy": {"version": "2.4.6", "record": "a"}, "old": {"version": "1", "record": "b"}},
    }
    after = {
        "python": "3.11.3",
        "base": {"bash": "5.3"},
        "packages": {"numpy": {"version": "2.4.6", "record": "c"}, "new": {"version": "2", "record": "d"}},
    }
    assert store.differences(before, after) == [
        "python: 3.11.2 locked, 3.11.3 found",
        "package new: none locked, 2 found",
        "package numpy: 2.4.6 both, but with other files",
        "package old: 1 locked, none found",
        "Debian package bash: 5.2 locked, 5.3 found",
    ]
    assert store.differences(before, before) == []


# ── locks and wheels ──
LOCK = f"""# title
alpha==1.0 \\
    --hash=sha256:{hashlib.sha256(b"alpha").hexdigest()}
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{"1" * 64} \\
    --hash=sha256:{"2" * 64}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{"3" * 64}
"""


def test_the_markers_of_the_image_count_not_those_of_this_python() -> None:
    assert [item.version for item in wheels.requirements(LOCK, PYTHON)] == ["1.0", "2.4.6"]
    newer = wheels.Target({**MARKERS, "python_full_version": "3.12.1", "python_version": "3.12"}, (2, 36))
    assert [item.version for item in wheels.requirements(LOCK, newer)] == ["1.0", "2.5.5"]


def test_a_requirement_without_hash_is_refused() -> None:
    with pytest.raises(ContainerError, match="with hashes"):
        wheels.requirements("alpha==1.0\n", PYTHON)
    with pytest.raises(ContainerError, match="with hashes"):
        wheels.requirements(f"alpha>=1.0 \\\n    --hash=sha256:{'1' * 64}\n", PYTHON)


def test_only_wheels_that_fit_and_have_the_locked_bytes_are_taken(tmp_path: Path) -> None:
    wanted = wheels.requirements(LOCK, PYTHON)[:1]
    for name, body in (
        ("alpha-1.0-cp312-cp312-manylinux_2_28_x86_64", b"alpha"),
        ("alpha-1.0-py3-none-any", b"other"),
        ("alpha-1.1-py3-none-any", b"alpha"),
    ):
        (tmp_path / f"{name}.whl").write_bytes(body)
    assert wheels.present(tmp_path, wanted, PYTHON) == {}
    fitting = tmp_path / "alpha-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    fitting.write_bytes(b"alpha")
    assert wheels.present(tmp_path, wanted, PYTHON) == {wanted[0]: fitting}


def test_a_wheel_of_a_newer_libc_does_not_fit(tmp_path: Path) -> None:
    wanted = wheels.requirements(LOCK, PYTHON)[:1]
    (tmp_path / "alpha-1.0-cp311-cp311-manylinux_2_39_x86_64.whl").write_bytes(b"alpha")
    assert wheels.present(tmp_path, wanted, PYTHON) == {}


def test_a_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(ContainerError, match=r"download of alpha 1\.0") as error:
        wheels.download(tmp_path, wheels.requirements(LOCK, PYTHON)[:1], PYTHON, lambda _: None)
    assert "No matching distribution" in error.value.problems[0].got
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "tables"])
def test_every_line_of_an_images_lock_is_pinned_and_has_one_version_for_all(name: str) -> None:
    wanted = wheels.requirements((REPOSITORY / "envs" / f"{name}.lock").read_text(), PYTHON)
    everywhere = {item.name: item for item in wheels.requirements((REPOSITORY / "envs" / "cuda.lock").read_text(), PYTHON)}
    assert len(wanted) > 25
    assert [item.name for item in wanted if everywhere[item.name] != item] == []
    names = {item.name for item in wanted}
    assert ("torch" in names) == (name == "torch") and "snakemake" not in names
    assert any(item.startswith("nvidia-cudnn") for item in names) == (name == "torch")


def imported_packages(modules: list[str]) -> set[str]:
    """Names of the distributions that these modules and all that they reach import, gyri's own door and bookkeeping included."""
    providers, found = packages_distributions(), set()
    for module in closure(modules, outside={"gyri.cli", "gyri.containers", "gyri.plan"}):
        path = module_path(module)
        assert path is not None
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            roots = {name.split(".")[0] for name in names} - {"gyri", "__future__"} - set(sys.stdlib_module_names)
            found |= {re.sub(r"[-_.]+", "-", providers[root][0]).lower() for root in roots}
    return found


def listed(name: str) -> set[str]:
    lines = (REPOSITORY / "envs" / f"{name}.in").read_text().splitlines()
    return {line.lower() for line in lines if line and not line.startswith("#")}


def test_an_image_holds_what_its_stages_import_and_no_more() -> None:
    parts = {entry.module for table in (catalogue(), losses(), optimizers()) for entry in table.values()}
    torch = imported_packages([*TORCH_STAGES, *parts])
    # pyyaml: a stage called by hand reads its settings from a configuration file; nilearn: its template is read as a file
    assert torch - {"torch"} | {"pyyaml", "nilearn"} == listed("torch")
    assert imported_packages(list(TABLES_STAGES)) == listed("tables")


# ── rules ──
def rules() -> dict[str, str]:
    """Text of every rule, by name."""
    text = "\n".join(
        path.read_text() for path in [REPOSITORY / "Snakefile", *sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))]
    )
    blocks = re.split(r"^(?=rule |use rule |checkpoint )", text, flags=re.MULTILINE)[1:]
    return {re.match(r"(?:use rule \w+ as|rule|checkpoint) (\w+)", block)[1]: block for block in blocks}  # type: ignore[index]


def images_of_rules(found: dict[str, str]) -> dict[str, str]:
    """The image of each rule that runs a command; a rule made from another one has its image."""
    images = {}
    for name, block in found.items():
        origin = re.match(r"use rule (\w+) as", block)
        source = found[origin[1]] if origin and "container:" not in block else block
        if "shell:" not in source and "script:" not in source and "run:" not in source:
            continue
        match = re.search(r'container:\s+IMAGES\["(\w+)"\]', source)
        images[name] = match[1] if match else "none"
    return images


def test_every_rule_runs_in_the_image_that_holds_what_it_imports() -> None:
    images = images_of_rules(rules())
    torch = {"train_model", "predict_fold", "predict_locked", "explain_model"}
    assert torch | {"evaluate_experiment", "make_synthetic_cohort", "average_locked"} <= set(images)
    assert images == {name: "torch" if name in torch else "tables" for name in images}


def test_a_rule_without_container_is_found() -> None:
    found = rules()
    found["split_dataset"] = re.sub(r'    container:\n\s+IMAGES\["tables"\]\n', "", found["split_dataset"])
    assert images_of_rules(found)["split_dataset"] == "none"
