"""Check the rows of episodes: their number, steps, flags, rewards and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checking.findings import Finding, Kind
from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.schema import DataError, RunInfo, bytes_of

RETURN_TOLERANCE = 1e-3  # of the sum of the absolute rewards; sums of float32 differ by less


class RowChecks:
    """Checks episodes against their line in the table, in batches.

    Args:
        reader: The recording.
        channels: The channels to read.
        finite: Those of them in which NaN and infinity are found.
        most: Findings that are kept.
        together: Episodes that are read at once. The HDF5 library reports some damage only the
            first time, so if several are read with it, nothing says which one is damaged.
    """

    def __init__(
        self,
        reader: Reader,
        channels: Sequence[str],
        finite: Sequence[str],
        most: int,
        together: int | None = None,
    ) -> None:
        self._reader = reader
        self._names = list(dict.fromkeys(["step", *channels]))
        self._finite = set(finite)
        self._most = most
        self._together = together or 1 << 60
        info, table = reader.info, reader.episodes
        self._info = info
        self._every = info.every
        self._kinds = {spec.name: spec for spec in info.channels}
        self._table: dict[str, list[Any]] = {name: table[name].to_list() for name in table.columns}
        # The table, in which what is not known does not look like something wrong.
        self.columns = table.select(
            pl.col("partial").fill_null(True),
            pl.col("length").cast(pl.Int64).fill_null(1 << 60),
            pl.col("terminated", "truncated").fill_null(False),
            pl.col("recorded_return").fill_null(np.nan),
        )
        self._not_finite: dict[tuple[int, str], tuple[int, int, int]] = {}
        self.findings: list[Finding] = []
        self.bad_rows: dict[int, np.ndarray | None] = {}
        """For episodes that are not good: which rows are not; None: it may be any of them."""

    @property
    def good(self) -> np.ndarray:
        """Whether nothing is wrong with an episode, (episodes,)."""
        good = np.ones(len(self.columns), bool)
        good[list(self.bad_rows)] = False
        return good

    def run(self, indices: Sequence[int] | None = None) -> Iterator[tuple[int, int]]:
        """Check all episodes, or some; yields how many are done, of how many."""
        chosen = range(len(self.columns)) if indices is None else indices
        done, count = 0, len(chosen)
        each = bytes_of(self._reader.info.kinds[name] for name in self._names)
        for batch in batches(chosen, self._table["rows"], each):
            for first in range(0, len(batch), self._together):
                self._check(batch[first : first + self._together])
            done += len(batch)
            yield done, count

    def _check(self, batch: Sequence[int]) -> None:
        try:
            arrays = self._reader.read_many(batch, self._names)
            expected = sum(self._table["rows"][index] for index in batch)
            if any(len(values) != expected for values in arrays.values()):
                raise DataError("It has another number of rows than its table says.")
        except DataError as error:
            if len(batch) > 1:
                for index in batch:
                    self._check([index])
            else:
                self._note_unreadable(batch[0], error)
            return
        self._check_finite(batch, arrays)
        rows = np.array([self._table["rows"][index] for index in batch], np.int64)
        first = np.cumsum(rows) - rows
        for place in np.flatnonzero(self._suspicious(batch, arrays, rows)).tolist():
            mine = slice(int(first[place]), int(first[place] + rows[place]))
            of_one = {name: values[mine] for name, values in arrays.items()}
            self._check_episode(batch[place], of_one)

    def _suspicious(
        self, batch: Sequence[int], arrays: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> np.ndarray:
        """Whether something may be wrong with an episode, without looking at each of them."""
        if not (rows > 0).all():
            return np.ones(len(rows), bool)
        after = np.cumsum(rows)
        first, last = after - rows, after - 1
        of_batch = self.columns[list(batch)]
        is_last = np.zeros(int(after[-1]), bool)
        is_last[last] = True
        step = arrays["step"].astype(np.int64)
        partial = of_batch["partial"].to_numpy()
        change = np.diff(step, append=0)
        wrong = np.where(np.repeat(partial, rows), change <= 0, change != self._every) & ~is_last
        found = np.logical_or.reduceat(wrong, first)
        found |= (step[first] >= self._every) & ~partial
        length = of_batch["length"].to_numpy()
        found |= step[last] >= length
        at_end = step[last] == length - 1
        for name in ("terminated", "truncated"):
            if name in arrays and arrays[name].ndim == 1:
                flags = arrays[name].astype(bool)
                found |= np.logical_or.reduceat(flags & ~is_last, first)
                found |= at_end & (flags[last] != of_batch[name].to_numpy())
        if "reward" in arrays and arrays["reward"].ndim == 1:
            reward = arrays["reward"].astype(np.float64)
            with np.errstate(invalid="ignore"):
                total = np.add.reduceat(reward, first)
                size = np.add.reduceat(np.abs(reward), first)
                near = np.abs(total - of_batch["recorded_return"].to_numpy())
                found |= ~(near <= 0.5 * RETURN_TOLERANCE * (1.0 + size))
        return found

    def _note_unreadable(self, index: int, error: DataError) -> None:
        """Name the channels of an episode that cannot be read."""
        if self.bad_rows.get(index) is not None:
            return  # It was found where it is stored.
        found = False
        for name in self._names:
            try:
                values = self._reader.read(index, [name])[name]
                if len(values) != self._table["rows"][index]:
                    rows = self._table["rows"][index]
                    self.add(
                        *("rows", index, name),
                        f"'{name}' has {len(values)} rows, but its table says {rows}.",
                    )
                    found = True
            except DataError as reason:
                self.add("checksum", index, name, str(reason))
                found = True
        if not found:
            self.add("checksum", index, "", str(error))

    def _check_finite(self, batch: Sequence[int], arrays: Mapping[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            if name not in self._finite or values.dtype.kind != "f" or np.isfinite(values).all():
                continue
            bad = np.any(~np.isfinite(values.reshape(len(values), -1)), axis=1)
            first = 0
            for index in batch:
                after = first + self._table["rows"][index]
                self.note_not_finite(index, name, np.flatnonzero(bad[first:after]))
                first = after

    def note_not_finite(self, index: int, name: str, rows: np.ndarray) -> None:
        """Note that values in rows of an episode are not finite."""
        if not len(rows):
            return
        self.mark(index, rows)
        first, last, count = self._not_finite.get((index, name), (int(rows[0]), 0, 0))
        first, last = min(first, int(rows[0])), max(last, int(rows[-1]))
        self._not_finite[index, name] = first, last, count + len(rows)

    def mark(self, index: int, rows: np.ndarray | slice) -> None:
        """Note rows of an episode that are not good, though others may be."""
        mask = self.bad_rows.setdefault(index, np.zeros(self._table["rows"][index], bool))
        if mask is not None:
            mask[rows] = True

    def finish(self) -> list[Finding]:
        """Everything that was found."""
        for (index, name), (first, last, count) in self._not_finite.items():
            text = f"'{name}' is NaN or infinite in {count} rows, first in row {first}."
            self.add("nan", index, name, text, (first, last), alone=True)
        self._not_finite.clear()
        return self.findings

    def _check_episode(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        step = arrays["step"].astype(np.int64)
        length, partial = self._table["length"][index], self._table["partial"][index]
        if not len(step):
            self.add("rows", index, "", "It has no rows.")
            return
        if length is not None and step[-1] >= length:
            self.add(
                *("steps", index, "step"),
                f"Its last row has step {step[-1]}, but it has {length} steps.",
                (len(step) - 1, len(step) - 1),
            )
        change = np.diff(step)
        wrong = change != self._every if partial is False else change <= 0
        if partial is False and step[0] >= self._every:
            self.add("steps", index, "step", f"It begins with step {step[0]}.", (0, 0))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            self.add(
                *("steps", index, "step"),
                f"Step {step[at]} is followed by step {step[at + 1]}.",
                (at, at + 1),
            )
        self._check_flags(index, arrays, bool(length is not None and step[-1] == length - 1))
        self._check_return(index, arrays)

    def _check_flags(self, index: int, arrays: Mapping[str, np.ndarray], at_end: bool) -> None:
        """Flags are set in no row but the last, and there as the table says."""
        for name in ("terminated", "truncated"):
            if name not in arrays or arrays[name].ndim != 1:
                continue
            flags = arrays[name].astype(bool)
            early = np.flatnonzero(flags[:-1])
            if len(early):
                self.add(
                    *("flags", index, name),
                    f"'{name}' is set in {len(early)} rows before the last, first in row"
                    f" {early[0]}.",
                    (int(early[0]), int(early[-1])),
                )
            said = self._table[name][index]
            if at_end and said is not None and bool(flags[-1]) != said:
                self.add(
                    *("flags", index, name),
                    f"'{name}' is {bool(flags[-1])} in the last row, but {said} in the table of"
                    " episodes.",
                    (len(flags) - 1, len(flags) - 1),
                )

    def _check_return(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        said = self._table["recorded_return"][index]
        if said is None or "reward" not in arrays or arrays["reward"].ndim != 1:
            return
        reward = arrays["reward"].astype(np.float64)
        total, size = float(reward.sum()), float(np.abs(reward).sum())
        if np.isfinite(size) and not abs(total - said) <= RETURN_TOLERANCE * (1.0 + size):
            self.add(
                *("return", index, "reward"),
                f"The rewards of its rows add up to {total:g}, not to the recorded {said:g}.",
            )

    def rows_of(self, index: int) -> int:
        """Number of rows of an episode, as the table says."""
        return self._table["rows"][index]

    def add(
        self,
        kind: Kind,
        index: int,
        channel: str,
        text: str,
        rows: tuple[int, int] | None = None,
        file: str = "",
        *,
        alone: bool = False,
    ) -> None:
        """Note what is wrong with an episode, all of it unless `alone`: then only marked rows."""
        if not alone:
            self.bad_rows[index] = None
        if len(self.findings) >= self._most:
            return
        env, number = self._table["env"][index], self._table["number"][index]
        where = f"Episode {number} of environment {env}"
        if where.lower() not in text.lower():
            text = f"{where}: {text}"
        where = {"env": env, "number": number, "channel": channel, "rows": rows, "file": file}
        self.findings.append(Finding(kind=kind, text=text, **where))


def float_channels(info: RunInfo) -> list[str]:
    """The channels whose values may be NaN or infinite."""
    return [spec.name for spec in info.channels if spec.dtype.kind == "f"]
