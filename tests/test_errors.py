"""What messages say about wrong and about many names."""

from __future__ import annotations

import pytest

from gyri.errors import nearest, shown


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("fold", ["folds", "seed"], "did you mean `folds`?"),
        ("T1W", ["T2w", "T1w"], "did you mean `T1w`?"),
        ("x", ["unet", "dilated"], "take one of dilated, unet"),
        ("x", [], "take one of (none)"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(name: str, known: list[str], said: str) -> None:
    assert nearest(name, iter(known)) == said


def test_not_all_of_many_names_are_listed() -> None:
    assert nearest("x", [f"name-{index:02}" for index in range(21)]).endswith("name-19, ...")


def test_of_many_names_the_first_stand_for_all() -> None:
    assert shown(iter("abc")) == "a, b, c"
    assert shown("abcd", 2) == "a, b and 2 more"
