"""Compare two recordings: channels, episodes, and the first step and field that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from mjlab_rec.data.discovery import Source
from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import ChannelSpec, RunInfo, bytes_of
from mjlab_rec.data.union import AS_STORED

_MOST_OTHERS = 3  # channels that a sentence about an episode names

Progress = Callable[[int, int], None]
Key = tuple[int, int]


@dataclass(kw_only=True)
class EpisodeDifference:
    """How an episode differs."""

    env: int
    number: int
    step: int | None = None
    """Steps of the episode before the first row that differs; None if all common rows are equal."""
    channel: str = ""
    """A channel that differs in that row, with the name of the element: ``action[left]``."""
    old: Any = None
    """Its value in the first recording."""
    new: Any = None
    """Its value in the second one."""
    others: list[str] = field(default_factory=list)
    """Other channels that differ in that row."""
    table: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Columns of the table of episodes that differ, with both values."""

    def __str__(self) -> str:
        said = []
        if self.step is not None:
            others = ", ".join(self.others[:_MOST_OTHERS])
            if len(self.others) > _MOST_OTHERS:
                others += f" and {len(self.others) - _MOST_OTHERS} more"
            more = f" (also {others})" if others else ""
            change = _change(self.old, self.new)
            said.append(f"from step {self.step} on: {self.channel} {change}{more}")
        said += [f"{name} {_change(old, new)}" for name, (old, new) in self.table.items()]
        return f"Episode {self.number} of environment {self.env}: {'; '.join(said)}"


def _change(old: Any, new: Any) -> str:
    """Both values, with six digits if that shows a difference."""
    if isinstance(old, float) and isinstance(new, float) and f"{old:.6g}" != f"{new:.6g}":
        return f"{old:.6g} -> {new:.6g}"
    return f"{old} -> {new}"


@dataclass(kw_only=True)
class ChannelDifference:
    """How much a channel differs, over all episodes that both have."""

    channel: str
    episodes: int = 0
    """Episodes with rows that differ."""
    rows: int = 0
    """Rows that differ."""
    largest: float | None = None
    """The largest difference of known numbers; None if there is none."""

    def __str__(self) -> str:
        most = "" if self.largest is None else f", by up to {self.largest:.3g}"
        return f"{self.channel}: {self.rows} rows of {self.episodes} episodes differ{most}"


@dataclass(kw_only=True)
class Difference:
    """How two recordings differ."""

    schema: list[str] = field(default_factory=list)
    """A sentence for each difference in channels and times."""
    only_old: list[Key] = field(default_factory=list)
    """Environment and number of episodes that only the first recording has."""
    only_new: list[Key] = field(default_factory=list)
    """Those that only the second one has."""
    episodes: list[EpisodeDifference] = field(default_factory=list)
    """The episodes of both that differ."""
    channels: list[ChannelDifference] = field(default_factory=list)
    """How much each channel differs in them, if it does."""
    equal: int = 0
    """Number of episodes that are equal."""

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not (self.schema or self.only_old or self.only_new or self.episodes)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"same": self.same, **asdict(self)}


