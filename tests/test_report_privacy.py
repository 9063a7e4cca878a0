"""What pages show of people: brains, never faces; pseudonyms where they are asked for; no folder, no header."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import report_fixture
from gyri.config.datasets import SyntheticDataset
from gyri.config.experiments import ReportSettings
from gyri.config.load import parse_config
from gyri.images import row_digests
from gyri.layout import Layout
from gyri.report import cases, run, run_index
from gyri.report.cases import cut
from gyri.report.privacy import FACELESS_MM, Names, deep, visible
from gyri.settings import report_settings
from gyri.synthetic import scan
from gyri.synthetic.anatomy import traits
from gyri.synthetic.people import Person, Visit
from gyri.synthetic.templates import load_template
from gyri.tables import read_table, write_table

SPACING = (4.0, 4.0, 4.0)
FACE = ("skin", "eye", "fat", "muscle")
"""What the synthetic cohort makes its invented faces of; bone is no face."""


@pytest.fixture(scope="module")
def head() -> tuple[scan.Scan, NDArray[np.bool_]]:
    """A synthetic scan with its invented head, and the voxels of the face."""
    painted: list[dict[str, NDArray[Any]]] = []
    paint = scan.paint_head
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "paint_head", lambda *given: painted.append(paint(*given)) or painted[-1])
        settings = SyntheticDataset(format="synthetic", spacing_mm=SPACING[0])
        person = Person("01", "F", "control", 0, "family-01", False, False, (Visit("", 60.0),))
        found = scan.make_scan(person, traits(person, settings), Visit("", 60.0), load_template(SPACING[0]), settings)
    face = np.sum([painted[0][name] for name in FACE], axis=0) > 0.5
    assert face.sum() > 3000
    assert not (face & (found.mask > 0)).any()
    return found, face


def drawn(found: scan.Scan, kind: str) -> NDArray[np.bool_]:
    """Voxels that a page would draw of a head with a brain mask, with labels of all of the brain, of one structure, or with neither."""
    image = found.images["T1w"].astype(np.float32)
    labels = {"tissue": found.tissue > 0, "hippocampus": np.isin(found.region, (1, 2))}.get(kind, np.zeros(image.shape, bool))
    return cases.visible(image, labels, found.mask if kind == "mask" else np.zeros(image.shape), SPACING)[0]


@pytest.mark.parametrize("kind", ["mask", "tissue", "hippocampus", "nothing"])
def test_no_voxel_of_a_face_is_drawn(head: tuple[scan.Scan, NDArray[np.bool_]], kind: str) -> None:
    found, face = head
    shown = drawn(found, kind)
    assert not (shown & face).any()
    assert (shown & (found.mask > 0)).sum() > {"mask": 0.99, "tissue": 0.99, "hippocampus": 0.02, "nothing": 0.2}[
        kind
    ] * found.mask.sum()


def test_without_the_mask_the_face_would_be_drawn(
    head: tuple[scan.Scan, NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "visible", lambda image, *_: (np.ones(image.shape, bool), ""))
    found, face = head
    assert (drawn(found, "nothing") & face).sum() == face.sum()


def test_a_prediction_unmasks_nothing(head: tuple[scan.Scan, NDArray[np.bool_]]) -> None:
    """A bad model may mark a face; what it marks is an outline, not a reason to show the voxels below."""
    found, face = head
    image, nothing = found.images["T1w"].astype(np.float32), np.zeros(found.mask.shape, int)
    with_face = cut(image, nothing, (face | (found.mask > 0)).astype(int), nothing > 0, found.mask > 0, SPACING)
    assert np.isfinite(with_face.image).sum() == found.mask.sum()


def test_depth_is_measured_from_air_and_from_the_border() -> None:
    ball = np.indices((60, 60, 60)) - 29.5
    radius = np.sqrt((ball**2).sum(0)) * 3
    image = np.where(radius < 80, 100.0, 1.0)
    shown = deep(image, (3.0, 3.0, 3.0))
    assert shown[radius < 37].all()
    assert not shown[radius > 41].any()
    assert not deep(np.ones((40, 40, 40)), (3.0, 3.0, 3.0)).any()
    fine, _ = visible(np.kron(image, np.ones((3, 3, 1))), np.zeros((180, 180, 60)), None, (1.0, 1.0, 3.0))
    assert not fine[np.kron(radius, np.ones((3, 3, 1))) > 41].any()


def test_small_images_cannot_hold_a_face() -> None:
    image = np.ones((48, 48, 40))
    assert max(image.shape) * 2 < FACELESS_MM
    assert visible(image, np.zeros(image.shape), None, (2.0, 2.0, 2.0))[0].all()


# ── whole pages ──
def pictures(layout: Layout, experiment: str) -> list[str]:
    """Everything in a page that was made of voxels."""
    page = layout.experiment(experiment, "report.html").read_text(encoding="utf-8")
    return re.findall(r'image/png;base64,([^"]+)', page) + re.findall(r'data-image="([^"]+)"', page)


def shuffled_faces(layout: Layout) -> None:
    """Give everybody another face: the values of the outer 16 mm of each head change places."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt

    path = layout.dataset("brains", "cohort.tsv")
    cohort, root = read_table(path, "cohort"), layout.root.parent / "raw"
    packed = np.load(layout.dataset("brains", "images.npy"))
    for index, row in cohort.iterrows():
        image = nibabel.load(root / row["image_t1w"])
        values = np.asarray(image.dataobj).copy()
        inside = binary_fill_holes(values > 0.2)
        labelled = np.asarray(nibabel.load(root / row["label"]).dataobj) > 0
        face = (values > 0.45) & ~labelled & inside & (distance_transform_edt(inside, sampling=2.0) < 16)
        values[face] = np.random.default_rng(0).permutation(values[face])
        nibabel.Nifti1Image(values, image.affine).to_filename(root / row["image_t1w"])
        cohort.loc[index, "sha256_file"] = row_digests({**row, "mask": ""}, root)[0]
        if index < len(packed):
            packed[index, 0] = values
    write_table(path, cohort, "cohort")
    np.save(layout.dataset("brains", "images.npy"), packed)


