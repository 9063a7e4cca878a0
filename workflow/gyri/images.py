"""Image files: NIfTI (2D, 3D, 4D), PNG, TIFF and the like, opened as float32 volumes with an affine; label maps written back.

Axes stay as they are stored; the affine says what they mean. A label map written back has the grid and the format of its image.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri import nifti, pictures
from gyri.errors import DataError, Problem
from gyri.io import atomic, sha256_file, sha256_text
from gyri.types import Affine

NIFTI = (".nii", ".nii.gz")
PILLOW = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm")
SUFFIXES = NIFTI + pictures.TIFF + PILLOW

CONVERT = "convert the image, for example to NIfTI"
SAME_GRID_MM = 1e-3  # affines of the channels of one image may differ by this


def suffix_of(path: Path | str) -> str:
    """The ending that tells the format, in lower case: ".nii.gz", ".png", ...; "" for a format that gyri does not read."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def stem_of(path: Path | str) -> str:
    """The file name without the ending that tells the format."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def map_suffix(like: Path | str) -> str:
    """The ending of a label map that belongs to an image: NIfTI for NIfTI, TIFF for TIFF, PNG for other pictures."""
    suffix = suffix_of(like)
    if suffix in NIFTI:
        return ".nii.gz"
    return ".tif" if suffix in pictures.TIFF else ".png"


def channel_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a cohort that hold image files (`image_<channel>`), in their order."""
    return [str(name) for name in columns if str(name).startswith("image_") and name != "image_id"]


def label_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a cohort that hold label files: `label` first, then each `label_<name>`; the mask is not among them."""
    return sorted(str(name) for name in columns if name == "label" or str(name).startswith("label_"))


def load(
    path: Path, volume: int | None = None, spacing_mm: tuple[float, float] | None = None
) -> tuple[NDArray[np.float32], Affine]:
    """Open one image file.

    Args:
        path: NIfTI, PNG, TIFF, JPEG, ... by its ending.
        volume: volume to take where the file has several (page of a TIFF), from 0; none takes all volumes as channels.
        spacing_mm: pixel size along X and Y in mm, for pictures, which do not hold it themselves; 1 mm by default.

    Returns:
        The voxels after scaling, (C, X, Y, Z) in the stored axis order, and the 4 x 4 affine from voxel to mm.

    Raises:
        DataError: unreadable, truncated, larger than announced, or no such volume.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix in NIFTI:
        return nifti.load(path, volume)
    if suffix:
        return pictures.load(path, volume), pictures.affine(spacing_mm)
    raise _refuse(path, f"the ending {path.suffix or '(none)'}", f"one of {' '.join(SUFFIXES)}", CONVERT)


def load_labels(
    path: Path, volume: int | None = None, spacing_mm: tuple[float, float] | None = None
) -> tuple[NDArray[np.float32], Affine]:
    """Open one label map or mask.

    Args:
        path: the file; of a palette picture the indices count, not the colours.
        volume: as in `load`.
        spacing_mm: as in `load`.

    Returns:
        The values as they stand in the file, (X, Y, Z) float32 and not rounded, so that the audit can see what is no integer,
        and the affine.

    Raises:
        DataError: as `load`, and where the file holds several channels that differ.
    """
    path = Path(path)
    if suffix_of(path) in NIFTI or not suffix_of(path):
        values, affine = load(path, volume)
    else:
        values, affine = pictures.load(path, volume, indices=True), pictures.affine(spacing_mm)
    if len(values) > 1 and not all(np.array_equal(values[0], other) for other in values[1:]):
        raise _refuse(path, f"{len(values)} channels that differ", "one label value per voxel", "write the labels as one channel")
    return values[0], affine


