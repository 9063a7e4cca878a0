"""Where networks look: mean maps, the check with random weights, single images, regions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from gyri.report.chart import panel, strip
from gyri.report.colours import overlaid
from gyri.report.gallery import PLANES
from gyri.report.parts import NONE, Missing, Reportlet, Table, exact
from gyri.report.results import rounded
from gyri.report.saliency import ALIKE, SPACES, TITLES, Explained, Ground, explained, ground_of, mean_ground
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened

WIDTH, HEIGHT, GAP, HEAD, FOOT = 440.0, 150.0, 6.0, 24.0, 34.0
"""Size of a panel's three planes together, the gap between them, and the room above and below, in px."""
MOST_PIXELS = 128
"""Longer edge of a slice, in pixels; finer ones are thinned out, since colours take three times the room of grey."""
WEIGHTS = {"no": "trained weights", "yes": "random weights"}
EXAMPLES = 2
"""Images shown per network."""


def saliency_mean(source: Source) -> Reportlet:
    """The mean map of every network and method, the same of random weights beside it."""
    panels, data, notes = [], [], []
    items = explained(source)
    for item in items:
        ground = mean_ground(source, list(dict.fromkeys(item.table["image_id"])))
        for method in item.methods:
            pair = {said: item.mean(method, said) for said in WEIGHTS}
            largest = _largest([volume for volume, _ in pair.values()], ground)
            at = _strongest(pair["no"][0], ground)
            for said, (volume, count) in pair.items():
                title = f"{source.label(item.model)}, {TITLES[method]}, {WEIGHTS[said]}"
                note = f"{count} map{'' if count == 1 else 's'}"
                panels.append(picture(title, note, ground, volume, at, largest).render("chart brain", model=item.model))
            data += _table(item, method)
        notes += [SPACES[item.facts["space"]], *_about(source, item), f"Shown: {ground.shown}."]
    words = f"Mean saliency maps of {len(items)} networks over slices of the mean image, of trained and of random weights."
    return Reportlet(alt=words, panels=panels, data=pd.DataFrame(data), notes=list(dict.fromkeys(notes)), columns=2)


def _table(item: Explained, method: str) -> list[dict[str, object]]:
    """What stands behind a pair of mean maps."""
    rows = item.rows(method, "yes")
    return [
        {
            "model": item.model,
            "method": method,
            "weights": said,
            "maps": item.mean(method, said)[1],
            "maps_of_zeros": int((item.rows(method, said)["empty"] == "yes").sum()),
            "mean_rank_correlation": rows["rank_correlation"].mean() if said == "yes" else np.nan,
            "mean_ssim": rows["ssim"].mean() if said == "yes" else np.nan,
        }
        for said in WEIGHTS
    ]


def _about(source: Source, item: Explained) -> list[str]:
    """What must be known of the maps of one network."""
    found = []
    for method, reason in item.facts["skipped"].items():
        found.append(f"{source.label(item.model)}, {TITLES[method]}: not made, {reason}.")
    layer, methods = item.facts["layer"], item.methods
    if layer and "class_activation" in methods:
        edges = " \u00d7 ".join(str(edge) for edge in layer["shape"])
        found.append(f"{source.label(item.model)}: class activation is of {layer['name']}, whose maps have {edges} voxels.")
    return found + _empty(item, source.label(item.model))


def _empty(item: Explained, label: str) -> list[str]:
    """What maps of zeros mean: of all methods, that the output does not depend on the image."""
    rows = item.table[item.table["randomized"] == "no"].assign(empty=lambda table: table["empty"] == "yes")
    dead = rows.groupby("image_id")["empty"].all()
    found = []
    if dead.any():
        folds = ", ".join(sorted(set(rows.loc[rows["image_id"].map(dead), "fold"])))
        found.append(
            f"{label}: alarming: the output of fold {folds} does not depend on the image at all ({dead.sum()} of {len(dead)} images): "
            "every map is zero everywhere and does not enter the mean."
        )
    for method, part in rows[rows["empty"] & ~rows["image_id"].map(dead)].groupby("method", sort=False):
        found.append(f"{label}, {TITLES[str(method)]}: {len(part)} maps are zero everywhere, since nothing speaks for the class.")
    return found


def _largest(volumes: Sequence[NDArray[np.floating]], ground: Ground) -> float:
    """The value that gets the strongest colour: the 99.5th percentile of what is shown, over the volumes."""
    shown = np.isfinite(ground.grey)
    return max(float(np.percentile(np.abs(volume[shown]), 99.5)) for volume in volumes) or 1.0


def _strongest(volume: NDArray[np.floating], ground: Ground) -> tuple[int, int, int]:
    """Where a map is strongest among what is shown; the middle of what is shown where it is zero everywhere."""
    shown = np.isfinite(ground.grey)
    strength = np.where(shown, np.abs(volume), 0)
    if not strength.any():
        x, y, z = (round(float(places.mean())) for places in np.nonzero(shown))
        return x, y, z
    # of a box of equal values the middle, not a corner
    x, y, z = (round(float(places.mean())) for places in np.nonzero(strength == strength.max()))
    return x, y, z


