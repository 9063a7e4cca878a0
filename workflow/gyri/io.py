"""Files: read safely, written atomically, hashed by content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError, Problem

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, no larger files


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Turn a full disk into a message.

    Args:
        path: what is written while inside.

    Raises:
        DataError: no space was left, or the quota is used up.
    """
    try:
        yield
    except OSError as error:
        # numpy counts what it could write and gives no error number
        if error.errno not in FULL and not (error.errno is None and "written" in str(error)):
            raise
        place = Path(error.filename or path).absolute()
        folder = next(item for item in place.parents if item.is_dir())
        got = f"{os.strerror(error.errno or errno.ENOSPC)}: {shutil.disk_usage(folder).free / 1e6:.1f} MB are free in {folder}"
        remedy = "free some space there and run again: files written before are whole, a training goes on from its last checkpoint"
        raise DataError(Problem(str(path), got, "room for this file", remedy)) from error


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; what was written there takes the final name only if all went well.

    Args:
        path: the final name. Missing folders are made.

    Yields:
        The temporary path (it keeps the endings of `path`, since writers choose their format by them).

    Raises:
        DataError: the disk is full; what had the final name before still has it, and nothing is left behind.
    """
    path = Path(path)
    with room(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".partial-", suffix="-" + path.name, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with room(path):
            yield temporary
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(Problem(str(path), str(error), "a readable JSON file", "make the file anew")) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file without pickle."""
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def read_array(path: Path, memory_map: bool = True) -> NDArray[Any]:
    """Open a .npy file without pickle, memory-mapped read-only unless told otherwise."""
    return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as safetensors; keys are sorted, so equal content gives equal bytes."""
    from safetensors.numpy import save

    # asarray keeps arrays without axes as they are; an empty dictionary of metadata would give a broken header
    content = save({key: np.asarray(tensors[key], order="C") for key in sorted(tensors)}, dict(metadata) if metadata else None)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file into named arrays."""
    from safetensors.numpy import load_file

    return load_file(path)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal text."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_array(array: NDArray[Any]) -> str:
    """The sha256 of an array's shape, type and values (in C order)."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sha256_text(*parts: str) -> str:
    """The sha256 of several texts, unambiguous in where one ends."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()
