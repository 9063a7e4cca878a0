"""A small results tree that looks like that of a finished run, for the tests of the report and for looking at pages."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from gyri.config.experiments import ReportSettings
from gyri.evaluate.chance import COLUMNS as CHANCE
from gyri.evaluate.comparisons import COLUMNS as PAIRS
from gyri.evaluate.subgroups import COLUMNS as PARTS
from gyri.images import row_digests
from gyri.io import write_array, write_json
from gyri.layout import Layout
from gyri.metrics import HEADLINE
from gyri.seeds import generator
from gyri.tables import COLUMNS, write_table
from gyri.transforms.spatial import SpatialRecord
from report_fixture_more import more, more_cases

FOLDS = 3
STRUCTURES = {"0": "background", "1": "Anterior", "2": "Posterior"}
CLASSES = ("control", "patient")
MODELS = {
    "segmentation": {"unet": 2, "dilated": 1, "majority": 1, "linear": 1},
    "classification": {"conv5_fc3": 2, "majority": 1, "linear": 1},
    "regression": {"conv5_fc3": 2, "mean": 1, "linear": 1},
}
SKILL = {"unet": 0.9, "dilated": 0.84, "conv5_fc3": 0.8, "linear": 0.55, "majority": 0.0, "mean": 0.0}
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -40], [0, 0, 2.0, -20], [0, 0, 0, 1]])
VERSIONS = {"gyri": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "torch": "2.10.0", "pandas": "3.0.1", "nibabel": "5.3.2"}


def settings_of(task: str, experiment: str, run_folds: list[int] | None = None) -> ReportSettings:
    """What the report is told of one of the three experiments."""
    models = MODELS[task]
    network = next(iter(models))
    ensembles: dict[str, list[tuple[str, int]]] = {f"ensemble.seeds.{network}": [(network, 0), (network, 1)]}
    if task == "segmentation":
        ensembles["ensemble.models.mean"] = [("unet", 0), ("unet", 1), ("dilated", 0)]
    return ReportSettings(
        title="Folds of a brain",
        experiment=experiment,
        dataset="brains",
        folds=FOLDS,
        run_folds=list(range(FOLDS)) if run_folds is None else run_folds,
        models=models,
        ensembles=ensembles,
        baselines=[name for name in models if name in ("linear", "majority", "mean")],
        task=task,  # type: ignore[arg-type]
        target={"segmentation": "label", "classification": "diagnosis", "regression": "age"}[task],
    )


def make_results(
    root: Path,
    groups: int = 12,
    shape: tuple[int, int, int] = (16, 20, 16),
    tasks: tuple[str, ...] = tuple(MODELS),
    files: bool = True,
) -> list[ReportSettings]:
    """Write dataset and experiments below `root`; returns the settings of the reports. Without `files` no image is written."""
    layout = Layout(root)
    cohort = make_dataset(layout, groups, shape, files)
    found = []
    for task, experiment in (("segmentation", "tissue"), ("classification", "diagnosis"), ("regression", "age")):
        if task in tasks:
            settings = settings_of(task, experiment)
            make_experiment(layout, settings, cohort)
            found.append(settings)
    return found


# ── the dataset ──
def make_dataset(layout: Layout, groups: int, shape: tuple[int, int, int], files: bool = True) -> pd.DataFrame:
    """Images on disk and every table of the dataset."""
    raw, rng = layout.root.parent / "raw", generator("report fixture")
    rows, images, labels = [], [], []
    for group in range(groups):
        for session in range(1 + (group % 4 == 0)):
            name = f"sub-{group:03d}_ses-{session}"
            image, label = brain(shape, rng)
            for kind, volume in (("t1w", image), ("label", label)) if files else ():
                (raw / kind).mkdir(parents=True, exist_ok=True)
                nibabel.Nifti1Image(volume, AFFINE).to_filename(raw / kind / f"{name}.nii.gz")
            row = {"image_id": name, "participant_id": f"sub-{group:03d}", "group": f"g{group:03d}", "session_id": f"ses-{session}"}
            row |= {
                "site": ("north", "south")[group % 3 == 0],
                "image_t1w": f"t1w/{name}.nii.gz",
                "label": f"label/{name}.nii.gz",
                "mask": "",
            }
            row |= {"age": round(float(rng.uniform(20, 80)), 1), "sex": "FM"[int(rng.integers(2))], "diagnosis": CLASSES[group % 2]}
            digests = row_digests(row, raw) if files else ("", "")
            rows.append({**row, "sha256_file": digests[0], "sha256_voxels": "", "sha256_labels": digests[1]})
            images.append(image)
            labels.append(label)
    cohort = pd.DataFrame(rows)
    write_table(layout.dataset("brains", "cohort.tsv"), cohort, "cohort")
    gone = [{"image_id": cohort["image_id"].iloc[-1], "reason": "a constant image", "severity": "exclude"}]
    write_table(layout.dataset("brains", "excluded.tsv"), pd.DataFrame(gone), "excluded")
    facts = {
        "name": "Test brains",
        "format": "bids",
        "root": str(raw.resolve()),
        "channels": ["t1w"],
        "channel_files": {"t1w": ["t1w"]},
        "labels": {"label": STRUCTURES},
    }
    facts |= {
        "mask": False,
        "identity": "known",
        "group_source": "the participant",
        "description": "",
        "licence": "CC0",
        "reference": "Nobody, 2020.",
    }
    write_json(layout.dataset("brains", "dataset.json"), facts)
    write_packed(layout, cohort.iloc[:-1], images[:-1], labels[:-1], shape)
    make_split(layout, cohort.iloc[:-1])
    make_audit(layout, cohort)
    for stage in ("dataset", "audit", "split", "preprocess"):
        write_json(
            layout.dataset("brains", f"provenance-{stage}.json"), provenance(stage, STAGE_SETTINGS.get(stage, {}), dataset="brains")
        )
    return cohort.iloc[:-1]


def brain(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with two structures inside, and noise."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    head = (grid[0] ** 2 / 0.8 + grid[1] ** 2 + grid[2] ** 2 / 0.9) < 0.9
    shift = rng.normal(0, 0.06, 3)
    front = ((grid[0] - shift[0]) ** 2 / 0.1 + (grid[1] - 0.25 - shift[1]) ** 2 / 0.12 + (grid[2] - shift[2]) ** 2 / 0.08) < 1
    back = ((grid[0] - shift[0]) ** 2 / 0.1 + (grid[1] + 0.35 - shift[1]) ** 2 / 0.1 + (grid[2] - shift[2]) ** 2 / 0.08) < 1
    label = np.where(front, 1, np.where(back, 2, 0)).astype(np.uint8)
    texture = 0.25 * np.sin(9 * grid[0] + 4 * grid[1]) * np.cos(7 * grid[2])
    image = head * (0.55 + texture) + 0.35 * (label == 1) + 0.22 * (label == 2) + rng.normal(0, 0.04, shape)
    return image.astype(np.float32), label


def write_packed(
    layout: Layout, cohort: pd.DataFrame, images: list[np.ndarray], labels: list[np.ndarray], shape: tuple[int, int, int]
) -> None:
    """images.npy, labels.npy, images.json."""
    write_array(layout.dataset("brains", "images.npy"), np.stack(images)[:, None].astype(np.float16))
    write_array(layout.dataset("brains", "labels.npy"), np.stack(labels)[:, None])
    still = tuple(tuple(row) for row in np.eye(4).tolist())
    affine = tuple(tuple(row) for row in AFFINE.tolist())
    spatial = SpatialRecord(shape, affine, (0, 1, 2), (True, False, False), shape, still, (0, 0, 0), shape).to_json()
    rows = [{"image_id": name, "sha256": "", "spatial": spatial, "intensity": {}} for name in cohort["image_id"]]
    write_json(
        layout.dataset("brains", "images.json"),
        {"shape": list(shape), "channels": ["t1w"], "labels": ["label"], "settings": {}, "rows": rows},
    )


def make_split(layout: Layout, cohort: pd.DataFrame) -> None:
    """splits.tsv, balance.tsv, normalization.json."""
    people = cohort[["group", "participant_id"]].drop_duplicates()
    rows, balance = [], []
    for fold in range(FOLDS):
        rest = 0
        for index, (group, participant) in enumerate(people.itertuples(index=False)):
            role = "test" if index % FOLDS == fold else ("validation" if rest % 4 == 0 else "train")
            rest += role != "test"
            rows.append({"group": group, "participant_id": participant, "fold": str(fold), "role": role})
        for column, value, smd in (
            ("age", "", 0.12 - 0.1 * fold),
            ("sex", "F", 0.05 * fold),
            ("sex", "M", -0.05 * fold),
            ("site", "north", 0.21 - 0.2 * fold),
        ):
            mean = {"mean": 48.0 + fold, "sd": 14.0} if column == "age" else {"mean": np.nan, "sd": np.nan}
            balance.append(
                {
                    "fold": str(fold),
                    "role": "test",
                    "column": column,
                    "value": value,
                    "n": 5,
                    "fraction": 0.5,
                    **mean,
                    "smd": smd,
                    "note": "",
                }
            )
    splits = pd.DataFrame(rows)
    write_table(layout.dataset("brains", "splits.tsv"), splits, "splits")
    write_table(layout.dataset("brains", "balance.tsv"), pd.DataFrame(balance))
    for fold in range(FOLDS):
        count = int(((splits["fold"] == str(fold)) & (splits["role"] == "train")).sum())
        record = {
            "method": "global",
            "fold": fold,
            "fitted_on": "",
            "n_images": count,
            "n_groups": count,
            "mean": [0.0],
            "std": [1.0],
        }
        write_json(layout.fold("brains", fold, "normalization.json"), record)
        write_json(
            layout.fold("brains", fold, "provenance-normalize.json"),
            provenance("normalize", {"normalize": {"method": "global"}}, dataset="brains", fold=fold),
        )


def make_audit(layout: Layout, cohort: pd.DataFrame) -> None:
    """audit.tsv and audit.json."""
    rows = []
    for index, name in enumerate(cohort["image_id"]):
        rows.append({"image_id": name, "check": "readable", "status": "pass", "detail": ""})
        status, detail = ("warn", "4.1 mm along Z, others 2.0 mm") if index == 3 else ("pass", "")
        rows.append({"image_id": name, "check": "spacing", "status": status, "detail": detail})
    rows.append({"image_id": cohort["image_id"].iloc[-1], "check": "constant", "status": "exclude", "detail": "a constant image"})
    write_table(layout.dataset("brains", "audit.tsv"), pd.DataFrame(rows))
    found = [{"finding": "order_similarity", "status": "pass", "detail": "p = 0.41, 999 permutations"}]
    write_json(layout.dataset("brains", "audit.json"), {"findings": found})


STAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "split": {"folds": FOLDS, "split": {"stratify": ["site"], "validation": 0.2, "seed": 0}},
    "preprocess": {
        "preprocess": {"spacing_mm": None, "crop": "center", "scaling": "robust", "scaling_region": "image", "n4": False}
    },
    "evaluate": {"evaluation": {"confidence": 0.95, "resamples": 2000, "seed": 0}},
    "train": {
        "network": "unet",
        "seed": 0,
        "threads": 1,
        "training": {
            "epochs": 20,
            "batch_size": 4,
            "optimizer": "adamw",
            "learning_rate": 0.001,
            "schedule": "one_cycle",
            "weight_decay": 0.01,
            "loss": "dice_cross_entropy",
            "deterministic": "strict",
        },
        "augmentation": {"rotation_deg": 10.0},
    },
}


def provenance(stage: str, settings: dict[str, Any], seconds: float = 12.5, **names: Any) -> dict[str, Any]:
    """What the command line writes beside the results of a job."""
    record = {
        "stage": stage,
        "settings": settings,
        "code": f"c0de{len(stage):04d}",
        "environment": "lock:0123456789abcdef",
        "inputs": {},
        "versions": VERSIONS,
    }
    record |= {
        "device": "cpu",
        "host_kind": "Example CPU @ 2.00GHz",
        "started": "2020-01-01T00:00:00+00:00",
        "seconds": seconds,
        "cpu_seconds": seconds * 1.7,
    }
    return {**record, "peak_memory_mb": 812.4, "command": stage, "facts": {}, **names}


# ── an experiment ──
def make_experiment(layout: Layout, settings: ReportSettings, cohort: pd.DataFrame) -> None:
    """Predictions, cases, metrics, histories and provenance of one experiment."""
    splits = pd.read_csv(layout.dataset("brains", "splits.tsv"), sep="\t", dtype=str)
    members = [(model, str(seed)) for model, count in settings.models.items() for seed in range(count)]
    members += [(name, "all") for name in settings.ensembles]
    predictions, cases = [], []
    for model, seed in members:
        for fold in settings.run_folds:
            rows, values = predict(layout, settings, cohort, splits, model, seed, fold)
            predictions += rows
            cases += values
            trained(layout, settings, model, seed, fold)
    write_table(layout.experiment(settings.experiment, "predictions.tsv"), pd.DataFrame(predictions), "predictions")
    table = pd.DataFrame(cases, columns=COLUMNS["cases"])
    write_table(layout.experiment(settings.experiment, "cases.tsv"), table, "cases")
    metrics = measure(settings, pd.DataFrame(predictions), table)
    metrics = more(layout, settings, pd.DataFrame(predictions), metrics)
    write_table(layout.experiment(settings.experiment, "metrics.tsv"), metrics, "metrics")
    compared(layout, settings, metrics)
    undefined = pd.DataFrame(
        [
            {
                "model": "majority",
                "role": "test",
                "fold": "0",
                "seed": "0",
                "metric": "hd95",
                "structure": "Anterior",
                "why": "no image has this structure in its truth",
            }
        ]
    )
    write_table(
        layout.experiment(settings.experiment, "undefined.tsv"),
        undefined if settings.task == "segmentation" else undefined.iloc[:0],
    )
    write_json(
        layout.experiment(settings.experiment, "provenance-evaluate.json"),
        provenance("evaluate", STAGE_SETTINGS["evaluate"], experiment=settings.experiment),
    )


def skill_of(settings: ReportSettings, model: str) -> float:
    """How good a pretended model is, from 0 to 1."""
    names = {name for name, _ in settings.ensembles.get(model, [])}
    return max(SKILL[name] for name in names) + 0.02 if names else SKILL[model]


def predict(
    layout: Layout, settings: ReportSettings, cohort: pd.DataFrame, splits: pd.DataFrame, model: str, seed: str, fold: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of predictions.tsv and cases.tsv of one model, seed and fold."""
    rng, skill = generator("predict", settings.experiment, model, seed, fold), skill_of(settings, model)
    rows: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    roles = splits[splits["fold"] == str(fold)].set_index("participant_id")["role"]
    for image in cohort.itertuples():
        role = roles[image.participant_id]
        if role == "train":
            continue
        key = {
            "image_id": image.image_id,
            "participant_id": image.participant_id,
            "group": image.group,
            "fold": str(fold),
            "role": role,
            "model": model,
            "seed": seed,
        }
        if settings.task == "segmentation":
            said, dice, volumes = segment(layout, settings, key, image.label, skill, rng)
            rows.append({**key, "target": image.label, "prediction": said})
            cases += [{**key, "metric": "dice", "structure": name, "value": value} for name, value in dice.items()]
            cases += [{**key, "metric": "volume_true_ml", "structure": name, "value": value} for name, value in volumes.items()]
            cases += more_cases(key, dice, volumes)
        elif settings.task == "classification":
            logit = 1.1 * skill * (1 if image.diagnosis == CLASSES[1] else -1) + rng.normal(0, 1) if skill else -0.1
            p = float(1 / (1 + np.exp(-logit)))
            rows.append(
                {
                    **key,
                    "target": image.diagnosis,
                    "prediction": CLASSES[p > 0.5],
                    f"probability_{CLASSES[0]}": 1 - p,
                    f"probability_{CLASSES[1]}": p,
                }
            )
        else:
            value = 48 + skill * (image.age - 48) + rng.normal(0, 9 * (1 - skill) + 3) * bool(skill)
            rows.append({**key, "target": image.age, "prediction": float(value)})
            cases.append({**key, "metric": "absolute_error", "structure": "", "value": abs(float(value) - image.age)})
    return rows, cases


