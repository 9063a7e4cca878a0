"""How well the audit finds one person under several ids, on the Decathlon hippocampus volumes.

Volumes 2k-1 and 2k are the two hippocampi of one person, so the truth is (number + 1) // 2 (an inference from the data, see
docs/audit.md). Measured are the pairwise check (precision and recall of each kind of evidence, and how often the most alike
image is the partner) and the order test (without groups, with groups, with shuffled names, and with fewer and fewer pairs left
beside each other).

Run: PYTHONPATH=workflow python benchmarks/same_person.py DECATHLON_FOLDER > benchmarks/same_person.md
"""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from gyri.audit.descriptors import Descriptor
from gyri.audit.findings import order_finding, same_person_pairs
from gyri.audit.images import check_image
from gyri.audit.order import order_test, scan, windows
from gyri.audit.similarity import build
from gyri.images import row_digests
from gyri.io import read_json
from gyri.seeds import generator

PERMUTATIONS = 999
SHUFFLES = 100
HEAD = "| neighbours | reciprocal rank | expected | closest | expected | p | status |\n|---|---|---|---|---|---|---|---|"


def main(folder: Path) -> None:
    """Measure and print the tables."""
    start = time.monotonic()
    names, descriptors = describe_all(folder)
    seconds = time.monotonic() - start
    persons = [str((int(name.rsplit("_", 1)[1]) + 1) // 2) for name in names]
    true = {(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if persons[i] == persons[j]}
    print("# One person under several ids: how well the audit finds them\n")
    print(f"{len(names)} volumes of {len(set(persons))} persons, {len(true)} true pairs. Descriptors of all volumes took ")
    print(f"{seconds:.1f} s on one core ({platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}).\n")
    pairwise(names, persons, descriptors, true)
    order(names, persons, descriptors)
    power(names, persons, descriptors)


def describe_all(folder: Path) -> tuple[list[str], list[Descriptor]]:
    """Run the image checks of the audit and keep the descriptors."""
    labels = {"label": read_json(folder / "dataset.json")["labels"]}
    facts = {"root": str(folder), "channels": ["mri"], "channel_files": {"mri": ["MRI"]}, "labels": labels}
    names, descriptors = [], []
    for path in sorted((folder / "imagesTr").glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        row = {"image_id": name, "image_mri": f"imagesTr/{path.name}", "label": f"labelsTr/{path.name}"}
        row["sha256_file"], row["sha256_labels"] = row_digests(row, folder)
        report = check_image(row, facts, (0.2, 10.0))
        if report.descriptor is not None:
            names.append(name)
            descriptors.append(report.descriptor)
    return names, descriptors


def without_step(descriptors: list[Descriptor]) -> list[Descriptor]:
    """The descriptors as they would be of images whose value step is lost."""
    return [replace(each, step=0.0) for each in descriptors]


def pairwise(names: list[str], persons: list[str], descriptors: list[Descriptor], true: set[tuple[int, int]]) -> None:
    """Precision and recall of the pairs that are listed."""
    alone = [str(index) for index in range(len(names))]
    partners = {i for pair in true for i in pair}
    print("## Pairwise check `same_person`\n\n| evidence | pairs listed | true | precision | recall |\n|---|---|---|---|---|")
    similarity = build(descriptors, alone)
    found = scan(similarity, windows(names, similarity.groups))
    both = same_person_pairs(found, similarity)
    plain = build(without_step(descriptors), alone)
    found_plain = scan(plain, windows(names, plain.groups))
    content = same_person_pairs(found_plain, plain)
    listed = {"value step": [p for p in both if p[2] == "value step"], "content alone": content, "both together": both}
    for name, pairs in listed.items():
        hits = sum((pair[0], pair[1]) in true for pair in pairs)
        print(f"| {name} | {len(pairs)} | {hits} | {hits / max(len(pairs), 1):.2f} | {hits / len(true):.2f} |")
    print(f"\nMost alike image is the partner, of the {len(partners)} images that have one:")
    for name, closest in (("with value step", found.closest), ("content alone", found_plain.closest)):
        right = sum(persons[closest[image]] == persons[image] for image in partners)
        print(f"{name} {right} ({right / len(partners):.0%});", end=" ")
    wrong = [f"{names[i]} and {names[j]} ({kind})" for i, j, kind, _ in both if (i, j) not in true]
    print(f"\n\nListed but not partners by the rule: {', '.join(wrong) or 'none'}.\n")


def line(title: str, names: list[str], groups: list[str], descriptors: list[Descriptor], seed: int = 0) -> str:
    """One row of the table of order tests."""
    similarity = build(descriptors, groups)
    runs = windows(names, similarity.groups)
    test = order_test(scan(similarity, runs), runs, PERMUTATIONS, generator("benchmark", seed))
    if test is None:
        return f"| {title} | too few neighbours | | | | |"
    status = order_finding(test, "").status
    shares = f"{test.closest:.1%} | {test.closest_expected:.1%}"
    return f"| {title} | {test.pairs} | {test.statistic:.3f} | {test.expected:.3f} | {shares} | {test.p:.3f} | {status} |"


def order(names: list[str], persons: list[str], descriptors: list[Descriptor]) -> None:
    """The order test in the situations that matter."""
    alone = [str(index) for index in range(len(names))]
    print("## Order test `order_similarity`\n")
    print("| situation " + HEAD)
    print(line("no groups", names, alone, descriptors))
    print(line("no groups, value step lost", names, alone, without_step(descriptors)))
    print(line("groups by (number + 1) // 2", names, persons, descriptors))
    shuffled = [np.random.default_rng(seed).permutation(len(names)) for seed in range(SHUFFLES)]
    rows = [
        line(f"shuffled names, seed {seed}", names, alone, [descriptors[i] for i in o], seed) for seed, o in enumerate(shuffled)
    ]
    print("\n".join(rows[:3]))
    print("\n" + counted(rows, f"{SHUFFLES} shuffles"))
    print(counted(strangers(names, persons, descriptors), f"{SHUFFLES} cohorts of 60 strangers in name order") + "\n")


def strangers(names: list[str], persons: list[str], descriptors: list[Descriptor]) -> list[str]:
    """One image of each of 60 persons, in name order: the slow drift of the scans is left, the pairs are gone."""
    rows = []
    for seed in range(SHUFFLES):
        draw = np.random.default_rng(1000 + seed)
        chosen = sorted(draw.choice(sorted(set(persons)), 60, replace=False), key=int)
        images = [int(draw.choice([i for i, person in enumerate(persons) if person == one])) for one in chosen]
        alone = [str(index) for index in images]
        rows.append(line(str(seed), [names[i] for i in images], alone, [descriptors[i] for i in images], seed))
    return rows


def counted(rows: list[str], title: str) -> str:
    """How often each status came out, and small p values."""
    fields = [[cell.strip() for cell in row.split("|")] for row in rows]
    small = sum(float(field[7]) <= 0.01 for field in fields)
    statuses = {status: sum(field[8] == status for field in fields) for status in ("pass", "warn", "stop")}
    told = ", ".join(f"{name} {count}" for name, count in statuses.items())
    return f"Of {title}: {told}; p <= 0.01 in {small} (1 expected).\n"


def power(names: list[str], persons: list[str], descriptors: list[Descriptor]) -> None:
    """Leave only some pairs beside each other: the others' second image is moved to a random place."""
    print("## Fewer pairs beside each other\n\nThe second image of the other pairs is dealt to a random place in the order.\n")
    print("| pairs left adjacent " + HEAD)
    firsts = [i for i in range(len(names) - 1) if persons[i] == persons[i + 1]]
    for kept in (72, 36, 24, 16, 12, 8, 4):
        draw = np.random.default_rng(kept)
        moved = np.array(sorted(draw.permutation(firsts)[kept:]), dtype=int) + 1
        sequence = np.arange(len(names))
        sequence[moved] = draw.permutation(moved)
        alone = [str(index) for index in range(len(names))]
        print(line(str(kept), names, alone, [descriptors[i] for i in sequence]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
