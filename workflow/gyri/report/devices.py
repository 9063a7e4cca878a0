"""What trainings did with the devices they ran on: what was used of GPUs, and batches that were changed for want of memory."""

from __future__ import annotations

from typing import Any

from gyri.progress import duration
from gyri.report.source import Source
from gyri.usage import total

WATT_HOURS = 1 / 3600  # of a joule
COLUMNS = ["#GPU time", "#GPU busy (%)", "#GPU memory (MB)", "#GPU energy (Wh)"]
NOT_MEASURED = "GPU time, memory, utilisation and energy: not measured"


def used(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What some jobs used of their GPUs together; empty where nothing was measured."""
    found = [_accelerator(record) for record in records]
    return total([item for item in found if isinstance(item, dict)])


def cells(records: list[dict[str, Any]]) -> list[str]:
    """One cell for each of `COLUMNS`."""
    found = used(records)
    if not found:
        return ["n/a"] * len(COLUMNS)
    energy = None if found["energy_j"] is None else found["energy_j"] * WATT_HOURS
    busy, memory = found["utilisation_percent"], found["memory_peak_mb"]
    shown = ("n/a" if value is None else f"{value:.{digits}f}" for value, digits in ((busy, 0), (memory, 0), (energy, 1)))
    return [duration(found["seconds"]), *shown]


def columns(record: dict[str, Any]) -> dict[str, Any]:
    """What one job used of its GPU, for the table behind the page."""
    found = used([record])
    names = {"gpu_seconds": "seconds", "gpu_utilisation_percent": "utilisation_percent", "gpu_memory_peak_mb": "memory_peak_mb"}
    return {column: found.get(name) for column, name in {**names, "gpu_energy_j": "energy_j"}.items()}


def note(records: list[dict[str, Any]]) -> str:
    """One sentence on the use of GPUs; that nothing was measured is said as well, with the reason."""
    found = used(records)
    if not found:
        reasons = sorted({item.partition(": ")[2] for item in map(_accelerator, records) if isinstance(item, str)} - {""})
        return f"{NOT_MEASURED} ({'; '.join(reasons) or 'no job on a GPU'})."
    text = f"GPU: {duration(found['seconds'])} in all on {found['name']}"
    if found["energy_j"] is not None:
        text += f", {found['energy_j'] * WATT_HOURS:.1f} Wh"
    return text + (", shared with other jobs: utilisation and energy are those of the whole card." if found["shared"] else ".")


def changed(source: Source) -> list[dict[str, Any]]:
    """Provenance of the trainings that another number of images at once made another training of."""
    return [record for record in _trainings(source) if _facts(record).get("changed_batch")]


def in_parts(source: Source) -> list[dict[str, Any]]:
    """Provenance of the trainings that ran out of memory and went on in smaller parts."""
    return [record for record in _trainings(source) if _facts(record).get("out_of_memory")]


def named(records: list[dict[str, Any]]) -> str:
    """Trainings in words, the first few."""
    texts = [
        "{model} (fold {fold}, seed {seed}: {0} images at once)".format(_facts(record).get("micro_batch"), **record)
        for record in records
    ]
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


def allowed(source: Source) -> bool:
    """Whether such trainings were compared with the rest, since the configuration says so."""
    records = [record for record in source.provenance if record.get("stage") == "evaluate"]
    return any((record.get("settings") or {}).get("allow_changed_batch") for record in records)


def _trainings(source: Source) -> list[dict[str, Any]]:
    return [record for record in source.provenance if record.get("stage") == "train"]


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    return record.get("facts") or {}


def _accelerator(record: dict[str, Any]) -> Any:
    return _facts(record).get("accelerator")
