"""What differs from cluster to cluster: account, partition, how a GPU is asked for, folders that jobs must see.

It stands in one short file, site.yaml, and reaches no result: changing it makes nothing run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gyri.config.base import Settings
from gyri.config.load import Config
from gyri.config.reading import read_yaml, validate
from gyri.config.training import Count, Positive
from gyri.errors import ConfigError, Problem

DEFAULT = Path("site.yaml")
VARIABLE = "GYRI_SITE"  # names another file
# what snakemake-executor-plugin-slurm 2.8.0 accepts as a type of GPU
GPU_TYPE = re.compile(r"^[A-Za-z0-9_.]+$")
# folders in which an image has files of its own: those of the machine would hide them
OF_THE_IMAGE = ("/", "/bin", "/etc", "/lib", "/lib64", "/opt", "/sbin", "/usr", "/var")
Name = Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]


class Gpu(Settings):
    """How jobs on networks ask for their GPU."""

    request: Literal["gres", "gpus", "none"] = "gres"
    """gres: `--gres=gpu:1`; gpus: `--gpus=1`; none: networks are trained on processors."""
    type: Name | None = None
    """Type of GPU, as in `--gres=gpu:<type>:1`; none: any."""
    constraint: Name | None = None
    """Feature of the nodes (`--constraint`), where the type's name cannot be asked for."""
    partition: Name | None = None
    """Partition of jobs on a GPU, where it is another one."""
    pack: Count = 1
    """Trainings of one model that share one Slurm job and its GPU."""
    unseen: Literal["stop", "warn"] = "stop"
    """What a job does that was given a GPU and sees none."""


class Site(Settings):
    """A cluster, as jobs need to know it."""

    account: Name | None = None
    """Account that jobs are charged to; none: Slurm's own default."""
    partition: Name | None = None
    """Partition of jobs; none: Slurm's own default."""
    longest_minutes: Count | None = None
    """Longest time that the partition grants a job, in minutes; none: as long as the rules ask."""
    time: Positive = 1.0
    """Multiplies the time that every rule asks for."""
    memory: Positive = 1.0
    """Multiplies the memory that every rule asks for."""
    gpu: Gpu = Gpu()
    bind: list[Name] = []
    """Folders that jobs must see in their containers; those of the datasets are added."""
    scratch: Name | None = None
    """Folder for temporary files, often one of the node's own: `$SLURM_TMPDIR`; none: /tmp."""

    def minutes(self, usual: int, attempt: int) -> int:
        """Time to ask for: more at each attempt, since the one before may have run out of it, and never more than is granted."""
        wanted = max(1, round(usual * self.time * attempt))
        return min(wanted, self.longest_minutes) if self.longest_minutes else wanted

    def memory_mb(self, usual: float, attempt: int) -> int:
        """Memory to ask for in MB: more at each attempt."""
        return max(1, round(usual * self.memory * attempt))

    def asks(self, network: bool) -> dict[str, str | int]:
        """What a job asks Slurm for beyond time and memory.

        Args:
            network: whether it trains or applies a network; baselines and tables need no GPU.

        Returns:
            Resources as the Slurm plugin calls them.
        """
        on_gpu = network and self.gpu.request != "none"
        found: dict[str, str | int | None] = {
            "slurm_account": self.account,
            "slurm_partition": (on_gpu and self.gpu.partition) or self.partition,
        }
        if on_gpu:
            found["constraint"] = self.gpu.constraint
            if self.gpu.request == "gres":
                found["gres"] = ":".join(["gpu", *([self.gpu.type] if self.gpu.type else []), "1"])
            else:
                found |= {"gpu": 1, "gpu_model": self.gpu.type}
        return {name: value for name, value in found.items() if value is not None}

    def scratch_folder(self) -> str | None:
        """The folder for temporary files on this machine; None where none is given, or its variables are not set here."""
        path = expanded(self.scratch or "$")
        return None if "$" in path else path


def expanded(path: str) -> str:
    """A path with ~ and environment variables filled in; variables that are not set stay."""
    return os.path.expandvars(Path(path).expanduser())


