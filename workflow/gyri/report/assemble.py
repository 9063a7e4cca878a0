"""From the specification and the files to one HTML page and its machine-readable twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from gyri import __version__
from gyri.report import sheets, trust
from gyri.report.again import identities, reproduce
from gyri.report.alarms import FEW, alarms, summary
from gyri.report.figures_calibration import reliability
from gyri.report.figures_classification import confusion, probabilities
from gyri.report.figures_cohort import balance, cohort_table, distributions
from gyri.report.figures_cost import cost_accuracy
from gyri.report.figures_gains import ensemble_gain, postprocessing
from gyri.report.figures_learning import curves
from gyri.report.figures_ranking import precision_recall, roc
from gyri.report.figures_regression import bland_altman, error_against_true, predicted_against_true
from gyri.report.figures_results import forest, locked, other_metrics
from gyri.report.figures_saliency import saliency_check, saliency_examples, saliency_mean, saliency_regions
from gyri.report.figures_segmentation import (
    dice_against_volume,
    dice_per_structure,
    hd95_per_structure,
    surface_dice_per_structure,
    volume_error,
)
from gyri.report.figures_subgroups import site_probe, sites, subgroup_forest
from gyri.report.gallery import segmentation_gallery
from gyri.report.machines import machines
from gyri.report.methods import methods
from gyri.report.parts import MOST_ROWS, Lost, Missing, Reportlet, html_table, tsv_link
from gyri.report.results import HEADLINE, headline, metric, overall, sentence
from gyri.report.software import software
from gyri.report.source import Source
from gyri.report.tables_comparisons import chance, compared_although, comparisons, subgroups
from gyri.report.tables_results import all_metrics, by_fold, failed, worst_cases
from gyri.report.viewer import segmentation_viewer, worst_viewer
from gyri.report.what_ran import jobs, versions
from gyri.tables import rows_of

HERE = Path(__file__).parent
MAKERS: dict[str, Callable[[Source], Reportlet]] = {
    "all_metrics": all_metrics,
    "audit": trust.audit_warnings,
    "balance": balance,
    "bland_altman": bland_altman,
    "by_fold": by_fold,
    "chance": chance,
    "checklist": trust.checklist,
    "claim_sheet": sheets.reportlet("claim"),
    "cohort_table": cohort_table,
    "comparisons": comparisons,
    "confusion": confusion,
    "dice_against_volume": dice_against_volume,
    "dice_per_structure": dice_per_structure,
    "cost_accuracy": cost_accuracy,
    "distributions": distributions,
    "ensemble_gain": ensemble_gain,
    "error_against_true": error_against_true,
    "exclusions": trust.exclusions,
    "failed": failed,
    "forest": forest,
    "gallery": segmentation_gallery,
    "hd95_per_structure": hd95_per_structure,
    "jobs": jobs,
    "learning_curves": curves,
    "locked": locked,
    "machines": machines,
    "methods": methods,
    "model_sheet": sheets.reportlet("model"),
    "other_metrics": other_metrics,
    "postprocessing": postprocessing,
    "precision_recall": precision_recall,
    "predicted_against_true": predicted_against_true,
    "probabilities": probabilities,
    "reliability": reliability,
    "reproduce": reproduce,
    "roc": roc,
    "saliency_check": saliency_check,
    "saliency_examples": saliency_examples,
    "saliency_mean": saliency_mean,
    "saliency_regions": saliency_regions,
    "site_probe": site_probe,
    "sites": sites,
    "subgroup_forest": subgroup_forest,
    "subgroups": subgroups,
    "surface_dice_per_structure": surface_dice_per_structure,
    "tripod_sheet": sheets.reportlet("tripod_ai"),
    "undefined": trust.undefined,
    "versions": versions,
    "viewer": segmentation_viewer,
    "volume_error": volume_error,
    "worst_cases": worst_cases,
    "worst_viewer": worst_viewer,
}


@cache
def specification() -> list[dict[str, Any]]:
    """The sections of spec.yml."""
    return yaml.safe_load((HERE / "spec.yml").read_text(encoding="utf-8"))["sections"]


@cache
def template(name: str) -> jinja2.Template:
    """A template beside this module, every value escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def assets() -> dict[str, Markup]:
    """Style sheet and script, to be set into the page."""
    return {
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "script": Markup("".join((HERE / name).read_text(encoding="utf-8") for name in ("script.js", "viewer.js"))),
    }


