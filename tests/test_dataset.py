"""Datasets: every format to one row per image, and all that is wrong with them told at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gyri import dataset, images
from gyri.config.datasets import ReadSettings
from gyri.dataset.bids_names import ENTITIES, parse_name, same_value
from gyri.errors import DataError, GyriError, Problem
from gyri.io import read_json, sha256_array, sha256_file
from gyri.layout import Layout
from gyri.tables import read_table

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write_image(path: Path, seed: int = 0, shape: tuple[int, ...] = (4, 5, 6), labels: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    array = random.integers(0, 3, shape).astype(np.uint8) if labels else random.normal(100, 9, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def write_lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def run(folder: Path, threads: int = 2, **source: Any) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Run the stage; returns the cohort, the facts and what the stage returned."""
    layout = Layout(folder / "results")
    settings = ReadSettings.model_validate({"source": source})
    counts = dataset.run(settings, layout, "d", threads)
    return read_table(layout.dataset("d", "cohort.tsv"), "cohort"), read_json(layout.dataset("d", "dataset.json")), counts


def files(folder: Path, **source: Any) -> list[str]:
    found = dataset.sources(ReadSettings.model_validate({"source": source}), Layout(folder / "results"), "d")
    return [os.path.relpath(path, folder) for path in found]


def problems_of(folder: Path, **source: Any) -> list[Problem]:
    """The problems that planning tells; running tells the same."""
    settings, layout = ReadSettings.model_validate({"source": source}), Layout(folder / "results")
    with pytest.raises(GyriError) as planned:
        dataset.sources(settings, layout, "d")
    with pytest.raises(GyriError) as ran:
        dataset.run(settings, layout, "d", 1)
    assert planned.value.problems == ran.value.problems
    assert not layout.dataset("d", "cohort.tsv").exists()
    return planned.value.problems


# -- Decathlon ----------------------------------------------------------------------------------------------------------


