"""What the stage `explain` left of each network, read for the page."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.io import read_array
from gyri.report.cases import packed_volumes
from gyri.report.parts import Lost, Missing
from gyri.report.privacy import Spacing3, visible
from gyri.report.source import Source

TITLES = {"gradient": "gradient", "occlusion": "occlusion", "class_activation": "class activation"}
SPACES = {
    "MNI152": "In MNI152 space: every image was registered to the template (affine).",
    "network": "On the network\u2019s grid, not in template space: images were not registered, so a place need not be the same anatomy in all.",
}
ALIKE = 0.7
"""Rank correlation from which random weights explain half of the variance of the ranks (0.7 squared) or more."""
MOST_AVERAGED = 24
"""Images behind the grey mean at most; the maps are averaged over all."""


@dataclass(frozen=True)
class Explained:
    """The maps of one network.

    Args:
        model: its name.
        facts: saliency.json.
        table: saliency.tsv.
        regions: regions.tsv.
        means: (X, Y, Z, V), as `facts["volumes"]` says.
        maps: (M, X, Y, Z), by the column `map` of the table.
    """

    model: str
    facts: dict[str, Any]
    table: pd.DataFrame
    regions: pd.DataFrame
    means: NDArray[np.float32]
    maps: NDArray[np.float32]

    @property
    def methods(self) -> list[str]:
        """Those that were made."""
        return list(self.facts["methods"])

    def mean(self, method: str, randomized: str) -> tuple[NDArray[np.float32], int]:
        """The mean map of a method, and of how many maps."""
        for place, item in enumerate(self.facts["volumes"]):
            if (item["method"], item["randomized"]) == (method, randomized):
                return self.means[..., place], int(item["maps"])
        raise Missing(f"means.nii.gz has no {method}")

    def rows(self, method: str, randomized: str) -> pd.DataFrame:
        """The maps of a method."""
        return self.table[(self.table["method"] == method) & (self.table["randomized"] == randomized)]


def explained(source: Source) -> list[Explained]:
    """The networks with saliency maps.

    Raises:
        Missing: none was asked for.
        Lost: a file of one is not there.
    """
    settings = source.settings
    if settings.task not in ("classification", "regression"):
        raise Missing("saliency maps explain one number per image, so they are made for classification and regression")
    if not settings.explained:
        reason = "`saliency.methods` is empty" if source.networks else "baselines are not explained, and no network was trained"
        raise Missing(f"no maps were asked for: {reason}")
    try:
        return [_read(source, model) for model in settings.explained]
    except Missing as gap:
        raise Lost(str(gap)) from gap


def _read(source: Source, model: str) -> Explained:
    import nibabel

    def path(name: str) -> Any:
        found = source.layout.saliency(source.settings.experiment, model, name)
        if not found.is_file():
            raise Missing(f"{source.name(found)} is not there")
        return found

    facts = source.json(path("saliency.json"))
    try:
        # all at once: one volume after the other would unpack the file each time
        means = np.asarray(nibabel.load(path("means.nii.gz")).dataobj, np.float32)  # type: ignore[attr-defined]
        maps = read_array(path("maps.npy"))
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, ValueError) as error:
        raise Missing(f"the maps of {model} cannot be read: {error}") from error
    table, regions = (source.table(path(name)) for name in ("saliency.tsv", "regions.tsv"))
    return Explained(model, facts, table, regions, means, maps)


@dataclass(frozen=True)
class Ground:
    """The grey picture below a map.

    Args:
        grey: (X, Y, Z) within [0, 1]; NaN where nothing may be shown.
        spacing: voxel edges in mm.
        shown: which voxels are shown, in words.
    """

    grey: NDArray[np.floating]
    spacing: Spacing3
    shown: str


def ground_of(source: Source, image_id: str) -> Ground:
    """One image, with what may not be shown left out."""
    image, labels, mask, spacing = packed_volumes(source, image_id)
    allowed, words = visible(image, labels, mask, spacing)
    if not allowed.any():
        raise Missing("nothing of this image can be shown without showing a face")
    return Ground(_grey(np.where(allowed, image, np.float32(np.nan))), spacing, words)


def mean_ground(source: Source, image_ids: list[str]) -> Ground:
    """The mean of images, each with what may not be shown left out; voxels shown in fewer than half of them are left out too."""
    parts = [ground_of(source, image_id) for image_id in image_ids[:MOST_AVERAGED]]
    volumes = np.stack([part.grey for part in parts])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # voxels shown in no image
        mean = np.nanmean(volumes, axis=0)
    often = np.isfinite(volumes).mean(axis=0) >= 0.5
    return Ground(np.where(often, mean, np.nan), parts[0].spacing, parts[0].shown)


def _grey(volume: NDArray[np.floating]) -> NDArray[np.floating]:
    low, high = np.nanpercentile(volume, [1, 99.5])
    return np.clip((volume - low) / max(float(high - low), 1e-9), 0, 1)
