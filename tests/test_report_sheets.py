"""Sheets: every answer follows the keys that it names; what no key can answer is unanswered."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from gyri.report import sheets
from gyri.report.sheet_facts import COUNTED, look
from gyri.report.source import Source
from report_records import TASKS, Sources, full_settings, make_sources, source_of

ITEMS = {"claim": [str(number) for number in range(1, 45)], "model": None, "tripod_ai": None}
SUBPARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("sheets"))


def fresh(sources: Sources, experiment: str) -> Source:
    return source_of(sources, experiment, full_settings(TASKS[experiment]), commit="4f2")


def templates() -> list[tuple[str, str, str, str]]:
    """Sheet, item, experiment and key of every answer that a key stands in."""
    found = []
    for name in sheets.NAMES:
        for section in sheets.sheet(name)["sections"]:
            for item in section["items"]:
                answer = item.get("answer", "")
                chosen = "diagnosis" if isinstance(answer, str) else next(key for key in TASKS if TASKS[key] in answer)
                text = answer if isinstance(answer, str) else answer[TASKS[chosen]]
                found += [(name, str(item["item"]), chosen, key) for key in dict.fromkeys(sheets.KEY.findall(text))]
    return found


# ── changing what stands behind a key ──
def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Source], None]:
    """Change a table that the source has read."""

    def apply(source: Source) -> None:
        source.__dict__[name] = change(getattr(source, name).copy())

    return apply


def file(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Source], None]:
    """Change a table of the experiment or the dataset that is read when it is asked for."""

    def apply(source: Source) -> None:
        reader = "of_dataset" if name == "balance.tsv" else "of_experiment"
        read = getattr(source, reader)
        setattr(source, reader, lambda asked, *more: change(read(asked, *more).copy()) if asked == name else read(asked, *more))

    return apply


def shifted(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.assign(**{column: pd.to_numeric(rows[column]) * 0.5 + 0.03})


def leak(source: Source) -> None:
    rows = source.splits
    source.__dict__["splits"] = pd.concat([rows, rows[rows["role"] == "test"].assign(role="train")])


def more_people(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(
        [rows, rows.iloc[:1].assign(image_id="new", participant_id="new", group="new", site="west", diagnosis="patient")]
    )


def reason(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(reason="another reason", image_id="some other image")


CHANGES: dict[str, Callable[[Source], None]] = {
    "balance.tsv#largest": file("balance.tsv", shifted("smd")),
    "cohort.tsv#characteristics": table("kept", more_people),
    "cohort.tsv#images": table("cohort", more_people),
    "cohort.tsv#kept": table("kept", more_people),
    "cohort.tsv#kept_participants": table("kept", more_people),
    "cohort.tsv#participants": table("cohort", more_people),
    "cohort.tsv#sites": table("kept", more_people),
    "cohort.tsv#target": table("kept", more_people),
    "cohort.tsv#without_target": table("kept", lambda rows: rows.assign(diagnosis="")),
    "comparisons.tsv#pairs": file("comparisons.tsv", lambda rows: rows.iloc[:1]),
    "excluded.tsv#images": table("excluded", lambda rows: rows.iloc[:0]),
    "excluded.tsv#reasons": table("excluded", reason),
    "metrics.tsv#diagnostic": table("metrics", shifted("value")),
    "metrics.tsv#headline": table("metrics", shifted("value")),
    "metrics.tsv#metrics": table("metrics", lambda rows: rows[rows["metric"] != "brier"]),
    "metrics.tsv#models": table("metrics", lambda rows: rows[rows["model"] != "linear"]),
    "metrics.tsv#sd_folds": table("metrics", shifted("sd_folds")),
    "metrics.tsv#sd_seeds": table("metrics", shifted("sd_seeds")),
    "predictions.tsv#columns": table("predictions", lambda rows: rows.rename(columns={"prediction": "prediction_new"})),
    "splits.tsv#leaks": leak,
    "splits.tsv#roles": table("splits", lambda rows: rows[rows["role"] != "validation"]),
    "subgroups.tsv#columns": file("subgroups.tsv", lambda rows: rows.assign(column="handedness")),
    "subgroups.tsv#sites": file("subgroups.tsv", shifted("value")),
    "subgroups.tsv#worst": file("subgroups.tsv", shifted("value")),
}


def change(source: Source, key: str) -> None:
    """Let a run have recorded something else under a key."""
    name, _, what = key.partition("#")
    if key in CHANGES:
        return CHANGES[key](source)
    if name == "dataset.json":
        before = source.description.get(what)
        source.__dict__["description"] = {**source.description, what: ["other"] if isinstance(before, list) else "other"}
        return None
    stage, _, path = name.partition(".")
    if what == "count":
        source.__dict__["provenance"] = source.provenance + [item for item in source.provenance if item["stage"] == stage]
        return None
    for record in source.provenance:
        if stage in ("jobs", record["stage"]):
            *above, last = path.split(".")
            at: dict[str, Any] = record
            for part in above:
                at = at[part]
            at[last] = other(at.get(last), what)
    return None


def other(value: Any, what: str) -> Any:
    if what == "energy":
        return {"energy_j": 7200.0}
    if isinstance(value, bool):
        return not value
    return value + 7 if isinstance(value, int | float) else ["other"] if isinstance(value, list) else "other"


# ── tests ──
def answer_of(source: Source, name: str, item: str) -> sheets.Answer:
    for section in sheets.sheet(name)["sections"]:
        for entry in section["items"]:
            if str(entry["item"]) == item:
                return sheets.answer(source, section["title"], entry)
    raise KeyError(item)


def with_rows(source: Source) -> Source:
    """The fixture's subgroups have neither sites nor worst cases, and its metrics no operating points: add some."""
    read = source.of_experiment

    def of_experiment(asked: str, *more: str) -> pd.DataFrame:
        rows = read(asked, *more)
        if asked != "subgroups.tsv":
            return rows
        new = [rows.assign(column=column, level=level) for column, level in (("site", "north"), ("worst 5 %", "all"))]
        return pd.concat([rows, *new])

    setattr(source, "of_experiment", of_experiment)  # noqa: B010
    return source


