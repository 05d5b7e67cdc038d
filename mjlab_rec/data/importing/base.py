"""What an import reads: a recording of another program, episode by episode."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo


class Groups(Protocol):
    """The episodes of a file or folder: groups of datasets, as in an HDF5 file."""

    path: Path
    names: Sequence[str]

    def close(self) -> None:
        """Close the files."""
        ...

    def rows(self, name: str) -> int:
        """The number of steps of an episode."""
        ...

    def has(self, name: str, path: str) -> bool:
        """Whether an episode has something at a path."""
        ...

    def read(self, name: str, path: str) -> np.ndarray:
        """A dataset of an episode."""
        ...

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """The datasets of an episode: types and shapes of those of numbers, names of the others."""
        ...


def rows_of_actions(groups: Groups, name: str) -> int:
    """The number of steps of an episode with "actions", which may be nested."""
    numbers, _ = groups.datasets(name)
    for path, (_, shape) in numbers.items():
        if path.split("/")[0] == "actions":
            return shape[0]
    raise DataError(f"'{name}' in '{groups.path}' has no actions.")


class Foreign(abc.ABC):
    """A recording of another program."""

    info: RunInfo
    rows: list[dict[str, Any]]  # the row of the table of episodes of each episode
    notes: list[str]  # what is left out, a sentence each

    @abc.abstractmethod
    def read(self, number: int) -> dict[str, np.ndarray]:
        """All channels of an episode, and "step"."""

    def model(self, number: int) -> dict[str, np.ndarray]:
        """The model fields of an episode."""
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Close the files."""


class Opened(Foreign):
    """A recording that ``open_rollouts`` reads."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts
        self.info = rollouts.info
        self.rows = rollouts.episodes.to_dicts()
        self.notes = []

    def read(self, number: int) -> dict[str, np.ndarray]:
        return self._rollouts.read(number)

    def model(self, number: int) -> dict[str, np.ndarray]:
        return self._rollouts.model(number)

    def close(self) -> None:
        self._rollouts.close()


def guessed_row(number: int, rows: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The row of the table for an episode of which only some facts are known."""
    return episode_table.table_row(
        env=0,
        number=number,
        start=0,
        length=rows,
        rows=rows,
        total=facts.get("total", float("nan")),
        recorded=facts.get("total", float("nan")),
        terminated=bool(facts.get("terminated", False)),
        truncated=bool(facts.get("truncated", False)),
        success=facts.get("success"),
        partial=False,
    )


def pair_of(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> list[ChannelSpec]:
    """The channels for values before each step and after the last one: the second is the next."""
    before = ChannelSpec(name=name, dtype=dtype, shape=shape, when="before")
    return [before, ChannelSpec(name=f"next_{name}", dtype=dtype, shape=shape, next_of=name)]
