"""The demo at small size through real Slurm, in real images, from start to report."""

from __future__ import annotations

import json
import re
import time

from project import Demo, Project, planned

HEAD = re.compile(r"job: slurm (\d+) on (\S+)\nenvironment: image (\w+) (\w{12}).*\nversions: (.*)\n")


def label(project: Project, image: str) -> str:
    """The identity that an image file carries as a label."""
    done = project.call("apptainer", "inspect", "--json", "--labels", f"containers/{image}.sif")
    return str(json.loads(done.stdout)["data"]["attributes"]["labels"]["org.gyri.identity"])


def test_the_demo_runs_from_start_to_report(demo: Demo) -> None:
    assert demo.done.returncode == 0, demo.done.stdout + demo.done.stderr
    assert (demo.project.folder / "results" / "report.html").is_file()
    for experiment in ("tissue", "age"):
        assert (demo.project.folder / "results" / experiment / "report.html").is_file()


def test_slurm_ran_every_training_and_each_asked_for_what_it_needs(demo: Demo) -> None:
    jobs = demo.project.jobs()
    print(*jobs, sep="\n")
    assert jobs
    assert {job.state for job in jobs} == {"COMPLETED"}
    networks = [job for job in demo.project.jobs("train_model") if "unet" in job.comment or "conv5_fc3" in job.comment]
    assert len(networks) == 3
    assert all("gres/gpu=1" in job.asked for job in networks)
    assert not any("gres/gpu" in job.asked for job in jobs if "linear" in job.comment or "majority" in job.comment)


def test_the_logs_of_network_jobs_say_which_job_in_which_image_with_which_versions(demo: Demo) -> None:
    project = demo.project
    content = json.loads((project.folder / "containers" / "lock.json").read_text(encoding="utf-8"))["torch"]["content"]
    versions = " ".join(f"{name} {content[name]}" for name in ("python", "torch", "cuda", "cudnn"))
    known = {job.number: job for job in project.jobs()}
    for experiment, model, seed in (
        ("tissue", "unet", 0),
        ("tissue", "unet", 1),
        ("age", "conv5_fc3", 0),
    ):
        for stage in ("train", "predict"):
            head = HEAD.search(project.log(f"{experiment}/{model}/{stage}-fold-0-seed-{seed}.log"))
            assert head, f"{experiment}/{model}/{stage}"
            number, node, image, identity, found = head.groups()
            assert known[int(number)].state == "COMPLETED"
            assert node == project.cluster.node
            assert (image, identity) == ("torch", label(project, "torch")[:12])
            assert found == versions


def test_slurms_own_logs_are_kept_with_the_job_id(demo: Demo) -> None:
    kept = {int(path.stem) for path in (demo.project.folder / "results" / "logs" / "slurm").rglob("*.log")}
    assert kept == {job.number for job in demo.project.jobs()}


def test_the_report_says_that_images_were_used(demo: Demo) -> None:
    identity = label(demo.project, "torch")[:12]
    assert identity in (demo.project.folder / "results" / "tissue" / "report.html").read_text(encoding="utf-8")


def test_a_second_call_has_nothing_to_do_and_says_so_quickly(demo: Demo) -> None:
    begin = time.monotonic()
    done = demo.project.snakemake("-n")
    seconds = time.monotonic() - begin
    print(f"snakemake --profile slurm -n, nothing to do: {seconds:.1f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr, planned(done.stdout)
    assert seconds < 60, "a dry run reads no data and starts no job"
