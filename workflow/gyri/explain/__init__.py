"""Explain: where in the test images the networks of each fold look, beside the same maps of networks with random weights."""

from __future__ import annotations

import gzip
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.accelerator import measured
from gyri.config.saliency import ExplainSettings
from gyri.errors import DataError, Problem
from gyri.explain.choice import choose_images
from gyri.explain.maps import Explainer, Maps, explained_class, frozen, randomized
from gyri.explain.regions import shares
from gyri.explain.similarity import rank_correlation, structural_similarity
from gyri.inference import Model, check_fit, load_model
from gyri.io import atomic, read_json, write_array, write_json
from gyri.layout import Layout
from gyri.loading import Store, fold_table, open_store
from gyri.progress import Progress
from gyri.seeds import derive_seed, generator
from gyri.selftest import before_start
from gyri.tables import rows_of, write_table
from gyri.transforms.intensity import foreground
from gyri.transforms.spatial import SpatialRecord

SEED = 0  # the first training of each fold stands for its model
TEMPLATE_TOLERANCE_MM = 1e-2  # grids on the template that differ by more are not the same grid
REGION_COLUMNS = ["image_id", "fold", "model", "method", "randomized", "label", "structure", "voxels"]
REGION_COLUMNS += ["share", "volume_share", "ratio"]


def run(
    settings: ExplainSettings,
    layout: Layout,
    dataset: str,
    experiment: str,
    model: str,
    versions: Literal["strict", "warn"] = "strict",
) -> dict[str, Any]:
    """Write the maps of one model: saliency.tsv, regions.tsv, maps.npy, means.nii.gz and saliency.json.

    Args:
        settings: what the stage is told.
        layout: the results folder.
        dataset: its name.
        experiment: its name.
        model: its name in the experiment.
        versions: what a difference between the versions found and the locked ones does, on a GPU or in an image.

    Returns:
        Facts for provenance.

    Raises:
        DataError: the model and the dataset do not fit each other, it is a baseline, or no fold has a test image.
    """
    store = open_store(layout, dataset)
    work = _Work(settings, layout, dataset, experiment, model, store)
    progress = Progress(f"{experiment}/{model}: explain", len(settings.folds))
    facts: dict[str, Any] = {}
    for fold in settings.folds:
        folder = layout.run(experiment, model, fold, SEED)
        opened = load_model(folder, settings.threads)
        if opened.network is None or opened.target.task == "segmentation":
            got, expected = f"{opened.card['network']} for {opened.target.task}", "a network that classifies or regresses"
            raise DataError(Problem(str(folder / "model.json"), got, expected, "saliency maps explain one number per image"))
        check_fit(opened.card, store, layout, dataset, fold, folder / "model.json")
        if fold == settings.folds[0]:
            before_start(versions)
        with measured(opened.device) as usage:
            work.fold(fold, opened)
            facts = {**opened.facts, "precision": "float32", "accelerator": usage()}
        progress.step()
    return {**facts, **work.write()}


