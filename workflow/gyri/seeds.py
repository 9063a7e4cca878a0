"""Every random draw comes from a generator whose seed is derived from what it is for."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """Turn (config seed, fold, model, purpose, ...) into one seed.

    Args:
        parts: strings and integers; their order matters.

    Returns:
        An integer in [0, 2**63), the same on every machine and in every process.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose; see `derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))
