"""The embedded cohort: bytes that repeat, a valid BIDS dataset, invertible anatomy, causes that do what they say."""

from __future__ import annotations

import csv
import json
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gyri.config.datasets import MsdDataset, ReadSettings, SyntheticDataset
from gyri.errors import ConfigError
from gyri.io import sha256_file
from gyri.layout import Layout
from gyri.synthetic import effects, run
from gyri.synthetic.anatomy import draw_pose, in_template, rates, rotation, traits, velocity
from gyri.synthetic.fields import FIELD_GRID, carry, flow_field, random_field, steps
from gyri.synthetic.grids import Grid, image_grid
from gyri.synthetic.people import Person, Visit, people
from gyri.synthetic.regions import REGIONS
from gyri.synthetic.scan import Scan, make_scan
from gyri.synthetic.templates import Template, load_template

ROOT_FILES = {"dataset_description.json", "participants.tsv", "participants.json", "README.md"}
IMAGE = re.compile(r"sub-[0-9]+/(ses-[0-9]+/)?anat/sub-[0-9]+(_ses-[0-9]+)?_(T1w|T2w)\.(nii\.gz|json)")
LABEL = re.compile(r"sub-[0-9]+/(ses-[0-9]+/)?anat/sub-[0-9]+(_ses-[0-9]+)?_(desc-(tissue|region)_dseg|desc-brain_mask)\.nii\.gz")


def settings(**given: Any) -> SyntheticDataset:
    return SyntheticDataset(format="synthetic", **given)


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(6.0)


def person(**given: Any) -> Person:
    base = Person("01", "F", "control", 0, "family-01", False, False, (Visit("", 60.0),))
    return replace(base, **given)


def scan(template: Template, who: Person, age: float = 60.0, **given: Any) -> Scan:
    chosen = settings(**given)
    return make_scan(who, traits(who, chosen), Visit("", age), template, chosen)


def volume(found: Scan, structure: str) -> int:
    return sum(int((found.region == value).sum()) for value, name in REGIONS.items() if name.startswith(structure))


def make(folder: Path, threads: int = 2, **given: Any) -> Path:
    run(ReadSettings(source=settings(**given)), Layout(folder), "brains", threads)
    return folder / "datasets" / "brains"


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


SMALL = {"participants": 7, "spacing_mm": 8.0, "twins": 0.3, "multi_session": 0.45, "contrasts": ["T1w", "T2w"]}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cohort"), **SMALL)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


# --- bytes ---


def test_same_bytes_whatever_the_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    assert contents(make(tmp_path, threads=1, **SMALL)) == contents(cohort)


def test_another_seed_gives_other_images_and_leaves_no_old_files(tmp_path: Path) -> None:
    first = contents(make(tmp_path, participants=6, spacing_mm=12.0, multi_session=1.0))
    second = contents(make(tmp_path, participants=4, spacing_mm=12.0, multi_session=0.0, seed=2))
    images = [name for name in second if name.endswith("T1w.nii.gz")]
    assert len(images) == 4
    assert not set(map(second.get, images)) & set(first.values())
    assert not any("ses-" in name or "partial" in name for name in second)


def test_manifest_lists_every_file(cohort: Path) -> None:
    listed = {row["path"]: (int(row["bytes"]), row["sha256"]) for row in rows(cohort / "synthetic.tsv")}
    root = cohort / "bids"
    assert listed == {name: ((root / name).stat().st_size, digest) for name, digest in contents(root).items()}


