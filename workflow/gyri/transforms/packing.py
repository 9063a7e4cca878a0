"""The packed store: one .npy file that workers fill row by row, and the hash of a row."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError, Problem
from gyri.io import FULL


def allocate(path: Path, shape: tuple[int, ...], dtype: str) -> int:
    """Lay out an empty .npy file and reserve its space; gives its size in bytes.

    Raises:
        DataError: the disk has no room (found now, since a full disk would kill a process that writes to a memory map).
    """
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        size = path.stat().st_size
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    except OSError as error:
        if error.errno not in FULL:
            raise
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        remedy = "free some space, or set a smaller shape or a larger spacing_mm"
        raise DataError(Problem(str(path.parent), "the disk is full", f"{wanted / 1e9:.2f} GB free", remedy)) from error
    return size


def write_row(path: Path, index: int, row: NDArray[Any]) -> None:
    """Write one row of a file made by `allocate`, and close the map again, so that its pages do not stay in this process."""
    if row.size:
        np.lib.format.open_memmap(path, mode="r+")[index] = row


def sha256_row(image: NDArray[Any], labels: NDArray[Any]) -> str:
    """The sha256 of a packed row: the bytes of its image, then those of its labels."""
    digest = hashlib.sha256(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()
