"""A viewer that steps through a volume in three planes, with truth and prediction over it; viewer.js draws what this module packs."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from gyri.errors import DataError
from gyri.report.cases import Case, packed_case, segmented_case
from gyri.report.gallery import case_scores, line_mark
from gyri.report.parts import Missing, Reportlet
from gyri.report.results import chosen_model, rounded
from gyri.report.source import Source
from gyri.report.tables_results import worst_rows

MOST_CASES = 5
"""Volumes in one page."""
MOST_VOXELS = 350_000
"""Voxels of an embedded volume; finer ones are thinned out. Five such volumes of noise take 3 MB of the 8 MB of a page."""
WINDOW = (1.0, 99.5)
"""Percentiles of the shown voxels that become black and white."""


def segmentation_viewer(source: Source) -> Reportlet:
    """Best, median and the worst cases of the best model with truth and prediction."""
    model = chosen_model(source)
    scores = case_scores(source, model)
    predictions = source.one_seed(source.predictions, model).drop_duplicates("image_id").set_index("image_id")["prediction"]
    last = len(scores) - 1
    places = {0: "best", round(0.5 * last): "median", last: "worst"}
    chosen = [*sorted(places, reverse=True), *range(last - 1, -1, -1)]
    ranks = list(dict.fromkeys(chosen))[:MOST_CASES]
    rows = {
        str(scores.index[rank]): f"{places.get(rank, f'{last - rank + 1}. worst')}: Dice {rounded(scores['value'].iloc[rank], 3)}"
        for rank in ranks
    }

    def load(image_id: str) -> Case:
        if image_id not in predictions.index:
            raise Missing("no row in predictions.tsv")
        return segmented_case(source, image_id, str(predictions[image_id]))

    names = source.description.get("labels", {}).get(source.settings.target, {})
    structures = {int(value): str(name) for value, name in names.items() if value != "0"}
    return _viewer(source, rows, load, dict(sorted(structures.items())))


def worst_viewer(source: Source) -> Reportlet:
    """The images that the best model gets most wrong, on the network's grid."""
    rows = {
        str(row.image_id): f"true {row.target}, predicted {_short(row.prediction)}"
        for row in worst_rows(source).head(MOST_CASES).itertuples()
    }
    return _viewer(source, rows, lambda image_id: packed_case(source, image_id), {})


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _viewer(source: Source, rows: dict[str, str], load: Callable[[str], Case], structures: dict[int, str]) -> Reportlet:
    """The controls and the packed volumes.

    Args:
        source: the experiment.
        rows: what is said of each image, by its id.
        load: reads one.
        structures: label value -> name; none where the task has no labels.
    """
    options, volumes, data, problems, ways = [], [], [], [], []
    for image_id, words in rows.items():
        try:
            case = load(image_id)
        except (DataError, Missing, OSError, ValueError, KeyError) as error:
            reason = error.problems[0].got if isinstance(error, DataError) else str(error)
            problems.append(f"Not available: {image_id} ({reason}).")
            continue
        options.append(Markup("<option>{} · {}</option>").format(words, image_id))
        volumes.append(volume(case, bool(structures)))
        ways.append(case.shown)
        data.append({"image_id": image_id, "shown": words})
    if not options:
        raise Missing(" ".join(problems) or "no case")
    notes = [f"Model: {source.label(chosen_model(source))}. Of each image is shown: {'; '.join(dict.fromkeys(ways))}.", *problems]
    body = Markup('<div class="viewer" data-viewer hidden>{}{}<div class="planes"></div>{}</div>{}').format(
        Markup('<p class="controls"><label>Case <select data-case>{}</select></label></p>').format(Markup("").join(options)),
        _layers(structures) if structures else "",
        Markup("").join(volumes),
        Markup('<p class="note" data-without>Stepping through volumes needs JavaScript.</p>'),
    )
    legend = [(line_mark("truth"), "truth"), (line_mark("prediction"), "prediction")] if structures else []
    return Reportlet(body=body, legend=legend, data=pd.DataFrame(data), notes=notes)


def _layers(structures: dict[int, str]) -> Markup:
    """Controls of what is laid over the image."""
    boxes = [Markup('<label><input type="checkbox" checked value="{}"> {}</label>').format(*item) for item in structures.items()]
    return Markup(
        '<p class="controls"><label><input type="checkbox" checked data-layer="truth"> Truth</label>'
        '<label><input type="checkbox" checked data-layer="prediction"> Prediction</label>'
        '<label>Drawn as <select data-style><option value="outline">outlines</option><option value="filled">areas</option></select>'
        '</label><label>Opacity <input type="range" min="0" max="100" value="90" data-opacity></label></p>'
        '<fieldset class="controls" data-structures><legend>Structures</legend>{}</fieldset>'
    ).format(Markup("").join(boxes))


def volume(case: Case, labelled: bool) -> Markup:
    """A case as an element that viewer.js reads: sizes, and bytes (X fastest) compressed by zlib; grey values as differences."""
    step = thinning(case.image.shape, case.spacing)
    image = case.image[:: step[0], :: step[1], :: step[2]]
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, WINDOW) if finite.size else (0.0, 1.0)
    scaled = np.clip((np.nan_to_num(image, nan=low) - low) / max(float(high - low), 1e-9), 0, 1)
    grey = np.rint(scaled * 255).astype(np.uint8).ravel(order="F")
    packed = {"image": np.diff(grey, prepend=np.uint8(0))}  # modulo 256
    if labelled:
        for name, labels in (("truth", case.truth), ("prediction", case.prediction)):
            packed[name] = np.clip(labels[:: step[0], :: step[1], :: step[2]], 0, 255).astype(np.uint8).ravel(order="F")
    attributes = {name: base64.b64encode(zlib.compress(values.tobytes(), 9)).decode() for name, values in packed.items()}
    attributes["size"] = " ".join(map(str, image.shape))
    attributes["spacing"] = " ".join(f"{edge * by:.4g}" for edge, by in zip(case.spacing, step, strict=True))
    middle = middle_of(case)
    attributes["middle"] = " ".join(str(at // by) for at, by in zip(middle, step, strict=True))
    attributes["oriented"] = "yes" if case.oriented else ""
    pairs = "".join(f' data-{name}="{escape(value)}"' for name, value in sorted(attributes.items()))
    return Markup(f'<div class="volume" hidden{pairs}></div>')


def thinning(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, int, int]:
    """Of how many voxels along each axis one is kept; the finest axis is thinned first."""
    step = [1, 1, 1]
    while math.prod(-(-size // by) for size, by in zip(shape, step, strict=True)) > MOST_VOXELS:
        axis = min((axis for axis in range(3) if shape[axis] > step[axis]), key=lambda axis: spacing[axis] * step[axis])
        step[axis] += 1
    return step[0], step[1], step[2]


def middle_of(case: Case) -> tuple[int, int, int]:
    """Where the viewer begins: the middle of what is labelled, else of the image."""
    marked: NDArray[Any] = case.truth > 0 if case.truth.any() else case.prediction > 0
    if not marked.any():
        x, y, z = (size // 2 for size in case.image.shape)
        return x, y, z
    x, y, z = (round(float(np.mean(axis))) for axis in np.nonzero(marked))
    return x, y, z
