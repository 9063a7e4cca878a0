"""Training: the same bytes again, after a kill too; nothing trained twice; nothing of the test participants."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gyri.config.training import TrainSettings
from gyri.errors import ConfigError, DataError, Interrupted
from gyri.io import read_json, read_tensors, sha256_file
from gyri.layout import Layout
from gyri.loading import find_target
from gyri.tables import read_table
from gyri.train import FILES, checkpoint_key, run
from gyri.train.curves import auroc, dice
from gyri.train.loop import learning_rate
from packed import make_dataset, train_settings
from test_loading import swap_rows

PARTS = ("weights.safetensors", "last.safetensors", "history.tsv", "model.json")
SCRIPT = """
import sys
from pathlib import Path
from gyri.config.training import TrainSettings
from gyri.layout import Layout
from gyri.train import run
settings = TrainSettings.model_validate_json(sys.argv[2])
print(run(settings, Layout(Path(sys.argv[1])), "tiny", "exp", "net", 0, 0, sys.argv[3]))
print("torch" in sys.modules)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_dataset(tmp_path)


def train(layout: Layout, settings: TrainSettings, fingerprint: str = "f", experiment: str = "exp") -> dict[str, Any]:
    return run(settings, layout, "tiny", experiment, "net", 0, 0, fingerprint)


def hashes(layout: Layout, experiment: str = "exp") -> dict[str, str]:
    return {name: sha256_file(layout.run(experiment, "net", 0, 0, name)) for name in PARTS}


def command(layout: Layout, settings: TrainSettings, fingerprint: str = "f") -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(layout.root), settings.model_dump_json(), fingerprint]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "workflow"), "OMP_NUM_THREADS": "1"}


def state_folder(layout: Layout, settings: TrainSettings, fingerprint: str = "f") -> Path:
    target = find_target(layout, "tiny", settings.task, settings.target, settings.classes)
    return layout.checkpoint(checkpoint_key(layout, "tiny", "exp", "net", 0, 0, target, fingerprint))


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "sessions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("task", "network", "metric"),
    [("segmentation", "unet", "dice"), ("classification", "conv5_fc3", "auroc"), ("regression", "conv5_fc3", "mae")],
)
def test_each_task_gives_its_files_and_the_same_bytes_twice(layout: Layout, task: str, network: str, metric: str) -> None:
    settings = train_settings(task, network, epochs=3, weight_average=0.5)
    facts = train(layout, settings, "one")
    first = hashes(layout)
    history = read_table(layout.run("exp", "net", 0, 0, "history.tsv"), "history")
    assert f"validation_{metric}" in history and history["selected"].sum() == 1 and list(history["epoch"]) == [1, 2, 3]
    assert np.isfinite(history[["train_loss", "validation_loss"]]).all(axis=None)
    card = read_json(layout.run("exp", "net", 0, 0, "model.json"))
    assert card["task"] == task and card["trained"] and card["learning_task"]["shape"] == [8, 8, 8]
    assert facts["handed_over"] is False and facts["train_images"] == 8 and facts["steps"] == 6
    assert train(layout, settings, "two")["handed_over"] is False
    assert hashes(layout) == first


def test_the_best_epoch_is_kept(layout: Layout) -> None:
    train(layout, train_settings(epochs=4, learning_rate=0.05))
    history = read_table(layout.run("exp", "net", 0, 0, "history.tsv"))
    chosen = history.loc[history["selected"] == 1].iloc[0]
    assert chosen["validation_dice"] == history["validation_dice"].max()
    best, last = (read_tensors(layout.run("exp", "net", 0, 0, f"{name}.safetensors")) for name in ("weights", "last"))
    same = all(np.array_equal(best[name], last[name]) for name in best)
    assert same == (chosen["epoch"] == 4)


