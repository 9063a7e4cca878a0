"""Preflight: what programs answer is read rightly, and every failure names its remedy."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as slurm_plugin

from gyri import preflight
from gyri.errors import PreflightError
from gyri.preflight import containers, machine, slurm
from gyri.preflight import profile as profiles
from gyri.preflight.check import Answer, Check, ask
from gyri.site import Gpu, Site
from tiny import REPOSITORY, make_project

PARTITIONS = """\
PartitionName=cpu AllowAccounts=ALL Default=YES MaxTime=7-00:00:00 MaxNodes=UNLIMITED PreemptMode=OFF State=UP TotalNodes=3
PartitionName=gpu AllowAccounts=lab,other Default=NO MaxTime=1-00:00:00 PreemptMode=REQUEUE State=UP TotalNodes=2
PartitionName=scavenge AllowAccounts=ALL Default=NO MaxTime=02:00:00 PreemptMode=CANCEL State=UP TotalNodes=2
PartitionName=old AllowAccounts=ALL Default=NO MaxTime=UNLIMITED PreemptMode=OFF State=DOWN TotalNodes=1
"""
NODES = "cpu|64|(null)|3\ngpu|32+|gpu:a100:4(S:0-1),shard:8|1\ngpu|48|gpu:h100:2|1\nscavenge|32|gpu:4|2\nold|8|(null)|1\n"
ANSWERS = {
    "scontrol": Answer(True, PARTITIONS),
    "sinfo": Answer(True, NODES),
    "sacct": Answer(True, ""),
    "sacctmgr": Answer(True, "lab\nlab_gpu\n"),
    "squeue": Answer(True, ""),
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """A Slurm of which each program gives one answer; a test may change them."""
    given = dict(ANSWERS)

    def answer(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Answer:
        return given[command[0]]

    monkeypatch.setattr(slurm, "ask", answer)
    return given


def look(site: Site, threads: int = 2) -> dict[str, Check]:
    wanted = {"preprocess": threads, "train": 8, "predict": 2}
    return {check.name: check for check in slurm.look_at_slurm(site, wanted, Path("/work"))}


def test_a_sound_cluster_is_all_ok(answers: dict[str, Answer]) -> None:
    found = look(Site(account="lab", partition="cpu", gpu=Gpu(partition="gpu", type="h100")))
    assert {check.status for check in found.values()} == {"ok"}
    assert set(found) == {"slurm", "sacct", "account", "partition", "gpu.partition"}
    assert "cpu, 3 nodes" in found["partition"].found


@pytest.mark.parametrize(
    ("site", "name", "status", "said"),
    [
        (Site(account="lap"), "account", "FAILED", "did you mean `lab`"),
        (Site(partition="cpus", gpu=Gpu(request="none")), "partition", "FAILED", "did you mean `cpu`"),
        (Site(gpu=Gpu(partition="gpus")), "gpu.partition", "FAILED", "did you mean `gpu`"),
        (Site(partition="cpu"), "gpu.partition", "FAILED", "no node has a GPU"),
        (Site(gpu=Gpu(partition="gpu", type="a10")), "gpu.partition", "FAILED", "did you mean `a100`"),
        (Site(account="lab_gpu", gpu=Gpu(partition="gpu")), "gpu.partition", "FAILED", "only for the accounts"),
        (Site(partition="old", gpu=Gpu(request="none")), "partition", "FAILED", "it is DOWN"),
        (Site(gpu=Gpu(partition="scavenge")), "gpu.partition", "FAILED", "longest_minutes: 120"),
        (Site(longest_minutes=120, gpu=Gpu(partition="scavenge")), "gpu.partition", "warning", "cancelled, not started anew"),
        (Site(time=2, gpu=Gpu(partition="gpu")), "gpu.partition", "warning", "longest_minutes: 1440"),
    ],
)
def test_what_slurm_would_refuse_or_keep_waiting(answers: dict[str, Answer], site: Site, name: str, status: str, said: str) -> None:
    check = look(site)[name]
    assert check.status == status
    assert said in str(check)


def test_more_threads_than_any_node_has(answers: dict[str, Answer]) -> None:
    assert "nodes have 64 processors" in str(look(Site(gpu=Gpu(request="none")), threads=65)["partition"])
    assert look(Site(gpu=Gpu(partition="gpu", pack=6)))["gpu.partition"].status == "ok"
    packed = look(Site(gpu=Gpu(partition="gpu", pack=7)))["gpu.partition"]
    assert packed.status == "FAILED" and "nodes have 48 processors, a job wants 56" in packed.found


def test_a_slurm_that_does_not_answer_ends_the_questions(answers: dict[str, Answer]) -> None:
    answers["scontrol"] = Answer(False, "slurm_load_partitions: Unable to contact slurm controller (connect failure)")
    found = look(Site())
    assert list(found) == ["slurm"] and found["slurm"].status == "FAILED"
    assert "Unable to contact" in found["slurm"].found


def test_no_accounting_and_no_default_partition(answers: dict[str, Answer]) -> None:
    answers["sacct"] = Answer(False, "Slurm accounting storage is disabled")
    answers["sacctmgr"] = Answer(False, "You are not running a supported accounting_storage plugin")
    answers["scontrol"] = Answer(True, PARTITIONS.replace("Default=YES", "Default=NO"))
    found = look(Site(account="lab"))
    assert found["sacct"].status == "warning" and "slurm-status-command: squeue" in found["sacct"].remedy
    assert found["account"].status == "warning"
    assert found["partition"].status == "FAILED" and "take one of" in found["partition"].remedy


def test_jobs_of_an_earlier_call_are_told(answers: dict[str, Answer]) -> None:
    answers["squeue"] = Answer(True, "7|/work\n8|/elsewhere\n9|/work\n")
    check = look(Site())["earlier jobs"]
    assert check.status == "warning" and "7, 9" in check.found and "8" not in check.found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UNLIMITED", None),
        ("30", 30),
        ("30:00", 30),
        ("02:00:00", 120),
        ("1-00:00:00", 1440),
        ("2-12", 3600),
        ("1-02:30", 1590),
        ("?", None),
    ],
)
def test_times_as_slurm_writes_them(text: str, expected: int | None) -> None:
    assert slurm.minutes(text) == expected


def test_a_job_that_a_person_cancelled_is_seen_as_cancelled() -> None:
    answers = iter([({"7": "CANCELLED by 1000", "8": "RUNNING", "9": ""}, 0.1), (None, None)])

    async def ask_states(command: str, logger: object) -> tuple[dict[str, str] | None, float | None]:
        assert command == "sacct"
        return next(answers)

    plainly = slurm.plain_states(ask_states)
    assert asyncio.run(plainly("sacct", None)) == ({"7": "CANCELLED", "8": "RUNNING", "9": ""}, 0.1)
    assert asyncio.run(plainly("sacct", None)) == (None, None)
    # what the workflow puts in its place is there, and is what the plugin calls
    assert "await query_job_status(" in inspect.getsource(slurm_plugin.Executor.check_active_jobs)
    assert asyncio.iscoroutinefunction(slurm_plugin.query_job_status)


@pytest.mark.parametrize(
    ("version", "capability", "cuda", "said"),
    [
        ("580.65.06", "9.0", "13.0", ""),
        ("570.124.06", "9.0", "13.0", "needs driver 580"),
        ("535.104.05", "8.0", "12.8", ""),
        ("470.57.02", "8.0", "12.6", "needs driver 525"),
        ("580.65.06", "7.0", "13.0", "begins at 7.5"),
        ("550.54.15", "7.0", "12.8", "begins at 7.5"),
        ("550.54.15", "6.0", "12.6", ""),
        ("600.10", "12.0", "13.0", ""),
    ],
)
def test_drivers_and_generations_against_the_wheels(version: str, capability: str, cuda: str, said: str) -> None:
    problem = machine.fits(version, capability, cuda)
    assert said in problem and bool(said) == bool(problem)


def test_a_gpu_with_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert machine.driver("13.0").found == "none on this machine"
    (tmp_path / "version").write_text("NVRM version")
    monkeypatch.setattr(
        machine, "ask", lambda command: Answer(True, "NVIDIA H100, 570.124.06, 9.0\nNVIDIA H100, 570.124.06, 9.0\n")
    )
    check = machine.driver("13.0")
    assert check.status == "FAILED" and "2 x NVIDIA H100" in check.found and "580" in check.found
    assert machine.driver("12.8").status == "ok"
    assert machine.driver(None).status == "warning"
    monkeypatch.setattr(machine, "ask", lambda command: Answer(False, "Failed to initialize NVML: Driver/library version mismatch"))
    assert "version mismatch" in machine.driver("13.0").found


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")
def test_a_gpu_that_slurm_gave_but_nobody_sees() -> None:
    job = {"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0"}
    check = machine.given_gpu(job, "13.0", must=True)
    assert check.status == "FAILED" and "unseen: warn" in check.remedy
    assert machine.given_gpu(job, "13.0", must=False).status == "warning"
    assert machine.given_gpu({"SLURM_JOB_ID": "1"}, "13.0", must=True).status == "ok"
    assert machine.given_gpu({"CUDA_VISIBLE_DEVICES": "0"}, "13.0", must=True).status == "ok", "no job of Slurm"


class Driver:
    """The driver's library, as far as it is asked."""

    def __init__(self, status: int = 0, devices: int = 1, version: int = 13000, capability: tuple[int, int] = (9, 0)):
        self.status, self.devices, self.version = status, devices, version
        self.attributes = dict(zip(machine.CAPABILITY_ATTRIBUTES, capability, strict=True))

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: object) -> int:
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version: object) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGet(self, device: object, number: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: object, attribute: int, device: object) -> int:
        value._obj.value = self.attributes[attribute]
        return 0


