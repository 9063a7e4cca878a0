"""What would stop jobs later, looked at before the first one, in a few seconds: machine, containers, Slurm, profile, data."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gyri.config.load import Config
from gyri.environment import expected_versions
from gyri.errors import GyriError, PreflightError, Problem
from gyri.io import read_json
from gyri.layout import CONTAINERS, Layout
from gyri.preflight import machine
from gyri.preflight.check import Check
from gyri.preflight.containers import linked_elsewhere, look_at_containers
from gyri.preflight.profile import apptainer_options, look_at_profile
from gyri.preflight.slurm import look_at_slurm
from gyri.progress import log
from gyri.settings import read_settings
from gyri.site import Site, bound_folders, data_folders

__all__ = ["Check", "Plan", "look", "look_here", "refuse", "show", "start_of_job"]

SAMPLE = 20  # raw images that are looked at


@dataclass(frozen=True)
class Plan:
    """What is about to run.

    Args:
        config: the configuration.
        site: the cluster.
        slurm: whether jobs go through Slurm.
        containers: whether they run in containers.
        files: raw images and tables.
        here: the working folder.
    """

    config: Config
    site: Site
    slurm: bool
    containers: bool
    files: tuple[Path, ...] = ()
    here: Path = Path()


def look(plan: Plan) -> Iterator[Check]:
    """Look at everything that concerns a plan.

    Yields:
        One check after the other, in the order in which they are best mended.
    """
    here = plan.here.absolute()
    threads = plan.config.threads.model_dump()
    yield machine.disk("results", here / "results")
    if plan.slurm:
        yield from look_at_profile(here)
        yield from look_at_slurm(plan.site, threads, here)
    else:
        yield machine.cores(threads)
        yield machine.shared_memory()
    yield machine.driver(_cuda(plan.containers))
    data = data_folders(plan.config)
    yield from _data(data)
    if plan.containers:
        bound = bound_folders(plan.site, plan.config, here)
        yield from look_at_containers(here, bound, data, apptainer_options(here))
        lost = linked_elsewhere(plan.files[:SAMPLE], [here, *bound])
        yield from [lost] if lost else []
        if (CONTAINERS / "torch.sif").exists():
            yield machine.disk("cache", (CONTAINERS / "torch.sif").resolve().parent)


def _cuda(in_containers: bool) -> str | None:
    """The version of CUDA that jobs bring along."""
    lock = CONTAINERS / "lock.json"
    if in_containers and lock.is_file():
        cuda = read_json(lock).get("torch", {}).get("content", {}).get("cuda")
        return str(cuda) if cuda else None
    return expected_versions().get("cuda")


def _data(folders: Iterable[Path]) -> Iterator[Check]:
    for folder in dict.fromkeys(folders):
        if not os.access(folder, os.R_OK | os.X_OK):
            state = "cannot be read" if folder.exists() else "is not there"
            yield Check("data", "FAILED", f"{folder} {state}", "mend `path` in the configuration, or the permissions")


def look_here(config: Config, site: Site) -> Iterator[Check]:
    """Look at everything as far as this machine has it: Slurm where it submits jobs, containers where there are some."""
    from gyri.dataset import sources  # not at the top: jobs on networks load this module, and no reader of datasets

    submits = shutil.which("sbatch") is not None
    if not submits:
        yield Check("slurm", "warning", "no sbatch on this machine: looked at what jobs need that run here")
    files: list[Path] = []
    try:
        for name in config.datasets:
            files += sources(read_settings(config, name), Layout(Path("results")), name)
    except GyriError as error:
        for problem in error.problems[:3]:
            yield Check("data", "FAILED", f"{problem.where}: {problem.got}", problem.remedy)
    yield from look(Plan(config, site, submits, submits or (CONTAINERS / "built.json").is_file(), tuple(files)))
    if machine.DRIVER.is_file():
        yield compute_test()


def show(checks: Iterable[Check]) -> int:
    """Print one line per check.

    Returns:
        How many failed.
    """
    began, counts = time.monotonic(), {"ok": 0, "warning": 0, "FAILED": 0}
    for check in checks:
        counts[check.status] += 1
        print(check, flush=True)
    print(f"{', '.join(f'{count} {status}' for status, count in counts.items())}; {time.monotonic() - began:.1f} s")
    return counts["FAILED"]


def compute_test() -> Check:
    """Convolutions on the GPU of this machine against the processor; imports torch."""
    import torch

    from gyri.selftest import self_test

    if not torch.cuda.is_available():
        return Check("self-test", "ok", "torch sees no GPU here: jobs on one test it when they begin")
    try:
        self_test(torch.device("cuda"))
    except GyriError as error:
        problem = error.problems[0]
        return Check("self-test", "FAILED", f"{problem.where}: {problem.got}", problem.remedy)
    return Check("self-test", "ok", f"{torch.cuda.get_device_name()} computes convolutions rightly")


def refuse(checks: Iterable[Check]) -> None:
    """Stop where something failed.

    Raises:
        PreflightError: with every check that failed.
    """
    failed = [check for check in checks if check.status == "FAILED"]
    if failed:
        raise PreflightError([Problem(check.name, check.found, "jobs that can run", check.remedy) for check in failed])


def start_of_job(results: Path, site: Site) -> None:
    """The part that a job on a network looks at when it begins, before it imports anything large.

    Args:
        results: where it writes.
        site: what a GPU that is not seen means.

    Raises:
        PreflightError: the job cannot do its work here.
    """
    checks = [
        machine.disk("results", results),
        machine.shared_memory(),
        machine.given_gpu(os.environ, expected_versions().get("cuda"), must=site.gpu.unseen == "stop"),
    ]
    for check in checks:
        if check.status != "ok":
            log(f"preflight: {check}")
    refuse(checks)
