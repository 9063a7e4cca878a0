"""Content of the image files, in parallel: hashes of files and voxels, number of channels, and label values that nobody named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gyri import images
from gyri.errors import DataError, Problem
from gyri.io import sha256_array, sha256_text
from gyri.progress import track

MAX_VALUES = 4096  # more different values are no labels; the audit will say what they are


@dataclass
class Content:
    """What the files of one row hold.

    Args:
        sha256_file: of the image files.
        sha256_labels: of the label files and the mask.
        sha256_voxels: of the voxels, "" where an image cannot be read.
        channels: image column -> channels in its file (readable ones only).
        values: label column -> the whole numbers in it (columns without names only).
        problems: files that could not be opened at all.
    """

    sha256_file: str = ""
    sha256_labels: str = ""
    sha256_voxels: str = ""
    channels: dict[str, int] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_contents(rows: list[dict[str, str]], root: Path, volume: int | None, unnamed: list[str], threads: int) -> list[Content]:
    """Read and hash the files of all rows.

    Args:
        rows: rows of a cohort.
        root: the folder their paths start at.
        volume: volume to take from 4D images.
        unnamed: label columns of which the values are to be collected.
        threads: rows that are read at the same time; decompression and hashing let go of the interpreter's lock.

    Returns:
        One content per row, in their order, whatever the number of threads.
    """

    def content(row: dict[str, str]) -> Content:
        return _content(row, root, volume, unnamed)

    with ThreadPoolExecutor(threads) as pool:
        return list(track(pool.map(content, rows), "reading images", len(rows)))


def _content(row: dict[str, Any], root: Path, volume: int | None, unnamed: list[str]) -> Content:
    found = Content()
    try:
        found.sha256_file, found.sha256_labels = images.row_digests(row, root)
    except OSError as error:
        expected = "a file that can be opened"
        found.problems.append(Problem(str(error.filename), error.strerror or str(error), expected, "check its permissions"))
        return found
    digests: list[str] = []
    for column in images.channel_columns(row):
        try:
            values = images.load(root / row[column], volume)[0] if row[column] else None
        except DataError:
            digests = []  # the audit says what is wrong with it
            break
        if values is not None:
            found.channels[column] = len(values)
            # minus zero is zero, also in its bytes
            digests.append(sha256_array(values + np.float32(0)))
    found.sha256_voxels = digests[0] if len(digests) == 1 else sha256_text(*digests) if digests else ""
    for column in unnamed:
        if row[column]:
            found.values[column] = _whole_values(root / row[column], volume)
    return found


def _whole_values(path: Path, volume: int | None) -> set[int]:
    """The different whole numbers in a label map; none where it cannot be read or holds no labels."""
    try:
        values = np.unique(images.load_labels(path, volume)[0])
    except DataError:
        return set()
    whole = values[np.isfinite(values) & (values == np.round(values)) & (values >= 0)]
    return {int(value) for value in whole} if len(whole) <= MAX_VALUES else set()
