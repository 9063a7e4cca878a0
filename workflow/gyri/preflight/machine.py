"""This machine: room on its disks, cores, the GPU and its driver."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from gyri.preflight.check import Check, ask

GIGABYTE = 1 << 30
LEAST_DISK, ENOUGH_DISK = 1.0, 20.0  # GB
ENOUGH_SHARED_MEMORY = 1.0  # GB
SHARED_MEMORY = Path("/dev/shm")
DRIVER = Path("/proc/driver/nvidia/version")
LIBRARY = "libcuda.so.1"
CAPABILITY_ATTRIBUTES = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NO_DEVICES = ("", "-1", "NoDevFiles")
# the first driver that runs programs of a CUDA generation
# Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
FIRST_DRIVER = {11: 450, 12: 525, 13: 580}
# the oldest generation of GPUs that torch's wheels of a CUDA version hold code for
# Source: https://github.com/pytorch/pytorch/blob/main/RELEASE.md (release compatibility matrix)
FIRST_CAPABILITY = {(12, 6): (5, 0), (12, 8): (7, 5), (13, 0): (7, 5)}
QUESTION = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]


def disk(name: str, folder: Path) -> Check:
    """Room where something is written; a folder that is not there yet is made on the disk of its parent."""
    folder = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIGABYTE
    found = f"{free:.1f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        return Check(name, "FAILED", f"{folder} cannot be written", "ask for the permission, or make it a link to another disk")
    if free < LEAST_DISK:
        return Check(name, "FAILED", found, "make room, or make it a link to another disk")
    return Check(name, "ok" if free >= ENOUGH_DISK else "warning", found, "" if free >= ENOUGH_DISK else "make room in time")


def shared_memory() -> Check:
    """Memory that processes share: Docker and some nodes leave 64 MB."""
    if not SHARED_MEMORY.is_dir():
        return Check("/dev/shm", "warning", "not there", "mount it")
    size = shutil.disk_usage(SHARED_MEMORY).total / GIGABYTE
    good = size >= ENOUGH_SHARED_MEMORY
    return Check("/dev/shm", "ok" if good else "warning", f"{size:.1f} GB", "" if good else "mount it with 1 GB or more")


def cores(wanted: Mapping[str, int]) -> Check:
    """Whether this machine can run the stages at the threads that the configuration says.

    Args:
        wanted: threads by stage.
    """
    here = len(os.sched_getaffinity(0))
    short = [f"{stage} ({threads})" for stage, threads in wanted.items() if threads > here]
    if short:
        remedy = "run on a larger machine, or lower `threads` (results then change in their last digits)"
        return Check("cores", "FAILED", f"{here}, fewer than the threads of {', '.join(short)}", remedy)
    return Check("cores", "ok", f"{here}, at most {max(wanted.values())} threads per job")


def driver(cuda: str | None) -> Check:
    """The GPU and its driver against the CUDA libraries that torch brings along.

    Args:
        cuda: version of those libraries, as "13.0"; None for a torch without CUDA.
    """
    if not DRIVER.is_file():
        return Check("gpu", "ok", "none on this machine")
    answer = ask(QUESTION)
    if not answer.good or not answer.lines:
        return Check("gpu", "FAILED", f"nvidia-smi: {answer.complaint}", "ask who runs this machine: its driver is out of order")
    name, version, capability = [text.strip() for text in answer.lines[0].split(",")]
    found = f"{len(answer.lines)} x {name}, driver {version}"
    if cuda is None:
        return Check("gpu", "warning", f"{found}, but torch is a build without CUDA", "TORCH_BUILD=cuda make environment")
    problem = fits(version, capability, cuda)
    if problem:
        remedy = "build the image with an older CUDA (docs/containers.md), or ask for a newer driver"
        return Check("gpu", "FAILED", f"{found}: {problem}", remedy)
    return Check("gpu", "ok", f"{found}, for CUDA {cuda}")


def fits(version: str, capability: str, cuda: str) -> str:
    """Why a GPU cannot run programs of a CUDA version; empty where it can.

    Args:
        version: of the driver, as "580.65.06".
        capability: of the GPU, as "9.0".
        cuda: as "13.0".
    """
    first = FIRST_DRIVER.get(int(cuda.split(".")[0]))
    if first and int(version.split(".")[0]) < first:
        return f"CUDA {cuda} needs driver {first} or later"
    return too_old(capability, cuda)


def too_old(capability: str, cuda: str) -> str:
    """Whether torch's wheels hold no code for a GPU; see `fits`."""
    major, minor = (int(part) for part in cuda.split(".")[:2])
    oldest = FIRST_CAPABILITY.get((major, minor))
    if oldest and tuple(int(part) for part in capability.split(".")) < oldest:
        return f"compute capability {capability}, torch for CUDA {cuda} begins at {oldest[0]}.{oldest[1]}"
    return ""


def given_gpu(environment: Mapping[str, str], cuda: str | None, must: bool) -> Check:
    """Whether a job sees the GPU that Slurm gave it, asked through the driver's own library, without torch.

    Args:
        environment: variables of the job.
        cuda: as for `driver`.
        must: whether a GPU that is not seen stops the job; else it computes on the processor.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if "SLURM_JOB_ID" not in environment or visible in NO_DEVICES:
        return Check("gpu", "ok", "Slurm gave this job none")
    problem = _unusable(cuda)
    if not problem:
        return Check("gpu", "ok", f"seen (CUDA_VISIBLE_DEVICES={visible})")
    remedy = "on this node, `nvidia-smi` shows more; in a container, apptainer-args must hold --nv; site.yaml: gpu.unseen: warn goes on without"
    found = f"Slurm gave this job one (CUDA_VISIBLE_DEVICES={visible}), but {problem}"
    return Check("gpu", "FAILED" if must else "warning", found, remedy)


def _unusable(cuda: str | None) -> str:
    """Why the first GPU cannot be used; empty where it can."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"the driver's {LIBRARY} is not found"
    count, device, major, minor, version = (ctypes.c_int() for _ in range(5))
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the driver shows no device (cuInit: {status})"
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGet(ctypes.byref(device), 0)
    for number, value in zip(CAPABILITY_ATTRIBUTES, (major, minor), strict=True):
        library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    if cuda is None:
        return "torch is a build without CUDA"
    if version.value // 1000 < int(cuda.split(".")[0]):
        return f"the driver is for CUDA {version.value // 1000}.{version.value % 1000 // 10}, torch brings CUDA {cuda}"
    return too_old(f"{major.value}.{minor.value}", cuda)
