"""Tests between models and against chance: against other implementations, by hand, and their level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gyri.comparison import corrected_t, holm, permutation_p, permutations


def test_corrected_t_is_the_textbook_formula() -> None:
    values = [0.03, 0.01, 0.05, -0.01, 0.04]
    t = np.mean(values) / np.sqrt((1 / 5 + 1 / 4) * np.var(values, ddof=1))
    assert corrected_t(values, 1 / 4) == pytest.approx(2 * stats.t.sf(t, 4))
    assert corrected_t(values, 0) == pytest.approx(stats.ttest_1samp(values, 0).pvalue), "without overlap it is the plain t-test"
    assert corrected_t(values, 1 / 4) > corrected_t(values, 0)


def test_corrected_t_of_degenerate_differences() -> None:
    assert corrected_t([0.0, 0.0, 0.0], 0.5) == 1
    assert 0 < corrected_t([0.1, 0.1, 0.1], 0.5) < 1e-9
    assert np.isnan(corrected_t([0.1], 0.5))
    assert np.isnan(corrected_t([0.1, np.nan], 0.5))


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.6]), [0.02, np.nan, 0.6])
    assert len(holm([])) == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_procedure(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= 1).all()
    for level in (0.01, 0.05, 0.3):
        order, rejected = np.argsort(p, kind="stable"), set()
        for rank, index in enumerate(order):
            if p[index] * (len(p) - rank) > level:
                break
            rejected.add(int(index))
        assert set(np.flatnonzero(adjusted <= level)) == rejected


def blocks_of(sizes: list[int]) -> list[np.ndarray]:
    """Places of the images of groups of these sizes."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def test_groups_move_as_wholes_inside_their_stratum() -> None:
    blocks, strata = blocks_of([2, 1, 2, 3, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    owner = np.repeat(np.arange(6), [2, 1, 2, 3, 1, 2])
    taken = permutations(blocks, strata, True, 400, np.random.default_rng(0))
    for row in taken:
        sources = [set(owner[row[block]]) for block in blocks]
        assert all(len(source) == 1 for source in sources), "all images of a group get the label of one group"
        assert sorted(next(iter(source)) for source in sources) == list(range(6)), "each label is given away once"
        assert {next(iter(source)) for source in sources[:3]} == {0, 1, 2}
    assert len({tuple(row) for row in taken}) == 36


def test_labels_that_differ_inside_groups_move_between_groups_of_one_size() -> None:
    blocks = blocks_of([2, 1, 2, 3, 1, 2])
    taken = permutations(blocks, np.zeros(6, int), False, 400, np.random.default_rng(0))
    for row in taken:
        assert sorted(row) == list(range(11)), "every label of every image is given away once"
        assert tuple(row[blocks[3]]) == tuple(blocks[3]), "the only group of three keeps its labels"
    assert len({tuple(row) for row in taken}) == 3 * 2 * 2


def test_p_counts_the_value_itself() -> None:
    null = np.linspace(0, 1, 999)
    assert permutation_p(2.0, null, "higher") == 1 / 1000
    assert permutation_p(-1.0, null, "higher") == 1
    assert permutation_p(-1.0, null, "lower") == 1 / 1000
    assert permutation_p(0.5, null, "higher") == pytest.approx(0.5, abs=0.002)
    assert permutation_p(0.5, np.r_[null, np.nan], "higher") == permutation_p(0.5, null, "higher")
    assert np.isnan(permutation_p(np.nan, null, "higher"))


def test_level_of_the_permutation_test() -> None:
    """A quick check of what benchmarks/interval_coverage_levels.py measures: images of one group look alike and share their label."""
    random, found = np.random.default_rng(1), {"groups": 0, "images": 0}
    for _ in range(300):
        sizes = [3] * 16
        group = np.repeat(np.arange(16), 3)
        label = random.permutation(np.repeat([0, 1], 8))[group]
        score = random.normal(size=16)[group] + 0.3 * random.normal(size=48)
        for name, blocks in (("groups", blocks_of(sizes)), ("images", [np.array([index]) for index in range(48)])):
            taken = permutations(blocks, np.zeros(len(blocks), int), True, 99, random)
            truths = label[taken]
            null = (truths * score).sum(1) / truths.sum(1) - ((1 - truths) * score).sum(1) / (1 - truths).sum(1)
            value = score[label == 1].mean() - score[label == 0].mean()
            found[name] += permutation_p(value, null, "higher") < 0.05
    assert found["groups"] / 300 < 0.08
    assert found["images"] / 300 > 0.12, "exchanging images instead of groups calls chance a finding"
