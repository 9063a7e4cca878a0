"""What is looked at on an open page; each function returns what is wrong, so that tests can also show a wrong page to it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route

WIDTHS = (360, 768, 1440)
THEMES = ("light", "dark")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
TOO_WIDE = """() => {
  const found = [];
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > room) found.push(`the page is ${document.documentElement.scrollWidth} px wide in ${room}`);
  for (const part of document.querySelectorAll("body *")) {
    if (part.closest(".scroll, pre, .unseen, .skip, svg, nav") || !part.getClientRects().length) continue;
    const box = part.getBoundingClientRect();
    if (box.right > room + 1 || box.left < -1) found.push(`${part.tagName} .${part.className} reaches from ${box.left} to ${box.right}`);
  }
  return found;
}"""

TARGETS = (
    """() => [...document.querySelectorAll("[href], [src]")].map(part => part.getAttribute("href") ?? part.getAttribute("src"))"""
)


LEAVES = re.compile(r"^(?!file:|data:|blob:)")


@dataclass
class Visit:
    """An open page and what it complained about or asked for.

    Args:
        page: of the browser.
        folder: where the file lies.
        problems: console errors, script errors, requests that tried to leave.
    """

    page: Page
    folder: Path
    problems: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1440, theme: str = "light") -> Iterator[Visit]:
    """The file in a window of its own that reaches nothing but files."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(20_000)
    visit = Visit(page, path.parent)

    def refuse(route: Route) -> None:
        visit.problems.append(f"request: {route.request.url}")
        route.abort()

    # nothing of the page itself is held up
    page.route(LEAVES, refuse)
    page.on("console", lambda message: message.type in ("error", "warning") and visit.problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: visit.problems.append(f"script: {error}"))
    try:
        page.goto(path.as_uri())
        yield visit
    finally:
        context.close()


def too_wide(page: Page) -> list[str]:
    """What is wider than the window, at every width and in both themes."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            found += [f"{width} px, {theme}: {words}" for words in page.evaluate(TOO_WIDE)]
    return found


def broken_links(visit: Visit) -> list[str]:
    """Links and references whose target does not exist."""
    found = []
    names = set(visit.page.evaluate("() => [...document.querySelectorAll('[id]')].map(part => part.id)"))
    twice = visit.page.evaluate("() => document.querySelectorAll('[id]').length") - len(names)
    if twice:
        found.append(f"{twice} ids stand twice")
    for target in visit.page.evaluate(TARGETS):
        parts = urlsplit(target)
        if parts.scheme == "data":
            head, _, content = target.partition(",")
            if not (content and (base64.b64decode(content, validate=True) if head.endswith("base64") else unquote(content))):
                found.append(f"{target[:60]} is empty")
        elif parts.scheme or parts.netloc:
            found.append(f"{target} leads out")
        elif parts.path and not (visit.folder / unquote(parts.path)).is_file():
            found.append(f"{target} does not exist")
        elif not parts.path and parts.fragment not in names:
            found.append(f"{target} leads nowhere")
    return found


def inaccessible(page: Page) -> list[str]:
    """Violations that axe-core finds with everything unfolded."""
    page.evaluate("() => document.querySelectorAll('main details').forEach(part => { part.open = true })")
    # shapes inside a drawing are no part of what is read out; axe-core would look at each of thousands
    page.evaluate("() => document.querySelectorAll('svg :is(circle, line, path, rect)').forEach(part => part.remove())")
    answer: dict[str, Any] = (
        Axe().run(page, options={"runOnly": {"type": "tag", "values": list(RULES)}, "resultTypes": ["violations"]}).response
    )
    return [
        f"{item['id']}: {node['target']} {node['failureSummary'][:300]}"
        for item in answer["violations"]
        for node in item["nodes"][:3]
    ]