def picture(
    title: str, note: str, ground: Ground, volume: NDArray[np.floating], at: tuple[int, int, int], largest: float
) -> Drawing:
    """Three planes (one of a 2D image) with a map over them, and its scale.

    Args:
        title: above it.
        note: quiet text at its right.
        ground: the grey picture.
        volume: (X, Y, Z) the map; 1 is an average voxel.
        at: voxel through which the slices go.
        largest: value of the strongest colour.
    """
    chosen = PLANES if min(ground.grey.shape) > 1 else PLANES[2:]
    edges = [size * spacing for size, spacing in zip(ground.grey.shape, ground.spacing, strict=True)]
    sizes = [(edges[1] if axis == 0 else edges[0], edges[1] if axis == 2 else edges[2]) for _, axis, _, _ in chosen]
    scale = min((WIDTH - GAP * (len(chosen) - 1)) / sum(across for across, _ in sizes), HEIGHT / max(up for _, up in sizes))
    height = max(up for _, up in sizes) * scale
    drawing = Drawing(WIDTH, HEAD + height + FOOT)
    drawing.text(0, 15, shortened(title, WIDTH - 60), "t b", tip=title)
    drawing.text(WIDTH, 15, note, "t e q")
    x = 0.0
    for (name, axis, before, after), (across, up) in zip(chosen, sizes, strict=True):
        grey, values = (np.take(item, at[axis], axis=axis) for item in (ground.grey, volume))
        top, wide = HEAD + height - up * scale, across * scale
        drawing.picture(x, top, wide, up * scale, slice_png(grey, values / largest))
        if len(chosen) == 3:
            drawing.text(x + 4, top + up * scale / 2 + 4, before, "t onpicture")
            drawing.text(x + wide - 4, top + up * scale / 2 + 4, after, "t e onpicture")
            drawing.text(x + wide / 2, HEAD + height + 13, name, "t m q")
        x += wide + GAP
    _scale(drawing, HEAD + height + 19, largest, signed=bool((volume < 0).any()))
    return drawing


def _scale(drawing: Drawing, top: float, largest: float, signed: bool) -> None:
    """The colour bar: what the strongest colours stand for."""
    low, words = (-1.0 if signed else 0.0), f"{rounded(largest, 1)} \u00d7 average voxel"
    left = 58.0 if signed else 16.0
    drawing.text(left - 5, top + 10, rounded(-largest, 1) if signed else "0", "t e q")
    bar = np.linspace(low, 1, 128)[:, None]
    drawing.picture(left, top, 128, 12, slice_png(np.full(bar.shape, 0.35), bar))
    drawing.text(left + 133, top + 10, words, "t q")