def load_row(row: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[NDArray[np.float32], Affine]:
    """Open all channels of one row of a cohort.

    Args:
        row: a row of cohort.tsv.
        facts: dataset.json; gives root, channels, channel_files, volume and spacing_mm.

    Returns:
        (C, X, Y, Z) float32 with C = len(facts["channels"]), and the affine of the first file. A missing channel is all zeros
        (its cell in the row is empty).

    Raises:
        DataError: a file cannot be read, no channel is there, or the channels lie on different grids.
    """
    columns = channel_columns(row.keys())
    sizes = {column: len(facts["channel_files"][column.removeprefix("image_")]) for column in columns}
    loaded = {}
    for column in columns:
        if row[column]:
            path = Path(facts["root"]) / row[column]
            loaded[column] = (path, *load(path, facts.get("volume"), facts.get("spacing_mm")))
            _check_channels(*loaded[column], sizes[column], next(iter(loaded.values())))
    if not loaded:
        where = f"image {row['image_id']}"
        raise DataError(Problem(where, "no image file", "at least one channel", "name a file or remove the row"))
    _, values, affine = next(iter(loaded.values()))
    parts = [loaded[name][1] if name in loaded else np.zeros((sizes[name], *values.shape[1:]), np.float32) for name in columns]
    return parts[0] if len(parts) == 1 else np.concatenate(parts), affine


def row_digests(row: Mapping[str, Any], root: Path) -> tuple[str, str]:
    """Hash the files of one row.

    Args:
        row: a row of a cohort.
        root: the folder its paths start at.

    Returns:
        sha256_file over the image files in channel order, and sha256_labels over the label files and the mask ("" if none).
        Of one file it is that file's sha256; of several, `io.sha256_text` of their digests.
    """
    columns = channel_columns(row.keys()), [*label_columns(row.keys()), *(["mask"] if "mask" in row else [])]
    found = []
    for names in columns:
        digests = [sha256_file(Path(root) / row[name]) for name in names if row[name]]
        found.append(digests[0] if len(digests) == 1 else sha256_text(*digests) if digests else "")
    return found[0], found[1]


def verify_row(row: Mapping[str, Any], root: Path) -> None:
    """Refuse a row whose files are not those that the cohort was made from.

    Args:
        row: a row of cohort.tsv.
        root: the folder its paths start at (`root` of dataset.json).

    Raises:
        DataError: naming the files that are gone or changed.
    """
    images, labels = channel_columns(row.keys()), [*label_columns(row.keys()), "mask"]
    files = [row[name] for name in (*images, *labels) if row.get(name)]
    gone = [name for name in files if not (Path(root) / name).is_file()]
    if gone:
        remedy = "bring the file back, or run the stage `dataset` again"
        raise DataError(
            [Problem(str(Path(root) / name), "no such file", "the file that the cohort names", remedy) for name in gone]
        )
    problems = []
    for column, names, digest in zip(("sha256_file", "sha256_labels"), (images, labels), row_digests(row, root), strict=True):
        if digest != row[column]:
            where = ", ".join(str(Path(root) / row[name]) for name in names if row.get(name))
            expected = f"{row[column][:12] or 'no file'}, as in cohort.tsv"
            remedy = "run the pipeline again, so that it starts from the files as they are now"
            problems.append(Problem(where, f"sha256 {digest[:12]}: changed since it was read", expected, remedy))
    if problems:
        raise DataError(problems)


def header(path: Path) -> dict[str, Any]:
    """What a file says about itself, without reading its voxels.

    Args:
        path: an image or label file.

    Returns:
        format ("nifti1", "nifti2", "picture"), dtype, shape [X, Y, Z], channels (volumes of a 4D file, colours of a picture),
        dimensions (as stored), and for NIfTI also spacing_mm (3), affine, sform and qform (4 x 4, None where not set or not
        readable), sform_code, qform_code, unit, orientation ("RAS"; "" where the affine is singular or missing).

    Raises:
        DataError: the header cannot be read.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix:
        raise _refuse(path, f"the ending {path.suffix or '(none)'}", f"one of {' '.join(SUFFIXES)}", CONVERT)
    return nifti.header(path) if suffix in NIFTI else pictures.header(path)


def save_labels(path: Path, labels: NDArray[Any], affine: Affine, like: Path) -> None:
    """Write a label map in the format and on the grid of an image; no text field of that image's header is carried over.

    Args:
        path: the file to write; its ending must fit `map_suffix(like)`. Equal labels give equal bytes.
        labels: (X, Y, Z) non-negative integers on the grid of `like`.
        affine: the affine they are meant for; must be that of `like`.
        like: the image the labels belong to.

    Raises:
        ValueError: another shape, affine or format than `like` (a mistake of ours, not of the user).
    """
    path, like, facts = Path(path), Path(like), header(like)
    labels = np.asarray(labels)
    if list(labels.shape) != facts["shape"] or map_suffix(path) != map_suffix(like):
        raise ValueError(f"{path}: labels of shape {labels.shape} do not fit {like} of shape {facts['shape']}")
    if facts["format"] != "picture" and not np.allclose(facts["affine"], affine, atol=SAME_GRID_MM):
        raise ValueError(f"{path}: the labels have another affine than {like}")
    if labels.min(initial=0) < 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path}: labels must be integers from 0 on")
    top = int(labels.max(initial=0))
    labels = labels.astype(np.uint8 if top < 1 << 8 else np.uint16 if top < 1 << 16 else np.int32)
    content = nifti.encode(labels, facts) if facts["format"] != "picture" else pictures.encode(labels, suffix_of(path))
    with atomic(path) as temporary:
        if suffix_of(path) == ".nii.gz":
            # neither time nor name: the same labels give the same bytes
            with temporary.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
                stream.write(content)
        else:
            temporary.write_bytes(content)


def _check_channels(
    path: Path, values: NDArray[np.float32], affine: Affine, wanted: int, first: tuple[Path, NDArray[np.float32], Affine]
) -> None:
    """Refuse a file with another number of channels than the dataset has, or on another grid than the first of its image."""
    if len(values) != wanted:
        got = f"{len(values)} channels or volumes"
        raise _refuse(path, got, f"{wanted}, as in the rest of the dataset", "choose one with `volume`, or remove the image")
    if values.shape[1:] != first[1].shape[1:] or not np.allclose(affine, first[2], atol=SAME_GRID_MM):
        got = f"the grid {values.shape[1:]}, or another affine"
        expected = f"the grid of {first[0].name}, {first[1].shape[1:]}"
        raise _refuse(path, got, expected, "register the channels of an image to each other first")


def _refuse(path: Path, got: str, expected: str, remedy: str) -> DataError:
    return DataError(Problem(str(path), got, expected, remedy))
