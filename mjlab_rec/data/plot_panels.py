"""The numbers of a figure about recordings: panels, each with lines."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.pictures.codec import is_picture
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, bytes_of
from mjlab_rec.utils.string import nearest

RETURN, LENGTH = "return", "length"
_OF_EPISODES = {RETURN: "return of an episode", LENGTH: "length of an episode (steps)"}
_MOST_OVERLAID = 4  # episodes without a choice; with more, a mean and a band are shown
_MOST_EPISODES = 256  # of a mean and a band
_LOOKED_AT = 16  # episodes from which the elements that vary most are found
_MOST_POINTS = 2000  # of a line
_PERCENTILES = (10, 90)
_MOST_BANDS = 3  # in a panel; more would hide each other
_WINDOWS = 20  # the running mean of returns is over this part of the episodes


@dataclass(kw_only=True)
class Line:
    """A line of a panel, possibly with a band around it."""

    label: str
    colour: int
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    faint: bool = False
    dots: bool = False
    hollow: bool = False


@dataclass(kw_only=True)
class Panel:
    """A part of the figure."""

    title: str
    y_label: str
    x_label: str = "time (s)"
    lines: list[Line] = field(default_factory=list)


def panels(
    recordings: Mapping[str, Rollouts],
    channels: Sequence[str] | None,
    episodes: Sequence[int] | None,
    band: bool | None,
    elements: int,
) -> list[Panel]:
    """The panels of a figure.

    Args:
        recordings: The recordings by their labels.
        channels: Names of channels, "return" and "length"; None: a choice.
        episodes: Rows of the tables of episodes; None: all, or some of very many.
        band: Whether to show a mean and a band instead of each episode; None: if there are many.
        elements: Most elements of a channel that are shown.
    """
    first = next(iter(recordings.values()))
    names = _known(first, channels) if channels is not None else _usual(first)
    found = []
    for name in names:
        if name in _OF_EPISODES:
            found.append(_of_episodes(recordings, name))
            continue
        for label, rollouts in recordings.items():
            if name not in rollouts.info.kinds:
                raise DataError(f"'{label}' has no channel '{name}'.")
        found += _of_channel(recordings, name, episodes, band, elements)
    return found


def _usual(rollouts: Rollouts) -> list[str]:
    """What is shown without a choice: returns, the reward, actions and what the policy saw."""
    known = {n: s for n, s in rollouts.channels.items() if _why_not(s) is None}
    names = [RETURN] if rollouts.episodes["return"].is_not_null().any() else []
    names += [name for name in ("reward", "action") if name in known]
    seen = [name for name in known if name.startswith("obs/")]
    names += [n for n in ("obs/actor", "obs/policy") if n in seen][:1] or seen[:1]
    return names or list(known)[:3]


def _known(rollouts: Rollouts, channels: Sequence[str]) -> list[str]:
    """Check names; a name such as "obs" means everything below it."""
    found: list[str] = []
    for name in channels:
        below = [n for n in rollouts.channels if n == name or n.startswith(f"{name}/")]
        if name in _OF_EPISODES:
            below = [name]
        if not below:
            known = [*_OF_EPISODES, *rollouts.channels]
            raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")
        fitting = [n for n in below if n in _OF_EPISODES or _why_not(rollouts.channels[n]) is None]
        if not fitting:
            why = _why_not(rollouts.channels[below[0]])
            raise DataError(f"The channel '{below[0]}' cannot be plotted: {why}.")
        found += fitting
    return list(dict.fromkeys(found))


def _why_not(spec: ChannelSpec) -> str | None:
    if spec.codec or is_picture(spec.dtype, spec.shape):
        return "it holds pictures"
    if not spec.size or spec.dtype.kind not in "biuf":
        return "it holds no numbers"
    return None


def _of_episodes(recordings: Mapping[str, Rollouts], name: str) -> Panel:
    """A point for each episode over the steps at which it ended, and a running mean.

    Episodes that were cut are drawn, but not in the mean.
    """
    panel = Panel(title=f"{name}s", y_label=_OF_EPISODES[name], x_label="control steps")
    tables = [rollouts.episodes for rollouts in recordings.values()]
    if not all((table["start"].fill_null(0) > 0).any() for table in tables):
        panel.x_label = "episode, in the order of the recording"  # When they were is not known.
    for number, (label, table) in enumerate(zip(recordings, tables, strict=True)):
        values = table[name].cast(float).fill_null(np.nan).to_numpy()
        at = np.arange(len(values), dtype=np.float64)
        if panel.x_label == "control steps":
            at = (table["start"] + table["length"]).fill_null(0).to_numpy().astype(np.float64)
        order = np.argsort(at, kind="stable")
        at, values, cut = at[order], values[order], table["cut"].fill_null(False).to_numpy()[order]
        known = np.isfinite(values)
        dots = {"colour": number, "faint": True, "dots": True}
        if (known & cut).any():
            x, y = at[known & cut], values[known & cut]
            some = _some(len(y), 10 * _MOST_POINTS)
            text = f"{label}: cut" if len(recordings) > 1 else "cut"
            panel.lines.append(Line(label=text, x=x[some], y=y[some], hollow=True, **dots))
        at, values = at[known & ~cut], values[known & ~cut]
        some = _some(len(values), 10 * _MOST_POINTS)
        panel.lines.append(Line(label="", x=at[some], y=values[some], **dots))
        if len(values) >= _WINDOWS:
            size = max(5, len(values) // _WINDOWS)
            sums = np.cumsum(np.concatenate(([0.0], values)))
            mean = (sums[size:] - sums[:-size]) / size
            ends, where = np.unique(at[size - 1 :], return_inverse=True)
            mean = np.bincount(where, mean) / np.bincount(where)  # Some may end together.
            some = _some(len(mean), _MOST_POINTS)
            text = f"mean of {size} episodes"
            text = f"{label}: {text}" if len(recordings) > 1 else text
            panel.lines.append(Line(label=text, colour=number, x=ends[some], y=mean[some]))
        elif len(recordings) > 1:
            panel.lines[-1].label = label
    return panel


def _of_channel(
    recordings: Mapping[str, Rollouts],
    name: str,
    episodes: Sequence[int] | None,
    band: bool | None,
    most: int,
) -> list[Panel]:
    """A panel with a line for each element; of several recordings a panel for each element."""
    first = next(iter(recordings.values()))
    spec = first.channels[name]
    several = len(recordings) > 1
    chosen = {label: _chosen(r, episodes, band) for label, r in recordings.items()}
    shown = _varying(first, name, chosen[next(iter(chosen))][0], most)
    columns = [column.removeprefix(name).strip("[]") for column in spec.columns()]
    title = name if len(shown) == spec.size else f"{name} ({len(shown)} of {spec.size} elements)"
    unit = spec.units
    if several:
        found = [
            Panel(title=f"{name}[{columns[e]}]" if columns[e] else name, y_label=unit)
            for e in shown
        ]
    else:
        found = [Panel(title=title, y_label=unit)]
    with_bands = several or len(shown) <= _MOST_BANDS
    for number, (label, rollouts) in enumerate(recordings.items()):
        if rollouts.channels[name].shape != spec.shape:
            raise DataError(
                f"'{name}' has shape {rollouts.channels[name].shape} in '{label}', but"
                f" {spec.shape} in '{next(iter(recordings))}'."
            )
        indices, banded = chosen[label]
        series = _bands(rollouts, name, indices, shown) if banded else None
        for place, element in enumerate(shown):
            panel = found[place if several else 0]
            text = label if several else columns[element]
            colour = number if several else place
            if series is not None:
                x, mean, low, high = (values[..., place] for values in series)
                line = Line(label=text, colour=colour, x=x, y=mean)
                if with_bands:
                    line.low, line.high = low, high
                panel.lines.append(line)
        if series is not None and number == 0:
            count, of = len(indices), len(rollouts) if episodes is None else len(indices)
            what = f"{count} episodes" if count == of else f"{count} of {of} episodes"
            low, high = _PERCENTILES
            more = f", and percentiles {low} to {high}" if with_bands else ""
            found[0].title += f"\nmeans{more}" if several else f"\nmean of {what}{more}"
        if series is None:
            _overlay(found, rollouts, name, indices, shown, columns, label if several else "")
            if len(indices) > 1 and len(shown) > 1 and not several:
                others = ", ".join(map(str, indices[1:6])) + ", ..." * (len(indices) > 6)
                found[0].title += f"\nepisode {indices[0]}, and faint: {others}"
            if several:
                for panel in found:
                    for line in panel.lines[-len(indices) :]:
                        line.colour = number
    return found


def _overlay(
    found: list[Panel],
    rollouts: Rollouts,
    name: str,
    indices: Sequence[int],
    shown: Sequence[int],
    columns: Sequence[str],
    recording: str,
) -> None:
    """Add a line for each episode and element."""
    for order, index in enumerate(indices):
        arrays = rollouts.read(index, [name, "step"])
        values = arrays[name].reshape(len(arrays["step"]), -1)[:, shown]
        some = _some(len(values), _MOST_POINTS)
        x = arrays["step"][some] * rollouts.info.step_dt
        for place, element in enumerate(shown):
            panel = found[place if recording else 0]
            label = (recording or columns[element]) if order == 0 else ""
            colour = place
            if not recording and len(shown) == 1:  # Then each episode has its own colour.
                label, colour = f"episode {index}" if len(indices) > 1 else "", order
            panel.lines.append(
                Line(
                    label=label,
                    colour=colour,
                    x=x,
                    y=values[some, place].astype(np.float64),
                    faint=order > 0 and (len(shown) > 1 or bool(recording)),
                )
            )


def _chosen(
    rollouts: Rollouts, episodes: Sequence[int] | None, band: bool | None
) -> tuple[list[int], bool]:
    """The episodes that are read, and whether a mean and a band are shown."""
    count = len(rollouts)
    if not count:
        raise DataError(f"'{rollouts.path}' has no episodes.")
    if episodes is None:
        banded = count > _MOST_OVERLAID if band is None else band
        most = _MOST_EPISODES if banded else _MOST_OVERLAID
        return _some(count, most).tolist(), banded
    for index in episodes:
        if not 0 <= index < count:
            raise DataError(f"There is no episode {index}: the recording has {count}, from 0.")
    return list(dict.fromkeys(episodes)), bool(band)


def _varying(rollouts: Rollouts, name: str, indices: Sequence[int], most: int) -> list[int]:
    """The elements that vary most, if there are too many."""
    size = rollouts.channels[name].size
    if size <= most:
        return list(range(size))
    looked = [indices[i] for i in _some(len(indices), _LOOKED_AT)]
    values = rollouts.read_many(looked, [name])[name]
    values = values.reshape(len(values), -1).astype(np.float64)
    spread = np.where(np.isfinite(values), values, 0.0).std(axis=0)
    return sorted(np.argsort(-spread, kind="stable")[:most].tolist())


def _bands(
    rollouts: Rollouts, name: str, indices: Sequence[int], shown: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Time, mean and percentiles at each step, (steps, elements) each."""
    table, info = rollouts.episodes, rollouts.info
    longest = int(table["length"].fill_null(table["rows"])[list(indices)].max() or 1)  # pyright: ignore
    stride = info.every * max(1, -(-longest // (info.every * _MOST_POINTS)))
    values = np.full((len(indices), -(-longest // stride), len(shown)), np.nan, np.float32)
    sizes, place = table["rows"].to_list(), 0
    each = bytes_of(info.kinds[n] for n in (name, "step"))
    for batch in batches(indices, sizes, each):
        arrays = rollouts.read_many(batch, [name, "step"])
        rows = arrays[name].reshape(len(arrays["step"]), -1)[:, shown]
        of = np.repeat(np.arange(len(batch)), [sizes[i] for i in batch]) + place
        at = arrays["step"] // stride
        first = (np.diff(at, prepend=-1) != 0) | (np.diff(of, prepend=-1) != 0)
        kept = first & (at < values.shape[1])
        values[of[kept], at[kept]] = rows[kept]
        place += len(batch)
    known = np.isfinite(values).any(axis=(0, 2))
    values[~np.isfinite(values)] = np.nan
    values = values[:, known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Elements that are NaN in all episodes.
        low, high = np.nanpercentile(values, _PERCENTILES, axis=0)
        mean = np.nanmean(values, axis=0)
    time = np.flatnonzero(known)[:, None] * stride * info.step_dt
    return np.repeat(time, len(shown), axis=1), mean, low, high


def _some(count: int, most: int) -> np.ndarray:
    """At most this many of `count` places, evenly spread, the first and last included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).astype(int))
