"""Ensembles: members of one fold are averaged on that fold's images; folds are averaged on the locked participants only.

Probabilities are averaged (values for regression) with equal weights. Label maps: averaged on the network's grid, then brought back
to the original grid, the most probable label last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.batches import batches_of
from gyri.config.experiments import EnsembleSettings
from gyri.errors import DataError, LeakageError, Problem, shown
from gyri.images import channel_columns, label_columns, map_suffix, save_labels, verify_row
from gyri.io import read_array, read_json
from gyri.layout import Layout
from gyri.loading import Target, find_target
from gyri.progress import Progress
from gyri.tables import class_text, read_table, row_of, write_table
from gyri.transforms.spatial import SpatialRecord

SAME = ["image_id", "participant_id", "group", "role", "target"]  # what members must agree on
OVER_FOLDS = "all"
AGAIN = "predict with this member again (snakemake does it for you)"


@dataclass(frozen=True)
class Member:
    """One run that is averaged.

    Args:
        model: its name.
        seed: its seed index.
        fold: its fold.
        folder: where its predictions.tsv and probabilities.npy lie.
        table: predictions.tsv.
    """

    model: str
    seed: int
    fold: str
    folder: Path
    table: pd.DataFrame

    @property
    def probabilities(self) -> list[str]:
        """Probability columns, in order."""
        return [column for column in self.table.columns if column.startswith("probability_")]


def run(settings: EnsembleSettings, layout: Layout, dataset: str, experiment: str, name: str, fold: int | str) -> dict[str, Any]:
    """Average the members of an ensemble.

    Args:
        settings: the members.
        layout: the results folder.
        dataset: its name.
        experiment: its name, or `<experiment>/locked`.
        name: of the ensemble.
        fold: number of the fold, or `all`: average over the folds too, which only locked participants allow.

    Returns:
        Facts for provenance.

    Raises:
        LeakageError: an average over folds on participants that some of these folds trained on.
        DataError: members are missing, or did not predict the same images with the same targets and classes.
    """
    members = _members(settings, layout, experiment, str(fold))
    _refuse_leakage(members, str(fold))
    cards = _cards(members, layout, experiment)
    if not settings.allow_mixed:
        _check_conditions(cards)
    if not settings.allow_changed_batch:
        _check_batches(cards)
    _check_same(members)
    table = members[0].table[SAME[:3]].assign(fold=str(fold), role=members[0].table["role"], model=name, seed="all")
    table["target"] = members[0].table["target"]
    if members[0].probabilities:
        _average_classes(table, members)
    elif read_array(members[0].folder / "probabilities.npy").ndim == 5:
        _average_maps(table, members, layout, dataset, experiment)
    else:
        table["prediction"] = _mean([member.table["prediction"].to_numpy(np.float64) for member in members])
    write_table(layout.run(experiment, name, fold, "all", "predictions.tsv"), table, "predictions")
    named = [f"{member.model}, fold {member.fold}, seed {member.seed}" for member in members]
    return {"device": "cpu", "images": len(table), "members": named}


def _members(settings: EnsembleSettings, layout: Layout, experiment: str, fold: str) -> list[Member]:
    """Open the predictions of every member; over folds, of every fold that is there."""
    found, problems = [], []
    for model, seed in settings.members:
        for one in [str(number) for number in settings.folds] if fold == OVER_FOLDS else [fold]:
            folder = layout.run(experiment, model, one, seed)
            absent = [file for file in ("predictions.tsv", "probabilities.npy") if not (folder / file).is_file()]
            problems += [Problem(str(folder / file), "no such file", "predictions of every member", AGAIN) for file in absent]
            if not absent:
                found.append(Member(model, seed, one, folder, read_table(folder / "predictions.tsv", "predictions")))
    if not found and not problems:
        remedy = "name the folds (the workflow takes `run_folds`)"
        problems.append(Problem(f"ensemble of {experiment}", "no folds to average over", "at least one fold", remedy))
    if problems:
        raise DataError(problems)
    return found


def _refuse_leakage(members: list[Member], fold: str) -> None:
    """Refuse to average models over folds on participants that another fold trained on."""
    if fold != OVER_FOLDS and all((member.table["fold"] == fold).all() for member in members):
        return
    problems = []
    for member in members:
        roles = sorted(set(member.table["role"]) - {"locked"})
        if roles:
            expected = "locked participants only: every other participant was trained on in another fold"
            remedy = "average over seeds or models inside a fold, or over folds on a locked set (`split: {locked: ...}`)"
            where = str(member.folder / "predictions.tsv")
            got = f"an average over folds on the roles {', '.join(roles)}"
            problems.append(Problem(where, got, expected, remedy))
    if problems:
        raise LeakageError(problems)


def _cards(members: list[Member], layout: Layout, experiment: str) -> dict[Path, dict[str, Any]]:
    """model.json of every member that was trained (baselines are fitted under no conditions that matter)."""
    trained = experiment.removesuffix("/locked")
    paths = [layout.run(trained, member.model, member.fold, member.seed, "model.json") for member in members]
    return {path: card for path in paths if (card := read_json(path))["conditions"]}


def _check_conditions(cards: dict[Path, dict[str, Any]]) -> None:
    """Refuse members that were trained under different torch, CUDA, cuDNN or kinds of device."""
    remedy = "train both under the same conditions, or set ensemble.allow_mixed: true, which the report then says"
    _check_equal({path: str(card["conditions"]) for path, card in cards.items()}, remedy)


def _check_batches(cards: dict[Path, dict[str, Any]]) -> None:
    """Refuse members of which some ran out of memory and were trained otherwise than the rest for it."""
    remedy = (
        "lower training.batch_size until it fits, or set allow_changed_batch: true in the experiment, which the report then says"
    )
    _check_equal({path: str(batches_of(card)) for path, card in cards.items()}, remedy)


def _check_equal(found: dict[Path, str], remedy: str) -> None:
    first = next(iter(found.items()), None)
    problems = [
        Problem(str(path), value, f"{first[1]}, as in {first[0]}", remedy)
        for path, value in found.items()
        if first is not None and value != first[1]
    ]
    if problems:
        raise DataError(problems)


def _check_same(members: list[Member]) -> None:
    """Refuse members that predicted other images, targets or classes than the first one."""
    first, problems = members[0], []
    for member in members:
        where = str(member.folder / "predictions.tsv")
        images, others = set(member.table["image_id"]), set(first.table["image_id"])
        if images != others:
            got = f"without {shown(sorted(others - images)) or 'none'}, with {shown(sorted(images - others)) or 'none'} besides"
            problems.append(Problem(where, got, f"the images of {first.folder / 'predictions.tsv'}", AGAIN))
        elif not member.table[SAME].equals(first.table[SAME]):
            differ = (member.table[SAME] != first.table[SAME]).any(axis=1)
            got = f"other rows for {shown(member.table.loc[differ, 'image_id'])}"
            expected = f"{', '.join(SAME)} as in {first.folder / 'predictions.tsv'}, in the same order"
            problems.append(Problem(where, got, expected, AGAIN))
        if member.probabilities != first.probabilities:
            problems.append(Problem(where, f"the columns {member.probabilities}", f"{first.probabilities}", AGAIN))
    if problems:
        raise DataError(problems)


def _average_classes(table: pd.DataFrame, members: list[Member]) -> None:
    """Fill in averaged probabilities and the class decided for (the first in order on a tie)."""
    columns = members[0].probabilities
    mean = _mean([member.table[columns].to_numpy(np.float64) for member in members])
    names = [column.removeprefix("probability_") for column in columns]
    table["target"] = [class_text(value) for value in table["target"]]
    table["prediction"] = [names[index] for index in mean.argmax(1)]
    for index, column in enumerate(columns):
        table[column] = mean[:, index]


def _average_maps(table: pd.DataFrame, members: list[Member], layout: Layout, dataset: str, experiment: str) -> None:
    """Write averaged label maps and fill in their paths."""
    cohort = read_table(layout.dataset(dataset, "cohort.tsv"), "cohort").set_index("image_id", drop=False)
    root = Path(read_json(layout.dataset(dataset, "dataset.json"))["root"])
    manifest = {row["image_id"]: row for row in read_json(layout.dataset(dataset, "images.json"))["rows"]}
    target = _label_target(table, cohort, layout, dataset)
    arrays = _open_arrays(members, len(table), len(target.names))
    output = layout.run(experiment, str(table["model"].iloc[0]), str(table["fold"].iloc[0]), "all")
    for old in (output / "maps").glob("*"):
        old.unlink()
    progress, written = Progress(f"{experiment}/{table['model'].iloc[0]}, fold {table['fold'].iloc[0]}: average", len(table)), []
    for index, image_id in enumerate(table["image_id"]):
        row = row_of(cohort, image_id)
        verify_row(row, root)
        like = next(root / row[column] for column in channel_columns(cohort.columns) if row[column])
        record = SpatialRecord.from_json(manifest[image_id]["spatial"])
        mean = _mean([np.asarray(array[index], np.float32) for array in arrays])
        labels = target.decode_labels(record.invert(mean).argmax(0))
        path = output / "maps" / f"{image_id}{map_suffix(like)}"
        save_labels(path, labels, np.asarray(record.original_affine), like)
        written.append(str(path.relative_to(layout.experiment(experiment))))
        progress.step()
    table["prediction"] = written


def _label_target(table: pd.DataFrame, cohort: pd.DataFrame, layout: Layout, dataset: str) -> Target:
    """Which label image the members predict: the one whose paths stand in the column `target`."""
    for column in label_columns(cohort.columns):
        if list(cohort.loc[table["image_id"], column]) == list(table["target"]):
            return find_target(layout, dataset, "segmentation", column, None)
    where = str(layout.dataset(dataset, "cohort.tsv"))
    got = "no label column with the paths that the members name as their target"
    raise DataError(Problem(where, got, "the cohort that the members were trained on", "run the experiment again"))


def _open_arrays(members: list[Member], rows: int, classes: int) -> list[NDArray[Any]]:
    """The members' probabilities (rows, K, X, Y, Z), memory-mapped."""
    arrays = [read_array(member.folder / "probabilities.npy") for member in members]
    shape = (rows, classes, *arrays[0].shape[2:])
    wrong = [(member, array) for member, array in zip(members, arrays, strict=True) if array.shape != shape]
    if wrong:
        raise DataError(
            [
                Problem(str(member.folder / "probabilities.npy"), f"shape {array.shape}", f"{shape}", AGAIN)
                for member, array in wrong
            ]
        )
    return arrays


def _mean(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """The mean, summed in the order of the members."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total / total.dtype.type(len(arrays))
