"""Pictures (PNG, TIFF, JPEG, ...) as 2D images: columns become X, rows become Y, both in the order of the file.

They hold no affine; the pixel size comes from the settings. Transparency is left out. Of a palette picture an image takes the
colours, a label map the indices.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError, Problem
from gyri.types import Affine, Shape3

TIFF = (".tif", ".tiff")
MAX_PIXELS = 89_478_485  # as Pillow warns at; more is refused before it is decoded, since a few kB can announce any size


def load(path: Path, volume: int | None = None, indices: bool = False) -> NDArray[np.float32]:
    """Open a picture.

    Args:
        path: the file.
        volume: page of a TIFF, from 0.
        indices: of a palette picture, take the indices instead of the colours.

    Returns:
        (C, X, Y, 1) with C = 1 (grey) or 3 (red, green, blue).
    """
    pixels = _read_tiff(path, volume) if path.suffix.lower() in TIFF else None
    if pixels is None:
        pixels = _read_pillow(path, volume, indices)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    # two bands are grey and transparency, four are colour and transparency
    pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
    return np.ascontiguousarray(pixels.transpose(2, 1, 0)[..., None], dtype=np.float32)


def affine(spacing_mm: tuple[float, float] | None) -> Affine:
    """The affine of a picture with this pixel size along X and Y in mm (1 mm if unknown)."""
    x, y = spacing_mm or (1.0, 1.0)
    return np.diag([float(x), float(y), 1.0, 1.0])


def header(path: Path) -> dict[str, Any]:
    """What a picture says about itself; see `gyri.images.header`."""
    shape, channels, dtype = _tiff_facts(path) if path.suffix.lower() in TIFF else _pillow_facts(path)
    return {"format": "picture", "dtype": dtype, "shape": list(shape), "channels": channels, "dimensions": 2}


def encode(labels: NDArray[Any], suffix: str) -> bytes:
    """A grey PNG or TIFF of labels.

    Args:
        labels: (X, Y, 1) uint8, uint16 (or int32, TIFF only).
        suffix: ".png", ".tif" or ".tiff".

    Returns:
        The bytes of the file; no time, name or software stands in it.
    """
    from PIL import Image

    pixels = np.ascontiguousarray(labels[..., 0].T)
    stream = io.BytesIO()
    if suffix in TIFF:
        import tifffile

        tifffile.imwrite(stream, pixels, photometric="minisblack", compression="zlib", metadata=None, software=False)
    else:
        Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _refuse(path: Path, got: str, expected: str, remedy: str) -> DataError:
    return DataError(Problem(str(path), got, expected, remedy))


def _unreadable(path: Path, error: Exception) -> DataError:
    return _refuse(path, f"cannot be read: {error}", "a whole, readable picture", "copy it again, or export it as PNG or TIFF")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _refuse(path, f"{width} x {height} pixels", f"at most {MAX_PIXELS} pixels", "cut the picture into pieces")


def _open_pillow(path: Path) -> Any:
    from PIL import Image

    try:
        picture = Image.open(path)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    _check_size(path, *picture.size)
    return picture


def _read_pillow(path: Path, volume: int | None, indices: bool) -> NDArray[Any]:
    """(Y, X) or (Y, X, bands) as Pillow decodes it."""
    with _open_pillow(path) as picture:
        pages = getattr(picture, "n_frames", 1)
        _check_pages(path, pages, volume)
        try:
            picture.seek((volume or 0) if pages > 1 else 0)
            picture.load()
            if picture.mode in ("P", "PA") and not indices:
                picture = picture.convert("RGB")
            if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L"):
                picture = picture.convert("RGB")
            return np.asarray(picture)
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise _unreadable(path, error) from error


def _check_pages(path: Path, pages: int, volume: int | None) -> None:
    if volume is None and pages > 1:
        raise _refuse(path, f"{pages} pages", "one picture", "choose the page with `volume` (counted from 0)")
    if volume is not None and volume >= pages > 1:
        raise _refuse(path, f"{pages} pages", f"a page {volume} (counted from 0)", "choose another `volume`")


def _pillow_facts(path: Path) -> tuple[Shape3, int, str]:
    with _open_pillow(path) as picture:
        width, height = picture.size
        colours = 1 if picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;16") else 3
        return (width, height, 1), colours, picture.mode


def _read_tiff(path: Path, volume: int | None) -> NDArray[Any] | None:
    """(Y, X) or (Y, X, bands); None where tifffile lacks the decoder and Pillow may have it."""
    import tifffile

    shape = _tiff_facts(path)[0]
    _check_size(path, *shape[:2])
    try:
        with tifffile.TiffFile(path) as file:
            _check_pages(path, len(file.pages), volume)
            page = file.pages[(volume or 0) if len(file.pages) > 1 else 0]
            palette = getattr(page, "photometric", None) == tifffile.PHOTOMETRIC.PALETTE
            pixels = page.asarray()
            planar = pixels.ndim == 3 and int(page.planarconfig) == 2  # type: ignore[union-attr]
    except DataError:
        raise
    except Exception as error:
        if "imagecodecs" in str(error):
            return None
        # damaged files make tifffile raise whatever its decoders raise
        raise _unreadable(path, error) from error
    return None if palette else np.moveaxis(pixels, 0, -1) if planar else pixels


def _tiff_facts(path: Path) -> tuple[Shape3, int, str]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            width, height, samples = int(page.imagewidth), int(page.imagelength), int(page.samplesperpixel)  # type: ignore[union-attr]
            colours = 3 if samples >= 3 or page.photometric == tifffile.PHOTOMETRIC.PALETTE else 1  # type: ignore[union-attr]
            return (width, height, 1), colours, str(page.dtype)
    except Exception as error:  # as above
        raise _unreadable(path, error) from error