@pytest.mark.parametrize(
    ("driver", "cuda", "said"),
    [
        (Driver(), "13.0", ""),
        (Driver(version=12080), "12.6", ""),
        (Driver(version=12080), "13.0", "for CUDA 12.8, torch brings CUDA 13.0"),
        (Driver(capability=(7, 0)), "13.0", "begins at 7.5"),
        (Driver(status=100), "13.0", "cuInit: 100"),
        (Driver(devices=0), "13.0", "no device"),
        (Driver(), None, "build without CUDA"),
    ],
)
def test_what_the_driver_itself_says(monkeypatch: pytest.MonkeyPatch, driver: Driver, cuda: str | None, said: str) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: driver)
    check = machine.given_gpu({"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0"}, cuda, must=True)
    assert check.status == ("FAILED" if said else "ok") and said in check.found


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("model", "site", "said"),
    [
        ("unet", "", "Jobs cannot run here"),
        ("unet", "gpu: {unseen: warn}\n", "no such file"),
        ("majority", "", "no such file"),
    ],
)
def test_a_job_on_a_network_looks_before_it_reads_anything(tmp_path: Path, model: str, site: str, said: str) -> None:
    """Without the GPU that Slurm gave it, a job stops first of all; else it goes on to miss its inputs."""
    (tmp_path / "site.yaml").write_text(site)
    names = ["--dataset", "brains", "--experiment", "tissue", "--model", model, "--fold", "0"]
    command = [sys.executable, "-m", "gyri", "train", "--config", str(REPOSITORY / "config.yaml"), *names]
    variables = {
        "PYTHONPATH": str(REPOSITORY / "workflow"),
        "SLURM_JOB_ID": "7",
        "CUDA_VISIBLE_DEVICES": "0",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and said in done.stderr
    assert ("preflight: " in done.stderr) == (model == "unet"), "the line that says what is wrong"
    assert done.stderr.startswith("job: slurm 7 on ")


@pytest.mark.parametrize(("free", "status"), [(100, "ok"), (5, "warning"), (0.5, "FAILED")])
def test_room_on_a_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, status: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free * machine.GIGABYTE))
    check = machine.disk("results", tmp_path / "not" / "there" / "yet")
    assert check.status == status and str(tmp_path) in check.found


