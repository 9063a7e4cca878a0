"""How often 95 % intervals like those of gyri contained the truth in simulations, for whoever reads an interval of few groups.

The numbers are those of benchmarks/interval_coverage.md (a test compares them): 2000 simulated test sets each, images clustered in
groups. Below the fewest groups that were simulated nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEW = 20
"""Below this number of groups the measured coverage stands beside an interval."""
MEASURED: dict[str, dict[int, tuple[float, float]]] = {
    "dice": {12: (0.971, 0.004), 20: (0.965, 0.004), 60: (0.952, 0.005)},
    "failures": {12: (0.962, 0.004), 20: (0.946, 0.005), 60: (0.944, 0.005)},
    "auroc": {12: (0.987, 0.003), 20: (0.966, 0.004), 60: (0.969, 0.004)},
    "balanced_accuracy": {12: (0.965, 0.004), 20: (0.963, 0.004), 60: (0.952, 0.005)},
    "mcc": {12: (0.962, 0.004), 20: (0.957, 0.005), 60: (0.955, 0.005)},
    "r2": {12: (0.921, 0.006), 20: (0.936, 0.005), 60: (0.942, 0.005)},
    "fold_correlation": {12: (0.991, 0.002), 20: (0.980, 0.003), 60: (0.941, 0.005)},
    "fold_average_precision": {12: (0.989, 0.002), 20: (0.966, 0.004), 60: (0.962, 0.004)},
    "fold_auroc": {12: (0.995, 0.002), 20: (0.974, 0.004), 60: (0.958, 0.004)},
}
"""Simulated quantity -> groups -> coverage and its Monte-Carlo standard error."""
OF_METRIC = {
    "auroc": "fold_auroc",
    "average_precision": "fold_average_precision",
    "correlation": "fold_correlation",
    "r2": "r2",
    "mcc": "mcc",
    "balanced_accuracy": "balanced_accuracy",
}
MEANS = "failures"
"""Stands for all studentized means: the harder one of the two that were simulated."""


@dataclass(frozen=True)
class Coverage:
    """What was measured.

    Args:
        share: of the simulated intervals contained the truth, nominally 0.95.
        error: Monte-Carlo standard error.
        groups: in the simulation.
    """

    share: float
    error: float
    groups: int


def measured_coverage(metric: str, declaration: Mapping[str, Any], groups: int) -> Coverage | None:
    """The measured coverage of intervals of a metric, at the largest simulated number of groups that is not above.

    Args:
        metric: its name.
        declaration: from METRICS.
        groups: behind the interval.

    Returns:
        None where nothing like it was simulated: other metrics, fewer groups.
    """
    quantity = MEANS if declaration.get("studentized") else OF_METRIC.get(metric)
    simulated = [number for number in MEASURED.get(quantity or "", {}) if number <= groups]
    if quantity is None or not simulated:
        return None
    return Coverage(*MEASURED[quantity][max(simulated)], max(simulated))
