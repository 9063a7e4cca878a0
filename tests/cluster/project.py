"""A copy of the checkout, as a fresh clone has it, and the real `snakemake --profile slurm` in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from daemons import ACCOUNT, PARTITION, Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 300
# the plugin waits 40 s before it first looks after a job: too long for jobs of seconds
FIRST_LOOK_S = 2
Found = TypeVar("Found")
SITE = {"account": ACCOUNT, "partition": PARTITION, "gpu": {"unseen": "warn"}}


@dataclass(frozen=True)
class SlurmJob:
    """A job as the accounting database knows it.

    Args:
        number: the job id.
        state: as COMPLETED, RUNNING, FAILED.
        comment: rule and wildcards, which Snakemake's Slurm plugin writes.
        asked: resources, as `cpu=1,gres/gpu=1,...`.
    """

    number: int
    state: str
    comment: str
    asked: str


class Project:
    """A checkout that jobs are submitted from.

    Args:
        folder: where it is.
        cluster: where its jobs go.
    """

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.environment = {key: value for key, value in cluster.environment.items() if not key.startswith("PYTHON")}

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout."""
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)

    def gyri(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m gyri`."""
        return self.call("env", "PYTHONPATH=workflow", ".venv/bin/python", "-m", "gyri", *arguments)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`snakemake --profile slurm`, to its end."""
        return self.call(".venv/bin/snakemake", "--profile", "slurm", *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`snakemake --profile slurm` in the background; what it says goes to snakemake.out."""
        with (self.folder / "snakemake.out").open("w", encoding="utf-8") as output:
            command = [".venv/bin/snakemake", "--profile", "slurm", *arguments]
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True
            )

    def said(self) -> str:
        """What the snakemake in the background said so far."""
        return (self.folder / "snakemake.out").read_text(encoding="utf-8")

    def jobs(self, rule: str = "") -> list[SlurmJob]:
        """The jobs submitted from here, oldest first, from the accounting database."""
        fields = "JobID,State,ReqTRES,WorkDir,Comment"
        listing = self.cluster.call("sacct", "-X", "-n", "-P", "-S", "now-1days", f"--format={fields}")
        rows = [line.split("|", 4) for line in listing.splitlines()]
        # the database is told the comment when a job ends
        alive = dict(line.split("|", 1) for line in self.cluster.call("squeue", "-h", "-o", "%A|%k").splitlines())
        jobs = [
            SlurmJob(int(number), state.split()[0], comment or alive.get(number, ""), asked)
            for number, state, asked, where, comment in rows
            if where == str(self.folder)
        ]
        return [job for job in jobs if rule in job.comment]

    def running(self, part: str) -> SlurmJob:
        """The one running job whose comment has this part."""
        return wait_for(f"a running job of {part}", lambda: next((job for job in self.jobs(part) if job.state == "RUNNING"), None))

    def log(self, path: str) -> str:
        """A log below results/logs."""
        file = self.folder / "results" / "logs" / path
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def sessions(self, job: int) -> list[dict[str, Any]]:
        """What a Slurm job noted in the state folder of its training so far."""
        files = (self.folder / "results" / ".checkpoints").glob("*/sessions.jsonl")
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return [note for note in map(json.loads, lines) if note.get("job") == str(job)]

    def in_mid_training(self, part: str, step: int) -> SlurmJob:
        """The running job of a training, as soon as it has saved a checkpoint of this step or a later one."""
        job = self.running(part)

        def saved() -> bool:
            return any(note["event"] == "checkpoint" and note["step"] >= step for note in self.sessions(job.number))

        wait_for(f"a checkpoint of job {job.number}", saved)
        return job


@dataclass(frozen=True)
class Demo:
    """A project whose `snakemake --profile slurm` ended, and what it said.

    Args:
        project: where it ran.
        done: exit status and messages.
        seconds: how long it took.
    """

    project: Project
    done: subprocess.CompletedProcess[str]
    seconds: float


def clone(folder: Path, cluster: Cluster, config: dict[str, Any]) -> Project:
    """What a fresh clone has, with its environment and images in place, a site and a configuration for the test cluster."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    change_yaml(folder / "slurm" / "config.yaml", {"slurm-init-seconds-before-status-checks": FIRST_LOOK_S})
    (folder / "site.yaml").write_text(yaml.safe_dump(SITE), encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return Project(folder, cluster)


def change_yaml(path: Path, changes: dict[str, Any]) -> None:
    """Set top-level keys of a YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")


def wait_for(what: str, look: Callable[[], Found | None], limit_s: float = PATIENCE_S) -> Found:
    """Look until there is something.

    Raises:
        AssertionError: there was nothing in time.
    """
    end = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < end, f"waited {limit_s:.0f} s in vain for {what}"
        time.sleep(0.5)
    return found


def planned(output: str) -> set[str]:
    """The rules that a dry run would run, from its table of jobs."""
    table = output.split("Job stats:")[-1] if "Job stats:" in output else ""
    return set(re.findall(r"^([a-z]\w+) +\d+$", table, re.MULTILINE)) - {"all", "total"}


def states(jobs: list[SlurmJob]) -> list[str]:
    """Their states, oldest first."""
    return [job.state for job in jobs]
