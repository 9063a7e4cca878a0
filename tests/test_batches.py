"""Trainings whose batches were changed for want of memory: not compared with the rest unless told, and named at the top of the page."""

from __future__ import annotations

import re
from pathlib import Path

from gyri.config.experiments import ReportSettings
from gyri.evaluate import run
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.report.assemble import page_and_twin
from gyri.report.source import Source
from gyri.report.trust import CHANGED_BATCHES, checks
from gyri.tables import read_table
from report_fixture import make_results
from small_experiment import DATASET, make
from test_comparisons import again, settings_of


def test_changed_batches_are_not_compared_unless_told(tmp_path: Path) -> None:
    small = make(tmp_path, "regression")
    paths = [small.predict(name, fold, 0, noise) for name, noise in (("a", 1.0), ("b", 2.0), ("c", 3.0)) for fold in range(3)]
    conditions = {"conditions": {"torch": "2.13.0", "device": "cpu"}}
    write_json(small.layout.run("trial", "b", 1, 0, "model.json"), {**conditions, "changed_batch": True, "micro_batch": 2})
    write_json(small.layout.run("trial", "c", 1, 0, "model.json"), {**conditions, "changed_batch": False, "micro_batch": 2})
    table = again(small, paths)["comparisons"]
    changed = (table["first"] == "b") | (table["second"] == "b")
    assert changed.sum() == 2 and table.loc[changed, "p"].isna().all() and table.loc[~changed, "p"].notna().all()
    assert (table.loc[changed, "note"] == "not compared: trained under micro-batches of 2 and whole batches").all()
    settings = settings_of(small).model_copy(update={"allow_changed_batch": True})
    run(settings, small.layout, DATASET, "trial", paths, 1)
    allowed = read_table(small.layout.experiment("trial", "comparisons.tsv"))
    assert allowed["p"].notna().all() and allowed["note"].fillna("").str.startswith("compared although").sum() == 2


def edit(path: Path, **changes: object) -> None:
    write_json(path, {**read_json(path), **changes})


def top_of(layout: Layout, settings: ReportSettings) -> str:
    """The banners of a page."""
    page, _ = page_and_twin(Source(settings, layout))
    return " ".join(re.findall(r'<p class="banner \w+" role="note">(.*?)</p>', page, re.S))


def test_the_page_names_them_at_its_top(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    [chosen] = make_results(tmp_path, tasks=("regression",))
    assert "computed as they were set" not in top_of(layout, chosen)
    path = layout.run("age", "conv5_fc3", 0, 0, "provenance-train.json")
    edit(path, facts={"changed_batch": True, "micro_batch": 2, "out_of_memory": [{"step": 3, "micro_batch": 2}]})
    said = "micro-batches made another training of conv5_fc3 (fold 0, seed 0: 2 images at once); not compared with the rest"
    assert said in top_of(layout, chosen)
    edit(layout.experiment("age", "provenance-evaluate.json"), settings={"allow_changed_batch": True})
    assert "they are compared with the rest, as the configuration allows" in top_of(layout, chosen)


def test_the_page_says_where_the_same_update_was_made_in_parts(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    [settings] = make_results(tmp_path, tasks=("regression",))
    path = layout.run("age", "conv5_fc3", 0, 0, "provenance-train.json")
    edit(path, facts={"changed_batch": False, "micro_batch": 2, "out_of_memory": [{"step": 3, "micro_batch": 2}]})
    answers = {check.question: check for check in checks(Source(settings, layout))}
    assert answers[CHANGED_BATCHES].state == "good" and "1 training ran out of memory" in answers[CHANGED_BATCHES].answer
    same = answers["Would the same run give the same bytes?"]
    assert same.state == "look" and "conv5_fc3 (fold 0, seed 0: 2 images at once)" in same.answer