def test_no_manifest_is_left_when_making_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, participants=4, spacing_mm=24.0)
    monkeypatch.setattr("gyri.synthetic.make_scan", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path, participants=4, spacing_mm=24.0)
    assert not (folder / "synthetic.tsv").exists()
    assert [path.name for path in folder.iterdir()] == ["bids"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    reading = ReadSettings(source=MsdDataset(format="msd", path="x"))
    with pytest.raises(ConfigError, match=r"datasets\.brains\.format") as caught:
        run(reading, Layout(tmp_path), "brains", 1)
    assert all((problem.got, problem.expected, problem.remedy) for problem in caught.value.problems)


def test_templates_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert load_template(12.0).tissue.shape[0] == 3


# --- BIDS ---


def test_names_and_required_files_are_bids(cohort: Path) -> None:
    root = cohort / "bids"
    names = set(contents(root))
    assert names >= ROOT_FILES
    raw = {name for name in names if name.startswith("sub-") and not name.endswith(("_sessions.tsv", "_sessions.json"))}
    assert raw
    assert all(IMAGE.fullmatch(name) for name in raw)
    assert {name.replace(".nii.gz", ".json") for name in raw if name.endswith(".nii.gz")} <= raw
    prefix = "derivatives/labels/"
    labels = {name.removeprefix(prefix) for name in names if name.startswith(prefix + "sub-")}
    assert len(labels) == 3 * sum(name.endswith("T1w.nii.gz") for name in raw)
    assert all(LABEL.fullmatch(name) for name in labels)
    for name in raw | labels:
        parts = name.split("/")
        assert parts[-1].startswith("_".join(parts[:-2]) + "_")


def test_names_by_the_bids_validator(cohort: Path) -> None:
    validator = pytest.importorskip("bids_validator").BIDSValidator()
    root = cohort / "bids"
    names = [name for name in contents(root) if not name.startswith("derivatives/")]
    assert [name for name in names if not validator.is_bids("/" + name)] == []


def test_descriptions_and_tables(cohort: Path) -> None:
    root = cohort / "bids"
    raw = json.loads((root / "dataset_description.json").read_text())
    labels = json.loads((root / "derivatives/labels/dataset_description.json").read_text())
    assert (raw["DatasetType"], labels["DatasetType"]) == ("raw", "derivative")
    assert raw["BIDSVersion"] and raw["Name"] and labels["GeneratedBy"][0]["Name"]
    people_rows = rows(root / "participants.tsv")
    assert set(json.loads((root / "participants.json").read_text())) == set(people_rows[0])
    assert [row["participant_id"] for row in people_rows] == sorted(path.name for path in root.glob("sub-*"))
    several = {path.parent.name for path in root.glob("sub-*/*_sessions.tsv")}
    assert several == {path.parent.name for path in root.glob("sub-*/ses-*")} != set()
    for name in several:
        visits = rows(root / name / f"{name}_sessions.tsv")
        assert [row["session_id"] for row in visits] == sorted(path.name for path in (root / name).glob("ses-*"))
        ages = [float(row["age"]) for row in visits]
        assert ages == sorted(ages) and len(set(ages)) == len(ages)
        assert ages[0] == next(float(row["age"]) for row in people_rows if row["participant_id"] == name)
    for kind, count in (("tissue", 4), ("region", len(REGIONS) + 1)):
        table = rows(root / f"derivatives/labels/desc-{kind}_dseg.tsv")
        assert [int(row["index"]) for row in table] == list(range(count))


def test_images_and_labels_lie_on_one_grid_and_open(cohort: Path) -> None:
    root = cohort / "bids"
    for path in sorted(root.glob("sub-*/**/*_T1w.nii.gz"))[:3]:
        image = nib.load(path)
        assert image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        assert np.allclose(image.header.get_qform(), image.affine)
        assert np.allclose(image.header.get_zooms(), 8.0)
        for name in ("desc-tissue_dseg", "desc-region_dseg", "desc-brain_mask"):
            label = nib.load(str(root / "derivatives/labels" / path.relative_to(root)).replace("T1w", name))
            assert label.shape == image.shape
            assert np.array_equal(label.affine, image.affine)
            assert label.get_data_dtype() == np.uint8


def test_gyri_reads_it_with_families_as_groups(cohort: Path) -> None:
    from gyri import dataset
    from gyri.tables import read_table

    layout = Layout(cohort.parents[1])
    dataset.run(ReadSettings(source=settings(**SMALL)), layout, "brains", 1)
    table = read_table(layout.dataset("brains", "cohort.tsv"), "cohort")
    expected = people(settings(**SMALL))
    assert len(table) == sum(len(who.visits) for who in expected)
    assert set(zip(table["participant_id"], table["group"], strict=True)) >= {
        (who.name, who.family) for who in expected if who.twin
    }
    assert table["group"].nunique() == len({who.family for who in expected})
    ages = {(who.name, visit.age) for who in expected for visit in who.visits}
    assert set(zip(table["participant_id"], table["age"], strict=True)) == ages


# --- people ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_diagnosis_is_balanced_over_site_sex_and_age(seed: int) -> None:
    cohort = people(settings(seed=seed, sites=3))
    for trait in ("site", "sex"):
        counts = Counter((getattr(who, trait), who.diagnosis) for who in cohort)
        for value in {key[0] for key in counts}:
            assert counts[value, "control"] == counts[value, "patient"]
    ages = {kind: [who.visits[0].age for who in cohort if who.diagnosis == kind] for kind in ("control", "patient")}
    assert abs(np.mean(ages["control"]) - np.mean(ages["patient"])) < 0.5
    assert not any(who.atrophy for who in cohort if who.diagnosis == "control")
    patients = [who for who in cohort if who.diagnosis == "patient"]
    assert sum(not who.atrophy for who in patients) == round(effects.WITHOUT_ATROPHY * len(patients))


@pytest.mark.parametrize("count", [4, 5, 7, 60, 101])
def test_twins_and_return_visits_are_as_many_as_asked(count: int) -> None:
    cohort = people(settings(participants=count))
    assert len({who.label for who in cohort}) == count
    families = Counter(who.family for who in cohort)
    assert sum(size == 2 for size in families.values()) == round(count * 0.1 / 2)
    assert max(families.values()) <= 2
    assert sum(len(who.visits) > 1 for who in cohort) == round(count * 0.2)
    for who in cohort:
        assert who.twin == (families[who.family] == 2)
        twin = next((other for other in cohort if other.family == who.family and other is not who), None)
        if twin:
            assert (twin.sex, twin.site, twin.visits[0].age) == (who.sex, who.site, who.visits[0].age)
            assert twin.diagnosis != who.diagnosis


def test_order_of_names_says_nothing(template: Template) -> None:
    cohort = people(settings(participants=200))
    order = np.arange(200)
    for trait in (
        [who.visits[0].age for who in cohort],
        [who.diagnosis == "patient" for who in cohort],
        [who.site for who in cohort],
    ):
        assert abs(np.corrcoef(order, trait)[0, 1]) < 0.2


def test_effects_do_not_change_who_takes_part() -> None:
    assert people(settings()) == people(settings(age_effect=0, diagnosis_effect=0, sex_effect=0, site_effect=0))


def test_twins_share_most_of_their_anatomy() -> None:
    twins = [person(label=label, twin=True, family="family-01") for label in ("01", "02")]
    others = [person(label=label) for label in ("03", "04")]
    born = [traits(who, settings()).shape.ravel() for who in twins + others]
    assert np.corrcoef(born[0], born[1])[0, 1] > 0.75
    assert abs(np.corrcoef(born[0], born[2])[0, 1]) < 0.4
    assert abs(np.corrcoef(born[2], born[3])[0, 1]) < 0.4


# --- deformations ---


def smallest_determinant(move: Callable[[np.ndarray], np.ndarray]) -> float:
    """The smallest Jacobian determinant of a map at 80,000 places in the field of view, by differences over 0.01 mm."""
    grid = image_grid(4.8)
    points = grid.points().astype(np.float64) + np.random.default_rng(0).uniform(-2, 2, (3, *grid.shape))
    here = move(points)
    shifts = 0.01 * np.eye(3).reshape(3, 3, 1, 1, 1)
    matrix = np.stack([(move(points + shift) - here) / 0.01 for shift in shifts], axis=1)
    return float(np.linalg.det(np.moveaxis(matrix, (0, 1), (-2, -1))).min())


@pytest.mark.parametrize(("age", "sex", "strength", "label"), [
    (65.0, "F", 1.0, "01"), (0.0, "M", 1.0, "02"), (110.0, "F", 1.0, "03"), (110.0, "M", 3.0, "04"), (85.0, "F", -3.0, "05"),
])  # fmt: skip
def test_deformations_never_fold(template: Template, age: float, sex: str, strength: float, label: str) -> None:
    chosen = settings(age_effect=strength, diagnosis_effect=strength, sex_effect=strength)
    born = traits(person(label=label, sex=sex), chosen)
    field = velocity(born, rates(born, True, age, chosen), template.causes)
    pose = draw_pose(np.random.default_rng(0))
    assert smallest_determinant(lambda points: in_template(points, field, born.log_scale, pose)) > 0


def test_too_few_steps_fold_and_enough_do_not() -> None:
    field = random_field(8 * np.random.default_rng(0).standard_normal((3, *FIELD_GRID.shape)))
    assert steps(field) > 8
    assert smallest_determinant(lambda points: carry(points, field, 1)) < 0
    assert smallest_determinant(lambda points: carry(points, field)) > 0


def test_the_flow_backwards_is_the_inverse() -> None:
    field = random_field(2 * np.random.default_rng(1).standard_normal((3, *FIELD_GRID.shape)))
    points = image_grid(16.0).points()
    there = carry(points, field, 64)
    assert np.abs(there - points).max() > 3
    assert np.abs(carry(there, -field, 64) - points).max() < 0.1


def test_poisson_field_has_the_divergence_that_was_asked_for() -> None:
    # a smooth source whose divergence by hand (Fourier on one axis at a time, by np.gradient) must come back
    axes = [np.arange(size) * FIELD_GRID.spacing for size in FIELD_GRID.shape]
    lengths = [size * FIELD_GRID.spacing for size in FIELD_GRID.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    source = np.cos(2 * np.pi * x / lengths[0]) * np.sin(4 * np.pi * y / lengths[1]) + np.cos(2 * np.pi * z / lengths[2])
    field = flow_field(source.astype(np.float32))
    divergence = sum(np.gradient(field[axis], FIELD_GRID.spacing, axis=axis) for axis in range(3))
    inner = (slice(2, -2),) * 3
    assert np.abs(divergence - source)[inner].max() < 0.02


def test_random_shape_has_the_spread_of_the_documentation() -> None:
    fields = [random_field(np.random.default_rng(seed).standard_normal((3, *FIELD_GRID.shape))) for seed in range(12)]
    expected = np.sqrt(sum(spread**2 for spread in effects.RANDOM_SHAPE.values()))
    assert np.std(fields) == pytest.approx(expected, rel=0.1)


def test_rotation_is_proper() -> None:
    turn = rotation(np.array([0.1, -0.3, 0.2]))
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0])


