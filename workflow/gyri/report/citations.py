"""Sources by key: the ones a text cites, as links, as a list of references, and as a .bib file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup, escape

CITED = re.compile(r"\[(@[a-z0-9]+(?:; @[a-z0-9]+)*)\]")
FIELD = re.compile(r"(\w+) = \{((?:[^{}]|\{[^{}]*\})*)\}")


@dataclass(frozen=True)
class Reference:
    """One entry of methods.bib.

    Args:
        key: by which texts cite it.
        entry: in BibTeX.
        fields: author, title, year, doi or url, and where it appeared.
    """

    key: str
    entry: str
    fields: dict[str, str]

    @property
    def short(self) -> str:
        """First author and year, as texts name it."""
        authors = self.fields["author"].split(" and ")
        names = [name.split(",")[0] for name in authors if name != "others"]
        more = " et al." if len(authors) > 2 else f" and {names[1]}" if len(names) == 2 else ""
        return f"{names[0]}{more} {self.fields['year']}"

    @property
    def link(self) -> str:
        """Where it can be read; no address that a browser would follow, since a page points nowhere outside itself."""
        return f"doi:{self.fields['doi']}" if "doi" in self.fields else self.fields["url"].removeprefix("https://")

    @property
    def line(self) -> str:
        """The reference in one line, without its link."""
        where = next((self.fields[name] for name in ("journal", "booktitle", "publisher") if name in self.fields), "")
        volume = f" {self.fields['volume']}" if "volume" in self.fields else ""
        authors = self.fields["author"].replace(" and others", " et al.").replace(" and ", "; ")
        text = f"{authors}. {self.fields['title']}. {where}{volume}{', ' if where else ''}{self.fields['year']}."
        return re.sub(r"[{}]", "", text).replace("``", "\u201c").replace("''", "\u201d").replace("..", ".")


@cache
def library() -> dict[str, Reference]:
    """Every source that a text may cite, one entry per line of methods.bib."""
    found = {}
    for line in (Path(__file__).parent / "methods.bib").read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            key = line.partition("{")[2].partition(",")[0]
            found[key] = Reference(key, line, dict(FIELD.findall(line.partition(",")[2])))
    return found


def keys_of(text: str) -> list[str]:
    """Keys that a text cites, each once, in the order of the text."""
    return list(dict.fromkeys(key for group in CITED.findall(text) for key in re.findall(r"@(\w+)", group)))


def bibliography(text: str) -> str:
    """The .bib file of what a text cites."""
    return "\n".join(library()[key].entry for key in sorted(keys_of(text))) + "\n"


def linked(text: str) -> Markup:
    """The text with each citation as a link to its reference; everything else is escaped."""
    parts, at = [], 0
    for found in CITED.finditer(text):
        keys = re.findall(r"@(\w+)", found[1])
        links = Markup("; ").join(Markup('<a href="#ref-{}">{}</a>').format(key, library()[key].short) for key in keys)
        parts += [escape(text[at : found.start()]), Markup("({})").format(links)]
        at = found.end()
    return Markup("").join([*parts, escape(text[at:])])


def references(text: str) -> Markup:
    """The list of what a text cites."""
    lines = [
        Markup('<li id="ref-{}">{} <span class="link">{}</span></li>').format(one.key, one.line, one.link)
        for one in sorted((library()[key] for key in keys_of(text)), key=lambda one: one.short.casefold())
    ]
    return Markup('<ol class="references">{}</ol>').format(Markup("").join(lines))