def segment(
    layout: Layout, settings: ReportSettings, key: dict[str, Any], label: str, skill: float, rng: np.random.Generator
) -> tuple[str, dict[str, float], dict[str, float]]:
    """A spoilt copy of the truth and its Dice."""
    truth = np.asarray(nibabel.load(layout.root.parent / "raw" / label).dataobj)
    said = np.roll(truth, int(rng.integers(0, 2 + int(4 * (1 - skill)))), axis=int(rng.integers(3)))
    said = np.where((rng.random(truth.shape) < 0.6 * (1 - skill)) & (said > 0), 0, said).astype(np.uint8)
    name = layout.run(settings.experiment, key["model"], key["fold"], key["seed"], f"maps/{key['image_id']}.nii.gz")
    if key["role"] == "test":
        name.parent.mkdir(parents=True, exist_ok=True)
        nibabel.Nifti1Image(said, AFFINE).to_filename(name)
    dice = {
        text: 2
        * float(((truth == int(v)) & (said == int(v))).sum())
        / max(float((truth == int(v)).sum() + (said == int(v)).sum()), 1)
        for v, text in STRUCTURES.items()
        if v != "0"
    }
    volumes = {text: float((truth == int(v)).sum()) * 0.008 for v, text in STRUCTURES.items() if v != "0"}
    return (
        name.relative_to(layout.experiment(settings.experiment)).as_posix(),
        {**dice, "mean": float(np.mean(list(dice.values())))},
        volumes,
    )


