"""The closed grammar of the `group` expression: integer arithmetic on `number` and on columns, never evaluated as Python.

    expression := integer | name | ( expression ) | - expression | expression operator expression
    operator   := + | - | * | // | %

with the usual precedence. `number` is the first run of digits in the image id; any other name is a column that holds integers.
`//` and `%` round towards minus infinity, as in mathematics (and Python).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gyri.errors import ConfigError, Problem

GRAMMAR = "integers, `number` or column names, + - * // % and parentheses"
MAX_LENGTH = 200  # no product of so few characters is large enough to cost time
OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Args:
        text: as the user wrote it.
        tree: its syntax, of the allowed kinds only.
        names: the names in it, in order of appearance.
    """

    text: str
    tree: ast.expr
    names: tuple[str, ...]


def first_number(image_id: str) -> int | None:
    """The first run of digits in an image id as an integer ("hippocampus_071" -> 71), or None."""
    found = re.search(r"[0-9]+", image_id)
    return int(found[0]) if found else None


def parse(text: str, where: str) -> Expression:
    """Check an expression against the grammar.

    Args:
        text: the expression.
        where: what to call its place in messages.

    Returns:
        The expression, ready for `evaluate`.

    Raises:
        ConfigError: pointing at the first position that the grammar does not allow.
    """
    shown = text.strip()
    if len(shown) > MAX_LENGTH or not shown:
        raise _error(where, f"{len(shown)} characters", f"1 to {MAX_LENGTH} characters")
    try:
        tree = ast.parse(shown, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Python counts from 1 and says 0 where the text ends too early
        raise _point(where, shown, (getattr(error, "offset", None) or len(shown) + 1) - 1) from error
    names: list[str] = []
    _check(tree, where, shown, names)
    return Expression(shown, tree, tuple(dict.fromkeys(names)))


def evaluate(expression: Expression, values: Mapping[str, int]) -> int:
    """Compute a checked expression.

    Args:
        expression: from `parse`.
        values: an integer for each of its names.

    Returns:
        The integer.

    Raises:
        ZeroDivisionError: where it divides by zero.
    """
    return _compute(expression.tree, values)


def _check(node: ast.expr, where: str, text: str, names: list[str]) -> None:
    match node:
        case ast.Constant(value=value) if type(value) is int:
            return
        case ast.Name(id=name):
            names.append(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            _check(inner, where, text, names)
        case ast.BinOp(left=left, op=sign, right=right):
            _check(left, where, text, names)
            if type(sign) not in OPERATORS:
                raise _point(where, text, _characters(text, left.end_col_offset or 0))
            _check(right, where, text, names)
        case _:
            raise _point(where, text, _characters(text, node.col_offset))


def _compute(node: ast.expr, values: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(operand=inner):
            return -_compute(inner, values)
        case ast.BinOp(left=left, op=sign, right=right):
            return OPERATORS[type(sign)](_compute(left, values), _compute(right, values))
    raise AssertionError("the tree was not checked")


def _characters(text: str, offset: int) -> int:
    """Turn an offset in UTF-8 bytes (what the syntax tree counts) into one in characters."""
    return len(text.encode()[:offset].decode(errors="ignore"))


def _point(where: str, text: str, position: int) -> ConfigError:
    position = min(max(position, 0), len(text))
    got = f"`{text}`, not understood at character {position + 1}: `{text[position : position + 20] or 'the end'}`"
    return _error(where, got, GRAMMAR)


def _error(where: str, got: str, expected: str) -> ConfigError:
    return ConfigError(Problem(where, got, expected, "write for example `(number + 1) // 2`, or the name of a column"))
