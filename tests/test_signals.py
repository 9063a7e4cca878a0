"""Signals that ask to stop: answered wherever a job stands, also where they were inherited as ignored, and through all that is around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gyri.errors import Interrupted
from gyri.train.lock import Lock
from gyri.train.signals import SIGNALS, stop_signals
from packed import make_dataset, train_settings
from test_train import ENVIRONMENT, command, log_of, state_folder, steps_add_up, train
from tiny import CONFIG, make_project

IGNORE = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGUSR1)]; "
IGNORE += "os.execv(sys.argv[1], sys.argv[1:])"

# at the second step a signal comes, and from then on no module is found any more
GONE = """
import signal, sys
import gyri.train.parts as parts
compute = parts.Gradients.compute
class Gone:
    def find_spec(self, name, *rest):
        raise OSError(f"the image is gone: {name}")
def last(self, indices):
    found = compute(self, indices)
    if self.state.step == 1:
        sys.meta_path.insert(0, Gone())
        signal.raise_signal(signal.SIGUSR1)
    return found
parts.Gradients.compute = last
"""


def wait_for(happened: Callable[[], Any], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds  # a loaded machine takes long to start anything
    while not happened():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_training_a_signal_ends_the_job_and_inside_it_only_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stop:
        with stop.gently():
            signal.raise_signal(number)
            assert stop()
        with pytest.raises(Interrupted, match="nothing was lost"):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_thread_that_is_not_the_first_one_leaves_signals_alone() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with stop_signals() as stop:
            found.append((stop(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [(False, before)]


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_that_were_inherited_as_ignored_are_answered(tmp_path: Path, number: signal.Signals) -> None:
    """Under Slurm the processes around a training ignore SIGUSR1, and the shell around it both signals."""
    layout, settings = make_dataset(tmp_path), train_settings(epochs=400, batch_size=2)
    line = [sys.executable, "-c", IGNORE, *command(layout, settings)]
    process = subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = state_folder(layout, settings)
    wait_for((folder / "sessions.jsonl").exists)
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "Interrupted" in errors
    assert [line["event"] for line in log_of(folder)] == ["start", "checkpoint", "interrupted"]


def test_when_the_signal_comes_nothing_has_to_be_read_any_more(tmp_path: Path) -> None:
    """The signal also ends the process that serves a container image's files: from then on nothing can be imported."""
    layout, settings = make_dataset(tmp_path), train_settings(epochs=2)
    line = command(layout, settings)
    line[2] = GONE + line[2]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    # (torch itself looks for a module when the interpreter ends; the command line does not let it come to that in a container)
    assert "Interrupted: Stopped on request" in done.stderr, done.stderr
    assert [line["event"] for line in log_of(state_folder(layout, settings))] == ["start", "checkpoint", "interrupted"]