class _Work:
    """Collects the maps of all folds and writes them.

    Args:
        settings: what the stage is told.
        layout: the results folder.
        dataset: its name.
        experiment: its name.
        model: its name.
        store: the packed images.
    """

    def __init__(self, settings: ExplainSettings, layout: Layout, dataset: str, experiment: str, model: str, store: Store):
        self.settings, self.layout, self.dataset, self.store = settings, layout, dataset, store
        self.experiment, self.model = experiment, model
        self.labels = read_json(layout.dataset(dataset, "dataset.json"))["labels"]
        self.methods: list[str] = list(settings.saliency.methods)
        self.rows: list[dict[str, Any]] = []
        self.regions: list[dict[str, Any]] = []
        self.maps: list[NDArray[np.float32]] = []
        self.records: list[SpatialRecord] = []
        self.skipped: dict[str, str] = {}
        self.layer: dict[str, Any] | None = None

    def fold(self, fold: int, opened: Model) -> None:
        """Make the maps of one fold's test images."""
        settings = self.settings
        table = fold_table(self.layout, self.dataset, fold, opened.target, ("test",))
        # the same images for every model of the experiment
        random = generator(settings.seed, "saliency", "images", self.experiment, fold)
        table = choose_images(table, settings.task, settings.saliency.images, random)
        if table.empty:
            return
        rows = table["row"].to_numpy()
        self.store.verify(rows.tolist())
        records = [SpatialRecord.from_json(self.store.manifest["rows"][row]["spatial"]) for row in rows]
        self.records += records
        indices = np.zeros(len(table), np.int64)
        if settings.task == "classification":
            indices = explained_class(opened.task, opened.target.encode(table["target"].tolist()))
        identity = (settings.seed, "saliency", self.model, fold)
        explainer = Explainer(
            opened,
            settings.saliency,
            np.asarray(self.store.images[rows]),
            indices,
            [edges_of(record) for record in records],
            derive_seed(*identity, "noise"),
        )
        self._skip(explainer)
        networks = {"no": frozen(opened), "yes": randomized(opened, derive_seed(*identity, "randomized"))}
        about = rows_of(table.assign(fold=str(fold), model=self.model, seed=str(SEED)))
        for item, index in zip(about, indices, strict=True):
            item["explained"] = opened.target.names[index] if settings.task == "classification" else opened.target.column
        for method in self.methods:
            self._keep(method, about, {said: explainer(method, network) for said, network in networks.items()})

    def _skip(self, explainer: Explainer) -> None:
        """Leave a method out that the network does not allow."""
        self.layer = explainer.layer()
        if self.layer is None and "class_activation" in self.methods:
            self.methods.remove("class_activation")
            self.skipped["class_activation"] = "the network has no convolutions"

    def _keep(self, method: str, about: list[dict[str, Any]], found: dict[str, Maps]) -> None:
        """Take the maps of one method, trained and randomized, in the order of the images."""
        for place, item in enumerate(about):
            trained, drawn = found["no"][place], found["yes"][place]
            inside = self._inside(item["row"])
            alike = (rank_correlation(trained, drawn, inside), structural_similarity(trained, drawn, inside))
            for said, saliency in (("no", trained), ("yes", drawn)):
                row = {name: item[name] for name in ("image_id", "participant_id", "group", "fold", "model", "seed", "target")}
                row |= {"map": len(self.maps), "explained": item["explained"], "method": method, "randomized": said}
                row |= {"empty": "no" if saliency.any() else "yes"}
                row |= dict(zip(("rank_correlation", "ssim"), alike if said == "yes" else (np.nan, np.nan), strict=True))
                self.rows.append(row)
                self.maps.append(saliency)
                self.regions += self._shares(item["row"], saliency, row)

    def _inside(self, row: int) -> NDArray[np.bool_]:
        """Voxels in which maps are compared: labelled ones, else the foreground; air is alike in all maps."""
        labelled = np.asarray(np.max(self.store.labels[row], axis=0, initial=0) > 0)
        return labelled if labelled.any() else foreground(np.asarray(self.store.images[row, 0], np.float32))

    def _shares(self, row: int, saliency: Maps, about: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        for label in self.store.manifest["labels"]:
            names = {0: "background"} | {int(value): str(name) for value, name in self.labels.get(label, {"1": label}).items()}
            labels = np.asarray(self.store.labels[row, self.store.label_index(label)])
            if labels.any():
                found += [{**about, "label": label, **item} for item in shares(saliency, labels, names)]
        return found

    def write(self) -> dict[str, Any]:
        """Write what was collected.

        Returns:
            Facts for provenance.

        Raises:
            DataError: no fold had a test image with a target.
        """
        if not self.rows:
            got = f"no test image with a target in the folds {self.settings.folds}"
            raise DataError(Problem(f"{self.experiment}/{self.model}", got, "at least one", "run another fold"))

        def path(name: str) -> Any:
            return self.layout.saliency(self.experiment, self.model, name)

        table = pd.DataFrame(self.rows)
        table = table[["map", *[name for name in table.columns if name != "map"]]]
        affine = template_grid(self.records) if self._registered() else None
        means, volumes = mean_maps(table, self.maps, self.methods)
        facts = {
            "space": "MNI152" if affine is not None else "network",
            "spacing_mm": np.mean([edges_of(record) for record in self.records], axis=0).round(6).tolist(),
            "methods": self.methods,
            "skipped": self.skipped,
            "layer": self.layer,
            "volumes": volumes,
            "settings": self.settings.saliency.model_dump(mode="json"),
        }
        write_array(path("maps.npy"), np.stack(self.maps))
        write_table(path("saliency.tsv"), table)
        write_table(path("regions.tsv"), pd.DataFrame(self.regions, columns=REGION_COLUMNS))
        write_nifti(path("means.nii.gz"), means, affine, facts["spacing_mm"])
        write_json(path("saliency.json"), facts)
        counts = {"images": int(table["image_id"].nunique()), "maps": len(table)}
        return {**counts, "space": facts["space"], "layer": self.layer, "warnings": deaf_folds(table)}

    def _registered(self) -> bool:
        return self.store.manifest["settings"]["preprocess"]["registration"] != "none"


def deaf_folds(table: pd.DataFrame) -> list[str]:
    """One sentence per fold whose trained network gives the same output whatever it is shown.

    Args:
        table: saliency.tsv.
    """
    rows = table[table["randomized"] == "no"]
    silent = (rows["empty"] == "yes").groupby(rows["fold"]).all()
    return [f"fold {fold}: the output does not depend on the image: every saliency map is zero" for fold in silent[silent].index]


def edges_of(record: SpatialRecord) -> tuple[float, float, float]:
    """Voxel edges of the network grid in mm: on the template where the image was registered, else in the image."""
    x, y, z = np.linalg.norm(record.template_affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def template_grid(records: list[SpatialRecord]) -> NDArray[np.float64] | None:
    """The affine to template mm that all images share; None where they do not: then nothing is in template space."""
    first = records[0].template_affine
    same = all(np.abs(record.template_affine - first).max() <= TEMPLATE_TOLERANCE_MM for record in records)
    return first if same and all(record.world is not None for record in records) else None


def mean_maps(table: pd.DataFrame, maps: list[Maps], methods: list[str]) -> tuple[Maps, list[dict[str, Any]]]:
    """The mean over images and folds of every method, of trained and of randomized weights; maps of zeros do not enter.

    Args:
        table: saliency.tsv.
        maps: in the order of its column `map`.
        methods: those that were made.

    Returns:
        (X, Y, Z, V), and what each of the V volumes is.
    """
    volumes, found = [], []
    for method in methods:
        for said in ("no", "yes"):
            rows = table[(table["method"] == method) & (table["randomized"] == said) & (table["empty"] == "no")]
            chosen = [maps[place] for place in rows["map"]]
            found.append(np.mean(chosen, axis=0, dtype=np.float64) if chosen else np.zeros_like(maps[0]))
            volumes.append({"method": method, "randomized": said, "maps": len(chosen)})
    return np.stack(found, axis=-1).astype(np.float32), volumes


def write_nifti(path: Any, volumes: Maps, affine: NDArray[np.float64] | None, spacing: list[float]) -> None:
    """Write volumes as NIfTI, the same bytes every time.

    Args:
        path: ends in .nii.gz.
        volumes: (X, Y, Z, V).
        affine: to MNI152 mm; None: no space is claimed, only the voxel size stands in the header.
        spacing: voxel edges, mm.
    """
    import nibabel

    image = nibabel.Nifti1Image(volumes, np.diag([*spacing, 1.0]) if affine is None else affine)
    code = 0 if affine is None else 4  # NIFTI_XFORM_MNI_152
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
