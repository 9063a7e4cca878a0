"""The report: everything it says stands in the files, and what is missing is said."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_fixture
from gyri.config.experiments import ReportSettings
from gyri.layout import Layout
from gyri.report import run, run_index
from gyri.report.assemble import MAKERS, specification
from gyri.report.cases import Case, cut
from gyri.report.chart import padded, swarm, ticks
from gyri.report.folds import roc_points
from gyri.report.gallery import outlines, planes
from gyri.report.results import decimals, estimate, metric, rounded
from gyri.tables import read_table, write_table

EXPERIMENTS = {"tissue": "segmentation", "diagnosis": "classification", "age": "regression"}
HEADLINES = {"tissue": "dice", "diagnosis": "auroc", "age": "mae"}
BUDGET = 8_000_000  # bytes of a page of 300 cases


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, dict[str, ReportSettings]]:
    """A finished results tree with its pages; tests that change files copy it."""
    layout = Layout(tmp_path_factory.mktemp("finished") / "results")
    settings = {item.experiment: item for item in report_fixture.make_results(layout.root)}
    for item in settings.values():
        run(item, layout)
    run_index(list(settings.values()), layout, "All folds")
    return layout, settings


@pytest.fixture
def tree(finished: tuple[Layout, dict[str, ReportSettings]], tmp_path: Path) -> tuple[Layout, dict[str, ReportSettings]]:
    """A copy of the results tree."""
    shutil.copytree(finished[0].root, tmp_path / "results")
    return Layout(tmp_path / "results"), finished[1]


def page_of(layout: Layout, experiment: str) -> str:
    return layout.experiment(experiment, "report.html").read_text(encoding="utf-8")


def twin_of(layout: Layout, experiment: str) -> dict:
    return json.loads(layout.experiment(experiment, "report.json").read_text(encoding="utf-8"))


def again(tree: tuple[Layout, dict[str, ReportSettings]], experiment: str) -> tuple[str, dict]:
    """Write a page anew; the page and its twin."""
    run(tree[1][experiment], tree[0])
    return page_of(tree[0], experiment), twin_of(tree[0], experiment)


def text_of(page: str) -> str:
    """What a reader sees, blanks as one."""
    parts: list[str] = []

    class Reader(HTMLParser):
        hidden = 0

        def handle_starttag(self, tag: str, attributes: list) -> None:
            self.hidden += tag in ("style", "script")

        def handle_endtag(self, tag: str) -> None:
            self.hidden -= tag in ("style", "script")

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                parts.append(data)

    Reader().feed(page)
    return " ".join("".join(parts).split())


# ── the page ──
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_part_is_there_with_its_caption(finished: tuple[Layout, dict], experiment: str) -> None:
    page, twin = page_of(finished[0], experiment), twin_of(finished[0], experiment)
    words = text_of(page)
    assert twin["missing"] == []
    for section in specification():
        assert f'<section id="{section["id"]}"' in page
        for part in section["parts"]:
            if EXPERIMENTS[experiment] in part.get("task", EXPERIMENTS.values()) and not part.get("optional"):
                assert " ".join(part["caption"].split()) in words
                assert f'<figure id="{part["make"].replace("_", "-")}"' in page


def test_the_specification_names_every_maker_once() -> None:
    names = [part["make"] for section in specification() for part in section["parts"]]
    assert sorted(names) == sorted(MAKERS)
    assert all(len(part["caption"]) > 20 for section in specification() for part in section["parts"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_headline_numbers_are_those_of_the_metrics(finished: tuple[Layout, dict], experiment: str) -> None:
    layout, _ = finished
    answer = re.search(r'<p class="answer">(.*?)</p>', page_of(layout, experiment), re.S)
    assert answer
    shown = re.findall(r'<data value="([^"]+)">([^<]+)</data> \[([^,]+), ([^\]]+)\]', answer[1])
    table = read_table(layout.experiment(experiment, "metrics.tsv"), "metrics")
    name = HEADLINES[experiment]
    table = table[(table["metric"] == name) & (table["fold"] == "all") & table["structure"].isin(["", "mean"])]
    baseline = table["model"].isin(["linear", "majority", "mean"])
    best = (lambda rows: rows.loc[rows["value"].idxmin()]) if name == "mae" else (lambda rows: rows.loc[rows["value"].idxmax()])
    for (exact, value, low, high), row in zip(shown, (best(table[~baseline]), best(table[baseline])), strict=True):
        assert float(exact) == row["value"]
        digits = len(value.partition(".")[2])
        assert (value, low, high) == tuple(rounded(row[key], digits) for key in ("value", "ci_low", "ci_high"))
    assert twin_of(layout, experiment)["headline"][0]["value"] == best(table[~baseline])["value"]
    assert f"n = {table['n'].iloc[0]} images of {table['n_groups'].iloc[0]} groups" in text_of(answer[1])


@pytest.mark.parametrize("page", ["report.html", *[f"{name}/report.html" for name in EXPERIMENTS]])
def test_nothing_is_loaded_from_anywhere(finished: tuple[Layout, dict], page: str) -> None:
    text = (finished[0].root / page).read_text(encoding="utf-8")
    for target in re.findall(r'(?:src|href|xlink:href|action|poster|data)="([^"]*)"', text):
        assert target.startswith(("#", "data:")) or (finished[0].root / page).parent.joinpath(target).is_file(), target
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg\")", text)
    assert "default-src 'none'" in text


def test_no_absolute_path_is_shown(finished: tuple[Layout, dict]) -> None:
    for page in finished[0].root.rglob("report.*"):
        assert str(finished[0].root.parent) not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_same_files_give_the_same_bytes(tree: tuple[Layout, dict], experiment: str) -> None:
    before = [tree[0].experiment(experiment, name).read_bytes() for name in ("report.html", "report.json")]
    again(tree, experiment)
    assert before == [tree[0].experiment(experiment, name).read_bytes() for name in ("report.html", "report.json")]


def test_figures_have_words_and_their_table(finished: tuple[Layout, dict]) -> None:
    page = page_of(finished[0], "tissue")
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert labels
    assert all(len(label) > 3 for label in labels)
    link = re.search(r'href="data:text/tab-separated-values;base64,([^"]+)" download="tissue_forest.tsv"', page)
    assert link
    table = base64.b64decode(link[1]).decode().splitlines()
    assert table[0].startswith("model\trole\tfold\tseed\tmetric")
    assert len(table) == 1 + 6


def test_pictures_and_outlines_are_there(finished: tuple[Layout, dict]) -> None:
    page = page_of(finished[0], "tissue")
    assert page.count('class="outline truth"') >= 9
    assert page.count("data:image/png;base64,") >= 9
    for word in ("best", "median", "worst", "sagittal", "coronal", "axial"):
        assert word in text_of(page)


# ── text from the data ──
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_text_is_escaped(tree: tuple[Layout, dict], experiment: str) -> None:
    evil = "<script>alert('x')</script>"
    for path in tree[0].root.rglob("*.tsv"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("sub-001", evil).replace("Anterior", "<b>A&B</b>").replace("north", '"><i>'), encoding="utf-8")
    for path in tree[0].root.rglob("*.json"):
        path.write_text(
            path.read_text(encoding="utf-8").replace("CC0", "<u>").replace("Example CPU", "<u>CPU</u>"), encoding="utf-8"
        )
    page, _ = again(tree, experiment)
    run_index(list(tree[1].values()), tree[0], "<i>title</i>")
    for text in (page, (tree[0].root / "report.html").read_text(encoding="utf-8")):
        assert text.count("<script>") == 1
        assert not re.search(r"<b>A|<u>|<i>", text)
    assert "&lt;script&gt;alert" in page


# ── what is missing ──
ABSENT = {
    "history.tsv": ("learning-curves", "learning"),
    "balance.tsv": ("balance", "balance.tsv"),
    "audit.tsv": ("audit", "audit.tsv"),
    "excluded.tsv": ("exclusions", "excluded.tsv"),
    "undefined.tsv": ("undefined", "undefined.tsv"),
    "comparisons.tsv": ("comparisons", "comparisons.tsv"),
    "chance.tsv": ("chance", "chance.tsv"),
    "subgroups.tsv": ("subgroups", "subgroups.tsv"),
    "splits.tsv": ("cohort-table", "splits.tsv"),
    "cases.tsv": ("dice-per-structure", "cases.tsv"),
    "predictions.tsv": ("gallery", "predictions.tsv"),
    "metrics.tsv": ("forest", "metrics.tsv"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_missing_is_shown_as_missing(tree: tuple[Layout, dict], name: str) -> None:
    for path in tree[0].root.rglob(name):
        path.unlink()
    page, twin = again(tree, "tissue")
    part, _ = ABSENT[name]
    figure = re.search(rf'<figure id="{part}".*?</figure>', page, re.S)
    assert figure
    assert "not available:" in figure[0]
    assert part in [item["id"] for item in twin["missing"]]
    top = page[: page.index("<section")]
    assert f'<a href="#{part}">' in top


def test_a_page_is_made_of_nothing(tmp_path: Path) -> None:
    settings = report_fixture.settings_of("classification", "diagnosis")
    run(settings, Layout(tmp_path))
    run_index([settings], Layout(tmp_path), "Nothing yet")
    twin = twin_of(Layout(tmp_path), "diagnosis")
    assert twin["headline"] is None
    assert {check["state"] for check in twin["checks"]} == {"unknown"}
    assert text_of(page_of(Layout(tmp_path), "diagnosis")).count("not available") > 15


def test_one_missing_history_is_named(tree: tuple[Layout, dict]) -> None:
    tree[0].run("tissue", "unet", 1, 0, "history.tsv").unlink()
    page, _ = again(tree, "tissue")
    assert "Not available: unet fold 1 seed 0." in text_of(page)


def test_a_changed_image_is_not_drawn(tree: tuple[Layout, dict]) -> None:
    facts = json.loads(tree[0].dataset("brains", "dataset.json").read_text())
    copy = tree[0].root.parent / "raw"
    shutil.copytree(facts["root"], copy)
    for path in (copy / "t1w").iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    tree[0].dataset("brains", "dataset.json").write_text(json.dumps({**facts, "root": str(copy)}))
    page, twin = again(tree, "tissue")
    assert "changed since it was read" in text_of(page)
    assert "gallery" in [item["id"] for item in twin["missing"]]


# ── what must be known first ──
def test_a_pilot_is_said_at_the_top(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    cohort = report_fixture.make_dataset(layout, 9, (8, 8, 8))
    settings = report_fixture.settings_of("segmentation", "tissue", run_folds=[1])
    report_fixture.make_experiment(layout, settings, cohort)
    run(settings, layout)
    run_index([settings], layout, "Pilot")
    page = page_of(layout, "tissue")
    assert "1 of 3 folds were run (fold 1)" in text_of(page[: page.index("<section")])
    assert twin_of(layout, "tissue")["pilot"] is True
    assert "Pilot" in text_of((layout.root / "report.html").read_text(encoding="utf-8"))


def breaks(change: Callable[[pd.DataFrame], pd.DataFrame], *place: str) -> Callable[[Layout], None]:
    def apply(layout: Layout) -> None:
        path = layout.root.joinpath(*place)
        write_table(path, change(read_table(path)))

    return apply


def two_sides(splits: pd.DataFrame) -> pd.DataFrame:
    splits.loc[(splits["fold"] == "0").idxmax(), "group"] = splits.loc[splits["fold"] == "0", "group"].iloc[-1]
    return splits


BROKEN = {
    "group on two sides": (breaks(two_sides, "datasets", "brains", "splits.tsv"), "Does any group stand on two sides of a split?"),
    "prediction lost": (
        breaks(
            lambda table: table.drop(table.index[(table["role"] == "test") & (table["model"] == "linear")][0]),
            "age",
            "predictions.tsv",
        ),
        "Was every test image predicted?",
    ),
    "role of another fold": (
        breaks(lambda table: table.assign(role=table["role"].replace("validation", "test")), "age", "predictions.tsv"),
        "Do the predictions keep to the split?",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_stands_at_the_top(tree: tuple[Layout, dict], name: str) -> None:
    change, question = BROKEN[name]
    change(tree[0])
    page, twin = again(tree, "age")
    assert {check["question"]: check["state"] for check in twin["checks"]}[question] == "bad"
    assert question in text_of(page[: page.index("<section")])


def test_a_lost_prediction_is_listed(tree: tuple[Layout, dict]) -> None:
    BROKEN["prediction lost"][0](tree[0])
    page, _ = again(tree, "age")
    figure = re.search(r'<figure id="failed".*?</figure>', page, re.S)
    assert figure
    assert "1 predictions are missing" in text_of(figure[0]) or "1 prediction is missing" in text_of(figure[0])


CHECKED = {
    "identity": (
        lambda layout: edit(layout.dataset("brains", "dataset.json"), identity="assumed"),
        "Is it known who is the same person?",
    ),
    "normalization": (lambda layout: edit(layout.fold("brains", 0, "normalization.json"), n_groups=99), "Was normalization fitted"),
    "versions": (
        lambda layout: edit(layout.run("age", "linear", 0, 0, "provenance-train.json"), versions={"torch": "1.0"}),
        "Were all models trained under the same conditions?",
    ),
    "device": (
        lambda layout: edit(layout.run("age", "linear", 0, 0, "provenance-train.json"), device="cuda"),
        "Were all models trained",
    ),
    "not bit-exact": (
        lambda layout: edit(
            layout.run("age", "conv5_fc3", 0, 0, "provenance-train.json"), settings={"training": {"deterministic": "fast"}}
        ),
        "Would the same run give the same bytes?",
    ),
    "finding": (
        lambda layout: edit(
            layout.dataset("brains", "audit.json"),
            findings=[{"finding": "same_person", "status": "acknowledged", "detail": "3 pairs"}],
        ),
        "Did the audit find anything about the cohort",
    ),
}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", CHECKED)
def test_checks_follow_the_files(tree: tuple[Layout, dict], name: str) -> None:
    change, question = CHECKED[name]
    before = {check["question"]: check["state"] for check in twin_of(tree[0], "age")["checks"]}
    change(tree[0])
    _, twin = again(tree, "age")
    after = {check["question"]: check["state"] for check in twin["checks"]}
    chosen = next(text for text in after if text.startswith(question))
    assert before[chosen] == "good"
    assert after[chosen] in ("look", "bad")


def test_reads_of_the_locked_set_are_counted(tree: tuple[Layout, dict]) -> None:
    splits = read_table(tree[0].dataset("brains", "splits.tsv"))
    locked = pd.DataFrame([{"group": "gx", "participant_id": "sub-x", "fold": "locked", "role": "locked"}])
    write_table(tree[0].dataset("brains", "splits.tsv"), pd.concat([splits, locked]))
    tree[0].experiment("age", "locked_reads.jsonl").write_text('{"time": 1}\n{"time": 2}\n')
    metrics = read_table(tree[0].experiment("age", "metrics.tsv"))
    rows = metrics[(metrics["fold"] == "all") & metrics["model"].isin(["conv5_fc3", "linear", "mean"])]
    write_table(
        tree[0].experiment("age/locked", "metrics.tsv"), rows.assign(role="locked", model="ensemble.folds." + rows["model"])
    )
    page, _ = again(tree, "age")
    assert "1 groups are locked away; they were evaluated 2 times" in text_of(page)
    assert '<figure id="locked"' in page


# ── numbers that do not exist ──
def test_undefined_metrics_are_listed_and_the_page_stands(tree: tuple[Layout, dict]) -> None:
    path = tree[0].experiment("diagnosis", "metrics.tsv")
    table = read_table(path, "metrics")
    table = table[~((table["metric"] == "auroc") & (table["model"] == "majority"))]
    table.loc[table["model"] == "linear", ["ci_low", "ci_high"]] = np.nan
    write_table(path, table)
    why = {
        "model": "majority",
        "role": "test",
        "fold": "all",
        "seed": "all",
        "metric": "auroc",
        "structure": "",
        "why": "no variation",
    }
    write_table(tree[0].experiment("diagnosis", "undefined.tsv"), pd.DataFrame([why]))
    page, twin = again(tree, "diagnosis")
    words = text_of(page)
    assert "1 value over all folds (AUROC)" in words
    assert "no variation" in words
    assert "[no interval]" in words
    assert not re.search(r"\bnan\b", re.sub(r'base64,[^"]+', "", page), re.I)
    assert twin["missing"] == []


def test_a_task_without_its_headline_says_so(tree: tuple[Layout, dict]) -> None:
    path = tree[0].experiment("diagnosis", "metrics.tsv")
    table = read_table(path, "metrics")
    write_table(path, table[table["metric"] != "auroc"])
    page, twin = again(tree, "diagnosis")
    assert '<p class="missing">not available: metrics.tsv has no `auroc` over all folds</p>' in page
    assert twin["headline"] is None


def test_a_baseline_that_wins_is_said_to_win(tree: tuple[Layout, dict]) -> None:
    path = tree[0].experiment("age", "metrics.tsv")
    table = read_table(path, "metrics")
    table.loc[(table["model"] == "linear") & (table["metric"] == "mae"), "value"] = 0.5
    write_table(path, table)
    page, _ = again(tree, "age")
    assert "nothing was gained by training" in text_of(page)


# ── the index ──
def test_the_index_leads_to_every_page(finished: tuple[Layout, dict]) -> None:
    page = (finished[0].root / "report.html").read_text(encoding="utf-8")
    twin = json.loads((finished[0].root / "report.json").read_text(encoding="utf-8"))
    for experiment, item in zip(EXPERIMENTS, twin["experiments"], strict=True):
        assert f'href="{experiment}/report.html"' in page
        assert item["best"]["value"] == twin_of(finished[0], experiment)["headline"][0]["value"]
        assert item["training_seconds"] > 0
    assert 'href="../report.html"' in page_of(finished[0], "age")


# ── size ──
@pytest.mark.parametrize(("task", "groups"), [("classification", 240), ("segmentation", 60)])
def test_three_hundred_cases_stay_below_the_budget(tmp_path: Path, task: str, groups: int) -> None:
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, groups, (8, 8, 8), (task,))[0]
    facts = run(settings, layout)
    assert len(read_table(layout.dataset("brains", "cohort.tsv"))) == groups * 1.25
    assert twin_of(layout, settings.experiment)["missing"] == []
    assert facts["bytes"] < BUDGET / 2 * groups / 240


# ── small parts ──
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_and_inside(low: float, width: float, count: int) -> None:
    found = ticks(low, low + width, count)
    slack = 1e-6 * width + 2 * math.ulp(max(abs(low), abs(low + width)))  # a tiny width on a large number is rounded itself
    assert all(low - slack <= tick <= low + width + slack for tick in found)
    assert len(found) <= count * 2 + 2


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=20))
def test_ranges_hold_all_finite_values(values: list[float]) -> None:
    low, high = padded(values)
    assert low < high
    assert all(low <= value <= high for value in values if math.isfinite(value))


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.8234, 0.744, 0.8801, "0.82 [0.74, 0.88]"),
        (0.8734, 0.8690, 0.8781, "0.873 [0.869, 0.878]"),
        (5.21, 4.68, 5.74, "5.2 [4.7, 5.7]"),
        (-0.31, -1.2, 0.6, "\u22120.3 [\u22121.2, 0.6]"),
        (132.0, 120.0, 144.0, "132 [120, 144]"),
        (0.5, math.nan, math.nan, "0.500 [no interval]"),
    ],
)
def test_digits_follow_the_interval(value: float, low: float, high: float, text: str) -> None:
    assert estimate(value, low, high) == text
    assert decimals(low, high) <= 4


def test_roc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.random(60), 1), rng.random(60) < 0.4
    expected = roc_curve(positive, scores, drop_intermediate=False)
    found = roc_points(scores, positive)
    np.testing.assert_allclose(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1])


def test_points_of_a_strip_keep_to_it() -> None:
    offsets = swarm([10.0] * 50, 4.0, 12.0)
    assert max(map(abs, offsets)) <= 12.0
    assert len(set(offsets[:6])) == 6


def test_outlines_enclose_the_labels() -> None:
    labels = np.zeros((10, 12), int)
    labels[2:7, 3:9] = 1
    path = outlines(labels, 2.0, 3.0, 36.0)
    points = np.array([list(map(float, pair.split(","))) for pair in path.strip("MZ").split("L")])
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    # marching squares cut the four corners, an eighth of a pixel each
    assert area == pytest.approx((5 * 6 - 4 / 8) * 2 * 3, rel=0.01)
    assert (x.min(), x.max()) == (4.0, 14.0)
    assert (y.min(), y.max()) == (36 - 9 * 3, 36 - 3 * 3)


def test_small_pictures_are_cut_out_and_not_masked() -> None:
    image, truth = np.random.default_rng(0).random((60, 60, 60)), np.zeros((60, 60, 60), int)
    truth[20:30, 20:35, 25:30] = 1
    said = truth.copy()
    said[55, 55, 55] = 1
    case = cut(image, truth, said, truth > 0, truth < 0, (1.0, 1.0, 1.0))
    assert case.image.shape == (30, 35, 25)
    assert np.isfinite(case.image).all()
    assert case.outside == 1


def test_a_plane_has_one_picture() -> None:
    flat = np.zeros((20, 24, 1))
    labels = np.zeros(flat.shape, int)
    labels[5:9, 6:12] = 1
    assert str(planes(Case(flat, labels, labels, (1.0, 1.0, 1.0), 0))).count("<image") == 1


def test_an_unknown_metric_keeps_its_name() -> None:
    assert metric("my_own_thing").label == "my own thing"
    assert metric("hd95").unit == "mm"


# ── comparisons ──
def test_comparisons_say_their_number_and_what_was_refused(finished: tuple[Layout, dict]) -> None:
    page = page_of(finished[0], "tissue")
    figure = re.search(r'<figure id="comparisons".*?</figure>', page, re.S)
    assert figure
    words = text_of(figure[0])
    rows = read_table(finished[0].experiment("tissue", "comparisons.tsv"))
    assert f"{len(rows) - 1} comparisons in the family" in words
    assert "1 pairs are not compared" in words
    assert "not compared: trained under cpu and cuda" in words
    answer = re.search(r'<p class="answer">(.*?)</p>', page, re.S)
    assert answer
    assert f"they differ (p = 0.040, allowing for {len(rows) - 1} comparisons)" in text_of(answer[1])


def test_an_override_stands_at_the_top(tree: tuple[Layout, dict]) -> None:
    path = tree[0].experiment("tissue", "comparisons.tsv")
    page, _ = again(tree, "tissue")
    assert "compared although" not in text_of(page)
    rows = read_table(path)
    write_table(path, rows.assign(note=["compared although trained under cpu and cuda", *rows["note"][1:]]))
    page, _ = again(tree, "tissue")
    top = text_of(page.split('<section id="answer"')[0])
    assert "1 pairs of models were compared although they were trained under different torch" in top


def test_without_a_test_no_difference_is_claimed(tree: tuple[Layout, dict]) -> None:
    tree[0].experiment("tissue", "comparisons.tsv").unlink()
    page, _ = again(tree, "tissue")
    answer = re.search(r'<p class="answer">(.*?)</p>', page, re.S)
    assert answer
    assert "they differ" not in text_of(answer[1])
