"""The audit: every kind of broken image is told with its reason, all at once, and one person under several ids is found."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from gyri import audit
from gyri.audit.descriptors import Descriptor, block_means, describe, value_step
from gyri.audit.findings import chance_threshold, order_finding, same_person_pairs
from gyri.audit.order import natural_order, order_test, scan, windows
from gyri.audit.similarity import build, shared_steps
from gyri.config.datasets import Audit, AuditSettings, MsdDataset, NeededTarget, ReadSettings
from gyri.errors import DataError
from gyri.images import load, row_digests
from gyri.io import read_json, sha256_array, write_json
from gyri.layout import Layout
from gyri.seeds import generator
from gyri.tables import read_table, write_table

SHAPE = (12, 14, 10)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
Change = Callable[[Path, Path, Path], Any]


class World:
    """A small data set on disk, to be broken and then audited."""

    def __init__(self, folder: Path, count: int = 6):
        self.folder, self.layout = folder, Layout(folder / "results")
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {
            "name": "d", "root": str(folder), "channels": ["t1w"], "channel_files": {"t1w": ["t1w"]}, "mask": True,
            "labels": {"label": {"0": "background", "1": "left", "2": "right"}}, "identity": "known", "group_source": "participant",
        }  # fmt: skip
        for number in range(count):
            self.add(number)

    def add(self, number: int) -> None:
        """Write one image with its label and mask."""
        draw = np.random.default_rng(number)
        name = f"sub-{number:02d}"
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:6, 3:9, 3:7], labels[7:10, 3:9, 3:7] = 1, 2
        image = draw.normal(100, 10, SHAPE) + 40.0 * labels
        self.save(f"{name}.nii.gz", image.astype(np.float32))
        self.save(f"{name}_label.nii.gz", labels)
        self.save(f"{name}_mask.nii.gz", (labels > 0).astype(np.uint8))
        files = {"image_t1w": f"{name}.nii.gz", "label": f"{name}_label.nii.gz", "mask": f"{name}_mask.nii.gz"}
        person = {"image_id": name, "participant_id": name, "group": name, "session_id": "", "site": "A"}
        self.rows.append({**person, **files, "age": 50.0 + number, "diagnosis": ["cn", "ad"][number % 2]})

    def save(self, name: str, voxels: np.ndarray, affine: np.ndarray = AFFINE, **forms: Any) -> None:
        """Write a NIfTI file with sform and qform set."""
        image = nibabel.Nifti1Image(voxels, affine)
        image.set_sform(forms.get("sform", affine), forms.get("sform_code", 1))
        image.set_qform(forms.get("qform", affine), forms.get("qform_code", 1))
        nibabel.save(image, self.folder / name)

    def voxels(self, name: str) -> np.ndarray:
        """The voxels of a file, in memory."""
        return np.asanyarray(nibabel.load(self.folder / name).dataobj).copy()

    def audit(self, targets: list[NeededTarget] = (), **chosen: Any) -> dict[str, Any]:  # type: ignore[assignment]
        """Write the cohort as the data set stage would, and run the stage."""
        for row in self.rows:
            row["sha256_file"], row["sha256_labels"] = row_digests(row, self.folder)
            try:
                row["sha256_voxels"] = sha256_array(load(self.folder / row["image_t1w"])[0])
            except DataError:
                row["sha256_voxels"] = ""
        return self.run(list(targets), **chosen)

    def run(self, targets: list[NeededTarget], **chosen: Any) -> dict[str, Any]:
        """Run the stage on the rows as they are."""
        write_table(self.layout.dataset("d", "cohort.tsv"), pd.DataFrame(self.rows), "cohort")
        write_json(self.layout.dataset("d", "dataset.json"), self.facts)
        return audit.run(AuditSettings(audit=Audit(**chosen), targets=targets), self.layout, "d", 2)

    def checks(self, name: str = "audit.tsv") -> pd.DataFrame:
        """audit.tsv."""
        return read_table(self.layout.dataset("d", name))

    def finding(self, name: str, file: str = "audit.json") -> dict[str, Any]:
        """One finding of audit.json."""
        return next(each for each in read_json(self.layout.dataset("d", file))["findings"] if each["finding"] == name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def truncate(world: World) -> None:
    path = world.folder / "sub-02.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def truncate_inside(world: World) -> None:
    path = world.folder / "sub-02.nii.gz"
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    with gzip.open(path, "wb") as stream:
        stream.write(content[:-40])


def no_image(world: World) -> None:
    (world.folder / "sub-02.nii.gz").write_text("this is no image")


def one_nan(world: World) -> None:
    voxels = world.voxels("sub-02.nii.gz")
    voxels[-1, -1, -1] = np.nan
    world.save("sub-02.nii.gz", voxels)


def one_infinity(world: World) -> None:
    voxels = world.voxels("sub-02.nii.gz")
    voxels[0, 3, 2] = np.inf
    world.save("sub-02.nii.gz", voxels)


def constant(world: World) -> None:
    world.save("sub-02.nii.gz", np.full(SHAPE, 7, np.float32))


def four_dimensional(world: World) -> None:
    world.save("sub-02.nii.gz", np.stack([world.voxels("sub-02.nii.gz")] * 3, axis=-1))


def plane(world: World) -> None:
    for ending in ("", "_label", "_mask"):
        world.save(f"sub-02{ending}.nii.gz", world.voxels(f"sub-02{ending}.nii.gz")[:, :, 5:6])


def too_coarse(world: World) -> None:
    affine = np.diag([2.0, 2.0, 25.0, 1.0])
    for ending in ("", "_label", "_mask"):
        world.save(f"sub-02{ending}.nii.gz", world.voxels(f"sub-02{ending}.nii.gz"), affine)


def singular(world: World) -> None:
    affine = np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    world.save("sub-02.nii.gz", world.voxels("sub-02.nii.gz"), AFFINE, sform=affine)


def not_finite(world: World) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = np.nan
    world.save("sub-02.nii.gz", world.voxels("sub-02.nii.gz"), AFFINE, sform=affine)


def contradiction(world: World) -> None:
    world.save("sub-02.nii.gz", world.voxels("sub-02.nii.gz"), AFFINE, qform=np.diag([-2.0, 2, 2, 1]))


def label_shape(world: World) -> None:
    world.save("sub-02_label.nii.gz", world.voxels("sub-02_label.nii.gz")[:-1])


def label_affine(world: World) -> None:
    affine = AFFINE.copy()
    affine[1, 3] = 1.5
    world.save("sub-02_label.nii.gz", world.voxels("sub-02_label.nii.gz"), affine)


def label_undeclared(world: World) -> None:
    labels = world.voxels("sub-02_label.nii.gz")
    labels[0, 0, 0] = 9
    world.save("sub-02_label.nii.gz", labels)


def label_fraction(world: World) -> None:
    labels = world.voxels("sub-02_label.nii.gz").astype(np.float32)
    labels[0, 0, 0] = 0.5
    world.save("sub-02_label.nii.gz", labels)


def label_negative(world: World) -> None:
    world.save("sub-02_label.nii.gz", -world.voxels("sub-02_label.nii.gz").astype(np.int16))


def label_unreadable(world: World) -> None:
    (world.folder / "sub-02_label.nii.gz").write_bytes(b"nonsense")


def mask_empty(world: World) -> None:
    world.save("sub-02_mask.nii.gz", np.zeros(SHAPE, np.uint8))


def same_voxels(world: World) -> None:
    shutil.copy(world.folder / "sub-01.nii.gz", world.folder / "sub-02.nii.gz")


EXCLUDED = [
    (truncate, "readable", "sub-02.nii.gz: "),
    (truncate_inside, "readable", "before its last voxel"),
    (no_image, "readable", ""),
    (one_nan, "finite", "1 of 1680 voxels"),
    (one_infinity, "finite", "1 of 1680 voxels"),
    (constant, "constant", "is 7"),
    (four_dimensional, "readable", "3 channels or volumes"),
    (plane, "dimensions", "2D among 5 images that are 3D"),
    (too_coarse, "spacing", "25"),
    (singular, "affine", "singular"),
    (not_finite, "affine", "not finite"),
    (contradiction, "affine", "sform says RAS, qform says LAS"),
    (label_shape, "label", r"shape \(11, 14, 10\)"),
    (label_affine, "label", "0.75 voxels away"),
    (label_undeclared, "label", "outside the declared 0, 1, 2: 9"),
    (label_fraction, "label", "no integers: 0.5"),
    (label_negative, "label", "negative labels: -2, -1"),
    (label_unreadable, "label", ""),
    (mask_empty, "mask", "empty"),
    (same_voxels, "duplicate", "the same voxels as sub-01, which counts as another group"),
]


@pytest.mark.parametrize(("change", "check", "detail"), EXCLUDED, ids=[each[0].__name__ for each in EXCLUDED])
def test_a_broken_image_is_excluded_with_its_reason(world: World, change: Callable[[World], None], check: str, detail: str) -> None:
    change(world)
    facts = world.audit(on_exclude="continue")
    assert facts["exclude"] == 1
    excluded = read_table(world.layout.dataset("d", "excluded.tsv"), "excluded")
    assert excluded["image_id"].tolist() == ["sub-02"]
    assert excluded["severity"].tolist() == ["exclude"]
    found = world.checks().query("image_id == 'sub-02' and status == 'exclude' and check == @check")
    assert len(found) >= 1
    assert found["detail"].str.contains(detail).any()
    assert excluded["reason"].str.contains(detail).all()
    with pytest.raises(DataError, match="image sub-02") as caught:
        world.run([])  # on_exclude: stop
    problem = caught.value.problems[-1]
    assert problem.where and problem.got and problem.expected and "on_exclude: continue" in problem.remedy


def test_all_problems_at_once_and_the_failed_audit_can_be_read(world: World) -> None:
    world.add(6)
    world.add(7)
    for change in (one_nan, label_undeclared):
        change(world)
    shutil.copy(world.folder / "sub-04.nii.gz", world.folder / "sub-05.nii.gz")
    world.save("sub-06_label.nii.gz", np.full(SHAPE, 0.25, np.float32))
    targets = [
        NeededTarget(experiment="e", task="regression", column="aeg"),
        NeededTarget(experiment="f", task="segmentation", column="label_region"),
    ]
    with pytest.raises(DataError) as caught:
        world.audit(targets)
    text = str(caught.value)
    for part in ("sub-02", "NaN", "9", "sub-05", "sub-06", "did you mean `age`", "experiments.f.target", "audit-failed.tsv"):
        assert part in text
    failed = world.checks("audit-failed.tsv")
    assert set(failed.query("status == 'exclude'")["image_id"]) == {"sub-02", "sub-05", "sub-06"}
    assert len(read_json(world.layout.dataset("d", "audit-failed.json"))["problems"]) == len(caught.value.problems)
    assert not world.layout.dataset("d", "audit.tsv").exists()
    world.run([], on_exclude="continue")
    assert not world.layout.dataset("d", "audit-failed.tsv").exists()
    assert not world.layout.dataset("d", "audit-failed.json").exists()


def test_a_sound_data_set_passes(world: World) -> None:
    facts = world.audit()
    assert (facts["pass"], facts["warn"], facts["exclude"]) == (6, 0, 0)
    assert set(facts["findings"].values()) == {"pass"}
    assert set(world.checks()["image_id"]) == {row["image_id"] for row in world.rows}
    assert len(read_table(world.layout.dataset("d", "excluded.tsv"), "excluded")) == 0


def test_warnings_and_notes(world: World) -> None:
    flipped = np.diag([-2.0, 2, 2, 1])
    for ending in ("", "_label", "_mask"):
        world.save(f"sub-01{ending}.nii.gz", world.voxels(f"sub-01{ending}.nii.gz"), flipped)
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    for ending in ("", "_label", "_mask"):
        world.save(f"sub-02{ending}.nii.gz", world.voxels(f"sub-02{ending}.nii.gz"), tilt @ AFFINE)
    world.save("sub-03_label.nii.gz", np.zeros(SHAPE, np.uint8))
    world.save("sub-04.nii.gz", world.voxels("sub-04.nii.gz"), AFFINE, sform_code=0, qform_code=0)
    shifted = AFFINE.copy()
    shifted[0, 3] = 30
    world.save("sub-05.nii.gz", world.voxels("sub-05.nii.gz"), AFFINE, qform=shifted, qform_code=2)
    for row in world.rows:
        if row["image_id"] == "sub-04":
            row["label"] = row["mask"] = ""
    world.facts["labels"]["label"]["3"] = "never"
    world.audit([NeededTarget(experiment="s", task="segmentation", column="label")])
    checks = world.checks().set_index("image_id")
    assert checks.loc["sub-01"].query("check == 'orientation'")["status"].tolist() == ["pass"]
    assert "LAS" in checks.loc["sub-01"].query("check == 'orientation'")["detail"].iloc[0]
    assert "oblique by 17" in " ".join(checks.loc["sub-02"]["detail"])
    assert "background only" in " ".join(checks.loc["sub-03"]["detail"])
    assert "left and right are unknown" in " ".join(checks.loc["sub-04"]["detail"])
    assert "left out of experiment s" in " ".join(checks.loc["sub-04"]["detail"])
    assert "15.0 voxels apart" in " ".join(checks.loc["sub-05"]["detail"])
    assert world.finding("orientation")["status"] == "warn"
    assert "3 (never)" in world.finding("labels.label")["detail"]


def test_a_changed_file_stops_even_when_going_on_is_wanted(world: World) -> None:
    world.audit()
    world.save("sub-03.nii.gz", world.voxels("sub-03.nii.gz") + 1)
    (world.folder / "sub-04_label.nii.gz").unlink()
    with pytest.raises(DataError, match="changed since it was read") as caught:
        world.run([], on_exclude="continue")
    assert "sub-03" in str(caught.value) and "sub-04" in str(caught.value)


def test_no_usable_image_stops(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.save("sub-00.nii.gz", np.ones(SHAPE, np.float32))
    with pytest.raises(DataError, match="no image that can be used"):
        world.audit(on_exclude="continue")


def test_planes_and_pictures_are_audited_too(tmp_path: Path) -> None:
    from PIL import Image

    world = World(tmp_path)
    world.facts |= {"channels": ["red", "green", "blue"], "channel_files": {"photo": ["red", "green", "blue"]}}
    for number, row in enumerate(world.rows):
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(draw.integers(0, 3, (20, 30)).astype(np.uint8)).save(tmp_path / f"{number}_label.png")
        row.pop("image_t1w")
        row |= {"image_photo": f"{number}.png", "label": f"{number}_label.png", "mask": ""}
        row["sha256_file"], row["sha256_labels"] = row_digests(row, tmp_path)
        row["sha256_voxels"] = str(number)
    facts = world.run([])
    assert (facts["pass"], facts["exclude"]) == (6, 0)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "3.png")
    world.rows[3]["sha256_file"] = row_digests(world.rows[3], tmp_path)[0]
    assert world.run([], on_exclude="continue")["exclude"] == 1
    assert "channel 0, 1, 2" in " ".join(world.checks()["detail"])


def test_unknown_identity_is_said(world: World) -> None:
    world.facts["identity"] = "assumed"
    world.audit()
    assert world.finding("identity")["status"] == "warn"
    assert "each image counts as its own person" in read_json(world.layout.dataset("d", "audit.json"))["identity"]["statement"]


def test_duplicates_within_a_group_warn_and_contradictory_ones_all_leave(world: World) -> None:
    same_voxels(world)
    world.rows[2]["group"] = world.rows[1]["group"]
    assert world.audit()["exclude"] == 0
    assert "of the same group" in " ".join(world.checks()["detail"])
    world.rows[2]["group"] = "other"  # sub-01 is ad, sub-02 is cn
    facts = world.audit([NeededTarget(experiment="e", task="classification", column="diagnosis")], on_exclude="continue")
    assert facts["exclude"] == 2


TARGETS = [
    ({"task": "classification", "column": "diagnosys"}, {}, "did you mean `diagnosis`"),
    ({"task": "classification", "column": "diagnosis", "classes": ["cn", "AD"]}, {}, r"the values ad in `diagnosis` \(sub-01"),
    ({"task": "classification", "column": "diagnosis", "classes": ["cn", "ad", "mci"]}, {}, "no image of class mci"),
    ({"task": "classification", "column": "sex"}, {"sex": "F"}, "only F in `sex`"),
    ({"task": "regression", "column": "age"}, {"age": "old"}, "finite numbers"),
    ({"task": "regression", "column": "age"}, {"age": 60.0}, "one value only"),
    ({"task": "regression", "column": "age"}, {"age": np.nan}, "missing values only"),
    ({"task": "segmentation", "column": "label_labl"}, {}, "no label image of the data set"),
    ({"task": "segmentation", "column": "label"}, {"label": ""}, "which no image has"),
]


@pytest.mark.parametrize(("target", "cells", "message"), TARGETS)
def test_targets_that_cannot_be_used_stop(world: World, target: dict[str, Any], cells: dict[str, Any], message: str) -> None:
    world.rows = [{**row, **cells} for row in world.rows]
    with pytest.raises(DataError, match=message) as caught:
        world.audit([NeededTarget(experiment="e", **target)])
    assert "experiments.e." in caught.value.problems[0].where
    assert world.layout.dataset("d", "audit-failed.tsv").is_file()


def test_a_missing_value_warns_and_class_names_match_numbers(world: World) -> None:
    for index, row in enumerate(world.rows):
        row["grade"] = np.nan if index == 3 else index % 2
    world.audit([NeededTarget(experiment="e", task="classification", column="grade", classes=["0", "1"])])
    warned = world.checks().query("check == 'target'")
    assert warned["image_id"].tolist() == ["sub-03"]


def test_results_do_not_depend_on_threads(world: World) -> None:
    one_nan(world)
    world.audit(on_exclude="continue")
    files = [world.layout.dataset("d", name) for name in ("audit.tsv", "audit.json", "excluded.tsv")]
    first = [path.read_bytes() for path in files]
    audit.run(AuditSettings(audit=Audit(on_exclude="continue"), targets=[]), world.layout, "d", 1)
    assert [path.read_bytes() for path in files] == first


def test_near_duplicates_stop_until_acknowledged(world: World) -> None:
    copy = world.voxels("sub-01.nii.gz") * 3 + 5 + np.random.default_rng(0).normal(0, 0.5, SHAPE)
    world.save("sub-02.nii.gz", copy.astype(np.float32))
    with pytest.raises(DataError, match=r"acknowledge: \[near_duplicates\]") as caught:
        world.audit()
    assert "sub-01 and sub-02" in str(caught.value)
    assert world.finding("near_duplicates", "audit-failed.json")["pairs"][0][:2] == ["sub-01", "sub-02"]
    world.run([], acknowledge=["near_duplicates"])
    assert world.finding("near_duplicates")["status"] == "acknowledged"
    world.rows[2]["group"] = world.rows[1]["group"]
    world.audit()
    assert world.finding("near_duplicates")["status"] == "pass"


def test_block_means_keep_the_mean_and_agree_with_plain_averages() -> None:
    volume = np.random.default_rng(0).normal(size=(16, 8, 12))
    plain = volume.reshape(4, 4, 2, 4, 3, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(block_means(volume, (4, 2, 3)), plain)
    assert block_means(volume[:7, :5, :11], (8, 8, 8)).shape == (8, 8, 8)
    assert block_means(volume, (5, 3, 7)).mean() == pytest.approx(volume.mean())


def test_value_step_is_the_scale_of_the_scan() -> None:
    counts = np.random.default_rng(0).poisson(200, (30, 30, 30))
    scaled = (counts * 6.330650329589844).astype(np.float32)
    assert value_step(scaled) == pytest.approx(6.330650329589844, rel=1e-6)
    assert value_step(counts.astype(np.float32)) == 0  # whole numbers are a convention
    assert value_step((counts / counts.max()).astype(np.float32)) == 0  # ... and so is dividing by the largest
    assert value_step((counts * (255 / counts.max())).astype(np.float32)) == 0
    assert value_step(np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)) == 0
    assert value_step(np.zeros((5, 5, 5), np.float32)) == 0


def test_a_step_that_many_share_says_nothing() -> None:
    assert shared_steps([1.37, 2.0, 1.37 * (1 + 1e-7), 0.0]).tolist() == [0, -1, 0, -1]
    assert shared_steps([1.37] * 9).tolist() == [-1] * 9


def test_natural_order() -> None:
    names = ["scan_10", "scan_2", "scan_1", "10", "9", "sub-a"]
    assert [names[index] for index in natural_order(names)] == ["9", "10", "scan_1", "scan_2", "scan_10", "sub-a"]


def strangers(count: int, seed: int, drift: float = 0.0) -> list[Descriptor]:
    """Descriptors of images that share nothing, apart from a slow drift along their order."""
    draw = np.random.default_rng(seed)
    path = drift * np.cumsum(draw.normal(size=(count, 20)), axis=0) / np.sqrt(8)
    summaries = draw.normal(size=(count, 20)) + path
    return [Descriptor(each.astype(np.float32), draw.normal(size=64).astype(np.float32), 0.0) for each in summaries]


def paired(count: int, seed: int) -> list[Descriptor]:
    """Two images of each person, one after the other."""
    draw = np.random.default_rng(seed)
    found = []
    for one in strangers(count, seed):
        for _ in range(2):
            noisy = [part + 0.5 * draw.normal(size=part.shape).astype(np.float32) for part in (one.summary, one.blocks)]
            found.append(replace(one, summary=noisy[0], blocks=noisy[1]))
    return found


def order_status(descriptors: list[Descriptor], groups: list[str] | None = None, permutations: int = 199) -> tuple[str, Any]:
    """Status of the order test, and its result."""
    names = [f"i{index}" for index in range(len(descriptors))]
    similarity = build(descriptors, groups or names)
    runs = windows(names, similarity.groups)
    test = order_test(scan(similarity, runs), runs, permutations, generator("test"))
    return order_finding(test, "remedy").status, test


def test_order_test_finds_pairs_and_is_silent_about_strangers() -> None:
    pairs = paired(40, 0)
    assert order_status(pairs)[0] == "stop"
    assert order_status(pairs, [str(index // 2) for index in range(80)])[0] == "pass"
    shuffled = [pairs[index] for index in np.random.default_rng(1).permutation(80)]
    assert order_status(shuffled)[0] == "pass"


def test_order_test_is_not_misled_by_slow_drift() -> None:
    statuses = [order_status(strangers(100, seed, drift=0.5))[0] for seed in range(10)]
    assert statuses.count("stop") == 0
    # the very same images do differ along the order: far neighbours are less alike than near ones
    similarity = build(strangers(100, 0, drift=0.5), [str(index) for index in range(100)])
    plain = similarity.summary @ similarity.summary.T
    assert np.diagonal(plain, 1).mean() > np.diagonal(plain, 50).mean() + 0.1


def test_order_test_has_its_level() -> None:
    p = np.array([order_status(strangers(40, seed), permutations=99)[1].p for seed in range(60)])
    assert (p <= 0.05).mean() <= 0.15
    assert 0.35 < p.mean() < 0.65


def test_order_test_needs_enough_neighbours() -> None:
    assert order_status(strangers(15, 0))[1] is None


def test_same_person_lists_pairs_of_different_groups_only() -> None:
    descriptors = paired(30, 3)
    descriptors[4], descriptors[50] = (replace(descriptors[index], step=3.21) for index in (4, 50))
    names = [f"i{index}" for index in range(60)]

    def pairs(groups: list[str]) -> list[tuple[int, int, str, float]]:
        similarity = build(descriptors, groups)
        return same_person_pairs(scan(similarity, windows(names, similarity.groups)), similarity)

    found = pairs(names)
    assert (4, 50, "value step") in {pair[:3] for pair in found}
    content = [pair for pair in found if pair[2] == "content"]
    right = [pair for pair in content if pair[0] // 2 == pair[1] // 2]
    assert len(right) >= 20 and len(right) >= 0.9 * len(content)
    grouped = pairs([str(index // 2) for index in range(60)])
    assert (4, 50, "value step") in {pair[:3] for pair in grouped}
    assert len(grouped) <= 4


def test_chance_threshold_is_passed_by_about_one_pair() -> None:
    count = []
    for seed in range(10):
        similarity = build(strangers(60, seed), [str(index) for index in range(60)])
        scores = np.concatenate([content for _, content, _ in similarity.rows()])
        count.append((np.triu(scores, 1) > chance_threshold(similarity)).sum())
    assert np.mean(count) < 3


def test_describe_is_indifferent_to_the_grid_and_finite() -> None:
    draw = np.random.default_rng(0)
    sizes = set()
    for shape in ((1, 30, 20, 25), (1, 9, 40, 12), (1, 3, 3, 3)):
        found = describe(draw.normal(size=shape).astype(np.float32), np.ones(3), None, [1, 2])
        sizes.add((len(found.summary), len(found.blocks)))
        assert np.isfinite(found.blocks).all() and np.isfinite(found.summary[:-2]).all()
    assert len(sizes) == 1


@pytest.mark.real_data
def test_hippocampus_without_groups_stops_and_with_groups_or_shuffled_names_does_not(hippocampus: Path, tmp_path: Path) -> None:
    from gyri import dataset

    layout = Layout(tmp_path)
    settings = AuditSettings(audit=Audit(), targets=[NeededTarget(experiment="e", task="segmentation", column="label")])
    for name, group in (("volumes", None), ("persons", "(number + 1) // 2")):
        dataset.run(ReadSettings(source=MsdDataset(format="msd", path=str(hippocampus), group=group)), layout, name, 2)
    with pytest.raises(DataError, match="order_similarity") as caught:
        audit.run(settings, layout, "volumes", 2)
    assert len(caught.value.problems) == 1
    assert "datasets.volumes.group" in str(caught.value)
    acknowledged = AuditSettings(audit=Audit(acknowledge=["order_similarity"]), targets=settings.targets)
    assert audit.run(acknowledged, layout, "volumes", 2)["findings"]["order_similarity"] == "acknowledged"
    pairs = {each["finding"]: each for each in read_json(layout.dataset("volumes", "audit.json"))["findings"]}["same_person"]
    people = [[(int(name[-3:]) + 1) // 2 for name in pair[:2]] for pair in pairs["pairs"]]
    right = sum(first == second for first, second in people)
    assert right >= 0.9 * len(people)  # precision and recall as the audit states them
    assert right >= 0.8 * 72
    assert audit.run(settings, layout, "persons", 2)["findings"]["order_similarity"] == "pass"
    cohort = read_table(layout.dataset("volumes", "cohort.tsv"), "cohort")
    shuffled = cohort.assign(image_id=np.random.default_rng(0).permutation(cohort["image_id"]))
    write_table(layout.dataset("shuffled", "cohort.tsv"), shuffled, "cohort")
    write_json(layout.dataset("shuffled", "dataset.json"), read_json(layout.dataset("volumes", "dataset.json")))
    assert audit.run(settings, layout, "shuffled", 2)["findings"]["order_similarity"] == "pass"
