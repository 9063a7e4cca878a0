"""What several sessions of a training used of their GPUs, together. Pages read it too, so nothing here imports torch or NVML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def total(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several sessions of one training together.

    Args:
        sessions: what `gyri.accelerator.Meter.facts` gave in each.

    Returns:
        Sums of times and energies (None where a session has none), largest memories, the mean utilisation weighted by time; empty
        where there is no session.
    """
    if not sessions:
        return {}
    seconds = sum(item["seconds"] for item in sessions)
    busy = _sum(
        [None if item["utilisation_percent"] is None else item["utilisation_percent"] * item["seconds"] for item in sessions]
    )
    found: dict[str, Any] = {
        name: ", ".join(dict.fromkeys(str(item[name]) for item in sessions)) for name in ("name", "driver", "energy_from")
    }
    for name in ("memory_peak_mb", "device_memory_peak_mb"):
        found[name] = max((item[name] for item in sessions if item[name] is not None), default=None)
    energy = _sum([item["energy_j"] for item in sessions])
    return {
        **found,
        "seconds": round(seconds, 1),
        "samples": sum(item["samples"] for item in sessions),
        "utilisation_percent": None if busy is None or not seconds else round(busy / seconds, 1),
        "energy_j": None if energy is None else round(energy, 1),
        "shared": any(item["shared"] for item in sessions),
        "sessions": len(sessions),
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
