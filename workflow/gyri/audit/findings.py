"""Findings about the cohort as a whole, each with its number, its threshold and what it means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.audit.images import ImageReport
from gyri.audit.order import OrderTest, Scan
from gyri.audit.similarity import ROWS, Similarity

P_STOP = 0.01  # order test: more than one cohort in a hundred reaches this by chance ...
EXCESS_STOP = 0.03  # ... and three neighbours in a hundred more than expected must be the most alike of all images ...
EXCESS_WARN = 0.015  # (half as many: a warning)
RATIO_STOP = 2.0  # ... which must be at least twice as many as expected ...
PAIRS_STOP = 3  # ... and this many at least
NEAR_DUPLICATE = 0.99  # correlation of voxels
CANDIDATE_RAW, CANDIDATE_COHORT = 0.98, 0.9  # correlation of blocks, plain and without the cohort's mean, worth a closer look
CANDIDATES = 500  # pairs whose voxels are compared
BY_CHANCE = 4  # pairs alike in content that chance gives in fewer than one cohort in fifty (Poisson with mean 1)
MINIMUM_COHORT = 20  # images below which likeness cannot be judged
SHOWN = 200  # pairs written to audit.json
# measured by benchmarks/same_person.py on 210 hippocampus volumes of 138 persons, 72 pairs
MEASURED = (
    "measured on 210 hippocampus volumes of 138 persons (72 true pairs): pairs with the same value step have precision 0.97 "
    "and recall 0.81, pairs alike in content alone precision 0.94 and recall 0.40, both together precision 0.94 and recall 0.86; "
    "with each person in one group, 8 pairs are still listed there, and 0 to 6 in synthetic cohorts of 60"
)

FindingStatus = Literal["pass", "warn", "stop", "acknowledged"]


@dataclass
class Finding:
    """One finding about the cohort; see docs/audit.md.

    Args:
        finding: its name.
        status: pass, warn, stop, or acknowledged (would stop, but was looked at).
        detail: what was found, in words.
        statistic: the number that was tested, if any.
        p: its p value, if any.
        threshold: what makes it stop or warn.
        remedy: what to do.
        pairs: images concerned, the first `SHOWN`.
        count: number of pairs or images concerned.
    """

    finding: str
    status: FindingStatus
    detail: str
    statistic: float | None = None
    p: float | None = None
    threshold: str = ""
    remedy: str = ""
    pairs: list[list[str]] = field(default_factory=list)
    count: int = 0

    def as_json(self) -> dict[str, Any]:
        """The finding with numbers rounded to six digits."""
        content = asdict(self)
        for key in ("statistic", "p"):
            if content[key] is not None:
                content[key] = float(f"{content[key]:.6g}")
        content["pairs"] = content["pairs"][:SHOWN]
        return content


def order_finding(test: OrderTest | None, remedy: str) -> Finding:
    """Judge the order test: it stops only where the effect is certain and large."""
    threshold = (
        f"p <= {P_STOP:g}, and the share of neighbours that are each other's most alike image at least {EXCESS_STOP:.0%} of all "
        f"neighbours above, and {RATIO_STOP:g} times, what is expected"
    )
    if test is None:
        return Finding("order_similarity", "pass", "too few neighbours of different groups to test", threshold=threshold)
    excess = test.closest - test.closest_expected
    certain = test.p <= P_STOP
    enough = test.closest >= RATIO_STOP * test.closest_expected and round(test.closest * test.pairs) >= PAIRS_STOP
    detail = (
        f"of {test.pairs} neighbours in name order that count as different groups, {test.closest:.1%} are the most alike images "
        f"of all ({test.closest_expected:.1%} after shuffling inside windows of names); mean reciprocal rank "
        f"{test.statistic:.3f} against {test.expected:.3f}, p = {test.p:.3g} with {test.permutations} permutations"
    )
    status: FindingStatus = "pass"
    if certain and enough and excess >= EXCESS_WARN:
        status = "stop" if excess >= EXCESS_STOP else "warn"
    if status == "stop":
        detail += "; neighbouring names probably belong to one person, who would then be on both sides of a split"
    return Finding("order_similarity", status, detail, test.statistic, test.p, threshold, remedy if status != "pass" else "")


def same_person(found: Scan, similarity: Similarity, names: list[str], remedy: str) -> Finding:
    """List pairs of different groups that look like one person.

    A pair is listed where both images lie on the same uncommon value step, or where each is the other's most alike image
    and their similarity is above what one pair of this cohort would reach by chance.
    """
    threshold = chance_threshold(similarity)
    pairs = same_person_pairs(found, similarity)
    rule = f"same value step, or mutually most alike with similarity above {threshold:.2f}"
    if len(names) < MINIMUM_COHORT:
        return Finding("same_person", "pass", f"fewer than {MINIMUM_COHORT} images: likeness cannot be judged", threshold=rule)
    steps = sum(kind == "value step" for _, _, kind, _ in pairs)
    detail = (
        f"{len(pairs)} pairs of images in different groups look like one person ({steps} by their value step; of the others "
        f"about one is expected by chance); {MEASURED}"
    )
    listed = [[names[first], names[second], kind, f"{score:.3f}"] for first, second, kind, score in pairs]
    share = len({image for pair in pairs for image in pair[:2]}) / len(names)
    status: FindingStatus = "warn" if steps or len(pairs) >= BY_CHANCE else "pass"
    return Finding("same_person", status, detail, share, None, rule, remedy if pairs else "", listed, len(pairs))


def same_person_pairs(found: Scan, similarity: Similarity) -> list[tuple[int, int, str, float]]:
    """Pairs (first image, second image, how they were found, similarity), sorted; see `same_person`."""
    pairs: dict[tuple[int, int], tuple[str, float]] = {}
    content = similarity.summary, similarity.blocks
    threshold = chance_threshold(similarity)
    for number in range(int(similarity.steps.max(initial=-1)) + 1):
        members = np.flatnonzero(similarity.steps == number)
        for position, first in enumerate(members):
            for second in members[position + 1 :]:
                if similarity.groups[first] != similarity.groups[second]:
                    score = sum(float(part[first] @ part[second]) for part in content)
                    pairs[int(first), int(second)] = "value step", score
    for image, other in enumerate(found.content_closest):
        if other > image and found.content_closest[other] == image and found.content_score[image] > threshold:
            pairs.setdefault((image, int(other)), ("content", float(found.content_score[image])))
    return [(*pair, *pairs[pair]) for pair in sorted(pairs)]


def chance_threshold(similarity: Similarity) -> float:
    """The similarity that one pair of the cohort is expected to exceed by chance.

    Source: the cosine of two random directions in P dimensions has variance 1 / P; the sum of two is taken as normal.
    """
    count = len(similarity.groups)
    spread = np.sqrt(sum(1.0 / max(part.shape[1], 1) for part in (similarity.summary, similarity.blocks)))
    pairs = max(count * (count - 1) / 2, 2.0)
    return float(spread * NormalDist().inv_cdf(1 - 1 / pairs))


def near_duplicates(
    similarity: Similarity, names: list[str], same_voxels: list[str], correlate: Callable[[int, int], float], remedy: str
) -> Finding:
    """Pairs of different groups whose voxels are all but the same: copies that were rescaled, compressed or got a little noise.

    Args:
        similarity: of the cohort.
        names: image ids.
        same_voxels: sha256 of each image's voxels; exact duplicates are told elsewhere.
        correlate: correlation of the voxels of two images, by their index.
        remedy: what to do.
    """
    candidates = near_candidates(similarity, same_voxels)
    found = [(first, second, correlate(first, second)) for first, second in candidates[:CANDIDATES]]
    pairs = [[names[first], names[second], f"{value:.5f}"] for first, second, value in found if value > NEAR_DUPLICATE]
    detail = f"{len(pairs)} pairs of images in different groups whose voxels correlate above {NEAR_DUPLICATE}"
    if len(candidates) > CANDIDATES:
        detail += f"; only the {CANDIDATES} most suspicious of {len(candidates)} candidates were compared voxel by voxel"
    highest = max((value for _, _, value in found), default=None)
    status: FindingStatus = "stop" if pairs else "pass"
    rule = f"correlation of voxels > {NEAR_DUPLICATE}"
    return Finding("near_duplicates", status, detail, highest, None, rule, remedy if pairs else "", pairs, len(pairs))


def near_candidates(similarity: Similarity, same_voxels: list[str]) -> list[tuple[int, int]]:
    """Pairs whose coarse blocks agree so well that their voxels are worth comparing, the most alike first."""
    voxels = np.unique(np.array(same_voxels), return_inverse=True)[1]
    pairs: list[tuple[float, int, int]] = []
    for start in range(0, len(voxels), ROWS):
        part = slice(start, start + ROWS)
        raw: NDArray[np.float32] = similarity.raw_blocks[part] @ similarity.raw_blocks.T
        cohort: NDArray[np.float32] = similarity.cohort_blocks[part] @ similarity.cohort_blocks.T
        close = (raw > CANDIDATE_RAW) & (cohort > CANDIDATE_COHORT)
        close &= (similarity.groups[part, None] != similarity.groups[None]) & (voxels[part, None] != voxels[None])
        for row, other in zip(*np.nonzero(close), strict=True):
            if start + row < other:
                pairs.append((-float(cohort[row, other]), start + int(row), int(other)))
    return [(first, second) for _, first, second in sorted(pairs)]


def exact_duplicates(images: pd.DataFrame, targets: list[str], reports: dict[str, ImageReport]) -> Finding:
    """Images with the very same voxels; across groups all but the first are excluded, all of them where their targets differ.

    Args:
        images: the cohort.
        targets: columns that experiments predict.
        reports: by image id; the results are noted in them.
    """
    pairs = []
    across = 0
    known = images[images["sha256_voxels"] != ""]
    for _, rows in known.groupby("sha256_voxels", sort=True):
        if len(rows) < 2:
            continue
        first, *others = rows["image_id"]
        pairs += [[first, other] for other in others]
        if rows["group"].nunique() == 1:
            for other in others:
                reports[other].add("duplicate", "warn", f"the same voxels as {first}, of the same group")
            continue
        across += len(others)
        differing = [name for name in targets if name in rows and rows[name].astype(str).nunique() > 1]
        for name in [first, *others] if differing else others:
            twin = first if name != first else others[0]
            why = f", and another {' and '.join(differing)}" if differing else ""
            reports[name].add("duplicate", "exclude", f"the same voxels as {twin}, which counts as another group{why}")
    detail = f"{len(pairs)} images have the voxels of another one, {across} of them across groups (excluded)"
    return Finding(
        "exact_duplicates", "warn" if pairs else "pass", detail, threshold="equal sha256_voxels", pairs=pairs, count=len(pairs)
    )


def grids(reports: list[ImageReport]) -> list[Finding]:
    """Mixed orientations, affines without orientation, spread of spacings."""
    read = [report for report in reports if report.orientation]
    orientations = Counter(report.orientation for report in read)
    told = ", ".join(f"{name} {count}" for name, count in sorted(orientations.items(), key=lambda item: (-item[1], item[0])))
    mixed = len(orientations) > 1
    detail = f"orientations as stored: {told or 'none known (pictures)'}; all are turned to RAS"
    silent = sum(report.identity_affine for report in read)
    if silent:
        detail += f"; {silent} affines are the identity, which software also writes where it knows nothing: left may be right"
    found = [Finding("orientation", "warn" if mixed else "pass", detail, float(len(orientations)), threshold="one orientation")]
    spacings = np.array([sorted(report.spacing) for report in read if len(report.spacing) == 3])
    if len(spacings):
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        ratio = float((high / low).max())
        text = f"spacings from {tuple(low.round(3).tolist())} to {tuple(high.round(3).tolist())} mm (each image's sorted)"
        status: FindingStatus = "warn" if ratio > 1.5 else "pass"
        found.append(Finding("spacing", status, text, ratio, threshold="largest over smallest at most 1.5 along each axis"))
    return found


def unused_labels(reports: list[ImageReport], declared: dict[str, dict[str, str]]) -> list[Finding]:
    """Declared label values that no image has."""
    found = []
    for column, values in sorted(declared.items()):
        seen = {value for report in reports for value in report.label_values.get(column, [])}
        never = [f"{value} ({name})" for value, name in values.items() if int(value) not in seen]
        detail = f"declared but in no image: {', '.join(never)}" if never else "every declared value occurs"
        found.append(
            Finding(
                f"labels.{column}", "warn" if never else "pass", detail, count=len(never), threshold="every declared value occurs"
            )
        )
    return found
