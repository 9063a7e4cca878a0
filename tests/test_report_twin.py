"""report.json has the form that programs are promised, and says what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import report_fixture
from gyri.layout import Layout
from gyri.report import run, run_index
from gyri.report.twin import IndexTwin, Twin, checked


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of an experiment one of whose jobs warned."""
    layout = Layout(tmp_path_factory.mktemp("twin") / "results")
    settings = report_fixture.make_results(layout.root, groups=6, tasks=("classification",))
    for fold in (0, 1):
        path = layout.run("diagnosis", "conv5_fc3", fold, 0, "provenance-train.json")
        record = json.loads(path.read_text())
        record["warnings"] = [{"kind": "UserWarning", "message": "odd <b>labels</b> in /home/anna/x.nii", "count": 2}]
        record["facts"]["warnings"] = record["warnings"]
        path.write_text(json.dumps(record))
    split = layout.dataset("brains", "provenance-split.json")
    split.write_text(json.dumps(json.loads(split.read_text()) | {"facts": {"warnings": ["site: too few to balance"]}}))
    run(settings[0], layout)
    run_index(settings, layout, "Brains")
    return layout.root


def test_the_twins_have_their_form(root: Path) -> None:
    content = json.loads((root / "diagnosis/report.json").read_text())
    assert Twin.model_validate(content).experiment == "diagnosis"
    assert IndexTwin.model_validate_json((root / "report.json").read_text()).experiments[0].best is not None
    with pytest.raises(ValidationError, match="surplus"):
        checked({**content, "surplus": 1})
    with pytest.raises(ValidationError, match="headline"):
        checked({key: value for key, value in content.items() if key != "headline"})


def test_warnings_of_every_stage_stand_at_the_top_of_the_page(root: Path) -> None:
    page = (root / "diagnosis/report.html").read_text()
    top = page[page.index("<h1>") : page.index("<section")]
    assert "2 different warnings in 2 stages, 5 in all" in top
    assert "<strong>train conv5_fc3</strong>: odd &lt;b&gt;labels&lt;/b&gt; in [file]" in top and "4 times, in 2 jobs" in top
    assert "<strong>split</strong>: site: too few to balance" in top and "anna" not in page
    twin = json.loads((root / "diagnosis/report.json").read_text())
    assert {(item["stage"], item["count"]) for item in twin["warnings"]} == {("train conv5_fc3", 4), ("split", 1)}


def test_it_says_which_code_and_settings_ran(root: Path) -> None:
    content = json.loads((root / "diagnosis/report.json").read_text())
    assert len(content["identities"]["Settings (sha256)"]) == 64
    page = (root / "diagnosis/report.html").read_text()
    assert all(value in page for value in content["identities"].values())
    assert (
        page.count(
            "python -m gyri train --config YOUR_CONFIGURATION.yaml --dataset brains --experiment diagnosis --model conv5_fc3"
        )
        == 6
    )
    assert "not measured" in page
