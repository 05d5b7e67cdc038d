"""What a recording is made of: channels, blocks of rows, ends of episodes, whole episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mjlab_rec.data.values import (
    MOST,
    check_count,
    check_dtype,
    check_name,
    check_shape,
    told,
    value_of,
)
from mjlab_rec.data.values import DataError as DataError
from mjlab_rec.utils.string import nearest

FORMAT_VERSION = 2

# Columns that every table of rows has in addition to the channels.
ROW_COLUMNS = ("time", "env", "episode", "step")


@dataclass(frozen=True, kw_only=True)
class ChannelSpec:
    """One quantity of a row, such as ``obs/actor``, as it is stored."""

    name: str
    """Path of the channel, also its key in the arrays read back."""

    dtype: np.dtype
    """Type of the elements in the file."""

    shape: tuple[int, ...] = ()
    """Shape of one environment's value in one row; () for a number."""

    elements: tuple[str, ...] = ()
    """A name for each element of the flattened value; () where they have none."""

    when: Literal["before", "after"] = "after"
    """Whether the value is that before the action or what came of it."""

    units: str = ""
    """Unit of measurement, for those who read the file."""

    next_of: str = ""
    """If set, nothing is stored in a block for this channel: a row's value is the next row's value
    of that "before" channel, or the final value where the episode ended."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def nbytes(self) -> int:
        """Bytes of one environment's value in one row."""
        return self.size * self.dtype.itemsize

    def columns(self) -> list[str]:
        """A column name for each element: ``reward``, ``action[slider]``, ``obs/actor[3]``."""
        if not self.shape:
            return [self.name]
        names: Sequence[str] = self.elements or [
            ",".join(map(str, index)) for index in np.ndindex(*self.shape)
        ]
        return [f"{self.name}[{name}]" for name in names]

    def to_json(self) -> dict[str, Any]:
        """As plain data that ``from_json`` reads."""
        return {**asdict(self), "dtype": self.dtype.str}

    @classmethod
    def from_json(cls, data: Any) -> ChannelSpec:
        """The inverse of ``to_json``; raises DataError for anything else."""
        name = check_name(value_of(data, "name", str, "A channel"), "channel")
        what = f"Channel '{name}'"
        dtype = check_dtype(value_of(data, "dtype", str, what), what)
        shape = tuple(value_of(data, "shape", (tuple, list), what))
        check_shape(shape, dtype, what)
        elements = tuple(value_of(data, "elements", (tuple, list), what))
        if not all(isinstance(element, str) for element in elements):
            raise DataError(f"{what}: the names of its elements are not all text.")
        if elements and len(elements) != math.prod(shape):
            raise DataError(
                f"{what} has {len(elements)} names of elements, but {math.prod(shape)} elements."
            )
        when = value_of(data, "when", str, what)
        if when not in ("before", "after"):
            raise DataError(f"{what}: 'when' is {told(when)}, but it must be before or after.")
        return cls(
            name=name,
            dtype=dtype,
            shape=shape,
            elements=elements,
            when=when,
            units=value_of(data, "units", str, what),
            next_of=value_of(data, "next_of", str, what),
        )


