"""Every page in a real browser: nothing leaves, nothing is wider than the window, everybody can use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.conftest import PAGES
from browser.looks import Visit, broken_links, inaccessible, opened, too_wide


@pytest.mark.parametrize("name", PAGES)
def test_a_page_keeps_to_itself_and_to_the_window(browser: Browser, pages: Path, name: str) -> None:
    with opened(browser, pages / name) as visit:
        assert broken_links(visit) == []
        assert too_wide(visit.page) == []
        visit.page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        visit.page.wait_for_timeout(200)
        assert visit.problems == []


LOOKS = [*((name, "light") for name in PAGES), ("report.html", "dark"), ("tissue/report.html", "dark")]


@pytest.mark.parametrize(("name", "theme"), LOOKS)
def test_axe_finds_nothing(browser: Browser, pages: Path, name: str, theme: str) -> None:
    with opened(browser, pages / name, 1440 if theme == "light" else 360, theme) as visit:
        if visit.page.locator("[data-viewer]").count():
            visit.page.locator("[data-viewer]").scroll_into_view_if_needed()
            visit.page.wait_for_selector("[data-viewer][data-ready]")
        assert inaccessible(visit.page) == []


@pytest.mark.parametrize("name", PAGES[:3])
def test_text_of_the_data_is_never_code(browser: Browser, hostile: Path, name: str) -> None:
    with opened(browser, hostile / name) as visit:
        visit.page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true })")
        assert visit.page.evaluate("() => window.pwned") is None
        assert visit.page.evaluate("() => document.querySelectorAll('[onerror], body img, main script').length") == 0
        assert "onerror=" in visit.page.inner_text("main")
        assert broken_links(visit) == []
        assert visit.problems == []


@pytest.mark.parametrize("name", PAGES)
def test_it_prints_with_nothing_folded(browser: Browser, pages: Path, name: str) -> None:
    with opened(browser, pages / name) as visit:
        visit.page.emulate_media(media="print")
        visit.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert visit.page.locator("main details:not([open])").count() == 0
        assert not visit.page.locator("nav").is_visible()
        assert not visit.page.locator("header.top").is_visible()
        visit.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert visit.page.pdf(format="A4")[:5] == b"%PDF-"


def test_the_page_is_whole_without_its_script(browser: Browser, pages: Path, tmp_path: Path) -> None:
    text = (pages / "tissue/report.html").read_text(encoding="utf-8")
    without = tmp_path / "report.html"
    without.write_text(text[: text.rindex("<script>")] + text[text.rindex("</script>") + 9 :], encoding="utf-8")
    with opened(browser, pages / "tissue/report.html") as with_script, opened(browser, without) as plain:
        for part in ("figure", "tbody tr", "svg", "figcaption"):
            assert plain.page.locator(f"main {part}").count() == with_script.page.locator(f"main {part}").count()
        assert plain.page.get_by_text("Stepping through volumes needs JavaScript").is_visible()
        assert not plain.page.locator("[data-save]").first.is_visible()
        assert plain.problems == []


# ── the looks themselves: each is shown a page that is wrong ──
def wrong(check: Callable[[Visit], list[str]], broken: str) -> tuple[Callable[[Visit], list[str]], str]:
    return check, broken


GUARDS = {
    "a picture from elsewhere": wrong(lambda visit: visit.problems, '<img alt="" src="http://example.org/x.png">'),
    "a request by script": wrong(
        lambda visit: visit.page.evaluate("() => fetch('https://example.org/').catch(() => 0)") or visit.problems, ""
    ),
    "an error in a script": wrong(lambda visit: visit.problems, "<script>undefined_name</script>"),
    "something wide": wrong(lambda visit: too_wide(visit.page), '<p style="width: 1500px">wide</p>'),
    "something wide only on a phone": wrong(lambda visit: too_wide(visit.page), '<p style="min-width: 30rem">wide</p>'),
    "a link to nowhere": wrong(broken_links, '<a href="#nowhere">nowhere</a>'),
    "a link to a file that is not there": wrong(broken_links, '<a href="gone.html">gone</a>'),
    "a link that leaves": wrong(broken_links, '<a href="https://example.org">away</a>'),
    "an id twice": wrong(broken_links, '<p id="main"></p>'),
    "a button without a name": wrong(lambda visit: inaccessible(visit.page), "<button></button>"),
    "a picture without words": wrong(
        lambda visit: inaccessible(visit.page), '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'
    ),
    "pale text": wrong(lambda visit: inaccessible(visit.page), '<p style="color: #ccc; background: #fff">pale</p>'),
}


@pytest.mark.parametrize("name", GUARDS)
def test_the_looks_see_what_is_wrong(browser: Browser, tmp_path: Path, name: str) -> None:
    check, broken = GUARDS[name]
    page = tmp_path / "page.html"
    head = '<!doctype html><html lang="en"><title>t</title><meta name="viewport" content="width=device-width">'
    frame = head + '<body><main id="main"><h1>t</h1>{}</main>'
    for content, expected in (("", name == "a request by script"), (broken, True)):
        page.write_text(frame.format(content), encoding="utf-8")
        with opened(browser, page) as visit:
            assert bool(check(visit)) == expected
