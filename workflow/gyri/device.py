"""The device, the precision, the number of threads and determinism: what decides whether the same bytes come out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gyri.errors import ConfigError, Problem

if TYPE_CHECKING:
    import torch

# bf16 convolutions in three dimensions give wrong numbers in these versions of cuDNN, silently
# Source: https://github.com/pytorch/pytorch/issues/163539
BROKEN_CUDNN = range(90800, 91500)
AMPERE = (8, 0)  # the first generation that computes in bfloat16


def check_threads(threads: int) -> None:
    """Refuse to run on fewer cores than threads: sums in another order are other bytes.

    Raises:
        ConfigError: fewer cores than `threads`.
    """
    cores = len(os.sched_getaffinity(0))
    if cores < threads:
        remedy = f"run on {threads} cores, or lower `threads` (results then change in their last digits)"
        raise ConfigError(Problem("threads", f"{threads}, on {cores} cores", f"at most {cores}", remedy))


def prepare_torch(threads: int, deterministic: Literal["strict", "fast"]) -> torch.device:
    """Set up torch for this process; call it before any computation.

    Args:
        threads: of the processor.
        deterministic: strict: the same bytes on the same kind of device; fast: the libraries may choose and time algorithms.

    Returns:
        The device: the first CUDA one where there is one, else the processor.
    """
    check_threads(threads)
    # read when CUDA starts, too late afterwards. Source: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    strict = deterministic == "strict"
    # as use_deterministic_algorithms, which first imports all of torch's compiler: more than torch itself, and nothing is compiled
    torch.set_deterministic_debug_mode("error" if strict else "default")
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.benchmark = not strict
    torch.backends.cudnn.allow_tf32 = not strict
    torch.backends.cuda.matmul.allow_tf32 = not strict
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> Literal["float32", "bfloat16"]:
    """What convolutions compute in; weights and losses stay float32.

    Args:
        wanted: the setting; auto takes bfloat16 where the device has it in hardware.
        device: where.

    Raises:
        ConfigError: bfloat16 is asked for with a cuDNN that computes it wrongly.
    """
    if wanted == "float32":
        return "float32"
    if device.type == "cpu":
        return "bfloat16" if wanted == "bfloat16" or _processor_has_bfloat16() else "float32"
    import torch

    version = torch.backends.cudnn.version() or 0
    broken = version in BROKEN_CUDNN
    if wanted == "bfloat16" and broken:
        remedy = "take precision: float32, or a newer torch"
        raise ConfigError(Problem("training.precision", f"bfloat16 with cuDNN {version}", "cuDNN 9.15 or later", remedy))
    able = torch.cuda.get_device_capability(device) >= AMPERE
    return "bfloat16" if wanted == "bfloat16" or (able and not broken) else "float32"


def describe(device: torch.device) -> dict[str, Any]:
    """The kind of device, for provenance: results are compared byte by byte only on the same kind."""
    import torch

    if device.type == "cpu":
        return {"torch": torch.__version__, "device": "cpu"}
    major, minor = torch.cuda.get_device_capability(device)
    facts = {
        "torch": torch.__version__,
        "device": f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})",
        "cuda": torch.version.cuda,
    }
    return {**facts, "cudnn": torch.backends.cudnn.version(), "tf32": torch.backends.cudnn.allow_tf32}


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16, AMX, or the Arm extension)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = {flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
