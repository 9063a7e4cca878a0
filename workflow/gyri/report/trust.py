"""Can it be trusted: checks that the page makes anew from the files, each with its answer and where it was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from gyri.errors import LeakageError, shown
from gyri.leakage import check_splits
from gyri.report import devices
from gyri.report.parts import NONE, Missing, Reportlet, Table, heading
from gyri.report.results import metric
from gyri.report.source import Source

STATES = {"good": ("✓", "good"), "look": ("!", "look at this"), "bad": ("✗", "wrong"), "unknown": (NONE, "not available")}
RANKED = ("python", "numpy", "torch", "cuda", "cudnn")
SHOWN = 8
TRAININGS = "provenance-train.json"


@dataclass(frozen=True)
class Check:
    """One question with its answer.

    Args:
        question: what is asked.
        state: good, look, bad or unknown.
        answer: in words, with counts.
        read_from: files.
    """

    question: str
    state: str
    answer: str
    read_from: str


def checks(source: Source) -> list[Check]:
    """All checks; one that cannot be made says why."""
    found = []
    for question, look in QUESTIONS.items():
        try:
            state, answer, read_from = look(source)
        except Missing as missing:
            state, answer, read_from = "unknown", f"not available: {missing}", ""
        found.append(Check(question, state, answer, read_from))
    return found


def checklist(source: Source) -> Reportlet:
    """The checks as a table."""
    found = checks(source)
    rows: list[list[Any]] = []
    for check in found:
        sign, words = STATES[check.state]
        mark = Markup('<span class="state {0}" role="img" aria-label="{2}" title="{2}">{1}</span>').format(check.state, sign, words)
        rows.append([mark, check.question, check.answer, check.read_from])
    counts = Counter(check.state for check in found)
    said = [f"{counts[state]} {words}" for state, (_, words) in STATES.items() if counts[state]]
    table = Table(["", "Question", "Answer", "Read from"], rows, "Checks of this experiment", classes="checks")
    return Reportlet(
        tables=[table], data=pd.DataFrame([asdict(check) for check in found]), notes=[f"{len(found)} checks: {', '.join(said)}."]
    )


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 image, 2 images."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


# ── the questions ──
Answer = tuple[str, str, str]


def _split(source: Source) -> Answer:
    splits = source.splits
    try:
        check_splits(splits)
    except LeakageError as error:
        return "bad", "; ".join(f"{problem.where}: {problem.got}" for problem in error.problems[:3]), "splits.tsv"
    folds = splits.loc[splits["fold"] != "locked", "fold"].nunique()
    return "good", f"no group on two sides in any of {folds} folds ({splits['group'].nunique()} groups)", "splits.tsv"


def _tested_once(source: Source) -> Answer:
    splits = source.splits
    counts = splits[splits["role"] == "test"].groupby("group")["fold"].nunique()
    everyone = set(splits.loc[splits["fold"] != "locked", "group"])
    never, twice = len(everyone - set(counts.index)), int((counts > 1).sum())
    if never or twice:
        return "look", f"{never} groups are in no test fold, {twice} in several", "splits.tsv"
    return "good", f"each of {len(everyone)} groups is in exactly one test fold", "splits.tsv"


def _complete(source: Source) -> Answer:
    missing = absent_predictions(source)
    folds = ", ".join(map(str, source.settings.run_folds))
    if len(missing):
        per_model = ", ".join(f"{model}: {count}" for model, count in missing.groupby("model").size().items())
        return "bad", f"{len(missing)} test predictions are missing ({per_model})", "predictions.tsv, splits.tsv"
    rows = source.predictions
    count = int((rows["role"] == "test").sum())
    return (
        "good",
        f"every test image of fold {folds} was predicted by every model and seed ({count} predictions)",
        "predictions.tsv, splits.tsv",
    )


def _test_only(source: Source) -> Answer:
    """Each predicted image lies in the role and fold that the split gives it."""
    rows = source.predictions[["participant_id", "fold", "role"]].drop_duplicates()
    known = set(source.splits[["participant_id", "fold", "role"]].itertuples(index=False, name=None))
    wrong = sum(row not in known for row in rows.itertuples(index=False, name=None))
    if wrong:
        return "bad", f"{wrong} participants were predicted in a role or fold that is not theirs", "predictions.tsv, splits.tsv"
    return (
        "good",
        "every prediction stands in the fold and role that the split gives its participant",
        "predictions.tsv, splits.tsv",
    )


def _identity(source: Source) -> Answer:
    facts = source.description
    by = facts.get("group_source")
    if facts.get("identity") == "known":
        return "good", f"known; groups come from {by}" if by else "known", "dataset.json"
    return (
        "look",
        "assumed: no person is named, so each image counts as its own person; if people have several images, results are too good",
        "dataset.json",
    )


def _excluded(source: Source) -> Answer:
    total, gone = len(source.cohort), source.excluded["image_id"].nunique()
    if not gone:
        return "good", f"none of {total} images", "excluded.tsv"
    reasons = Counter(source.excluded["reason"])
    return (
        "look",
        f"{gone} of {total} images: " + "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)),
        "excluded.tsv",
    )


def _audit(source: Source) -> Answer:
    table = source.of_dataset("audit.tsv")
    images = table["image_id"].nunique()
    warned = table[(table["status"] == "warn") & (table["check"] != "overall")]
    if warned.empty:
        return "good", f"no warning about any of {counted(images, 'image')}", "audit.tsv"
    names = ", ".join(f"{check} ({count})" for check, count in warned["check"].value_counts().items())
    return "look", f"{counted(warned['image_id'].nunique(), 'image')} with warnings: {names}", "audit.tsv"


def _cohort_findings(source: Source) -> Answer:
    found = [item for item in findings(source) if item["name"] != "identity"]
    if not found:
        raise Missing("audit.json has no findings")
    open_ones = [item for item in found if item["status"] != "pass"]
    if not open_ones:
        return "good", f"{counted(len(found), 'check')} of the cohort as a whole, nothing found", "audit.json"
    return "look", "; ".join(f"{item['name']} ({item['status']}): {item['detail']}" for item in open_ones), "audit.json"


def _normalization(source: Source) -> Answer:
    wrong, looked = [], 0
    splits, method = source.splits, ""
    for fold in source.settings.run_folds:
        record = source.json(source.layout.fold(source.settings.dataset, fold, "normalization.json"))
        method = record.get("method", "")
        trained = splits[(splits["fold"] == str(fold)) & (splits["role"] == "train")]["group"].nunique()
        looked += 1
        if record.get("n_groups") not in (None, trained):
            wrong.append(f"fold {fold}: {record['n_groups']} groups, {trained} in training")
    if wrong:
        return "bad", "; ".join(wrong), "normalization.json, splits.tsv"
    return (
        "good",
        f"{method}, fitted in each of {looked} folds on as many groups as that fold trains on",
        "normalization.json, splits.tsv",
    )


def _trainings(source: Source) -> list[dict[str, Any]]:
    records = [record for record in source.provenance if record.get("stage") == "train"]
    if not records:
        raise Missing(f"no {TRAININGS}")
    return records


def _same_environment(source: Source) -> Answer:
    records = _trainings(source)
    kinds = {name: {str(record.get("versions", {}).get(name)) for record in records} for name in RANKED}
    kinds["device"] = {str(record.get("device")) for record in records}
    mixed = [f"{name}: {', '.join(sorted(values))}" for name, values in kinds.items() if len(values) > 1]
    if mixed:
        return "look", f"models differ in {'; '.join(mixed)}; they should not be ranked against each other", TRAININGS
    hosts = {str(record.get("host_kind")) for record in records}
    where = f"{len(hosts)} kind{'s' if len(hosts) > 1 else ''} of processor"
    return "good", f"one set of versions, device {', '.join(kinds['device'])}, {where} for {len(records)} trainings", TRAININGS


def _batches(source: Source) -> Answer:
    records = _trainings(source)
    if changed := devices.changed(source):
        done = (
            "they are compared with the rest, as the configuration allows"
            if devices.allowed(source)
            else "not compared with the rest"
        )
        return "look", f"micro-batches made another training of {devices.named(changed)}; {done}", TRAININGS
    if parts := devices.in_parts(source):
        text = f"{counted(len(parts), 'training')} ran out of memory and went on in parts, with the same updates but for the last digits: "
        return "good", text + devices.named(parts), TRAININGS
    return "good", f"all batches of {counted(len(records), 'training')} are those of the configuration", TRAININGS


def _bit_exact(source: Source) -> Answer:
    records = _trainings(source)
    fast = sorted({record.get("model", "?") for record in records if _training(record).get("deterministic") == "fast"})
    hosts = sorted({str(record.get("host_kind")) for record in records})
    if fast:
        return "look", f"“deterministic: fast” was chosen for {', '.join(fast)}: another run gives other last digits", TRAININGS
    if parts := devices.in_parts(source):
        return "look", f"strict, but where the memory of the GPU ran out is chance: {devices.named(parts)}", TRAININGS
    if len(hosts) > 1:
        return "look", f"strict, but on {len(hosts)} kinds of processor: bytes repeat only on the same kind", TRAININGS
    same = "all trainings are deterministic: the same bytes on the same kind of processor with the same environment"
    return "good", same, TRAININGS


def _undefined(source: Source) -> Answer:
    rows = source.of_experiment("undefined.tsv")
    if rows.empty:
        return "good", "every metric could be computed everywhere", "undefined.tsv"
    whole = rows[(rows["fold"] == "all") & (rows["role"] == "test")]
    names = ", ".join(metric(name).label for name in sorted(set(whole["metric"])))
    over_all = f"{counted(len(whole), 'value')} over all folds ({names})" if len(whole) else "no value over all folds"
    return "look", f"{over_all} and {len(rows) - len(whole)} of single folds, seeds or roles; listed below", "undefined.tsv"


def _locked(source: Source) -> Answer:
    locked = source.splits[source.splits["role"] == "locked"]
    if locked.empty:
        return "good", "there is no locked set; all figures are from cross-validation", "splits.tsv"
    reads = locked_reads(source)
    if reads is None:
        return "good", f"{locked['group'].nunique()} groups are locked away and have not been evaluated", "splits.tsv"
    state = "good" if reads == 1 else "look"
    return (
        state,
        f"{locked['group'].nunique()} groups are locked away; they were evaluated {reads} time{'s' if reads != 1 else ''}",
        "locked_reads.jsonl",
    )


def _training(record: dict[str, Any]) -> dict[str, Any]:
    return record.get("settings", {}).get("training", {}) or {}


def locked_reads(source: Source) -> int | None:
    """How often the locked set was evaluated; None where no file says so."""
    path = source.layout.experiment(source.settings.experiment, "locked_reads.jsonl")
    if not path.is_file():
        return None
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


CHANGED_BATCHES = "Were batches computed as they were set?"
QUESTIONS: dict[str, Callable[[Source], Answer]] = {
    "Does any group stand on two sides of a split?": _split,
    "Is every group tested exactly once?": _tested_once,
    "Was every test image predicted?": _complete,
    "Do the predictions keep to the split?": _test_only,
    "Is it known who is the same person?": _identity,
    "Were images excluded?": _excluded,
    "Did the audit warn about images?": _audit,
    "Did the audit find anything about the cohort as a whole?": _cohort_findings,
    "Was normalization fitted on training participants only?": _normalization,
    "Were all models trained under the same conditions?": _same_environment,
    CHANGED_BATCHES: _batches,
    "Would the same run give the same bytes?": _bit_exact,
    "Is any metric undefined?": _undefined,
    "How often was the locked set looked at?": _locked,
}


# ── what stands behind them ──
def findings(source: Source) -> list[dict[str, str]]:
    """Cohort-level findings of the audit: name, status, detail."""
    content = source.json(source.layout.dataset(source.settings.dataset, "audit.json"))
    found = []
    for item in content.get("findings", []) if isinstance(content, dict) else []:
        name = str(item.get("finding") or item.get("name") or "finding").replace("_", " ")
        found.append({"name": name, "status": str(item.get("status", "not said")), "detail": str(item.get("detail") or "")})
    return found


def absent_predictions(source: Source) -> pd.DataFrame:
    """(image_id, participant_id, fold, model, seed) of test images that a model should have predicted and did not."""
    splits = source.splits[source.splits["role"] == "test"]
    kept = source.kept
    if source.settings.task != "segmentation" and source.settings.target in kept.columns:
        # a missing target drops the participant from the experiment, not from the split
        values = kept[source.settings.target]
        kept = kept[values.notna() & (values.astype(str) != "")]
    elif source.settings.target in kept.columns:
        kept = kept[kept[source.settings.target] != ""]
    wanted = kept[["image_id", "participant_id"]].merge(splits[["participant_id", "fold"]], on="participant_id")
    wanted = wanted[wanted["fold"].isin([str(fold) for fold in source.settings.run_folds])]
    there = set(
        source.predictions.loc[source.predictions["role"] == "test", ["image_id", "model", "seed"]].itertuples(
            index=False, name=None
        )
    )
    expected = [(model, str(seed)) for model, count in source.settings.models.items() for seed in range(count)]
    expected += [(name, "all") for name in source.settings.ensembles]
    rows = [
        {"image_id": row.image_id, "participant_id": row.participant_id, "fold": row.fold, "model": model, "seed": seed}
        for row in wanted.itertuples()
        for model, seed in expected
        if (row.image_id, model, seed) not in there
    ]
    return pd.DataFrame(rows, columns=["image_id", "participant_id", "fold", "model", "seed"])


def exclusions(source: Source) -> Reportlet:
    """Every excluded image with its reason."""
    rows = source.excluded
    if rows.empty:
        return Reportlet(body=Markup("<p>No image was excluded ({} images in the cohort).</p>").format(len(source.cohort)))
    table = Table(
        [heading(name) for name in rows.columns],
        rows.astype(object).where(rows.notna(), "n/a").values.tolist(),
        "Excluded images",
        classes="sortable",
    )
    note = f"{rows['image_id'].nunique()} of {len(source.cohort)} images were excluded; {len(source.kept)} remain."
    return Reportlet(tables=[table], data=rows, notes=[note])


def audit_warnings(source: Source) -> Reportlet:
    """Audit findings: of the cohort, and warnings by check."""
    found = findings(source)
    rows = source.of_dataset("audit.tsv")
    flagged = rows[(rows["status"] != "pass") & (rows["check"] != "overall")]
    cohort = Table(["Cohort-level check", "Status", "Detail"], [list(item.values()) for item in found], "Findings about the cohort")
    grouped = []
    for (check, status), part in flagged.groupby(["check", "status"], sort=True):
        names = shown(part["image_id"], SHOWN)
        details = list(dict.fromkeys(text for text in part["detail"] if text))
        detail = "; ".join(details[:2]) + (f" and {len(details) - 2} more" if len(details) > 2 else "")
        grouped.append([check, status, len(part), names, detail])
    images = Table(["Check of each image", "Status", "#Images", "Which", "Detail"], grouped, "Images that the audit flagged")
    clean = rows["image_id"].nunique() - flagged["image_id"].nunique()
    notes = [f"{clean} of {counted(rows['image_id'].nunique(), 'image')} passed every check."]
    return Reportlet(tables=[part for part in (cohort, images) if part.rows], data=flagged if len(flagged) else rows, notes=notes)


def undefined(source: Source) -> Reportlet:
    """Metrics that could not be computed."""
    rows = source.of_experiment("undefined.tsv")
    rows = rows.loc[(rows["fold"] != "all").sort_values(kind="stable").index]
    if rows.empty:
        return Reportlet(body=Markup("<p>Every metric could be computed for every model, fold and structure.</p>"))
    shown = rows.head(200)
    table = Table(
        [heading(name) for name in rows.columns],
        shown.astype(object).where(shown.notna(), "n/a").values.tolist(),
        "Undefined metrics",
        classes="sortable",
    )
    notes = [f"The first 200 of {len(rows)}; all are in undefined.tsv."] if len(rows) > 200 else []
    return Reportlet(tables=[table], data=rows, notes=notes)
