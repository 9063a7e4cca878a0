"""How many processor threads a job gets: part of the result, since sums depend on it."""

from __future__ import annotations

from gyri.config.base import Settings
from gyri.config.training import Count


class Threads(Settings):
    """Threads per job of each stage. A machine with fewer cores refuses: fewer threads would change bytes."""

    dataset: Count = 2
    audit: Count = 2
    preprocess: Count = 2
    train: Count = 2
    predict: Count = 2
    evaluate: Count = 2
