"""Methods text of models: architecture, training, augmentation, prediction, baselines and ensembles."""

from __future__ import annotations

from typing import Any

from gyri.report.parts import Missing
from gyri.report.source import Source
from gyri.report.told import Told, counted, first, listed, number, records, span

NORMALIZATIONS = {"instance": "[@ulyanov2016]", "group": "[@wu2018]", "batch": "[@ioffe2015]"}
NETWORKS = {
    "unet": "a U-Net [@ronneberger2015; @cicek2016]: two convolutions per level, down by stride 2, up by transposed convolutions",
    "conv5_fc3": "a network of five convolutional blocks with batch normalization [@ioffe2015] and three fully connected layers [@wen2020]",
}
OPTIMIZERS = {"adamw": "AdamW [@loshchilov2019]", "sgd": "stochastic gradient descent with Nesterov momentum 0.9 [@sutskever2013]"}
SCHEDULES = {
    "one_cycle": "rose linearly from 4 % over the first fifth of the steps and fell along a cosine [@smith2018]",
    "cosine": "fell along a cosine [@loshchilov2017]",
    "constant": "was constant",
}
LOSSES = {
    "dice_cross_entropy": "soft Dice [@drozdzal2016] plus cross-entropy [@isensee2021]",
    "cross_entropy": "cross-entropy",
    "mean_squared_error": "mean squared error (targets standardized by the training images)",
}
BASELINES = {
    ("majority", "classification"): "the frequencies of the training classes",
    ("majority", "segmentation"): "the frequency of each label at each voxel of the training images",
    ("mean", "regression"): "the mean of the training targets",
    ("linear", "classification"): "L2-regularized logistic regression on all voxels [@hastie2004]",
    ("linear", "regression"): "ridge regression on all voxels [@hastie2004]",
    (
        "linear",
        "segmentation",
    ): "multinomial logistic regression of each voxel's label on its intensity, smoothed intensity and place",
}
CHOSEN_BY = {"segmentation": "highest Dice", "classification": "lowest loss", "regression": "lowest loss"}


def networks(source: Source) -> list[str]:
    """Architecture and training of every network.

    Raises:
        Missing: no network was trained.
    """
    lines = []
    for model in source.networks:
        own = records(source, "train", model=model)
        if own:
            told = Told(own[0])
            lines += [_architecture(model, told), _target(told), *_training(model, told), _augmentation(told), _found(own, source)]
    if not lines:
        raise Missing("provenance of a trained network")
    return lines


def _architecture(model: str, told: Told) -> str:
    network = told("network")
    about = NETWORKS.get(network, f"the network {network}")
    given = dict(told("arguments", {}) or {})
    cited = NORMALIZATIONS.get(given.get("normalization", ""), "") if network == "unet" else ""
    values = [f"{key} {number(value)}" for key, value in given.items()]
    arguments = f" ({listed(values)}{' ' + cited if cited else ''})" if values else " (default arguments)"
    shown = {"image": "the whole preprocessed image"}.get(told("input.mode"), told("input.mode"))
    parameters = told.facts("parameters", None)
    size = f", {parameters:,} parameters".replace(",", "\u2009").replace("\u2009 ", ", ") if isinstance(parameters, int) else ""
    return f"Model {model}: {about}{arguments}{size}; its input was {shown}."


def _target(told: Told) -> str:
    classes = told("classes", None)
    named = f" with the classes {listed(classes)}" if classes else ""
    return f"It was trained for {told('task')} of {told('target')}{named}."


def _training(model: str, told: Told) -> list[str]:
    rate, schedule = number(told("training.learning_rate")), told("training.schedule")
    optimizer, loss = told("training.optimizer"), told("training.loss")
    decay = f"weight decay {number(told('training.weight_decay'))}" if told.on("training.weight_decay") else "no weight decay"
    lines = [
        f"It was trained for at most {counted(told('training.epochs'), 'epoch')} with {OPTIMIZERS.get(optimizer, optimizer)},"
        f" {decay}, in batches of {counted(told('training.batch_size'), 'image')}; the learning rate of at most {rate}"
        f" {SCHEDULES.get(schedule, schedule)}. Loss: {LOSSES.get(loss, loss)}."
    ]
    if told.on("training.micro_batch"):
        lines.append(f"Gradients were summed over parts of {counted(told('training.micro_batch'), 'image')}.")
    if told.on("training.gradient_clip"):
        lines.append(f"Gradients longer than {number(told('training.gradient_clip'))} were cut to that norm [@pascanu2013].")
    if told.on("training.class_weights"):
        lines.append("Classes were weighted by their inverse frequency in training [@king2001].")
    if told.on("training.weight_average"):
        decay = number(told("training.weight_average"))
        lines.append(f"An exponential moving average of the weights (decay {decay}) was what was evaluated [@polyak1992].")
    return lines + _stopping(told)