def slice_png(grey: NDArray[np.floating], values: NDArray[np.floating]) -> str:
    """A slice with colours over it as base64 PNG, the second axis going up; what is NaN in the grey picture is black, without colour.

    Args:
        grey: (A, B) within [0, 1].
        values: (A, B) within [-1, 1].
    """
    from PIL import Image

    hidden = ~np.isfinite(grey)
    pixels = overlaid(np.nan_to_num(grey), np.where(hidden, np.nan, values)).transpose(1, 0, 2)[::-1]
    step = max(1, -(-max(pixels.shape[:2]) // MOST_PIXELS))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def saliency_check(source: Source) -> Reportlet:
    """How alike the maps of trained and of random weights are, image by image."""
    panels, data, notes = [], [], []
    for item in explained(source):
        rows = item.table[item.table["randomized"] == "yes"]
        step, left = 38.0, 112.0
        title = source.label(item.model)
        lowest = min(-0.2, float(np.nan_to_num(rows["rank_correlation"]).min()) - 0.05)
        drawing, axes = panel(
            title,
            (lowest, 1.02),
            (0, 1),
            size=(420, 30 + step * len(item.methods) + 46),
            left=left,
            note=f"n = {_images(rows)} images",
        )
        axes.bottom_axis("rank correlation with random weights", grid=True)
        drawing.line(axes.px(ALIKE), axes.area[1], axes.px(ALIKE), axes.area[3], "reference", tip=f"{ALIKE}: alike")
        for index, method in enumerate(item.methods):
            part = rows[(rows["method"] == method) & rows["rank_correlation"].notna()]
            middle = axes.area[1] + step * (index + 0.5)
            drawing.text(left - 8, middle + 4, TITLES[method], "t e")
            tips = [f"{image}: {value:.2f}" for image, value in zip(part["image_id"], part["rank_correlation"], strict=True)]
            strip(axes, middle, 11, part["rank_correlation"].to_numpy(float), source.colour(item.model), tips)
            notes.append(f"{title}, {TITLES[method]}: {verdict(part)}")
        panels.append(drawing.render("chart", model=item.model))
        data.append(rows[["image_id", "fold", "model", "method", "explained", "target", "rank_correlation", "ssim"]])
    return Reportlet(
        alt=" ".join(notes), panels=panels, data=pd.concat(data, ignore_index=True), notes=[_compared(source), *notes], columns=2
    )


def _images(rows: pd.DataFrame) -> int:
    return int(rows["image_id"].nunique())


def _compared(source: Source) -> str:
    return f"At the dashed line ({ALIKE}) random weights explain half of the variance of the ranks."


def verdict(rows: pd.DataFrame) -> str:
    """What the check says of one method, in a sentence.

    Args:
        rows: of the random weights, with rank_correlation and ssim.
    """
    if rows.empty:
        return "no pair of maps could be compared, since one of each is constant."
    values, ssim = rows["rank_correlation"], rows["ssim"].mean()
    found = f"rank correlation {rounded(values.mean(), 2)} ({rounded(values.min(), 2)} to {rounded(values.max(), 2)}), "
    found += f"SSIM {rounded(ssim, 2)}, {len(rows)} pair{'' if len(rows) == 1 else 's'}: "
    if values.mean() >= ALIKE:
        return (
            found
            + "alarming: random weights give nearly the same maps, so they show the image or the architecture, not what was learned."
        )
    return found + "the maps change with the weights."


def saliency_examples(source: Source) -> Reportlet:
    """Single test images of every network: the first of the draw, of different classes where there are several."""
    panels, data = [], []
    for item in explained(source):
        for row in _examples(item, source.settings.task):
            image_id = str(row["image_id"])
            ground = ground_of(source, image_id)
            for method in item.methods:
                rows = item.rows(method, "no")
                place = int(rows.loc[rows["image_id"] == image_id, "map"].iloc[0])
                volume = np.asarray(item.maps[place])
                title = f"{image_id} ({_said(row['target'])}), {TITLES[method]}"
                drawing = picture(
                    title, source.label(item.model), ground, volume, _strongest(volume, ground), _largest([volume], ground)
                )
                panels.append(drawing.render("chart brain", model=item.model))
                data.append(
                    {"model": item.model, "method": method, "image_id": image_id, "fold": row["fold"], "target": row["target"]}
                )
    if not panels:
        raise Missing("every map is zero everywhere")
    alt = f"Saliency maps of single test images: {', '.join(dict.fromkeys(item['image_id'] for item in data))}."
    return Reportlet(alt=alt, panels=panels, data=pd.DataFrame(data), columns=2)


def _said(target: object) -> str:
    return f"{target:.4g}" if isinstance(target, float) else str(target)


def _examples(item: Explained, task: str) -> list[pd.Series]:
    """The first images whose maps are not all zero; of a classification each of another class as long as there are others."""
    filled = item.table[(item.table["randomized"] == "no") & (item.table["empty"] == "no")]
    rows = filled.sort_values("map", kind="stable").drop_duplicates("image_id")
    if task == "classification":
        first = rows.drop_duplicates("target")
        rows = pd.concat([first, rows.drop(first.index)])
    return [row for _, row in rows.head(EXAMPLES).iterrows()]


def saliency_regions(source: Source) -> Reportlet:
    """How much of the maps lies in each named region, against its size, for trained and random weights."""
    tables = [item.regions for item in explained(source)]
    rows = pd.concat(tables, ignore_index=True)
    if rows.empty:
        raise Missing("the dataset has no label image that names regions")
    # the label image with the most names tells the most
    label = rows.groupby("label")["structure"].nunique().sort_values(ascending=False, kind="stable").index[0]
    keys = ["model", "method", "structure", "randomized"]
    groups = rows[rows["label"] == label].groupby(keys, sort=False)
    found = groups[["share", "volume_share", "ratio"]].mean().unstack("randomized")
    spread = groups["ratio"].std().unstack("randomized")
    body, models = [], []
    order = found[("ratio", "no")].fillna(0).sort_values(ascending=False, kind="stable").index
    for index, row in found.loc[order].iterrows():
        assert isinstance(index, tuple)
        model, method, structure = (str(part) for part in index)
        body.append(
            [
                source.label(model),
                TITLES[method],
                structure,
                _percent(row[("volume_share", "no")]),
                _percent(row[("share", "no")]),
                _ratio(row[("ratio", "no")]),
                NONE if pd.isna(spread.loc[index, "no"]) else rounded(float(spread.loc[index, "no"]), 2),
                _ratio(row[("ratio", "yes")]),
            ]
        )
        models.append(model)
    columns = ["Model", "Method", "Region", "#% of voxels", "#% of the map", "#Ratio", "#SD over images", "#Ratio, random weights"]
    caption = f"Share of the absolute map in each region of {label}"
    table = Table(columns, body, caption, classes="sortable filterable", row_models=models)
    return Reportlet(tables=[table], data=rows, notes=[f"Regions of the label image {label}; background is all the rest."])


def _percent(value: float) -> str | Markup:
    return NONE if pd.isna(value) else exact(value, rounded(100 * float(value), 2))


def _ratio(value: float) -> str | Markup:
    return NONE if pd.isna(value) else exact(value, rounded(float(value), 2))