def make_msd(folder: Path, numbers: tuple[int, ...] = (1, 2, 3, 4), **changes: Any) -> dict[str, Any]:
    for number in numbers:
        write_image(folder / "imagesTr" / f"case_{number:03d}.nii.gz", number)
        write_image(folder / "labelsTr" / f"case_{number:03d}.nii.gz", number, labels=True)
    content = {
        "name": "Cases",
        "licence": "CC0",
        "modality": {"0": "T1-weighted MRI"},
        "labels": {"0": "background", "1": "front", "2": "back"},
        "numTraining": len(numbers),
        "training": [{"image": f"./imagesTr/case_{n:03d}.nii.gz", "label": f"./labelsTr/case_{n:03d}.nii.gz"} for n in numbers],
        "test": ["./imagesTs/case_900.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps({**content, **changes}))
    return {"format": "msd", "path": str(folder)}


def test_msd(tmp_path: Path) -> None:
    source = make_msd(tmp_path)
    cohort, facts, counts = run(tmp_path, **source)
    assert list(cohort["image_id"]) == [f"case_{number:03d}" for number in (1, 2, 3, 4)]
    assert list(cohort["participant_id"]) == list(cohort["group"]) == list(cohort["image_id"])
    assert facts["identity"] == "assumed" and facts["unlabelled_test_images"] == 1 and facts["licence"] == "CC0"
    assert facts["channels"] == ["t1weightedmri"] and facts["channel_files"] == {"t1weightedmri": ["t1weightedmri"]}
    assert facts["labels"] == {"label": {"0": "background", "1": "front", "2": "back"}}
    assert facts["root"] == str(tmp_path) and facts["format"] == "msd" and facts["mask"] is False
    assert counts == {"images": 4, "participants": 4, "groups": 4, "unreadable": 0}
    row = cohort.iloc[0]
    assert row["sha256_file"] == sha256_file(tmp_path / row["image_t1weightedmri"])
    assert row["sha256_labels"] == sha256_file(tmp_path / row["label"])
    assert row["sha256_voxels"] == sha256_array(images.load(tmp_path / row["image_t1weightedmri"])[0])
    images.verify_row(row, tmp_path)
    assert images.load_row(row, facts)[0].shape == (1, 4, 5, 6)
    assert len(files(tmp_path, **source)) == 9 and "dataset.json" in files(tmp_path, **source)


def test_msd_groups_by_expression_are_the_participants(tmp_path: Path) -> None:
    cohort, facts, _ = run(tmp_path, **make_msd(tmp_path), group="(number + 1) // 2")
    assert list(cohort["group"]) == list(cohort["participant_id"]) == ["1", "1", "2", "2"]
    assert facts["identity"] == "known" and facts["group_source"] == "expression (number + 1) // 2"


def test_msd_table_and_newer_labels(tmp_path: Path) -> None:
    source = make_msd(tmp_path, labels={"background": 0, "front": 1, "back": 2}, modality={"0": "FLAIR", "1": "T1w"})
    for number in (1, 2, 3, 4):
        write_image(tmp_path / "imagesTr" / f"case_{number:03d}.nii.gz", number, (4, 5, 6, 2))
    people = ["image_id\tparticipant_id\tage\tdiagnosis", *(f"case_{n:03d}\tp{(n + 1) // 2}\t{50 + n}\tn/a" for n in (1, 2, 3, 4))]
    write_lines(tmp_path / "people.tsv", *people)
    cohort, facts, _ = run(tmp_path, **source, table=str(tmp_path / "people.tsv"))
    assert list(cohort["group"]) == ["p1", "p1", "p2", "p2"] and list(cohort["age"]) == [51, 52, 53, 54]
    assert cohort["diagnosis"].isna().all()
    assert facts["channels"] == ["flair", "t1w"] and list(images.channel_columns(cohort.columns)) == ["image_image"]
    assert facts["labels"]["label"] == {"0": "background", "1": "front", "2": "back"}
    assert images.load_row(cohort.iloc[0], facts)[0].shape == (2, 4, 5, 6)


def test_bytes_do_not_depend_on_threads_or_on_the_place_of_the_results(tmp_path: Path) -> None:
    source = make_msd(tmp_path / "data")
    found = []
    for index, threads in enumerate((1, 3)):
        run(tmp_path / str(index), threads, **source)
        folder = Layout(tmp_path / str(index) / "results").dataset("d")
        found.append([(folder / name).read_bytes() for name in ("cohort.tsv", "dataset.json")])
    assert found[0] == found[1]


def test_unreadable_images_do_not_stop_the_stage(tmp_path: Path) -> None:
    source = make_msd(tmp_path)
    broken = tmp_path / "imagesTr" / "case_002.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    cohort, _, counts = run(tmp_path, **source)
    assert list(cohort["sha256_voxels"] == "") == [False, True, False, False] and counts["unreadable"] == 1
    assert cohort["sha256_file"][1] == sha256_file(broken)


def test_the_same_voxels_in_another_container_have_the_same_hash(tmp_path: Path) -> None:
    source = make_msd(tmp_path, (1, 2))
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "imagesTr" / "case_001.nii.gz")
    nib.save(nib.Nifti2Image(array.astype(np.float64), AFFINE), tmp_path / "imagesTr" / "case_002.nii.gz")
    cohort, _, _ = run(tmp_path, **source)
    assert cohort["sha256_voxels"].nunique() == 1 and cohort["sha256_file"].nunique() == 2


@pytest.mark.real_data
def test_hippocampus(hippocampus: Path, tmp_path: Path) -> None:
    source = {"format": "msd", "path": str(hippocampus), "group": "(number + 1) // 2"}
    cohort, facts, counts = run(tmp_path, **source)
    assert counts == {"images": 210, "participants": 138, "groups": 138, "unreadable": 0}
    assert facts["labels"]["label"] == {"0": "background", "1": "Anterior", "2": "Posterior"}
    assert cohort["sha256_file"].nunique() == 210
    assert cohort.loc[cohort["image_id"] == "hippocampus_004", "group"].item() == "2"
    assert len(dataset.sources(ReadSettings.model_validate({"source": source}), Layout(tmp_path), "d")) == 421


# -- BIDS ---------------------------------------------------------------------------------------------------------------

SEGMENTATION = {"suffix": "dseg", "desc": "tissue"}


def make_bids(root: Path, labels: bool = True) -> dict[str, Any]:
    """Three participants; the second has two sessions."""
    scans = {"sub-01": [""], "sub-02": ["ses-1", "ses-2"], "sub-03": [""]}
    for number, (name, session) in enumerate((who, when) for who in scans for when in scans[who]):
        stem = f"{name}_{session}" if session else name
        write_image(root / name / session / "anat" / f"{stem}_T1w.nii.gz", number)
        if labels:
            path = root / "derivatives" / "seg" / name / session / "anat" / f"{stem}_desc-tissue_dseg.nii.gz"
            write_image(path, number, labels=True)
    write_lines(
        root / "participants.tsv", "participant_id\tage\tfamily\tsite", "01\t50\tx\tA", "sub-02\t60\tn/a\tB", "sub-03\t70\tx\tA"
    )
    write_lines(root / "sub-02" / "sub-02_sessions.tsv", "session_id\tage\tscore", "ses-1\t61\t1", "ses-2\tn/a\t2")
    (root / "participants.json").write_text(json.dumps({"site": {"Levels": {"A": "here"}}}))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Three", "License": "CC0", "BIDSVersion": "1.8.0"}))
    if labels:
        write_lines(root / "derivatives" / "seg" / "desc-tissue_dseg.tsv", "index\tname", "0\tbackground", "1\tgrey", "2\twhite")
    return {"format": "bids", "path": str(root)}


def test_bids_joins_tables_and_derivatives(tmp_path: Path) -> None:
    source = make_bids(tmp_path) | {"labels": {"label": SEGMENTATION}}
    cohort, facts, _ = run(tmp_path, **source)
    assert list(cohort["image_id"]) == ["sub-01", "sub-02_ses-1", "sub-02_ses-2", "sub-03"]
    assert list(cohort["participant_id"]) == list(cohort["group"]) == ["sub-01", "sub-02", "sub-02", "sub-03"]
    assert list(cohort["session_id"]) == ["", "ses-1", "ses-2", ""]
    # a value of the session goes before one of the participant, a missing one does not
    assert list(cohort["age"]) == [50, 61, 60, 70]
    assert cohort["score"].isna().tolist() == [True, False, False, True]
    assert list(cohort["site"]) == ["A", "B", "B", "A"]
    assert cohort["label"][1] == "derivatives/seg/sub-02/ses-1/anat/sub-02_ses-1_desc-tissue_dseg.nii.gz"
    assert facts["labels"] == {"label": {"0": "background", "1": "grey", "2": "white"}}
    assert facts["levels"] == {"site": {"A": "here"}} and facts["name"] == "Three" and facts["identity"] == "known"
    listed = files(tmp_path, **source)
    assert {"participants.tsv", "sub-02/sub-02_sessions.tsv", "derivatives/seg/desc-tissue_dseg.tsv"} <= set(listed)
    assert len([name for name in listed if name.endswith(".nii.gz")]) == 8


def test_bids_group_by_column(tmp_path: Path) -> None:
    cohort, facts, _ = run(tmp_path, **make_bids(tmp_path), group="family")
    assert list(cohort["group"]) == ["x", "sub-02", "sub-02", "x"] and facts["group_source"] == "column family"


def test_a_family_never_takes_in_a_participant_of_the_same_name(tmp_path: Path) -> None:
    source = make_bids(tmp_path)
    write_lines(tmp_path / "participants.tsv", "participant_id\tfamily", "sub-01\tsub-02", "sub-02\tn/a", "sub-03\tsub-02")
    cohort, _, _ = run(tmp_path, **source, group="family")
    assert cohort.set_index("image_id")["group"].to_dict() == {
        "sub-01": "sub-02",
        "sub-02_ses-1": "participant sub-02",
        "sub-02_ses-2": "participant sub-02",
        "sub-03": "sub-02",
    }


def test_bids_derivative_as_the_dataset_itself(tmp_path: Path) -> None:
    make_bids(tmp_path)
    source = {"format": "bids", "path": str(tmp_path / "derivatives" / "seg"), "images": {"seg": SEGMENTATION}}
    cohort, _, _ = run(tmp_path, **source)
    assert list(cohort["age"]) == [50, 60, 60, 70]  # from the participants.tsv of the dataset it was derived from
    assert cohort["image_seg"][0] == "sub-01/anat/sub-01_desc-tissue_dseg.nii.gz"


def test_bids_images_of_a_derivative_are_found_from_the_raw_root(tmp_path: Path) -> None:
    source = make_bids(tmp_path, labels=False)
    for name in ("01", "03"):
        write_image(tmp_path / f"derivatives/prep/sub-{name}/anat/sub-{name}_space-MNI_desc-preproc_T1w.nii.gz")
        write_image(tmp_path / f"derivatives/prep/sub-{name}/anat/sub-{name}_space-MNI_desc-brain_mask.nii.gz", labels=True)
    source |= {"images": {"t1w": {"suffix": "T1w", "desc": "preproc"}}, "mask": {"suffix": "mask", "desc": "brain"}}
    cohort, facts, _ = run(tmp_path, **source)
    assert list(cohort["image_id"]) == ["sub-01", "sub-03"] and facts["mask"] is True
    assert cohort["mask"][1].endswith("sub-03_space-MNI_desc-brain_mask.nii.gz")


def test_bids_runs_become_images_of_their_own(tmp_path: Path) -> None:
    source = make_bids(tmp_path) | {"labels": {"label": SEGMENTATION}}
    for run_number in (1, 2):
        write_image(tmp_path / f"sub-04/anat/sub-04_run-{run_number:02d}_T1w.nii.gz", 10 + run_number)
        name = f"sub-04_run-{run_number}_desc-tissue_dseg.nii.gz"
        write_image(tmp_path / "derivatives/seg/sub-04/anat" / name, labels=True)
    write_lines(tmp_path / "participants.tsv", "participant_id", "sub-01", "sub-02", "sub-03", "sub-04")
    cohort, _, _ = run(tmp_path, **source)
    rows = cohort[cohort["participant_id"] == "sub-04"]
    assert list(rows["image_id"]) == ["sub-04_run-01", "sub-04_run-02"]
    assert rows["label"].str.contains(r"run-[12]_desc").all() and rows["label"].nunique() == 2
    # asking for one run leaves one image
    chosen, _, _ = run(tmp_path, **source | {"images": {"t1w": {"suffix": "T1w", "run": "2"}}, "labels": {}})
    assert list(chosen["image_id"]) == ["sub-04"]


def test_bids_entities_that_differ_must_be_selected(tmp_path: Path) -> None:
    source = make_bids(tmp_path, labels=False)
    write_image(tmp_path / "sub-01/anat/sub-01_acq-fast_T1w.nii.gz", 9)
    (problem,) = problems_of(tmp_path, **source)
    assert "sub-01_acq-fast_T1w" in problem.got and "`acq:`" in problem.remedy and "fast, none" in problem.remedy
    for value, name in (("none", "sub-01/anat/sub-01_T1w.nii.gz"), ("fast", "sub-01/anat/sub-01_acq-fast_T1w.nii.gz")):
        cohort, _, _ = run(tmp_path, **source | {"images": {"t1w": {"suffix": "T1w", "acq": value}}})
        assert cohort["image_t1w"][0] == name


def test_bids_label_tables_that_disagree(tmp_path: Path) -> None:
    source = make_bids(tmp_path) | {"labels": {"label": SEGMENTATION}}
    write_lines(tmp_path / "derivatives/seg/sub-01/anat/sub-01_desc-tissue_dseg.tsv", "index\tname", "1\tbone", "x\tfat")
    problems = problems_of(tmp_path, **source)
    assert ["1: bone" in problems[0].got, "x: fat" in problems[1].got, len(problems)] == [True, True, 2]
    # names given in the configuration stand above them
    _, facts, _ = run(tmp_path, **source | {"label_values": {"label": {1: "grey", 0: "nothing", 2: "white"}}})
    assert facts["labels"]["label"] == {"0": "nothing", "1": "grey", "2": "white"}


def test_bids_second_channel_may_be_missing(tmp_path: Path) -> None:
    source = make_bids(tmp_path, labels=False)
    write_image(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz", 9)
    cohort, facts, _ = run(tmp_path, **source | {"images": {"t1w": {"suffix": "T1w"}, "t2w": {"suffix": "T2w"}}})
    assert list(cohort["image_t2w"] != "") == [True, False, False, False] and facts["channels"] == ["t1w", "t2w"]
    assert (images.load_row(cohort.iloc[1], facts)[0][1] == 0).all()


def test_bids_names() -> None:
    assert parse_name("sub-01_ses-a_run-02_T1w.nii.gz") == {
        "sub": "01", "ses": "a", "run": "02", "suffix": "T1w", "extension": ".nii.gz"
    }  # fmt: skip
    assert parse_name("desc-tissue_dseg.tsv") == {"desc": "tissue", "suffix": "dseg", "extension": ".tsv"}
    assert parse_name("participants.tsv") == {"suffix": "participants", "extension": ".tsv"}
    assert parse_name("not a name.nii.gz") is None and parse_name("sub-01.nii") is None
    assert same_value("run", "01", "1") and same_value("ses", "ses-1", "1") and not same_value("ses", "01", "1")


def test_bids_as_ancpbids_reads_it(tmp_path: Path) -> None:
    ancpbids = pytest.importorskip("ancpbids")
    make_bids(tmp_path, labels=False)
    found = ancpbids.load_dataset(str(tmp_path)).query(suffix="T1w", extension=".nii.gz", return_type="object")
    cohort, _, _ = run(tmp_path, format="bids", path=str(tmp_path))
    entities = {(item.get_entities()["sub"], item.get_entities().get("ses")) for item in found}
    ours = {(row.participant_id[4:], row.session_id[4:] or None) for row in cohort.itertuples()}
    assert {(str(sub), ses and str(ses)) for sub, ses in entities} == ours


# -- table --------------------------------------------------------------------------------------------------------------


def make_table(folder: Path, name: str = "images.tsv") -> dict[str, Any]:
    mark = "," if name.endswith(".csv") else "\t"
    rows = [["image_id", "participant_id", "image", "age", "group", "diagnosis"]]
    for number in range(4):
        write_image(folder / f"scans/{number}.nii.gz", number)
        rows.append([f"i{number}", f"p{number // 2}", f"scans/{number}.nii.gz", f"{40 + number}", "ab"[number % 2], "NA"])
    write_lines(folder / name, *(mark.join(row) for row in rows))
    return {"format": "table", "path": str(folder / name)}


@pytest.mark.parametrize("name", ["images.tsv", "images.csv"])
def test_table(tmp_path: Path, name: str) -> None:
    cohort, facts, _ = run(tmp_path, **make_table(tmp_path, name))
    assert list(cohort["image_id"]) == ["i0", "i1", "i2", "i3"] and list(cohort["group"]) == ["p0", "p0", "p1", "p1"]
    assert list(cohort["age"]) == [40, 41, 42, 43] and facts["root"] == str(tmp_path) and facts["identity"] == "known"
    # the user's own column `group` is kept under another name; NA in a column of words is a word
    assert list(cohort["table_group"]) == ["a", "b", "a", "b"] and facts["renamed_columns"] == {"group": "table_group"}
    assert list(cohort["diagnosis"]) == ["NA"] * 4


def test_table_that_excel_wrote(tmp_path: Path) -> None:
    source = make_table(tmp_path, "images.csv")
    path = tmp_path / "images.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b",41,", b",NaN,").replace(b"\n", b"\r\n"))
    cohort, _, _ = run(tmp_path, **source)
    assert cohort["age"].isna().tolist() == [False, True, False, False] and cohort["image_id"][0] == "i0"


def test_table_without_ids(tmp_path: Path) -> None:
    make_table(tmp_path)
    write_lines(tmp_path / "bare.tsv", "image", *(f"scans/{number}.nii.gz" for number in range(4)))
    cohort, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "bare.tsv"))
    assert list(cohort["image_id"]) == ["0", "1", "2", "3"] == list(cohort["participant_id"]) and facts["identity"] == "assumed"


