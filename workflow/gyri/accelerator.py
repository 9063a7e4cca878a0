"""What a job used of its GPU: time, memory, utilisation, energy; sampled once a second through NVML, NVIDIA's management library.

Utilisation and energy are those of the whole card. Where other processes ran on it at the same time, that is said (`shared`), and
the figures are not this job's alone. Without a GPU nothing is imported, started or measured.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

INTERVAL_SECONDS = 1.0
MEGABYTE = 1 << 20
NO_GPU = "not measured: no GPU"


@dataclass
class _Sums:
    """What has been seen so far; None: the card or its driver does not tell.

    Args:
        samples: how many.
        busy: percentage times seconds.
        memory: largest of the whole card, bytes.
        own: largest of this process, bytes.
        joules: integral of the power.
        others: whether another process was seen.
    """

    samples: int = 0
    busy: float | None = 0.0
    memory: int | None = 0
    own: int | None = None
    joules: float | None = 0.0
    others: bool = False


class Meter:
    """Samples one card from a thread.

    Args:
        nvml: the module `pynvml`, initialized, or what behaves like it.
        handle: of the card, as `nvml` gives it.
        peak: the largest memory of this process so far, in bytes, as its own allocator knows it.
        clock: seconds, never set back.
    """

    def __init__(self, nvml: Any, handle: Any, peak: Callable[[], int] = lambda: 0, clock: Callable[[], float] = time.monotonic):
        self.nvml, self.handle, self.peak, self.clock = nvml, handle, peak, clock
        self.sums, self.began = _Sums(), clock()
        self._last = self.began
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._counter = self._ask("nvmlDeviceGetTotalEnergyConsumption")  # millijoules since the driver was loaded
        self.about = {"name": _text(self._ask("nvmlDeviceGetName")), "driver": _text(self._call(nvml.nvmlSystemGetDriverVersion))}
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Meter]:
        """Sample while inside."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.sample()

    def sample(self) -> None:
        """Look at the card once."""
        rates, memory = self._ask("nvmlDeviceGetUtilizationRates"), self._ask("nvmlDeviceGetMemoryInfo")
        power, processes = self._ask("nvmlDeviceGetPowerUsage"), self._ask("nvmlDeviceGetComputeRunningProcesses")
        own = [item.usedGpuMemory for item in processes or [] if item.pid == os.getpid() and item.usedGpuMemory]
        with self._lock:
            now, sums = self.clock(), self.sums
            elapsed = now - self._last
            sums.samples += 1
            sums.busy = _plus(sums.busy, None if rates is None else rates.gpu * elapsed)
            sums.memory = None if memory is None or sums.memory is None else max(sums.memory, int(memory.used))
            sums.joules = _plus(sums.joules, None if power is None else power / 1000 * elapsed)  # from milliwatts
            sums.own = max([*own, *([] if sums.own is None else [sums.own])], default=None)
            # in a container with process numbers of its own this process is not found, but it is one of them
            sums.others |= len(processes or []) > 1
            self._last = now

    def facts(self) -> dict[str, Any]:
        """What was used until now.

        Returns:
            name, driver, seconds, samples, utilisation_percent (mean), memory_peak_mb (of this process), device_memory_peak_mb,
            energy_j and energy_from (counter, or power where the card has no counter), shared. None: not told by the card.
        """
        self.sample()
        counter = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        with self._lock:
            sums, seconds = self.sums, self._last - self.began
            counted = self._counter is not None and counter is not None
            joules = (counter - self._counter) / 1000 if counted else sums.joules
            own = max(sums.own or 0, self.peak()) or None
            return {
                **self.about,
                "seconds": round(seconds, 1),
                "samples": sums.samples,
                "utilisation_percent": None if sums.busy is None or not seconds else round(sums.busy / seconds, 1),
                "memory_peak_mb": None if own is None else round(own / MEGABYTE, 1),
                "device_memory_peak_mb": None if sums.memory is None else round(sums.memory / MEGABYTE, 1),
                "energy_j": None if joules is None else round(joules, 1),
                "energy_from": "counter" if counted else "power",
                "shared": sums.others,
            }

    def _ask(self, name: str) -> Any:
        return self._call(getattr(self.nvml, name), self.handle)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """An answer of NVML; None where the card does not support the question."""
        try:
            return function(*arguments)
        except self.nvml.NVMLError:
            return None


@contextlib.contextmanager
def measured(device: torch.device | None, nvml: Any = None) -> Iterator[Callable[[], dict[str, Any] | str]]:
    """Measure what is used of a device while inside.

    Args:
        device: where the job computes; None for a job without torch.
        nvml: the module that asks the driver; `pynvml` where none is given, imported only for a GPU.

    Yields:
        A function that gives the facts so far (see `Meter.facts`), or a text that says why there are none.
    """
    if device is None or device.type != "cuda":
        yield lambda: NO_GPU
        return
    found = _open(device, nvml)
    if isinstance(found, str):
        yield lambda: found
        return
    try:
        with found.running():
            yield found.facts
    finally:
        with contextlib.suppress(found.nvml.NVMLError):
            found.nvml.nvmlShutdown()


def _open(device: torch.device, nvml: Any) -> Meter | str:
    """A meter of the card behind a device; a text where there is none."""
    try:
        if nvml is None:
            import pynvml

            nvml = pynvml
        nvml.nvmlInit()
        return Meter(nvml, *_find(nvml, device))
    except Exception as error:  # no package, no library, no driver, no such card: measuring is no reason to stop a training
        return f"not measured: {' '.join(str(error).split()) or type(error).__name__}"


def _find(nvml: Any, device: torch.device) -> tuple[Any, Callable[[], int]]:
    """The card behind a device of torch, whatever number it has there, and the peak memory of torch's allocator."""
    import torch

    properties = torch.cuda.get_device_properties(device)

    def peak() -> int:
        return int(torch.cuda.max_memory_reserved(device))

    identity = str(properties.uuid)
    for name in (f"GPU-{identity}", f"MIG-{identity}"):
        with contextlib.suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(name), peak
    raise LookupError(f"NVML does not know the card {identity}")


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
