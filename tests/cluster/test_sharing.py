"""Trainings that share one Slurm job and its GPU, and a job that a person cancels."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from project import Demo, Project, change_yaml, states, wait_for

RUNS = [f"tissue/unet/fold-0/seed-{seed}" for seed in (0, 1)]
BYTES = ("weights.safetensors", "last.safetensors", "history.tsv")


def test_packed_trainings_share_a_job_and_end_with_the_same_bytes(copy_of_demo: Callable[[], Project], demo: Demo) -> None:
    project = copy_of_demo()
    shutil.rmtree(project.folder / "results" / ".checkpoints")
    shutil.rmtree(project.folder / "results" / "tissue" / "unet")
    change_yaml(project.folder / "site.yaml", {"gpu": {"unseen": "warn", "pack": 2}})
    done = project.snakemake(*(f"results/{run}/weights.safetensors" for run in RUNS))
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = project.jobs("pack_tissue_unet")
    assert job.state == "COMPLETED"
    assert "gres/gpu=1" in job.asked and "cpu=2" in job.asked, "one card, processors for both"
    notes = project.sessions(job.number)
    begun, ended = ([note["time"] for note in notes if note["event"] == event] for event in ("start", "end"))
    assert len(begun) == len(ended) == 2
    assert max(begun) < min(ended), "side by side, not one after the other"
    for run in RUNS:
        for name in BYTES:
            there, here = (folder / "results" / run / name for folder in (demo.project.folder, project.folder))
            assert here.read_bytes() == there.read_bytes(), name


def test_a_cancelled_job_is_submitted_again(copy_of_demo: Callable[[], Project]) -> None:
    """sacct says "CANCELLED by 0", which the plugin by itself takes for a job that runs."""
    project = copy_of_demo()
    target = "results/datasets/brains/fold-0/normalization.json"
    (project.folder / target).unlink()
    cluster = project.cluster
    cluster.call("scontrol", "update", f"nodename={cluster.node}", "state=drain", "reason=test")
    process = project.start(target)
    try:
        try:
            waiting = wait_for("a waiting job", lambda: project.jobs("normalize_fold"))
            cluster.call("scancel", str(waiting[0].number))
            wait_for("a second job", lambda: states(project.jobs("normalize_fold")) == ["CANCELLED", "PENDING"])
        finally:
            cluster.call("scontrol", "update", f"nodename={cluster.node}", "state=resume")
        wait_for("snakemake to end", lambda: process.poll() is not None)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, project.said()
    assert states(project.jobs("normalize_fold")) == ["CANCELLED", "COMPLETED"]
