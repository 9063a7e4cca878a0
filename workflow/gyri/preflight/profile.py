"""The profile: whether `--profile slurm` takes the file of this folder, and the programs are those it was written for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from gyri.preflight.check import Check

WRITTEN_FOR = {"snakemake": "9.27", "snakemake-executor-plugin-slurm": "2.8"}
FILE = Path("slurm/config.yaml")
# found by themselves, and laid over --profile
INTRUDERS = ("profiles/default", "workflow/profiles/default", "default")


def read_profile(here: Path) -> dict[str, Any]:
    """The profile of this folder; empty where it cannot be read."""
    try:
        content = yaml.safe_load((here / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def apptainer_options(here: Path) -> list[str]:
    """What the profile hands to `apptainer exec`."""
    return shlex.split(str(read_profile(here).get("apptainer-args", "")))


def look_at_profile(here: Path) -> Iterator[Check]:
    """Everything about the profile; only about this folder's, since one in the home folder is taken only without it."""
    yield from _files(here)
    for name in INTRUDERS:
        if any((here / name / file).is_file() for file in ("config.yaml", "profile.yaml", "config.v9+.yaml", "profile.v9+.yaml")):
            yield Check("profile", "warning", f"{name} is laid over --profile slurm", "move what it says into slurm/config.yaml")
    if os.environ.get("SNAKEMAKE_PROFILE"):
        found = f"SNAKEMAKE_PROFILE={os.environ['SNAKEMAKE_PROFILE']} is taken where --profile is not given"
        yield Check("profile", "warning", found, "unset it")
    for package, wanted in WRITTEN_FOR.items():
        yield _version(package, wanted)


def _files(here: Path) -> Iterator[Check]:
    folder = here / FILE.parent
    if not (here / FILE).is_file():
        yield Check("profile", "FAILED", f"no {FILE} in {here}", "call snakemake in the folder that holds the Snakefile")
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != FILE.name)
    if others:
        remedy = "move it away: Snakemake takes any value that equals its name for this file"
        yield Check("profile", "warning", f"{FILE.parent}/ also holds {', '.join(others)}", remedy)
    content = read_profile(here)
    if content.get("executor") != "slurm":
        yield Check("profile", "FAILED", f"{FILE} does not say `executor: slurm`", "restore it (`git checkout slurm`)")
    elif not others:
        yield Check("profile", "ok", f"{FILE}, {content.get('jobs', '?')} jobs, {content.get('retries', 0)} retries")


def _version(package: str, wanted: str) -> Check:
    name = package.removeprefix("snakemake-executor-") if package != "snakemake" else package
    try:
        found = version(package)
    except PackageNotFoundError:
        return Check(name, "FAILED", "not installed", "`make environment`, and call .venv/bin/snakemake")
    if not found.startswith(f"{wanted}."):
        return Check(name, "warning", f"{found}, the profile was written for {wanted}", "`make environment`")
    return Check(name, "ok", found)
