"""The RO-Crate of an experiment: valid by the profiles' own validator, and true to the files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

import report_fixture
from gyri.io import sha256_file
from gyri.layout import Layout
from gyri.report.beside import OUTPUTS, write_beside
from gyri.report.crate import NAME, crate
from gyri.report.source import Source

SCHEMA = (
    "Dataset",
    "CreativeWork",
    "SoftwareSourceCode",
    "ComputerLanguage",
    "CreateAction",
    "SoftwareApplication",
    "about",
    "name",
    "description",
    "datePublished",
    "license",
    "mainEntity",
    "mentions",
    "hasPart",
    "isPartOf",
    "programmingLanguage",
    "identifier",
    "url",
    "version",
    "softwareVersion",
    "additionalType",
    "instrument",
    "object",
    "result",
    "actionStatus",
    "startTime",
    "endTime",
    "contentSize",
    "encodingFormat",
    "citation",
)
# the terms that a crate of gyri may use, as the two published contexts (CC0) define them: w3id.org/ro/crate/1.1/context, version 1.1.3, and
# w3id.org/ro/terms/workflow-run/context. Tests have no network to fetch these from
CONTEXTS: dict[str, dict[str, Any]] = {
    "https://w3id.org/ro/crate/1.1/context": {
        **{name: f"http://schema.org/{name}" for name in SCHEMA},
        "File": "http://schema.org/MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
        "input": "https://bioschemas.org/ComputationalWorkflow#input",
        "output": "https://bioschemas.org/ComputationalWorkflow#output",
    },
    "https://w3id.org/ro/terms/workflow-run/context": {
        name: f"https://w3id.org/ro/terms/workflow-run#{name}"
        for name in ("ContainerImage", "SIFImage", "containerImage", "sha256")
    },
}


class Answer:
    """What the validator is given instead of the network."""

    status_code, headers, from_cache = 200, {"Content-Type": "application/ld+json"}, True

    def __init__(self, content: dict[str, Any]):
        self.content_of = {"@context": content}
        self.text = json.dumps(self.content_of)
        self.content = self.text.encode()

    def json(self) -> dict[str, Any]:
        return self.content_of


def fetch(self: HttpRequester, url: str, **options: Any) -> Answer:
    assert url in CONTEXTS, f"the validator asked for {url}: no request may leave"
    return Answer(CONTEXTS[url])


def make(folder: Path) -> Source:
    """A finished experiment with everything that stands beside its page."""
    settings = report_fixture.make_results(folder / "results", groups=6, tasks=("classification",))[0]
    source = Source(settings, Layout(folder / "results"))
    image = {"environment": "image:00aa"}
    source.__dict__["provenance"] = [{**record, **(image if record["stage"] == "train" else {})} for record in source.provenance]
    write_beside(source)
    return source


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return make(tmp_path_factory.mktemp("crate"))


def folder_of(source: Source) -> Path:
    return source.layout.experiment(source.settings.experiment)


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the validator says against a crate, by the Workflow Run Crate profile and those it builds on."""
    monkeypatch.setattr(HttpRequester, "get", fetch, raising=False)
    options = {"profile_identifier": "workflow-run-crate", "requirement_severity": models.Severity.REQUIRED}
    result = services.validate(services.ValidationSettings(rocrate_uri=folder, **options))
    found = [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()]
    assert result.passed() == (not found)
    return found


def test_it_is_a_valid_workflow_run_crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path)
    kinds = {item["environment"].partition(":")[0] for item in source.provenance}
    assert kinds == {"image", "lock"}, "jobs in containers and jobs without"
    assert problems(folder_of(source), monkeypatch) == []
    content = json.loads((folder_of(source) / NAME).read_text())
    content["@graph"] = [item for item in content["@graph"] if item["@id"] != "#run"]
    for item in content["@graph"]:
        if item["@id"] == "./":
            del item["datePublished"], item["mainEntity"]
    (folder_of(source) / NAME).write_text(json.dumps(content))
    assert problems(folder_of(source), monkeypatch), "the validator can fail"


def test_every_file_is_named_with_its_size_and_hash(made: Source) -> None:
    folder, entities = folder_of(made), {item["@id"]: item for item in crate(made)["@graph"]}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (NAME, "provenance-report.json"):
            assert entities[name]["sha256"] == sha256_file(path), name
            assert entities[name]["contentSize"] == str(path.stat().st_size)
    assert entities["#dataset/splits.tsv"]["sha256"] == sha256_file(made.layout.dataset("brains", "splits.tsv"))
    run = entities["#run"]
    assert {"@id": "metrics.tsv"} in run["result"] and {"@id": "#dataset/cohort.tsv"} in run["object"]
    assert all(item["@id"] in entities for key in ("object", "result") for item in run[key])


def test_neither_images_nor_paths_nor_people_are_in_it(made: Source) -> None:
    text = (folder_of(made) / NAME).read_text()
    assert str(made.layout.root.parent) not in text and "raw" not in text
    ids = [item["@id"] for item in json.loads(text)["@graph"]]
    assert len(ids) == len(set(ids)) and not [name for name in ids if name.startswith("/") or ".." in name]
    assert not re.search(r'"Person"|"author"|sub-\d', text)


def test_files_named_after_people_are_not_listed_where_ids_are_hidden(tmp_path: Path) -> None:
    settings = report_fixture.make_results(tmp_path / "results", groups=4, tasks=("segmentation",))[0]
    source = Source(settings.model_copy(update={"hash_ids": True}), Layout(tmp_path / "results"))
    write_beside(source)
    folder = folder_of(source)
    for name in OUTPUTS:
        assert not re.search(r"sub-\d|g00\d", (folder / name).read_text()), name
    files = [item["@id"] for item in json.loads((folder / NAME).read_text())["@graph"] if "File" in item["@type"]]
    assert all((folder / name).is_file() for name in files) and "metrics.tsv" in files
    assert [path for path in folder.rglob("*.nii.gz") if "sub-" in path.name] and not [name for name in files if ".nii" in name]


def test_everything_beside_the_page_is_declared(made: Source) -> None:
    rule = (Path(__file__).parents[1] / "workflow/rules/results.smk").read_text()
    for name in OUTPUTS:
        assert (folder_of(made) / name).stat().st_size > 100, name
        assert f'"results/{{experiment}}/{name}"' in rule, name
