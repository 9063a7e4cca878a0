"""How to do it again: the call, the code, the environment, the command of every job, and how to cite."""

from __future__ import annotations

import contextlib
from typing import Any

from markupsafe import Markup

from gyri.errors import DataError
from gyri.io import canonical_json, read_json, sha256_text
from gyri.layout import CONTAINERS
from gyri.report.parts import Missing, Reportlet, Table, html_table
from gyri.report.software import KINDS, software
from gyri.report.source import Source, rank

NAMES = ("dataset", "experiment", "model", "fold", "seed")
MOST_COMMANDS = 400
UNKNOWN = "not recorded"


def reproduce(source: Source) -> Reportlet:
    """Commands, identities, seed, and how to cite."""
    jobs = job_records(source)
    if not jobs:
        raise Missing("no provenance file was found")
    facts, name = source.description, source.settings.experiment
    rows = [[name, Markup("<code>{}</code>").format(value)] for name, value in identities(source).items()]
    table = html_table(Table(["What", "Which"], rows, "What this run was made from", classes="compact"))
    about = Markup('<div class="scroll" tabindex="0" role="region" aria-label="What this run was made from">{}</div>').format(table)
    body = Markup(
        "{about}<p>With the same configuration file, from the repository's folder:</p>"
        "<pre><code>snakemake -c{threads} --configfile YOUR_CONFIGURATION.yaml results/{name}/report.html</code></pre>"
        "<p>The same bytes come out only with the same environment, number of threads and kind of processor (see the tables above).</p>"
        "<details><summary>The command of each of {count} jobs</summary><pre><code>{commands}</code></pre></details>"
        "<p>To predict new scans with a model of this experiment:</p>"
        "<pre><code>PYTHONPATH=workflow python -m gyri predict results/{name}/{model} NEW_SCAN.nii.gz -o OUTPUT</code></pre>"
        "<p>Data: {data} ({licence}). Reference: {reference}</p>"
        "<p>Software: gyri {version}; please cite it by its CITATION.cff, and what the methods text cites.</p>"
    ).format(
        about=about,
        threads=max(values(jobs, "settings", "threads"), default="2"),
        name=name,
        count=len(jobs),
        commands="\n".join(commands(jobs)),
        model=(source.networks or list(source.settings.models))[0],
        data=facts.get("name") or source.settings.dataset,
        licence=facts.get("licence") or "licence not available",
        reference=facts.get("reference") or "not available.",
        version=", ".join(values(jobs, "versions", "gyri")) or "(version not available)",
    )
    return Reportlet(body=body)


def job_records(source: Source) -> list[dict[str, Any]]:
    """Provenance of every job but those that write pages, in the order of the stages."""
    found = [record for record in source.provenance if record.get("stage") not in (None, "report", "index", "unreadable")]
    return sorted(found, key=lambda record: rank(record["stage"]))


def values(records: list[dict[str, Any]], *keys: str) -> list[str]:
    """Different values of a field, in words."""
    found = []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and value != UNKNOWN:
            found.append(str(value))
    return sorted(set(found))


def identities(source: Source) -> dict[str, str]:
    """By what a run can be told from another: call, commit, settings, environment, seed."""
    jobs = job_records(source)
    trained = [record for record in jobs if record.get("stage") == "train"]
    found = {
        "Called as": "; ".join(values(jobs, "call")) or UNKNOWN,
        "Code": _commits(values(jobs, "commit")),
        "Settings (sha256)": settings_digest(jobs),
        "Seed": ", ".join(values(trained, "settings", "seed")) or "not available",
        "Threads per training": ", ".join(values(trained, "settings", "threads")) or "not available",
    }
    for item in software(source)["environments"]:
        kind = KINDS.get(item["kind"], item["kind"])
        found[f"{kind[0].upper()}{kind[1:]} of {', '.join(item['stages'])}"] = image_digest(item["kind"], item["identity"])
    return found


def _commits(found: list[str]) -> str:
    if not found:
        return f"git commit {UNKNOWN}"
    said = [f"{name.removesuffix('+changes')}{', with changes that were not committed' if '+' in name else ''}" for name in found]
    return f"git commit {'; '.join(said)}" + (" (several: the code changed during the run)" if len(found) > 1 else "")


def settings_digest(jobs: list[dict[str, Any]]) -> str:
    """One hash over the settings of all jobs of the experiment: what of the configuration it depends on."""
    lines = {canonical_json([str(job.get("stage")), str(job.get("model", "")), job.get("settings")]) for job in jobs}
    return sha256_text(*sorted(lines))


def image_digest(kind: str, identity: str) -> str:
    """The identity of an environment; of an image in full, with the sha256 of its file, where this repository knows them."""
    if kind != "image":
        return identity
    for name, content in (_known("lock.json") or {}).items():
        if isinstance(content, dict) and str(content.get("identity", "")).startswith(identity):
            built = (_known("built.json") or {}).get(name) or {}
            file = f", file sha256 {built['sha256']}" if built.get("identity") == content["identity"] and "sha256" in built else ""
            return f"{name}, content {content['identity']}{file}"
    return identity


def _known(name: str) -> dict[str, Any] | None:
    with contextlib.suppress(DataError):
        content = read_json(CONTAINERS / name)
        return content if isinstance(content, dict) else None
    return None


def commands(jobs: list[dict[str, Any]]) -> list[str]:
    """What ran, as it can be typed: the stage and its names, with a configuration file instead of the settings that snakemake passes."""
    lines = []
    for job in jobs:
        words = [f"--{name} {job[name]}" for name in NAMES if job.get(name) is not None]
        text = f"PYTHONPATH=workflow python -m gyri {job['stage']} --config YOUR_CONFIGURATION.yaml {' '.join(words)}"
        lines.append(text + (" --locked" if "/locked/" in str(job.get("file")) else ""))
    lines = [line.replace("--model ensemble.", "--ensemble ensemble.") for line in dict.fromkeys(lines)]
    return lines if len(lines) <= MOST_COMMANDS else [*lines[:MOST_COMMANDS], f"# and {len(lines) - MOST_COMMANDS} more"]
