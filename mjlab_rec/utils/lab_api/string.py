"""Regular expressions over names, and names as text, under mjlab's module name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.string import resolve_matching_names as resolve_matching_names
from mjlab_rec.utils.string import resolve_matching_names_values as resolve_matching_names_values

_SLICE = re.compile(r"slice\((.*),(.*),(.*)\)")


def to_camel_case(snake_str: str, to: str = "cC") -> str:
    """Write ``snake_case`` as ``camelCase`` (``to="cC"``) or ``CamelCase`` (``to="CC"``)."""
    if to not in ("cC", "CC"):
        raise ValueError(f"Unknown kind of camel case {to!r}. Known: cC, CC.")
    first, *rest = snake_str.lower().split("_")
    return (first if to == "cC" else first.title()) + "".join(word.title() for word in rest)


def to_snake_case(camel_str: str) -> str:
    """Write ``CamelCase`` as ``camel_case``."""
    # Before a capital that starts a word, and between a lower-case letter and a capital.
    return re.sub(r"(?<=.)(?=[A-Z][a-z])(?<!_)|(?<=[a-z0-9])(?=[A-Z])", "_", camel_str).lower()


def string_to_slice(s: str) -> slice:
    """Read the text of a slice, such as ``slice(0, 4, None)``."""
    found = _SLICE.match(s)
    if found is None:
        raise ValueError(f"{s!r} is not a slice. Write 'slice(start, stop, step)'.")
    parts = [part.strip() for part in found.groups()]
    return slice(*(None if part == "None" else int(part) for part in parts))


def is_lambda_expression(name: str) -> bool:
    """Whether a text is a lambda expression."""
    try:
        return isinstance(ast.parse(name.strip(), mode="eval").body, ast.Lambda)
    except SyntaxError:
        return False


def callable_to_string(value: Callable[..., Any]) -> str:
    """Name a function as ``module:name``, or give the source of a lambda expression."""
    if not callable(value):
        raise ValueError(f"Only functions and classes can be named, got {value!r}.")
    if getattr(value, "__name__", "") != "<lambda>":
        return f"{value.__module__}:{value.__name__}"
    source = "".join(inspect.getsourcelines(value)[0])
    for found in re.finditer(r"\blambda\b", source):
        # The expression is the longest text from here that is one.
        for end in range(len(source), found.start(), -1):
            text = source[found.start() : end].strip()
            if is_lambda_expression(text):
                return ast.unparse(ast.parse(text, mode="eval"))
    raise ValueError(f"The source of {value!r} cannot be found.")


def string_to_callable(name: str) -> Callable[..., Any]:
    """Return the function named ``module:name``, or that of a lambda expression.

    A lambda expression is evaluated as Python code: use texts of your own only.
    """
    found = eval(name) if is_lambda_expression(name) else look_up(name)
    if not callable(found):
        raise ValueError(f"{name!r} is {found!r}, which cannot be called.")
    return found
