"""Pictures of cases: slices in three planes with the outlines of truth and prediction."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from gyri.errors import DataError
from gyri.report.cases import Case, packed_case, segmented_case
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import chosen_model, rounded
from gyri.report.source import Source
from gyri.report.svg import Drawing, number

PLANES = (("sagittal", 0, "P", "A"), ("coronal", 1, "L", "R"), ("axial", 2, "L", "R"))
"""Plane, axis it cuts, and the letters at its left and right edge; the patient's right is at the right of the picture."""
WIDTH, HEIGHT, GAP = 900.0, 260.0, 10.0
"""Room for the three planes of a case beside each other, and between them, in px; all have the same scale."""
MOST_PIXELS = 320
"""Longer edge of an embedded picture, in pixels; finer ones are thinned out."""
CASES = (("best", 0.0), ("median", 0.5), ("worst", 1.0))


def segmentation_gallery(source: Source) -> Reportlet:
    """Best, median and worst test case of the best model, in three planes."""
    model = chosen_model(source)
    scores = case_scores(source, model)
    predictions = source.one_seed(source.predictions, model).set_index("image_id")
    blocks, data, problems = [], [], []
    for name, share in CASES:
        row = scores.iloc[round(share * (len(scores) - 1))]
        image_id = str(row.name)
        heading = f"{name}: Dice {rounded(row['value'], 3)}"
        if image_id not in predictions.index:
            problems.append(f"{image_id}: no row in predictions.tsv")
            continue
        try:
            case = segmented_case(source, image_id, str(predictions.loc[image_id, "prediction"]))
        except (DataError, Missing, OSError, ValueError, KeyError) as error:
            reason = error.problems[0].got if isinstance(error, DataError) else str(error)
            problems.append(f"{image_id} ({name}): {reason}")
            continue
        blocks.append(_block(heading, image_id, row, case))
        data.append(
            {
                "case": name,
                "image_id": image_id,
                "fold": row["fold"],
                "dice": row["value"],
                "predicted_voxels_outside_picture": case.outside,
            }
        )
    if not blocks:
        raise Missing("; ".join(problems) or "no case")
    notes = [f"Model: {source.label(model)}. {len(scores)} test images, ranked by their Dice averaged over structures."]
    notes += [f"Not available: {problem}." for problem in problems]
    notes += [
        f"{item['image_id']}: {item['predicted_voxels_outside_picture']} predicted voxels lie outside the picture."
        for item in data
        if item["predicted_voxels_outside_picture"]
    ]
    words = "; ".join(f"{item['case']} case {item['image_id']} with Dice {item['dice']:.3f}" for item in data)
    return Reportlet(
        alt=f"Slices with outlines of truth and prediction: {words}.",
        body=Markup("").join(blocks),
        legend=[(line_mark("truth"), "truth"), (line_mark("prediction"), "prediction")],
        data=pd.DataFrame(data),
        notes=notes,
    )


def case_scores(source: Source, model: str) -> pd.DataFrame:
    """Dice averaged over structures of every test image of a model, best first; columns value, fold, participant_id."""
    table = source.cases
    rows = source.one_seed(table[table["metric"] == "dice"], model)
    if rows.empty:
        raise Missing(f"cases.tsv has no test rows of {model}")
    means = rows[rows["structure"] == "mean"]
    rows = means if len(means) else rows[~rows["structure"].isin(["all", ""])]
    scores = rows.groupby("image_id").agg(
        value=("value", "mean"), fold=("fold", "first"), participant_id=("participant_id", "first")
    )
    return (
        scores.dropna(subset=["value"])
        .reset_index()
        .sort_values(["value", "image_id"], ascending=[False, True])
        .set_index("image_id")
    )


def _block(heading: str, image_id: str, row: pd.Series, case: Case) -> Markup:
    line = Markup('<p class="case"><strong>{}</strong> <span>{} · fold {}</span></p>').format(heading, image_id, row["fold"])
    return Markup('<div class="block">{}{}</div>').format(line, planes(case))


