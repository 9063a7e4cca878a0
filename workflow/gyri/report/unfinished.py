"""The page of a run that did not finish: what failed, where its log lies, what is missing, and whatever there is already."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gyri import __version__
from gyri.config.experiments import ReportSettings
from gyri.io import write_json, write_text
from gyri.layout import Layout
from gyri.report import trust
from gyri.report.assemble import assets, gaps, page, sections, template, tidy
from gyri.report.source import Source
from gyri.warned import without_paths

PAGE, TWIN = "report-unfinished.html", "report-unfinished.json"
BLOCK = re.compile(r"^Error in (?:rule|group)[^\n]*\n(?:[ \t]+[^\n]*\n)*", re.MULTILINE)
FIELD = re.compile(r"^[ \t]+(rule|log|output): ([^\n]*)", re.MULTILINE)
FILES = re.compile(r"[^\s,()]+")
MOST = 20  # failed jobs that are named at the top; all are in the JSON file
TAIL = 16_384  # bytes of a log that are read


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    Args:
        job: what it was, from the name of its log.
        log: its log, relative to the results folder.
        error: what the log says last.
    """

    job: str
    log: str
    error: str


def failures(text: str, root: Path) -> list[Failure]:
    """Jobs that failed for good.

    Args:
        text: Snakemake's own log.
        root: the results folder; a job whose outputs are there succeeded when it was tried again.
    """
    found: dict[str, Failure] = {}
    for block in BLOCK.findall(text):
        fields = FIELD.findall(block)
        outputs = [name for kind, value in fields if kind == "output" for name in FILES.findall(value)]
        if outputs and all((root / name.removeprefix("results/")).is_file() for name in outputs):
            continue
        for kind, value in fields:
            log = next((name for name in FILES.findall(value) if name.endswith(".log")), "") if kind == "log" else ""
            name = log.removeprefix("results/")
            if name and name not in found:
                found[name] = Failure(_job(name), name, last_error(root / name))
    return list(found.values())


def _job(log: str) -> str:
    """logs/blobs/unet/train-fold-0-seed-0.log is `train-fold-0-seed-0 of blobs/unet`."""
    path = Path(log)
    return f"{path.stem} of {'/'.join(path.parts[1:-1]) or 'the run'}"


def last_error(log: Path) -> str:
    """What a log says last, in one line without paths: gyri's own explanation, else an exception, else the last line."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(log.stat().st_size - TAIL, 0))
            lines = handle.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return "the log is not there: the job was ended from outside, or never began"
    lines = [line.strip() for line in lines if line.strip()]
    for begins in ("got:", "Error", "Exception"):
        for line in reversed(lines):
            if line.startswith(begins) if begins == "got:" else re.match(rf"[\w.]*{begins}\b", line):
                return without_paths(line.removeprefix("got:").strip())
    return without_paths(lines[-1]) if lines else "the log is empty"


def concerning(settings: ReportSettings, found: Iterable[Failure]) -> list[Failure]:
    """Failures of an experiment or of its dataset."""
    places = (f"logs/{settings.experiment}/", f"logs/datasets/{settings.dataset}/")
    return [failure for failure in found if failure.log.startswith(places)]


def write_unfinished(settings: list[ReportSettings], layout: Layout, title: str, text: str) -> list[Path]:
    """Write a page for every experiment that failed or has no report, and one over all.

    Args:
        settings: of every experiment.
        layout: where files lie.
        title: of the run.
        text: Snakemake's log.

    Returns:
        The pages.
    """
    found, rows, pages = failures(text, layout.root), [], []
    for one in settings:
        own, finished = concerning(one, found), layout.experiment(one.experiment, "report.html").is_file()
        state = {
            "experiment": one.experiment,
            "failed": len(own),
            "old": finished and bool(own),
            "link": f"{one.experiment}/report.html",
        }
        if own or not finished:
            pages.append(_experiment(one, layout, own, bool(found), finished))
            state["link"] = f"{one.experiment}/{PAGE}"
        rows.append(state)
    text = template("unfinished.html.j2").render(
        title=title, rows=rows, failures=found[:MOST], more=max(len(found) - MOST, 0), version=__version__, **assets()
    )
    write_text(layout.root / PAGE, tidy(text))
    return [*pages, layout.root / PAGE]


def _experiment(settings: ReportSettings, layout: Layout, own: list[Failure], any_failed: bool, old: bool) -> Path:
    source = Source(settings, layout)
    made: list[dict[str, Any]] = []
    answers: list[trust.Check] = []
    try:
        made, answers = sections(source), trust.checks(source)
    except Exception as error:  # half-made files may break any figure; what failed must be said all the same
        own = [*own, Failure("the figures of this page", "report", without_paths(f"{type(error).__name__}: {error}"))]
    text = page(source, made, answers, above=banner(source, own, any_failed, old))
    text = text.replace('href="report.json"', f'href="{TWIN}"').replace('href="../report.html"', f'href="../{PAGE}"')
    content: dict[str, Any] = {"experiment": settings.experiment, "finished": False, "failed": [asdict(one) for one in own]}
    content |= {"absent_trainings": absent(source), "missing": gaps(made), "gyri": __version__}
    write_json(layout.experiment(settings.experiment, TWIN), source.names.content(content))
    path = layout.experiment(settings.experiment, PAGE)
    write_text(path, source.names.page(text))
    return path


def absent(source: Source) -> list[str]:
    """Trainings that have no result."""
    layout, name = source.layout, source.settings.experiment
    return [
        f"{model}, fold {fold}, seed {seed}"
        for model, fold, seed in source.runs()
        if not layout.run(name, model, fold, seed, "provenance-train.json").is_file()
    ]


def banner(source: Source, own: list[Failure], any_failed: bool, old: bool) -> list[tuple[str, Markup]]:
    """What stands above everything else."""
    if own:
        said = f"{len(own)} job{'s' if len(own) > 1 else ''} failed:"
    elif any_failed:
        said = "No job of this experiment failed; others stopped the run before it was done."
    else:
        said = "No failed job was found in Snakemake\u2019s log; look there."
    words = Markup("<strong>This run did not finish.</strong> {}").format(said)
    for failure in own[:MOST]:
        words += Markup('<br><strong>{}</strong>: {} <span class="about">(results/{})</span>').format(
            failure.job, failure.error, failure.log
        )
    if len(own) > MOST:
        words += Markup("<br>and {} more").format(len(own) - MOST)
    lost, total = absent(source), len(source.runs())
    lines = [("bad", words)]
    if lost:
        named = "; ".join(lost[:6]) + (f" and {len(lost) - 6} more" if len(lost) > 6 else "")
        lines.append(("bad", Markup("<strong>Missing:</strong> {} of {} trainings ({}).").format(len(lost), total, named)))
    if old:
        lines.append(("look", Markup("<strong>report.html</strong> beside this page is of an earlier run.")))
    again = "Mend the cause and call snakemake again: what is done is not done again. This page goes when the report is written."
    return [*lines, ("look", Markup("<strong>What to do:</strong> {}").format(again))]


def remove_unfinished(folder: Path) -> None:
    """Take the page of an earlier failure away, now that there is a report."""
    for name in (PAGE, TWIN):
        (folder / name).unlink(missing_ok=True)
