"""Reader of a table that names the image files: TSV or CSV, with whatever further columns it has."""

from __future__ import annotations

from pathlib import Path

from gyri.config.datasets import TableDataset
from gyri.dataset import plain_tables
from gyri.dataset.records import Reading, Record, label_column, relative_path
from gyri.errors import Problem, nearest
from gyri.images import stem_of


def read(source: TableDataset) -> Reading:
    """Read a table of images.

    Args:
        source: the dataset of the configuration.

    Returns:
        One record per row; problems are collected in it.
    """
    path = Path(source.path)
    reading = Reading(path.parent, str(path), tables=[path], has_mask=source.mask is not None)
    reading.labels = {
        label_column(name): {str(value): text for value, text in sorted(source.label_values.get(name, {}).items())}
        for name in source.labels
    }
    reading.facts = {"volume": source.volume, "spacing_mm": list(source.spacing_mm) if source.spacing_mm else None}
    table = plain_tables.read(path, reading.problems)
    if not table.columns:
        return reading
    used = _used_columns(source, table, reading.problems)
    missing = {name for name in used.values() if name not in table.columns}
    for line, row in zip(table.lines, table.rows, strict=True):
        reading.records.append(_record(source, row, f"{path}, line {line}", reading, missing))
    # the defaults are used up too where they stand in the table under their own name
    reading.columns = [name for name in table.columns if name not in used.values()]
    return reading


def _used_columns(source: TableDataset, table: plain_tables.Table, problems: list[Problem]) -> dict[str, str]:
    """Configuration key -> column, for the columns that become ids and paths; those that must be there are checked."""
    used = {f"images.{channel}": column for channel, column in source.images.items()}
    used |= {f"labels.{name}": column for name, column in source.labels.items()}
    used |= {"mask": source.mask} if source.mask else {}
    needed = dict(used)
    for key, default in (("image_id", "image_id"), ("participant", "participant_id"), ("session", "session_id")):
        used[key] = getattr(source, key)
        # the default names may be absent; a name that the user chose may not
        if used[key] != default:
            needed[key] = used[key]
    for key, column in needed.items():
        if column not in table.columns:
            where = f"{table.path} (asked for by `{key}`)"
            problems.append(Problem(where, f"no column `{column}`", "a column with that name", nearest(column, table.columns)))
    unknown = sorted(set(source.label_values) - set(source.labels))
    for name in unknown:
        where = f"{table.path}: label_values.{name}"
        problems.append(Problem(where, f"a label image `{name}`", "a name under `labels`", nearest(name, source.labels)))
    return used


def _record(source: TableDataset, row: dict[str, str], where: str, reading: Reading, missing: set[str]) -> Record:
    def path(column: str) -> str:
        return relative_path(row.get(column, ""), reading.root, f"{where}, column {column}", reading.problems)

    images = {channel: path(column) for channel, column in source.images.items()}
    given = [row.get(column, "") for column in source.images.values()]
    if not any(given) and not missing & set(source.images.values()):
        names = ", ".join(source.images.values())
        reading.problems.append(
            Problem(where, f"no path in {names}", "the file of at least one channel", "fill it, or remove the row")
        )
    name = row.get(source.image_id, "")
    if source.image_id in missing or source.image_id not in row:
        name = stem_of(next((text for text in given if text), "")) or where.rsplit(" ", 1)[-1]
    return Record(
        image_id=name,
        where=where,
        participant_id=row.get(source.participant, ""),
        session_id=row.get(source.session, ""),
        images=images,
        labels={label_column(label): path(column) for label, column in source.labels.items()},
        mask=path(source.mask) if source.mask else "",
        columns=row,
    )
