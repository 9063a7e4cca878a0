"""Trained models on new scans: the same preprocessing, the average of all members, label maps on the grid of each scan."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri import images as files
from gyri.config.datasets import PreprocessSettings
from gyri.errors import DataError, Problem
from gyri.inference import Model, load_model
from gyri.io import read_json, write_json
from gyri.loading import Target
from gyri.progress import Progress, log
from gyri.provenance import versions
from gyri.tables import rows_of, write_table
from gyri.transforms.packing import allocate
from gyri.transforms.prepare import Prepared, prepare, same_grid
from gyri.transforms.spatial import SpatialRecord, spacing

BATCH = 8
SPACING_MARGIN = 0.25  # a voxel edge may leave the range of the training images by this fraction without a warning
SHARED = ("task", "target", "names", "label_values", "channels", "preprocess", "learning_task")  # of all members


@dataclass(frozen=True)
class Scan:
    """One new image.

    Args:
        image_id: its name in the table.
        files: one per channel image, None where that is missing.
        mask: a mask file, or None.
    """

    image_id: str
    files: tuple[Path | None, ...]
    mask: Path | None = None

    @property
    def first(self) -> Path:
        """The first file that is there; label maps take its grid."""
        return next(file for file in self.files if file is not None)


def predict_new(model: Path, images: list[Path], output: Path, threads: int = 2) -> dict[str, Any]:
    """Apply a trained model to new scans.

    Args:
        model: results/<experiment>/<model>, whose folds and seeds are averaged, or the folder of one run.
        images: image files, folders of image files, or tables (TSV, CSV) with image_id, image_<channel> and, if the preprocessing
            needs one, mask; paths in a table start at its folder.
        output: folder for predictions.tsv and maps/; a folder that holds predictions is not overwritten.
        threads: of the processor.

    Returns:
        Facts: images, members, warnings.

    Raises:
        DataError: with every problem of the model and of the scans; nothing is written then.
    """
    problems: list[Problem] = []
    if (output / "predictions.tsv").exists():
        got = "predictions of an earlier call"
        problems.append(Problem(str(output), got, "a folder without predictions.tsv", "name another folder, or remove this one"))
    cards = _find_cards(model, problems)
    scans = _find_scans(images, cards[0][1]["channels"] if cards else None, problems)
    if problems:
        raise DataError(problems)
    members = [load_model(folder, threads) for folder, _ in cards]
    settings = PreprocessSettings.model_validate(cards[0][1]["preprocess"])
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=output) as folder:
        packed, records, warnings = _prepare_all(scans, settings, [card for _, card in cards], Path(folder) / "images.npy")
        rows = _predict_all(scans, members, packed, records, output, _mirror(cards))
    table = pd.DataFrame(rows).assign(warning=["; ".join(found) for found in warnings])
    facts = {"model": str(model), "members": [str(folder) for folder, _ in cards], "versions": versions(), **members[0].facts}
    write_json(output / "prediction.json", {**facts, "trained_with": cards[0][1]["version"]})
    write_table(output / "predictions.tsv", table)
    return {"images": len(scans), "members": len(members), "warnings": sum(map(bool, warnings))}


def _find_cards(model: Path, problems: list[Problem]) -> list[tuple[Path, dict[str, Any]]]:
    """The runs below a model folder with their model.json; they must have been trained for the same thing."""
    expected = "results/<experiment>/<model>, or a fold-<k>/seed-<s> folder in it"
    found = [model] if (model / "model.json").is_file() else sorted(path.parent for path in model.glob("fold-*/seed-*/model.json"))
    if not found:
        got = "no model.json there" if model.is_dir() else "no such folder"
        remedy = "name the folder of a trained model; of an ensemble, name its members one by one"
        problems.append(Problem(str(model), got, expected, remedy))
    cards = [(folder, read_json(folder / "model.json")) for folder in found]
    for folder, card in cards:
        lacking = [key for key in (*SHARED, "version", "target_scale", "normalization") if key not in card]
        different = [key for key in SHARED if not lacking and card[key] != cards[0][1].get(key)]
        if lacking or different:
            got = f"without {', '.join(lacking)}" if lacking else f"another {', '.join(different)} than {cards[0][0]}"
            problems.append(Problem(str(folder / "model.json"), got, "members trained for the same thing", "train the model again"))
    return cards


def _mirror(cards: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    """The mirror axes that the experiment predicts with, where its provenance lies beside the model."""
    path = cards[0][0] / "provenance-predict.json"
    return list(read_json(path)["settings"]["mirror"]) if path.is_file() else []


def _find_scans(paths: Sequence[Path], channels: list[str] | None, problems: list[Problem]) -> list[Scan]:
    """All scans that files, folders and tables name."""
    scans: list[Scan] = []
    for path in paths:
        if path.is_dir():
            inside = [Scan(files.stem_of(item), (item,)) for item in sorted(path.iterdir()) if files.suffix_of(item)]
            if not inside:
                problems.append(
                    Problem(str(path), "a folder without images", f"files in {' '.join(files.SUFFIXES)}", "name another folder")
                )
            scans += inside
        elif not path.is_file():
            problems.append(Problem(str(path), "no such file", "an image, a folder of images, or a table", "check the path"))
        elif path.suffix in (".tsv", ".csv"):
            scans += _read_table(path, channels, problems)
        elif files.suffix_of(path):
            scans.append(Scan(files.stem_of(path), (path,)))
        else:
            expected = f"one of {' '.join(files.SUFFIXES)} .tsv .csv"
            problems.append(Problem(str(path), f"the ending {path.suffix or '(none)'}", expected, "convert the image to NIfTI"))
    names = [scan.image_id for scan in scans]
    for name in sorted({name for name in names if names.count(name) > 1}):
        remedy = "give each scan an image_id of its own in a table"
        problems.append(Problem(f"scan {name}", f"named {names.count(name)} times", "each name once", remedy))
    return scans


def _read_table(path: Path, channels: list[str] | None, problems: list[Problem]) -> list[Scan]:
    """The scans of a table, whose image columns are taken in their order."""
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        problems.append(Problem(str(path), str(error), "a readable table", "check the file"))
        return []
    columns = [name for name in table.columns if name == "image" or (name.startswith("image_") and name != "image_id")]
    if not columns or not len(table):
        wanted = " ".join(f"image_{name}" for name in channels or ["<channel>"])
        got = f"the columns {', '.join(table.columns)}" if len(table) else "no rows"
        problems.append(Problem(str(path), got, f"rows with {wanted}, and image_id", "add the columns"))
        return []
    scans = []
    for number, row in enumerate(rows_of(table), 2):
        named = [None if row[name] in ("", "n/a") else path.parent / row[name] for name in columns]
        mask = path.parent / row["mask"] if row.get("mask") not in (None, "", "n/a") else None
        gone = [str(file) for file in (*named, mask) if file is not None and not file.is_file()]
        if gone or not any(named):
            got = f"no such file: {', '.join(gone)}" if gone else "no image"
            problems.append(Problem(f"{path}: line {number}", got, "paths of images, from the table's folder", "correct the row"))
            continue
        first = next(file for file in named if file is not None)
        scans.append(Scan(str(row.get("image_id") or files.stem_of(first)), tuple(named), mask))
    return scans


def _prepare_all(
    scans: list[Scan], settings: PreprocessSettings, cards: list[dict[str, Any]], path: Path
) -> tuple[NDArray[np.float16], list[SpatialRecord], list[list[str]]]:
    """Bring all scans onto the network grid, into a temporary file, before anything is predicted.

    Raises:
        DataError: with the problems of all scans.
    """
    shape = settings.shape or (0, 0, 0)
    channels = cards[0]["channels"]
    allocate(path, (len(scans), len(channels), *shape), "<f2")
    packed = np.lib.format.open_memmap(path, mode="r+")
    problems, records, warnings, bar = [], [], [], Progress("prepare", len(scans))
    for index, scan in enumerate(scans):
        try:
            ready = _prepare_one(scan, settings, channels)
            packed[index] = ready.image
            records.append(ready.spatial)
            warnings.append(_out_of_range(scan, ready.spatial, cards))
        except DataError as error:
            problems += error.problems
        bar.step()
    if problems:
        raise DataError(problems)
    return packed, records, warnings


def _prepare_one(scan: Scan, settings: PreprocessSettings, channels: list[str]) -> Prepared:
    """One scan as in preprocessing; a channel that is missing is 0."""
    parts: list[NDArray[np.float32] | None] = []
    affine, grid = None, (0, 0, 0)
    for file in scan.files:
        if file is None:
            parts.append(None)
            continue
        values, own = files.load(file, settings.volume, settings.spacing_mm)
        if affine is not None and (values.shape[1:] != grid or not same_grid(own, affine)):
            got, expected = f"the grid {values.shape[1:]}, or another affine", f"the grid of {scan.first.name}, {grid}"
            raise DataError(Problem(str(file), got, expected, "register the channels of a scan to each other first"))
        if affine is None:
            affine, grid = own, values.shape[1:]
        parts.append(values)
    filled = [np.zeros((1, *grid), np.float32) if part is None else part for part in parts]
    image = np.concatenate(filled)
    if len(image) != len(channels):
        got = f"{len(image)} channels in {len(scan.files)} files"
        remedy = "name the files of all channels in a table with the columns " + " ".join(f"image_{name}" for name in channels)
        raise DataError(Problem(f"scan {scan.image_id}", got, f"{len(channels)}: {', '.join(channels)}", remedy))
    missing = [index for index, part in enumerate(parts) if part is None]
    mask = None if scan.mask is None else files.load_labels(scan.mask, settings.volume, settings.spacing_mm)[0]
    assert affine is not None
    return prepare(image, affine, mask, settings, str(scan.first), missing)


def _out_of_range(scan: Scan, record: SpatialRecord, cards: list[dict[str, Any]]) -> list[str]:
    """What of a scan's geometry no training image had."""
    edges = np.sort(spacing(np.asarray(record.original_affine)))
    low = np.array([card["seen"]["spacing_mm"][0] for card in cards]).min(0)
    high = np.array([card["seen"]["spacing_mm"][1] for card in cards]).max(0)
    if (edges >= low * (1 - SPACING_MARGIN)).all() and (edges <= high * (1 + SPACING_MARGIN)).all():
        return []
    shown = " x ".join(f"{edge:.3g}" for edge in edges)
    trained = " x ".join(f"{least:.3g}-{most:.3g}" for least, most in zip(low.tolist(), high.tolist(), strict=True))
    message = f"voxels of {shown} mm, trained on {trained} mm"
    log(f"{scan.image_id}: {message}: do not trust this prediction without looking at it")
    return [message]


