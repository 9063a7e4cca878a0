"""Checks of one image: its files, its voxels, its grid, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gyri.audit.descriptors import Descriptor, describe
from gyri.errors import DataError
from gyri.images import channel_columns, header, label_columns, load_labels, load_row, verify_row
from gyri.types import Affine

Status = Literal["pass", "warn", "exclude"]
OBLIQUE_DEG = 5.0  # a tilt of this size moves an axis by more than a voxel over a dozen voxels
SAME_GRID = 0.1  # grids whose corners are apart by more than this part of a voxel are different grids
ROUNDING = 1e-3  # ... and by less than this part only differ by rounding


ADVICE = {  # check -> what is expected, and what helps
    "changed": ("the files as they were read", "run the pipeline again, so that it starts from the files as they are now"),
    "finite": ("finite voxels", "make the image anew, or replace NaN by what the measurement was"),
    "constant": ("voxels that differ", "replace the image by the one that was meant"),
    "affine": ("an affine that can be inverted and says one thing", "set the affine anew from the original scan"),
    "dimensions": ("images that are all 2D or all 3D", "make two data sets of them"),
    "duplicate": ("each scan once", "remove the copy, or put both into one group"),
    "mask": ("a mask on the image's grid that is not empty", "draw the mask anew"),
}
LABEL_ADVICE = ("declared whole numbers on the image's grid", "correct the label image, or declare the values that it has")


@dataclass(frozen=True)
class Check:
    """Result of one check of one image: what was found, what is expected, what helps."""

    check: str
    status: Status
    detail: str
    expected: str = ""
    remedy: str = ""


@dataclass
class ImageReport:
    """All that the audit learns from one image.

    Args:
        image_id: the image.
        checks: results that are not a silent pass.
        changed: what is wrong where the files are not those of the cohort any more.
        dimensions: 2 or 3; 0 where unread.
        orientation: axis codes such as "RAS"; "" where unknown.
        spacing: voxel spacing in mm.
        identity_affine: whether the affine says nothing about orientation.
        label_values: values found in each label image.
        descriptor: for the search for similar images; None for an image that cannot be used.
    """

    image_id: str
    checks: list[Check] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    dimensions: int = 0
    orientation: str = ""
    spacing: tuple[float, ...] = ()
    identity_affine: bool = False
    label_values: dict[str, list[int]] = field(default_factory=dict)
    descriptor: Descriptor | None = None

    def add(self, check: str, status: Status, detail: str, expected: str = "", remedy: str = "") -> None:
        """Note a result; what is expected and what helps come from `ADVICE` where they are not given."""
        usual = ADVICE.get(check, LABEL_ADVICE)
        self.checks.append(Check(check, status, detail, expected or usual[0], remedy or usual[1]))

    def add_error(self, check: str, error: DataError) -> None:
        """Note that a file could not be used."""
        for problem in error.problems:
            self.add(check, "exclude", f"{Path(problem.where).name}: {problem.got}", problem.expected, problem.remedy)

    @property
    def status(self) -> Status:
        """The worst status of all checks."""
        found = {check.status for check in self.checks}
        return "exclude" if "exclude" in found else "warn" if "warn" in found else "pass"


def check_image(row: Mapping[str, Any], facts: Mapping[str, Any], spacing_mm: tuple[float, float]) -> ImageReport:
    """Check one image and its labels; one image is in memory at a time.

    Args:
        row: a row of cohort.tsv.
        facts: dataset.json.
        spacing_mm: smallest and largest plausible spacing in mm.

    Returns:
        The report; nothing that is wrong with an image raises.
    """
    report = ImageReport(str(row["image_id"]))
    root = Path(facts["root"])
    try:
        verify_row(row, root)
    except DataError as error:
        report.changed = [f"{problem.where}: {problem.got}" for problem in error.problems]
        report.add("changed", "exclude", "; ".join(report.changed))
        return report
    _check_headers(report, row, root, spacing_mm)
    try:
        image, affine = load_row(row, facts)
    except DataError as error:
        if not any(check.check == "readable" for check in report.checks):
            report.add_error("readable", error)
        return report
    report.dimensions = 2 if image.shape[3] == 1 else 3
    _check_voxels(report, image, row, facts)
    labels = _check_labels(report, row, facts, image.shape[1:], affine)
    _check_mask(report, row, facts, image.shape[1:], affine)
    if report.status != "exclude":
        column, declared = next(iter(sorted(facts.get("labels", {}).items())), ("", {}))
        values = [int(value) for value in declared if int(value) != 0]
        report.descriptor = describe(image, np.linalg.norm(affine[:3, :3], axis=0), labels.get(column), values)
    return report


def _check_headers(report: ImageReport, row: Mapping[str, Any], root: Path, limits: tuple[float, float]) -> None:
    """Spacing, affine and orientation, from each image file's header."""
    for column in channel_columns(row):
        if not row[column]:
            report.add("channels", "warn", f"no file for {column}; the channel is filled with zeros")
            continue
        try:
            facts = header(root / row[column])
        except DataError as error:
            report.add_error("readable", error)
            continue
        if facts["format"] != "picture":
            _check_grid(report, column, facts, limits)