# --- causes ---


@pytest.mark.parametrize("label", ["01", "02", "03"])
def test_age_widens_ventricles_and_thins_cortex(template: Template, label: str) -> None:
    young, old = (scan(template, person(label=label), age) for age in (45.0, 85.0))
    assert volume(old, "lateral ventricle") > 1.3 * volume(young, "lateral ventricle")
    assert old.shares[1].sum() < 0.95 * young.shares[1].sum()
    assert old.shares[0].sum() > young.shares[0].sum()


@pytest.mark.parametrize("label", ["01", "02", "03"])
def test_disease_shrinks_the_medial_temporal_lobe_and_nothing_else(template: Template, label: str) -> None:
    well, ill = (scan(template, person(label=label, atrophy=atrophy)) for atrophy in (False, True))
    assert volume(ill, "hippocampus") < 0.75 * volume(well, "hippocampus")
    assert volume(ill, "amygdala") < volume(well, "amygdala")
    for name in ("frontal cortex", "parietal cortex", "occipital cortex", "cerebellum"):
        assert volume(ill, name) == pytest.approx(volume(well, name), rel=0.03)


def test_sex_changes_size(template: Template) -> None:
    sizes = {sex: [scan(template, person(label=str(i), sex=sex)).shares.sum() for i in range(4)] for sex in "FM"}
    ratio = np.array(sizes["M"]) / np.array(sizes["F"])
    assert ratio == pytest.approx(np.exp(6 * effects.SEX_HALF_LOG_SIZE), rel=0.01)