def test_shared_memory_and_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64 << 20, 0, 0))
    assert machine.shared_memory().status == "warning"
    assert machine.cores({"train": 1}).status == "ok"
    assert "train (4096)" in machine.cores({"train": 4096, "predict": 1}).found


def test_a_program_that_hangs_or_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gyri.preflight.check.SECONDS", 0.2)
    assert ask(["sleep", "5"]).complaint == "sleep: no answer within 0 s"
    assert "not found" in ask(["gyri-no-such-program"]).complaint
    assert ask(["sh", "-c", "echo $GYRI_ASKED"], {"GYRI_ASKED": "yes"}).lines == ["yes"]
    assert ask(["sh", "-c", "echo no >&2; exit 3"]) == Answer(False, "no\n")


def test_images_that_link_to_where_jobs_do_not_look(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.nii").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.nii").symlink_to(tmp_path / "store" / "a.nii")
    check = containers.linked_elsewhere([tmp_path / "data" / "a.nii"], [tmp_path / "data"])
    assert check is not None and check.status == "FAILED" and str(tmp_path / "store") in check.found
    assert containers.linked_elsewhere([tmp_path / "data" / "a.nii"], [tmp_path]) is None


def test_the_profile_of_the_repository_and_what_may_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    assert {check.status for check in profiles.look_at_profile(REPOSITORY)} == {"ok"}
    assert profiles.apptainer_options(REPOSITORY) == ["--nv"]

    def of(change: Callable[[], object]) -> list[Check]:
        shutil.rmtree(tmp_path / "slurm", ignore_errors=True)
        shutil.copytree(REPOSITORY / "slurm", tmp_path / "slurm")
        change()
        return [check for check in profiles.look_at_profile(tmp_path) if check.status != "ok"]

    assert of(lambda: None) == []
    (beside,) = of(lambda: (tmp_path / "slurm" / "slurm").touch())
    assert beside.status == "warning" and "also holds slurm" in beside.found
    (gone,) = of(lambda: (tmp_path / "slurm" / "config.yaml").unlink())
    assert gone.status == "FAILED"
    (other,) = of(lambda: (tmp_path / "slurm" / "config.yaml").write_text("executor: local\n"))
    assert other.status == "FAILED"
    (tmp_path / "profiles" / "default").mkdir(parents=True)
    (tmp_path / "profiles" / "default" / "config.yaml").touch()
    assert [check.status for check in of(lambda: None)] == ["warning"]
    monkeypatch.setitem(profiles.WRITTEN_FOR, "gyri-no-such-package", "1.0")
    assert "not installed" in " ".join(map(str, of(lambda: None)))


def test_failures_stop_and_warnings_do_not() -> None:
    preflight.refuse([Check("a", "ok", "fine"), Check("b", "warning", "careful", "look")])
    with pytest.raises(PreflightError) as caught:
        preflight.refuse([Check("a", "FAILED", "broken", "mend it"), Check("b", "FAILED", "gone", "bring it")])
    assert "mend it" in str(caught.value) and "bring it" in str(caught.value)


def test_the_command_prints_one_line_per_check_and_says_whether_jobs_can_run(tmp_path: Path) -> None:
    """Without Slurm and containers: only what jobs on this machine need."""
    project = make_project(tmp_path / "project")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gyri", "preflight", *arguments]
        environment = {"PATH": str(tools), "PYTHONPATH": "workflow"}
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    good = run()
    assert good.returncode == 0, good.stdout + good.stderr
    assert "no sbatch on this machine" in good.stdout and "0 FAILED" in good.stdout
    shutil.rmtree(project / "data")
    bad = run()
    assert bad.returncode == 1 and "FAILED" in bad.stdout and str(project / "data") in bad.stdout
    assert "Traceback" not in bad.stdout + bad.stderr
    assert run("--node").returncode == 0
