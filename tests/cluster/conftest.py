"""One cluster for the session, and one finished demo on it, which the tests copy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemons import Cluster, slurm_cluster
from project import REPOSITORY, Demo, Project, clone


def pytest_configure() -> None:
    # a test run that is told to end stops its daemons first, as after Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Real Slurm; its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="gyri-slurm-"))
    try:
        with slurm_cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def small_demo() -> dict[str, Any]:
    """The default configuration at a small size: two experiments, one fold, few participants and epochs; the networks stay as they are."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    brains = config["datasets"]["brains"]
    brains |= {"participants": 30, "spacing_mm": 8, "shape": [24, 32, 24], "run_folds": [0]}
    brains["audit"]["permutations"] = 99
    del config["experiments"]["diagnosis"]
    config["threads"] = dict.fromkeys(config["threads"], 1)
    for experiment in config["experiments"].values():
        experiment["training"] |= {"epochs": 2, "validate_every": 1}
        experiment["evaluation"] = {"resamples": 100}
    # long enough to be interrupted in its midst, with checkpoints to go on from
    tissue = config["experiments"]["tissue"]
    tissue["architectures"]["unet"]["seeds"] = 2
    tissue["training"] |= {"epochs": 30, "validate_every": 3, "checkpoint_seconds": 2.0}
    return config


@pytest.fixture(scope="session")
def project_with_images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Project:
    """A fresh clone whose images are built, or taken from the cache; that takes minutes the first time, so its progress is shown.

    Packages of Debian may have been mended since the images were locked, hence `--accept`: in this clone the lock follows them.
    """
    project = clone(tmp_path_factory.mktemp("cluster") / "demo", cluster, small_demo())
    command = [".venv/bin/python", "-m", "gyri", "containers", "build", "--accept"]
    environment = project.environment | {"PYTHONPATH": "workflow"}
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(flush=True)
        subprocess.run(command, cwd=project.folder, env=environment, check=True)
    return project


@pytest.fixture(scope="session")
def demo(project_with_images: Project) -> Demo:
    """The demo, from start to report."""
    project = project_with_images
    begin = time.monotonic()
    done = project.snakemake()
    return Demo(project, done, time.monotonic() - begin)


@pytest.fixture
def copy_of_demo(demo: Demo, tmp_path: Path) -> Callable[[], Project]:
    """Makes copies of the finished demo, which may be changed."""
    assert demo.done.returncode == 0, demo.done.stdout + demo.done.stderr

    def copy() -> Project:
        folder = shutil.copytree(demo.project.folder, tmp_path / "project", symlinks=True)
        return Project(folder, demo.project.cluster)

    return copy
