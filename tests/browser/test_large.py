"""Ten thousand cases make a page that opens at once; a run that failed half way says so at the top."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

import report_fixture
from browser.looks import opened
from gyri.layout import Layout
from gyri.report import run

GROUPS = 8000
SECONDS = 3.0
BYTES = 8_000_000
USABLE = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() / 1000))))"""


def test_ten_thousand_cases_open_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, GROUPS, (4, 4, 4), ("classification",), files=False)[0]
    facts = run(settings, layout)
    assert facts["bytes"] < BYTES
    path = layout.experiment(settings.experiment, "report.html")
    found = []
    for _ in range(3):
        with opened(browser, path) as visit:
            found.append(visit.page.evaluate(USABLE))
            assert visit.page.locator("main figure").count() > 15
            assert visit.page.locator("tbody tr:visible").count() < 2500
            assert visit.problems == []
        if found[-1] < SECONDS:
            break
    assert min(found) < SECONDS, found
    assert f"{GROUPS * 5 // 4 - 1} images" in path.read_text(encoding="utf-8")


def test_long_tables_are_shown_in_part_and_searched_in_full(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    script = (Path(report_fixture.__file__).parents[1] / "workflow/gyri/report/script.js").read_text(encoding="utf-8")
    rows = "".join(f"<tr><td>case {index}</td></tr>" for index in range(500))
    filters = '<p class="filter" hidden><label>Show <input type="search"></label> <span></span></p>'
    head = '<table class="sortable"><thead><tr><th>Case</th></tr></thead>'
    table = f'<div class="scroll" tabindex="0">{head}<tbody>{rows}</tbody></table></div>'
    page.write_text(f"<!doctype html><main>{filters}{table}</main><script>{script}</script>", encoding="utf-8")
    with opened(browser, page) as visit:
        shown = visit.page.locator("tbody tr:visible")
        assert shown.count() == 50
        visit.page.fill(".filter input", "case 499")
        assert shown.all_inner_texts() == ["case 499"]
        visit.page.fill(".filter input", "")
        assert shown.count() == 50
        visit.page.click(".more-rows")
        assert shown.count() == 500


def test_a_run_that_failed_half_way_says_so_at_the_top(browser: Browser, pages: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, 8, (10, 12, 10), ("classification",))[0]
    for name in ("metrics.tsv", "comparisons.tsv", "chance.tsv"):
        layout.experiment("diagnosis", name).unlink()
    run(settings, layout)
    with opened(browser, pages / "diagnosis/report.html") as whole:
        assert whole.page.get_by_text("of this page not available").count() == 0
    with opened(browser, layout.experiment("diagnosis", "report.html")) as visit:
        banner = visit.page.locator(".gaps")
        box = banner.bounding_box()
        assert box
        assert box["y"] < 700
        banner.locator("summary").click()
        links = banner.locator("a")
        assert links.count() >= 3
        links.first.click()
        assert visit.page.locator(f"{links.first.get_attribute('href')} .missing").is_visible()
        assert visit.problems == []
