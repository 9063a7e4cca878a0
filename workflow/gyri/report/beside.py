"""What lies beside the page of an experiment: methods text and references, sheets, and the RO-Crate that lists everything."""

from __future__ import annotations

from gyri.io import write_text
from gyri.report import methods, sheets
from gyri.report.crate import NAME, WORKFLOW, write_crate
from gyri.report.source import Source

OUTPUTS = (
    "methods.md",
    "methods.bib",
    *(f"sheets/{name}.{kind}" for name in sheets.NAMES for kind in ("tsv", "md")),
    WORKFLOW,
    NAME,
)


def write_beside(source: Source) -> None:
    """Write all of it; the page and its twin must be there before, since the crate lists them."""
    folder, clean = source.layout.experiment(source.settings.experiment), source.names.text
    write_text(folder / "methods.md", clean(methods.markdown(source)))
    write_text(folder / "methods.bib", methods.cited(source))
    for name in sheets.NAMES:
        write_text(folder / "sheets" / f"{name}.tsv", clean(sheets.tsv(source, name)))
        write_text(folder / "sheets" / f"{name}.md", clean(sheets.markdown(source, name)))
    write_crate(source)