def test_table_of_retinal_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(tmp_path / f"{number}.tif")
        Image.fromarray(random.integers(0, 2, (8, 9), dtype=np.uint8) * 255).save(tmp_path / f"{number}_vessels.png")
        Image.fromarray(np.full((8, 9), 255, np.uint8)).save(tmp_path / f"{number}_fov.gif")
    rows = [f"{number}.tif\t{number}_vessels.png\t{number}_fov.gif\te{number}" for number in range(3)]
    write_lines(tmp_path / "eyes.tsv", "photo\tvessels\tfov\teye", *rows)
    source = {
        "images": {"fundus": "photo"},
        "labels": {"label": "vessels"},
        "mask": "fov",
        "participant": "eye",
        "spacing_mm": [0.02, 0.02],
    }
    cohort, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "eyes.tsv"), **source)
    assert facts["channels"] == ["fundus_r", "fundus_g", "fundus_b"] and facts["channel_files"] == {"fundus": facts["channels"]}
    assert facts["labels"] == {"label": {"0": "background", "255": "label 255"}} and facts["label_source"] == {"label": "observed"}
    assert facts["mask"] is True and facts["spacing_mm"] == [0.02, 0.02]
    assert "eye" not in cohort.columns and list(cohort["participant_id"]) == ["e0", "e1", "e2"]
    values, affine = images.load_row(cohort.iloc[0], facts)
    assert values.shape == (3, 9, 8, 1) and affine[0, 0] == 0.02
    images.verify_row(cohort.iloc[0], tmp_path)
    (tmp_path / "0_fov.gif").write_bytes(b"changed")
    with pytest.raises(DataError, match="0_fov"):
        images.verify_row(cohort.iloc[0], tmp_path)