def trained(layout: Layout, settings: ReportSettings, model: str, seed: str, fold: int) -> None:
    """history.tsv and provenance of one training."""
    names = {"dataset": "brains", "experiment": settings.experiment, "model": model, "fold": fold}
    if seed == "all":
        write_json(
            layout.run(settings.experiment, model, fold, "all", "provenance-ensemble.json"),
            provenance("ensemble", {"members": []}, 0.8, **names),
        )
        return
    network = model not in settings.baselines
    seconds = {"unet": 95.0, "dilated": 160.0, "conv5_fc3": 62.0}.get(model, 1.4)
    record = provenance("train", {**STAGE_SETTINGS["train"], "network": model}, seconds, **names, seed=int(seed))
    write_json(layout.run(settings.experiment, model, fold, seed, "provenance-train.json"), record)
    write_json(
        layout.run(settings.experiment, model, fold, seed, "provenance-predict.json"),
        provenance("predict-fold", {"batch_size": 8}, 3.1, **names, seed=int(seed)),
    )
    if not network:
        return
    rng, epochs = generator("history", settings.experiment, model, seed, fold), np.arange(1, 21)
    train = np.exp(-epochs / 6) + 0.08 + rng.normal(0, 0.01, 20)
    validation = np.exp(-epochs / 6) + 0.2 + 0.004 * epochs + rng.normal(0, 0.02, 20)
    name = {"segmentation": "validation_dice", "classification": "validation_auroc", "regression": "validation_mae"}[settings.task]
    table = pd.DataFrame(
        {
            "epoch": epochs,
            "step": epochs * 8,
            "train_loss": train,
            "validation_loss": validation,
            name: 1 - validation / 2,
            "learning_rate": 1e-3,
        }
    )
    write_table(
        layout.run(settings.experiment, model, fold, seed, "history.tsv"),
        table.assign(selected=(epochs == epochs[validation.argmin()]).astype(int)),
        "history",
    )


