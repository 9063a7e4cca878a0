"""Who is who: participants, the groups that must not be split, and sites."""

from __future__ import annotations

from gyri.config.datasets import Dataset
from gyri.dataset.grouping import Expression, evaluate, first_number, parse
from gyri.dataset.records import Reading, Record
from gyri.errors import ConfigError, Problem, nearest, shown


def assign(reading: Reading, source: Dataset, name: str, default_group: str | None = None) -> tuple[list[str], list[str]]:
    """Give every record its participant, group and site; problems go to `reading.problems`.

    Args:
        reading: the dataset; participants that are unknown become the group, or the image itself.
        source: its settings `group` and `site`.
        name: what the configuration calls the dataset, for messages.
        default_group: column to take where the settings name none.

    Returns:
        The group and the site of each record, in order. `reading.facts` gets identity, group_source and site_source.
    """
    known = [record for record in reading.records if record.participant_id]
    if known and len(known) < len(reading.records):
        lacking = shown([record.image_id for record in reading.records if not record.participant_id])
        remedy = "fill in the participant of every image, or leave the column out"
        reading.problems.append(Problem(reading.listing, f"no participant for {lacking}", "a participant for every image", remedy))
    groups = _groups(reading, source.group or default_group, name)
    reading.facts["identity"] = "known" if known or groups is not None else "assumed"
    for index, record in enumerate(reading.records):
        record.participant_id = record.participant_id or (groups[index] if groups else "") or record.image_id
    found = groups or [""] * len(reading.records)
    taken = set(found)
    # who has no family is a group of one, whose name must not be that of a family
    full = [
        group or (record.participant_id if record.participant_id not in taken else f"participant {record.participant_id}")
        for group, record in zip(found, reading.records, strict=True)
    ]
    _check_whole(reading, full)
    return full, _sites(reading, source.site, name)


def _groups(reading: Reading, text: str | None, name: str) -> list[str] | None:
    """The group of each record, "" where its column is empty; None where participants are the groups."""
    where = f"datasets.{name}.group"
    if text is None:
        reading.facts["group_source"] = "participant"
        return None
    columns = {column for record in reading.records for column in record.columns}
    if text in columns:
        reading.facts["group_source"] = f"column {text}"
        return [record.columns.get(text, "") for record in reading.records]
    reading.facts["group_source"] = f"expression {text.strip()}"
    try:
        expression = parse(text, where)
    except ConfigError as error:
        reading.problems += error.problems
        return None
    unknown = [used for used in expression.names if used != "number" and used not in columns]
    for used in unknown:
        expected = "`number` or a column of the dataset's table"
        reading.problems.append(Problem(where, f"`{used}`", expected, nearest(used, {"number", *columns})))
    return None if unknown else _evaluated(reading, expression, where)


def _evaluated(reading: Reading, expression: Expression, where: str) -> list[str]:
    """The value of the expression for each record; images for which it has none are problems."""
    found, without, dividing = [], [], []
    for record in reading.records:
        values = {name: _integer(record, name) for name in expression.names}
        whole = {name: value for name, value in values.items() if value is not None}
        try:
            found.append(str(evaluate(expression, whole)))
        except KeyError:
            without.append(record.image_id)
            found.append("")
        except ZeroDivisionError:
            dividing.append(record.image_id)
            found.append("")
    names = ", ".join(f"`{name}`" for name in expression.names)
    if without:
        got = f"no whole number {names} for {shown(without)}"
        remedy = "take a column that says who belongs together, or rename the images"
        reading.problems.append(Problem(where, got, "a whole number for every image", remedy))
    if dividing:
        got = f"`{expression.text}` divides by zero for {shown(dividing)}"
        reading.problems.append(Problem(where, got, "an expression that has a value for every image", "change the expression"))
    return found


def _integer(record: Record, name: str) -> int | None:
    if name == "number":
        return first_number(record.image_id)
    text = record.columns.get(name, "")
    return int(text) if text.removeprefix("-").isdecimal() else None


def _check_whole(reading: Reading, groups: list[str]) -> None:
    """Add a problem where one participant would stand in two groups, and could so be split."""
    groups_of: dict[str, set[str]] = {}
    for record, group in zip(reading.records, groups, strict=True):
        groups_of.setdefault(record.participant_id, set()).add(group)
    split = [f"{name} ({', '.join(sorted(found))})" for name, found in sorted(groups_of.items()) if len(found) > 1]
    if split:
        remedy = "correct the column or expression of `group`, or the participant ids"
        got = f"participants in several groups: {shown(split)}"
        reading.problems.append(Problem(reading.listing, got, "each participant inside one group", remedy))


def _sites(reading: Reading, column: str | None, name: str) -> list[str]:
    columns = {key for record in reading.records for key in record.columns}
    if column is not None and column not in columns and reading.records:
        where = f"datasets.{name}.site"
        expected = "a column of the dataset's table"
        reading.problems.append(Problem(where, f"`{column}`", expected, nearest(column, columns)))
    return [record.columns.get(column or "site", "") for record in reading.records]
