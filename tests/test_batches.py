"""Trainings whose batches were changed for want of memory: not compared with the rest unless told, and named at the top of the page."""

from __future__ import annotations

from pathlib import Path

from gyri.evaluate import run
from gyri.io import write_json
from gyri.tables import read_table
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
