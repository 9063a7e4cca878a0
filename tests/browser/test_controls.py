"""Everything that a reader can press, turn or type, by mouse and by keyboard."""

from __future__ import annotations

import base64
import contextlib
import io
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Download, Locator, Page
from playwright.sync_api import TimeoutError as Waited

from browser.looks import Visit, opened
from gyri.tables import read_table

SORTED = """tables => tables.flatMap(table => [...table.tHead.rows[0].cells].map(head => [1, 2].map(() => {
  head.querySelector("button").click();
  return `${head.getAttribute("aria-sort")} ${table.querySelectorAll("[aria-sort]").length}`;
})))"""
"""Presses each heading twice; what it then says of the order, and how many headings say something."""
EXPERIMENTS = ("tissue", "diagnosis", "age")


def column(table: Locator, index: int) -> list[str]:
    """Texts of a column's visible cells."""
    return table.evaluate("(t, i) => [...t.tBodies[0].rows].filter(r => r.offsetParent).map(r => r.cells[i].textContent)", index)


@pytest.mark.parametrize("name", ["report.html", *[f"{name}/report.html" for name in EXPERIMENTS]])
def test_theme_sort_and_filter(browser: Browser, pages: Path, name: str) -> None:
    with opened(browser, pages / name) as visit:
        page = visit.page
        before = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        page.click("[data-theme-button]")
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != before
        page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true })")
        tables = page.locator("table.sortable")
        assert tables.count() > 0
        tables.first.locator("thead th button").first.focus()
        for order in ("ascending", "descending"):
            page.keyboard.press("Enter")
            assert tables.first.locator("thead th").first.get_attribute("aria-sort") == order
        for orders in tables.evaluate_all(SORTED):
            assert orders == ["ascending 1", "descending 1"]
        for index in range(page.locator(".filter").count()):
            check_filter(visit, index)
        assert visit.problems == []


def check_filter(visit: Visit, index: int) -> None:
    """A word of the first row keeps the rows that hold it; nonsense keeps none; nothing keeps all."""
    filters = visit.page.locator(".filter").nth(index)
    table = visit.page.locator(".filter + .scroll table").nth(index)
    texts = [text.lower() for text in table.evaluate("t => [...t.tBodies[0].rows].map(r => r.textContent)")]
    word = table.locator("tbody tr").first.locator("td").first.inner_text().split()[0].lower()
    for typed, count in ((word, sum(word in text for text in texts)), ("no such word", 0)):
        filters.locator("input").fill(typed)
        assert table.locator("tbody tr:visible").count() == count
        assert filters.locator("span").inner_text() == f"{count} of {len(texts)} rows"
    filters.locator("input").fill("")
    assert table.locator("tbody tr:visible").count() == len(texts)


def test_sorting_is_by_value(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "tissue/report.html") as visit:
        visit.page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true })")
        table = visit.page.locator("#worst-cases table")
        heads = [text.rstrip(" ↕↑↓") for text in table.locator("thead th").all_inner_texts()]
        place = heads.index("Mean Dice")
        table.locator("thead th button").nth(place).click()
        found = [float(text) for text in column(table, place)]
        assert found == sorted(found)
        table.locator("thead th button").nth(place).click()
        assert [float(text) for text in column(table, place)] == sorted(found, reverse=True)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_models_can_be_hidden(browser: Browser, pages: Path, experiment: str) -> None:
    with opened(browser, pages / experiment / "report.html") as visit:
        page = visit.page
        menu = page.locator("[data-models]")
        menu.locator("summary").focus()
        page.keyboard.press("Enter")
        boxes = menu.locator("input")
        names = boxes.evaluate_all("boxes => boxes.map(box => box.value)")
        known = set(" ".join(page.locator("main [data-model]").evaluate_all("all => all.map(part => part.dataset.model)")).split())
        assert known <= set(names)
        name = next(name for name in names if name in known)
        marks = page.locator(f'main [data-model~="{name}"]:visible')
        others = page.locator(f'main [data-model]:not([data-model~="{name}"], [data-model~="{name}"] *):visible')
        seen, rest = marks.count(), others.count()
        assert seen > 0
        menu.locator(f'input[value="{name}"]').focus()
        page.keyboard.press("Space")
        assert marks.count() == 0
        assert others.count() == rest
        assert menu.locator("[data-shown]").inner_text() == f"{len(names) - 1} of {len(names)}"
        page.keyboard.press("Space")
        assert marks.count() == seen
        page.keyboard.press("Escape")
        assert not menu.locator("fieldset").is_visible()
        assert visit.problems == []


