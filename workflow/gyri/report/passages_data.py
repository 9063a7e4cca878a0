"""Methods text of the stages before training; each function gives the sentences of one stage, keyed by its settings."""

from __future__ import annotations

from typing import Any

from gyri.report.parts import Missing
from gyri.report.source import Source
from gyri.report.told import Told, counted, first, listed, number, percent

CENTRES = {"center": "the middle of the grid", "foreground": "the foreground [@otsu1979]", "mask": "the mask"}
FORMATS = {
    "bids": "in the Brain Imaging Data Structure [@gorgolewski2016]",
    "msd": "in the form of the Medical Segmentation Decathlon [@antonelli2022]",
}
SCALINGS = {
    "robust": "Each channel was scaled by itself: median to 0, the range from the 5th to the 95th percentile to 2, cut at ±5",
    "zscore": "Each channel was scaled by itself to mean 0 and standard deviation 1",
}
REGIONS = {"image": "the whole image", "foreground": "the foreground [@otsu1979]", "mask": "the mask"}
EFFECTS = ("age_effect", "diagnosis_effect", "sex_effect", "site_effect")


def data(source: Source) -> list[str]:
    """Who was in the dataset, and where it came from."""
    facts, images = source.description, source.cohort
    people, groups = images["participant_id"].nunique(), images["group"].nunique()
    name = facts.get("name") or source.settings.dataset
    lines = [
        f"The dataset {name} had {counted(len(images), 'image')} of {counted(people, 'participant')} in {counted(groups, 'group')}."
    ]
    lines[0] = lines[0][:-1] + f" (channels: {listed(facts.get('channels') or ['not available'])})."
    if facts.get("group_source"):
        lines.append(f"A group is what stays together in every split; it was taken from {facts['group_source']}.")
    if facts.get("identity") != "known":
        lines.append("No person is named in the data: each image was taken to be of its own person.")
    lines.append(f"Licence: {facts.get('licence') or 'not stated by the data'}.")
    if facts.get("reference"):
        lines.append(f"Reference given by the data: {facts['reference']}")
    try:
        told = first(source, "dataset")
    except Missing as missing:
        return [*lines, f"[not available: {missing}]"]
    if told.on("source.group"):
        lines.append(f"Setting of the group: {told('source.group')}.")
    if told.on("source.site"):
        lines.append(f"The site was read from the column {told('source.site')}.")
    kind = told("source.format")
    return lines + (_synthetic(told) if kind == "synthetic" else _read(told, kind))


def _synthetic(told: Told) -> list[str]:
    """How an artificial cohort was made."""
    lines = [
        f"The cohort is synthetic, no person was scanned: {counted(told('source.participants'), 'participant')} at"
        f" {counted(told('source.sites'), 'site')} were generated from the MNI152 templates [@fonov2009; @abraham2014] with voxels of"
        f" {number(told('source.spacing_mm'))} mm ({listed(told('source.contrasts', []))}; seed {number(told('source.seed'))}),"
        f" {percent(told('source.multi_session'))} of them with several sessions and {percent(told('source.twins'))} of them twins,"
        f" {'with' if told.on('source.head') else 'without'} an invented skull and face."
    ]
    effects = [f"{key.removesuffix('_effect')} {number(told('source.' + key))}" for key in EFFECTS]
    return [*lines, f"Multipliers of the built-in effects (0 removes one): {listed(effects)}."]


def _read(told: Told, kind: str) -> list[str]:
    """How images were found."""
    lines = [f"Images and tables were read {FORMATS.get(kind, 'from a table of file names')}."]
    for key, words in (("images", "images"), ("labels", "label images"), ("mask", "masks")):
        if told.on(f"source.{key}"):
            lines.append(f"Selection of {words}: {_selection(told(f'source.{key}'))}.")
    if told.on("source.label_values"):
        lines.append(f"Names of label values: {_selection(told('source.label_values'))}.")
    columns = [f"{words} {told(f'source.{key}')}" for key, words in COLUMNS.items() if told.on(f"source.{key}")]
    if columns:
        lines.append(f"Columns: {listed(columns)}.")
    return lines


COLUMNS = {"image_id": "image", "participant": "participant", "session": "session"}


def _selection(value: Any) -> str:
    if isinstance(value, dict):
        return listed(f"{key} ({_selection(item)})" for key, item in value.items())
    return listed(value) if isinstance(value, list) else number(value)


def audit(source: Source) -> list[str]:
    """What was looked at before anything was computed."""
    told = first(source, "audit")
    low, high = told("audit.spacing_mm", ["?", "?"])
    lines = [
        "Every image was read and compared with all others before anything was computed: readability, voxel spacing (plausible:"
        f" {number(low)} to {number(high)} mm), duplicates, the same person under several names, and neighbours in file order that"
        f" resemble each other ({counted(told('audit.permutations'), 'permutation')}, seed {number(told('audit.seed'))} [@phipson2010])."
    ]
    gone, total = source.excluded["image_id"].nunique(), len(source.cohort)
    rule = {
        "stop": "a run with such an image stops unless it is told to go on",
        "continue": "the run was told to go on without such images",
    }
    lines.append(
        f"{gone} of {total} images were excluded, {len(source.kept)} remained; {rule.get(told('audit.on_exclude'), told('audit.on_exclude'))}."
    )
    if told.on("audit.acknowledge"):
        lines.append(f"Findings that were looked at and accepted: {listed(told('audit.acknowledge'))}.")
    return lines


