"""The group expression: integer arithmetic by a closed grammar, checked against Python's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.dataset.grouping import evaluate, first_number, parse
from gyri.errors import ConfigError


def random_expression(random: np.random.Generator, depth: int = 0) -> str:
    """An expression of the grammar, with blanks and parentheses here and there."""
    kind = random.integers(0, 4 if depth < 4 else 2)
    if kind == 0:
        return str(random.integers(0, 20))
    if kind == 1:
        return "number"
    if kind == 2:
        return f"(-{random_expression(random, depth + 1)})"
    sign = random.choice(["+", "-", "*", "//", "%"])
    parts = f"{random_expression(random, depth + 1)} {sign} {random_expression(random, depth + 1)}"
    return f"({parts})" if random.random() < 0.5 else parts


def test_values_are_those_of_integer_arithmetic() -> None:
    random = np.random.default_rng(0)
    compared = 0
    for _ in range(300):
        text = random_expression(random)
        if len(text) > 200:
            continue
        number = int(random.integers(0, 1000))
        try:
            expected = eval(text, {"__builtins__": {}}, {"number": number})  # the oracle
        except ZeroDivisionError:
            with pytest.raises(ZeroDivisionError):
                evaluate(parse(text, "group"), {"number": number})
            continue
        assert evaluate(parse(text, "group"), {"number": number}) == expected
        compared += 1
    assert compared > 100


def test_neighbouring_numbers_share_a_group() -> None:
    expression = parse("(number + 1) // 2", "group")
    assert [evaluate(expression, {"number": number}) for number in (1, 2, 3, 4, 143, 144)] == [1, 1, 2, 2, 72, 72]
    assert expression.names == ("number",)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("__import__('os').system('true')", 1),
        ("number ** 9999999", 7),
        ("number / 2", 7),
        ("number + 1.5", 10),
        ("number if number else 1", 1),
        ("(lambda: 1)()", 1),
        ("[x for x in ()]", 1),
        ("number + 'a'", 10),
        ("number << 70", 7),
        ("+number", 1),
        ("~number", 1),
        ("number.real", 1),
        ("number[0]", 1),
        ("number < 3", 1),
        ("True + 1", 1),
        ("number +", 9),
        ("(number", 1),
        ("größe / 2", 6),
        ("f'{number}'", 1),
        ("number := 3", 8),
    ],
)
def test_anything_else_is_refused_at_its_position(text: str, position: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "datasets.x.group")
    (problem,) = caught.value.problems
    assert problem.where == "datasets.x.group"
    assert f"character {position}:" in problem.got
    assert problem.expected and problem.remedy


@pytest.mark.parametrize("text", ["", "   ", "1 + " * 100 + "1", "(" * 190 + "1" + ")" * 5, "-" * 199 + "1"])
def test_length_and_depth_are_bounded(text: str) -> None:
    try:
        parse(text, "group")
    except ConfigError as error:
        assert error.problems[0].remedy


def test_first_number() -> None:
    assert first_number("hippocampus_071") == 71
    assert first_number("sub-A12_ses-3") == 12
    assert first_number("scan") is None