def test_a_job_that_waits_for_another_one_leaves_at_once(tmp_path: Path) -> None:
    layout, settings = make_dataset(tmp_path), train_settings()
    folder = state_folder(layout, settings)
    folder.mkdir(parents=True)
    lock = Lock(folder)
    lock.acquire()
    process = subprocess.Popen(
        command(layout, settings), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    wait_for(lambda: "waiting for process" in process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "nothing was lost" in errors
    lock.check()  # it was not touched
    lock.release()
    assert train(layout, settings)["handed_over"] is False


CHAIN = {
    **CONFIG,
    "experiments": {
        "blobs": {
            **CONFIG["experiments"]["blobs"],
            "architectures": {"unet": {"arguments": {"width": 4}}},
            "training": {"epochs": 60, "batch_size": 2, "precision": "float32"},
        }
    },
}
TARGET = "results/blobs/unet/fold-0/seed-0/weights.safetensors"


def start_snakemake(folder: Path, **environment: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete", TARGET]
    return subprocess.Popen(
        line, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def signal_all(process: subprocess.Popen[str], number: signal.Signals) -> list[str]:
    """Send a signal to every process of a tree, as Slurm does with a job step; gives the names of those that got it."""
    names = []
    root = psutil.Process(process.pid)
    for item in [*root.children(recursive=True), root]:
        names.append(item.name())
        item.send_signal(number)
    return names


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [line for state in folder.glob("results/.checkpoints/*/sessions.jsonl") for line in log_of(state.parent)]


@pytest.mark.workflow
def test_a_signal_to_every_process_of_a_real_workflow_saves_the_state(tmp_path: Path) -> None:
    """First SIGUSR1, then, in the next run, SIGTERM; the third run does the rest, and every step was done once."""
    folder = make_project(tmp_path / "project", config=CHAIN)
    for sessions, number in enumerate((signal.SIGUSR1, signal.SIGTERM), 1):
        process = start_snakemake(folder, SLURM_JOB_ID="7", SLURM_JOB_END_TIME=str(int(time.time()) + 3600))
        wait_for(lambda: [line["event"] for line in events_of(folder)].count("start") == sessions)  # noqa: B023
        time.sleep(0.5)
        names = signal_all(process, number)
        output, _ = process.communicate(timeout=120)
        assert {"bash", "tee"} <= set(names) and process.returncode == 1, output
        events = events_of(folder)
        assert [line["event"] for line in events] == ["start", "checkpoint", "interrupted"] * sessions
        assert not list(folder.glob("results/.checkpoints/*/lock.json")) and not (folder / TARGET).exists()
        # tee outlived the signal: what the training said last is in the log
        log = (folder / "results/logs/blobs/unet/train-fold-0-seed-0.log").read_text()
        assert "job: slurm 7 on " in log and "a signal to stop after step" in log
        assert "exit code 75" in output or "exit status 75" in output, output
    assert start_snakemake(folder).wait(timeout=600) == 0
    facts = json.loads((folder / TARGET).with_name("provenance-train.json").read_text())["facts"]
    assert len(facts["sessions"]) == 3 and steps_add_up(facts["sessions"], facts["steps"])
    assert facts["sessions"][1]["first_step"] == events[2]["step"] > 0


@pytest.mark.workflow
def test_a_workflow_whose_shell_dies_of_the_signal_loses_the_last_words(tmp_path: Path) -> None:
    """The guard of the test above: without the trap of the rule, bash and tee are gone before the training has said its last words."""
    folder = make_project(tmp_path / "project", config=yaml.safe_load(yaml.safe_dump(CHAIN)))
    rules = folder / "workflow" / "rules" / "models.smk"
    text = rules.read_text()
    assert text.count("trap '' TERM USR1; ") == 1
    rules.write_text(text.replace("trap '' TERM USR1; ", ""))
    process = start_snakemake(folder, SLURM_JOB_ID="7")
    wait_for(lambda: list(folder.glob("results/.checkpoints/*/sessions.jsonl")))
    time.sleep(0.5)
    signal_all(process, signal.SIGTERM)
    process.communicate(timeout=120)
    log = folder / "results/logs/blobs/unet/train-fold-0-seed-0.log"
    assert not log.exists() or "a signal to stop after step" not in log.read_text()


@pytest.mark.workflow
def test_a_killed_snakemake_leaves_a_training_that_the_next_one_waits_for(tmp_path: Path) -> None:
    """kill -9 of snakemake alone: the training goes on; the same job again trains nothing, and hands over what the first one made."""
    folder = make_project(tmp_path / "project", config=CHAIN)
    process = start_snakemake(folder)
    wait_for(lambda: events_of(folder))
    training = psutil.Process(events_of(folder)[0]["pid"])
    training.suspend()  # so that it is not done before the next snakemake comes
    process.kill()
    process.wait()
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=folder, check=True, capture_output=True)
    again = start_snakemake(folder)
    assert again.stdout is not None
    wait_for(lambda: "which trains the same model" in again.stdout.readline())
    training.resume()
    assert again.communicate(timeout=600) and again.returncode == 0
    # both hand over the one result; which of them writes the provenance last is chance
    assert [line["event"] for line in events_of(folder) if line["event"] != "checkpoint"] == ["start", "end"]
