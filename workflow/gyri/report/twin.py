"""The form of report.json: closed, so that programs can rely on it; every page's twin is checked against it before it is written."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Number = float | int | None


class Part(BaseModel):
    """A closed group of values."""

    model_config = ConfigDict(extra="forbid")


class Check(Part):
    """One question of *Can it be trusted?*."""

    question: str
    state: Literal["good", "look", "bad", "unknown"]
    answer: str
    read_from: str


class Gap(Part):
    """A part of the page that could not be made."""

    id: str
    title: str
    reason: str


class Row(Part):
    """A row of metrics.tsv; `label`, `kind` and `ranking` (models with the same number are ranked together) stand in headline rows only."""

    model: str
    role: str
    fold: str
    seed: str
    metric: str
    structure: str | None
    value: Number
    ci_low: Number
    ci_high: Number
    n: Number
    n_groups: Number
    sd_folds: Number
    sd_seeds: Number
    label: str | None = None
    kind: str | None = None
    ranking: int | None = None


class Environment(Part):
    """What jobs ran in."""

    kind: str
    identity: str
    stages: list[str]


class Software(Part):
    """All environments."""

    containers: bool | Literal["partly"] | None
    environments: list[Environment]


class Counts(Part):
    """Sizes of the cohort."""

    images: int
    images_kept: int
    participants: int
    groups: int


class Finding(Part):
    """What the audit found about the cohort as a whole."""

    name: str
    status: str
    detail: str


class Warned(Part):
    """A warning that a stage raised."""

    stage: str
    kind: str
    message: str
    count: int
    jobs: int


class Sheet(Part):
    """How many items of a sheet are answered."""

    items: int
    answered: int
    partly: int
    unanswered: int


class Twin(Part):
    """report.json of one experiment."""

    form: Literal[1]
    """Version of this form."""
    gyri: str
    experiment: str
    dataset: str
    task: Literal["classification", "regression", "segmentation"]
    target: str
    folds: int
    run_folds: list[int]
    pilot: bool
    models: dict[str, int]
    baselines: list[str]
    ensembles: list[str]
    headline_metric: str
    higher_is_better: bool
    checks: list[Check]
    missing: list[Gap]
    software: Software
    warnings: list[Warned]
    sheets: dict[str, Sheet]
    identities: dict[str, str]
    headline: list[Row] | None
    results: list[Row] | None
    counts: Counts | None
    findings: list[Finding] | None


class Best(Part):
    """The best model of an experiment."""

    model: str
    value: Number
    ci_low: Number
    ci_high: Number
    n: Number
    n_groups: Number


class Listed(Part):
    """An experiment on the index page."""

    experiment: str
    dataset: str
    task: str
    target: str
    pilot: bool
    report: str
    headline_metric: str
    training_seconds: float
    best: Best | None = None
    best_baseline: Best | None = None
    missing: str | None = None


class IndexTwin(Part):
    """report.json of all experiments."""

    title: str
    gyri: str
    experiments: list[Listed]


def checked(content: dict[str, Any], form: type[Part] = Twin) -> dict[str, Any]:
    """The content, unchanged.

    Raises:
        pydantic.ValidationError: it has not this form.
    """
    form.model_validate(content)
    return content
