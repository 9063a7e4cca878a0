"""The measured coverage that the page prints is that of the benchmark, and is enough."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from gyri.coverage import FEW, MEANS, MEASURED, OF_METRIC, measured_coverage
from gyri.metrics import classification, regression, segmentation
from gyri.report.tables_results import few_groups

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ROW = r"\| (\w+) \| (\d+) \| gyri: ([\w ]+?) \| ([\d.]+) ± ([\d.]+) "


def rows_of(file: str) -> list[tuple[str, int, str, float, float]]:
    """Rows of gyri's own intervals or tests: quantity, groups, kind, share, error."""
    text = (BENCHMARKS / file).read_text(encoding="utf-8")
    return [(name, int(groups), kind, float(share), float(error)) for name, groups, kind, share, error in re.findall(ROW, text)]


def test_the_table_is_that_of_the_benchmark() -> None:
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for name, groups, _, share, error in rows_of("interval_coverage.md"):
        found.setdefault(name, {})[groups] = (share, error)
    assert found == MEASURED
    assert {MEANS, *OF_METRIC.values()} <= set(MEASURED)


@pytest.mark.parametrize("quantity", MEASURED)
def test_coverage_is_enough_from_20_groups_on(quantity: str) -> None:
    shares = [share for groups, (share, _) in MEASURED[quantity].items() if groups >= 20]
    assert shares
    assert min(shares) >= 0.93


def test_levels_are_kept() -> None:
    rows = rows_of("interval_coverage_levels.md")
    assert {name for name, *_ in rows} == {
        "paired_dice",
        "paired_failures",
        "paired_auroc",
        "paired_fold_auroc",
        "procedures",
        "permutation",
    }
    assert len(rows) == 18
    for name, groups, kind, share, _ in rows:
        assert share <= 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5, (name, groups, kind)


def test_what_was_not_simulated_is_not_claimed() -> None:
    dice, auroc = segmentation.METRICS["dice"], classification.METRICS["auroc"]
    assert measured_coverage("dice", dice, 15) == measured_coverage("dice", dice, 12)
    assert measured_coverage("dice", dice, 11) is None
    assert measured_coverage("auroc", auroc, 300).groups == 60
    assert measured_coverage("rmse", regression.METRICS["rmse"], 30) is None


def test_the_page_says_it_below_20_groups() -> None:
    rows = pd.DataFrame({"metric": ["dice", "volume_error_relative", "rmse"], "n_groups": [14, FEW, 14]})
    notes = few_groups(rows)
    share, error = MEASURED[MEANS][12]
    start = "Intervals of few groups: in simulations the coverage of a nominal 0.95 was "
    assert notes == [
        f"{start}{share:.3f} ± {error:.3f} at 12 groups: Dice coefficient (14 groups here).",
        f"{start}not measured: root mean squared error (14 groups here).",
    ]
    assert few_groups(rows.assign(n_groups=FEW)) == []