def site_file() -> Path:
    """The file in use: what the environment variable GYRI_SITE names, else site.yaml."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def load_site(path: Path | None = None) -> Site:
    """Read and check a site file.

    Args:
        path: the file; by default `site_file()`, and without a site.yaml the defaults.

    Returns:
        The site.

    Raises:
        ConfigError: with every problem found.
    """
    path = path or site_file()
    if path == DEFAULT and not path.is_file():
        return Site()
    content: Any = read_yaml(path)
    site = validate(Site, {} if content is None else content, str(path), "site.yaml")
    problems = _check(site, str(path))
    if problems:
        raise ConfigError(problems)
    return site


def _check(site: Site, file: str) -> list[Problem]:
    problems = []
    if site.gpu.pack > 1 and site.gpu.request != "gres":
        got = f"{site.gpu.pack} with `request: {site.gpu.request}`"
        # Snakemake adds up the whole numbers that packed jobs ask for: n of them would get n cards
        remedy = "take `request: gres`, or leave `pack` at 1"
        problems.append(Problem(f"{file}: gpu.pack", got, "`request: gres`, the only form in which jobs can share a card", remedy))
    if site.gpu.type and not GPU_TYPE.match(site.gpu.type):
        remedy = "leave `type` out, and name a feature of the nodes under `gpu.constraint` (`sinfo -o '%N %G %f'` lists both)"
        expected = "letters, digits, underscores and dots: Snakemake's Slurm plugin refuses any other"
        problems.append(Problem(f"{file}: gpu.type", f"`{site.gpu.type}`", expected, remedy))
    for folder in site.bind:
        path = expanded(folder)
        if not Path(path).is_absolute() or set(path) & set(",:$"):
            expected = "an absolute path without commas and colons, whose variables are set"
            problems.append(Problem(f"{file}: bind", f"`{folder}`", expected, "write the folder's whole path"))
        elif os.path.normpath(path) in OF_THE_IMAGE:
            expected = "a folder that images do not have themselves"
            problems.append(Problem(f"{file}: bind", f"`{folder}`", expected, "name the folder below it that jobs read"))
    return problems


def data_folders(config: Config) -> list[Path]:
    """Folders that hold the raw images and tables of a configuration."""
    found = []
    for dataset in config.datasets.values():
        path, table = getattr(dataset, "path", None), getattr(dataset, "table", None)
        if path:
            found.append(Path(path).parent if dataset.format == "table" else Path(path))
        found += [Path(file).parent for file in (table, dataset.split.file) if file]
    return found


def bound_folders(site: Site, config: Config, here: Path) -> list[Path]:
    """Folders outside of the working folder that jobs must see in their containers.

    Args:
        site: where further folders are named.
        config: where datasets lie.
        here: the working folder, which containers see without being told.

    Returns:
        Existing folders (and the site file where it lies elsewhere), none inside another, sorted.
    """
    wanted = [Path(expanded(folder)) for folder in site.bind] + data_folders(config)
    # `results` is often a link to a larger disk
    wanted += [here / "results", site_file().absolute()]
    wanted += [Path(folder) for folder in [site.scratch_folder()] if folder]
    wanted += [path.resolve() for path in wanted]
    seen = [here, here.resolve()]
    return outermost(path for path in wanted if path.exists() and str(path) not in OF_THE_IMAGE and not inside(path, seen))


def bind_variable(folders: Iterable[Path], before: str = "") -> str:
    """The value of APPTAINER_BIND: what stood there, and these folders, each once."""
    return ",".join(dict.fromkeys([*filter(None, before.split(",")), *map(str, folders)]))


def check_bind(site: Site, node: str) -> None:
    """Make sure that the folders under `bind` can be read on this machine: Apptainer would refuse the job without saying why.

    Raises:
        ConfigError: with every folder that cannot.
    """
    problems = []
    for folder in site.bind:
        path = Path(expanded(folder))
        if not os.access(path, os.R_OK | os.X_OK):
            got = f"not readable on {node}" if path.exists() else f"no such folder on {node}"
            remedy = "mend the path, or ask for a file system that all nodes see; or leave it out of `bind`"
            problems.append(Problem(f"{site_file()}: bind: {folder}", got, "a folder that every job can read", remedy))
    if problems:
        raise ConfigError(problems)


def outermost(folders: Iterable[Path]) -> list[Path]:
    """The folders that lie in none of the others, sorted."""
    found: list[Path] = []
    for folder in sorted(set(folders), key=lambda path: (len(path.parts), path)):
        if not inside(folder, found):
            found.append(folder)
    return sorted(found)


def inside(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path is one of the folders or lies in one of them."""
    return any(path.is_relative_to(folder) for folder in folders)
