"""What an export reads: a recording, many episodes at a time, cut where rows are missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mjlab_rec.data.formats.pieces import Pieces
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo, bytes_of
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

BATCH_BYTES = 16 << 20
_POLICY_GROUPS = ("obs/actor", "obs/policy")


@dataclass(kw_only=True)
class Batch:
    """The S stretches of some episodes: their rows, one stretch after another.

    A stretch is a whole episode, unless rows of it are missing: then it is a part without a gap.
    """

    table: dict[str, np.ndarray]  # column of the table of episodes -> (S,)
    episode: np.ndarray  # (S,), row of the table of episodes
    counts: np.ndarray  # (S,), rows
    last: np.ndarray  # (S,) bool, whether it has the last recorded row of its episode
    first: int  # number of the first stretch in the export
    arrays: dict[str, np.ndarray]  # channel or "step" -> (rows, *shape)
    models: list[dict[str, np.ndarray]]  # (S,), model fields by name

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def rows(self) -> int:
        """Rows of all stretches."""
        return int(self.counts.sum())

    @property
    def starts(self) -> np.ndarray:
        """The first row of each stretch, (S,)."""
        return np.cumsum(self.counts) - self.counts

    @property
    def ends(self) -> np.ndarray:
        """The last row of each stretch, (S,)."""
        return np.cumsum(self.counts) - 1

    def numbers(self) -> range:
        """The numbers of the stretches in the export."""
        return range(self.first, self.first + len(self))

    def slices(self) -> Iterator[slice]:
        """The rows of each stretch."""
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            yield slice(start, start + count)

    def flag(self, name: str, every: int) -> np.ndarray:
        """Terminated or truncated of each row, from the channel or else the table."""
        if name in self.arrays:
            return self.arrays[name].astype(bool)
        values = np.zeros(self.rows, bool)
        complete = self.arrays["step"][self.ends] + every >= self.table["length"]
        values[self.ends] = self.table[name] & self.last & complete
        return values

    def with_final(self, name: str, following: str) -> np.ndarray:
        """A channel with a row more for each stretch: the last row of the one that follows it."""
        before, after = self.arrays[name], self.arrays[following]
        into = np.arange(self.rows) + np.repeat(np.arange(len(self)), self.counts)
        values = np.empty((self.rows + len(self), *before.shape[1:]), before.dtype)
        values[into] = before
        values[self.ends + 1 + np.arange(len(self))] = after[self.ends]
        return values

    def chained(self, name: str, following: str) -> np.ndarray:
        """Whether, in each stretch, `following` of each row but the last is the next row's `name`.

        Bits are compared, so NaN equals NaN.
        """
        before, after = (_as_bytes(self.arrays[n]) for n in (name, following))
        if self.arrays[name].dtype != self.arrays[following].dtype or before.shape != after.shape:
            return np.zeros(len(self), bool)
        same = np.ones(self.rows, bool)
        same[:-1] = (after[:-1] == before[1:]).all(axis=1)
        same[self.ends] = True
        return np.logical_and.reduceat(same, self.starts)

    def chosen(self, which: np.ndarray) -> Batch:
        """Only some of the stretches, given as (S,) bool. Their numbers are no longer known."""
        rows = np.repeat(which, self.counts)
        return replace(
            self,
            table={name: values[which] for name, values in self.table.items()},
            episode=self.episode[which],
            counts=self.counts[which],
            last=self.last[which],
            arrays={name: values[rows] for name, values in self.arrays.items()},
            models=[self.models[number] for number in np.flatnonzero(which)],
        )

    def model(self) -> dict[str, np.ndarray]:
        """The model fields that all stretches have, each (S, *shape)."""
        names = self.models[0] if self.models else {}
        return {
            name: np.stack([model[name] for model in self.models])
            for name in names
            if all(name in model for model in self.models)
        }


class Source:
    """A recording that is exported.

    Args:
        rollouts: The recording.
        channels: Names of channels; None: all.
        progress: Called with the rows done and all rows.
    """

    def __init__(
        self, rollouts: Rollouts, channels: Sequence[str] | None, progress: Progress | None
    ) -> None:
        self.rollouts = rollouts
        names = dict.fromkeys(name for name in rollouts.names(channels) if name != "step")
        chosen = [spec for spec in rollouts.info.channels if spec.name in names]
        self.info: RunInfo = replace(
            rollouts.info,
            channels=tuple(
                spec if spec.next_of in names else replace(spec, next_of="") for spec in chosen
            ),
        )
        self.specs: dict[str, ChannelSpec] = {spec.name: spec for spec in self.info.channels}
        self.notes: list[str] = []
        self.stretches: list[Batch] = []  # those so far, without their rows
        self._progress = progress or (lambda done, total: None)

    def note(self, text: str) -> None:
        """Tell the user once what the target cannot hold."""
        if text not in self.notes:
            self.notes.append(text)
            logger.warning("%s", text)

    def need(self, name: str, target: str) -> ChannelSpec:
        """A channel that the target requires."""
        if name in self.specs:
            return self.specs[name]
        if name in self.rollouts.channels:
            raise DataError(f"{target} needs the channel '{name}'. Add it to the channels.")
        raise DataError(
            f"{target} needs the channel '{name}', but the recording has none."
            f" {nearest(name, list(self.rollouts.channels))} Record it."
        )

    def following(self, name: str, target: str) -> str:
        """The channel with the observations after each step, for one with those before it."""
        found = f"next_{name}"
        if found not in self.specs:
            raise DataError(
                f"{target} needs the observation after the last step of each episode, but there is"
                f" no channel '{found}'. Add it to the recorder's channels, or to those of the"
                " export if it was recorded."
            )
        return found

    def observations(self, groups: Sequence[str] = ()) -> dict[str, list[str]]:
        """The channels of groups of observations; by default those of the policy's group.

        A group is one channel, such as obs/actor, or several below it, such as obs/actor/height.
        """
        known: dict[str, list[str]] = {}
        for name in self.specs:
            if name.startswith("obs/"):
                known.setdefault("/".join(name.split("/")[:2]), []).append(name)
        if not known:
            raise DataError("The recording has no observations. Record the channel 'obs'.")
        if not groups:
            first = next((name for name in _POLICY_GROUPS if name in known), next(iter(known)))
            return {first: known[first]}
        found = {}
        for group in groups:
            name = group if group.startswith("obs/") else f"obs/{group}"
            if name not in known:
                names = [each.removeprefix("obs/") for each in known]
                raise DataError(f"Unknown group of observations '{group}'. {nearest(group, names)}")
            found[name] = known[name]
        return found

    def batches(self, whole: bool = False) -> Iterator[Batch]:
        """All stretches, in the order of the table of episodes; all episodes if `whole`."""
        table = self.rollouts.episodes
        columns = {name: column(table, name) for name in table.columns if _is_plain(table[name])}
        names = [*self.specs, "step"]
        each = bytes_of(self.info.kinds[name] for name in names)
        total, done, count = int(columns["rows"].sum()), 0, 0
        self._progress(0, total)
        for group in _groups(columns["rows"] * each, BATCH_BYTES):
            rows = columns["rows"][group]
            partial = bool(columns["partial"][group].any())
            arrays = self._read(group, rows, names, partial)
            bounds = np.append(0, np.cumsum(rows)) if whole else self._bounds(rows, arrays["step"])
            of = np.searchsorted(np.cumsum(rows), bounds[:-1], side="right")
            models = [self.rollouts.reader.model(index) for index in group.tolist()]
            batch = Batch(
                table={name: values[group][of] for name, values in columns.items()},
                episode=group[of],
                counts=np.diff(bounds),
                last=np.isin(bounds[1:], np.cumsum(rows)),
                first=count,
                arrays=arrays,
                models=[models[number] for number in of],
            )
            yield batch
            count += len(batch)
            done += batch.rows
            self.stretches.append(replace(batch, arrays={}, models=[]))
            self._progress(done, total)

    def _read(
        self, episodes: np.ndarray, rows: np.ndarray, names: Sequence[str], partial: bool
    ) -> dict[str, np.ndarray]:
        """Channels of some episodes, which have these rows and perhaps gaps between them."""
        reader = self.rollouts.reader
        chains = reader.chains(names)
        if partial or not set(chains.values()) <= set(names):
            return self.rollouts.read_many(episodes.tolist(), names)
        # Without gaps, large pieces can be read, and what follows a row is the next row's.
        kinds, count = self.info.kinds, int(rows.sum())
        arrays = {name: np.empty((count, *kinds[name][1]), kinds[name][0]) for name in names}
        out = {name: values for name, values in arrays.items() if name not in chains}
        after = {
            name: np.empty((len(rows), *arrays[name].shape[1:]), arrays[name].dtype)
            for name in set(chains.values())
        }
        pieces = Pieces(episode=episodes, first=np.zeros_like(rows), count=rows)
        for task in reader.reading(pieces, out, after):
            task()
        for name, source in chains.items():
            arrays[name][:-1] = arrays[source][1:]
            arrays[name][np.cumsum(rows) - 1] = after[source]
        return arrays

    def _bounds(self, rows: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The first row of each stretch, and the number of all rows, for episodes of some rows."""
        ends = np.cumsum(rows)
        new = np.zeros(len(step) + 1, bool)
        new[1:-1] = np.diff(step.astype(np.int64)) != self.info.every
        new[0] = new[ends] = True
        return np.flatnonzero(new)


def column(table: pl.DataFrame, name: str) -> np.ndarray:
    """A column of the table of episodes; unknown values are -1 or NaN."""
    values = table[name]
    if name == "success":
        return values.cast(pl.Int8).fill_null(-1).to_numpy()
    if values.dtype == pl.Boolean:
        return values.fill_null(False).to_numpy()
    if values.dtype.is_float():
        return values.fill_null(float("nan")).to_numpy()
    return values.cast(pl.Int64).fill_null(-1).to_numpy()


def _is_plain(values: pl.Series) -> bool:
    return values.dtype.is_numeric() or values.dtype == pl.Boolean


def _groups(sizes: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Consecutive numbers, as many as have this size together, but at least one."""
    first, ends = 0, np.cumsum(sizes)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield np.arange(first, last)
        first = last


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Each row as bytes, (rows, n)."""
    flat = np.ascontiguousarray(values).reshape(len(values), -1)
    return flat.view(np.uint8)
