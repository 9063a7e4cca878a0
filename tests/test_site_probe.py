"""Can the acquisition site be told from plain features of the images? Found where sites differ, not where they are exchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gyri.config.experiments import EvaluateSettings
from gyri.evaluate import run
from gyri.evaluate.chance import Null, tell_site
from gyri.evaluate.site import METRIC, site_from_images
from gyri.tables import read_table, write_table
from gyri.transforms.features import MOST_VOXELS, image_features, names
from small_experiment import DATASET, Small, make
from test_comparisons import settings_of
from test_evaluate import one, rows_of

SHAPE = (14, 16, 12)


def head(random: np.random.Generator, contrast: float = 1.0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A noisy ball with texture; `contrast` is what a scanner does to it."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    ball = (grid**2).sum(0) < 0.7 + 0.1 * random.random()
    texture = 0.5 + 0.3 * np.sin(5 * grid[0] + random.random()) * np.cos(4 * grid[1])
    return (ball * texture**contrast + random.normal(0, 0.03, shape))[None].astype(np.float32)


def scanned(folder: Path, contrasts: dict[str, float], persons: int = 36) -> tuple[Small, EvaluateSettings]:
    """A cohort of two sites with the features of their images."""
    small = make(folder, "regression", persons=persons)
    number = small.cohort["participant_id"].str[1:].astype(int)
    small.cohort["site"] = np.where((number // 3) % 2 == 0, "north", "south")
    small.write()
    random = np.random.default_rng(3)
    table = pd.DataFrame([image_features(head(random, contrasts[site])) for site in small.cohort["site"]], columns=names(["t1w"]))
    table.insert(0, "image_id", small.cohort["image_id"])
    write_table(small.layout.dataset(DATASET, "features.tsv"), table)
    return small, settings_of(small)


def probed(small: Small, settings: EvaluateSettings) -> pd.DataFrame:
    """Evaluate a model that knows nothing of sites; the lines of the probe of the images."""
    run(settings, small.layout, DATASET, "trial", [small.predict("a", fold, 0, 1.0) for fold in range(3)], 1)
    return rows_of(read_table(small.layout.experiment("trial", "chance.tsv")), metric=METRIC)


# ── the probe ──
def test_a_site_that_changes_contrast_is_found(tmp_path: Path) -> None:
    small, settings = scanned(tmp_path, {"north": 1.0, "south": 1.8})
    found = one(probed(small, settings))
    assert found["value"] > 0.9 and found["p"] < 0.005 and found["p_holm"] == found["p"]
    assert 0.4 < found["null_mean"] < 0.6 and found["null_low"] < found["null_mean"] < found["null_high"] < found["value"]
    assert found["n"] == len(small.cohort) and found["n_groups"] == small.cohort["group"].nunique()


def test_exchanged_sites_are_not_found(tmp_path: Path) -> None:
    """The same images with sites dealt anew to whole groups: small p-values are as rare as they should be."""
    small, settings = scanned(tmp_path, {"north": 1.0, "south": 1.8})
    rows = pd.concat([small.rows(fold, ("test",)).assign(fold=str(fold)) for fold in range(3)]).sort_values("image_id")
    features = read_table(small.layout.dataset(DATASET, "features.tsv")).set_index("image_id").loc[rows["image_id"]].to_numpy(float)
    groups = sorted(set(rows["group"]))
    found = []
    for seed in range(20):
        dealt = dict(
            zip(groups, np.random.default_rng(seed).permutation(["north", "south"] * len(groups))[: len(groups)], strict=True)
        )
        site = {image: str(dealt[group]) for image, group in zip(rows["image_id"], rows["group"], strict=True)}
        found.append(tell_site(Null(rows, site, settings, "test"), rows, features, site, "")["p"])
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 20)
    assert 0.3 < np.mean(found) < 0.8


@pytest.mark.parametrize("what", ["one site", "no features", "an image without features"])
def test_what_cannot_be_probed_says_why(tmp_path: Path, what: str) -> None:
    small, settings = scanned(tmp_path, {"north": 1.0, "south": 1.8}, persons=12)
    file = small.layout.dataset(DATASET, "features.tsv")
    site = dict.fromkeys(small.cohort["image_id"], "north") if what == "one site" else {}
    if what == "no features":
        file.unlink()
    elif what == "an image without features":
        write_table(file, read_table(file).iloc[1:])
    table = pd.concat([small.rows(fold, ("test",)).assign(fold=str(fold)) for fold in range(3)], ignore_index=True)
    line = site_from_images(settings, table, site, file).iloc[0]
    expected = {"one site": "two sites", "no features": "features.tsv is not there", "an image without features": "lacks 1 image"}
    assert np.isnan(line["value"]) and expected[what] in line["note"]


# ── features ──
def test_features_see_what_they_are_named_after() -> None:
    random = np.random.default_rng(0)
    plain, order = head(random), names(["t1w"])
    found = dict(zip(order, image_features(plain), strict=True))
    noisy = dict(zip(order, image_features(plain + random.normal(0, 0.1, plain.shape).astype(np.float32)), strict=True))
    assert noisy["t1w_noise"] > 1.5 * found["t1w_noise"] and noisy["t1w_contrast_to_noise"] < found["t1w_contrast_to_noise"]
    assert noisy["t1w_roughness_y"] > found["t1w_roughness_y"]
    scaled = dict(zip(order, image_features(3 * plain), strict=True))
    for name in order:
        grows = name.split("_", 1)[1] in ("noise", "deviation") or name.startswith("t1w_q")
        assert scaled[name] == pytest.approx((3 if grows else 1) * found[name], rel=1e-4), name
    small = np.zeros_like(plain)
    small[:, :7] = plain[:, :7]
    halved = dict(zip(order, image_features(small), strict=True))
    assert halved["t1w_extent_x"] < 0.6 * found["t1w_extent_x"] and halved["t1w_foreground"] < found["t1w_foreground"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 1), (2, 3, 2), (5, 1, 7)])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_features_are_finite_for_every_shape(shape: tuple[int, int, int], kind: str) -> None:
    image = np.zeros((2, *shape), np.float16)
    if kind == "noise":
        image += np.random.default_rng(1).normal(size=image.shape).astype(np.float16)
    found = image_features(image)
    assert len(found) == len(names(["a", "b"])) == 32 and np.isfinite(found).all()


def test_large_images_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    image = head(np.random.default_rng(2), shape=(64, 64, 64))
    whole = image_features(image)
    monkeypatch.setattr("gyri.transforms.features.MOST_VOXELS", image.size // 8)
    part = image_features(image)
    assert image.size < MOST_VOXELS
    assert not np.array_equal(part, whole) and part == pytest.approx(whole, rel=0.12, abs=0.03)
