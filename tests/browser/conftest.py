"""A real browser, and pages to look at; everything here is skipped where there is no Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

import report_fixture
from browser.install import chromium
from gyri.layout import Layout
from gyri.report import run, run_index

PAGES = ("report.html", "tissue/report.html", "diagnosis/report.html", "age/report.html")
EVIL = "<img src=x onerror=\"window.pwned='yes'\"></script><script>window.pwned='yes'</script>"
"""Set in the place of ids, labels and headings; a page that does not escape it runs it."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window."""
    path = chromium()
    if path is None:
        pytest.skip("skipped: no chromium")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a finished run with a page for each task."""
    layout = Layout(tmp_path_factory.mktemp("pages") / "results")
    settings = report_fixture.make_results(layout.root, 12, (20, 24, 20))
    for item in settings:
        run(item, layout)
    run_index(settings, layout, "Folds of a brain")
    return layout.root


@pytest.fixture(scope="session")
def hostile(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a run whose ids, labels, sites, columns and texts are HTML."""
    layout = Layout(tmp_path_factory.mktemp("hostile") / "results")
    settings = report_fixture.make_results(layout.root, 12, (10, 12, 10), ("segmentation", "classification"))
    for path in layout.root.rglob("*.tsv"):
        text = path.read_text(encoding="utf-8")
        for word in ("sub-001", "g002", "Anterior", "north", "patient", "sex", "4.1 mm along Z"):
            text = text.replace(word, word + EVIL.replace('"', "'"))
        path.write_text(text, encoding="utf-8")
    for path in layout.root.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        for word in ("Anterior", "CC0", "Example CPU", "Test brains", "Nobody, 2020."):
            text = text.replace(word, word + json.dumps(EVIL)[1:-1])
        path.write_text(text, encoding="utf-8")
    settings = [item.model_copy(update={"title": EVIL}) for item in settings]
    for item in settings:
        run(item, layout)
    run_index(settings, layout, EVIL)
    return layout.root
