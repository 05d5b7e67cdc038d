"""Reading a row's values from the environment into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.recorders.channels import Source
from mjlab_rec.recorders.counters import gather
from mjlab_rec.utils.copies import copy_all

Rows = Mapping[str, torch.Tensor]
"""Rows of each channel by name: (rows, num_envs, ...)."""


class _SourceReader:
    """Reads the sources that are read at the same moment."""

    def __init__(self, sources: Sequence[Source], selection: EnvSelection) -> None:
        self.sources = list(sources)
        self._selection = selection
        self._expected: list[tuple[torch.Size, torch.dtype]] = []
        self._scratch: dict[str, torch.Tensor] = {}
        for source in self.sources:
            value = source.read()
            self._expected.append((value.shape, value.dtype))
            if source.into is not None:
                self._scratch[source.name] = value
        # Per memory and row: where the values go. Slicing in every step would cost more than the
        # copies.
        self._places: dict[int, list[list[torch.Tensor]]] = {}

    def places(self, rows: Rows, row: int) -> list[torch.Tensor]:
        """Where the values of a row go."""
        places = self._places.get(id(rows))
        if places is None:
            buffers = [rows[source.name] for source in self.sources]
            count = min((len(buffer) for buffer in buffers), default=0)
            places = [[buffer[i] for buffer in buffers] for i in range(count)]
            self._places[id(rows)] = places
        return places[row]

    def copy(self, rows: Rows, row: int) -> None:
        """Read all sources into a row."""
        if self.sources:
            places = self.places(rows, row)
            copy_all(places, [self.read(i, place) for i, place in enumerate(places)])

    def read(self, index: int, place: torch.Tensor) -> torch.Tensor:
        """The value of a source for the recorded environments."""
        source = self.sources[index]
        if source.into is not None:
            direct = self._selection.all and place.dtype == self._expected[index][1]
            value = place if direct else self._scratch[source.name]
            source.into(value)
        else:
            value = source.read()
            shape, dtype = self._expected[index]
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"Channel '{source.name}' has changed: it is now {value.dtype}"
                    f" {tuple(value.shape)} and was {dtype} {tuple(shape)} when recording began. A"
                    " channel must keep its type and shape."
                )
        return self._selection.select(value)


class EnvSelection:
    """The environments that are recorded; each has an index, its place in `env_ids`."""

    def __init__(self, env_ids: Sequence[int], num_envs: int, device: str) -> None:
        count = len(env_ids)
        self.env_ids = tuple(env_ids)
        self.count = count
        self.all = list(env_ids) == list(range(num_envs))
        self._prefix = list(env_ids) == list(range(count))
        self.ids = torch.tensor(env_ids, dtype=torch.long, device=device)
        self._index_of = torch.zeros(num_envs, dtype=torch.long, device=device)
        self._index_of[self.ids] = torch.arange(count, device=device)
        self._has = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._has[self.ids] = True

    def select(self, value: torch.Tensor) -> torch.Tensor:
        """Select the recorded environments from a value for all environments."""
        if self.all:
            return value
        return value[: self.count] if self._prefix else value.index_select(0, self.ids)

    def of(self, env_ids: torch.Tensor) -> torch.Tensor:
        """Indices of environments. Those that are not recorded get 0, the first one's index."""
        return env_ids if self.all else self._index_of[env_ids]

    def has(self, env_ids: torch.Tensor) -> torch.Tensor:
        """Which of these environments are recorded."""
        return self._has[env_ids]


class RowReader:
    """Reads rows: "before" values in advance, "after" values before a reset, "next" values last.

    Args:
        env: The environment.
        sources: What to record.
        selection: The environments to record.
        chain: Whether each row directly follows the one before it. Then a row's next observation
            is the observation of the next row and is not stored.
        dtype: Type for floating-point channels; None keeps theirs.
    """

    def __init__(
        self,
        env: Any,
        sources: Sequence[Source],
        selection: EnvSelection,
        chain: bool,
        dtype: np.dtype | None,
    ) -> None:
        self._env = env
        self._selection = selection
        recorded = {source.name for source in sources}
        self._chained = [
            source
            for source in sources
            if source.when == "next" and chain and source.next_of in recorded
        ]
        chained = {source.name for source in self._chained}
        self.specs: tuple[ChannelSpec, ...] = tuple(
            source.spec(dtype, source.next_of if source.name in chained else "")
            for source in sources
        )
        rest = [source for source in sources if source.name not in chained]
        self._before = _SourceReader([s for s in rest if s.when == "before"], selection)
        self._after = _SourceReader([s for s in rest if s.when == "after"], selection)
        self._next = _SourceReader([s for s in rest if s.when == "next"], selection)
        self._derived = [i for i, s in enumerate(self._after.sources) if s.derived]

    @property
    def chains(self) -> bool:
        """Whether a row's next observation is taken from the next row."""
        return bool(self._chained)

    def before(self, rows: Rows, row: int) -> None:
        """Read the values at a row's start."""
        self._before.copy(rows, row)

    def after(self, rows: Rows, row: int) -> None:
        """Read the results of a row's action, before a reset overwrites them."""
        self._after.copy(rows, row)

    def complete(self, rows: Rows, row: int, was_reset: bool) -> None:
        """Read the values that are only known at the end of the step."""
        self._next.copy(rows, row)
        if was_reset and self._derived:
            ended = self._selection.select(self._env.reset_buf)
            places = self._after.places(rows, row)
            for i in self._derived:
                # In the others, the step's forward pass came after the value was read.
                mask = ended.view(-1, *[1] * (places[i].ndim - 1))
                value = self._after.read(i, places[i]).to(places[i].dtype)
                torch.where(mask, places[i], value, out=places[i])

    def finals(self, finals: Rows, at: slice, env_ids: torch.Tensor) -> None:
        """Read the final observations of episodes that end with the current step."""
        for source in self._chained:
            assert source.of_obs is not None
            value = source.of_obs(self._env.extras["final_obs"])
            gather(value, env_ids, finals[source.next_of][at])

    def finals_from_row(
        self, finals: Rows, at: slice, env_ids: torch.Tensor, rows: Rows, row: int
    ) -> None:
        """Take the final observations from the values already read for the next row."""
        for source in self._chained:
            ahead = rows[source.next_of][row]
            gather(ahead, self._selection.of(env_ids), finals[source.next_of][at])
