"""The parts of a recording: channels, blocks of rows, ends of episodes, whole episodes."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mjlab_rec.data.pictures.codec import check_fits, parse
from mjlab_rec.data.values import (
    MOST,
    check_count,
    check_dtype,
    check_name,
    check_shape,
    short_repr,
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
    """Path of the channel, and its key in an episode's arrays."""

    dtype: np.dtype
    """Type of the elements in the file."""

    shape: tuple[int, ...] = ()
    """Shape of one environment's value in one row; () for a number."""

    elements: tuple[str, ...] = ()
    """A name for each element of the flattened value; () where they have none."""

    when: Literal["before", "after"] = "after"
    """Whether the value is from before or after the action."""

    units: str = ""
    """Unit of measurement."""

    next_of: str = ""
    """If set, a block stores nothing for this channel: a row's value is the next row's value of
    that "before" channel, or the final value where the episode ended."""

    codec: str = ""
    """How formats that have the codec store its pictures: "png", "jpeg:90", "h264:18". Others, and
    all if it is empty, store arrays."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

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
        data = {**asdict(self), "dtype": self.dtype.str}
        if not self.codec:
            del data["codec"]  # As in files that were written before there were codecs.
        return data

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
            raise DataError(f"{what}: the names of its elements must be strings.")
        if elements and len(elements) != math.prod(shape):
            raise DataError(
                f"{what} has {len(elements)} names of elements, but {math.prod(shape)} elements."
            )
        when = value_of(data, "when", str, what)
        if when not in ("before", "after"):
            raise DataError(
                f"{what}: 'when' is {short_repr(when)}, but it must be 'before' or 'after'."
            )
        codec = value_of(data, "codec", str, what) if "codec" in data else ""
        if codec:
            check_fits(parse(codec), dtype, shape, what)
        return cls(
            name=name,
            dtype=dtype,
            shape=shape,
            elements=elements,
            when=when,
            units=value_of(data, "units", str, what),
            next_of=value_of(data, "next_of", str, what),
            codec=codec,
        )


@dataclass(kw_only=True)
class RunInfo:
    """Description of a recording, which is stored in it."""

    channels: tuple[ChannelSpec, ...]
    """All channels that can be read, including derived ones, in the user's order."""

    envs: tuple[int, ...]
    """Number of each recorded environment. An `env_index` is a place in this tuple."""

    step_dt: float
    """Duration of a control step in seconds."""

    every: int = 1
    """Control steps from one row to the next."""

    about: dict[str, Any] = field(default_factory=dict)
    """Task, seed, engine, package versions, cfg, ...: JSON data, for information only."""

    attachments: dict[str, bytes] = field(default_factory=dict)
    """Whole files that belong to the recording, such as "model.mjb"."""

    @property
    def stored(self) -> tuple[ChannelSpec, ...]:
        """The channels that have an array in a block, which are those without `next_of`."""
        return tuple(spec for spec in self.channels if not spec.next_of)

    @property
    def kinds(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape in a row of everything that can be read: the channels, then "step"."""
        found = {spec.name: (spec.dtype, spec.shape) for spec in self.channels}
        return {**found, "step": (np.dtype("int32"), ())}

    def check_names(self, names: Iterable[str]) -> None:
        """Raise if a name is not one of a channel or "step"."""
        known = ["step", *(spec.name for spec in self.channels)]
        for name in names:
            if name not in known:
                raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")

    @property
    def chained(self) -> tuple[str, ...]:
        """Names of the "before" channels whose next value a derived channel needs."""
        return tuple(dict.fromkeys(spec.next_of for spec in self.channels if spec.next_of))

    def to_json(self) -> dict[str, Any]:
        """As plain data that ``from_json`` reads, without attachments."""
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
            raise DataError(
                "This was not recorded by mjlab_rec: it has no description of a recording."
            )
        version = data.get("version")
        if type(version) is not int or version != FORMAT_VERSION:
            cure = "Read it with the mjlab_rec version that wrote it, or record again."
            if type(version) is int and version > FORMAT_VERSION:
                cure = "Install a newer version."
            raise DataError(
                f"This was recorded in format version {short_repr(version)}, but this mjlab_rec"
                f" reads version {FORMAT_VERSION}. {cure}"
            )
        what = "The description"
        channels = _channels(json.dumps(value_of(data, "channels", (tuple, list), what)))
        envs = tuple(value_of(data, "envs", (tuple, list), what))
        if {*map(type, envs)} - {int} or (envs and not 0 <= min(envs) <= max(envs) < MOST):
            raise DataError(f"{what}: 'envs' must be whole numbers of at least 0.")
        if len(set(envs)) != len(envs):
            raise DataError(f"{what}: 'envs' lists an environment twice.")
        step_dt = value_of(data, "step_dt", (int, float), what)
        if not 0 <= step_dt <= 1e9:
            raise DataError(
                f"{what}: 'step_dt' is {short_repr(step_dt)}, but it must be a time in seconds."
            )
        every = check_count(data.get("every"), f"{what}: 'every'", 1)
        about = value_of(data, "about", dict, what)
        return cls(
            channels=channels, envs=envs, step_dt=float(step_dt), every=every, about=dict(about)
        )


@functools.lru_cache(maxsize=16)
def _channels(text: str) -> tuple[ChannelSpec, ...]:
    """Channels from JSON text. The recordings of a collection share them."""
    channels = tuple(map(ChannelSpec.from_json, json.loads(text)))
    check_channels(channels)
    return channels


def bytes_of(kinds: Iterable[tuple[np.dtype, tuple[int, ...]]]) -> int:
    """Bytes of one value of each of these types and shapes."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in kinds)


def check_channels(channels: Iterable[ChannelSpec]) -> None:
    """Raise if a name occurs twice, or if `next_of` names no fitting channel."""
    known: dict[str, ChannelSpec] = {}
    for spec in channels:
        if spec.name in known:
            raise DataError(f"Channel '{spec.name}' occurs twice.")
        known[spec.name] = spec
    for spec in known.values():
        source = known.get(spec.next_of) if spec.next_of else spec
        if source is None:
            raise DataError(
                f"Channel '{spec.name}' has next_of {short_repr(spec.next_of)}, not a channel."
            )
        if spec.next_of and (
            source.next_of
            or source.when != "before"
            or (source.dtype, source.shape) != (spec.dtype, spec.shape)
            or source.codec != spec.codec
        ):
            raise DataError(
                f"Channel '{spec.name}' has next_of '{source.name}', but that must be a stored"
                " channel with when='before', of the same type, shape and codec."
            )


@dataclass(kw_only=True)
class Ends:
    """The n episodes that ended within a block, in the order in which they ended.

    Episodes without a step, such as one between two consecutive resets, are not listed.
    """

    env_index: np.ndarray  # (n,) int32
    row: np.ndarray  # (n,) int32, its last row in the block; -1: it has no row there
    episode: np.ndarray  # (n,) int32, counted per environment
    at: np.ndarray  # (n,) int64, control steps of the environment when the next one could begin:
    # those when it ended, and one more if the reset takes a step of its own
    length: np.ndarray  # (n,) int32, control steps, recorded or not
    total: np.ndarray  # (n,) float64, sum of rewards (the return); NaN: not known
    rows: np.ndarray  # (n,) int32, recorded rows
    recorded: np.ndarray  # (n,) float64, sum of the recorded rows' rewards
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool; an episode with neither was cut by a reset
    success: np.ndarray  # (n,) int8: 1 yes, 0 no, -1 not known
    final: dict[str, np.ndarray] = field(default_factory=dict)  # chained name -> (n, *shape)
    values: dict[str, np.ndarray] = field(default_factory=dict)  # other values of each end, (n,)

    def __len__(self) -> int:
        return len(self.env_index)

    def facts(self, i: int) -> dict[str, Any]:
        """The fields of ``Episode`` that an end defines."""
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
    """Per-world model fields, each valid from the first row of an episode on."""

    env_index: np.ndarray  # (n,) int32
    episode: np.ndarray  # (n,) int32
    fields: dict[str, np.ndarray]  # model field -> (n, *shape)

    def __len__(self) -> int:
        return len(self.env_index)


@dataclass(kw_only=True)
class Block:
    """Consecutive rows of all recorded environments. `env_index` is a place in `info.envs`.

    The arrays are views of memory that is reused: copy what you keep. They are time-major.
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
    first_step: np.ndarray  # (num_envs,) int32, steps of that episode before the first row; -1: the
    # first row is of a step that only resets the environment
    total: np.ndarray  # (num_envs,) float64, return of the running episode after the last row
    recorded: np.ndarray  # (num_envs,) float64, the sum over the recorded rows
    ends: Ends
    active: np.ndarray | None = None  # (rows, num_envs) bool: rows that a trigger chose; None: all
    model: ModelRows | None = None  # model fields that changed
    gap: int = 0  # rows lost between the previous block and this one
    pace: Callable[[float], None] = lambda done: None
    """Call it while writing with the fraction that is done, from 0 to 1. It may wait, so that
    writing slows down all steps of the simulation a little instead of a few steps a lot."""

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return len(self.first_episode)

    def __getitem__(self, name: str) -> np.ndarray:
        """The same as ``dense``."""
        return self.dense(name)

    def dense(self, name: str) -> np.ndarray:
        """A channel's value in every row (rows, num_envs, *shape), for derived channels too."""
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
        """Episode of every row, and its steps before the row: both (rows, num_envs) int32.

        Where a step only reset the environment, its row belongs to no episode: its step is -1.
        """
        episode = np.zeros((self.rows, self.num_envs), np.int32)
        began = np.zeros(
            (self.rows, self.num_envs), np.int64
        )  # control step of the episode's start
        if self.rows:
            episode[0] = self.first_episode
            began[0] = self.step[0] - self.first_step
            at = self.ends.row + 1 < self.rows
            after = self.ends.row[at] + 1, self.ends.env_index[at]
            # If several episodes end before a row, the last one counts. Both arrays only grow.
            np.maximum.at(episode, after, self.ends.episode[at] + 1)
            np.maximum.at(began, after, self.ends.at[at])
            np.maximum.accumulate(episode, axis=0, out=episode)
            np.maximum.accumulate(began, axis=0, out=began)
        return episode, (self.step[:, None] - began).astype(np.int32)

    def counting(self, step: np.ndarray) -> np.ndarray | None:
        """Which rows belong to an episode and were chosen (rows, num_envs); None: all.

        Args:
            step: Steps before each row, as ``numbering`` returns them.
        """
        if step.size and step.min() < 0:
            return step >= 0 if self.active is None else (step >= 0) & self.active
        return self.active


def is_partial(first_step: Any, length: Any, rows: Any, every: int) -> Any:
    """Whether rows of an episode are missing, other than those that `every` skips.

    Works on numbers and on arrays.

    Args:
        first_step: Control steps of the episode before its first recorded row.
        length: Control steps of the episode.
        rows: Recorded rows.
        every: Control steps from one row to the next.
    """
    return rows < first_step // every + 1 + (length - 1 - first_step) // every


@dataclass(kw_only=True)
class Episode:
    """The recorded rows of one episode, and the facts about all of it."""

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
        """Whether a reset or the end of the recording ended it."""
        return not (self.terminated or self.truncated)

    @property
    def rows(self) -> int:
        """Number of recorded rows."""
        return len(self.arrays["step"])