def test_table_with_a_chosen_volume(tmp_path: Path) -> None:
    for number in range(2):
        write_image(tmp_path / f"{number}.nii.gz", number, (3, 4, 5, 6))
    write_lines(tmp_path / "t.tsv", "image", "0.nii.gz", "1.nii.gz")
    cohort, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "t.tsv"), volume=2)
    assert facts["channels"] == ["image"] and images.load_row(cohort.iloc[0], facts)[0].shape == (1, 3, 4, 5)
    _, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "t.tsv"))
    assert facts["channels"] == [f"image_{index}" for index in range(6)]


def test_nobody_without_group_and_participant_is_lumped_together(tmp_path: Path) -> None:
    make_table(tmp_path)
    write_lines(tmp_path / "t.tsv", "image\tfamily", *(f"scans/{n}.nii.gz\t{'xx'[n : n + 1] or 'n/a'}" for n in range(4)))
    cohort, _, _ = run(tmp_path, format="table", path=str(tmp_path / "t.tsv"), group="family")
    assert list(cohort["group"]) == ["x", "x", "2", "3"] and list(cohort["participant_id"]) == ["x", "x", "2", "3"]


def test_very_many_missing_files_are_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.tsv", "image", *(f"{n}.nii.gz" for n in range(200)))
    problems = problems_of(tmp_path, format="table", path=str(tmp_path / "t.tsv"))
    assert len(problems) == 51 and "150 more" in problems[-1].got


