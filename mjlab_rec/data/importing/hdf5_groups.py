"""HDF5 files of other programs with a group for each episode."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.hdf5_checks import attribute, find, find_group, read_values
from mjlab_rec.data.formats.plain_files import opened
from mjlab_rec.data.importing.base import rows_of_actions
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.values import check_name, check_shape

_MOST_ITEMS = 10_000
_MOST_DEPTH = 16


class EpisodeGroups:
    """The groups of all episodes, in numeric order.

    Args:
        path: The file.
        prefix: What the names of the groups begin with, before their number.
        group: The group that they are in; empty: the root group.
    """

    def __init__(self, path: Path, prefix: str, group: str = "") -> None:
        os.close(opened(path))  # raises for a pipe
        self.path = path
        with damage(f"'{path}'", path):
            self._file = h5py.File(path, "r", locking=False)
        self._size = path.stat().st_size
        pattern = re.compile(rf"{prefix}(\d{{1,9}})", re.ASCII)
        try:
            with damage(f"'{path}'", path):
                self._parent = find_group(self._file, group) if group else self._file
                found = {int(m[1]): m[0] for m in map(pattern.fullmatch, self._parent) if m}
        except BaseException:
            self.close()
            raise
        self.names: Sequence[str] = [found[number] for number in sorted(found)]

    def close(self) -> None:
        """Close the file."""
        with damage(f"'{self.path}'", self.path):
            self._file.close()

    def rows(self, name: str) -> int:
        """The number of steps of an episode."""
        return rows_of_actions(self, name)

    def has(self, name: str, path: str) -> bool:
        """Whether an episode has something at a path."""
        with self._damage(name):
            group = self._episode(name)
            try:
                find(group, path)
            except ValueError:
                return False
            return True

    def read(self, name: str, path: str) -> np.ndarray:
        """A dataset of an episode."""
        with self._damage(name):
            item = find(self._episode(name), path)
            what = f"'{path}' of '{name}' in '{self.path}'"
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
                raise DataError(f"{what} is no dataset of numbers.")
            return read_values(item, item.dtype, item.shape, self._size, what)

    def attribute(self, name: str, key: str) -> Any:
        """An attribute of an episode's group, if it is a number or text; else None."""
        with self._damage(name):
            try:
                return attribute(self._episode(name), key)
            except ValueError:
                return None

    def holds(self, name: str) -> bool:
        """Whether the file has an object of this name."""
        with damage(f"'{self.path}'", self.path):
            return name in self._file

    def whole(self, path: str) -> np.ndarray | None:
        """A dataset outside of the episodes; None if there is none."""
        with damage(f"'{path}' in '{self.path}'", self.path):
            if path not in self._file:
                return None
            item: Any = find(self._file, path)
            return read_values(item, item.dtype, item.shape, self._size, f"'{path}'")

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """The datasets of an episode: types and shapes of those of numbers, names of the others."""
        numbers: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        others: list[str] = []
        with self._damage(name):
            waiting, seen = [("", self._episode(name))], 0
            while waiting:
                prefix, group = waiting.pop(0)
                for key in group:
                    seen += 1
                    if seen > _MOST_ITEMS or prefix.count("/") > _MOST_DEPTH:
                        raise DataError("It has too many objects, or a loop of them.")
                    path = check_name(f"{prefix}{key}", "dataset")
                    item = find(group, str(key))
                    if isinstance(item, h5py.Group):
                        waiting.append((f"{path}/", item))
                    elif isinstance(item, h5py.Dataset) and item.shape is not None:
                        if item.dtype.kind in "biuf" and item.shape:
                            check_shape(item.shape[1:], item.dtype, f"'{path}'")
                            numbers[path] = item.dtype, item.shape
                        else:
                            others.append(path)
        return numbers, others

    def _episode(self, name: str) -> h5py.Group:
        return find_group(self._parent, name)

    def _damage(self, name: str) -> Any:
        return damage(f"'{name}' in '{self.path}'", self.path)
