"""The methods text, written after the run from what the run recorded; what was not recorded is said to be missing."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from gyri.report import passages_data, passages_models, passages_results
from gyri.report.citations import bibliography, linked, references
from gyri.report.parts import Missing, Reportlet, text_link
from gyri.report.source import Source
from gyri.report.told import GAP

WAIVER = (
    "This text may be copied unchanged, without asking and without naming its source (CC0 1.0). "
    "It states what the run recorded, not what was planned."
)
PASSAGES: dict[str, Callable[[Source], list[str]]] = {
    "Data": passages_data.data,
    "Audit": passages_data.audit,
    "Division": passages_data.split,
    "Preprocessing": passages_data.preprocess,
    "Normalization": passages_data.normalize,
    "Networks and training": passages_models.networks,
    "Baselines": passages_models.baselines,
    "Prediction and ensembles": passages_models.prediction,
    "Evaluation": passages_results.evaluation,
    "Comparisons": passages_results.comparisons,
    "Saliency": passages_results.saliency,
    "Software and machines": passages_results.programs,
}
OPTIONAL = ("Saliency",)
NOT_SAID = {
    "dataset": {
        "source.format": "said in words",
        "source.path": "a place on one machine",
        "source.table": "a place on one machine",
        "source.volume": "said under preprocessing",
        "source.spacing_mm": "said under preprocessing for pixels, under data for a synthetic cohort",
    },
    "audit": {"targets": "the targets of other experiments on the dataset are among them"},
    "split": {"split.file": "a place on one machine; that there was a file is said"},
    "preprocess": {"shape": "the shape that came of it is said"},
    "train": {"training.checkpoint_seconds": "changes no result"},
    "predict-fold": {"network": "said under networks", "threads": "of prediction: results do not depend on them"},
    "explain": {"task": "said under networks", "threads": "of saliency: results do not depend on them"},
}
"""Settings that the text leaves out, each with the reason; a test finds every other one in the text."""


def passages(source: Source) -> dict[str, str]:
    """The text of each stage by its title, with citation keys inline."""
    found = {}
    for title, write in PASSAGES.items():
        try:
            found[title] = " ".join(write(source))
        except Missing as missing:
            if title not in OPTIONAL:
                found[title] = GAP.format(missing)
    return found


def methods(source: Source) -> Reportlet:
    """The passages, the references they cite, and both as files."""
    found = passages(source)
    text = " ".join(found.values())
    paragraphs = [Markup("<p><strong>{}.</strong> {}</p>").format(title, linked(words)) for title, words in found.items()]
    links = [
        text_link(markdown(source), "Text (Markdown)", f"{source.settings.experiment}_methods.md"),
        text_link(bibliography(text), "References (BibTeX)", f"{source.settings.experiment}_methods.bib"),
    ]
    body = Markup('<div class="methods">{}</div><details><summary>References</summary>{}</details><p class="actions">{}</p>')
    return Reportlet(body=body.format(Markup("").join(paragraphs), references(text), Markup(" ").join(links)), notes=[WAIVER])


def markdown(source: Source) -> str:
    """The text as Markdown with keys that pandoc understands; `methods.bib` beside it holds the references."""
    parts = [f"## {title}\n\n{words}" for title, words in passages(source).items()]
    return "# Methods\n\n" + "\n\n".join(parts) + f"\n\n---\n\n{WAIVER}\n"


def cited(source: Source) -> str:
    """methods.bib: the references of this text only."""
    return bibliography(" ".join(passages(source).values()))
