"""The methods text: written from provenance, every setting in it, every source it names in the bibliography."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import bibtexparser
import pytest

from gyri.config.datasets import Preprocess, TableDataset
from gyri.report import methods as text
from gyri.report.citations import keys_of, library
from gyri.settings import LATER_STAGES
from report_records import TASKS, Sources, full_settings, make_sources, source_of

REPORT = Path(text.__file__).parent
CONTEXTS: list[dict[str, Any]] = [
    {},
    {"normalize.method": "pca", "normalize.components": 3},
    {"split.stratify": ["site"]},
    {"augmentation.elastic": 0.1, "saliency.smooth_samples": 2},
]
"""Settings under which others begin to count."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("methods"))


def written(sources: Sources, experiment: str, stages: dict[str, dict[str, Any]], **fields: Any) -> str:
    return text.markdown(source_of(sources, experiment, stages, **fields))


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys of all settings, as split.seed."""
    for key, value in settings.items():
        if isinstance(value, dict) and value and key not in ("arguments", "images", "ensembles"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def changed(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The settings with one of them replaced; without it where the path leads nowhere."""
    found = copy.deepcopy(settings)
    *above, last = path.split(".")
    at = found
    for key in above:
        if not isinstance(at.get(key), dict):
            return found
        at = at[key]
    if last in at:
        at[last] = value
    return found


def others(value: Any) -> list[Any]:
    """Values that a setting may have instead."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 0.25]
    if isinstance(value, str):
        return ["x", "none", "fast", "balanced", "float32", "mni152", "continue"]
    if isinstance(value, dict):
        return [{"key": "value"}]
    return [3, "x", ["x", "y"], [0.5, 2.5], {"key": "value"}, [["m", 3]]]


KEYS = [
    (stage, key) for stage, settings in full_settings("classification").items() for key in leaves(settings)
]  # of every task alike


@pytest.mark.parametrize(("stage", "key"), KEYS)
def test_every_setting_is_in_the_text_or_left_out_for_a_reason(sources: Sources, stage: str, key: str) -> None:
    if key in text.NOT_SAID.get(stage, {}):
        return
    for context in CONTEXTS:
        for experiment in ("diagnosis", "tissue"):
            base = full_settings(TASKS[experiment])
            for path, value in context.items():
                base = {name: changed(settings, path, value) for name, settings in base.items()}
            before = written(sources, experiment, base)
            present = base[stage]
            for part in key.split("."):
                present = present[part]
            for other in others(present):
                try:
                    if written(sources, experiment, {**base, stage: changed(base[stage], key, other)}) != before:
                        return
                except (TypeError, ValueError, AttributeError):
                    continue  # no value of this setting's type
    pytest.fail(f"the text is the same whatever {stage} was told of {key}: say it, or give the reason in NOT_SAID")


def test_the_list_of_what_is_left_out_names_settings_only() -> None:
    known = {stage: {*leaves(settings)} for stage, settings in full_settings("classification").items()}
    table = TableDataset(format="table", path="x").model_dump(mode="json", exclude=LATER_STAGES)
    known["dataset"] |= {f"source.{key}" for key in table} | {"source.table"}
    assert {stage: set(keys) - known[stage] for stage, keys in text.NOT_SAID.items() if set(keys) - known[stage]} == {}


def test_other_formats_say_how_images_were_found(sources: Sources) -> None:
    base = full_settings("classification")
    table = TableDataset(format="table", path="people.tsv").model_dump(mode="json", exclude=LATER_STAGES)
    before = written(sources, "diagnosis", {**base, "dataset": {"source": table}})
    assert "synthetic" not in before and "table of file names" in before and "people.tsv" not in before
    for key, value in (
        ("images", {"t1": "path"}),
        ("labels", {"label": "seg"}),
        ("mask", "brain"),
        ("group", "family"),
        ("site", "where"),
    ):
        assert written(sources, "diagnosis", {**base, "dataset": {"source": {**table, key: value}}}) != before, key


@pytest.mark.parametrize("name", get_args(Preprocess.model_fields["registration"].annotation))
def test_nothing_is_claimed_that_did_not_happen(sources: Sources, name: str) -> None:
    base = full_settings("segmentation")
    base["preprocess"]["preprocess"] |= {"registration": name, "n4": name != "none"}
    words = written(sources, "tissue", base)
    assert ("registered affinely" in words) == ("N4" in words) == (name == "mni152")
    base["train"]["augmentation"] = None
    base["train"]["training"] |= {"gradient_clip": None, "patience": 4}
    words = written(sources, "tissue", base)
    assert "were not augmented" in words and "rotations" not in words
    assert "cut to that norm" not in words and "stopped after 4 epochs" in words
    assert "Saliency of" in words
    del base["explain"]
    assert "Saliency" not in written(sources, "tissue", base)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("versions", {"gyri": "9.9", "torch": "8.8"}),
        ("environment", "image:0a"),
        ("commit", "4f2+changes"),
        ("host_kind", "Odd CPU"),
        ("device", "cuda"),
    ],
)
def test_versions_and_machines_are_those_of_the_jobs(sources: Sources, field: str, value: Any) -> None:
    words = written(sources, "tissue", full_settings("segmentation"), **{field: value})
    for one in value.values() if isinstance(value, dict) else [value.replace("image:", "")]:
        assert one in words
    assert ("Apptainer" in words) == (field == "environment")


def test_snakemake_is_named_only_where_it_ran(sources: Sources) -> None:
    base = full_settings("segmentation")
    assert "Snakemake" not in written(sources, "tissue", base, call="not recorded")
    assert "Snakemake" in written(sources, "tissue", base, call="snakemake -c2")


# ── sources ──
@pytest.mark.parametrize("experiment", TASKS)
def test_the_bibliography_holds_what_is_cited_and_nothing_else(sources: Sources, experiment: str) -> None:
    source = source_of(sources, experiment, full_settings(TASKS[experiment]))
    parsed = bibtexparser.parse_string(text.cited(source))
    assert not parsed.failed_blocks
    keys = re.findall(r"@([a-z]+\d{4})\b", text.markdown(source))
    assert sorted({entry.key for entry in parsed.entries}) == sorted(set(keys)) and len(keys) > 20
    assert sorted(keys_of(text.markdown(source))) == sorted(set(keys))


def test_every_source_can_be_cited_and_is_complete() -> None:
    parsed = bibtexparser.parse_file(str(REPORT / "methods.bib"))
    assert not parsed.failed_blocks
    code = "".join(path.read_text(encoding="utf-8") for path in REPORT.glob("passages_*.py"))
    assert {entry.key for entry in parsed.entries} == set(re.findall(r"@([a-z]+\d{4})\b", code)) == set(library())
    for entry in parsed.entries:
        fields = {field.key for field in entry.fields}
        assert {"author", "title", "year"} <= fields and fields & {"doi", "url"}, entry.key
        assert library()[entry.key].fields == {field.key: field.value for field in entry.fields}


def test_the_page_offers_text_and_references(sources: Sources) -> None:
    part = text.methods(source_of(sources, "tissue", full_settings("segmentation")))
    assert part.body.count("download=") == 2 and "CC0" in part.notes[0]
    for key in re.findall(r'href="#ref-(\w+)"', part.body):
        assert f'<li id="ref-{key}">' in part.body
    assert "[@" not in part.body


def test_what_was_not_recorded_is_a_gap(sources: Sources) -> None:
    base = full_settings("segmentation")
    del base["train"]["training"]["epochs"], base["split"]
    words = written(sources, "tissue", base)
    assert "[not available: training.epochs]" in words and "[not available: settings of the stage split]" in words
    assert json.dumps(words)