def test_columns_with_names_of_ours_are_kept(tmp_path: Path) -> None:
    make_table(tmp_path)
    names = ["image", "label", "mask", "image_quality", "sha256_file", "site", "scanner"]
    write_lines(tmp_path / "t.tsv", "\t".join(names), *(f"scans/{n}.nii.gz\tl\tm\tq\ts\tA\tB" for n in range(2)))
    cohort, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "t.tsv"), site="scanner")
    assert [cohort[f"table_{name}"][0] for name in names[1:6]] == ["l", "m", "q", "s", "A"] and list(cohort["site"]) == ["B", "B"]
    assert images.channel_columns(cohort.columns) == ["image_image"] and not images.label_columns(cohort.columns)
    assert len(facts["renamed_columns"]) == 5


def test_table_label_values_and_site(tmp_path: Path) -> None:
    make_table(tmp_path)
    for number in range(2):
        write_image(tmp_path / f"l{number}.nii.gz", number, labels=True)
    rows = [f"scans/{number}.nii.gz\tl{number}.nii.gz\t{'xy'[number]}" for number in range(2)]
    write_lines(tmp_path / "t.tsv", "image\tseg\tscanner", *rows)
    source = {"labels": {"lesion": "seg"}, "label_values": {"lesion": {0: "background", 1: "a", 2: "b"}}, "site": "scanner"}
    cohort, facts, _ = run(tmp_path, format="table", path=str(tmp_path / "t.tsv"), **source)
    assert list(cohort["label_lesion"]) == ["l0.nii.gz", "l1.nii.gz"] and list(cohort["site"]) == ["x", "y"]
    assert facts["labels"] == {"label_lesion": {"0": "background", "1": "a", "2": "b"}}