@pytest.fixture
def heads(tmp_path: Path) -> tuple[Layout, dict[str, Any]]:
    """Results of images that are large enough to hold a face."""
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, 6, (54, 60, 54), ("segmentation", "classification"))
    return layout, {item.experiment: item for item in settings}


def test_pages_do_not_depend_on_faces(heads: tuple[Layout, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    layout, settings = heads
    found = {}
    for state in ("before", "after"):
        for name, item in settings.items():
            run(item, layout)
            found[state, name] = pictures(layout, name)
            assert len(found[state, name]) > 5
        if state == "before":
            shuffled_faces(layout)
    for name in settings:
        assert found["before", name] == found["after", name]
    # the guard itself: with everything visible the other faces are seen
    monkeypatch.setattr(cases, "visible", lambda image, *_: (np.ones(image.shape, bool), ""))
    open_pages = {}
    for state in ("after", "again"):
        for name, item in settings.items():
            run(item, layout)
            open_pages[state, name] = pictures(layout, name)
        shuffled_faces(layout)
    assert all(open_pages["after", name] != open_pages["again", name] for name in settings)


def tables_in(page: str) -> str:
    """The text files that a page holds."""
    return "\n".join(base64.b64decode(text).decode() for text in re.findall(r"data:text/[^,\"]*;base64,([^\"]+)", page))


def test_hashed_ids_are_nowhere_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, 8, (10, 12, 10), ("segmentation", "classification"))
    audit = read_table(layout.dataset("brains", "audit.tsv"))
    audit.loc[audit["status"] == "warn", "detail"] = "looks like sub-004_ses-1_T1w.nii.gz of g004 (sub-004)"
    write_table(layout.dataset("brains", "audit.tsv"), audit)
    plain = written(layout, settings)
    first = written(layout, [item.model_copy(update={"hash_ids": True}) for item in settings])
    for name, text in first.items():
        assert not IDS.search(text), (name, IDS.search(text))
        assert IDS.search(plain[name]) or "/" not in name or name.endswith("json")
        if name.endswith("/report.json"):
            assert [part["id"] for part in json.loads(text)["missing"]] == [
                part["id"] for part in json.loads(plain[name])["missing"]
            ]
    again = settings[0].model_copy(update={"hash_ids": True, "id_seed": 1})
    second = written(layout, [again])["tissue/report.html"]
    shown = [
        set(re.findall(r"\bx[0-9a-f]{10}\b", text)) for text in (first["tissue/report.html"], second, plain["tissue/report.html"])
    ]
    assert len(shown[0]) > 5
    assert not shown[0] & shown[1]
    assert not shown[2]


IDS = re.compile(r"sub-00\d|\bg00\d|ses-1")


def written(layout: Layout, settings: list[ReportSettings]) -> dict[str, str]:
    """Every page with the text files inside it, and every twin."""
    for item in settings:
        run(item, layout)
    run_index(settings, layout, "Index")
    found = {}
    for path in [layout.root / "report.html", *(layout.experiment(item.experiment, "report.html") for item in settings)]:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(layout.root).as_posix()
        found[name] = text + tables_in(text)
        found[name.replace("html", "json")] = path.with_suffix(".json").read_text(encoding="utf-8")
    return found


def test_hash_ids_is_a_setting() -> None:
    dataset = {"format": "table", "path": "/data/t.tsv", "images": {"t1w": "image"}}
    experiment = {"dataset": "d", "task": "classification", "target": "sex", "architectures": {"conv5_fc3": {}}}
    content = {"seed": 7, "datasets": {"d": dataset}, "experiments": {"e": experiment}}
    assert report_settings(parse_config(content, Path("c.yaml")), "e").hash_ids is False
    hashed = report_settings(parse_config({**content, "report": {"hash_ids": True}}, Path("c.yaml")), "e")
    assert (hashed.hash_ids, hashed.id_seed) == (True, 7)


def test_names_are_found_alone_and_in_file_names() -> None:
    names = Names("0")
    rows = names.table(pd.DataFrame({"image_id": ["sub-01", "sub-01_ses-1", "7"], "age": [1, 2, 7]}))
    first, second, third = rows["image_id"]
    assert names.text("sub-01_ses-1_T1w.nii.gz is sub-01. Not sub-012, and 7 of 9") == (
        f"{second}_T1w.nii.gz is {first}. Not sub-012, and 7 of 9"
    )
    assert len({first, second, third, "7"}) == 4
    page = '<p class="sub-01" aria-label="of sub-01">&lt;sub-01&gt;</p><img src="data:image/png;base64,sub-01"><script>"sub-01"</script>'
    assert names.page(page) == page.replace("of sub-01", f"of {first}").replace("&lt;sub-01", f"&lt;{first}")


def test_folders_and_headers_are_not_shown(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    settings = report_fixture.make_results(layout.root, tasks=("segmentation",))[0]
    facts = json.loads(layout.dataset("brains", "dataset.json").read_text())
    path = layout.dataset("brains", "cohort.tsv")
    cohort = read_table(path, "cohort")
    for index, row in cohort.iterrows():
        image = nibabel.load(Path(facts["root"]) / row["image_t1w"])
        image.header["descrip"], image.header["db_name"] = "DOE JOHN 1950", "hospital-nr-77"
        nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header).to_filename(
            Path(facts["root"]) / row["image_t1w"]
        )
        cohort.loc[index, "sha256_file"] = row_digests({**row, "mask": ""}, Path(facts["root"]))[0]
    write_table(path, cohort, "cohort")
    audit = read_table(layout.dataset("brains", "audit.tsv"))
    audit.loc[audit["status"] == "warn", "detail"] = f"{facts['root']}/t1w/a.nii.gz and {layout.root.resolve()}/datasets differ"
    write_table(layout.dataset("brains", "audit.tsv"), audit)
    run(settings, layout)
    page = layout.experiment("tissue", "report.html").read_text(encoding="utf-8")
    assert "t1w/a.nii.gz and datasets differ" in page
    for text in (page, tables_in(page), layout.experiment("tissue", "report.json").read_text(encoding="utf-8")):
        assert not re.search(f"{re.escape(str(tmp_path))}|DOE|hospital-nr", text)
