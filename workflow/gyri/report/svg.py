"""A small writer of SVG.

Shapes carry classes instead of colours, so that the page's style sheet (light, dark, print) colours them, and a figure is the
same bytes every time. matplotlib would need 0.8 s to import and 30 kB per panel, and its colours could not follow the page.

Readers can hide models. Whatever belongs to one model says so, and the page's script does the rest:
marks (with their labels) are drawn inside `with drawing.model(name):`; a panel that is wholly about one model ends with
`drawing.render("chart", model=name)`; a table gives `row_models`, one name per row. Something about two models, such as a difference,
gives both, separated by a blank. Names are those of `source.settings.models` and `.ensembles`, not labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from markupsafe import Markup, escape

CHARACTER = 6.3
"""Mean width of a character at the figures' 12 px, in px; used to reserve room for labels."""

STRETCH = 1.18
"""A drawing may grow by this factor to fill its column."""


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text_width(text: str) -> float:
    """About how wide a text is in a figure, in px."""
    return len(text) * CHARACTER


def shortened(text: str, width: float) -> str:
    """The text, cut with an ellipsis where it is wider than `width` px."""
    room = max(int(width / CHARACTER), 2)
    return text if len(text) <= room else text[: room - 1] + "…"


class Drawing:
    """One SVG.

    Args:
        width: of the drawing, in px.
        height: of the drawing, in px.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.parts: list[str] = []

    def add(self, tag: str, attributes: dict[str, str | float], text: str | None = None, tip: str = "") -> None:
        """Add an element.

        Args:
            tag: of the element.
            attributes: numbers are written as coordinates.
            text: content.
            tip: shown when the pointer rests on the element.
        """
        pairs = " ".join(
            f'{key}="{escape(value) if isinstance(value, str) else number(value)}"'
            for key, value in attributes.items()
            if value != ""
        )
        inner = (f"<title>{escape(tip)}</title>" if tip else "") + (str(escape(text)) if text is not None else "")
        self.parts.append(f"<{tag} {pairs}>{inner}</{tag}>" if inner else f"<{tag} {pairs}/>")

    @contextmanager
    def model(self, name: str) -> Iterator[None]:
        """What is drawn inside belongs to a model (to several: names separated by a blank) and vanishes when it is hidden."""
        self.parts.append(f'<g data-model="{escape(name)}">')
        yield
        self.parts.append("</g>")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, tip: str = "") -> None:
        """A straight line."""
        self.add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind}, tip=tip)

    def rect(self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", opacity: float | None = None) -> None:
        """A rectangle; a negative height or width is refused by browsers, so it becomes 0."""
        box: dict[str, str | float] = {"x": x, "y": y, "width": max(width, 0), "height": max(height, 0), "class": kind}
        if opacity is not None:
            box["fill-opacity"] = f"{opacity:.2f}"
        self.add("rect", box, tip=tip)

    def dot(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """A filled circle."""
        self.add("circle", {"cx": x, "cy": y, "r": radius, "class": kind}, tip=tip)

    def diamond(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """A filled diamond."""
        corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        self.path(corners, kind, closed=True, tip=tip)

    def path(self, points: Sequence[tuple[float, float]], kind: str, closed: bool = False, tip: str = "") -> None:
        """Connected straight lines."""
        if len(points) < 2:
            return
        steps = "L".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add("path", {"d": f"M{steps}{'Z' if closed else ''}", "class": kind}, tip=tip)

    def text(self, x: float, y: float, content: str, kind: str = "t", tip: str = "", rotate: bool = False) -> None:
        """A text; `kind` may hold e (ends here), m (middle here), b (bold), q (quiet)."""
        attributes: dict[str, str | float] = {"x": x, "y": y, "class": kind}
        if rotate:
            attributes["transform"] = f"rotate(-90 {number(x)} {number(y)})"
        self.add("text", attributes, content, tip)

    def picture(self, x: float, y: float, width: float, height: float, png: str) -> None:
        """A raster image, given as base64 PNG, stretched to the box."""
        box: dict[str, str | float] = {"x": x, "y": y, "width": width, "height": height, "preserveAspectRatio": "none"}
        self.add("image", {**box, "href": f"data:image/png;base64,{png}"})

    def render(self, kind: str = "", model: str = "") -> Markup:
        """The SVG element; it shrinks with the page and grows a little to fill its column.

        Args:
            kind: class of the element.
            model: the one that all of the drawing is about, so that the panel vanishes with it.
        """
        size = f'viewBox="0 0 {number(self.width)} {number(self.height)}" style="max-width:{number(self.width * STRETCH)}px"'
        classes = f' class="{kind}"' if kind else ""
        classes += f' data-model="{escape(model)}"' if model else ""
        # every text in parts went through escape()
        return Markup(f"<svg {size}{classes}>{''.join(self.parts)}</svg>")