def split(source: Source) -> list[str]:
    """How groups were divided."""
    told = first(source, "split")
    if told.on("split.file"):
        return [
            f"The split was given: a file said which participant has which role in which of {number(told('folds'))} folds.",
            *_folds(source),
        ]
    seed = number(told("split.seed"))
    if told.on("split.leave_one_site_out"):
        lines = [f"Each of {number(told('folds'))} sites in turn was the test fold (seed {seed})."]
    else:
        lines = [f"Groups, never single images, were divided at random into {counted(told('folds'), 'fold')} (seed {seed})."]
    columns = told("split.stratify", [])
    if columns:
        balanced = f"Roles were balanced by {listed(columns)} [@sechidis2011]"
        lines.append(f"{balanced}; continuous columns in {number(told('split.bins'))} quantile bins.")
    else:
        lines.append("The division was not stratified.")
    lines.append(f"In each fold {percent(told('split.validation'))} of the groups outside the test fold served as validation set.")
    if told.on("split.locked"):
        locked = source.splits[source.splits["role"] == "locked"]["group"].nunique()
        lines.append(f"{percent(told('split.locked'))} of the groups ({locked}) were locked away from every fold beforehand.")
    return lines + _folds(source)


def _folds(source: Source) -> list[str]:
    if not source.pilot:
        return []
    done = ", ".join(map(str, source.settings.run_folds))
    return [f"Only {len(source.settings.run_folds)} of {source.settings.folds} folds were run (fold {done})."]


def preprocess(source: Source) -> list[str]:
    """What was done to each image by itself."""
    told = first(source, "preprocess")
    shape = (
        told.facts("shape", None)
        or told("shape", None)
        or source.json(source.layout.dataset(source.settings.dataset, "images.json")).get("shape")
    )
    grid = " \u00d7 ".join(map(str, shape)) if shape else "[not available: shape]"
    first_words = []
    if told.on("volume") or told("volume", None) == 0:
        first_words.append(f"Of 4D images the volume number {number(told('volume'))} was taken.")
    if told.on("spacing_mm"):
        first_words.append(f"Pixels of images without a spacing were taken to be {listed(told('spacing_mm'), 'by')} mm.")
    if told.on("preprocess.n4"):
        first_words.append("Bias fields were corrected with N4 [@tustison2010] in SimpleITK [@lowekamp2013].")
    if told("preprocess.registration", "none") == "mni152":
        first_words.append(
            "Images were registered affinely to the MNI152 template [@fonov2009] by mutual information [@mattes2003] in SimpleITK"
            " [@lowekamp2013]."
        )
    spacing = told("preprocess.spacing_mm", None)
    resampled = (
        f"resampled to {number(spacing)} mm isotropic voxels [@cardoso2015]" if spacing else "not resampled to another voxel size"
    )
    crop = told("preprocess.crop")
    lines = [
        *first_words,
        f"Each image was brought to the orientation RAS+, {resampled}, and cropped or padded to {grid} voxels around {CENTRES.get(crop, crop)}.",
    ]
    if told.on("preprocess.apply_mask"):
        lines.append("Voxels outside the mask were set to zero.")
    if source.settings.task == "segmentation":
        label = {"nearest": "by nearest neighbour", "labelwise": "label by label, linearly, the largest winning"}
        how = told("preprocess.label_interpolation")
        lines.append(f"Where label images had to be interpolated, this was done {label.get(how, how)}.")
    scaling, region = told("preprocess.scaling"), told("preprocess.scaling_region")
    if scaling == "none":
        return [*lines, "Intensities were not scaled per image."]
    return [*lines, f"{SCALINGS.get(scaling, scaling)}, computed over {REGIONS.get(region, region)}."]


def normalize(source: Source) -> list[str]:
    """What was fitted on the training participants of a fold."""
    told = first(source, "normalize")
    method = told("normalize.method")
    if method == "none":
        return ["Nothing was normalized beyond that."]
    epsilon = f"{number(told('normalize.epsilon'))} was added to variances"
    simple = {
        "global": "one mean and standard deviation per channel were",
        "voxel": "a mean and standard deviation of every voxel were",
    }
    if method in simple:
        return [f"Then {simple[method]} fitted, in each fold on its training participants only, and divided out ({epsilon})."]
    sources = {"pca": "[@kessy2018]", "zca": "[@bell1997; @kessy2018]"}
    kept = (
        f", {number(told('normalize.components'))} components kept" if method == "pca" and told.on("normalize.components") else ""
    )
    return [
        f"Then images were whitened ({str(method).upper()} {sources.get(method, '')}{kept}) by patches with an edge of"
        f" {counted(told('normalize.patch'), 'voxel')}, fitted in each fold on {number(told('normalize.samples'))} patches of its training"
        f" participants only (seed {number(told('normalize.seed'))}; {epsilon})."
    ]
