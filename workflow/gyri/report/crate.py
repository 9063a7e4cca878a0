"""RO-Crate: what the results folder of an experiment holds and how it came about, for programs and archives.

Written after the Workflow Run Crate profile 0.5 (https://w3id.org/ro/wfrun/workflow/0.5) on RO-Crate 1.1: the Snakefile is the workflow, the run of
the experiment is its action. Files of the experiment are data entities with size and sha256; those of its dataset lie outside of the
crate's folder and are named as inputs with their sha256. Raw images are not listed.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.io import sha256_file, write_json, write_text
from gyri.layout import REPOSITORY
from gyri.report.again import identities, image_digest, job_records, values
from gyri.report.parts import Missing
from gyri.report.software import software
from gyri.report.source import Source

NAME = "ro-crate-metadata.json"
WORKFLOW = "Snakefile"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
KINDS = {
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".bib": "application/x-bibtex",
    ".tsv": "text/tab-separated-values",
    ".safetensors": "application/octet-stream",
    ".npy": "application/octet-stream",
    ".gz": "application/gzip",
}
DATASET_FILES = (
    "cohort.tsv",
    "dataset.json",
    "audit.tsv",
    "audit.json",
    "excluded.tsv",
    "splits.tsv",
    "balance.tsv",
    "images.json",
)
LEFT_OUT = (NAME, WORKFLOW, "provenance-report.json", "report-unfinished.html")
Entity = dict[str, Any]


def write_crate(source: Source) -> None:
    """Write the metadata and a copy of the Snakefile into the folder of an experiment; everything else must be there before."""
    folder = source.layout.experiment(source.settings.experiment)
    write_text(folder / WORKFLOW, (REPOSITORY / WORKFLOW).read_text(encoding="utf-8"))
    try:
        content = crate(source)
    except Missing:
        # no job left a record, so there is nothing to describe; the page says what is missing
        (folder / NAME).unlink(missing_ok=True)
        return
    write_json(folder / NAME, source.names.content(content))


def crate(source: Source) -> dict[str, Any]:
    """The metadata: JSON-LD, one flat list of entities."""
    files, inputs = _files(source), _inputs(source)
    tools, actions = _environments(source), [_run(source, files, inputs)]
    graph = [_descriptor(), _root(source, files), _workflow(), _language(source), *_profiles(), _licence(source), _software()]
    graph += [*tools, *actions, _dataset(source), *inputs, *files]
    return {
        "@context": ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"],
        "@graph": graph,
    }


def _ids(entities: list[Entity]) -> list[Entity]:
    return [{"@id": item["@id"]} for item in entities]


def _descriptor() -> Entity:
    conforms = ["https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0"]
    return {"@id": NAME, "@type": "CreativeWork", "about": {"@id": "./"}, "conformsTo": [{"@id": name} for name in conforms]}


def _root(source: Source, files: list[Entity]) -> Entity:
    settings = source.settings
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{settings.experiment}: {settings.task} of {settings.target}",
        "description": f"Results of the experiment {settings.experiment} on the dataset {settings.dataset}, made by gyri {__version__}.",
        "datePublished": _ended(source),
        "license": {"@id": "#licence"},
        "conformsTo": [{"@id": name} for name in PROFILES],
        "mainEntity": {"@id": WORKFLOW},
        "mentions": [{"@id": "#run"}],
        "hasPart": [{"@id": WORKFLOW}, *_ids(files)],
    }


def _times(source: Source) -> list[datetime.datetime]:
    """When jobs began and ended."""
    found = []
    for record in job_records(source):
        try:
            began = datetime.datetime.fromisoformat(str(record.get("started")))
            found += [began, began + datetime.timedelta(seconds=float(record.get("seconds") or 0))]
        except (ValueError, TypeError):
            continue
    return found


def _ended(source: Source) -> str:
    times = _times(source)
    if not times:
        raise Missing("no provenance file says when a job ran")
    return max(times).isoformat(timespec="seconds")


def _workflow() -> Entity:
    return {
        "@id": WORKFLOW,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "gyri",
        "description": "A copy of the Snakefile that this run was planned with; the rules that it includes are in the repository of gyri.",
        "programmingLanguage": {"@id": SNAKEMAKE},
        "isPartOf": {"@id": "#gyri"},
        "license": {"@id": "#licence-of-gyri"},
        "input": [],
        "output": [],
        "sha256": sha256_file(REPOSITORY / WORKFLOW),
        "contentSize": str((REPOSITORY / WORKFLOW).stat().st_size),
    }


def _language(source: Source) -> Entity:
    about = {
        "@id": SNAKEMAKE,
        "@type": "ComputerLanguage",
        "name": "Snakemake",
        "identifier": {"@id": "https://snakemake.github.io"},
    }
    versions = values(job_records(source), "versions", "snakemake")
    return {**about, "url": {"@id": "https://snakemake.github.io"}, **({"version": ", ".join(versions)} if versions else {})}


def _profiles() -> list[Entity]:
    return [
        {"@id": name, "@type": "CreativeWork", "name": words, "version": name.rsplit("/", 1)[1]} for name, words in PROFILES.items()
    ]


def _licence(source: Source) -> Entity:
    """The data's licence is all that is known of it; results of people's data are not free because the software is."""
    words = source.description.get("licence") or "not stated"
    return {
        "@id": "#licence",
        "@type": "CreativeWork",
        "name": f"Licence of the data: {words}",
        "description": "No licence of these results was chosen.",
    }


def _software() -> Entity:
    return {
        "@id": "#gyri",
        "@type": ["SoftwareApplication", "SoftwareSourceCode"],
        "name": "gyri",
        "version": __version__,
        "softwareVersion": __version__,
    }


def _environments(source: Source) -> list[Entity]:
    """Containers or virtual environments that jobs ran in, and the licence of the software."""
    found: list[Entity] = [{"@id": "#licence-of-gyri", "@type": "CreativeWork", "name": "Apache-2.0"}]
    for item in software(source)["environments"]:
        kind = ["ContainerImage", "SoftwareApplication"] if item["kind"] == "image" else "SoftwareApplication"
        about: Entity = {"@id": f"#{item['kind']}-{item['identity']}", "@type": kind, "name": f"{item['kind']} {item['identity']}"}
        about |= {
            "identifier": image_digest(item["kind"], item["identity"]),
            "description": f"Environment of {', '.join(item['stages'])}.",
        }
        if item["kind"] == "image":
            about |= {"additionalType": {"@id": "https://w3id.org/ro/terms/workflow-run#SIFImage"}}
        found.append(about)
    return found


def _run(source: Source, files: list[Entity], inputs: list[Entity]) -> Entity:
    """The run of the whole experiment."""
    times = _times(source)
    about = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run of {source.settings.experiment}",
        "instrument": {"@id": WORKFLOW},
        "object": [{"@id": "#dataset"}, *_ids(inputs)],
        "result": _ids(files),
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        "description": "; ".join(f"{name}: {value}" for name, value in identities(source).items()),
    }
    images = [{"@id": item["@id"]} for item in _environments(source) if "ContainerImage" in item["@type"]]
    about |= {"containerImage": images} if images else {}
    return about | (
        {"startTime": min(times).isoformat(timespec="seconds"), "endTime": max(times).isoformat(timespec="seconds")}
        if times
        else {}
    )


def _dataset(source: Source) -> Entity:
    facts = source.description
    about = {"@id": "#dataset", "@type": "CreativeWork", "name": str(facts.get("name") or source.settings.dataset)}
    about |= {"description": f"{len(source.cohort)} images; the images themselves are not part of this crate."}
    return about | ({"citation": str(facts["reference"])} if facts.get("reference") else {})


def _inputs(source: Source) -> list[Entity]:
    """Files of the dataset, which lie beside the experiment's folder."""
    found = []
    for name in DATASET_FILES:
        path = source.layout.dataset(source.settings.dataset, name)
        if path.is_file():
            about = {"@id": f"#dataset/{name}", "@type": "CreativeWork", "name": f"datasets/{source.settings.dataset}/{name}"}
            found.append(
                {**about, "sha256": sha256_file(path), "contentSize": str(path.stat().st_size), "encodingFormat": _format(path)}
            )
    return found


def _files(source: Source) -> list[Entity]:
    """Files of the experiment."""
    folder = source.layout.experiment(source.settings.experiment)
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        told = source.names.text(name) == name  # a file that is named after a person is not listed where ids are hidden
        if path.is_file() and told and name not in LEFT_OUT and not path.name.startswith(".") and path.name != "probabilities.npy":
            about = {"@id": name, "@type": "File", "name": path.name, "contentSize": str(path.stat().st_size)}
            found.append({**about, "sha256": sha256_file(path), "encodingFormat": _format(path)})
    return found


def _format(path: Path) -> str:
    return KINDS.get(path.suffix, "text/plain")
