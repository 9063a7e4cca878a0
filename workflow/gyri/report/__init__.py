"""Report: one self-contained HTML page per experiment, and an index page, each with a machine-readable twin."""

from __future__ import annotations

from typing import Any

from gyri.config.experiments import ReportSettings
from gyri.io import write_json, write_text
from gyri.layout import Layout
from gyri.report.assemble import page_and_twin
from gyri.report.beside import write_beside
from gyri.report.index import index_page, index_twin
from gyri.report.source import Source
from gyri.report.twin import IndexTwin, checked
from gyri.report.unfinished import remove_unfinished

__all__ = ["run", "run_index"]


def run(settings: ReportSettings, layout: Layout) -> dict[str, Any]:
    """Write report.html and report.json of one experiment, and what lies beside them (`gyri.report.beside`).

    Args:
        settings: what the report is told of the experiment.
        layout: where files lie.

    Returns:
        Facts for provenance: bytes of the page, parts that are missing, checks that deserve a look.
    """
    source = Source(settings, layout)
    text, content = page_and_twin(source)
    text, content = source.names.page(text), source.names.content(content)
    write_json(layout.experiment(settings.experiment, "report.json"), checked(content))
    write_text(layout.experiment(settings.experiment, "report.html"), text)
    write_beside(source)
    remove_unfinished(layout.experiment(settings.experiment))
    states = [check["state"] for check in content["checks"]]
    return {
        "bytes": len(text.encode()),
        "missing": len(content["missing"]),
        "look": states.count("look"),
        "wrong": states.count("bad"),
    }


def run_index(settings: list[ReportSettings], layout: Layout, title: str) -> dict[str, Any]:
    """Write report.html and report.json of all experiments into the results folder.

    Args:
        settings: of every experiment.
        layout: where files lie.
        title: heading of the page.

    Returns:
        Facts for provenance: bytes of the page, number of experiments.
    """
    sources = [Source(item, layout) for item in settings]
    text, content = index_page(sources, title), index_twin(sources, title)
    for source in sources:
        text, content = source.names.page(text), source.names.content(content)
    write_json(layout.root / "report.json", checked(content, IndexTwin))
    write_text(layout.root / "report.html", text)
    remove_unfinished(layout.root)
    return {"bytes": len(text.encode()), "experiments": len(sources)}
