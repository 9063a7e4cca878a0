"""Trainings that real Slurm interrupts end with the bytes of the undisturbed run, and do no step twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from project import Demo, Project, states, wait_for

RUN = "tissue/unet/fold-0/seed-{seed}"
STEP = 40  # of 150
BYTES = ("weights.safetensors", "last.safetensors", "history.tsv")


@pytest.fixture
def untrained(copy_of_demo: Callable[[], Project]) -> Project:
    """The demo up to the training of its U-Nets; nothing of a finished one is left."""
    project = copy_of_demo()
    shutil.rmtree(project.folder / "results" / ".checkpoints")
    shutil.rmtree(project.folder / "results" / "tissue" / "unet")
    return project


@contextmanager
def snakemake(project: Project, *seeds: int) -> Iterator[subprocess.Popen[str]]:
    """`snakemake --profile slurm` at work on some trainings; it is gone when the block ends."""
    process = project.start(*(f"results/{RUN.format(seed=seed)}/weights.safetensors" for seed in seeds))
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def training(seed: int) -> str:
    """What the comment of a training's job holds."""
    return f"unet_0_{seed}"


def ended_well(project: Project, process: subprocess.Popen[str]) -> None:
    wait_for("snakemake to end", lambda: process.poll() is not None)
    assert process.returncode == 0, project.said()


def provenance(project: Project, seed: int) -> dict[str, Any]:
    path = project.folder / "results" / RUN.format(seed=seed) / "provenance-train.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def assert_like_undisturbed(project: Project, undisturbed: Project, seed: int, sessions: int) -> None:
    """The bytes are those of the undisturbed run; each session began where the one before had ended."""
    for name in BYTES:
        path = Path("results") / RUN.format(seed=seed) / name
        assert (project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes(), path
    whole = provenance(undisturbed, seed)["facts"]["sessions"]
    assert len(whole) == 1
    parts = provenance(project, seed)["facts"]["sessions"]
    print(f"undisturbed: {whole}; here: {parts}")
    assert len(parts) == sessions
    assert (parts[0]["first_step"], parts[-1]["last_step"]) == (whole[0]["first_step"], whole[0]["last_step"])
    assert all(0 < one["last_step"] == two["first_step"] < whole[0]["last_step"] for one, two in pairwise(parts))


def test_requeued_and_signalled_trainings_go_on_where_they_were(untrained: Project, demo: Demo) -> None:
    with snakemake(untrained, 0, 1) as process:
        requeued = untrained.in_mid_training(training(0), STEP)
        untrained.cluster.call("scontrol", "requeue", str(requeued.number))
        signalled = untrained.in_mid_training(training(1), STEP)
        untrained.cluster.call("scancel", "--signal=USR1", str(signalled.number))
        ended_well(untrained, process)
    assert_like_undisturbed(untrained, demo.project, 0, sessions=2)
    assert_like_undisturbed(untrained, demo.project, 1, sessions=2)
    # Slurm runs a requeued job again under its id; the one that left after the signal was submitted anew
    assert [job.number for job in untrained.jobs(training(0))] == [requeued.number]
    assert states(untrained.jobs(training(1))) == ["FAILED", "COMPLETED"]
    assert {note["job"] for note in untrained.sessions(requeued.number)} == {str(requeued.number)}
    print(untrained.log("tissue/unet/train-fold-0-seed-0.log"))


def test_a_training_outlives_its_node(untrained: Project, demo: Demo) -> None:
    """The node is drained, its training killed without a warning, and the node given back later."""
    cluster = untrained.cluster
    with snakemake(untrained, 0) as process:
        job = untrained.in_mid_training(training(0), STEP)
        cluster.call("scontrol", "update", f"nodename={cluster.node}", "state=drain", "reason=maintenance")
        try:
            os.kill(untrained.sessions(job.number)[-1]["pid"], signal.SIGKILL)
            wait_for("a drained node", lambda: cluster.call("sinfo", "-h", "-o", "%T").strip() == "drained")
            wait_for("a second job", lambda: states(untrained.jobs(training(0))) == ["FAILED", "PENDING"])
        finally:
            cluster.call("scontrol", "update", f"nodename={cluster.node}", "state=resume")
        ended_well(untrained, process)
    assert states(untrained.jobs(training(0))) == ["FAILED", "COMPLETED"]
    assert_like_undisturbed(untrained, demo.project, 0, sessions=2)


def test_a_killed_snakemake_is_restarted_without_training_twice(untrained: Project, demo: Demo) -> None:
    with snakemake(untrained, 0) as process:
        first = untrained.in_mid_training(training(0), STEP)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    unlocked = untrained.call("make", "unlock")
    assert unlocked.returncode == 0, unlocked.stdout + unlocked.stderr
    with snakemake(untrained, 0) as process:
        second = wait_for("the second job", lambda: next(iter(untrained.jobs(training(0))[1:]), None))
        ended_well(untrained, process)
    assert states(untrained.jobs(training(0))) == ["COMPLETED", "COMPLETED"]
    assert_like_undisturbed(untrained, demo.project, 0, sessions=1)
    assert untrained.sessions(second.number) == [], "the second job trained nothing"
    assert untrained.sessions(first.number)
    assert provenance(untrained, 0)["facts"]["handed_over"] is True
