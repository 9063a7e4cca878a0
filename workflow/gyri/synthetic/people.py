"""Who takes part: a matched case-control study on several sites, with return visits and twins.

Each patient has a control of the same site, sex and (nearly) age, so that neither of the three predicts the diagnosis. A twin
pair is such a pair of one age and one anatomy: one twin is ill, the other is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import SyntheticDataset
from gyri.seeds import generator
from gyri.synthetic import effects

SITE_NAMES = "ABCDE"
# how far apart visits are, years
YEARS_BETWEEN = (1.5, 3.5)


@dataclass(frozen=True)
class Visit:
    """One session.

    Args:
        label: `01`, ...; empty for those who came once.
        age: in years.
    """

    label: str
    age: float


@dataclass(frozen=True)
class Person:
    """One participant.

    Args:
        label: without `sub-`.
        sex: `F` or `M`.
        diagnosis: `control` or `patient`.
        site: index into the sites.
        family: what twins share, nobody else.
        twin: whether a twin is in the cohort too.
        atrophy: whether the disease shows in the brain: in most patients, in no control.
        visits: in order of time.
    """

    label: str
    sex: str
    diagnosis: str
    site: int
    family: str
    twin: bool
    atrophy: bool
    visits: tuple[Visit, ...]

    @property
    def name(self) -> str:
        """`sub-` and the label."""
        return f"sub-{self.label}"


def people(settings: SyntheticDataset) -> list[Person]:
    """Draw the cohort.

    Args:
        settings: number of participants, sites, twins, return visits, and the seed.

    Returns:
        Participants sorted by label. The order says nothing about who they are.
    """
    count = settings.participants
    rng = generator("synthetic", settings.seed, "people")
    couples = _couples(count, settings.sites, rng)
    twins = set(rng.permutation(count // 2)[: round(count * settings.twins / 2)].tolist())
    labels = [f"{number:0{max(2, len(str(count)))}d}" for number in rng.permutation(count) + 1]
    returning = set(rng.permutation(count)[: round(count * settings.multi_session)].tolist())
    hidden = generator("synthetic", settings.seed, "without atrophy").permutation(len(couples))
    spared = set(hidden[: round(len(couples) * effects.WITHOUT_ATROPHY)].tolist())
    found: list[Person] = []
    for index, (site, sex, ages) in enumerate(couples):
        ill = int(rng.integers(2))
        twin = index in twins
        if twin:
            ages = (ages[0], ages[0])
        for side, age in enumerate(ages):
            number = len(found)
            family = labels[2 * index] if twin else labels[number]
            diagnosis = "patient" if side == ill else "control"
            atrophy = side == ill and index not in spared
            visits = _visits(age, number in returning, rng)
            found.append(Person(labels[number], sex, diagnosis, site, f"family-{family}", twin, atrophy, visits))
    return sorted(found, key=lambda person: person.label)


def _couples(count: int, sites: int, rng: np.random.Generator) -> list[tuple[int, str, tuple[float, ...]]]:
    """Site, sex and ages of each matched pair; with an odd count the last one is alone."""
    pairs = math.ceil(count / 2)
    site = np.arange(pairs) % sites
    found: list[tuple[int, str, tuple[float, ...]]] = []
    for index in range(sites):
        here = int((site == index).sum())
        ages = _spread_ages(here, rng)
        # every other age is a man's, the first one by chance, so that sex and age do not go together
        sexes = (np.arange(here) + int(rng.integers(2))) % 2
        for age, male in zip(ages, sexes, strict=True):
            other = float(np.clip(age + rng.uniform(-1, 1), *effects.AGE_RANGE))
            found.append((index, "M" if male else "F", (round(float(age), 1), round(other, 1))))
    if count % 2:
        last = found[-1]
        found[-1] = (last[0], last[1], last[2][:1])
    return found


def _spread_ages(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ages that fill the range evenly: one drawn within each of `count` equal steps."""
    low, high = effects.AGE_RANGE
    return low + (high - low) * (np.arange(count) + rng.uniform(size=count)) / max(count, 1)


def _visits(age: float, returns: bool, rng: np.random.Generator) -> tuple[Visit, ...]:
    number = int(rng.integers(2, 4))
    waits = rng.uniform(*YEARS_BETWEEN, size=2)
    if not returns:
        return (Visit("", age),)
    ages = age + np.concatenate([[0.0], np.cumsum(waits)])[:number]
    return tuple(Visit(f"{index:02d}", round(float(value), 1)) for index, value in enumerate(ages, 1))