def test_a_network_learns(layout: Layout) -> None:
    settings = train_settings(epochs=25, learning_rate=0.02)
    train(layout, settings)
    history = read_table(layout.run("exp", "net", 0, 0, "history.tsv"))
    assert history["train_loss"].iloc[-1] < 0.6 * history["train_loss"].iloc[0]


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(layout: Layout) -> None:
    """SIGKILL in mid-epoch; the second process must start where the first one saved, and both together do every step once."""
    settings = train_settings(epochs=8, batch_size=2, checkpoint_seconds=0.001, weight_average=0.9)
    total = 8 * 4
    folder = state_folder(layout, settings)
    process = subprocess.Popen(command(layout, settings), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300  # a loaded machine takes long to start it
    while not list(folder.glob("state-000000000[7-9].json")) and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    facts = train(layout, settings)
    disturbed, lines = hashes(layout), log_of(folder)
    starts = [line["step"] for line in lines if line["event"] == "start"]
    assert steps_add_up(facts["sessions"], total)
    assert (
        len(starts) == 2 and starts[0] == 0 and 0 < starts[1] < total and lines[-1]["event"] == "end" and lines[-1]["step"] == total
    )
    assert facts["steps"] == total
    train(layout, settings, "undisturbed")
    assert hashes(layout) == disturbed


def steps_add_up(sessions: list[dict[str, int]], total: int) -> bool:
    """Whether sessions follow each other without a gap and without doing a saved step again."""
    follows = all(before["last_step"] == after["first_step"] for before, after in itertools.pairwise(sessions))
    return follows and len(sessions) > 1 and sum(item["last_step"] - item["first_step"] for item in sessions) == total


def test_a_restart_from_zero_would_be_noticed() -> None:
    assert steps_add_up([{"first_step": 0, "last_step": 20}, {"first_step": 20, "last_step": 60}], 60)
    assert not steps_add_up([{"first_step": 0, "last_step": 20}, {"first_step": 0, "last_step": 60}], 60)
    assert not steps_add_up([{"first_step": 0, "last_step": 60}], 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_says_so(layout: Layout, number: signal.Signals) -> None:
    settings = train_settings(epochs=400, batch_size=2)
    process = subprocess.Popen(
        command(layout, settings), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    folder, limit = state_folder(layout, settings), time.monotonic() + 60
    while not (folder / "sessions.jsonl").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "Interrupted" in errors and Interrupted.exit_code == 75
    lines = log_of(folder)
    assert [line["event"] for line in lines] == ["start", "checkpoint", "interrupted"] and lines[-1]["step"] > 0
    assert list(folder.glob("state-*.json")) and not (folder / "lock.json").exists()


def test_a_damaged_checkpoint_costs_steps_but_changes_nothing(layout: Layout) -> None:
    settings = train_settings(epochs=4, checkpoint_seconds=0.001)
    train(layout, settings, "undisturbed")
    expected = hashes(layout)
    folder = interrupt_after(layout, settings, 5)
    newest = max(folder.glob("state-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    facts = train(layout, settings)
    assert hashes(layout) == expected
    assert facts["sessions"][1]["first_step"] == 4


def interrupt_after(layout: Layout, settings: TrainSettings, steps: int) -> Path:
    """Train some steps and stop as if by SIGTERM."""
    from gyri.train import loop

    original = loop.save_if_due

    def stop_then(state: Any, checkpoints: Any, lock: Any, stop: Any) -> None:
        original(state, checkpoints, lock, lambda: state.step >= steps)

    loop.save_if_due = stop_then
    try:
        with pytest.raises(Interrupted):
            train(layout, settings)
    finally:
        loop.save_if_due = original
    return state_folder(layout, settings)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_resumed_at_any_step_the_bytes_are_the_same(layout: Layout, optimizer: str, steps: int) -> None:
    settings = train_settings("classification", "conv5_fc3", epochs=3, optimizer=optimizer, learning_rate=0.01, patience=2)
    train(layout, settings, "undisturbed")
    expected = hashes(layout)
    interrupt_after(layout, settings, steps)
    assert train(layout, settings)["sessions"][0]["last_step"] == steps
    assert hashes(layout) == expected


def test_a_training_that_went_on_elsewhere_is_of_neither_kind(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditions decide what may be ranked and averaged: two kinds of device in one training are a condition of its own."""
    settings = train_settings(epochs=3)
    interrupt_after(layout, settings, 3)
    monkeypatch.setattr("gyri.train.loop.describe", lambda _: {"torch": "2.13.0", "device": "another"})
    assert train(layout, settings)["device"] == "cpu, then another"
    assert read_json(layout.run("exp", "net", 0, 0, "model.json"))["conditions"]["device"] == "cpu, then another"


def test_two_processes_train_once(layout: Layout) -> None:
    settings = train_settings(epochs=10)
    both = [
        subprocess.Popen(command(layout, settings), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert all(process.returncode == 0 for process in both), outputs
    assert sorted("'handed_over': True" in output for output, _ in outputs) == [False, True]
    assert sum(line["event"] == "start" for line in log_of(state_folder(layout, settings))) == 1


def test_a_finished_result_is_handed_over_without_torch(layout: Layout) -> None:
    settings = train_settings()
    train(layout, settings)
    expected = hashes(layout)
    for name in FILES:
        layout.run("exp", "net", 0, 0, name).unlink()
    done = subprocess.run(command(layout, settings), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "'handed_over': True" in done.stdout and done.stdout.splitlines()[-1] == "False"
    assert hashes(layout) == expected


@pytest.mark.parametrize(
    ("task", "network"), [("classification", "majority"), ("regression", "mean"), ("segmentation", "majority")]
)
def test_baselines_import_no_torch(layout: Layout, task: str, network: str) -> None:
    settings = train_settings(task, network)
    done = subprocess.run(command(layout, settings), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert read_json(layout.run("exp", "net", 0, 0, "model.json"))["trained"] is False


@pytest.mark.parametrize("task", ["classification", "regression", "segmentation"])
def test_the_linear_baseline_imports_no_torch_and_repeats(layout: Layout, task: str) -> None:
    settings = train_settings(task, "linear")
    done = subprocess.run(command(layout, settings, "one"), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    first = hashes(layout)
    train(layout, settings, "two")
    assert hashes(layout) == first


@pytest.mark.parametrize(("task", "network"), [("segmentation", "unet"), ("regression", "linear"), ("segmentation", "majority")])
def test_exchanging_test_images_changes_no_byte(layout: Layout, task: str, network: str) -> None:
    settings = train_settings(task, network)
    train(layout, settings, "before")
    before = hashes(layout)
    swap_rows(layout, "p00", "p13")
    assert train(layout, settings, "before")["handed_over"]  # the inputs count as the same
    train(layout, settings, "after")
    assert hashes(layout) == before
    swap_rows(layout, "p02", "p04")  # validation and training
    train(layout, settings, "after")
    assert hashes(layout)["weights.safetensors"] != before["weights.safetensors"]


def test_other_seeds_folds_and_models_give_other_weights(layout: Layout) -> None:
    settings, found = train_settings(epochs=1), set()
    for model, fold, seed in (("net", 0, 0), ("net", 0, 1), ("net", 1, 0), ("other", 0, 0)):
        run(settings, layout, "tiny", "exp", model, fold, seed, "f")
        found.add(sha256_file(layout.run("exp", model, fold, seed, "weights.safetensors")))
    assert len(found) == 4


def test_images_read_by_batch_give_the_bytes_of_resident_ones(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = train_settings()
    train(layout, settings, "resident")
    expected = hashes(layout)
    monkeypatch.setattr("gyri.train.samples.free_memory", lambda device: 0)
    train(layout, settings, "read")
    assert hashes(layout) == expected


def test_early_stopping_waits_for_patience(layout: Layout) -> None:
    settings = train_settings("classification", "conv5_fc3", epochs=50, learning_rate=0.5, schedule="constant", patience=2)
    facts = train(layout, settings)
    history = read_table(layout.run("exp", "net", 0, 0, "history.tsv"))
    assert facts["stopped_early"] and len(history) == facts["best_epoch"] + 2


def test_validation_may_be_rarer(layout: Layout) -> None:
    train(layout, train_settings(epochs=5, validate_every=2))
    history = read_table(layout.run("exp", "net", 0, 0, "history.tsv"))
    assert list(history.loc[history["validation_loss"].notna(), "epoch"]) == [2, 4, 5]


def test_a_diverging_training_is_a_message(layout: Layout) -> None:
    with pytest.raises(DataError, match=r"lower training\.learning_rate"):
        train(layout, train_settings("regression", "conv5_fc3", epochs=20, learning_rate=1e30, gradient_clip=None, optimizer="sgd"))


def test_too_few_images_are_named_for_every_role(layout: Layout) -> None:
    path = layout.dataset("tiny", "cohort.tsv")
    path.write_text(
        "\n".join(line.replace("kind", "") if index == 0 else line for index, line in enumerate(path.read_text().split("\n")))
    )
    table = read_table(path)
    table["diagnosis"] = table["diagnosis"].where(table["image_id"].isin(["p00", "p01", "p04"]))
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    with pytest.raises(DataError) as caught:
        train(layout, train_settings("classification", "conv5_fc3"))
    assert len(caught.value.problems) == 2


def test_more_threads_than_cores_are_refused(layout: Layout) -> None:
    settings = train_settings().model_copy(update={"threads": 4096})
    with pytest.raises(ConfigError, match="4096"):
        train(layout, settings)


def test_a_class_absent_from_training_is_a_fact(layout: Layout) -> None:
    table = read_table(layout.dataset("tiny", "cohort.tsv"))
    table.loc[table["image_id"] == "p00", "diagnosis"] = "rare"
    table.to_csv(layout.dataset("tiny", "cohort.tsv"), sep="\t", index=False, na_rep="n/a")
    facts = train(layout, train_settings("classification", "majority"))
    assert any("rare" in warning for warning in facts["warnings"])


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_schedules_reach_the_peak_and_never_exceed_it(schedule: str) -> None:
    rates = [learning_rate(schedule, 0.3, step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.3) and min(rates) >= 0
    assert rates[-1] == 0.3 if schedule == "constant" else rates[-1] < 1e-5
    assert np.abs(np.diff(rates)).max() < 0.002


def test_auroc_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        truth, score = random.random(30) < 0.4, random.integers(0, 6, 30) / 6
        assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert auroc(np.ones(3, bool), np.arange(3)) is None


def test_dice_agrees_with_counting() -> None:
    random = np.random.default_rng(0)
    found, truth = random.integers(0, 3, (2, 4, 4, 4)), random.integers(0, 3, (2, 4, 4, 4))
    result = dice(torch.from_numpy(found), torch.from_numpy(truth), 4).numpy()
    for image in range(2):
        for label in (1, 2):
            overlap = ((found[image] == label) & (truth[image] == label)).sum()
            assert result[image, label - 1] == pytest.approx(
                2 * overlap / ((found[image] == label).sum() + (truth[image] == label).sum())
            )
        assert np.isnan(result[image, 2])
