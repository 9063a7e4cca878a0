"""What ran where, with which versions, and how to do it again."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd
from markupsafe import Markup

from gyri.progress import duration
from gyri.report import devices
from gyri.report.parts import NONE, Missing, Reportlet, Table
from gyri.report.software import sentences
from gyri.report.source import Source, rank


def jobs(source: Source) -> Reportlet:
    """One row per stage (and model): how many jobs, where, how long, how much memory."""
    records = _records(source)
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        grouped[(str(record.get("stage")), str(record.get("model", "")))].append(record)
    body = []
    order = sorted(grouped, key=lambda pair: (rank(pair[0]), pair[1]))
    for stage, model in order:
        body.append(_job_row(source, stage, model, grouped[(stage, model)]))
    total = sum(_number(record, "seconds") for record in records)
    columns = ["Stage", "Model", "#Jobs", "Device", "Processor", "#Time in all", "#Longest job", "#Largest memory (MB)", "Code"]
    if devices.used(records):
        columns[-1:-1] = devices.COLUMNS
        for row, key in zip(body, order, strict=True):
            row[-1:-1] = devices.cells(grouped[key])
    processors = _words(records, "host_kind")
    if len({row[4] for row in body}) == 1:
        columns.remove("Processor")
        body = [[*row[:4], *row[5:]] for row in body]
    table = Table(columns, body, "What ran where", classes="sortable")
    memory = max(_number(record, "peak_memory_mb") for record in records)
    notes = [
        f"{len(records)} jobs, {duration(total)} in all (jobs may have run side by side); largest memory {memory:.0f} MB.",
        f"Processor: {processors}.",
        devices.note(records),
    ]
    return Reportlet(tables=[table], data=_flat(records), notes=notes)


def _records(source: Source) -> list[dict[str, Any]]:
    records = [record for record in source.provenance if record.get("stage") not in (None, "report", "index")]
    if not records:
        raise Missing("no provenance file was found")
    return records


def _number(record: dict[str, Any], name: str) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _words(records: list[dict[str, Any]], name: str) -> str:
    found = sorted({str(record[name]) for record in records if record.get(name)})
    return ", ".join(found) or "n/a"


def _job_row(source: Source, stage: str, model: str, records: list[dict[str, Any]]) -> list[object]:
    seconds = [_number(record, "seconds") for record in records]
    memory = max(_number(record, "peak_memory_mb") for record in records)
    return [
        stage,
        source.label(model) if model else NONE,
        len(records),
        _words(records, "device"),
        _words(records, "host_kind"),
        duration(sum(seconds)),
        duration(max(seconds)),
        f"{memory:.0f}" if memory else "n/a",
        Markup("<code>{}</code>").format(_words(records, "code")[:40]),
    ]


def _flat(records: list[dict[str, Any]]) -> pd.DataFrame:
    names = ["stage", "dataset", "experiment", "model", "fold", "seed", "device", "host_kind", "started"]
    names += ["seconds", "cpu_seconds", "peak_memory_mb", "code", "environment", "file"]
    rows = [{name: record.get(name) for name in names} for record in records]
    return pd.DataFrame([{**row, **devices.columns(record)} for row, record in zip(rows, records, strict=True)])


def versions(source: Source) -> Reportlet:
    """Software versions; a package with several is marked."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in _records(source):
        for name, version in (record.get("versions") or {}).items():
            found[name][str(version)].add(str(record.get("stage")))
    if not found:
        raise Missing("no provenance file names versions")
    body, data = [], []
    for name in sorted(found, key=lambda item: (item not in ("gyri", "python", "torch"), item.lower())):
        kinds = found[name]
        text = ", ".join(sorted(kinds))
        body.append([name, text if len(kinds) == 1 else Markup("<strong>{}</strong> (several)").format(text)])
        data += [
            {"package": name, "version": version, "stages": " ".join(sorted(stages))} for version, stages in sorted(kinds.items())
        ]
    table = Table(["Package", "Version"], body, "Software versions", classes="compact")
    return Reportlet(tables=[table], data=pd.DataFrame(data), notes=sentences(source))


def training_cost(source: Source) -> pd.DataFrame:
    """Per model: seconds of all its trainings, and the largest memory; columns model, seconds, trainings, memory_mb."""
    rows = []
    records = [record for record in source.provenance if record.get("stage") == "train"]
    for model in source.settings.models:
        own = [record for record in records if record.get("model") == model]
        if own:
            rows.append(
                {
                    "model": model,
                    "seconds": sum(_number(record, "seconds") for record in own),
                    "trainings": len(own),
                    "memory_mb": max(_number(record, "peak_memory_mb") for record in own),
                }
            )
    return pd.DataFrame(rows, columns=["model", "seconds", "trainings", "memory_mb"])
