"""The methods text, written after the run from what the run recorded; what was not recorded is said to be missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from gyri.report.parts import Missing, Reportlet
from gyri.report.source import Source

GAP = "[not available: {}]"
CENTRES = {"center": "the middle of the grid", "foreground": "the foreground", "mask": "the mask"}


def methods(source: Source) -> Reportlet:
    """One paragraph per stage."""
    paragraphs = []
    for name, write in PARAGRAPHS.items():
        try:
            text = write(source)
        except Missing as missing:
            text = GAP.format(missing)
        paragraphs.append(Markup("<p><b>{}.</b> {}</p>").format(name, text))
    note = "This text may be copied unchanged (CC0). It states what the run recorded, not what was planned."
    return Reportlet(body=Markup('<div class="methods">{}</div>').format(Markup("").join(paragraphs)), notes=[note])


def _settings(source: Source, stage: str) -> list[dict[str, Any]]:
    """The settings of every job of a stage.

    Raises:
        Missing: none is recorded.
    """
    found = [record for record in source.provenance if record.get("stage") == stage and isinstance(record.get("settings"), dict)]
    if not found:
        raise Missing(f"settings of the stage {stage}")
    return found


def _value(settings: Any, *keys: str) -> Any:
    """A setting, or a marked gap."""
    for key in keys:
        if not isinstance(settings, dict) or key not in settings:
            return GAP.format(".".join(keys))
        settings = settings[key]
    return settings


def _data(source: Source) -> str:
    facts, images = source.description, source.cohort
    people = images["participant_id"].nunique()
    name, groups = facts.get("name") or source.settings.dataset, images["group"].nunique()
    text = f"The dataset {name} has {len(images)} images of {people} participants in {groups} groups"
    text += f" ({', '.join(facts.get('channels', [])) or 'channels not available'})."
    gone = source.excluded["image_id"].nunique()
    text += f" {gone or 'No'} image{'s were' if gone != 1 else ' was'} excluded by the audit; {len(source.kept)} remain."
    if facts.get("identity") != "known":
        text += " No person is named in the data: each image was taken to be of its own person."
    return text


def _split(source: Source) -> str:
    settings = _settings(source, "split")[0]["settings"]
    columns = _value(settings, "split", "stratify")
    by = f"stratified by {', '.join(columns)}" if isinstance(columns, list) and columns else "not stratified"
    share = _value(settings, "split", "validation")
    share = f"{100 * share:.0f} %" if isinstance(share, float) else share
    seed = _value(settings, "split", "seed")
    text = f"Groups, never single images, were divided into {source.settings.folds} folds ({by}; seed {seed})."
    text += f" In each fold, {share} of the groups outside the test fold served as validation set."
    if source.pilot:
        text += f" Only {len(source.settings.run_folds)} of the folds were run ({', '.join(map(str, source.settings.run_folds))})."
    locked = source.splits[source.splits["role"] == "locked"]["group"].nunique()
    return text + (f" {locked} groups were locked away beforehand." if locked else "")


def _preprocessing(source: Source) -> str:
    settings = _settings(source, "preprocess")[0]["settings"]
    chosen = settings.get("preprocess", {})
    spacing = _value(chosen, "spacing_mm")
    grid = f"resampled to {spacing:g} mm isotropic voxels" if isinstance(spacing, int | float) else "kept at its voxel size"
    record = source.json(source.layout.dataset(source.settings.dataset, "images.json"))
    shape = " \u00d7 ".join(map(str, record.get("shape", []))) or GAP.format("shape")
    centre = _value(chosen, "crop")
    text = f"Each image was reoriented to RAS+, {grid} and cropped or padded to {shape} voxels"
    text += f" (centred on {CENTRES.get(centre, centre)})."
    text += f" Intensities were scaled per image ({_value(chosen, 'scaling')}, over the {_value(chosen, 'scaling_region')})."
    extras = [words for key, words in (("n4", "N4 bias field correction"), ("apply_mask", "masking")) if chosen.get(key)]
    if chosen.get("registration", "none") != "none":
        extras.append(f"affine registration to {chosen['registration']}")
    return text + (
        f" Also applied: {', '.join(extras)}." if extras else " No bias field correction, registration or masking was applied."
    )


def _normalization(source: Source) -> str:
    settings = _settings(source, "normalize")[0]["settings"]
    method = _value(settings, "normalize", "method")
    return f"Intensities were then normalized ({method}) with values fitted, in each fold, on its training participants only."


def _training(source: Source) -> str:
    records = [record for record in _settings(source, "train") if record.get("model") not in source.settings.baselines]
    sentences = []
    for model in source.networks:
        own = [record for record in records if record.get("model") == model]
        if own:
            sentences.append(_network(model, own[0], len(own)))
    if not sentences:
        raise Missing("no network was trained")
    chosen = "The epoch with the best validation result was kept."
    return " ".join([*sentences, chosen])


def _network(model: str, record: dict[str, Any], count: int) -> str:
    settings = record["settings"]
    training = settings.get("training", {})
    rate = _value(training, "learning_rate")
    text = f"{model} ({_value(settings, 'network')}; {count} training{'s' if count != 1 else ''}) was trained"
    text += f" for at most {_value(training, 'epochs')} epochs"
    text += f" with {_value(training, 'optimizer')}, batches of {_value(training, 'batch_size')}, a largest learning rate of"
    text += f" {rate:g}" if isinstance(rate, float) else f" {rate}"
    text += f" ({_value(training, 'schedule')} schedule), weight decay {_value(training, 'weight_decay')}"
    text += f" and the loss {_value(training, 'loss')}"
    augmented = "without augmentation" if settings.get("augmentation") is None else "with random augmentation of training images"
    where = record.get("device", GAP.format("device"))
    return f"{text}, {augmented}, on {where} with torch {_value(record.get('versions'), 'torch')}."


def _baselines(source: Source) -> str:
    names = ", ".join(source.settings.baselines)
    text = f"Baselines fitted on the same training participants: {names}." if names else "No baseline was fitted."
    if source.settings.ensembles:
        text += f" Ensembles, averaged inside each fold: {', '.join(source.label(name) for name in source.settings.ensembles)}."
    return text


def _evaluation(source: Source) -> str:
    settings = _settings(source, "evaluate")[0]["settings"]
    confidence = _value(settings, "evaluation", "confidence")
    level = f"{100 * confidence:g}\u00a0%" if isinstance(confidence, float) and math.isfinite(confidence) else confidence
    text = (
        f"All numbers are of test participants that the model in question never saw. {level} intervals come from resampling groups"
    )
    text += f" ({_value(settings, 'evaluation', 'resamples')} bootstrap resamples). "
    if source.settings.task == "classification":
        return text + "Ranking metrics such as AUROC are averaged over folds, since scores of different models cannot be pooled."
    if source.settings.task == "regression":
        return text + "Images of all folds are pooled, except for correlations, which are averaged over folds."
    return text + "Images of all folds are pooled."


PARAGRAPHS: dict[str, Callable[[Source], str]] = {
    "Data": _data,
    "Division": _split,
    "Preprocessing": _preprocessing,
    "Normalization": _normalization,
    "Training": _training,
    "Comparison": _baselines,
    "Evaluation": _evaluation,
}