def measure(settings: ReportSettings, predictions: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of metrics.tsv: single folds and seeds, and over all of them with an interval."""
    rows = []
    for model, part in predictions.groupby("model", sort=False):
        found: dict[tuple[str, str], list[float]] = {}
        for (role, fold, seed), run in part.groupby(["role", "fold", "seed"]):
            for (metric, structure), value in scores(settings, run, cases).items():
                counts = {"n": len(run), "n_groups": run["group"].nunique(), "sd_folds": np.nan, "sd_seeds": np.nan}
                rows.append(
                    {
                        "model": model,
                        "role": role,
                        "fold": fold,
                        "seed": seed,
                        "metric": metric,
                        "structure": structure,
                        "value": value,
                        "ci_low": np.nan,
                        "ci_high": np.nan,
                        **counts,
                    }
                )
                if role == "test":
                    found.setdefault((metric, structure), []).append(value)
        tests = part[part["role"] == "test"]
        counts = {"n": tests["image_id"].nunique(), "n_groups": tests["group"].nunique()}
        for (metric, structure), values in found.items():
            value, half = float(np.mean(values)), 1.96 * float(np.std(values) + 0.03 * abs(np.mean(values))) / np.sqrt(len(values))
            low, high = (
                (value - half, value + half)
                if metric not in ("dice", "auroc", "balanced_accuracy")
                else (max(value - half, 0), min(value + half, 1))
            )
            rows.append(
                {
                    "model": model,
                    "role": "test",
                    "fold": "all",
                    "seed": "all",
                    "metric": metric,
                    "structure": structure,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    **counts,
                    "sd_folds": float(np.std(values)),
                    "sd_seeds": float(np.std(values) / 3) if settings.models.get(model, 1) > 1 else np.nan,
                }
            )
    return pd.DataFrame(rows)[COLUMNS["metrics"]]


def compared(layout: Layout, settings: ReportSettings, metrics: pd.DataFrame) -> None:
    """comparisons.tsv, chance.tsv and subgroups.tsv with made-up intervals."""
    name = HEADLINE[settings.task]
    rows = metrics[(metrics["fold"] == "all") & (metrics["metric"] == name) & metrics["structure"].isin(["", "mean"])]
    values = dict(zip(rows["model"], rows["value"], strict=True))
    order = sorted(values, key=lambda model: values[model], reverse=name != "mae")
    pairs, chances, parts = [], [], []
    for first, second in combinations(order, 2):
        apart = values[first] - values[second]
        row = {"first": first, "second": second, "metric": name, "structure": "", "difference": apart, "p": 0.01, "p_holm": 0.04}
        row |= {"ci_low": apart - 0.1, "ci_high": apart + 0.1, "p_folds": 0.2, "p_folds_holm": 0.6, "folds": FOLDS, "note": ""}
        pairs.append(row | {"first_value": values[first], "second_value": values[second]})
    pairs[-1] |= {"difference": np.nan, "p": np.nan, "p_holm": np.nan, "note": "not compared: trained under cpu and cuda"}
    for model in order:
        row = {"model": model, "metric": name, "structure": "", "null": "labels exchanged", "value": values[model], "p": 0.0004}
        chances.append(
            row | {"null_mean": 0.5, "null_low": 0.4, "null_high": 0.6, "p_holm": 0.002, "permutations": 1000, "note": ""}
        )
        chances.append({"model": model, "metric": "site_balanced_accuracy", "null": "sites exchanged", "note": "not tested"})
        for column, level in (("sex", "F"), ("sex", "M"), ("site", "north"), ("site", "south"), ("all", "worst 5 %")):
            row = {"model": model, "column": column, "level": level, "metric": name, "structure": "", "value": values[model]}
            parts.append(row | {"ci_low": values[model] - 0.2, "ci_high": values[model] + 0.2, "n": 9, "n_groups": 6, "note": ""})
    line = {"model": "", "metric": "site_from_images", "structure": "", "null": "sites exchanged", "value": 0.9, "p": 0.001}
    chances.append(line | {"null_mean": 0.5, "null_low": 0.4, "null_high": 0.6, "permutations": 1000, "note": ""})
    tables = {"comparisons": (pairs, PAIRS), "chance": (chances, CHANCE), "subgroups": (parts, PARTS)}
    for file, (body, columns) in tables.items():
        table = pd.DataFrame(body, columns=columns)
        if file == "comparisons":
            table["comparisons"] = len(pairs) - 1
        write_table(layout.experiment(settings.experiment, f"{file}.tsv"), table)


def scores(settings: ReportSettings, run: pd.DataFrame, cases: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Metrics of the rows of one model, fold, seed and role."""
    if settings.task == "segmentation":
        keys = ["image_id", "fold", "role", "model", "seed"]
        own = cases[cases["metric"] == "dice"].merge(run[keys], on=keys)
        found = {("dice", name): float(value) for name, value in own.groupby("structure")["value"].mean().items()}
        return found | {
            ("hd95", "mean"): 2 + 9 * (1 - found[("dice", "mean")]),
            ("volume_error_ml", "mean"): 0.4 * (1 - found[("dice", "mean")]),
        }
    if settings.task == "classification":
        p, truth = run[f"probability_{CLASSES[1]}"].to_numpy(float), (run["target"] == CLASSES[1]).to_numpy()
        if truth.all() or not truth.any():
            return {("brier", ""): float(((p - truth) ** 2).mean())}
        wins = (p[truth][:, None] > p[~truth]).mean() + 0.5 * (p[truth][:, None] == p[~truth]).mean()
        accuracy = float(((p > 0.5) == truth).mean())
        return {("auroc", ""): float(wins), ("balanced_accuracy", ""): accuracy, ("brier", ""): float(((p - truth) ** 2).mean())}
    truth, said = run["target"].to_numpy(float), run["prediction"].to_numpy(float)
    error = said - truth
    return {
        ("mae", ""): float(np.abs(error).mean()),
        ("rmse", ""): float(np.sqrt((error**2).mean())),
        ("r2", ""): float(1 - (error**2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-9)),
        ("bias", ""): float(error.mean()),
    }


if __name__ == "__main__":
    from gyri.report import run, run_index

    parser = argparse.ArgumentParser(description="Make a results tree to look at.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--groups", type=int, default=48)
    given = parser.parse_args()
    chosen = make_results(given.root, given.groups, (36, 44, 36))
    for item in chosen:
        print(item.experiment, run(item, Layout(given.root)))
    print(run_index(chosen, Layout(given.root), "Folds of a brain"))