def _predict_all(
    scans: list[Scan],
    members: list[Model],
    packed: NDArray[np.float16],
    records: list[SpatialRecord],
    output: Path,
    mirror: Sequence[str],
) -> list[dict[str, Any]]:
    """One row of the table per scan; probabilities are averaged on the network grid, resampled, and the largest wins last."""
    target, rows, bar = members[0].target, [], Progress("predict", len(scans))
    for start in range(0, len(scans), BATCH):
        batch = np.asarray(packed[start : start + BATCH])
        found_by_each = np.stack([member.probabilities(batch, mirror) for member in members])
        mean = np.asarray(found_by_each.mean(0, dtype=np.float64), np.float32)
        for scan, record, found in zip(scans[start : start + BATCH], records[start : start + BATCH], mean, strict=True):
            row = {"image_id": scan.image_id, "image": str(scan.first), "members": len(members)}
            rows.append({**row, **_one_result(target, found, record, scan, output)})
            bar.step()
    return rows


def _one_result(target: Target, found: NDArray[np.float32], record: SpatialRecord, scan: Scan, output: Path) -> dict[str, Any]:
    if target.task == "regression":
        return {"prediction": float(found[0])}
    if target.task == "classification":
        columns = {f"probability_{name}": float(value) for name, value in zip(target.names, found, strict=True)}
        return {"prediction": target.names[int(found.argmax())], **columns}
    labels = target.decode_labels(record.invert(found).argmax(0))
    path = output / "maps" / f"{scan.image_id}{files.map_suffix(scan.first)}"
    files.save_labels(path, labels, np.asarray(record.original_affine), scan.first)
    return {"prediction": str(path.relative_to(output))}
