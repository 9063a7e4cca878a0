"""Reader of Medical Segmentation Decathlon folders: everything stands in dataset.json.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 (2022).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gyri.config.datasets import MsdDataset
from gyri.dataset import plain_tables
from gyri.dataset.records import Reading, Record, relative_path
from gyri.errors import DataError, Problem, nearest, shown
from gyri.images import stem_of
from gyri.io import read_json


def read(source: MsdDataset) -> Reading:
    """Read a Decathlon folder; test images have no labels and are only counted.

    Args:
        source: the dataset of the configuration.

    Returns:
        One record per training image; problems are collected in it.
    """
    root = Path(source.path)
    listing = root / "dataset.json"
    reading = Reading(root, str(listing), tables=[listing])
    content = _content(listing, reading.problems)
    if content is None:
        return reading
    names = _channel_names(content, listing, reading.problems)
    channel = names[0] if len(names) == 1 else "image"
    reading.channels = {channel: names}
    reading.labels = {"label": _label_names(content, listing, reading.problems)}
    reading.facts = {
        key: str(content[key]) for key in ("name", "description", "licence", "reference", "release") if content.get(key)
    }
    reading.facts["unlabelled_test_images"] = len(content.get("test") or [])
    _read_training(content, channel, reading)
    if source.table:
        _join(Path(source.table), reading)
    return reading


def _content(listing: Path, problems: list[Problem]) -> dict[str, Any] | None:
    if not listing.is_file():
        inner = sorted(path.parent.name for path in listing.parent.glob("*/dataset.json")) if listing.parent.is_dir() else []
        remedy = f"set `path` to {listing.parent / inner[0]}" if inner else "set `path` to the folder that holds dataset.json"
        got = "no such file" if listing.parent.is_dir() else "no such folder"
        problems.append(Problem(str(listing), got, "the dataset.json of a Decathlon task", remedy))
        return None
    try:
        content = read_json(listing)
    except DataError as error:
        problems += error.problems
        return None
    if not isinstance(content, dict) or not isinstance(content.get("training"), list) or not content["training"]:
        remedy = "list the images, or describe them in a table and take `format: table`"
        problems.append(Problem(f"{listing}: training", "no list of images", "a list of {image, label}", remedy))
        return None
    return content


def _channel_names(content: dict[str, Any], listing: Path, problems: list[Problem]) -> list[str]:
    """The names under `modality`, in the order of their numbers, as words that can be column names."""
    found = content.get("modality") or content.get("channel_names")
    if not isinstance(found, dict) or not found or not all(str(key).isdecimal() for key in found):
        remedy = 'add for example "modality": {"0": "MRI"}'
        problems.append(Problem(f"{listing}: modality", repr(found), "{number: name of the channel}", remedy))
        return ["image"]
    names = [re.sub(r"[^a-z0-9]", "", str(found[key]).lower()) for key in sorted(found, key=int)]
    plain = [name if name[:1].isalpha() else f"channel{name}" for name in names]
    return [name if plain.count(name) == 1 else f"{name}{index}" for index, name in enumerate(plain)]


def _label_names(content: dict[str, Any], listing: Path, problems: list[Problem]) -> dict[str, str]:
    """{value: name}, whether written as {"1": "name"} or the newer way round, {"name": 1}."""
    found = content.get("labels")
    where = f"{listing}: labels"
    expected = "{value: name} with whole numbers from 0 on, each name once"
    if not isinstance(found, dict) or not found:
        problems.append(Problem(where, repr(found), expected, 'add for example "labels": {"0": "background", "1": "tumour"}'))
        return {}
    if not all(str(key).isdecimal() for key in found):
        found = {str(value): key for key, value in found.items()}
    if not all(str(key).isdecimal() for key in found) or len({str(name) for name in found.values()}) < len(found):
        problems.append(Problem(where, str(content["labels"]), expected, "give every structure one value (regions are not read)"))
        return {}
    return {str(int(key)): str(found[key]) for key in sorted(found, key=int)}


def _read_training(content: dict[str, Any], channel: str, reading: Reading) -> None:
    for index, item in enumerate(content["training"]):
        where = f"{reading.listing}: training[{index}]"
        image, label = (item.get("image"), item.get("label")) if isinstance(item, dict) else (None, None)
        if not isinstance(image, str) or not isinstance(label, str):
            reading.problems.append(
                Problem(where, repr(item), '{"image": path, "label": path}', "name one image and its label map")
            )
            continue
        paths = [relative_path(path, reading.root, where, reading.problems) for path in (image, label)]
        reading.records.append(Record(stem_of(image), where, images={channel: paths[0]}, labels={"label": paths[1]}))
    declared, found = content.get("numTraining"), len(content["training"])
    if declared is not None and str(declared) != str(found):
        remedy = "complete the download, or correct the number"
        got = f"numTraining is {declared}"
        reading.problems.append(Problem(f"{reading.listing}: numTraining", got, f"{found}, as many as `training` lists", remedy))


def _join(path: Path, reading: Reading) -> None:
    """Join the further columns of a table on image_id."""
    table = plain_tables.read(path, reading.problems)
    reading.tables.append(path)
    if not table.columns:
        return
    if "image_id" not in table.columns:
        remedy = nearest("image_id", table.columns)
        reading.problems.append(Problem(str(path), "no column image_id", "the name of each image without .nii.gz", remedy))
        return
    rows: dict[str, dict[str, str]] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        if row["image_id"] in rows:
            where = f"{path}, line {line}"
            reading.problems.append(Problem(where, f"the image id `{row['image_id']}` again", "every image once", "remove one"))
        rows[row["image_id"]] = row
    lacking = [record.image_id for record in reading.records if record.image_id not in rows]
    if lacking:
        remedy = "add their lines, with n/a for what is not known"
        reading.problems.append(Problem(str(path), f"no line for {shown(lacking)}", "a line for every training image", remedy))
    for record in reading.records:
        record.columns = rows.get(record.image_id, {})
        record.participant_id = record.columns.get("participant_id", "")
        record.session_id = record.columns.get("session_id", "")
    reading.columns = [name for name in table.columns if name not in ("image_id", "participant_id", "session_id")]