@pytest.mark.parametrize(("name", "item", "experiment", "key"), templates())
def test_every_answer_follows_its_key(sources: Sources, name: str, item: str, experiment: str, key: str) -> None:
    before = answer_of(with_rows(fresh(sources, experiment)), name, item)
    assert key in before.read_from, f"{key} has no value in the fixture: {before}"
    source = with_rows(fresh(sources, experiment))
    change(source, key)
    assert answer_of(source, name, item).answer != before.answer


def test_every_counted_key_is_changed_in_a_test_and_used_in_a_sheet() -> None:
    used = {key for *_, key in templates()}
    assert set(CHANGES) == set(COUNTED) == {key for key in used if key in COUNTED}


@pytest.mark.parametrize("name", sheets.NAMES)
def test_a_sentence_that_names_no_key_is_no_answer(sources: Sources, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = copy.deepcopy(sheets.sheet(name))
    for section in content["sections"]:
        for item in section["items"]:
            item["answer"] = "All is well."
    monkeypatch.setattr(sheets, "sheet", lambda _: content)
    found = sheets.answers(fresh(sources, "diagnosis"), name)
    assert {one.state for one in found} == {"unanswered"} and all(one.answer == "" for one in found)


@pytest.mark.parametrize("name", sheets.NAMES)
def test_the_numbers_of_answers_are_those_of_the_rows(sources: Sources, name: str) -> None:
    source = fresh(sources, "diagnosis")
    rows = pd.read_csv(io.StringIO(sheets.tsv(source, name)), sep="\t", dtype=str, keep_default_na=False)
    states = rows["state"].value_counts()
    said = sheets.counts(sheets.answers(source, name), name)
    assert f"{states['answered']} of {len(rows)} items answered" in said and f"{states['unanswered']} unanswered" in said
    assert (rows["read_from"] != "").equals(rows["state"] != "unanswered")
    part = sheets.reportlet(name)(source)
    assert said in part.body and part.body in part.body and len(part.tables[0].rows) == len(rows)
    assert said in sheets.markdown(source, name) and sheets.markdown(source, name).count("\n| ") == len(rows) + 1


def test_items_are_those_of_the_published_lists() -> None:
    numbers = {
        name: [str(item["item"]) for part in sheets.sheet(name)["sections"] for item in part["items"]] for name in sheets.NAMES
    }
    assert numbers["claim"] == [str(number) for number in range(1, 45)]
    expected = [f"{number}{letter}" for number in range(1, 28) for letter in SUBPARTS.get(number, ("",))]
    assert numbers["tripod_ai"] == expected
    assert len(set(numbers["model"])) == len(numbers["model"])


def test_nothing_recorded_is_nothing_answered(sources: Sources) -> None:
    source = fresh(sources, "diagnosis")
    source.__dict__["provenance"] = []
    before = answer_of(fresh(sources, "diagnosis"), "claim", "25")
    assert before.state == "answered"
    after = answer_of(source, "claim", "25")
    assert after.state == "unanswered" and "not recorded: train.settings.training.epochs" in after.why
    assert answer_of(source, "claim", "29").state == "partly" and sheets.GAP in answer_of(source, "claim", "29").answer


@pytest.mark.parametrize(
    ("values", "words"),
    [([1, 1], "1"), ([3, 1, 2], "1 to 3"), (["a", "b"], "a or b"), ([None], "none"), ([True], "yes"), ([[1, 2]], "1 and 2")],
)
def test_several_jobs_give_all_their_values(sources: Sources, values: list[Any], words: str) -> None:
    source = fresh(sources, "diagnosis")
    source.__dict__["provenance"] = [{"stage": "split", "settings": {"x": value}} for value in values]
    assert look(source, "split.settings.x") == words
