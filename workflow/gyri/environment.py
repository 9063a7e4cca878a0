"""The software a job runs in: which it is, which it should be, and what to say where the two differ.

A job runs either in one of the two container images or in the virtual environment. Both are named by their content, so that an
image that was built again from the same packages is the same environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, Literal

from gyri.errors import ContainerError, Problem, ProvenanceError
from gyri.io import canonical_json, read_json, sha256_text
from gyri.layout import CONTAINERS

CONTENT = Path("/opt/gyri/content.json")  # in an image: what it holds
BUILD = "python -m gyri containers build"
CAP_SYS_RESOURCE = 24  # number of the capability in /proc/self/status, see capabilities(7)
VERSIONS = ("python", "torch", "cuda", "cudnn")
CUDA_PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")
CUDNN_PACKAGES = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def identity(content: Mapping[str, Any]) -> str:
    """The name of an image's content: equal content, equal name, whenever it was built."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def image_name() -> str | None:
    """The image this process runs in, or None outside of them."""
    return os.environ.get("GYRI_IMAGE", "unnamed") if CONTENT.is_file() else None


def environment_fingerprint() -> str:
    """What this process runs in: the image's content, else the lock it was installed from, else the packages found."""
    if image_name() is not None:
        return f"image:{identity(read_json(CONTENT))[:16]}"
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    lock = Path(sys.prefix) / "gyri.lock"
    if lock.is_file():
        return "lock:" + sha256_text(python, lock.read_text(encoding="utf-8"))[:16]
    found = sorted({f"{item.metadata['Name']}=={item.version}" for item in distributions()})
    return "unlocked:" + sha256_text(python, *found)[:16]


def verify_environment(expected: str) -> None:
    """Refuse to run in another environment than the one the job was planned with.

    Args:
        expected: `environment_fingerprint` of then, or `image_fingerprint` of the rule's image.

    Raises:
        ProvenanceError: this process runs in another one.
    """
    found = environment_fingerprint()
    if found != expected:
        remedy = f"call snakemake again; where an image was changed meanwhile, `{BUILD}` first"
        raise ProvenanceError(Problem("environment of this job", found, f"{expected}, as planned", remedy))


def recipe_hash(name: str, arguments: Mapping[str, str], folder: Path = CONTAINERS) -> str:
    """What an image is built from: definitions, lock, and the base that was asked for.

    Args:
        name: of the image; `envs/<name>.lock` beside the folder holds its packages.
        arguments: `bootstrap` and `base`. (A mirror is where packages come from, not what they are: it does not count.)
        folder: where definitions lie.

    Raises:
        ContainerError: a definition or the lock is missing.
    """
    files = [folder / "base.def", folder / "image.def", folder.parent / "envs" / f"{name}.lock"]
    files.append(Path(__file__).parent / "containers" / "content.py")
    try:
        texts = [path.read_text(encoding="utf-8") for path in files]
    except OSError as error:
        remedy = "restore it (`git checkout`)"
        raise ContainerError(Problem(f"recipe of the image `{name}`", str(error), "a readable file", remedy)) from error
    return sha256_text(name, canonical_json(dict(arguments)), *texts)


def image_fingerprint(name: str, folder: Path = CONTAINERS) -> str:
    """The environment of jobs in an image, without looking into it: from `built.json`, which the build wrote.

    Args:
        name: of the image.
        folder: where `<name>.sif`, `built.json` and `lock.json` lie.

    Returns:
        What `environment_fingerprint` gives inside that image.

    Raises:
        ContainerError: the image is missing, changed since it was built, built from another recipe, or not the locked one.
    """
    image, where = folder / f"{name}.sif", f"containers/{name}.sif"
    notes = folder / "built.json"
    built = read_json(notes).get(name) if notes.is_file() else None
    if built is None or not image.is_file():
        raise ContainerError(Problem(where, "no such image", "an image built on this machine", f"`{BUILD} --name {name}`"))
    status = image.stat()
    if (status.st_size, status.st_mtime_ns) != (built["bytes"], built["mtime_ns"]):
        got = f"{status.st_size} bytes, changed since it was built"
        raise ContainerError(Problem(where, got, f"the {built['bytes']} bytes that were built", f"`{BUILD} --name {name}`"))
    recipe = recipe_hash(name, built["arguments"], folder)
    if recipe != built["recipe"]:
        got = f"built from recipe {built['recipe'][:12]}"
        expected = f"recipe {recipe[:12]}: containers/*.def or envs/{name}.lock changed since then"
        raise ContainerError(Problem(where, got, expected, f"`{BUILD} --name {name}`"))
    locked = read_json(folder / "lock.json").get(name, {}).get("identity")
    if built["identity"] != locked:
        expected = f"{str(locked)[:16]}, as containers/lock.json says"
        remedy = f"`{BUILD} --name {name}` shows the differences and what can be done"
        raise ContainerError(Problem(where, f"content {built['identity'][:16]}", expected, remedy))
    return f"image:{built['identity'][:16]}"


def environments(names: Iterable[str], containers: bool, folder: Path = CONTAINERS) -> dict[str, str]:
    """What the jobs of each image run in, for the planner.

    Args:
        names: of the images.
        containers: whether jobs run in them; else all run where this process does.
        folder: where the images lie.

    Raises:
        ContainerError: images that cannot be used, all of them.
    """
    if not containers:
        return dict.fromkeys(names, environment_fingerprint())
    found, problems = {}, list[Problem]()
    for name in names:
        try:
            found[name] = image_fingerprint(name, folder)
        except ContainerError as error:
            problems += error.problems
    if problems:
        raise ContainerError(problems)
    return found


