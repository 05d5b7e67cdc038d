"""Conditions on episodes as text, such as "return > 10 and length >= 50"."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.plain_files import reason
from mjlab_rec.utils.string import nearest

_MOST_CHARACTERS = 10_000
_MOST_LEVELS = 100  # of parentheses and operations in each other; polars crashes at some thousands
_RETURN = "_the_return_"  # "return" is a keyword of Python
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COMPUTE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_WORDS = {"AND": "and", "OR": "or", "NOT": "not", "IN": "in", "true": "True", "false": "False"}


def matching(table: pl.DataFrame, where: str) -> np.ndarray:
    """The rows of a table that match a condition; unknown values match nothing.

    A condition compares columns with numbers, texts and each other (<, <=, >, >=, ==, !=, in), and
    combines comparisons with and, or, not and parentheses. It can compute with + - * / % and abs().
    A column whose name is not a word is written col('reward/upright'). It is not run as code.
    """
    condition = expression(where, table.columns)
    try:
        found = table.select(condition.alias("match"))["match"]
    except (pl.exceptions.PolarsError, OverflowError, TypeError) as error:
        raise ValueError(
            f"The condition {_short(where)} cannot be computed: {reason(error)}. Compare numbers"
            " with numbers and texts with texts, as in 'return > 10 and not partial'."
        ) from None
    if found.dtype != pl.Boolean or len(found) not in (1, len(table)):
        raise ValueError(
            f"The condition {_short(where)} is neither true nor false: it is of type {found.dtype}."
            " Compare it with something, as in 'return > 10'."
        )
    match = found.fill_null(False).to_numpy()
    return np.flatnonzero(np.broadcast_to(match, len(table)))


def expression(where: str, columns: Sequence[str]) -> pl.Expr:
    """A condition as an expression of polars."""
    if len(where) > _MOST_CHARACTERS:
        raise ValueError(f"The condition has {len(where)} characters; 10,000 are possible.")
    try:
        tree = ast.parse(_as_python(where).strip(), mode="eval")
        return _Reader(columns).read(tree.body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else "it is nested too deep"
        raise ValueError(
            f"The condition {_short(where)} cannot be understood: {why}. Write it like 'return > 10"
            " and length >= 50 and not partial'."
        ) from None


def _as_python(where: str) -> str:
    """The condition with the words of Python, outside of quoted texts."""
    pieces = re.split(r"('[^']*'|\"[^\"]*\")", where)
    for at in range(0, len(pieces), 2):
        text = re.sub(r"\breturn\b", _RETURN, pieces[at])
        for word, python in _WORDS.items():
            text = re.sub(rf"\b{word}\b", python, text)
        pieces[at] = re.sub(r"(?<![<>=!])=(?!=)", "==", text)
    return "".join(pieces)


class _Reader:
    """Turns the tree of a condition into an expression; anything else is refused."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._level = 0

    def read(self, node: ast.expr) -> pl.Expr:
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise RecursionError
        found = self._read(node)
        self._level -= 1
        return found

    def _read(self, node: ast.expr) -> pl.Expr:
        if isinstance(node, ast.BoolOp):
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            return _joined(join, [self.read(value) for value in node.values])
        if isinstance(node, ast.UnaryOp):
            value = self.read(node.operand)
            if isinstance(node.op, ast.Not):
                return ~value
            if isinstance(node.op, ast.USub):
                return -value
        if isinstance(node, ast.BinOp) and type(node.op) in _COMPUTE:
            return _COMPUTE[type(node.op)](self.read(node.left), self.read(node.right))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Name):
            return self._column("return" if node.id == _RETURN else node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            return pl.lit(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, node.args)
        raise ValueError(
            f"{ast.unparse(node).replace(_RETURN, 'return')!r} is not possible in a condition."
            " Possible: columns, numbers, texts, comparisons, and, or, not, in, + - * / %, abs()."
        )

    def _compare(self, node: ast.Compare) -> pl.Expr:
        found, left = [], node.left
        for kind, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(kind, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple):
                if not right.elts:
                    raise ValueError(f"{ast.unparse(node)!r} has no values to compare with.")
                among = _joined(operator.or_, [self.read(left) == self.read(r) for r in right.elts])
                found.append(among if isinstance(kind, ast.In) else ~among)
            elif isinstance(kind, ast.Is | ast.IsNot) and _is_none(right):
                null = self.read(left).is_null()
                found.append(null if isinstance(kind, ast.Is) else ~null)
            elif type(kind) in _COMPARE:
                found.append(_COMPARE[type(kind)](self.read(left), self.read(right)))
            else:
                raise ValueError(
                    f"{ast.unparse(node)!r} is not a possible comparison. Possible: < <= > >= =="
                    " !=, in (1, 2), is None."
                )
            left = right
        return _joined(operator.and_, found)

    def _call(self, name: str, args: Sequence[ast.expr]) -> pl.Expr:
        if name == "abs" and len(args) == 1:
            return self.read(args[0]).abs()
        if name == "col" and len(args) == 1 and isinstance(args[0], ast.Constant):
            return self._column(str(args[0].value))
        raise ValueError(f"'{name}(...)' is not possible in a condition. Possible: abs, col.")

    def _column(self, name: str) -> pl.Expr:
        if name not in self._columns:
            raise ValueError(f"There is no column '{name}'. {nearest(name, self._columns)}")
        return pl.col([name])  # a plain string could be a regular expression


def _joined(join: Callable[[Any, Any], Any], values: Sequence[pl.Expr]) -> pl.Expr:
    """All values joined in pairs, so that the result is not deeper than necessary."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return join(_joined(join, values[:half]), _joined(join, values[half:]))


def _short(where: str) -> str:
    return repr(where if len(where) <= 200 else f"{where[:200]}...")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
