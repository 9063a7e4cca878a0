"""On which machines jobs ran, and what of their GPUs was measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

from gyri.progress import duration
from gyri.report import devices
from gyri.report.parts import Missing, Reportlet, Table
from gyri.report.source import Source

UNKNOWN = "not recorded"


def machines(source: Source) -> Reportlet:
    """One row per kind of machine: processor, cores, memory, GPU, driver, what ran there, and energy."""
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in source.provenance:
        if record.get("stage") not in (None, "report", "index"):
            grouped[_machine(record)].append(record)
    if not grouped:
        raise Missing("no provenance file was found")
    rows = [_row(machine, records) for machine, records in sorted(grouped.items())]
    columns = [
        "Processor",
        "#Cores",
        "#Memory (GB)",
        "GPU",
        "Driver",
        "Stages",
        "#Jobs",
        "#Processor time",
    ]
    table = Table([*columns, "GPU energy"], rows, "Machines")
    names = [name.lstrip("#").lower().replace(" ", "_") for name in table.columns]
    note = devices.note([record for records in grouped.values() for record in records])
    notes = [note, "Energy of processors: not measured. Cores are those that a job might use, memory is all of the machine's."]
    return Reportlet(tables=[table], data=pd.DataFrame(rows, columns=names), notes=notes)


def _machine(record: dict[str, Any]) -> tuple[str, ...]:
    gpu = (record.get("facts") or {}).get("accelerator")
    name, driver = (gpu.get("name", UNKNOWN), gpu.get("driver", UNKNOWN)) if isinstance(gpu, dict) else _without(record)
    memory = record.get("memory_total_mb")
    gigabytes = f"{memory / 1024:.0f}" if isinstance(memory, int | float) else UNKNOWN
    return str(record.get("host_kind", UNKNOWN)), str(record.get("cores", UNKNOWN)), gigabytes, str(name), str(driver)


def _without(record: dict[str, Any]) -> tuple[str, str]:
    """A job whose GPU was not measured, or that had none."""
    device = str(record.get("device", "cpu"))
    return ("none", "none") if device == "cpu" else (device, UNKNOWN)


def _row(machine: tuple[str, ...], records: list[dict[str, Any]]) -> list[object]:
    stages = ", ".join(dict.fromkeys(str(record.get("stage")) for record in records))
    seconds = sum(float(record["cpu_seconds"]) for record in records if isinstance(record.get("cpu_seconds"), int | float))
    energy = devices.used(records).get("energy_j")
    used = "not measured" if energy is None else f"{energy * devices.WATT_HOURS:.3g} Wh"
    return [*machine, stages, len(records), duration(seconds), used]
