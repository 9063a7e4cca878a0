"""Prediction: every image of its role once, label maps on the original grid, probabilities in the order of the table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gyri.errors import DataError
from gyri.inference import load_model
from gyri.io import read_json, sha256_file, write_json
from gyri.layout import Layout
from gyri.loading import open_store
from gyri.predict import run
from gyri.tables import read_table
from gyri.train import run as train
from gyri.transforms.spatial import SpatialRecord
from packed import AFFINE, SHAPE, make_dataset, predict_settings, train_settings

TASKS = [("segmentation", "unet"), ("classification", "conv5_fc3"), ("regression", "conv5_fc3")]


def trained(root: Path, task: str, network: str) -> tuple[Layout, Path]:
    layout = make_dataset(root)
    train(train_settings(task, network, epochs=4, learning_rate=0.02), layout, "tiny", "exp", "net", 0, 0, "f")
    return layout, layout.run("exp", "net", 0, 0)


@pytest.mark.parametrize(
    ("task", "network"), [*TASKS, ("segmentation", "majority"), ("regression", "mean"), ("classification", "linear")]
)
def test_rows_are_those_of_the_roles_in_order(tmp_path: Path, task: str, network: str) -> None:
    layout, folder = trained(tmp_path, task, network)
    run(predict_settings(network), layout, "tiny", "exp", "net", 0, 0)
    table = read_table(folder / "predictions.tsv", "predictions")
    assert list(table["role"]) == ["test"] * 4 + ["validation"] * 4
    assert list(table["image_id"]) == ["p00", "p01", "p12", "p13", "p02", "p03", "p14", "p15"]
    assert set(table["fold"]) == {"0"} and set(table["seed"]) == {"0"} and set(table["model"]) == {"net"}
    packed = np.load(folder / "probabilities.npy")
    assert packed.dtype == np.float16 and packed.shape == ((8, 3, 8, 8, 8) if task == "segmentation" else (0,))
    if task == "classification":
        assert np.allclose(table[["probability_kind0", "probability_kind1"]].sum(axis=1), 1)
        assert list(table["target"]) == ["kind0", "kind1"] * 4
    if task == "regression":
        assert table["prediction"].between(0, 120).all()  # in years, not standardized
    first = sha256_file(folder / "predictions.tsv")
    run(predict_settings(network), layout, "tiny", "exp", "net", 0, 0)
    assert sha256_file(folder / "predictions.tsv") == first


def test_label_maps_lie_on_the_original_grid(tmp_path: Path) -> None:
    layout, folder = trained(tmp_path, "segmentation", "unet")
    run(predict_settings(), layout, "tiny", "exp", "net", 0, 0)
    table = read_table(folder / "predictions.tsv")
    store, packed = open_store(layout, "tiny"), np.load(folder / "probabilities.npy")
    rows = {row["image_id"]: row for row in store.manifest["rows"]}
    for index, row in enumerate(table.itertuples()):
        image = nib.load(layout.experiment("exp") / row.prediction)
        assert image.shape == SHAPE and np.allclose(image.affine, AFFINE)
        values = np.asarray(image.dataobj)
        assert set(np.unique(values)) <= {0, 1, 3}
        back = SpatialRecord.from_json(rows[row.image_id]["spatial"]).invert(packed[index].astype(np.float32))
        assert (values == np.array([0, 1, 3])[back.argmax(0)]).mean() > 0.98  # float16 decides ties otherwise
    assert len(list((folder / "maps").iterdir())) == 8


def test_a_good_model_gives_back_the_labels(tmp_path: Path) -> None:
    """The way to the network grid and back: a model that knows the labels must reproduce the label files exactly."""
    layout, folder = trained(tmp_path, "segmentation", "majority")
    import gyri.predict as module

    store, original = open_store(layout, "tiny"), module.load_model

    def cheat(path: Path, threads: int):  # type: ignore[no-untyped-def]
        model = original(path, threads)
        known = {store.images[row].tobytes(): store.labels[row, 0] for row in range(len(store.images))}

        def probabilities(images, mirror=()):  # type: ignore[no-untyped-def]
            indices = [model.target.encode_labels(known[image.tobytes()]) for image in images]
            return np.stack([np.eye(3, dtype=np.float32)[index].transpose(3, 0, 1, 2) for index in indices])

        model.probabilities = probabilities
        return model

    module.load_model = cheat
    try:
        run(predict_settings("majority"), layout, "tiny", "exp", "net", 0, 0)
    finally:
        module.load_model = original
    for row in read_table(folder / "predictions.tsv").itertuples():
        truth = nib.load(tmp_path / "raw" / row.target)
        found = nib.load(layout.experiment("exp") / row.prediction)
        whole = np.asarray(truth.dataobj)
        # the network grid is one voxel too short along the second axis
        assert (np.asarray(found.dataobj) != whole).mean() < 0.01


def test_the_locked_set_goes_below_locked(tmp_path: Path) -> None:
    layout, folder = trained(tmp_path, "classification", "conv5_fc3")
    run(predict_settings("conv5_fc3"), layout, "tiny", "exp", "net", 0, 0, roles=("locked",))
    table = read_table(layout.run("exp/locked", "net", 0, 0, "predictions.tsv"))
    assert list(table["image_id"]) == ["p16", "p17"] and set(table["role"]) == {"locked"}
    assert not (folder / "predictions.tsv").exists()


@pytest.mark.parametrize("mirror", [(), ("x",), ("x", "y", "z")])
def test_mirrored_results_are_averaged_in_place(tmp_path: Path, mirror: tuple[str, ...]) -> None:
    layout, folder = trained(tmp_path, "segmentation", "unet")
    model, images = load_model(folder, 1), np.asarray(open_store(layout, "tiny").images[:2])
    plain = model.probabilities(images)
    assert np.allclose(plain.sum(1), 1, atol=1e-5) and plain.shape == (2, 3, 8, 8, 8)
    averaged = model.probabilities(images, mirror)
    parts = []
    for code in range(2 ** len(mirror)):
        axes = [2 + "xyz".index(axis) for place, axis in enumerate(mirror) if code >> place & 1]
        parts.append(np.flip(model.probabilities(np.flip(images, axes).copy()), axes))
    assert np.allclose(averaged, np.mean(parts, axis=0), atol=1e-6)
    again = model.probabilities(np.flip(images, [2]).copy(), ("x",))
    assert not mirror or mirror != ("x",) or np.allclose(np.flip(again, 2), averaged, atol=1e-6)


@pytest.mark.parametrize(("network", "unwanted"), [("majority", "torch"), ("unet", "torch._inductor")])
def test_baselines_are_predicted_without_torch_and_networks_without_its_compiler(
    tmp_path: Path, network: str, unwanted: str
) -> None:
    layout, _ = trained(tmp_path, "segmentation", network)
    code = (
        "import sys; from pathlib import Path; from gyri.layout import Layout; from gyri.predict import run\n"
        "from gyri.config.training import PredictSettings\n"
        "run(PredictSettings.model_validate_json(sys.argv[2]), Layout(Path(sys.argv[1])), 'tiny', 'exp', 'net', 0, 0)\n"
        "print(sys.argv[3] in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(layout.root), predict_settings(network).model_dump_json(), unwanted]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_model_of_another_split_is_refused(tmp_path: Path) -> None:
    layout, _ = trained(tmp_path, "regression", "mean")
    path = layout.fold("tiny", 0, "normalization.json")
    write_json(path, {**read_json(path), "fitted_on": "others"})
    with pytest.raises(DataError, match="other participants"):
        run(predict_settings("mean"), layout, "tiny", "exp", "net", 0, 0)


def test_a_changed_raw_image_is_refused(tmp_path: Path) -> None:
    layout, _ = trained(tmp_path, "segmentation", "majority")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), tmp_path / "raw" / "p00.nii.gz")
    with pytest.raises(DataError, match="changed since it was read"):
        run(predict_settings("majority"), layout, "tiny", "exp", "net", 0, 0)


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_damaged_weights_are_a_message(tmp_path: Path, damage: str) -> None:
    _, folder = trained(tmp_path, "segmentation", "unet")
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.unlink()  # it is a hard link
    if damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "other":
        card = read_json(folder / "model.json")
        (folder / "model.json").unlink()
        write_json(folder / "model.json", {**card, "arguments": {"width": 4, "levels": 2}})
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load_model(folder, 1)
