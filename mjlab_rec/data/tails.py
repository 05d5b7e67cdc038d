"""The rows of a recording that were not read yet, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.discovery import format_of
from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.files import being_written, parts, was_written
from mjlab_rec.data.rollouts import open_recording
from mjlab_rec.data.schema import ROW_COLUMNS, Block, DataError, Episode, RunInfo

Rows = dict[str, np.ndarray]


class Tail:
    """A recording that is read while it is written.

    Args:
        path: The recording.
        check: Whether damage is an error.
        now: The time.
    """

    def __init__(self, path: Path, check: bool, now: float) -> None:
        self.path = path
        self.news = now
        """When something new was read."""
        self.alive = False
        """Whether a process of this machine was writing it when it was looked at."""
        self.was_alive = False
        """Whether one was writing it at any time, as far as that is known."""
        self._check = check
        self._kind: _Blocks | _Episodes | None = None

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is anything at the path of a recording."""
        return os.path.lexists(path) or bool(parts(path))

    @property
    def info(self) -> RunInfo | None:
        """Its description; None until it can be read."""
        return None if self._kind is None else self._kind.info

    @property
    def finished(self) -> bool:
        """Whether it was closed, and all of it was read."""
        return self._kind is not None and self._kind.finished and not self.alive

    def rows(self, channels: Sequence[str] | None, episodes: bool) -> Iterator[Rows]:
        """What was written since the last call."""
        # Looked up first: if nothing writes it any more, all that it wrote is read below.
        self.alive = being_written(self.path)
        self.was_alive |= self.alive or was_written(self.path)
        kind = self._kind or self._open()
        if kind is None:
            return
        if isinstance(kind, _Blocks):
            yield from kind.new(channels, episodes)
            if not kind.packed:
                return
            kind.close()
            kind = self._kind = _Episodes(self.path, self._check, "hdf5")
        yield from kind.new(channels, self.alive)

    def rest(self, channels: Sequence[str] | None, episodes: bool) -> Iterator[Rows]:
        """What was held back because it was not complete. Call it once, at the end."""
        if isinstance(self._kind, _Blocks):
            yield from self._kind.rest(channels) if episodes else ()
        elif self._kind is not None:
            yield from self._kind.new(channels, alive=False, all_of_it=True)

    def close(self) -> None:
        """Close what is open."""
        if isinstance(self._kind, _Blocks):
            self._kind.close()

    def _open(self) -> _Blocks | _Episodes | None:
        """What reads the format; None if it cannot be told yet."""
        try:
            name = format_of(self.path).name
        except (DataError, OSError):
            if not self.alive and self.was_alive and self.exists(self.path):
                raise
            return None
        kind = _Blocks if name == "hdf5" else _Episodes
        self._kind = kind(self.path, self._check, name)
        return self._kind


class _Blocks:
    """A recording whose blocks are read one by one."""

    def __init__(self, path: Path, check: bool, format: str) -> None:
        from mjlab_rec.data.formats.hdf5_tail import BlockTail

        self._tail = BlockTail(path, check)
        self._assembler: EpisodeAssembler | None = None
        self._run = ""
        # Each run continues the numbering of episodes from the highest number before it.
        self._first = self._highest = 0

    @property
    def info(self) -> RunInfo | None:
        """The description of the recording."""
        return self._tail.info

    @property
    def finished(self) -> bool:
        """Whether all blocks of a closed recording were read."""
        return self._tail.finished

    @property
    def packed(self) -> bool:
        """Whether it consists of whole episodes."""
        return self._tail.packed

    def new(self, channels: Sequence[str] | None, episodes: bool) -> Iterator[Rows]:
        """The rows, or the whole episodes, in new blocks."""
        for found in self._tail.blocks():
            names = _names(found.block.info, channels)
            if found.run != self._run:
                if episodes and self._run:
                    yield from self.rest(channels)
                self._run, self._first = found.run, self._highest
                self._assembler = EpisodeAssembler(found.block.info) if episodes else None
            if self._assembler is not None:
                for episode in self._assembler.add(found.block):
                    yield self._of_episode(episode, names)
            elif found.block.rows:
                yield self._of_block(found.block, names)

    def rest(self, channels: Sequence[str] | None) -> Iterator[Rows]:
        """The episodes that are running."""
        if self._assembler is not None:
            names = _names(self._assembler.info, channels)
            for episode in self._assembler.finish():
                yield self._of_episode(episode, names)
            self._assembler = None

    def close(self) -> None:
        """End the threads that decode pictures."""
        self._tail.close()

    def _of_block(self, block: Block, names: Sequence[str]) -> Rows:
        number, step = block.numbering()
        self._highest = max(self._highest, self._first + int(number.max()) + 1)
        envs = np.broadcast_to(np.asarray(block.info.envs, np.int32), number.shape)
        rows: Rows = {"env": envs, "episode": number + np.int32(self._first), "step": step}
        rows |= {name: block.dense(name) for name in names}
        # Row by row, and in each one environment by environment.
        return {n: np.array(v).reshape(-1, *v.shape[2:]) for n, v in rows.items()}

    def _of_episode(self, episode: Episode, names: Sequence[str]) -> Rows:
        number = self._first + episode.number
        self._highest = max(self._highest, number + 1)
        return _whole(episode.env, number, episode.arrays, names)


class _Episodes:
    """A recording that is opened again and again, to see which episodes it has."""

    def __init__(self, path: Path, check: bool, format: str) -> None:
        self._path, self._check = path, check
        # The last rows of a CSV file may belong to an episode that goes on.
        self._running = format == "csv"
        self._known: set[tuple[int, int]] = set()
        self.finished = False
        self.info: RunInfo | None = None

    def new(
        self, channels: Sequence[str] | None, alive: bool, all_of_it: bool = False
    ) -> Iterator[Rows]:
        """The episodes that are new."""
        try:
            reader, _ = open_recording(self._path, self._check)
        except DataError:
            if alive:  # Nothing can be read yet.
                return
            raise
        try:
            self.info = reader.info
            names = _names(reader.info, channels)
            keys = list(reader.episodes.select("env", "number").iter_rows())
            if self._running and not (reader.finished or all_of_it):
                last = dict(keys)  # The highest number of each environment, as they are in order.
                keys = [key if key[1] < last[key[0]] else None for key in keys]
            for index, key in enumerate(keys):
                if key is not None and key not in self._known:
                    self._known.add(key)
                    env, number = key
                    yield _whole(env, number, reader.read(index, [*names, "step"]), names)
            self.finished = reader.finished
        finally:
            reader.close()


def _names(info: RunInfo, channels: Sequence[str] | None) -> list[str]:
    if channels is None:
        return [spec.name for spec in info.channels]
    info.check_names(channels)
    return [name for name in channels if name not in ROW_COLUMNS]


def _whole(env: int, number: int, arrays: Rows, names: Sequence[str]) -> Rows:
    count = len(arrays["step"])
    rows: Rows = {
        "env": np.full(count, env, np.int32),
        "episode": np.full(count, number, np.int32),
        "step": arrays["step"],
    }
    return rows | {name: arrays[name] for name in names}