def _check_grid(report: ImageReport, column: str, facts: dict[str, Any], limits: tuple[float, float]) -> None:
    if facts["affine"] is None or not np.isfinite(facts["affine"]).all():
        report.add("affine", "exclude", f"{column}: the affine cannot be computed or is not finite")
        return
    affine = np.asarray(facts["affine"], float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = 2 if facts["shape"][2] == 1 else 3
    volume = abs(np.linalg.det(affine[:3, :3]))
    # of three axes of given lengths the determinant is largest where they are orthogonal
    if not volume > 1e-6 * max(float(np.prod(spacing)), 1e-30):
        report.add("affine", "exclude", f"{column}: singular affine, determinant {volume:.3g}")
        return
    report.spacing = tuple(round(float(value), 4) for value in spacing[:axes])
    report.orientation = facts["orientation"]
    report.identity_affine = bool(np.array_equal(affine[:3, :3], np.eye(3)))
    wrong = [value for value in report.spacing if not limits[0] <= value <= limits[1]]
    if wrong:
        expected = f"a spacing of {limits[0]:g} to {limits[1]:g} mm (audit.spacing_mm)"
        remedy = "correct the spacing in the file's header, or widen audit.spacing_mm of the data set"
        report.add("spacing", "exclude", f"{column}: {report.spacing} mm", expected, remedy)
    if facts["unit"] not in ("mm", "unknown"):
        report.add("unit", "warn", f"{column}: the header gives lengths in {facts['unit']}; they are read as mm")
    zooms = np.asarray(facts["spacing_mm"][:axes])
    if facts["sform"] is not None and np.abs(zooms - spacing[:axes]).max() > 0.01 * spacing[:axes].min():
        report.add("spacing", "warn", f"{column}: pixdim says {zooms.round(4).tolist()} mm, the affine {report.spacing} mm")
    _check_forms(report, column, facts)
    _check_orientation(report, column, facts, affine)


def _check_forms(report: ImageReport, column: str, facts: dict[str, Any]) -> None:
    """sform against qform: both may be set, and then should say the same."""
    import nibabel

    if facts["sform_code"] > 0 and facts["sform"] is not None and facts["qform_code"] > 0 and facts["qform"] is None:
        report.add("affine", "warn", f"{column}: the qform cannot be computed; the sform is used")
    if facts["sform"] is None or facts["qform"] is None:
        if facts["sform"] is None and facts["qform"] is None:
            report.add("orientation", "warn", f"{column}: neither sform nor qform is set, so left and right are unknown")
        return
    sform, qform = np.asarray(facts["sform"], float), np.asarray(facts["qform"], float)
    apart = corner_distance(sform, qform, tuple(facts["shape"])) / np.linalg.norm(sform[:3, :3], axis=0).min()
    if apart <= SAME_GRID:
        return
    codes = "".join(map(str, nibabel.aff2axcodes(sform))), "".join(map(str, nibabel.aff2axcodes(qform)))
    if facts["sform_code"] != facts["qform_code"]:
        spaces = f"codes {facts['sform_code']} and {facts['qform_code']}"
        report.add("affine", "warn", f"{column}: sform and qform are up to {apart:.1f} voxels apart ({spaces}); the sform is used")
    elif codes[0] != codes[1]:
        report.add("affine", "exclude", f"{column}: sform says {codes[0]}, qform says {codes[1]}")
    else:
        report.add("affine", "warn", f"{column}: sform and qform are up to {apart:.1f} voxels apart; the sform is used")


def _check_orientation(report: ImageReport, column: str, facts: dict[str, Any], affine: Affine) -> None:
    from nibabel.affines import obliquity

    if report.orientation != "RAS":
        report.add("orientation", "pass", f"{column}: {report.orientation}, is turned to RAS")
    angle = float(np.degrees(obliquity(affine).max()))
    if angle > OBLIQUE_DEG:
        report.add(
            "orientation", "warn", f"{column}: oblique by {angle:.1f} degrees; axes are turned to the nearest, not resampled"
        )


def _check_voxels(report: ImageReport, image: NDArray[np.float32], row: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """NaN, Inf, constant channels; a channel without a file is passed over."""
    first = 0
    for column in channel_columns(row):
        count = len(facts["channel_files"][column.removeprefix("image_")])
        part = image[first : first + count]
        first += count
        if not row[column]:
            continue
        bad = int(part.size - np.isfinite(part).sum())
        if bad:
            report.add("finite", "exclude", f"{column}: {bad} of {part.size} voxels are NaN or infinite")
            continue
        constant = [str(index) for index, channel in enumerate(part) if channel.min() == channel.max()]
        if constant:
            where = f" (channel {', '.join(constant)})" if count > 1 else ""
            report.add("constant", "exclude", f"{column}: every voxel{where} is {part[int(constant[0])].flat[0]:g}")


def _check_labels(
    report: ImageReport, row: Mapping[str, Any], facts: Mapping[str, Any], shape: tuple[int, ...], affine: Affine
) -> dict[str, NDArray[np.float32]]:
    """Check every label image; returns those that can be used."""
    usable = {}
    for column in label_columns(row):
        if not row[column]:
            continue
        values = _load_on_grid(report, column, row, facts, shape, affine)
        if values is None:
            continue
        found = np.unique(values)
        problem = _label_problem(found, facts.get("labels", {}).get(column, {}))
        if problem:
            report.add(column, "exclude", problem)
            continue
        report.label_values[column] = [int(value) for value in found]
        if not found.any():
            report.add(column, "warn", "background only")
        usable[column] = values
    return usable


def _label_problem(found: NDArray[np.float32], declared: Mapping[str, str]) -> str:
    """What is wrong with a label image's values; "" where nothing is."""
    if not np.isfinite(found).all():
        return "NaN or infinite label values"
    broken = found[found != np.round(found)]
    if len(broken):
        return f"labels that are no integers: {_some(broken)}"
    if found.min() < 0:
        return f"negative labels: {_some(found[found < 0])}"
    allowed = {int(value) for value in declared}
    outside = [value for value in found if allowed and int(value) not in allowed]
    return f"labels outside the declared {_some(sorted(allowed))}: {_some(outside)}" if outside else ""


def _check_mask(
    report: ImageReport, row: Mapping[str, Any], facts: Mapping[str, Any], shape: tuple[int, ...], affine: Affine
) -> None:
    if not row.get("mask"):
        return
    values = _load_on_grid(report, "mask", row, facts, shape, affine)
    if values is None:
        return
    if not np.isfinite(values).all():
        report.add("mask", "exclude", "NaN or infinite mask values")
    elif not values.any():
        report.add("mask", "exclude", "the mask is empty")
    elif len(np.unique(values)) > 2:
        report.add("mask", "warn", "more than two values; everything that is not 0 counts as inside")


def _load_on_grid(
    report: ImageReport, column: str, row: Mapping[str, Any], facts: Mapping[str, Any], shape: tuple[int, ...], affine: Affine
) -> NDArray[np.float32] | None:
    """A label image that lies on its image's grid, or None with the reason noted."""
    try:
        values, other = load_labels(Path(facts["root"]) / row[column], None, facts.get("spacing_mm"))
    except DataError as error:
        report.add_error(column, error)
        return None
    if values.shape != tuple(shape):
        report.add(column, "exclude", f"shape {values.shape}, the image has {tuple(shape)}")
        return None
    apart = corner_distance(affine, other, values.shape) / max(float(np.linalg.norm(affine[:3, :3], axis=0).min()), 1e-12)
    if not apart <= SAME_GRID:
        report.add(column, "exclude", f"its affine is up to {apart:.2f} voxels away from the image's")
        return None
    if apart > ROUNDING:
        report.add(column, "warn", f"its affine is up to {apart:.3f} voxels away from the image's")
    return values


def corner_distance(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the same corner of a grid under two affines."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    difference = corners @ (first[:3, :3] - second[:3, :3]).T + (first[:3, 3] - second[:3, 3])
    return float(np.linalg.norm(difference, axis=1).max())


def _some(values: Any) -> str:
    """The first few values as text."""
    names = [f"{float(value):g}" for value in values]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
