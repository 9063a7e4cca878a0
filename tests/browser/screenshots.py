"""Pictures of finished pages, for the README, for docs/, and for looking at every section."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from browser.install import chromium
from browser.looks import opened


def save(picture: bytes, path: Path) -> None:
    """A PNG with a palette, which is a third of the size."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take a picture of every section of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--name", default="", help="first part of the files' names")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--part", help="only this part of the page, such as #forest")
    parser.add_argument("--top", action="store_true", help="only what one sees first")
    given = parser.parse_args()
    path = chromium()
    if path is None:
        raise SystemExit("no Chromium; tests/browser/install.py installs it on Debian")
    given.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with opened(browser, given.page.resolve(), given.width, given.theme) as visit:
            if given.top:
                save(visit.page.screenshot(), given.folder / f"{given.name}top.png")
                return
            visit.page.add_style_tag(content=".top { position: static !important }")
            parts = visit.page.locator(given.part or "main > section, main > div")
            for index in range(parts.count()):
                part = parts.nth(index)
                part.scroll_into_view_if_needed()
                viewer = part.locator("[data-viewer]")
                if viewer.count():
                    viewer.scroll_into_view_if_needed()
                    visit.page.wait_for_selector("[data-viewer][data-ready]")
                name = part.get_attribute("id") or part.get_attribute("class") or str(index)
                save(part.screenshot(), given.folder / f"{given.name}{name}.png")


if __name__ == "__main__":
    main()
