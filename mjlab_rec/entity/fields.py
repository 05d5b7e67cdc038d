"""Reading an entity's part of the simulation's arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from torch import Tensor

from mjlab_rec.utils.indexing import Columns, Index


class EngineFields:
    """An entity's columns of the engine's arrays, looked up once and cached.

    An array is bound when it is first read, so that an engine does not compute or copy unused
    arrays.
    """

    def __init__(self, data: Any, parts: dict[str, Index | int]) -> None:
        self.data = data
        """The simulation's data fields, for all entities together."""
        self._parts = parts
        self._bound: dict[tuple[str, str], Columns] = {}
        self._derived: dict[tuple[str, str], Tensor] = {}
        self._derived_at = -1

    def columns(self, field: str, part: str) -> Columns:
        """The columns of an engine array that belong to a part such as "joint_q" or "body"."""
        key = (field, part)
        columns = self._bound.get(key)
        if columns is None:
            columns = Columns(getattr(self.data, field), self._parts[part])
            self._bound[key] = columns
        return columns

    def part(self, name: str) -> Index:
        """The columns of a part, as indices into the engine's arrays."""
        index = self._parts[name]
        return slice(index, index + 1) if isinstance(index, int) else index

    def read(self, field: str, part: str) -> Tensor:
        """A copy of these columns."""
        return self.columns(field, part).read()

    def peek(self, field: str, part: str) -> Tensor:
        """These columns for immediate use. Never write to them: they may be engine memory."""
        return self.columns(field, part).peek()

    def derived(self, field: str, part: str, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` returned since the engine last changed its arrays. Never write to it."""
        if self._derived_at != self.data.generation:
            self._derived.clear()
            self._derived_at = self.data.generation
        key = (field, part)
        value = self._derived.get(key)
        if value is None:
            value = self._derived[key] = compute()
        return value


class Field:
    """Attribute that is a fresh copy of an entity's part of one engine array."""

    def __init__(self, field: str, part: str, doc: str) -> None:
        self._field, self._part = field, part
        self.__doc__ = doc

    @overload
    def __get__(self, data: None, owner: type) -> Field: ...

    @overload
    def __get__(self, data: EngineFields, owner: type) -> Tensor: ...

    def __get__(self, data: EngineFields | None, owner: type) -> Field | Tensor:
        return self if data is None else data.columns(self._field, self._part).read()