def planes(case: Case) -> Markup:
    """All planes of a case in one drawing, at one scale; a 2D image has the axial one only."""
    chosen = PLANES if min(case.image.shape) > 1 else PLANES[2:]
    edges = [size * spacing for size, spacing in zip(case.image.shape, case.spacing, strict=True)]
    across = [edges[1] if axis == 0 else edges[0] for _, axis, _, _ in chosen]
    up = [edges[1] if axis == 2 else edges[2] for _, axis, _, _ in chosen]
    scale = min((WIDTH - GAP * (len(chosen) - 1)) / sum(across), HEIGHT / max(up))
    drawing = Drawing(sum(across) * scale + GAP * (len(chosen) - 1), max(up) * scale + 20)
    x = 0.0
    for plane, width, height in zip(chosen, across, up, strict=True):
        _plane(drawing, case, plane, (x, (max(up) - height) * scale, width * scale, height * scale))
        x += width * scale + GAP
    return drawing.render("brain")


def _plane(drawing: Drawing, case: Case, plane: tuple[str, int, str, str], box: tuple[float, float, float, float]) -> None:
    """One slice through the middle of the truth, with outlines, into a box (left, top, width, height)."""
    name, axis, before, after = plane
    left, top, width, height = box
    marked = case.truth if case.truth.any() else case.prediction
    index = round(float(np.mean(np.nonzero(marked)[axis])))
    grey, truth, said = (np.take(volume, index, axis=axis) for volume in (case.image, case.truth, case.prediction))
    drawing.picture(left, top, width, height, png(grey, case.image))
    for volume, kind in ((truth, "truth"), (said, "prediction")):
        path = outlines(volume, width / grey.shape[0], height / grey.shape[1], height)
        if path:
            drawing.add("path", {"d": path, "class": f"outline {kind}", "transform": f"translate({number(left)} {number(top)})"})
    if case.oriented:
        drawing.text(left + 5, top + height / 2 + 4, before, "t onpicture")
        drawing.text(left + width - 5, top + height / 2 + 4, after, "t e onpicture")
        drawing.text(left + width / 2, drawing.height - 5, name, "t m q")


def png(grey: NDArray, volume: NDArray) -> str:
    """A slice as base64 PNG, 8 bit grey, the third axis of the page going up.

    Args:
        grey: (A, B) the slice.
        volume: from which the window is taken: its 1st to 99.5th percentile.
    """
    from PIL import Image

    finite = volume[np.isfinite(volume)]
    low, high = np.percentile(finite, [1, 99.5]) if finite.size else (0.0, 1.0)
    scaled = np.clip((np.nan_to_num(grey, nan=low) - low) / max(float(high - low), 1e-9), 0, 1)
    pixels = np.rint(scaled * 255).astype(np.uint8).T[::-1]
    step = max(1, -(-max(pixels.shape) // MOST_PIXELS))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def outlines(labels: NDArray[np.integer], across: float, up: float, height: float) -> str:
    """The outlines of every label as one SVG path.

    Args:
        labels: (A, B) of a slice.
        across: px per voxel along A.
        up: px per voxel along B.
        height: of the picture in px.
    """
    from contourpy import contour_generator

    parts = []
    for value in np.unique(labels):
        if value == 0:
            continue
        # a rim of zeros closes outlines at the edge of the picture
        mask = np.pad((labels == value).astype(np.float32), 1)
        for line in contour_generator(z=mask.T, line_type="Separate").lines(0.5):
            points = np.asarray(line)
            xs, ys = (points[:, 0] - 0.5) * across, height - (points[:, 1] - 0.5) * up
            parts.append("M" + "L".join(f"{number(x)},{number(y)}" for x, y in zip(xs[:-1], ys[:-1], strict=True)) + "Z")
    return "".join(parts)


def line_mark(kind: str) -> Markup:
    drawing = Drawing(30, 14)
    drawing.line(2, 7, 28, 7, f"outline {kind}")
    return drawing.render("mark")


def case_slices(source: Source, image_ids: list[str]) -> dict[str, Markup]:
    """Axial slice through the middle of what may be shown of images, on the network's grid."""
    found = {}
    for image_id in image_ids:
        try:
            case = packed_case(source, image_id)
        except Missing:
            if not source.layout.dataset(source.settings.dataset, "images.npy").is_file():
                raise
            continue
        grey = case.image[:, :, case.image.shape[2] // 2]
        width, height = grey.shape[0] * case.spacing[0], grey.shape[1] * case.spacing[1]
        scale = 110.0 / max(width, height)
        drawing = Drawing(width * scale, height * scale)
        drawing.picture(0, 0, drawing.width, drawing.height, png(grey, case.image))
        found[image_id] = drawing.render("brain")
    return found
