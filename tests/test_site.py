"""site.yaml: closed, checked, and no part of any result."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gyri.config.load import parse_config
from gyri.errors import ConfigError
from gyri.site import Gpu, Site, bind_variable, bound_folders, check_bind, data_folders, load_site, outermost

REPOSITORY = Path(__file__).resolve().parents[1]


def write(folder: Path, content: object) -> Path:
    file = folder / "site.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_the_shipped_file_says_every_key_and_its_default() -> None:
    content = yaml.safe_load((REPOSITORY / "site.yaml").read_text())
    assert load_site(REPOSITORY / "site.yaml") == Site()
    assert set(content) == set(Site.model_fields)
    assert set(content["gpu"]) == set(Gpu.model_fields)


def test_without_a_file_there_are_defaults_but_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GYRI_SITE", raising=False)
    assert load_site() == Site()
    monkeypatch.setenv("GYRI_SITE", str(tmp_path / "elsewhere.yaml"))
    with pytest.raises(ConfigError, match=r"elsewhere\.yaml"):
        load_site()
    (tmp_path / "elsewhere.yaml").write_text("account: lab\n")
    assert load_site().account == "lab"


def test_an_empty_file_and_a_numeric_account_are_fine(tmp_path: Path) -> None:
    assert load_site(write(tmp_path, "# nothing\n")) == Site()
    assert load_site(write(tmp_path, "account: 123456\n")).account == "123456"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"acount": "lab"}, "did you mean `account`"),
        ({"gpu": {"packs": 2}}, "did you mean `pack`"),
        ({"gpu": {"pack": 0}}, "gpu.pack"),
        ({"gpu": {"request": "gpus", "pack": 2}}, "take `request: gres`"),
        ({"gpu": {"request": "none", "pack": 2}}, "take `request: gres`"),
        ({"gpu": {"type": "a100-sxm4-80gb"}}, "gpu.constraint"),
        ({"bind": ["data"]}, "absolute path"),
        ({"bind": ["/data,/more"]}, "without commas"),
        ({"bind": ["$GYRI_NOT_SET/data"]}, "variables are set"),
        ({"bind": ["/opt/"]}, "do not have themselves"),
        ({"memory": -1}, "memory"),
        ("account: a\naccount: b\n", "twice"),
        ("- a list\n", "site.yaml"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(write(tmp_path, content))
    assert said in str(caught.value) and "site.yaml" in str(caught.value)


def test_what_jobs_ask_for() -> None:
    assert Site().asks(network=False) == {}
    assert Site().asks(network=True) == {"gres": "gpu:1"}
    site = Site(account="lab", partition="cpu", gpu=Gpu(type="a100", partition="gpu", constraint="hopper"))
    assert site.asks(network=False) == {"slurm_account": "lab", "slurm_partition": "cpu"}
    assert site.asks(network=True) == {
        "slurm_account": "lab",
        "slurm_partition": "gpu",
        "constraint": "hopper",
        "gres": "gpu:a100:1",
    }
    assert Site(gpu=Gpu(request="gpus", type="a100")).asks(network=True) == {"gpu": 1, "gpu_model": "a100"}
    assert Site(partition="cpu", gpu=Gpu(request="none", partition="gpu")).asks(network=True) == {"slurm_partition": "cpu"}


def test_later_attempts_ask_for_more_but_never_more_than_is_granted() -> None:
    site = Site(time=0.5, memory=2.0, longest_minutes=150)
    assert [site.minutes(120, attempt) for attempt in (1, 2, 3)] == [60, 120, 150]
    assert [site.memory_mb(1000, attempt) for attempt in (1, 2)] == [2000, 4000]
    assert Site().minutes(120, 3) == 360


def test_scratch_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYRI_SCRATCH", "/fast")
    monkeypatch.delenv("GYRI_NOT_SET", raising=False)
    assert Site().scratch_folder() is None
    assert Site(scratch="$GYRI_SCRATCH/me").scratch_folder() == "/fast/me"
    assert Site(scratch="$GYRI_NOT_SET").scratch_folder() is None, "a variable that only nodes have"


def test_folders_of_data_links_and_site_are_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, data, large = tmp_path / "project", tmp_path / "data", tmp_path / "large"
    for folder in (here, data / "images", large / "results", tmp_path / "more"):
        folder.mkdir(parents=True)
    (here / "results").symlink_to(large / "results")
    (data / "table.tsv").write_text("")
    monkeypatch.chdir(here)
    monkeypatch.setenv("GYRI_SITE", str(tmp_path / "my_site.yaml"))
    (tmp_path / "my_site.yaml").write_text("")
    content = {
        "datasets": {
            "one": {"format": "bids", "path": str(data / "images"), "images": {"t1w": {"suffix": "T1w"}}},
            "two": {"format": "table", "path": str(data / "table.tsv"), "images": {"t1w": "t1w"}},
            "inside": {"format": "msd", "path": str(here / "brains")},
        },
        "experiments": {"e": {"dataset": "one", "task": "segmentation", "architectures": {"unet": {}}}},
    }
    config = parse_config(content, here / "config.yaml")
    assert set(data_folders(config)) == {data / "images", data, here / "brains"}
    (tmp_path / "fast").mkdir()
    site = Site(bind=[str(tmp_path / "gone"), str(tmp_path / "more")], scratch=str(tmp_path / "fast"))
    assert set(bound_folders(site, config, here)) == {
        data,
        large / "results",
        tmp_path / "more",
        tmp_path / "fast",
        tmp_path / "my_site.yaml",
    }


def test_a_folder_inside_another_is_not_bound_twice() -> None:
    assert outermost([Path("/a/b"), Path("/a"), Path("/ab"), Path("/a")]) == [Path("/a"), Path("/ab")]
    assert bind_variable([Path("/a"), Path("/b")], "/b,/c:/d") == "/b,/c:/d,/a"
    assert bind_variable([], "") == ""


def test_a_folder_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    check_bind(Site(bind=[str(tmp_path)]), "node1")
    with pytest.raises(ConfigError) as caught:
        check_bind(Site(bind=["/mnt/not/there"]), "node1")
    text = str(caught.value)
    assert "/mnt/not/there" in text and "no such folder on node1" in text and "site.yaml" in text
