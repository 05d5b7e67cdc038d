"""Access nested cfgs by dotted paths such as `scene.num_envs` or `rewards.upright.weight`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from mjlab_rec.utils.string import nearest


class CfgPathError(ValueError):
    """A path in a cfg leads nowhere, or to something that cannot be set."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A value somewhere in a cfg."""

    path: str
    """Dotted path from the top of the cfg."""
    value: Any
    """The current value."""
    hint: Any
    """Its declared type; Any where none is declared, as in the params of a term."""
    doc: str
    """The docstring under its field."""


def update(cfg: Any, path: str, new_value: Callable[[Leaf], Any]) -> None:
    """Replace the value at a path with what `new_value` returns for it.

    Dashes stand for underscores. Dict entries are named by their keys, tuple and list items by
    their index.
    """
    _update(cfg, type(cfg), path, "", new_value)


def leaves(cfg: Any) -> Iterator[Leaf]:
    """Return all values in a cfg that can be set: no functions, no private fields."""
    return _leaves(cfg, type(cfg), "", everything=True)


def field_types(cls: type) -> dict[str, Any]:
    """Return the declared type of each init field of a dataclass; Any where it is unknown."""
    return {
        field.name: _field_type(cls, field.name) for field in dataclasses.fields(cls) if field.init
    }


def _update(owner: Any, hint: Any, path: str, above: str, new_value: Callable[[Leaf], Any]) -> Any:
    """Update something inside an owner; return the owner, or a new one if it is immutable."""
    children = {name: (value, hint, doc) for name, value, hint, doc in _children(owner, hint)}
    name, rest = _first_step(path, list(children), above)
    value, hint, doc = children[name]
    here = f"{above}.{name}" if above else name
    if rest:
        new = _update(value, hint, rest, here, new_value)
    else:
        new = new_value(Leaf(path=here, value=value, hint=hint, doc=doc))
    if new is value:
        return owner
    return _with_child(owner, name, new)


def _first_step(path: str, names: list[str], above: str) -> tuple[str, str]:
    """Split a path after the longest child name it begins with: dict keys may hold dots."""
    if not names:
        raise CfgPathError(f"{above!r} is a single value: there is no {path!r} in it.")
    wanted = path.replace("-", "_")
    for name in sorted(names, key=len, reverse=True):
        plain = name.replace("-", "_")
        if wanted == plain:
            return name, ""
        if wanted.startswith(plain + "."):
            return name, path[len(plain) + 1 :]
    where = f"in {above!r}" if above else "at the top"
    first = wanted.partition(".")[0]
    raise CfgPathError(f"There is no {first!r} {where}. {nearest(first, names)}")


def _with_child(owner: Any, name: str, value: Any) -> Any:
    if isinstance(owner, dict):
        owner[name] = value
    elif isinstance(owner, list):
        owner[int(name)] = value
    elif isinstance(owner, tuple):
        return owner[: int(name)] + (value,) + owner[int(name) + 1 :]
    elif type(owner).__dataclass_params__.frozen:
        return dataclasses.replace(owner, **{name: value})
    else:
        setattr(owner, name, value)
    return owner


def _children(owner: Any, hint: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Return name, value, type and docstring of each direct child; a value has none."""
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            if field.init and not field.name.startswith("_"):
                declared = _field_type(type(owner), field.name)
                doc = _field_docs(type(owner)).get(field.name, "")
                yield field.name, getattr(owner, field.name), declared, doc
    elif isinstance(owner, dict):
        declared = _item_type(hint, dict, 1)
        for key, value in owner.items():
            if isinstance(key, str):
                yield key, value, declared, ""
    elif isinstance(owner, (tuple, list)) and any(map(_is_group, owner)):
        declared = _item_type(hint, type(owner), 0)
        for index, value in enumerate(owner):
            yield str(index), value, declared, ""


def _leaves(owner: Any, hint: Any, above: str, everything: bool) -> Iterator[Leaf]:
    for name, value, declared, doc in _children(owner, hint):
        if not everything and dataclasses.is_dataclass(owner) and _is_default(owner, name):
            continue
        path = f"{above}.{name}" if above else name
        if _is_group(value):
            # The params of a term hold objects with dozens of fields: show only those that are set.
            yield from _leaves(value, declared, path, everything and name != "params")
        elif not callable(value) and not isinstance(value, slice):
            yield Leaf(path=path, value=value, hint=declared, doc=doc)


def _is_group(value: Any) -> bool:
    """Return whether a value contains other values."""
    if isinstance(value, type):
        return False
    return bool(dataclasses.is_dataclass(value)) or next(_children(value, Any), None) is not None


def _is_default(owner: Any, name: str) -> bool:
    field = next(f for f in dataclasses.fields(owner) if f.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return getattr(owner, name) == field.default_factory()
    return field.default is not dataclasses.MISSING and getattr(owner, name) == field.default


def _field_type(cls: type, name: str) -> Any:
    """The declared type of a field; Any if its names exist only for type checkers."""
    for base in cls.__mro__:
        declared = inspect.get_annotations(base).get(name)
        if isinstance(declared, str):
            try:
                return eval(declared, vars(sys.modules[base.__module__]), dict(vars(base)))
            except NameError:
                return Any
        if declared is not None:
            return declared
    return Any


def _item_type(hint: Any, container: type, position: int) -> Any:
    """The X of `dict[str, X]` or `tuple[X, ...]`, also in a union with something else."""
    for option in (hint, *typing.get_args(hint)):
        arguments = typing.get_args(option)
        if typing.get_origin(option) is container and len(arguments) > position:
            return arguments[position]
    return Any


@cache
def _field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a class, inherited ones included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # Created at run time, or part of Python itself: no source.
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for field, below in zip(body, body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[field.target.id] = " ".join(below.value.value.split())
    return docs