def test_an_effect_of_zero_changes_nothing(template: Template) -> None:
    none = {"age_effect": 0, "diagnosis_effect": 0, "sex_effect": 0, "site_effect": 0}
    first = scan(template, person(), 45.0, **none)
    second = scan(template, person(sex="M", atrophy=True, site=1), 85.0, **none)
    assert np.array_equal(first.images["T1w"], second.images["T1w"])
    assert np.array_equal(first.region, second.region)


def test_site_changes_the_scan_but_not_the_labels(template: Template) -> None:
    here, there = (scan(template, person(site=site)) for site in (0, 1))
    assert np.array_equal(here.tissue, there.tissue)
    levels = [np.median(found.images["T1w"][found.tissue == 3]) for found in (here, there)]
    assert levels[1] > 1.4 * levels[0]
    sharpness = [np.abs(np.diff(found.images["T1w"].astype(float), axis=0)).mean() / level
                 for found, level in zip((here, there), levels, strict=True)]  # fmt: skip
    assert sharpness[1] < sharpness[0]


def test_visits_share_anatomy_but_not_noise(template: Template) -> None:
    chosen = settings()
    who = person()
    born = traits(who, chosen)
    first, second = (make_scan(who, born, Visit(label, 60.0), template, chosen) for label in ("01", "02"))
    stranger = scan(template, person(label="09"))
    assert not np.array_equal(first.images["T1w"], second.images["T1w"])
    distance = [np.abs(first.shares - other.shares).mean() for other in (second, stranger)]
    assert distance[0] < 0.6 * distance[1]


# --- what an image looks like ---


