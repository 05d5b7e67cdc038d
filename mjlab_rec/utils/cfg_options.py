"""Fields of a cfg as command-line options: their values from words, and a list of them for help."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import is_dataclass
from enum import Enum
from numbers import Number
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mjlab_rec.utils import cfg_paths
from mjlab_rec.utils.plain_data import fit_words

# Fields that users change most often, and parts of paths that only affect the looks.
_FIRST = ("scene.num_envs", "episode_length_s", "rewards", "events", "terminations", "commands")
_LOOKS = {"lights", "cameras", "textures", "materials"}


def set_field(cfg: Any, path: str, words: Sequence[str]) -> None:
    """Set a field from command-line words; raises ValueError if they are invalid."""
    cfg_paths.update(cfg, path, lambda leaf: _read(leaf, words))


def print_fields(owner: str, cfg: Any, prefix: str) -> None:
    """Print fields, the most used first; those that affect only the looks at the end."""
    console = Console(highlight=False)
    console.print(f"\nFields of {owner}, with their values:\n", markup=False)
    looks: dict[str, list[str]] = {}
    for leaf in sorted(cfg_paths.leaves(cfg), key=_rank):
        path = leaf.path.replace("_", "-")
        if not _LOOKS.isdisjoint(leaf.path.split(".")):
            above, _, name = path.rpartition(".")
            looks.setdefault(above, []).append(name)
            continue
        value = leaf.value.name if isinstance(leaf.value, Enum) else repr(leaf.value)
        console.print(Text(prefix + path, style="bold"), Text(value, style="cyan"), soft_wrap=True)
        if leaf.doc:
            meaning = leaf.doc.partition(". ")[0].rstrip(".") + "."
            console.print(Padding(Text(meaning), (0, 0, 0, 8), expand=False))
    if looks:
        console.print("\nFields that affect only the looks:\n")
    for above, names in looks.items():
        fields = names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"
        console.print(Text(f"{prefix}{above}.{fields}", style="bold"), soft_wrap=True)


def _rank(leaf: cfg_paths.Leaf) -> int:
    """Sort key of a field in the help."""
    places = (i for i, top in enumerate(_FIRST) if f"{leaf.path}.".startswith(f"{top}."))
    return next(places, len(_FIRST))


def _read(leaf: cfg_paths.Leaf, words: Sequence[str]) -> Any:
    """Convert the words given for a field to its type."""
    if not words:
        raise ValueError(f"a value is missing. It is {leaf.value!r} now.")
    if is_dataclass(leaf.value) or (isinstance(leaf.value, dict) and leaf.value):
        if list(words) == ["None"]:
            return None
        raise ValueError("this is a group of fields. Set one of them, or set the group to None.")
    if callable(leaf.value):
        raise ValueError("this is a function, which cannot be set on the command line.")
    if leaf.hint is Any:
        return _read_untyped(leaf.value, words)
    try:
        return fit_words(words, leaf.hint)
    except ValueError as error:
        raise ValueError(f"{error} It is {leaf.value!r} now.") from None


def _read_untyped(old: Any, words: Sequence[str]) -> Any:
    """Parse Python literals, several words as a tuple; the type must stay the same."""
    new = tuple(_literal(word) for word in words) if len(words) > 1 else _literal(words[0])
    if isinstance(old, list) and isinstance(new, tuple):
        new = list(new)
    kind = Number if isinstance(old, Number) and not isinstance(old, bool) else type(old)
    if old is None or new is None or isinstance(new, kind):
        return new
    raise ValueError(f"{' '.join(words)!r} has the wrong type. It is {old!r} now.")


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
