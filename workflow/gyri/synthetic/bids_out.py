"""The cohort as a BIDS dataset: names, tables, sidecars, and images whose bytes repeat."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import SyntheticDataset
from gyri.io import write_json, write_text
from gyri.synthetic.grids import image_grid
from gyri.synthetic.people import SITE_NAMES, Person, Visit
from gyri.synthetic.regions import REGIONS
from gyri.synthetic.scan import TISSUES, Scan

BIDS_VERSION = "1.10.0"
LABELS = Path("derivatives") / "labels"

README = """\
# A synthetic cohort

No person was scanned for this dataset. Each image is the MNI152 template (ICBM 2009a nonlinear symmetric, as nilearn holds it)
carried along a smooth invertible deformation, with an invented skull and face, an invented scanner and invented noise. Age, sex,
diagnosis and site are known causes; gyri's docs/synthetic.md gives the generating effect sizes.

`family` is what must never be divided between training and test: twins share theirs, everybody else has one alone.
Label maps of tissue and region, and brain masks, are in derivatives/labels.

The templates are Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
McGill University; they may be used, copied, modified and distributed for any purpose without fee, provided that this notice
stays with all copies. They come without any warranty.
"""

PARTICIPANTS = {
    "participant_id": {"Description": "Identifier of the participant"},
    "age": {"Description": "Age at the first visit; sessions.tsv holds the later ones", "Units": "year"},
    "sex": {"Description": "Invented sex; it changes the size of the head", "Levels": {"F": "female", "M": "male"}},
    "diagnosis": {
        "Description": "Invented diagnosis; balanced over site, sex and age",
        "Levels": {"control": "no disease", "patient": "focal atrophy of the medial temporal lobe"},
    },
    "site": {"Description": "Invented scanner: its contrast, shading, noise and resolution"},
    "family": {"Description": "Twins share a family; everybody else has one alone. Never divide it between training and test"},
}
SESSIONS = {
    "session_id": {"Description": "Identifier of the visit"},
    "age": {"Description": "Age at the visit", "Units": "year"},
}


def stem(person: Person, visit: Visit) -> str:
    """The beginning of a visit's file names: `sub-01` or `sub-01_ses-02`."""
    return person.name + (f"_ses-{visit.label}" if visit.label else "")


def folder(person: Person, visit: Visit) -> Path:
    """The folder of a visit's anatomical images, relative to a dataset's root."""
    return Path(person.name) / (f"ses-{visit.label}" if visit.label else "") / "anat"


def write_nifti(path: Path, voxels: NDArray[Any], spacing_mm: float) -> None:
    """Write a compressed NIfTI without the time of day in it, so that equal voxels give equal bytes.

    Args:
        path: ends in .nii.gz.
        voxels: (X, Y, Z) on `image_grid(spacing_mm)`.
        spacing_mm: voxel edge.
    """
    import nibabel as nib

    image = nib.Nifti1Image(voxels, image_grid(spacing_mm).affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def write_scan(root: Path, person: Person, visit: Visit, scan: Scan, spacing_mm: float) -> None:
    """Write a visit's images with their sidecars, and its label maps."""
    here, start = folder(person, visit), stem(person, visit)
    for contrast, image in scan.images.items():
        write_nifti(root / here / f"{start}_{contrast}.nii.gz", image, spacing_mm)
        sidecar = {"Modality": "MR", "InstitutionName": f"Invented site {SITE_NAMES[person.site]}", "BodyPart": "HEAD"}
        write_json(root / here / f"{start}_{contrast}.json", sidecar)
    labels = {"desc-tissue_dseg": scan.tissue, "desc-region_dseg": scan.region, "desc-brain_mask": scan.mask}
    for name, voxels in labels.items():
        write_nifti(root / LABELS / here / f"{start}_{name}.nii.gz", voxels.astype(np.uint8), spacing_mm)


def write_tables(root: Path, persons: list[Person], settings: SyntheticDataset, version: str) -> None:
    """Write everything that is no image: descriptions, tables of people and of label values."""
    made = [{"Name": "gyri", "Version": version, "Description": f"synthetic cohort, seed {settings.seed}"}]
    common = {"BIDSVersion": BIDS_VERSION, "GeneratedBy": made}
    licence = "MNI152 templates: free for any purpose with the copyright notice in README.md"
    describe = {"Name": "Synthetic cohort", "DatasetType": "raw", "License": licence, "Authors": ["gyri"], **common}
    write_json(root / "dataset_description.json", describe)
    write_json(root / LABELS / "dataset_description.json", {"Name": "Label maps", "DatasetType": "derivative", **common})
    write_text(root / "README.md", README)
    rows = [(p.name, p.visits[0].age, p.sex, p.diagnosis, SITE_NAMES[p.site], p.family) for p in persons]
    write_rows(root / "participants.tsv", list(PARTICIPANTS), rows)
    write_json(root / "participants.json", PARTICIPANTS)
    for person in persons:
        if len(person.visits) > 1:
            visits = [(f"ses-{visit.label}", visit.age) for visit in person.visits]
            write_rows(root / person.name / f"{person.name}_sessions.tsv", list(SESSIONS), visits)
            write_json(root / person.name / f"{person.name}_sessions.json", SESSIONS)
    for name, table in (("tissue", TISSUES), ("region", REGIONS)):
        write_rows(root / LABELS / f"desc-{name}_dseg.tsv", ["index", "name"], [(0, "background"), *table.items()])
        write_json(root / LABELS / f"desc-{name}_dseg.json", {"Manual": False, "Atlas": f"docs/synthetic.md ({name})"})
    write_json(root / LABELS / "desc-brain_mask.json", {"Type": "Brain", "Manual": False})


def write_rows(path: Path, columns: list[str], rows: list[Any]) -> None:
    """Write a small tab-separated table (no need to load pandas for it)."""
    write_text(path, "".join("\t".join(str(cell) for cell in row) + "\n" for row in [columns, *rows]))
