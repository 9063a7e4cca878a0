"""Audit a dataset before anything is computed from it: every image, every label, and the cohort as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pandas as pd

from gyri.audit import findings as cohort_findings
from gyri.audit.findings import Finding
from gyri.audit.images import ImageReport, check_image
from gyri.audit.order import order_test, scan, windows
from gyri.audit.similarity import build
from gyri.audit.targets import check_targets
from gyri.audit.voxels import correlation
from gyri.config.datasets import AuditSettings
from gyri.errors import DataError, Problem
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.progress import log, track
from gyri.seeds import generator
from gyri.tables import read_table, rows_of, write_table

LISTED = 50  # excluded images that a message lists before it points to the table


def run(settings: AuditSettings, layout: Layout, dataset: str, threads: int) -> dict[str, Any]:
    """Check a dataset and write audit.tsv, excluded.tsv and audit.json.

    Args:
        settings: the audit's settings and the targets that experiments need.
        layout: where files lie.
        dataset: its name.
        threads: images checked at a time.

    Returns:
        Facts: counts of images by status, and the status of each finding.

    Raises:
        DataError: with everything found, where an image must be excluded and `on_exclude` is stop, a finding stops, or a
            target is missing. What was found then lies in audit-failed.tsv and audit-failed.json.
    """
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort").sort_values("image_id", ignore_index=True)
    facts = read_json(layout.dataset(dataset, "dataset.json"))
    reports = _check_images(cohort, facts, settings, dataset, threads)
    by_name = {report.image_id: report for report in reports}
    _exclude_other_dimensions(reports)
    predicted = [target.column for target in settings.targets if target.task != "segmentation"]
    found = [
        _identity(facts, dataset),
        cohort_findings.exact_duplicates(cohort, predicted, by_name),
        *cohort_findings.grids(reports),
        *cohort_findings.unused_labels(reports, facts.get("labels", {})),
        *_similar(cohort, facts, by_name, settings, dataset),
    ]
    problems = check_targets(cohort, settings.targets, by_name)
    for finding in found:
        if finding.status == "stop" and finding.finding in settings.audit.acknowledge:
            finding.status = "acknowledged"
    problems += [*_stopping(found, dataset), *_exclusions(reports, settings, dataset)]
    table, excluded = _tables(reports)
    summary = _summary(cohort, facts, reports, found, dataset)
    for finding in found:
        if finding.status != "pass":
            log(f"audit {dataset}: {finding.status}: {finding.finding}: {finding.detail}")
    failed = layout.dataset(dataset, "audit-failed.tsv"), layout.dataset(dataset, "audit-failed.json")
    if problems:
        write_table(failed[0], table)
        write_json(failed[1], {**summary, "problems": [str(problem) for problem in problems]})
        last = problems[-1]
        remedy = f"{last.remedy} (everything that was found: {failed[0]} and {failed[1]})"
        raise DataError([*problems[:-1], Problem(last.where, last.got, last.expected, remedy)])
    for path in failed:
        path.unlink(missing_ok=True)
    write_table(layout.dataset(dataset, "audit.tsv"), table)
    write_table(layout.dataset(dataset, "excluded.tsv"), excluded, "excluded")
    write_json(layout.dataset(dataset, "audit.json"), summary)
    return {**summary["counts"], "findings": {finding.finding: finding.status for finding in found}}


def _check_images(
    cohort: pd.DataFrame, facts: Mapping[str, Any], settings: AuditSettings, dataset: str, threads: int
) -> list[ImageReport]:
    """Check every image, `threads` at a time; the results do not depend on their number.

    Threads do as well as processes here, since reading, sorting and summing let go of the interpreter's lock, and start at once.
    """
    rows = rows_of(cohort)
    check = partial(check_image, facts=facts, spacing_mm=settings.audit.spacing_mm)
    with ThreadPoolExecutor(threads) as pool:
        return list(track(pool.map(check, rows), f"audit {dataset}", len(rows)))


def _exclude_other_dimensions(reports: list[ImageReport]) -> None:
    """Exclude the planes among volumes, or the volumes among planes, whichever are fewer."""
    counts = Counter(report.dimensions for report in reports if report.dimensions)
    if len(counts) < 2:
        return
    usual = 3 if counts[3] >= counts[2] else 2
    for report in reports:
        if report.dimensions not in (0, usual):
            report.add("dimensions", "exclude", f"{report.dimensions}D among {counts[usual]} images that are {usual}D")


def _identity(facts: Mapping[str, Any], dataset: str) -> Finding:
    """Whether it is known which images belong to one person."""
    source = facts.get("group_source", "")
    if facts.get("identity") == "known":
        return Finding("identity", "pass", f"participants are known; groups: {source or 'the participant'}")
    detail = (
        "no participant is named, so each image counts as its own person unless `group` says otherwise; "
        f"groups: {source or 'the image'}"
    )
    remedy = f"set datasets.{dataset}.group, or name the column with participants"
    return Finding("identity", "warn", detail, remedy=remedy)


def _similar(
    cohort: pd.DataFrame, facts: Mapping[str, Any], reports: dict[str, ImageReport], settings: AuditSettings, dataset: str
) -> list[Finding]:
    """The three searches for one person under several ids, over all images that can be used."""
    usable = [name for name in cohort["image_id"] if reports[name].descriptor is not None and reports[name].status != "exclude"]
    rows = cohort.set_index("image_id", drop=False).loc[usable]
    key = f"datasets.{dataset}"
    look = (
        f"look at the pairs in audit.json (audit-failed.json) and set {key}.group so that one person is one group; "
        "if they are different people, "
    )
    remedies = {
        name: f"{look}set {key}.audit.acknowledge: [{name}]" for name in ("order_similarity", "same_person", "near_duplicates")
    }
    descriptors = [each for name in usable if (each := reports[name].descriptor) is not None]
    if len(usable) < 2:
        return [Finding(name, "pass", "fewer than two images") for name in remedies]
    similarity = build(descriptors, list(rows["group"]))
    runs = windows(usable, similarity.groups)
    found = scan(similarity, runs)
    draw = generator("audit", settings.audit.seed, "order")
    test = order_test(found, runs, settings.audit.permutations, draw) if len(usable) >= cohort_findings.MINIMUM_COHORT else None
    correlate: Callable[[int, int], float] = partial(correlation, rows_of(rows), facts)
    return [
        cohort_findings.order_finding(test, remedies["order_similarity"]),
        cohort_findings.same_person(found, similarity, usable, remedies["same_person"]),
        cohort_findings.near_duplicates(similarity, usable, list(rows["sha256_voxels"]), correlate, remedies["near_duplicates"]),
    ]


def _stopping(found: list[Finding], dataset: str) -> list[Problem]:
    where = f"datasets.{dataset}.audit"
    problems = []
    for finding in found:
        if finding.status == "stop":
            pairs = "; ".join(" and ".join(pair[:2]) for pair in finding.pairs[:5])
            got = f"{finding.finding}: {finding.detail}" + (f" ({pairs}{', ...' if finding.count > 5 else ''})" if pairs else "")
            problems.append(Problem(where, got, finding.threshold and f"not: {finding.threshold}", finding.remedy))
    return problems


def _exclusions(reports: list[ImageReport], settings: AuditSettings, dataset: str) -> list[Problem]:
    """What the images that must be excluded mean for the run."""
    excluded = [report for report in reports if report.status == "exclude"]
    changed = [report for report in excluded if report.changed]
    problems = []
    if excluded and len(excluded) == len(reports):
        remedy = "see the reasons of each image and mend them"
        problems.append(Problem(f"datasets.{dataset}", "no image that can be used", "at least one image", remedy))
    stopping = changed if settings.audit.on_exclude == "continue" and not problems else excluded
    for report in stopping[:LISTED]:
        wrong = [check for check in report.checks if check.status == "exclude"]
        expected, remedy = (
            "; ".join(dict.fromkeys(parts)) for parts in zip(*((each.expected, each.remedy) for each in wrong), strict=True)
        )
        if not report.changed:
            remedy += f"; or set datasets.{dataset}.audit.on_exclude: continue to go on without the image"
        problems.append(Problem(f"{dataset}: image {report.image_id}", _reason(report), expected, remedy))
    if len(stopping) > LISTED:
        got = f"{len(stopping) - LISTED} more images that must be excluded"
        problems.append(Problem(f"datasets.{dataset}", got, "images that can be used", "see the table with all reasons"))
    return problems


def _reason(report: ImageReport, status: str = "exclude") -> str:
    return "; ".join(f"{check.check}: {check.detail}" for check in report.checks if check.status == status)


def _tables(reports: list[ImageReport]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """audit.tsv: for each image its overall status, then each result; excluded.tsv: who leaves and why."""
    rows = []
    for report in reports:
        rows.append((report.image_id, "overall", report.status, _reason(report, report.status) if report.status != "pass" else ""))
        rows += [(report.image_id, check.check, check.status, check.detail) for check in report.checks]
    gone = [(report.image_id, _reason(report), "exclude") for report in reports if report.status == "exclude"]
    table = pd.DataFrame(rows, columns=["image_id", "check", "status", "detail"])
    return table, pd.DataFrame(gone, columns=["image_id", "reason", "severity"])


def _summary(
    cohort: pd.DataFrame, facts: Mapping[str, Any], reports: list[ImageReport], found: list[Finding], dataset: str
) -> dict[str, Any]:
    """The content of audit.json."""
    statuses = Counter(report.status for report in reports)
    return {
        "dataset": dataset,
        "identity": {"status": facts.get("identity", "assumed"), "statement": found[0].detail},
        "counts": {
            "images": len(cohort),
            "participants": int(cohort["participant_id"].nunique()),
            "groups": int(cohort["group"].nunique()),
            **{status: statuses[status] for status in ("pass", "warn", "exclude")},
        },
        "findings": [finding.as_json() for finding in found],
    }
