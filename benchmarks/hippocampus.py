"""Time, memory and Dice of the hippocampus example, read from the provenance of a finished run.

GYRI_HIPPOCAMPUS=... .venv/bin/snakemake -c2 --configfile examples/hippocampus.yaml
PYTHONPATH=workflow .venv/bin/python benchmarks/hippocampus.py results > benchmarks/hippocampus.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gyri.layout import Layout
from gyri.progress import duration
from gyri.tables import read_table

LIMITS = {"fold_seconds": 20 * 60, "memory_mb": 3 * 1024, "dice": 0.870, "preprocess_seconds": 20}


def record(path: Path) -> dict[str, Any]:
    """A provenance file."""
    return json.loads(path.read_text(encoding="utf-8"))


def whole(item: dict[str, Any]) -> float:
    """Seconds from the start of the process to its end."""
    return item["startup_seconds"] + item["seconds"]


def main() -> None:
    """Print the table."""
    layout = Layout(Path(sys.argv[1]))
    metrics = read_table(layout.experiment("hippocampus", "metrics.tsv"), "metrics")
    dice = metrics[(metrics.model == "unet") & (metrics.role == "test") & (metrics.metric == "dice") & (metrics.seed == "all")]
    evaluated = record(layout.experiment("hippocampus", "provenance-evaluate.json"))
    folders = sorted((layout.experiment("hippocampus") / "unet").glob("fold-*/seed-0"))
    print("# Hippocampus, 210 volumes, split by person\n")
    print(f"{evaluated['host_kind']}, 2 cores shared with other work, {json.dumps(evaluated['versions'])}\n")
    print(
        "| fold | training | of it processor time | prediction | peak memory, MB | Dice, mean of both structures |\n|---|---|---|---|---|---|"
    )
    worst_time, worst_memory = 0.0, 0.0
    for folder in folders:
        train, predict = record(folder / "provenance-train.json"), record(folder / "provenance-predict.json")
        fold = folder.parent.name.removeprefix("fold-")
        row = dice[(dice.fold == fold) & (dice.structure == "mean")].iloc[0]
        memory = max(train["peak_memory_mb"], predict["peak_memory_mb"])
        worst_time, worst_memory = max(worst_time, whole(train) + whole(predict)), max(worst_memory, memory)
        times = (whole(train), train["cpu_seconds"], whole(predict))
        cells = [duration(seconds) for seconds in times] + [
            f"{memory:.0f}",
            f"{row.value:.4f} [{row.ci_low:.4f}, {row.ci_high:.4f}]",
        ]
        print(f"| {fold} | {' | '.join(cells)} |")
    pooled = dice[(dice.fold == "all") & (dice.structure == "mean")].iloc[0]
    preprocess = record(layout.dataset("hippocampus", "provenance-preprocess.json"))
    print("\n| what | measured | allowed |\n|---|---|---|")
    slowest = duration(worst_time + whole(evaluated))
    print(f"| slowest fold: training, prediction, and the evaluation of all | {slowest} | {duration(LIMITS['fold_seconds'])} |")
    print(f"| largest peak memory | {worst_memory:.0f} MB | {LIMITS['memory_mb']} MB |")
    interval = f"[{pooled.ci_low:.4f}, {pooled.ci_high:.4f}], n = {pooled.n} volumes of {pooled.n_groups} persons"
    print(f"| mean Dice over both structures, out of fold | {pooled.value:.4f} {interval} | at least {LIMITS['dice']:.3f} |")
    print(f"| preprocessing | {whole(preprocess):.1f} s | {LIMITS['preprocess_seconds']} s |")


if __name__ == "__main__":
    main()
