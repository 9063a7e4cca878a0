"""The use of a GPU: read from a made-up NVML, added up over sessions, shown on the page; without a GPU nothing is imported or measured.

This covers what is done with NVML's answers. That a real card is measured rightly can only be shown on one (docs and benchmarks).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gyri import accelerator
from gyri.accelerator import NO_GPU, Meter, measured
from gyri.io import read_json, write_json
from gyri.layout import Layout
from gyri.report.assemble import page_and_twin
from gyri.report.source import Source
from gyri.train.checkpoint import Checkpoints
from gyri.train.schedule import Schedule
from gyri.usage import total
from packed import make_dataset, train_settings
from report_fixture import make_results
from test_train import train

CUDA = torch.device("cuda")
GIB = 1 << 30


class NVMLError(Exception):
    pass


class FakeNvml:
    """Answers as the library of a card does: numbers in its units, an exception where the card does not know.

    Args:
        clock: a card whose power and load follow it.
        unknown: questions that are not supported.
    """

    NVMLError = NVMLError

    def __init__(self, clock: list[float], unknown: tuple[str, ...] = ()):
        self.clock, self.unknown, self.processes = clock, unknown, [SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB)]
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "unknown"):
            return self._refuse
        return object.__getattribute__(self, name)

    def _refuse(self, *_: Any) -> None:
        raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name != "GPU-0a1b":
            raise NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"NVIDIA H200"

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=80 if self.clock[0] <= 10 else 40, memory=3)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=int((4 + self.clock[0] / 10) * GIB))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return self.processes

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 300_000  # mW

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return 7_000_000 + int(self.clock[0] * 310_000)  # mJ


def run_meter(nvml: FakeNvml, clock: list[float], times: tuple[float, ...], peak: int = 0) -> dict[str, Any]:
    meter = Meter(nvml, "handle", lambda: peak, lambda: clock[0])
    for now in times:
        clock[0] = now
        meter.sample()
    return meter.facts()


def test_units_means_and_peaks() -> None:
    clock = [0.0]
    facts = run_meter(FakeNvml(clock), clock, (5.0, 10.0, 20.0))
    assert facts == {
        "name": "NVIDIA H200",
        "driver": "580.65.06",
        "seconds": 20.0,
        "samples": 4,
        "utilisation_percent": 60.0,  # 80 for ten seconds, 40 for ten
        "memory_peak_mb": 3072.0,
        "device_memory_peak_mb": 6144.0,
        "energy_j": 6200.0,
        "energy_from": "counter",
        "shared": False,
    }


def test_without_a_counter_the_power_is_added_up() -> None:
    clock = [0.0]
    facts = run_meter(FakeNvml(clock, ("nvmlDeviceGetTotalEnergyConsumption",)), clock, (1.0, 4.0, 20.0))
    assert facts["energy_j"] == 6000.0 and facts["energy_from"] == "power"


def test_what_a_card_does_not_tell_is_not_made_up() -> None:
    clock = [0.0]
    unknown = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage")
    unknown += ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetComputeRunningProcesses")
    facts = run_meter(FakeNvml(clock, unknown), clock, (5.0, 10.0))
    assert [facts[key] for key in ("utilisation_percent", "device_memory_peak_mb", "memory_peak_mb", "energy_j")] == [None] * 4


def test_the_allocator_knows_memory_that_the_driver_does_not_show_in_a_container() -> None:
    clock = [0.0]
    nvml = FakeNvml(clock)
    nvml.processes = [SimpleNamespace(pid=4_000_000, usedGpuMemory=None)]
    assert run_meter(nvml, clock, (5.0,), peak=2 * GIB)["memory_peak_mb"] == 2048.0


def test_other_processes_on_the_card_are_said() -> None:
    clock = [0.0]
    nvml = FakeNvml(clock)
    nvml.processes.append(SimpleNamespace(pid=1, usedGpuMemory=GIB))
    assert run_meter(nvml, clock, (5.0,))["shared"] is True


def test_the_thread_samples_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "INTERVAL_SECONDS", 0.01)
    meter = Meter(FakeNvml([0.0]), "handle")
    with meter.running():
        while meter.sums.samples < 3:
            pass
        assert meter._thread.is_alive()
    assert not meter._thread.is_alive()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card as torch shows it."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="0a1b"))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 5 * GIB)
    yield


def test_a_device_is_found_by_its_identity(card: None) -> None:
    clock = [0.0]
    nvml = FakeNvml(clock)
    with measured(CUDA, nvml) as usage:
        clock[0] = 10.0
        found = usage()
        assert isinstance(found, dict) and found["memory_peak_mb"] == 5120.0 and nvml.open == 1
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("broken", "reason"),
    [("nvmlInit", "Not Supported"), ("nvmlDeviceGetHandleByUUID", "NVML does not know the card 0a1b")],
)
def test_without_nvml_a_reason_is_given_and_the_job_goes_on(card: None, broken: str, reason: str) -> None:
    with measured(CUDA, FakeNvml([0.0], (broken,))) as usage:
        assert usage() == f"not measured: {reason}"


def test_without_the_package_a_reason_is_given(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with measured(CUDA) as usage:
        assert str(usage()).startswith("not measured: ") and "pynvml" in str(usage())


def test_an_error_of_the_job_is_not_taken_for_one_of_nvml(card: None) -> None:
    nvml = FakeNvml([0.0])
    with pytest.raises(NVMLError, match="mine"), measured(CUDA, nvml):
        raise NVMLError("mine")
    assert nvml.open == 0


def test_without_a_gpu_nothing_is_imported(tmp_path: Path) -> None:
    code = "import sys, threading, types; from gyri.accelerator import measured\n"
    code += "with measured(types.SimpleNamespace(type='cpu')) as usage, measured(None) as other: print(usage(), other(), sep='|')\n"
    code += "print('pynvml' in sys.modules, 'torch' in sys.modules, threading.active_count())"
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{NO_GPU}|{NO_GPU}", "False False 1"]


def test_sessions_are_added_up() -> None:
    clock = [0.0]
    one = run_meter(FakeNvml(clock), clock, (5.0, 10.0))
    clock = [0.0]
    two = run_meter(FakeNvml(clock), clock, (10.0, 40.0))
    found = total([one, two])
    assert (found["seconds"], found["energy_j"], found["sessions"], found["samples"]) == (50.0, 15500.0, 2, 6)
    assert found["utilisation_percent"] == pytest.approx((80 * 20 + 40 * 30) / 50)
    assert found["device_memory_peak_mb"] == 8192.0 and found["name"] == "NVIDIA H200"
    assert total([one, {**two, "energy_j": None}])["energy_j"] is None  # a part is not the whole
    assert total([]) == {}


def test_a_training_notes_its_use_with_every_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "x", Schedule(1))
    used = {"seconds": 5.0, "energy_j": 10.0}
    checkpoints.usage = lambda: dict(used)
    checkpoints.note("start", 0)
    checkpoints.note("checkpoint", 3)
    used["seconds"] = 9.0
    checkpoints.note("interrupted", 4)
    checkpoints.usage = lambda: NO_GPU
    checkpoints.note("start", 4)
    checkpoints.note("end", 8)
    first, second = checkpoints.sessions()
    assert first["accelerator"] == {"seconds": 9.0, "energy_j": 10.0} and "accelerator" not in second


def test_provenance_says_that_there_was_no_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert train(make_dataset(tmp_path), train_settings(epochs=1))["accelerator"] == NO_GPU


def notes_of(layout: Layout, settings: Any) -> str:
    page, _ = page_and_twin(Source(settings, layout))
    return page


def test_the_page_shows_what_was_measured_or_that_nothing_was(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    [settings] = make_results(tmp_path, tasks=("regression",))
    path = layout.run("age", "conv5_fc3", 0, 0, "provenance-train.json")
    record = read_json(path)
    write_json(path, {**record, "facts": {"accelerator": NO_GPU}})
    page = notes_of(layout, settings)
    assert "GPU time, memory, utilisation and energy: not measured (no GPU)." in page and "GPU busy" not in page
    clock = [0.0]
    write_json(path, {**record, "facts": {"accelerator": run_meter(FakeNvml(clock), clock, (10.0, 3600.0))}})
    page = notes_of(layout, settings)
    assert (
        "GPU: 1 h 00 min in all on NVIDIA H200, 310.0 Wh." in page and "GPU busy (%)" in page and "energy: not measured" not in page
    )