def test_regions_are_many_and_on_their_sides(template: Template) -> None:
    found = scan(template, person())
    x = image_grid(6.0).points()[0]
    assert len(REGIONS) >= 12
    assert {"hippocampus left", "hippocampus right"} <= set(REGIONS.values())
    for value, name in REGIONS.items():
        place = x[found.region == value].mean()
        assert place < -2 if name.endswith("left") else place > 2, name
    assert volume(found, "hippocampus") * 6**3 / 1000 == pytest.approx(9, abs=3)


def test_tissue_is_ordered_in_both_contrasts(template: Template) -> None:
    found = scan(template, person(), contrasts=["T1w", "T2w"])
    level = {name: [np.median(image[found.tissue == value]) for value in (1, 2, 3)] for name, image in found.images.items()}
    assert level["T1w"][0] < level["T1w"][1] < level["T1w"][2]
    assert level["T2w"][0] > level["T2w"][1] > level["T2w"][2]


def test_head_can_be_left_out(template: Template) -> None:
    whole, bare = (scan(template, person(), head=head) for head in (True, False))
    outside = whole.mask == 0
    bright = 0.5 * np.median(whole.images["T1w"][whole.tissue == 3])
    assert (whole.images["T1w"][outside] > bright).sum() > 1000
    # a voxel at the very edge of the brain may be half bright
    assert (bare.images["T1w"][outside] > bright).mean() < 0.002
    assert np.array_equal(whole.tissue, bare.tissue)


def test_faces_differ_between_people_and_stay_between_visits(template: Template) -> None:
    grid = image_grid(6.0).points()
    front = (grid[1] > 60) & (grid[2] < -10)
    faces = [scan(template, person(label=label), site_effect=0).images["T1w"][front].astype(float) for label in ("01", "02")]
    again = make_scan(person(), traits(person(), settings()), Visit("02", 60.0), template, settings(site_effect=0))
    same = np.corrcoef(faces[0], again.images["T1w"][front])[0, 1]
    assert same > np.corrcoef(*faces)[0, 1]


@pytest.mark.parametrize(("spacing", "shape"), [(3.0, (64, 80, 64)), (4.0, (48, 60, 48)), (7.0, (28, 35, 28))])
def test_other_voxel_sizes(spacing: float, shape: tuple[int, int, int]) -> None:
    found = scan(load_template(spacing), person(), spacing_mm=spacing)
    assert found.images["T1w"].shape == found.region.shape == shape
    assert 600 < (found.tissue == 2).sum() * spacing**3 / 1000 < 1300
    assert set(np.unique(found.region)) == {0, *REGIONS}


def test_grid_points_and_affine_agree() -> None:
    grid = Grid((-3.0, 2.0, 1.0), 1.5, (3, 4, 5))
    assert np.allclose(grid.points()[:, 2, 3, 4], (grid.affine @ [2, 3, 4, 1])[:3])
    assert np.allclose(grid.indices(grid.points())[:, 2, 3, 4], [2, 3, 4])


# --- difficulty ---


def diagnosis_auroc(template: Template, **given: Any) -> float:
    """Cross-validated AUROC of logistic regression on voxels, folds by family."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    chosen = settings(participants=40, multi_session=0, **given)
    cohort = people(chosen)
    images = [make_scan(who, traits(who, chosen), who.visits[0], template, chosen).images["T1w"].ravel() for who in cohort]
    flat = np.array(images, np.float64)
    flat /= np.percentile(flat, 95, axis=1, keepdims=True)
    target = np.array([who.diagnosis == "patient" for who in cohort])
    families = [who.family for who in cohort]
    found = []
    for train, test in StratifiedGroupKFold(4, shuffle=True, random_state=0).split(flat, target, families):
        products = (flat - flat[train].mean(0)) @ (flat[train] - flat[train].mean(0)).T
        products /= np.trace(products[train]) / len(train)
        model = LogisticRegression(C=100, max_iter=2000).fit(products[train], target[train])
        found.append(roc_auc_score(target[test], model.decision_function(products[test])))
    return float(np.mean(found))


def test_without_effects_diagnosis_cannot_be_told(template: Template) -> None:
    # 20 against 20: the standard error of one AUROC under chance is about 0.09
    blind = [diagnosis_auroc(template, diagnosis_effect=0.0, seed=seed) for seed in (1, 2, 3)]
    assert 0.35 < np.mean(blind) < 0.65, blind
    assert diagnosis_auroc(template, diagnosis_effect=2.0) > 0.75
