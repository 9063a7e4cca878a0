"""What was fitted on a fold's training participants, applied to any image of that fold; see `gyri.normalize` for the fitting.

NumPy only. Arrays may also be torch tensors: the statistics are then brought to the tensor's device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.io import read_json, read_tensors

ARRAYS = {
    "global": (),
    "none": (),
    "voxel": ("mean", "std"),
    "pca": ("mean", "components", "scale"),
    "zca": ("mean", "components", "scale"),
}


class Normalization:
    """The normalization of one fold.

    Args:
        description: content of normalization.json: `method`; `mean` and `std`, one per channel.
        arrays: content of normalization.safetensors: `mean` and `std` (C, X, Y, Z) for voxel; `mean` (D,), `components` (K, D) and
            `scale` (K,) for pca and zca, where D = C * patch voxels in (C, X, Y, Z) order.

    Raises:
        ValueError: the arrays are not those of the method.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]):
        self.description = dict(description)
        self.method: str = self.description["method"]
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        if sorted(self.arrays) != sorted(ARRAYS[self.method]):
            raise ValueError(f"normalization {self.method} needs {ARRAYS[self.method]}, got {sorted(self.arrays)}")
        self._moved: dict[tuple[str, str], Any] = {}

    @classmethod
    def load(cls, folder: Path) -> Normalization:
        """Read normalization.json and normalization.safetensors of a fold's folder."""
        folder = Path(folder)
        return cls(read_json(folder / "normalization.json"), read_tensors(folder / "normalization.safetensors"))

    def apply(self, x: Any) -> Any:
        """Normalize whole images.

        global: (x - mean) / std with one mean and std per channel; voxel: one per voxel; none: unchanged. pca and zca whiten
        patches, not images: whole images get the global standardization, which is also the first step of the whitening.

        Args:
            x: (B, C, X, Y, Z) preprocessed images, NumPy array or torch tensor.

        Returns:
            float32 of the same shape and kind.
        """
        x = _float32(x)
        if self.method == "none":
            return x
        if self.method == "voxel":
            return (x - self._like("mean", self.arrays["mean"], x)) / self._like("std", self.arrays["std"], x)
        return (x - self._channels("mean", x)) / self._channels("std", x)

    def whiten_patches(self, patches: Any) -> Any:
        """Whiten patches of preprocessed images (before `apply`).

        Args:
            patches: (B, C, p, p, p) with the edge that was fitted ((B, C, p, p, 1) for planes), NumPy array or torch tensor.

        Returns:
            pca: (B, K) uncorrelated components of variance 1, the largest first; zca: whitened patches of the input's shape.

        Raises:
            ValueError: another method, or patches of another size.
        """
        if self.method not in ("pca", "zca"):
            raise ValueError(f"normalization {self.method} whitens no patches")
        x = _float32(patches)
        flat = ((x - self._channels("mean", x)) / self._channels("std", x)).reshape(len(x), -1)
        mean, components = self._like("mean", self.arrays["mean"], flat), self._like("components", self.arrays["components"], flat)
        if flat.shape[1] != mean.shape[0]:
            raise ValueError(f"patches of {flat.shape[1]} values, fitted on {mean.shape[0]}")
        scores = (flat - mean) @ components.T * self._like("scale", self.arrays["scale"], flat)
        return scores if self.method == "pca" else (scores @ components).reshape(x.shape)

    def _channels(self, name: str, x: Any) -> Any:
        """One value per channel, shaped to broadcast."""
        values = np.asarray(self.description[name], np.float32).reshape(1, -1, *[1] * (x.ndim - 2))
        return self._like(f"channels {name}", values, x)

    def _like(self, key: str, array: NDArray[Any], x: Any) -> Any:
        """The array as x is: float32 NumPy, or a tensor on x's device (kept for the next call)."""
        if isinstance(x, np.ndarray):
            return np.asarray(array, np.float32)
        place = (f"{key} {array.ndim}", str(x.device))
        if place not in self._moved:
            self._moved[place] = x.new_tensor(np.asarray(array, np.float32))
        return self._moved[place]


def _float32(x: Any) -> Any:
    return np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x.float()