# -- what is refused ------------------------------------------------------------------------------------------------------


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def write(path: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(content) and None


def copy(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / new).write_bytes((folder / old).read_bytes())

    return change


def link(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).unlink()
        (folder / path).symlink_to("nowhere")

    return change


TABLE, MSD, BIDS = make_table, make_msd, make_bids
BAD: dict[str, tuple[Any, Callable[[Path], None] | None, dict[str, Any], list[str]]] = {
    "table is missing": (TABLE, remove("images.tsv"), {}, ["images.tsv", "No such file"]),
    "table is a spreadsheet": (TABLE, None, {"path": "images.xlsx"}, [".xlsx", ".tsv or .csv"]),
    "table is no UTF-8": (TABLE, write("images.tsv", b"image\tname\nscans/0.nii.gz\tM\xfcller\n"), {}, ["UTF-8"]),
    "table is empty": (TABLE, write("images.tsv", b""), {}, ["no column names"]),
    "table has a head only": (TABLE, write("images.tsv", b"image_id\timage\n"), {}, ["no images"]),
    "semicolons in a csv": (
        TABLE,
        write("images.csv", b"image_id;image\n1;scans/0.nii.gz\n"),
        {"path": "images.csv"},
        ["semicolons"],
    ),
    "commas in a tsv": (TABLE, write("images.tsv", b"image_id,image\n1,scans/0.nii.gz\n"), {}, ["commas", "tabs"]),
    "quote without partner": (TABLE, write("images.tsv", b'image_id\timage\n"1\tscans/0.nii.gz\n'), {}, ["partner"]),
    "double column": (TABLE, edit("images.tsv", "diagnosis", "age"), {}, ["given twice: age"]),
    "column without a name": (TABLE, edit("images.tsv", "age\t", "\t"), {}, ["column 4 without a name"]),
    "row too short": (TABLE, edit("images.tsv", "\tb\tNA", "\tb"), {}, ["line 3", "5 cells", "line 5"]),
    "missing column": (TABLE, None, {"images": {"t1w": "imgae"}}, ["`imgae`", "did you mean `image`?", "images.t1w"]),
    "missing participant column": (TABLE, None, {"participant": "Participant"}, ["participant", "did you mean `participant_id`?"]),
    "missing mask column": (TABLE, None, {"mask": "fov"}, ["`mask`", "`fov`"]),
    "label values of an unknown label": (TABLE, None, {"label_values": {"x": {1: "a"}}}, ["label_values.x"]),
    "missing files": (TABLE, remove("scans/2.nii.gz"), {}, ["scans/2.nii.gz", "line 4", "no such file"]),
    "link to nothing": (TABLE, link("scans/2.nii.gz"), {}, ["a link to a file", "datalad get"]),
    "path is escaping": (TABLE, edit("images.tsv", "scans/1", "../scans/1"), {}, ["../scans/1", "line 3", "inside"]),
    "path is absolute": (TABLE, edit("images.tsv", "scans/1", "/etc/1"), {}, ["/etc/1", "inside"]),
    "path of Windows": (TABLE, edit("images.tsv", "scans/1", "scans\\1"), {}, ["\\", "/"]),
    "unknown ending": (TABLE, edit("images.tsv", "1.nii.gz", "1.mgz"), {}, ["1.mgz", ".nii.gz"]),
    "no image in a row": (TABLE, edit("images.tsv", "scans/1.nii.gz", "n/a"), {}, ["line 3", "no path in image"]),
    "id given twice": (TABLE, edit("images.tsv", "i1", "i0"), {}, ["`i0` again", "line 2", "line 3"]),
    "id given twice but for case": (TABLE, edit("images.tsv", "i1", "I0"), {}, ["`I0` again"]),
    "id is no file name": (TABLE, edit("images.tsv", "i1", "i/1"), {}, ["`i/1`", "named after it"]),
    "id begins with a dot": (TABLE, edit("images.tsv", "i1", "..hidden"), {}, ["..hidden"]),
    "id is missing": (TABLE, edit("images.tsv", "i1", "n/a"), {}, ["no image id", "line 3"]),
    "participant is missing": (TABLE, edit("images.tsv", "i1\tp0", "i1\t"), {}, ["no participant for i1"]),
    "group of unknown name": (TABLE, None, {"group": "famly"}, ["datasets.d.group", "famly"]),
    "group is no expression": (TABLE, None, {"group": "number ** 2"}, ["datasets.d.group", "character 7"]),
    "group without a number": (TABLE, edit("images.tsv", "i2\t", "x\t"), {"group": "number // 4"}, ["no whole number", "for x"]),
    "group of words": (TABLE, None, {"group": "diagnosis // 2"}, ["`diagnosis`", "i0, i1, i2, i3"]),
    "group divides by zero": (TABLE, None, {"group": "7 // (number - 1)"}, ["divides by zero for i1"]),
    "group splits a participant": (TABLE, None, {"group": "number // 1"}, ["p0 (0, 1)", "several groups"]),
    "site of unknown name": (TABLE, None, {"site": "scanner"}, ["datasets.d.site", "scanner"]),
    "no dataset.json": (MSD, remove("dataset.json"), {}, ["dataset.json", "no such file"]),
    "no folder": (MSD, None, {"path": "nowhere"}, ["nowhere", "no such folder"]),
    "dataset.json is no JSON": (MSD, write("dataset.json", b"{"), {}, ["dataset.json", "JSON"]),
    "no training list": (MSD, edit("dataset.json", '"training"', '"train"'), {}, ["training", "no list of images"]),
    "no modality": (MSD, edit("dataset.json", '"modality"', '"mod"'), {}, ["modality"]),
    "no labels": (MSD, edit("dataset.json", '"labels"', '"label_names"'), {}, ["labels", "None"]),
    "regions as labels": (MSD, edit("dataset.json", '"1": "front"', '"front": [1, 2]'), {}, ["labels"]),
    "numTraining is wrong": (
        MSD,
        edit("dataset.json", '"numTraining": 4', '"numTraining": 5'),
        {},
        ["numTraining is 5", "4, as many"],
    ),
    "training item without label": (MSD, edit("dataset.json", '"label"', '"lable"'), {}, ["training[0]", "training[3]"]),
    "decathlon path is escaping": (MSD, edit("dataset.json", "./imagesTr", "./../imagesTr"), {}, ["training[0]", "inside"]),
    "decathlon label is missing": (MSD, remove("labelsTr/case_003.nii.gz"), {}, ["labelsTr/case_003.nii.gz", "training[2]"]),
    "decathlon table without ids": (MSD, write("p.tsv", b"imageid\tage\nx\t1\n"), {"table": "p.tsv"}, ["did you mean `imageid`?"]),
    "decathlon table lacks images": (
        MSD,
        write("p.tsv", b"image_id\tage\ncase_001\t1\n"),
        {"table": "p.tsv"},
        ["case_002, case_003"],
    ),
    "no BIDS folder": (BIDS, None, {"path": "nowhere"}, ["nowhere", "no such folder"]),
    "unknown entity": (BIDS, None, {"images": {"t1w": {"sufix": "T1w"}}}, ["images.t1w.sufix", "did you mean `suffix`?"]),
    "long name of an entity": (BIDS, None, {"images": {"t1w": {"acquisition": "x"}}}, ["write `acq`"]),
    "value that nobody has": (BIDS, None, {"images": {"t1w": {"suffix": "T1W"}}}, ["did you mean `T1w`?"]),
    "labels that nobody has": (
        BIDS,
        None,
        {"labels": {"label": {"suffix": "dseg", "desc": "tisue"}}},
        ["labels.label", "`tissue`?"],
    ),
    "participant without a line": (
        BIDS,
        edit("participants.tsv", "sub-03", "sub-3"),
        {},
        ["sub-03", "participants.tsv", "`sub-3`?"],
    ),
    "participant twice": (BIDS, edit("participants.tsv", "sub-02", "sub-01"), {}, ["sub-01 again", "line 3"]),
    "participants without ids": (BIDS, edit("participants.tsv", "participant_id", "subject"), {}, ["no column participant_id"]),
    "sessions without ids": (BIDS, edit("sub-02/sub-02_sessions.tsv", "session_id", "session"), {}, ["did you mean `session`?"]),
    "session twice": (BIDS, edit("sub-02/sub-02_sessions.tsv", "ses-2", "ses-1"), {}, ["the session sub-02 ses-1 again"]),
    "image in another folder": (
        BIDS,
        copy("sub-01/anat/sub-01_T1w.nii.gz", "sub-03/anat/sub-09_T1w.nii.gz"),
        {},
        ["sub-09 in sub-03"],
    ),
    "two pipelines": (
        BIDS,
        copy("derivatives/seg/sub-01/anat/sub-01_desc-tissue_dseg.nii.gz", "derivatives/b/sub-01/sub-01_desc-tissue_dseg.nii.gz"),
        {"labels": {"label": SEGMENTATION}},
        ["2 files for sub-01", "`pipeline:` with one of b, seg"],
    ),
    "dseg.tsv without names": (
        BIDS,
        edit("derivatives/seg/desc-tissue_dseg.tsv", "name", "structure"),
        {"labels": {"label": SEGMENTATION}},
        ["the columns index, structure"],
    ),
    "link to nothing in BIDS": (BIDS, link("sub-03/anat/sub-03_T1w.nii.gz"), {}, ["datalad get"]),
}


@pytest.mark.parametrize("name", BAD)
def test_every_problem_has_four_parts(tmp_path: Path, name: str) -> None:
    make, change, settings, words = BAD[name]
    source = make(tmp_path)
    if change is not None:
        change(tmp_path)
    given = {key: str(tmp_path / value) if key in ("path", "table") else value for key, value in settings.items()}
    problems = problems_of(tmp_path, **{**source, **given})
    for problem in problems:
        assert all((problem.where, problem.got, problem.expected, problem.remedy)), problem
    text = "\n".join(map(str, problems))
    for word in words:
        assert word in text


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    source = make_table(tmp_path)
    for change in (edit("images.tsv", "i1", "i0"), edit("images.tsv", "scans/2", "scans/9"), edit("images.tsv", "scans/3", "../3")):
        change(tmp_path)
    problems = problems_of(tmp_path, **source, group="number **", site="nowhere")
    text = "\n".join(map(str, problems))
    assert len(problems) >= 5 and all(word in text for word in ("`i0` again", "scans/9", "../3", "character", "nowhere"))


# -- cost at planning -----------------------------------------------------------------------------------------------------


def test_sources_import_nothing_heavy(tmp_path: Path) -> None:
    source = make_msd(tmp_path)
    code = (
        "import sys; from pathlib import Path; from gyri import dataset; from gyri.config.datasets import ReadSettings\n"
        "from gyri.layout import Layout\n"
        f"settings = ReadSettings.model_validate({{'source': {source!r}}})\n"
        "assert len(dataset.sources(settings, Layout(Path('r')), 'd')) == 9\n"
        "heavy = {'pandas', 'nibabel', 'torch', 'scipy', 'sklearn', 'SimpleITK', 'PIL', 'tifffile'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(dataset.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_synthetic_sources_are_the_manifest(tmp_path: Path) -> None:
    assert files(tmp_path, format="synthetic") == ["results/datasets/d/synthetic.tsv"]


def test_synthetic_cohort_is_read_as_bids(tmp_path: Path) -> None:
    """The reader alone, on files laid out as the stage `synthetic` lays them out."""
    root = Layout(tmp_path / "results").dataset("d", "bids")
    make_bids(root)
    for path in sorted((root / "derivatives/seg").rglob("*_desc-tissue_dseg.nii.gz")):
        path.with_name(path.name.replace("tissue", "region")).write_bytes(path.read_bytes())
    cohort, facts, _ = run(tmp_path, format="synthetic")
    assert list(cohort["group"]) == ["x", "sub-02", "sub-02", "x"] and facts["group_source"] == "column family"
    assert list(facts["labels"]) == ["label", "label_region"] and facts["channels"] == ["t1w"]
    assert facts["label_source"] == {"label": "declared", "label_region": "observed"}
    assert facts["format"] == "synthetic"


def test_entities_have_one_name_each() -> None:
    assert len(set(ENTITIES.values())) == len(ENTITIES)