def sections(source: Source) -> list[dict[str, Any]]:
    """Every section with its parts made; a part that could not be made says why."""
    found = []
    for section in specification():
        parts = [
            made(source, part) for part in section["parts"] if source.settings.task in part.get("task", [source.settings.task])
        ]
        shown = [part for part in parts if not part["skipped"]]
        found.append(
            {"id": section["id"], "title": section["title"], "parts": shown, "skipped": [part for part in parts if part["skipped"]]}
        )
    return found


def made(source: Source, part: dict[str, Any]) -> dict[str, Any]:
    """One part of the page, ready for the template."""
    about = {
        "id": part["make"].replace("_", "-"),
        "title": part["title"],
        "caption": part["caption"],
        "missing": "",
        "skipped": False,
    }
    try:
        return {**about, **rendered(MAKERS[part["make"]](source), about["id"], f"{source.settings.experiment}_")}
    except Missing as missing:
        empty = rendered(Reportlet(), about["id"], "")
        return {**empty, **about, "missing": str(missing), "skipped": bool(part.get("optional")) and not isinstance(missing, Lost)}


def rendered(part: Reportlet, name: str, prefix: str) -> dict[str, Any]:
    """The fields of a part as the template takes them."""
    notes = list(part.notes)
    link = ""
    if part.data is not None and len(part.data) <= MOST_ROWS:
        link = tsv_link(part.data)
    elif part.data is not None:
        notes.append(
            f"The table behind it has {len(part.data)} rows, too many to embed; it lies beside this page in the results folder."
        )
    return {
        "alt": part.alt,
        "panels": part.panels,
        "narrow": part.narrow,
        "legend": part.legend,
        "tables": [
            {
                "html": html_table(table),
                "caption": table.caption,
                "folded": "folded" in table.classes,
                "filterable": "filterable" in table.classes,
            }
            for table in part.tables
        ],
        "body": part.body,
        "notes": notes,
        "link": link,
        "file": f"{prefix}{name}",
        "columns": max(min(part.columns, len(part.panels)), 1),
        "rows": 0 if part.data is None else len(part.data),
    }


def banners(source: Source, answers: list[trust.Check]) -> list[tuple[str, Markup]]:
    """What must be known before any number is read: (kind, words)."""
    found = []
    if source.pilot:
        done, all_of_them = source.settings.run_folds, source.settings.folds
        words = Markup(
            "<strong>Pilot:</strong> {} of {} folds were run (fold {}). Numbers are of the participants of these folds only, "
            "and will change."
        )
        found.append(("look", words.format(len(done), all_of_them, ", ".join(map(str, done)))))
    overridden = compared_although(source)
    if overridden:
        words = Markup(
            "<strong>Other conditions:</strong> {} pairs of models were compared although they were trained under different torch, "
            "CUDA, cuDNN or kinds of device (compare_mixed)."
        )
        found.append(("look", words.format(overridden)))
    for check in answers:
        if check.state == "bad" or (check.state == "look" and check.question == trust.CHANGED_BATCHES):
            found.append((check.state, Markup("<strong>{}</strong> {}.").format(check.question, check.answer)))
    return found


def raised(source: Source) -> dict[str, Any]:
    """Warnings of every stage, for the top of the page."""
    found = alarms(source)
    return {"list": found, "summary": summary(found), "open": len(found) <= FEW}