@dataclass(kw_only=True)
class RunInfo:
    """What a file says about itself."""

    channels: tuple[ChannelSpec, ...]
    """All channels that can be read back, derived ones included, in the user's order."""

    envs: tuple[int, ...]
    """Number of each recorded environment. An `env_index` is a place in this tuple."""

    step_dt: float
    """Duration of a control step in seconds."""

    every: int = 1
    """Control steps from one row to the next."""

    about: dict[str, Any] = field(default_factory=dict)
    """Task, seed, engine, package versions, cfg, ...: plain JSON data, nothing is computed from
    it."""

    attachments: dict[str, bytes] = field(default_factory=dict)
    """Whole files that belong to the recording, such as "model.mjb"."""

    @property
    def stored(self) -> tuple[ChannelSpec, ...]:
        """The channels that have an array of their own in a block."""
        return tuple(spec for spec in self.channels if not spec.next_of)

    @property
    def kinds(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape in a row of all that can be read: the channels, and last "step"."""
        found = {spec.name: (spec.dtype, spec.shape) for spec in self.channels}
        return {**found, "step": (np.dtype("int32"), ())}

    def check_names(self, names: Iterable[str]) -> None:
        """Raise if something is asked for that cannot be read."""
        known = ["step", *(spec.name for spec in self.channels)]
        for name in names:
            if name not in known:
                raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")

    @property
    def chained(self) -> tuple[str, ...]:
        """Names of the "before" channels whose next value some derived channel needs."""
        return tuple(dict.fromkeys(spec.next_of for spec in self.channels if spec.next_of))

    def to_json(self) -> dict[str, Any]:
        """As plain data that ``from_json`` reads; attachments are left out."""
        return {
            "format": "mjlab_rec",
            "version": FORMAT_VERSION,
            "channels": [spec.to_json() for spec in self.channels],
            "envs": list(self.envs),
            "step_dt": self.step_dt,
            "every": self.every,
            "about": self.about,
        }

    @classmethod
    def from_json(cls, data: Any) -> RunInfo:
        """The inverse of ``to_json``; raises DataError for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != "mjlab_rec":
            raise DataError("This was not recorded by mjlab_rec: it does not describe itself.")
        version = data.get("version")
        if type(version) is not int or version != FORMAT_VERSION:
            cure = "Read it with the mjlab_rec that wrote it, or record again."
            if type(version) is int and version > FORMAT_VERSION:
                cure = "Install a newer one."
            raise DataError(
                f"This was recorded in format version {told(version)}, but this mjlab_rec reads"
                f" version {FORMAT_VERSION}. {cure}"
            )
        what = "The description"
        channels = tuple(
            map(ChannelSpec.from_json, value_of(data, "channels", (tuple, list), what))
        )
        check_channels(channels)
        envs = tuple(value_of(data, "envs", (tuple, list), what))
        if not all(type(env) is int and 0 <= env < MOST for env in envs):
            raise DataError(f"{what}: 'envs' must be integers from 0 on.")
        if len(set(envs)) != len(envs):
            raise DataError(f"{what}: 'envs' has an environment twice.")
        step_dt = value_of(data, "step_dt", (int, float), what)
        if not 0 <= step_dt <= 1e9:
            raise DataError(f"{what}: 'step_dt' is {told(step_dt)}, but must be a time in seconds.")
        every = check_count(data.get("every"), f"{what}: 'every'", 1)
        about = value_of(data, "about", dict, what)
        return cls(
            channels=channels, envs=envs, step_dt=float(step_dt), every=every, about=dict(about)
        )


def bytes_of(kinds: Iterable[tuple[np.dtype, tuple[int, ...]]]) -> int:
    """Bytes of a value of each of these types and shapes."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in kinds)


def check_channels(channels: Iterable[ChannelSpec]) -> None:
    """Raise unless these channels go together: no name twice, and what one follows exists."""
    known: dict[str, ChannelSpec] = {}
    for spec in channels:
        if spec.name in known:
            raise DataError(f"Channel '{spec.name}' occurs twice.")
        known[spec.name] = spec
    for spec in known.values():
        source = known.get(spec.next_of) if spec.next_of else spec
        if source is None:
            raise DataError(
                f"Channel '{spec.name}' follows {told(spec.next_of)}, which is no channel."
            )
        if spec.next_of and (
            source.next_of
            or source.when != "before"
            or (source.dtype, source.shape) != (spec.dtype, spec.shape)
        ):
            raise DataError(
                f"Channel '{spec.name}' cannot follow '{source.name}': that must be a stored value"
                " before the action, of the same type and shape."
            )


@dataclass(kw_only=True)
class Ends:
    """Episodes that ended within a block, in the order in which they ended: n of them.

    Episodes without a single step, such as between two resets in a row, are left out.
    """

    env_index: np.ndarray  # (n,) int32
    row: np.ndarray  # (n,) int32, its last row in the block; -1: it has none there
    episode: np.ndarray  # (n,) int32, counted per environment
    at: np.ndarray  # (n,) int64, control steps of the environment when it ended
    length: np.ndarray  # (n,) int32, control steps, recorded or not
    total: np.ndarray  # (n,) float64, sum of rewards (the return); NaN: not known
    rows: np.ndarray  # (n,) int32, recorded rows
    recorded: np.ndarray  # (n,) float64, sum of the recorded rows' rewards
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool; an episode with neither was cut by the user
    success: np.ndarray  # (n,) int8: 1 yes, 0 no, -1 not known
    final: dict[str, np.ndarray] = field(default_factory=dict)  # chained name -> (n, *shape)
    values: dict[str, np.ndarray] = field(default_factory=dict)  # more about each end, (n,)

    def __len__(self) -> int:
        return len(self.env_index)

    def facts(self, i: int) -> dict[str, Any]:
        """What an end says of its whole episode."""
        success = int(self.success[i])
        return {
            "length": int(self.length[i]),
            "total": float(self.total[i]),
            "recorded": float(self.recorded[i]),
            "terminated": bool(self.terminated[i]),
            "truncated": bool(self.truncated[i]),
            "success": None if success < 0 else success == 1,
        }


@dataclass(kw_only=True)
class ModelRows:
    """Per-world model fields as they were from the first row of some episodes on: n of them."""

    env_index: np.ndarray  # (n,) int32
    episode: np.ndarray  # (n,) int32
    fields: dict[str, np.ndarray]  # model field -> (n, *shape)

    def __len__(self) -> int:
        return len(self.env_index)


@dataclass(kw_only=True)
class Block:
    """Consecutive rows of all recorded environments. `env_index` is a place in `info.envs`.

    The arrays lie in memory that is used again: copy what you keep. They are time-major, as they
    were recorded.
    """

    info: RunInfo
    rows: int
    arrays: dict[str, np.ndarray]  # stored channel -> (rows, num_envs, *shape)
    tail: dict[
        str, np.ndarray
    ]  # chained channel -> (num_envs, *shape), after the last row; where an
    # episode ended with the last row it is already the new episode's
    step: np.ndarray  # (rows,) int64, control steps of the environment before each row
    first_episode: np.ndarray  # (num_envs,) int32, episode of the first row
    first_step: np.ndarray  # (num_envs,) int32, steps of that episode before the first row
    total: np.ndarray  # (num_envs,) float64, return of the running episode after the last row
    recorded: np.ndarray  # (num_envs,) float64, the part of it that rows were recorded of
    ends: Ends
    active: np.ndarray | None = None  # (rows, num_envs) bool: rows that a trigger wants; None: all
    model: ModelRows | None = None  # model fields that changed, from their episodes on
    gap: int = 0  # rows lost between the previous block and this one
    pace: Callable[[float], None] = lambda done: None
    """Call it between pieces of work with the share that is done, from 0 to 1. It may wait, so that
    the work slows down all steps of the simulation a little instead of a few steps a lot."""

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return len(self.first_episode)

    def __getitem__(self, name: str) -> np.ndarray:
        """The same as ``dense``."""
        return self.dense(name)

    def dense(self, name: str) -> np.ndarray:
        """A channel with a value for every row (rows, num_envs, *shape), derived ones included."""
        if name in self.arrays:
            return self.arrays[name]
        spec = next(spec for spec in self.info.channels if spec.name == name)
        source = spec.next_of
        if not self.rows:
            return self.arrays[source][:0]
        values = np.concatenate([self.arrays[source][1:], self.tail[source][None]])
        at = self.ends.row >= 0
        values[self.ends.row[at], self.ends.env_index[at]] = self.ends.final[source][at]
        return values

    def numbering(self) -> tuple[np.ndarray, np.ndarray]:
        """Episode of every row, and its steps before the row: both (rows, num_envs) int32."""
        episode = np.zeros((self.rows, self.num_envs), np.int32)
        began = np.zeros(
            (self.rows, self.num_envs), np.int64
        )  # control step of the episode's start
        if self.rows:
            episode[0] = self.first_episode
            began[0] = self.step[0] - self.first_step
            at = self.ends.row + 1 < self.rows
            after = self.ends.row[at] + 1, self.ends.env_index[at]
            # Of several ends before a row the last one counts; both only ever grow.
            np.maximum.at(episode, after, self.ends.episode[at] + 1)
            np.maximum.at(began, after, self.ends.at[at])
            np.maximum.accumulate(episode, axis=0, out=episode)
            np.maximum.accumulate(began, axis=0, out=began)
        return episode, (self.step[:, None] - began).astype(np.int32)


def is_partial(first_step: Any, length: Any, rows: Any, every: int) -> Any:
    """Whether rows of an episode are missing, other than those that `every` leaves out.

    Works on numbers and on arrays of them.

    Args:
        first_step: Control steps of the episode before its first recorded row.
        length: Control steps of the episode.
        rows: Recorded rows.
        every: Control steps from one row to the next.
    """
    return rows < first_step // every + 1 + (length - 1 - first_step) // every


@dataclass(kw_only=True)
class Episode:
    """A whole episode of one environment, or what was recorded of it."""

    env: int
    number: int  # counted per environment from 0
    start: int  # control steps of the environment before the first recorded row
    length: int  # control steps, recorded or not
    total: float  # sum of rewards over all steps (the return); NaN: not known
    recorded: float  # sum of rewards over the recorded rows; NaN: not known
    terminated: bool
    truncated: bool
    success: bool | None  # None: not known
    partial: bool  # whether a row is missing that `every` would have recorded
    arrays: dict[str, np.ndarray]  # channel -> (rows, *shape); "step" -> (rows,) int32
    model: dict[str, np.ndarray] = field(default_factory=dict)  # model field -> (*shape)

    @property
    def cut(self) -> bool:
        """Whether it was ended by a reset from outside, or by the end of the recording."""
        return not (self.terminated or self.truncated)

    @property
    def rows(self) -> int:
        """Number of recorded rows."""
        return len(self.arrays["step"])
