"""The index sets experiments beside each other; the viewer's volumes are those of the images."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

import report_fixture
from gyri.layout import Layout
from gyri.report.cases import Case
from gyri.report.figures_index import gains
from gyri.report.source import Source
from gyri.report.viewer import MOST_CASES, MOST_VOXELS, thinning, volume
from gyri.tables import read_table


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    layout = Layout(tmp_path_factory.mktemp("index") / "results")
    settings = report_fixture.make_results(layout.root, 9, (6, 6, 6), ("classification", "regression"))
    return [Source(item, layout) for item in settings]


@pytest.mark.parametrize(("experiment", "name", "perfect"), [("diagnosis", "auroc", 1.0), ("age", "mae", 0.0)])
def test_gains_are_shares_of_the_way_to_perfect(sources: list[Source], experiment: str, name: str, perfect: float) -> None:
    table = gains(sources).data
    assert table is not None
    layout = sources[0].layout
    metrics = read_table(layout.experiment(experiment, "metrics.tsv"), "metrics")
    values = metrics[(metrics["metric"] == name) & (metrics["fold"] == "all")].set_index("model")["value"]
    baselines = values[values.index.isin(["linear", "majority", "mean"])]
    base = baselines.min() if perfect == 0 else baselines.max()
    pairs = read_table(layout.experiment(experiment, "comparisons.tsv"))
    own = table[table["experiment"] == experiment].set_index("model")
    assert set(own.index) == set(values.index) - set(baselines.index)
    for model, row in own.iterrows():
        assert row["gain"] == pytest.approx((values[model] - base) / (perfect - base))
        there = pairs[
            (pairs["first"].isin([model]) & pairs["second"].isin(baselines[baselines == base].index))
            | (pairs["second"].isin([model]) & pairs["first"].isin(baselines[baselines == base].index))
        ].iloc[0]
        assert row["ci_low"] <= row["gain"] <= row["ci_high"]
        assert row["ci_high"] - row["ci_low"] == pytest.approx((there["ci_high"] - there["ci_low"]) / abs(perfect - base))


def test_without_comparisons_there_is_no_interval(sources: list[Source], tmp_path: Path) -> None:
    source = Source(sources[0].settings, sources[0].layout)
    hidden = source.layout.experiment("diagnosis", "comparisons.tsv")
    kept = hidden.read_bytes()
    hidden.unlink()
    try:
        found = gains([source])
    finally:
        hidden.write_bytes(kept)
    assert found.data is not None
    assert found.data["ci_low"].isna().all()
    assert found.notes


def test_a_packed_volume_can_be_read_back() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((5, 6, 7)).astype(np.float32)
    image[0] = np.nan
    truth, said = rng.integers(0, 4, image.shape), rng.integers(0, 4, image.shape)
    text = str(volume(Case(image, truth, said, (1.0, 2.0, 3.0), 0), True))
    fields = dict(re.findall(r'data-(\w+)="([^"]*)"', text))
    assert fields["size"] == "5 6 7"
    assert fields["spacing"] == "1 2 3"
    packed = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(fields[name])), np.uint8) for name in ("image", "truth", "prediction")
    }
    grey = np.cumsum(packed["image"], dtype=np.uint8).reshape(image.shape, order="F")
    assert (grey[0] == 0).all()
    np.testing.assert_array_equal(packed["truth"].reshape(image.shape, order="F"), truth)
    np.testing.assert_array_equal(packed["prediction"].reshape(image.shape, order="F"), said)
    low, high = np.nanpercentile(image, (1, 99.5))
    np.testing.assert_allclose(grey[1:] / 255, np.clip((image[1:] - low) / (high - low), 0, 1), atol=0.003)


def test_large_volumes_are_thinned_to_the_budget_and_stay_in_shape() -> None:
    step = thinning((256, 256, 40), (1.0, 1.0, 4.0))
    assert step[2] == 1
    assert step[0] == pytest.approx(step[1], abs=1)
    assert np.prod([-(-size // by) for size, by in zip((256, 256, 40), step, strict=True)]) <= MOST_VOXELS
    assert thinning((60, 60, 60), (1.0, 1.0, 1.0)) == (1, 1, 1)
    assert thinning((1024, 1024, 1), (1.0, 1.0, 1.0))[2] == 1


def test_five_volumes_of_noise_leave_room_in_the_page() -> None:
    """Noise is what compresses worst; a page of 300 cases may hold 8 MB."""
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(256, 256, 176)).astype(np.float32), np.zeros((256, 256, 176), int)
    labels[60:200, 60:200, 40:140] = 1 + np.indices((140, 140, 100)).sum(0) // 40
    text = volume(Case(image, labels, np.roll(labels, 2), (1.0, 1.0, 1.0), 0), True)
    assert MOST_CASES * len(text) < 3_000_000
