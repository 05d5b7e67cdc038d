"""Plain data fitted to declared types, and what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.plain_data import build, fit, fit_words


class Color(Enum):
    red = 1


@dataclass(kw_only=True)
class Point:
    x: float
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "hint", "fitted"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (True, bool, True),
        ("a", str | None, "a"),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ((1, 2), list[int], [1, 2]),
        ([1], Sequence[int], (1,)),
        (["a", ["b"]], tuple[str | tuple[str, ...], ...], ("a", ("b",))),
        ("b", Literal["a", "b"], "b"),
        ("red", Color, Color.red),
        ("x/y", Path, Path("x/y")),
        ({"x": 1}, Point, Point(x=1.0)),
        ([{"x": 1, "names": ["n"]}], tuple[str | Point, ...], (Point(x=1.0, names=("n",)),)),
        ({"a": 1}, dict[str, Any], {"a": 1}),
        ("logging:getLogger", Callable[..., Any] | None, logging.getLogger),
        (object, Any, object),
    ],
)
def test_values_that_fit(value, hint, fitted):
    assert fit(value, hint) == fitted
    assert type(fit(value, hint)) is type(fitted)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "True is not a whole number"),
        (1, bool, "1 is not True or False"),
        (1.0, int, "1.0 is not a whole number"),
        (1, Literal[True], "1 is not one of True"),
        ("1", float | None, "'1' is not a number or None"),
        ("ab", tuple[str, ...], "'ab' is not a list of texts"),
        ([1], tuple[int, int], r"\[1\] is not 2 whole numbers"),
        ("blue", Color, "'blue' is not one of "),
        ({"y": 1}, Point, "Point has no 'y'"),
        ({}, Point, "Point needs 'x'"),
        ([{"x": "far"}], tuple[Point, ...], "x: 'far' is not a number"),
    ],
)
def test_values_that_do_not_fit(value, hint, message):
    with pytest.raises(ValueError, match=message):
        fit(value, hint)


@pytest.mark.parametrize(
    ("words", "hint", "value"),
    [
        ("1", int, 1),
        ("1", str, "1"),
        ("1", tuple[int, ...], (1,)),
        ("1 b", tuple[str, ...], ("1", "b")),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("none", int | None, None),
        ("True", bool, True),
        ("-1 2.5", tuple[float, float], (-1.0, 2.5)),
        ("red", Color, Color.red),
    ],
)
def test_words_that_fit(words, hint, value):
    assert fit_words(words.split() if "(" not in words else [words], hint) == value


def test_makers_are_asked_first_and_their_message_is_kept():
    def make(value: Any) -> Point:
        if value != "origin":
            raise ValueError("There is only the origin.")
        return Point(x=0.0)

    makers = {Point: make}
    assert fit("origin", str | Point, makers) == Point(x=0.0)
    with pytest.raises(ValueError, match="There is only the origin."):
        fit_words(["moon"], str | Point, makers)


def test_build_names_the_field_that_does_not_fit():
    with pytest.raises(ValueError, match="names: 'a' is not a list of texts"):
        build(Point, {"x": 1, "names": "a"})
    with pytest.raises(ValueError, match="Point has no 'name'. Did you mean 'names'"):
        build(Point, {"x": 1, "name": ["a"]})


def test_a_module_that_fails_to_import_another_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "half_here.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        look_up("half_here:x")