def apptainer_environment(status: Path = Path("/proc/self/status")) -> dict[str, str]:
    """What Apptainer must be told on this machine: root without all capabilities has to run images in a user namespace.

    Args:
        status: what the kernel says of this process.

    Returns:
        Environment variables; none for an ordinary user or an ordinary root.
    """
    if os.geteuid() != 0:
        return {}
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = status.read_text(encoding="utf-8").splitlines()
        capabilities = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
        return {} if capabilities >> CAP_SYS_RESOURCE & 1 else {"APPTAINER_USERNS": "1"}
    return {}


def found_versions() -> dict[str, str]:
    """Versions of Python, torch, CUDA and cuDNN as the libraries themselves report them (imports torch if there is one).

    Returns:
        Version texts, as "9.20.0"; without those that are not there.
    """
    found = {"python": platform.python_version()}
    try:
        import torch
    except ModuleNotFoundError:
        return found
    found["torch"] = str(torch.__version__)
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        cudnn = torch.backends.cudnn.version()
        if cudnn:
            found["cudnn"] = cudnn_text(cudnn)
    return found


def cudnn_text(number: int) -> str:
    """A version number of cuDNN as text: 92000 is 9.20.0, 8902 is 8.9.2."""
    major, rest = divmod(number, 10000 if number >= 90000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def expected_versions() -> dict[str, str]:
    """Versions of Python, torch, CUDA and cuDNN that this environment is locked to.

    Returns:
        From `containers/lock.json` in an image, else from the lock the virtual environment was made from; empty without a lock.
    """
    name = image_name()
    if name is not None:
        path = CONTAINERS / "lock.json"
        content = read_json(path).get(name, {}).get("content", {}) if path.is_file() else {}
        return {key: content[key] for key in VERSIONS if content.get(key)}
    lock = Path(sys.prefix) / "gyri.lock"
    return _versions_of(dict(PINNED.findall(lock.read_text(encoding="utf-8")))) if lock.is_file() else {}


def check_versions(mode: Literal["strict", "warn"]) -> str:
    """Compare torch, CUDA and cuDNN as found with the lock; imports torch.

    Args:
        mode: strict: a difference stops the job; warn: it is printed.

    Returns:
        One line for the log.

    Raises:
        ProvenanceError: a difference, and the mode is strict.
    """
    found, expected = found_versions(), expected_versions()
    if not expected:
        return "versions were not compared: this environment was not made from a lock"
    problems = [
        Problem(f"version of {key}", found.get(key, "none"), f"{expected.get(key, 'none')}, as locked", _version_remedy())
        for key in VERSIONS
        # a lock of the virtual environment does not say which Python
        if found.get(key) != expected.get(key) and not (key == "python" and key not in expected)
    ]
    if problems and mode == "strict":
        raise ProvenanceError(problems)
    if problems:
        differences = "; ".join(f"{item.where}: found {item.got}, expected {item.expected}" for item in problems)
        return f"WARNING: versions differ from the lock, and `versions: warn` goes on: {differences}"
    return f"versions are as locked: {_listed(found)}"


def describe_job() -> list[str]:
    """Lines for the head of a job's log: where it runs, in which environment, with which versions. Imports nothing heavy."""
    job = os.environ.get("SLURM_JOB_ID")
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    fingerprint = environment_fingerprint()
    name = image_name()
    if name is not None:
        content = read_json(CONTENT)
        environment = f"image {name} {identity(content)[:12]}"
        versions = {key: content[key] for key in VERSIONS if content.get(key)}
    else:
        kind, _, digest = fingerprint.partition(":")
        environment = f"{Path(sys.prefix).name} {kind} {digest[:12]}"
        versions = {"python": platform.python_version(), **_versions_of(_installed())}
    where = f"slurm {job} on {node}" if job else f"local on {node}"
    return [f"job: {where}", f"environment: {environment}", f"versions: {_listed(versions)}"]


def _versions_of(packages: Mapping[str, str]) -> dict[str, str]:
    """Versions of torch, CUDA and cuDNN that a set of packages gives; the CUDA build of torch names its CUDA itself."""
    cuda = next((packages[name] for name in CUDA_PACKAGES if name in packages), None)
    cudnn = next((packages[name] for name in CUDNN_PACKAGES if name in packages), None)
    found = {}
    if torch := packages.get("torch"):
        local = f"+cu{''.join(cuda.split('.')[:2])}" if cuda and "+" not in torch else ""
        found["torch"] = torch + local
    if cuda:
        found["cuda"] = ".".join(cuda.split(".")[:2])
    if cudnn:
        found["cudnn"] = ".".join(cudnn.split(".")[:3])
    return found


def _installed() -> dict[str, str]:
    """Versions of the installed packages that `_versions_of` looks at."""
    found = {}
    for name in ("torch", *CUDA_PACKAGES, *CUDNN_PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _version_remedy() -> str:
    if image_name() is not None:
        return f"`{BUILD}`, or, where the difference is wanted, `versions: warn` in the configuration"
    return "`make environment`, or, where the difference is wanted, `versions: warn` in the configuration"


def _listed(versions: Mapping[str, str]) -> str:
    return " ".join(f"{key} {versions[key]}" for key in VERSIONS if key in versions)