def _stopping(told: Told) -> list[str]:
    """Validation, the choice of the epoch, precision and seed."""
    every = told("training.validate_every")
    how_often = "after every epoch" if every == 1 else f"every {number(every)} epochs and after the last one"
    best = CHOSEN_BY.get(told("task"), "best result")
    lines = [f"Validation took place {how_often}; the weights of the epoch with the {best} on validation participants were kept."]
    if told.on("training.patience"):
        lines.append(f"Training stopped after {counted(told('training.patience'), 'epoch')} without a better one.")
    else:
        lines.append("Training was not stopped early.")
    precision, wanted = told.facts("precision", None), told("training.precision")
    computed = f"Computed in {precision} (setting: {wanted})" if precision else f"Precision: {wanted}"
    exact = {"strict": "with deterministic operations only", "fast": "with operations whose last digits may differ between runs"}
    mode = told("training.deterministic")
    lines.append(f"{computed}, {exact.get(mode, mode)}, {counted(told('threads'), 'thread')}, seed {number(told('seed'))}.")
    return lines


def _augmentation(told: Told) -> str:
    """Only the kinds of change that were switched on."""
    if told("augmentation", None) is None or not told.on("augmentation.probability"):
        return "Training images were not augmented."
    kinds = [words.format(number(told(f"augmentation.{key}"))) for key, words in CHANGES.items() if told.on(f"augmentation.{key}")]
    if told.on("augmentation.elastic"):
        nodes = number(told("augmentation.elastic_grid"))
        kinds.append(
            f"elastic deformations (standard deviation {number(told('augmentation.elastic'))} of the edge, {nodes} nodes per axis)"
        )
    if told.on("augmentation.mirror"):
        kinds.append(f"mirroring along {listed(told('augmentation.mirror'))}")
    if not kinds:
        return "Training images were not augmented."
    chance = number(told("augmentation.probability"))
    return f"Training images were changed at random, each kind of change with probability {chance}: {listed(kinds)}."


CHANGES = {
    "rotation_deg": "rotations up to {}° about each axis",
    "scale": "changes of size up to a factor of 1 ± {}",
    "translation": "shifts up to {} of the edge",
    "gamma": "contrast exponents up to exp(± {})",
    "intensity_scale": "changes of contrast up to a factor of 1 ± {}",
    "intensity_shift": "shifts of intensity up to {} standard deviations",
    "noise": "Gaussian noise up to {} standard deviations",
}


def _found(own: list[dict[str, Any]], source: Source) -> str:
    """What the trainings of one network recorded when they ended."""
    facts = [Told(record, "facts") for record in own]
    epochs = [fact("best_epoch") for fact in facts if isinstance(fact("best_epoch", None), int)]
    devices = listed(sorted({str(record.get("device", "not available")) for record in own}))
    text = f"{counted(len(own), 'training')} (folds and seeds) ran on {devices}"
    if epochs:
        text += f"; the chosen epoch was {span(epochs)}"
    early = sum(bool(fact("stopped_early", False)) for fact in facts)
    return text + (f"; {early} stopped early." if early else ".")


def baselines(source: Source) -> list[str]:
    """The models that everything else is compared with."""
    if not source.settings.baselines:
        return ["No baseline was fitted."]
    lines = []
    for name in source.settings.baselines:
        own = records(source, "train", model=name)
        told = Told(own[0]) if own else Told({})
        network = told("network", name)
        about = BASELINES.get((network, source.settings.task), f"the model {network}")
        given = [f"{key} {number(value)}" for key, value in (told("arguments", {}) or {}).items()]
        extra = f" ({listed(given)})" if given else ""
        chosen = ", its regularization chosen on validation participants" if network == "linear" else ""
        lines.append(f"Baseline {name}: {about}{extra}{chosen}.")
    return [*lines, "Baselines were fitted on the same training participants as the networks."]


def prediction(source: Source) -> list[str]:
    """How test participants were predicted, and what was averaged."""
    lines = []
    mirrors: dict[str, list[str]] = {}
    sizes: dict[str, list[str]] = {}
    for model in source.networks:
        told = first(source, "predict-fold", model=model)
        mirrors.setdefault(listed(told("mirror", [])), []).append(model)
        sizes.setdefault(number(told("batch_size")), []).append(model)
    for size, models in sizes.items():
        lines.append(f"Validation and test participants of each fold were predicted in batches of {size} ({listed(models)}).")
    for axes, models in mirrors.items():
        if axes:
            lines.append(f"Predictions were averaged over images mirrored along {axes} ({listed(models)}).")
    if source.settings.task == "segmentation":
        lines.append("Probabilities were brought back to the grid of each image, and the most probable label was taken last.")
    for name in source.settings.ensembles:
        lines.append(_ensemble(source, name))
    return lines


def _ensemble(source: Source, name: str) -> str:
    told = first(source, "ensemble", model=name)
    members = [f"{model} (seed {seed})" for model, seed in told("members", [])]
    text = f"Ensemble {source.label(name)}: probabilities or values of {listed(members)} averaged inside each fold"
    if told.on("folds"):
        text += f", and over the folds {listed(told('folds'))}"
    if told.on("allow_mixed"):
        text += ", although some were trained under other conditions"
    if told.on("allow_changed_batch"):
        text += ", with leave to average trainings that lack of memory had changed"
    return text + "."
