"""What of an image may be shown, and what of its names: brains, never faces; pseudonyms where they are asked for."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Bools: TypeAlias = NDArray[np.bool_]
Spacing3: TypeAlias = tuple[float, float, float]
FACELESS_MM = 100.0
"""An image whose longest edge is shorter cannot hold a face, and is shown whole."""
NEAR_MM = 10.0
"""Around labels that are not all of a brain (a hippocampus, a tumour), where it is deep."""
DEPTH_MM = 40.0
"""What lies deeper in the head than this belongs to no face: the fat behind an eye reaches 35 mm, an eye 26 mm, skin less."""
AIR_SHARE = 0.25
"""Voxels darker than this share of the image's range are air where they are connected with its border."""
COARSE_MM = 3.0
"""Voxel edge on which depth is measured; the result is drawn in by as much."""
IDS = ("image_id", "participant_id", "group", "session_id")
"""Columns that name a person or an image."""
LETTERS = 10
"""Hexadecimal digits of a pseudonym: among 10,000 names two would be alike in 1 of 20,000 runs."""
_TOKEN = re.compile(r"[^\W_][\w.+-]*")
_KEPT = re.compile(
    r"(<style>.*?</style>|<script\b.*?</script>|base64,[^\"']*|data-(?:image|truth|prediction)=\"[^\"]*\")", re.DOTALL
)
_TABLE = re.compile(r"(data:text/[^,\"]*;base64,)([A-Za-z0-9+/=]+)")
_SAID = re.compile(r'(?<=>)[^<]+|(?<=aria-label=")[^"]+')


def visible(image: NDArray[np.floating], labels: NDArray[Any], mask: NDArray[Any] | None, spacing: Spacing3) -> tuple[Bools, str]:
    """Voxels that may be drawn.

    Args:
        image: (X, Y, Z) grey values.
        labels: (X, Y, Z) of all label maps that somebody drew; not predictions, since a bad model may mark a face.
        mask: (X, Y, Z) of the brain, where the dataset has one.
        spacing: voxel edges in mm.

    Returns:
        (X, Y, Z), and how they were chosen, in words.
    """
    if mask is not None and mask.any():
        return mask > 0, "inside the brain mask"
    if max(size * edge for size, edge in zip(image.shape, spacing, strict=True) if size > 1) < FACELESS_MM:
        return np.ones(image.shape, bool), "all of it: it is too small to hold a face"
    inner = deep(image, spacing)
    if labels.any():
        from scipy.ndimage import distance_transform_edt

        near = distance_transform_edt(labels == 0, sampling=spacing) <= NEAR_MM
        return (labels > 0) | (near & inner), "labelled voxels, and what is near them and deep in the head"
    return inner, f"what lies at least {DEPTH_MM:.0f} mm deep (the dataset has neither brain mask nor labels)"


def deep(image: NDArray[np.floating], spacing: Spacing3) -> Bools:
    """Voxels that lie at least `DEPTH_MM` away from air and from the image's border.

    Bone and fluid are as dark as air; they count as air only where dark voxels connect them with the border, and then less is shown.
    """
    from scipy.ndimage import distance_transform_edt, label

    steps = [max(1, int(COARSE_MM // edge)) for edge in spacing]
    small = np.nan_to_num(image[tuple(slice(None, None, step) for step in steps)])
    low, high = np.percentile(small, [2, 98])
    # outside of the image is air; a plane has no outside above and below
    rim = [(1, 1) if size > 1 else (0, 0) for size in small.shape]
    pieces, _ = label(np.pad(small <= low + AIR_SHARE * (high - low), rim, constant_values=True))
    tissue = pieces != pieces[0, 0, 0]
    inside = tuple(slice(1, -1) if size > 1 else slice(None) for size in small.shape)
    edges = [edge * step for edge, step in zip(spacing, steps, strict=True)]
    depth = distance_transform_edt(tissue, sampling=edges)[inside] if tissue.any() else np.zeros(small.shape)
    # a coarse voxel stands for finer ones up to a diagonal away
    coarse = depth >= DEPTH_MM + math.hypot(*(edge for edge, step in zip(edges, steps, strict=True) if step > 1))
    for axis, step in enumerate(steps):
        coarse = np.repeat(coarse, step, axis=axis).take(range(image.shape[axis]), axis=axis)
    return coarse


class Names:
    """How images, persons and groups are called on a page, and which folders are never named.

    Args:
        salt: of the pseudonyms, so that another configuration gives others; none: names stay as they are.
    """

    def __init__(self, salt: str | None):
        self.salt = salt
        self.known: dict[str, str] = {}
        self.folders: list[str] = []

    def shown(self, name: object) -> str:
        """A name as the page shows it."""
        text = str(name)
        if self.salt is None or not text:
            return text
        name = "x" + hashlib.sha256(f"{self.salt}\0{text}".encode()).hexdigest()[:LETTERS]
        if len(text) > 2 and not (text.isdigit() and len(text) < 5):
            # shorter ones and small numbers are also words and counts, which must stay readable
            self.known[text] = name
        return name

    def hide(self, folder: Path) -> None:
        """Never show where on the computer this folder is; what lies below it keeps its name."""
        if folder.is_absolute() and len(folder.parts) > 1:
            self.folders.append(f"{folder}/")

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The table with every id replaced in the columns that hold ids."""
        if self.salt is None:
            return rows
        rows = rows.copy()
        for column in [name for name in IDS if name in rows]:
            rows[column] = rows[column].map(lambda name: name if pd.isna(name) else self.shown(name))
        return rows

    def text(self, words: str) -> str:
        """Words without folders, in which every known id is replaced, alone or as the beginning of a file's name."""
        for folder in self.folders:
            words = words.replace(folder, "")
        return _TOKEN.sub(lambda found: self._token(found[0]), words) if self.known else words

    def page(self, text: str) -> str:
        """A page cleaned like `text` in what is seen, read out, and saved as a table; pictures, styles and scripts stay."""
        parts = _KEPT.split(_TABLE.sub(lambda found: found[1] + self._table(found[2]), text))
        parts[::2] = [_SAID.sub(lambda found: self._escaped(found[0]), part) for part in parts[::2]]
        return "".join(parts)

    def content(self, value: Any) -> Any:
        """Lists, dictionaries and strings for a JSON file, cleaned like `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.content(item) for key, item in value.items()}
        return [self.content(item) for item in value] if isinstance(value, list | tuple) else value

    def _token(self, token: str) -> str:
        end = len(token)
        while end > 0:
            if token[:end] in self.known:
                return self.known[token[:end]] + token[end:]
            end = max(token.rfind(mark, 0, end) for mark in "_.-+")
        return token

    def _escaped(self, escaped: str) -> str:
        words = html.unescape(escaped)
        changed = self.text(words)
        return escaped if changed == words else html.escape(changed)

    def _table(self, encoded: str) -> str:
        words = base64.b64decode(encoded).decode()
        changed = self.text(words)
        return encoded if changed == words else base64.b64encode(changed.encode()).decode()
