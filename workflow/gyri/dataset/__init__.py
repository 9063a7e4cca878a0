"""Stage `dataset`: from raw files and tables to one row per image.

Each format has a reader of its own, `read(source) -> Reading`; what follows is the same for all: paths and ids are checked,
groups and sites found, files and voxels hashed, and cohort.tsv and dataset.json written. Everything up to the hashing is cheap,
so the same checks run when the workflow is planned, before the first job.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gyri.config.datasets import BidsDataset, MsdDataset, ReadSettings, SyntheticDataset, TableDataset
from gyri.dataset import bids, identity, msd, table
from gyri.dataset.records import Reading, Record, check_files, check_ids
from gyri.errors import DataError
from gyri.images import NIFTI, suffix_of
from gyri.layout import Layout

# columns that gyri writes; a column of the user with one of these names is kept under `table_<name>`
IDENTITY = ("image_id", "participant_id", "group", "session_id", "site", "mask", "label", "fold", "role")
HASHES = ("sha256_file", "sha256_voxels", "sha256_labels")
RESERVED_BEGINNINGS = ("image_", "label_", "sha256_")


def sources(settings: ReadSettings, layout: Layout, dataset: str) -> list[Path]:
    """List every raw file and table of a dataset, and check all that can be checked without opening images.

    Args:
        settings: the dataset.
        layout: paths of the run.
        dataset: its name.

    Returns:
        The files, sorted; of a synthetic dataset, the manifest of its files.

    Raises:
        DataError: with every problem found.
    """
    if isinstance(settings.source, SyntheticDataset):
        return [layout.dataset(dataset, "synthetic.tsv")]
    return _collect(settings, layout, dataset)[0].files()


def count_images(settings: ReadSettings, layout: Layout, dataset: str) -> int:
    """Count a dataset's images without opening any."""
    return len(_collect(settings, layout, dataset)[0].records)


def run(settings: ReadSettings, layout: Layout, dataset: str, threads: int) -> dict[str, Any]:
    """Write cohort.tsv and dataset.json.

    Args:
        settings: the dataset.
        layout: paths of the run.
        dataset: its name.
        threads: images read at the same time; changes no byte.

    Returns:
        Counts for the provenance.

    Raises:
        DataError: with every problem found. An image that cannot be read is none: the audit reports it.
    """
    import pandas as pd

    from gyri.dataset.hashing import read_contents
    from gyri.io import write_json
    from gyri.tables import write_table

    reading, groups, sites = _collect(settings, layout, dataset)
    if settings.source.site in (None, "site"):
        reading.columns = [name for name in reading.columns if name != "site"]
    renamed = {name: f"table_{name}" for name in reading.columns if _is_reserved(name)}
    rows = [_row(*item, reading, renamed) for item in zip(reading.records, groups, sites, strict=True)]
    unnamed = [column for column, names in reading.labels.items() if not names]
    contents = read_contents(rows, reading.root, reading.facts.get("volume"), unnamed, threads)
    problems = [problem for content in contents for problem in content.problems]
    if problems:
        raise DataError(problems)
    for row, content in zip(rows, contents, strict=True):
        row |= {key: getattr(content, key) for key in HASHES}
    facts = _facts(settings, reading, dataset)
    facts["renamed_columns"] = renamed
    facts["labels"] = {
        column: names or _observed(set().union(*(content.values.get(column, set()) for content in contents)))
        for column, names in reading.labels.items()
    }
    facts["label_source"] = {column: "observed" if column in unnamed else "declared" for column in reading.labels}
    facts["channel_files"] = _channels(reading, [content.channels for content in contents])
    facts["channels"] = [name for names in facts["channel_files"].values() for name in names]
    ordered = [{key: value or None for key, value in row.items()} for row in sorted(rows, key=lambda row: row["image_id"])]
    write_table(layout.dataset(dataset, "cohort.tsv"), pd.DataFrame(ordered), "cohort")
    write_json(layout.dataset(dataset, "dataset.json"), facts)
    return {
        "images": len(rows),
        "participants": len({row["participant_id"] for row in rows}),
        "groups": len(set(groups)),
        "unreadable": sum(not row["sha256_voxels"] for row in rows),
    }


def _collect(settings: ReadSettings, layout: Layout, dataset: str) -> tuple[Reading, list[str], list[str]]:
    """Read and check the dataset; returns it with the group and site of each record."""
    source = settings.source
    default_group = None
    match source:
        case BidsDataset():
            reading = bids.read(source)
        case MsdDataset():
            reading = msd.read(source)
        case TableDataset():
            reading = table.read(source)
        case SyntheticDataset():
            reading, default_group = bids.read(_synthetic(source, layout.dataset(dataset, "bids"))), "family"
    check_ids(reading)
    check_files(reading)
    groups, sites = identity.assign(reading, source, dataset, default_group)
    if reading.problems:
        raise DataError(reading.problems)
    return reading, groups, sites


def _synthetic(source: SyntheticDataset, path: Path) -> BidsDataset:
    """A synthetic cohort is a BIDS dataset with known contrasts and label maps."""
    return BidsDataset(
        format="bids",
        path=str(path),
        images={contrast.lower(): {"suffix": contrast} for contrast in source.contrasts},
        labels={name: {"suffix": "dseg", "desc": desc} for name, desc in (("label", "tissue"), ("region", "region"))},
        group=source.group,
        site=source.site,
    )


def _is_reserved(name: str) -> bool:
    return name in IDENTITY or name.startswith(RESERVED_BEGINNINGS)


def _row(record: Record, group: str, site: str, reading: Reading, renamed: dict[str, str]) -> dict[str, str]:
    """One row of cohort.tsv, without the hashes."""
    return {
        "image_id": record.image_id,
        "participant_id": record.participant_id,
        "group": group,
        "session_id": record.session_id,
        "site": site,
        **{f"image_{channel}": path for channel, path in record.images.items()},
        **{column: record.labels.get(column, "") for column in reading.labels},
        "mask": record.mask,
        **{renamed.get(name, name): record.columns.get(name, "") for name in reading.columns},
    }


def _observed(values: set[int]) -> dict[str, str]:
    """Names for label values that nobody named."""
    return {str(value): "background" if value == 0 else f"label {value}" for value in sorted(values | {0})}


def _channels(reading: Reading, counts: list[dict[str, int]]) -> dict[str, list[str]]:
    """Channel of the configuration -> names of the channels inside its files; most files decide how many there are."""
    found = {}
    for channel in dict.fromkeys(name for record in reading.records for name in record.images):
        declared = reading.channels.get(channel)
        seen = Counter(count[f"image_{channel}"] for count in counts if f"image_{channel}" in count)
        number = max(seen, key=lambda count: (seen[count], -count)) if seen else 1
        picture = any(suffix_of(record.images[channel]) not in (*NIFTI, "") for record in reading.records)
        endings = "rgb" if number == 3 and picture else map(str, range(number))
        found[channel] = declared or ([channel] if number == 1 else [f"{channel}_{ending}" for ending in endings])
    return found


def _facts(settings: ReadSettings, reading: Reading, dataset: str) -> dict[str, Any]:
    """What is known of the dataset before its images are opened."""
    found = {"name": dataset, "description": "", "licence": "", "reference": "", "volume": None, "spacing_mm": None}
    found |= {key: value for key, value in reading.facts.items() if value not in ("", None)}
    return {**found, "format": settings.source.format, "root": str(reading.root), "mask": reading.has_mask}
