"""Bad input of every kind is told in four parts: file or key, what was got, what is expected, how to mend it. Never a traceback."""

from __future__ import annotations

import copy
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from gyri.cli import main
from tiny import CONFIG, write_case, write_index

Break = Callable[[Path], None]
DATASET = ("dataset", "--dataset", "tiny")
AUDIT = ("audit", "--dataset", "tiny")
SPLIT = ("split", "--dataset", "tiny")
PREPROCESS = ("preprocess", "--dataset", "tiny")
TRAIN = ("train", "--dataset", "tiny", "--experiment", "blobs", "--model", "majority", "--fold", "0")
CHECK = ("check", "config.yaml")
FIRST = "data/imagesTr/blob_001.nii.gz"
FIRST_LABEL = "data/labelsTr/blob_001.nii.gz"


def setting(path: str, value: Any) -> Break:
    """Set one value of config.yaml."""

    def change(folder: Path) -> None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        place = config
        *parents, last = path.split(".")
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    return change


def text(name: str, content: str | bytes) -> Break:
    """Write a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def remove(name: str) -> Break:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def volume(name: str, edit: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Break:
    """Rewrite a NIfTI file with other voxels or another affine."""

    def change(folder: Path) -> None:
        image = nib.nifti1.load(folder / name)
        array = edit(np.asarray(image.dataobj))
        changed = nib.Nifti1Image(array, image.affine if affine is None else affine)
        nib.save(changed, folder / name)

    return change


def truncate(name: str) -> Break:
    def change(folder: Path) -> None:
        content = gzip.decompress((folder / name).read_bytes())
        (folder / name).write_bytes(gzip.compress(content[: len(content) // 2]))

    return change


def singular(name: str) -> Break:
    """Set the third row of the stored affine to zero."""

    def change(folder: Path) -> None:
        content = bytearray(gzip.decompress((folder / name).read_bytes()))
        content[312:328] = bytes(16)  # srow_z of the NIfTI-1 header
        (folder / name).write_bytes(gzip.compress(bytes(content)))

    return change


def both(*changes: Break) -> Break:
    def change(folder: Path) -> None:
        for item in changes:
            item(folder)

    return change


def table_with(column: str, values: list[Any]) -> Break:
    """Give data/people.tsv another column."""

    def change(folder: Path) -> None:
        lines = (folder / "data/people.tsv").read_text().splitlines()
        lines[0] += f"\t{column}"
        lines[1:] = [f"{line}\t{values[index % len(values)]}" for index, line in enumerate(lines[1:])]
        (folder / "data/people.tsv").write_text("\n".join(lines) + "\n")

    return change


def experiment(task: str, target: str, **more: Any) -> Break:
    models = {"mean" if task == "regression" else "majority": {}}
    return setting("experiments.blobs", {"dataset": "tiny", "task": task, "target": target, "architectures": models, **more})


def copy_image(folder: Path) -> None:
    shutil.copy(folder / FIRST, folder / "data/imagesTr/blob_002.nii.gz")


def predefined(rows: str) -> Break:
    return both(setting("datasets.tiny.split", {"file": "split.tsv"}), text("split.tsv", "participant_id\tfold\trole\n" + rows))


OVERLAP = "".join(
    f"blob_{number:03d}\t{fold}\t{role}\n"
    for fold in range(3)
    for number in range(1, 13)
    for role in (["train", "test"] if number == 1 and fold == 0 else ["test" if number % 3 == fold else "train"])
)

# kind -> how it is broken, what is run, and a piece of where, got, expected, remedy
KINDS: dict[str, tuple[Break, tuple[str, ...], str, str, str, str]] = {
    "no configuration": (remove("config.yaml"), CHECK, "config.yaml", "No such file", "readable", "path"),
    "configuration is no YAML": (text("config.yaml", "a: [1"), CHECK, "config.yaml", "expected", "valid YAML", "line"),
    "key given twice": (text("config.yaml", "a: 1\na: 2\n"), CHECK, "config.yaml", "twice", "each key once", "line"),
    "unknown key": (setting("datasets.tiny.fold", 3), CHECK, "datasets.tiny.fold", "unknown key", "one of", "did you mean `folds`"),
    "wrong type": (setting("seed", "one"), CHECK, "seed", "'one'", "integer", "change"),
    "unset variable": (setting("datasets.tiny.path", "${GYRI_UNSET}"), CHECK, "tiny.path", "not set", "name the data", "export"),
    "unknown dataset": (setting("experiments.blobs.dataset", "tinny"), CHECK, "blobs.dataset", "tinny", "dataset", "`tiny`"),
    "unknown network": (
        setting("experiments.blobs.architectures", {"unett": {}}), CHECK, "architectures.unett", "unett", "network", "`unet`",
    ),
    "fold that is not there": (setting("datasets.tiny.run_folds", [9]), CHECK, "run_folds", "[9]", "folds 0 to 2", "raise"),
    "no data folder": (remove("data"), DATASET, "data", "no", "", ""),
    "no dataset.json": (remove("data/dataset.json"), DATASET, "dataset.json", "no", "", ""),
    "dataset.json is no JSON": (text("data/dataset.json", "{"), DATASET, "dataset.json", "", "JSON", ""),
    "image that is not there": (remove(FIRST), DATASET, "blob_001", "no", "", ""),
    "group expression": (setting("datasets.tiny.group", "number + * 2"), DATASET, "datasets.tiny.group", "*", "", ""),
    "group column": (setting("datasets.tiny.group", "famly"), DATASET, "datasets.tiny.group", "famly", "", ""),
    "table that is not there": (remove("data/people.tsv"), DATASET, "people.tsv", "No such file", "", ""),
    "truncated image": (truncate(FIRST), AUDIT, "blob_001", "", "", ""),
    "text called NIfTI": (text(FIRST, "not an image"), AUDIT, "blob_001", "", "", ""),
    "not a number": (volume(FIRST, lambda a: np.where(a > 150, np.nan, a).astype(np.float32)), AUDIT, "blob_001", "NaN", "finite", ""),
    "constant image": (volume(FIRST, lambda a: np.zeros_like(a)), AUDIT, "blob_001", "constant", "", ""),
    "4D image": (volume(FIRST, lambda a: np.stack([a, a], -1)), AUDIT, "blob_001", "", "", "volume"),
    "implausible spacing": (volume(FIRST, lambda a: a, np.diag([50.0, 50, 50, 1])), AUDIT, "blob_001", "50", "0.2", ""),
    "singular affine": (singular(FIRST), AUDIT, "blob_001", "", "", ""),
    "label of another shape": (volume(FIRST_LABEL, lambda a: a[:-1]), AUDIT, "blob_001", "", "", ""),
    "label moved": (volume(FIRST_LABEL, lambda a: a, np.diag([2.0, 1, 1, 1])), AUDIT, "blob_001", "", "", ""),
    "undeclared label": (volume(FIRST_LABEL, lambda a: (a * 4).astype(np.uint8)), AUDIT, "blob_001", "4", "", ""),
    "label that is no integer": (volume(FIRST_LABEL, lambda a: (a * 0.5).astype(np.float32)), AUDIT, "blob_001", "0.5", "", ""),
    "same image twice": (copy_image, AUDIT, "blob_002", "", "", ""),
    "no target column": (experiment("regression", "agee"), AUDIT, "blobs.target", "agee", "column", "`age`"),
    "target that is no number": (experiment("regression", "diagnosis"), AUDIT, "blobs.target", "control", "number", "n/a"),
    "class that is not declared": (
        experiment("classification", "diagnosis", classes=["control", "ill"]), AUDIT, "blobs.target", "patient", "control, ill", "add it",
    ),
    "one class only": (
        both(table_with("one", ["same"]), experiment("classification", "one")), AUDIT, "blobs.target", "same", "two classes", "another target",
    ),
    "more folds than people": (setting("datasets.tiny.folds", 20), SPLIT, "folds", "", "", ""),
    "stratify column": (setting("datasets.tiny.split", {"stratify": ["agee"]}), SPLIT, "stratify", "agee", "", "age"),
    "predefined split overlaps": (predefined(OVERLAP), SPLIT, "split.tsv", "blob_001", "", ""),
    "leave one site out without sites": (setting("datasets.tiny.split", {"leave_one_site_out": True}), SPLIT, "", "", "", ""),
    "image changed after it was read": (lambda folder: write_case(folder / "data", 1, seed=9), PREPROCESS, "blob_001", "", "", ""),
    "stage before its inputs": (lambda folder: None, TRAIN, "splits.tsv", "no such file", "train", "earlier stages"),
    "code other than planned": (lambda folder: None, (*SPLIT, "--code", "0"), "code", "fingerprint", "as planned", "again"),
    "settings that are no settings": (lambda folder: None, ("split", "--dataset", "tiny", "--settings", "{}"), "--settings", "", "JSON", ""),
    "name of no dataset": (lambda folder: None, ("split", "--dataset", "tinny"), "--dataset", "tinny", "config.yaml", "`tiny`"),
    "too few threads": (
        setting("threads.train", 4096), (*TRAIN, "--threads", "1"), "threads", "1", "4096", "cores",
    ),
    "model that is none": (text("scan.nii.gz", "x"), ("predict", "data", "scan.nii.gz", "-o", "out"), "data", "", "", ""),
}  # fmt: skip
NEEDS_READING = ("audit", "split", "preprocess", "train")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for number in range(1, 13):
        write_case(folder / "data", number)
    write_index(folder / "data")
    config = copy.deepcopy(CONFIG)
    config["datasets"]["tiny"]["folds"] = 3
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(("change", "arguments", "where", "got", "expected", "remedy"), KINDS.values(), ids=KINDS.keys())
def test_bad_input(
    change: Break,
    arguments: tuple[str, ...],
    where: str,
    got: str,
    expected: str,
    remedy: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "project"))
    monkeypatch.chdir(folder)
    late = arguments[0] == "preprocess"
    if not late:
        change(folder)
    if arguments[0] in NEEDS_READING and "--settings" not in arguments and arguments[-1] != "tinny":
        main(DATASET)
        if arguments[0] != "audit":
            main(AUDIT)
    if late:
        change(folder)
    capfd.readouterr()
    status = main(arguments)
    told = capfd.readouterr().err
    assert status == 1, told
    assert "Traceback" not in told
    problem = parts_of(told, where)
    assert got in problem["got"]
    assert expected in problem["expected"]
    assert remedy in problem["remedy"]
    assert all(problem.values()), problem


def parts_of(told: str, where: str) -> dict[str, str]:
    """The four parts of the first problem that names `where`."""
    blocks = [block.strip() for block in told.replace("\r", "\n").split("\n  ") if block.strip()]
    problems: list[dict[str, str]] = []
    for block in blocks:
        key, _, value = block.strip().partition(":")
        if key in ("got", "expected", "remedy") and problems:
            problems[-1][key] = value.strip()
        elif block[0].isdigit() and ". " in block:
            problems.append({"where": block.partition(". ")[2]})
    fitting = [problem for problem in problems if where in problem["where"]]
    assert fitting, f"no problem names {where!r}:\n{told}"
    assert {"where", "got", "expected", "remedy"} <= set(fitting[0]), told
    return fitting[0]


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) >= 25
