"""NIfTI files: read whole and never beyond what their header announces; label maps written with a fresh header.

A file is read to its last voxel, so a truncated one is noticed even where only one volume is wanted, and a small file whose
header announces a huge image is refused before any memory is taken.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError, Problem
from gyri.types import Affine, Shape3

# deflate cannot shrink by more (Source: zlib, https://zlib.net/zlib_tech.html: 1032 to 1), so a header that announces more lies
DEFLATE_RATIO = 1032
TRAILING = 1 << 20  # bytes that may follow the last voxel (some writers pad)
CHUNK = 1 << 20
WHOLE = "a whole file"
AGAIN = "copy or download it again"


def load(path: Path, volume: int | None = None) -> tuple[NDArray[np.float32], Affine]:
    """Open a NIfTI file; see `gyri.images.load`."""
    with _opened(path) as stream:
        head = _header(stream, path)
        shape, dtype = head.get_data_shape(), head.get_data_dtype()
        count, grid = _volumes(shape), _grid(shape)
        # the setting chooses among the volumes of 4D files; a 3D label map beside them has nothing to choose
        volume = None if count == 1 else volume
        if volume is not None and volume >= count:
            raise _refuse(path, f"{count} volumes", f"a volume {volume} (counted from 0)", "choose another `volume`")
        size = int(np.prod(grid)) * dtype.itemsize
        start, taken = (0, count) if volume is None else (volume, 1)
        _read(stream, _offset(head) - head.sizeof_hdr + start * size, path, keep=False)
        raw = _read(stream, taken * size, path)
        _read(stream, (count - start - taken) * size, path, keep=False)
        _read_end(stream, path)
    affine = _facts(head)["affine"]
    if affine is None:
        raise _refuse(path, "a qform and sform that cannot be read", "a valid affine", "set the sform anew")
    return _scaled(np.frombuffer(raw, dtype).reshape((*grid, taken), order="F"), head), np.asarray(affine, dtype=np.float64)


def header(path: Path) -> dict[str, Any]:
    """What a NIfTI file says about itself; see `gyri.images.header`."""
    with _opened(path) as stream:
        return _facts(_header(stream, path))


def encode(labels: NDArray[Any], facts: Mapping[str, Any]) -> bytes:
    """A NIfTI file with a fresh header: the grid of an image, none of its texts and extensions.

    Args:
        labels: (X, Y, Z) integers.
        facts: what `header` says of the image.

    Returns:
        The bytes of an uncompressed file.
    """
    import nibabel

    kind = nibabel.Nifti2Image if facts["format"] == "nifti2" else nibabel.Nifti1Image
    affine = None if facts["affine"] is None else np.asarray(facts["affine"])
    image = kind(labels[..., 0] if facts["dimensions"] == 2 else labels, affine, dtype=labels.dtype)
    image.header["pixdim"][1:4] = np.abs(facts["spacing_mm"])
    for form in ("qform", "sform"):
        matrix = facts[form]
        getattr(image, f"set_{form}")(None if matrix is None else np.asarray(matrix), facts[f"{form}_code"] if matrix else 0)
    if facts["unit"] != "unknown":
        image.header.set_xyzt_units(xyz=facts["unit"])
    return image.to_bytes()


def _refuse(path: Path, got: str, expected: str, remedy: str) -> DataError:
    return DataError(Problem(str(path), got, expected, remedy))


class _Gzip(gzip.GzipFile):
    """A gzip stream that closes the file below it."""

    def __init__(self, below: BinaryIO):
        super().__init__(fileobj=below, mode="rb")
        self.below = below

    def close(self) -> None:
        super().close()
        self.below.close()


def _opened(path: Path) -> BinaryIO:
    """A binary stream that decompresses where the content (not the name) is gzip."""
    try:
        raw = path.open("rb")
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
    except OSError as error:
        raise _refuse(path, error.strerror or str(error), "a readable file", "check the path and the permissions") from error
    return _Gzip(raw) if packed else raw  # type: ignore[return-value]


def _read(stream: BinaryIO, count: int, path: Path, keep: bool = True) -> bytearray:
    """Read exactly `count` bytes, in pieces; the bytes are thrown away unless `keep`."""
    buffer = bytearray(count if keep else min(count, CHUNK))
    view = memoryview(buffer)
    done = 0
    try:
        while done < count:
            piece = view[done : done + CHUNK] if keep else view[: min(CHUNK, count - done)]
            got = stream.readinto(piece)  # type: ignore[attr-defined]
            if not got:
                raise EOFError
            done += got
    except EOFError as error:
        raise _refuse(path, "the file ends before its last voxel", WHOLE, AGAIN) from error
    except (OSError, zlib.error) as error:
        raise _refuse(path, f"damaged: {error}", WHOLE, AGAIN) from error
    return buffer


def _read_end(stream: BinaryIO, path: Path) -> None:
    """Read what follows the last voxel: that makes gzip check its checksum, and finds a file larger than announced."""
    try:
        left = len(stream.read(TRAILING + 1))
    except (EOFError, OSError, zlib.error) as error:
        raise _refuse(path, f"damaged or cut at its end: {error}", WHOLE, AGAIN) from error
    if left > TRAILING:
        got = f"more than {TRAILING} bytes after the last voxel"
        raise _refuse(path, got, "as many voxels as the header announces", "do not use the file; header and content disagree")


def _header(stream: BinaryIO, path: Path) -> Any:
    """Read and check the fixed header of a NIfTI file; the stream then stands behind it."""
    import nibabel

    block = bytes(_read(stream, 348, path))
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    kind = nibabel.Nifti1Header if 348 in sizes else nibabel.Nifti2Header if 540 in sizes else None
    if kind is nibabel.Nifti2Header:
        block += bytes(_read(stream, 540 - 348, path))
    try:
        found = kind(block, check=False) if kind else None
        if found is None or bytes(found["magic"])[:3] not in (b"n+1", b"n+2"):
            raise _refuse(path, "no NIfTI header", "a NIfTI-1 or NIfTI-2 single file", "convert it to NIfTI again")
        shape = tuple(int(size) for size in found.get_data_shape())
        dtype = found.get_data_dtype()
        found.get_slope_inter()
    except (nibabel.spatialimages.HeaderDataError, KeyError, ValueError) as error:
        raise _refuse(
            path, f"a header that makes no sense: {error}", "a valid NIfTI header", "convert it to NIfTI again"
        ) from error
    if dtype.kind not in "iufV" or (dtype.kind == "V" and dtype.names is None):
        raise _refuse(path, f"voxels of type {dtype}", "integers, floats or RGB", "convert it to a plain type")
    if not shape or min(shape) < 1 or not _volumes(shape):
        raise _refuse(path, f"the shape {shape}", "2 to 4 dimensions, each at least 1", "convert it to a 3D or 4D image")
    size, held = _offset(found) + int(np.prod(shape, dtype=object)) * dtype.itemsize, path.stat().st_size
    if size > held * (DEFLATE_RATIO if isinstance(stream, gzip.GzipFile) else 1):
        raise _refuse(path, f"{held} bytes, too few for the {size} announced", WHOLE, AGAIN)
    return found


def _offset(head: Any) -> int:
    """Where the voxels begin: behind the header and the 4 bytes that tell of extensions, or later."""
    declared = float(head["vox_offset"])
    return max(int(declared) if np.isfinite(declared) else 0, head.sizeof_hdr + 4)


def _volumes(shape: tuple[int, ...]) -> int:
    """Number of volumes of a stored shape: the fourth axis, or the fifth (vectors); 0 for what is no image."""
    rest = [size for size in shape[3:] if size > 1]
    return 0 if len(rest) > 1 or len(shape) < 2 else rest[0] if rest else 1


def _grid(shape: tuple[int, ...]) -> Shape3:
    """(X, Y, Z) of a stored shape."""
    x, y, z = (*(int(size) for size in shape[:3]), 1)[:3]
    return x, y, z


def _scaled(stored: NDArray[Any], head: Any) -> NDArray[np.float32]:
    """Apply slope and intercept: (X, Y, Z, C) as stored to (C, X, Y, Z) float32."""
    if stored.dtype.names is not None:
        stored = np.concatenate([stored[name] for name in stored.dtype.names[:3]], axis=-1)
    slope, intercept = head.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, intercept) != (1.0, 0.0):
            stored = stored.astype(np.float64) * slope + intercept
        return np.ascontiguousarray(np.moveaxis(stored, -1, 0), dtype=np.float32)


def _facts(head: Any) -> dict[str, Any]:
    """The dictionary that `header` returns."""
    import nibabel

    found: dict[str, Any] = {"orientation": ""}
    for form in ("sform", "qform"):
        found[f"{form}_code"] = int(head[f"{form}_code"])
        try:
            matrix = getattr(head, f"get_{form}")(coded=True)[0]
        except (nibabel.spatialimages.HeaderDataError, ValueError, np.linalg.LinAlgError):
            matrix = None
        found[form] = None if matrix is None else matrix.astype(np.float64).tolist()
    coded = found["sform_code"] > 0 or found["qform_code"] > 0
    best = found["sform"] or found["qform"] or (None if coded else head.get_base_affine().tolist())
    if best is not None and np.isfinite(best).all() and np.linalg.det(np.asarray(best)[:3, :3]) != 0:
        found["orientation"] = "".join(code or "?" for code in nibabel.aff2axcodes(np.asarray(best)))
    shape, dtype = tuple(int(size) for size in head.get_data_shape()), head.get_data_dtype()
    try:
        unit = str(head.get_xyzt_units()[0])
    except KeyError:
        unit = "unknown"
    return {
        "format": "nifti2" if head.sizeof_hdr == 540 else "nifti1",
        "dtype": str(dtype) if dtype.names is None else "RGB",
        "shape": list(_grid(shape)),
        "channels": _volumes(shape) * (1 if dtype.names is None else 3),
        "dimensions": len(shape),
        "spacing_mm": [*(float(size) for size in head.get_zooms()[:3]), 1.0][:3],
        "unit": unit,
        "affine": best,
        **found,
    }