def diff(
    old: Source | Sequence[Source],
    new: Source | Sequence[Source],
    *,
    tolerance: float = 0.0,
    channels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Difference:
    """Compare two recordings, of any formats. Episodes are matched by environment and number.

    Args:
        old: What ``open_rollouts`` takes.
        new: The same.
        tolerance: Largest difference of floating-point values that counts as equal. With 0 values
            must be equal bit for bit. NaN equals NaN.
        channels: The channels to compare. None: all that both have with the same type and shape.
        progress: Called with the episodes that are compared, and all of them.
    """
    with open_rollouts(old) as first, open_rollouts(new) as second:
        result = Difference(schema=schema_differences(first.info, second.info))
        ours, theirs = _keys(first), _keys(second)
        result.only_old = [key for key in ours if key not in theirs]
        result.only_new = [key for key in theirs if key not in ours]
        pairs = [(ours[key], theirs[key]) for key in ours if key in theirs]
        names = _common_channels(first, second, channels)
        comparison = _Comparison(first, second, names, tolerance)
        each = bytes_of(first.info.kinds[name] for name in names)
        done = 0
        rows = first.episodes["rows"].to_list()
        for batch in batches([i for i, _ in pairs], rows, each):
            mine = pairs[done : done + len(batch)]
            result.episodes += comparison.compare(mine)
            done += len(batch)
            if progress is not None:
                progress(done, len(pairs))
        result.channels = [each for each in comparison.found.values() if each.rows]
        result.equal = len(pairs) - len(result.episodes)
        return result


def schema_differences(old: RunInfo, new: RunInfo) -> list[str]:
    """A sentence for each difference in what a row is."""
    ours, theirs = ({spec.name: spec for spec in info.channels} for info in (old, new))
    found = [f"Only the first has the channel '{name}'." for name in ours if name not in theirs]
    found += [f"Only the second has the channel '{name}'." for name in theirs if name not in ours]
    for name in ours:
        for each in fields(ChannelSpec) if name in theirs else ():
            if each.name in AS_STORED:
                continue
            was, now = getattr(ours[name], each.name), getattr(theirs[name], each.name)
            if was != now:
                found.append(f"Channel '{name}': {each.name} {_text(was)} -> {_text(now)}.")
    for name in ("step_dt", "every"):
        if getattr(old, name) != getattr(new, name):
            found.append(f"{name}: {getattr(old, name)} -> {getattr(new, name)}.")
    return found


def _text(value: Any) -> str:
    text = str(list(value)) if isinstance(value, tuple) else repr(str(value))
    return text if len(text) < 100 else f"{text[:100]}..."


def _keys(rollouts: Rollouts) -> dict[Key, int]:
    """The row of each episode, by its environment and number."""
    table = rollouts.episodes
    keys = zip(table["env"].to_list(), table["number"].to_list(), strict=True)
    return {key: index for index, key in enumerate(keys)}


def _common_channels(old: Rollouts, new: Rollouts, channels: Sequence[str] | None) -> list[str]:
    for rollouts in (old, new):
        rollouts.names(channels)
    ours, theirs = old.info.kinds, new.info.kinds
    names = [name for name in channels or ours if ours[name] == theirs.get(name)]
    return list(dict.fromkeys([*names, "step"]))


class _Comparison:
    def __init__(
        self, old: Rollouts, new: Rollouts, names: Sequence[str], tolerance: float
    ) -> None:
        self._both = old, new
        self._names, self._tolerance = list(names), tolerance
        self.found = {name: ChannelDifference(channel=name) for name in names}
        self._tables = [
            {n: r.episodes[n].to_list() for n in ("env", *EPISODE_COLUMNS)} for r in (old, new)
        ]
        self._specs = {spec.name: spec for spec in old.info.channels}

    def compare(self, pairs: Sequence[tuple[int, int]]) -> list[EpisodeDifference]:
        """The differences of some episodes, by their rows in both tables."""
        if not pairs:
            return []
        rows = [[table["rows"][at] for at in of] for table, of in self._sides(pairs)]
        if rows[0] != rows[1] and len(pairs) > 1:
            return [found for pair in pairs for found in self.compare([pair])]
        old, new = (
            rollouts.read_many(of, self._names)
            for rollouts, of in zip(self._both, zip(*pairs, strict=True), strict=True)
        )
        count = min(len(old["step"]), len(new["step"]))
        wrong = {name: self._differs(old[name][:count], new[name][:count]) for name in self._names}
        found, first = [], 0
        for number, pair in enumerate(pairs):
            after = min(first + rows[0][number], count)
            here = EpisodeDifference(
                env=self._tables[0]["env"][pair[0]],
                number=self._tables[0]["number"][pair[0]],
                table=self._table_differences(pair),
            )
            for name, mask in wrong.items():
                self._count(
                    name, *(side[name][first:after][mask[first:after]] for side in (old, new))
                )
            at = [np.flatnonzero(mask[first:after])[:1] for mask in wrong.values()]
            if any(len(place) for place in at):
                row = first + min(int(place[0]) for place in at if len(place))
                self._describe(here, old, new, row, [n for n in wrong if wrong[n][row]])
            if here.step is not None or here.table:
                found.append(here)
            first = after
        return found

    def _sides(
        self, pairs: Sequence[tuple[int, int]]
    ) -> list[tuple[dict[str, list[Any]], tuple[int, ...]]]:
        return list(zip(self._tables, zip(*pairs, strict=True), strict=True))

    def _differs(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Whether a row differs, (rows,)."""
        return np.asarray(self._elements_differ(old, new).reshape(len(old), -1).any(axis=1))

    def _elements_differ(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        if old.dtype.kind != "f":
            return np.asarray(old != new)
        equal = (old == new) & (np.signbit(old) == np.signbit(new))
        if self._tolerance > 0:
            with np.errstate(invalid="ignore", over="ignore"):
                near = np.abs(old.astype(np.float64) - new.astype(np.float64)) <= self._tolerance
            equal = (old == new) | near
        return np.asarray(~(equal | (np.isnan(old) & np.isnan(new))))

    def _count(self, name: str, old: np.ndarray, new: np.ndarray) -> None:
        """Count the rows of an episode that differ."""
        if not len(old):
            return
        found = self.found[name]
        found.episodes, found.rows = found.episodes + 1, found.rows + len(old)
        if old.dtype.kind not in "iuf":
            return
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(old.astype(np.float64) - new.astype(np.float64))
        if np.isfinite(apart).any():
            found.largest = max(found.largest or 0.0, float(apart[np.isfinite(apart)].max()))

    def _describe(
        self,
        found: EpisodeDifference,
        old: dict[str, np.ndarray],
        new: dict[str, np.ndarray],
        row: int,
        names: Sequence[str],
    ) -> None:
        name, *found.others = names
        found.step = int(old["step"][row])
        place = np.flatnonzero(self._elements_differ(old[name][row], new[name][row]).ravel())[0]
        found.old, found.new = (
            old[name][row].ravel()[place].item(),
            new[name][row].ravel()[place].item(),
        )
        spec = self._specs.get(name)
        found.channel = name if spec is None else spec.columns()[place]

    def _table_differences(self, pair: tuple[int, int]) -> dict[str, tuple[Any, Any]]:
        found = {}
        for name, kind in EPISODE_COLUMNS.items():
            was, now = (table[name][at] for table, at in zip(self._tables, pair, strict=True))
            if was is None or now is None or was == now:  # what is not known differs from nothing
                continue
            if kind == "Float64" and abs(was - now) <= self._tolerance * max(1, self._rows(pair)):
                continue
            found[name] = was, now
        return found

    def _rows(self, pair: tuple[int, int]) -> int:
        return self._tables[0]["rows"][pair[0]]