def facts(source: Source) -> list[tuple[str, str]]:
    """What the page is about, in a few words."""
    settings = source.settings
    found = [("Task", settings.task), ("Target", settings.target), ("Dataset", settings.dataset)]
    try:
        kept = source.kept
        found += [
            ("Images", str(len(kept))),
            ("Participants", str(kept["participant_id"].nunique())),
            ("Groups", str(kept["group"].nunique())),
        ]
    except Missing:
        found.append(("Images", "not available"))
    folds = f"{len(settings.run_folds)} of {settings.folds}" if source.pilot else str(settings.folds)
    trainings = sum(settings.models[name] for name in source.networks) * len(settings.run_folds)
    return [*found, ("Folds", folds), ("Trainings", str(trainings))]


def page_and_twin(source: Source) -> tuple[str, dict[str, Any]]:
    """The page of one experiment, and what it says for programs."""
    made_sections, answers = sections(source), trust.checks(source)
    return page(source, made_sections, answers), twin(source, made_sections, answers)


def page(
    source: Source, made_sections: list[dict[str, Any]], answers: list[trust.Check], above: Sequence[tuple[str, Markup]] = ()
) -> str:
    """The HTML of one experiment; `above` stands before all other banners."""
    try:
        answer, missing = sentence(source), ""
    except Missing as gap:
        answer, missing = Markup(""), str(gap)
    text = template("report.html.j2").render(
        title=source.settings.experiment,
        heading=source.settings.title,
        facts=facts(source),
        answer=answer,
        answer_missing=missing,
        banners=[*above, *banners(source, answers)],
        alarms=raised(source),
        sections=made_sections,
        gaps=gaps(made_sections),
        models=[(name, source.label(name), source.colour(name)) for name in [*source.settings.models, *source.settings.ensembles]],
        version=__version__,
        home="../report.html",
        **assets(),
    )
    return tidy(text)


def gaps(made_sections: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Parts that could not be made."""
    return [
        {"id": part["id"], "title": part["title"], "reason": part["missing"]}
        for section in made_sections
        for part in section["parts"]
        if part["missing"]
    ]


def tidy(text: str) -> str:
    """Without trailing blanks and empty lines."""
    return re.sub(r"[ \t]*\n\s*\n+", "\n", text)


def twin(source: Source, made_sections: list[dict[str, Any]], answers: list[trust.Check]) -> dict[str, Any]:
    """What the page says, for programs."""
    settings = source.settings
    content: dict[str, Any] = {
        "experiment": settings.experiment,
        "dataset": settings.dataset,
        "task": settings.task,
        "target": settings.target,
        "folds": settings.folds,
        "run_folds": settings.run_folds,
        "pilot": source.pilot,
        "models": settings.models,
        "baselines": settings.baselines,
        "ensembles": sorted(settings.ensembles),
        "headline_metric": HEADLINE[settings.task],
        "higher_is_better": metric(HEADLINE[settings.task]).better > 0,
        "checks": [asdict(check) for check in answers],
        "missing": gaps(made_sections),
        "software": software(source),
        "warnings": [asdict(alarm) for alarm in alarms(source)],
        "sheets": sheets.tally(source),
        "identities": identities(source),
        "form": 1,
        "gyri": __version__,
    }
    content["headline"] = _rows(lambda: headline(source))
    content["results"] = _rows(lambda: overall(source))
    content["counts"] = _counts(source)
    content["findings"] = _findings(source)
    return content


def _rows(read: Callable[[], pd.DataFrame]) -> list[dict[str, Any]] | None:
    try:
        table = read()
    except Missing:
        return None
    return [{name: _plain(value) for name, value in row.items()} for row in rows_of(table)]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not pd.notna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _counts(source: Source) -> dict[str, int] | None:
    try:
        kept = source.kept
        return {
            "images": len(source.cohort),
            "images_kept": len(kept),
            "participants": int(kept["participant_id"].nunique()),
            "groups": int(kept["group"].nunique()),
        }
    except Missing:
        return None


def _findings(source: Source) -> list[dict[str, str]] | None:
    try:
        return trust.findings(source)
    except Missing:
        return None