def save(page: Page, control: Locator) -> Download:
    """What a click on a control saves. Chromium now and then loses one of many downloads although it saw the click, so it has three tries."""
    for _ in range(2):
        with contextlib.suppress(Waited):
            with page.expect_download(timeout=4_000) as waiting:
                control.click()
            return waiting.value
    with page.expect_download() as waiting:
        control.click()
    return waiting.value


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_figures_and_tables_are_saved(browser: Browser, pages: Path, experiment: str) -> None:
    with opened(browser, pages / experiment / "report.html") as visit:
        page = visit.page
        page.locator("[data-viewer]").scroll_into_view_if_needed()
        page.wait_for_selector("[data-viewer][data-ready]")  # it moves what stands below it
        buttons, links = page.locator("[data-save]"), page.locator("a[download$='.tsv']")
        for index in range(buttons.count()):
            saved = save(page, buttons.nth(index))
            drawing = ElementTree.parse(saved.path()).getroot()
            assert saved.suggested_filename.endswith(".svg")
            assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
            assert float(drawing.get("width", 0)) > 50
            assert len(list(drawing.iter())) > 10
        for index in range(links.count()):
            text = base64.b64decode((links.nth(index).get_attribute("href") or "").partition(",")[2])
            rows = len(pd.read_csv(io.BytesIO(text), sep="\t")) if text.strip() else 0
            assert f"{rows} row" in links.nth(index).inner_text()
            if index < 3:
                assert Path(save(page, links.nth(index)).path()).read_bytes() == text
        assert visit.problems == []


def test_the_table_behind_the_answer_is_that_of_the_metrics(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "tissue/report.html") as visit:
        link = visit.page.locator("#forest a[download$='.tsv']").first
        saved = pd.read_csv(save(visit.page, link).path(), sep="\t")
    metrics = read_table(pages / "tissue/metrics.tsv", "metrics")
    rows = metrics[(metrics["metric"] == "dice") & (metrics["structure"] == "mean") & (metrics["fold"] == "all")].set_index("model")
    saved = saved[saved["fold"] == "all"].set_index("model")
    assert set(saved.index) == set(rows.index)
    np.testing.assert_allclose(saved["value"], rows["value"].reindex(saved.index), rtol=1e-9)


def test_values_are_read_by_pointer_and_by_keyboard(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "tissue/report.html") as visit:
        page = visit.page
        panels = page.locator("#forest .panels:visible").first
        panels.focus()
        read = []
        for _ in range(3):
            page.keyboard.press("ArrowRight")
            read.append(page.inner_text(".tip"))
        assert len(set(read)) > 1
        assert all(any(letter.isdigit() for letter in text) for text in read)
        page.keyboard.press("Escape")
        assert not page.locator(".tip").is_visible()
        page.locator("#forest .panels:visible .solid").first.hover()
        assert page.locator(".tip").is_visible()


def drawn(viewer: Locator) -> list[str]:
    """What the canvases of a viewer show."""
    return viewer.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_viewer_steps(browser: Browser, pages: Path, experiment: str) -> None:
    with opened(browser, pages / experiment / "report.html") as visit:
        page = visit.page
        page.locator("[data-viewer]").scroll_into_view_if_needed()
        viewer = page.locator("[data-viewer][data-ready]")
        viewer.wait_for()
        assert not page.get_by_text("Stepping through volumes needs JavaScript").is_visible()
        states = [drawn(viewer)]
        assert len(set(states[0])) == 3
        for index, key in enumerate(["ArrowRight", "ArrowLeft", "End"]):
            slider = viewer.locator(".plane input").nth(index)
            slider.focus()
            said = slider.get_attribute("aria-valuetext") or ""
            page.keyboard.press(key)
            assert slider.get_attribute("aria-valuetext") != said
            states.append(drawn(viewer))
            assert states[-1] != states[-2]
            assert (slider.get_attribute("aria-valuetext") or "?") in (
                viewer.locator("canvas").nth(index).get_attribute("aria-label") or ""
            )
        viewer.locator("canvas").nth(2).click(position={"x": 12, "y": 12})
        assert drawn(viewer) != states[-1]
        page.select_option("[data-case]", index=1)
        page.wait_for_function("before => document.querySelector('.plane canvas').toDataURL() !== before", arg=states[0][0])
        if experiment == "tissue":
            check_layers(viewer)
        assert visit.problems == []


def check_layers(viewer: Locator) -> None:
    """Truth, prediction, single structures, their style and opacity change what is drawn."""
    states = [drawn(viewer)]
    viewer.locator("[data-opacity]").fill("40")
    states.append(drawn(viewer))
    viewer.locator("[data-style]").select_option("filled")
    states.append(drawn(viewer))
    for box in ('[data-layer="prediction"]', "[data-structures] input >> nth=0", '[data-layer="truth"]'):
        viewer.locator(box).uncheck()
        states.append(drawn(viewer))
    assert all(one != other for one, other in pairwise(states))


def test_by_keyboard_alone(browser: Browser, pages: Path) -> None:
    """The skip link comes first and leads to the content; whatever has the focus shows it."""
    with opened(browser, pages / "tissue/report.html") as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.querySelector('main').contains(document.activeElement)")
        for _ in range(12):
            page.keyboard.press("Tab")
            style = page.evaluate(
                "() => [getComputedStyle(document.activeElement).outlineStyle, document.activeElement.outerHTML.slice(0, 99)]"
            )
            assert style[0] != "none", style
