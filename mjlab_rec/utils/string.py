"""Find names by regular expressions, and suggest known names for unknown ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_MAX_LISTED = 40


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the known name closest to an unknown one, and the known names.

    It ends an error message: `Did you mean 'pole'? Known: cart, pole.`
    """
    known = list(known)
    if not known:
        return "There are none to choose from."
    listed = ", ".join(known[:_MAX_LISTED])
    if len(known) > _MAX_LISTED:
        listed += f", ... ({len(known)} in all)"
    # A regular expression is compared by its letters.
    literal = re.sub(r"[^\w/:. -]|\.(?=[*+?])", "", name).lower()
    lowered = {k.lower(): k for k in reversed(known)}
    close = difflib.get_close_matches(literal, lowered, n=1, cutoff=0.6)
    guess = f"Did you mean {lowered[close[0]]!r}? " if close else ""
    return f"{guess}Known: {listed}."


def resolve_matching_names(
    keys: str | Sequence[str], list_of_strings: Sequence[str], preserve_order: bool = False
) -> tuple[list[int], list[str]]:
    """Find the names that match one of the given regular expressions.

    An expression must match a whole name. Every expression must match something, and no name may
    match two of them.

    Args:
        keys: One regular expression or several; a plain name is one too.
        list_of_strings: The names to search.
        preserve_order: Order the result by `keys` rather than by the names.

    Returns:
        Positions in `list_of_strings`, and the names there.
    """
    keys = [keys] if isinstance(keys, str) else list(keys)
    pairs = _match(keys, list_of_strings, preserve_order)
    return [i for i, _ in pairs], [list_of_strings[i] for i, _ in pairs]


def resolve_matching_names_values(
    data: dict[str, T], list_of_strings: Sequence[str], preserve_order: bool = False
) -> tuple[list[int], list[str], list[T]]:
    """Find the names that match a dictionary's regular expressions, with the values they map to.

    The rules are those of `resolve_matching_names`.

    Returns:
        Positions in `list_of_strings`, the names there, and their values.
    """
    if not isinstance(data, dict):
        raise TypeError(
            f"Expected a dictionary from name patterns to values, got {type(data).__name__}: "
            f"{data!r}. Write {{'.*': value}} to give every name the same value."
        )
    pairs = _match(list(data), list_of_strings, preserve_order)
    values = list(data.values())
    return (
        [i for i, _ in pairs],
        [list_of_strings[i] for i, _ in pairs],
        [values[k] for _, k in pairs],
    )


def resolve_expr(
    pattern_map: dict[str, T], names: Sequence[str], default_val: Any = None
) -> tuple[T | Any, ...]:
    """Give each name the value of the first pattern that matches it, or the default.

    Patterns must match whole names, and each must match at least one of the names, so that a typo
    does not silently leave the default in place. If there are no names, nothing must match.
    """
    compiled = [(_compile(p), value) for p, value in pattern_map.items()]
    for pattern, _ in compiled:
        if names and not any(pattern.fullmatch(n) for n in names):
            raise ValueError(_no_match(pattern.pattern, names))
    return tuple(
        next((value for pattern, value in compiled if pattern.fullmatch(name)), default_val)
        for name in names
    )


def resolve_field(field: Any, names: Sequence[str], default_val: Any = None) -> tuple[Any, ...]:
    """Give each name its value: by pattern if ``field`` is a dictionary, else the same for all."""
    if isinstance(field, dict):
        return resolve_expr(field, names, default_val)
    return (field,) * len(names)


def filter_exp(exprs: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that one of the patterns matches as a whole."""
    patterns = [_compile(expr) for expr in exprs]
    return tuple(name for name in names if any(p.fullmatch(name) for p in patterns))


def _match(
    keys: Sequence[str], names: Sequence[str], preserve_order: bool
) -> list[tuple[int, int]]:
    """Pair each matched name's position with the position of the key that matches it."""
    pairs: list[tuple[int, int]] = []
    owner: dict[int, str] = {}
    for k, key in enumerate(keys):
        pattern = _compile(key)
        found = [i for i, name in enumerate(names) if pattern.fullmatch(name)]
        if not found:
            raise ValueError(_no_match(key, names))
        for i in found:
            if i in owner:
                raise ValueError(
                    f"The name {names[i]!r} matches two patterns, {owner[i]!r} and {key!r}. "
                    "Make them narrower so that each name belongs to one."
                )
            owner[i] = key
            pairs.append((i, k))
    return pairs if preserve_order else sorted(pairs)


def _compile(key: str) -> re.Pattern[str]:
    try:
        return re.compile(key)
    except re.error as error:
        raise ValueError(
            f"The name pattern {key!r} is not a regular expression: {error}. "
            "Did you mean '.*' to match anything?"
        ) from None


def _no_match(key: str, names: Sequence[str]) -> str:
    message = f"No name matches {key!r} (the whole name must match). {nearest(key, names)}"
    if any(re.match(key, name) for name in names):
        message += f" Write '{key}.*' to match all names that begin like this."
    return message
