"""Whole episodes as blocks of an HDF5 file of their own, many episodes at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mjlab_rec.data.formats.hdf5_layout import ENV_DTYPE, MODEL_DTYPE
from mjlab_rec.data.formats.hdf5_part import Pieces
from mjlab_rec.data.formats.segments import end_rows
from mjlab_rec.data.schema import Ends, Episode, RunInfo, bytes_of

_TOGETHER = 8 << 20  # bytes of episodes that are written at a time


class PackedEpisodes:
    """Some episodes in blocks. Each episode begins with a new block, the rest of its last one is
    filled up.

    Args:
        episodes: The episodes, each with rows.
        rows: Rows of a block.
        serial: Number of the first one among all episodes of the recording.
    """

    def __init__(self, episodes: Sequence[Episode], rows: int, serial: int) -> None:
        self._episodes = episodes
        self._rows = rows
        self._serial = serial + np.arange(len(episodes))
        sizes = np.array([episode.rows for episode in episodes])
        self._blocks = -(-sizes // rows)
        self._after = np.cumsum(self._blocks)
        """The block after the last one of each episode."""
        self.blocks = int(self._after[-1])
        """Number of blocks."""
        self.used = np.full(self.blocks, rows)
        """Rows of each block that are used."""
        self.used[self._after - 1] = sizes - (self._blocks - 1) * rows
        self._steps = [episode.arrays["step"].astype(np.int64) for episode in episodes]

    def padded(self, values: Sequence[np.ndarray], dtype: np.dtype, unused: object) -> np.ndarray:
        """Values of each episode as blocks (blocks, rows, ...)."""
        shape = values[0].shape[1:]
        out = np.full((self.blocks * self._rows, *shape), unused, dtype)
        for first, some in zip((self._after - self._blocks) * self._rows, values, strict=True):
            out[first : first + len(some)] = some
        return out.reshape(self.blocks, self._rows, *shape)

    def channel(self, name: str, dtype: np.dtype, unused: object) -> np.ndarray:
        """A channel as blocks (blocks, rows, ...)."""
        return self.padded([each.arrays[name] for each in self._episodes], dtype, unused)

    def index(self) -> dict[str, np.ndarray]:
        """The columns that say which rows and episodes are in the blocks, an item per block."""
        # Control steps of the environment, as in blocks of all environments.
        pairs = zip(self._steps, self._episodes, strict=True)
        at = [step - step[0] + episode.start for step, episode in pairs]
        long = np.dtype(np.int64)
        envs = np.empty(self.blocks, ENV_DTYPE)
        envs["first_episode"] = np.repeat(self._serial, self._blocks)
        envs["first_step"] = self.padded(self._steps, long, -1)[:, 0]
        envs["total"] = np.repeat([each.total for each in self._episodes], self._blocks)
        envs["recorded"] = np.repeat([each.recorded for each in self._episodes], self._blocks)
        return {"index/step": self.padded(at, long, -1), "index/envs": envs}

    def ends(self, piece: slice, first: int) -> tuple[dict[str, Pieces], dict[str, np.ndarray]]:
        """Rows for tables about the episodes whose last blocks are in a piece of the blocks.

        Args:
            piece: The piece.
            first: Number of its first block in the file.

        Returns:
            The columns, and how many rows each block adds to each table.
        """
        within = np.flatnonzero((self._after > piece.start) & (self._after <= piece.stop))
        last = self._after[within] - 1
        chosen = [self._episodes[i] for i in within.tolist()]
        rows = _end_rows(chosen, self.used[last] - 1)
        rows["block"], rows["key"] = first + last - piece.start, self._serial[within]
        columns: dict[str, Pieces] = {"ends": [rows]}
        adds = {"ends": np.bincount(last - piece.start, minlength=piece.stop - piece.start)}
        where = np.zeros(len(within), MODEL_DTYPE)
        where["episode"] = self._serial[within]
        for name in chosen[0].model if chosen else ():
            table = f"model_fields/{name}"
            columns[f"{table}/value"] = [np.stack([each.model[name] for each in chosen])]
            columns[f"{table}/where"] = [where]
            adds[table] = adds["ends"]
        return columns, adds


def groups(episodes: Iterable[Episode], info: RunInfo) -> Iterator[list[Episode]]:
    """Episodes with rows that are written together; those with pictures alone."""
    alone = any(spec.codec for spec in info.channels)
    each = bytes_of(info.kinds.values())
    group: list[Episode] = []
    nbytes = 0
    for episode in episodes:
        if group and (alone or nbytes >= _TOGETHER or _kinds(episode) != _kinds(group[0])):
            yield group
            group, nbytes = [], 0
        if episode.rows:
            group.append(episode)
            nbytes += episode.rows * each
    if group:
        yield group


def _kinds(episode: Episode) -> Mapping[str, object]:
    return {name: (value.dtype, value.shape) for name, value in episode.model.items()}


def _end_rows(episodes: Sequence[Episode], row: np.ndarray) -> np.ndarray:
    """Rows of the table of ends, given the last row of each episode in its block."""

    def of(name: str) -> np.ndarray:
        return np.array([getattr(episode, name) for episode in episodes])

    first = np.array([int(episode.arrays["step"][0]) for episode in episodes])
    success = [-1 if episode.success is None else int(episode.success) for episode in episodes]
    ends = Ends(
        env_index=np.arange(len(episodes)),
        row=row,
        episode=of("number"),
        at=of("start") - first + of("length"),
        length=of("length"),
        total=of("total"),
        rows=of("rows"),
        recorded=of("recorded"),
        terminated=of("terminated"),
        truncated=of("truncated"),
        success=np.array(success),
    )
    rows = end_rows(ends, 0, RunInfo(channels=(), envs=tuple(of("env").tolist()), step_dt=0.0))
    rows["env_index"] = 0
    return rows
