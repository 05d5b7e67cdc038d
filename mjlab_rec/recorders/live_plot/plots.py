"""What a live plot shows: lines, images and vector fields as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mjlab_rec.recorders.channels import Channel
from mjlab_rec.utils.plain_data import build
from mjlab_rec.utils.string import nearest

Quantity = str | Channel | Callable[[Any], Any]
"""A channel's name, a custom channel, or a function of the environment that returns a tensor
(num_envs, ...), which is read at the end of each step, before a reset."""

Reduce = Literal["mean", "min", "max"]


@dataclass(kw_only=True)
class LinesCfg:
    """Lines over the last steps, one for each element of the channels."""

    channels: tuple[Quantity, ...]
    """What to draw. A name such as "reward_terms" includes everything below it."""

    labels: tuple[str, ...] = ()
    """A label for each line. Empty uses the names of the channels and their elements."""

    steps: int = 500
    """Number of last control steps to show."""

    x_label: str = ""
    """Label of the horizontal axis. Empty shows its unit."""

    y_label: str = ""
    """Label of the vertical axis."""

    log: bool = False
    """Use a logarithmic vertical axis; values that are not positive are left out."""

    env: int | None = None
    """The environment to draw. None uses the recorder's."""

    reduce: Reduce | None = None
    """Draw the mean, min or max over environments instead of one environment's values."""

    envs: int | tuple[int, ...] | None = None
    """Environments to reduce: a number for the first N, or a tuple of indices. None means all."""


@dataclass(kw_only=True)
class ImageCfg:
    """The newest image of a channel of shape (h, w), (h, w, 1) or (h, w, 3) per environment."""

    channel: Quantity
    """What to draw. (h, w, 3) is RGB: integers from 0 to 255, or floats from 0 to 1. Other shapes
    are drawn in grey, with non-finite values in red."""

    value_range: tuple[float, float] | None = None
    """Values drawn as black and white in a grey image. None fits them to each image."""

    env: int | None = None
    """The environment to draw. None uses the recorder's."""


@dataclass(kw_only=True)
class VectorsCfg:
    """The newest vector field: arrows at positions."""

    positions: Quantity
    """Start points of the arrows: (..., 2) or (..., 3) per environment."""

    vectors: Quantity
    """The arrows, of the same shape. They are scaled to fit; non-finite ones are left out."""

    axes: tuple[int, int] = (0, 1)
    """Coordinates on the horizontal and vertical axes: 0 for x, 1 for y, 2 for z."""

    x_label: str = ""
    """Label of the horizontal axis. Empty shows the coordinate."""

    y_label: str = ""
    """Label of the vertical axis. Empty shows the coordinate."""

    env: int | None = None
    """The environment to draw. None uses the recorder's."""


Plot = LinesCfg | ImageCfg | VectorsCfg

# A table's type is recognized by a required field.
_KINDS: dict[str, type[Plot]] = {
    "channels": LinesCfg,
    "channel": ImageCfg,
    "positions": VectorsCfg,
    "vectors": VectorsCfg,
}

DEFAULT_PLOTS: dict[str, Plot] = {
    "reward": LinesCfg(channels=("reward",)),
    "reward terms": LinesCfg(channels=("reward_terms",)),
    "action": LinesCfg(channels=("action",)),
}
"""Plots that are drawn by default. A task without reward terms has no plot of them."""


def flat_plots(plots: Mapping[str, Any]) -> dict[tuple[str, str], Plot]:
    """Plots by title and subtitle, from a cfg or preset."""
    found: dict[tuple[str, str], Plot] = {}
    for title, value in plots.items():
        group = isinstance(value, Mapping) and not set(value) & set(_KINDS)
        for subtitle, plot in value.items() if group else [("", value)]:
            where = f"plots[{title!r}]" + (f"[{subtitle!r}]" if group else "")
            found[title, subtitle] = _plot(plot, where)
    if not found:
        raise ValueError("plots: there is nothing to draw.")
    return found


def _plot(value: Any, where: str) -> Plot:
    if isinstance(value, str) or callable(value) or isinstance(value, Channel):
        value = {"channels": (value,)}
    elif isinstance(value, Sequence):
        value = {"channels": tuple(value)}
    if isinstance(value, Mapping):
        kinds = [kind for key, kind in _KINDS.items() if key in value]
        if not kinds:
            raise ValueError(
                f"{where}: a plot needs 'channels' for lines, 'channel' for an image, or"
                f" 'positions' and 'vectors'; got {', '.join(map(repr, value)) or 'nothing'}."
            )
        try:
            value = build(kinds[0], value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not isinstance(value, Plot):
        raise TypeError(
            f"{where} is {value!r}, expected LinesCfg, ImageCfg, VectorsCfg, a table of their"
            " fields, or names of channels."
        )
    if isinstance(value, LinesCfg):
        _check_lines(value, where)
    return value


def _check_lines(lines: LinesCfg, where: str) -> None:
    if isinstance(lines.channels, str) or not lines.channels:
        raise ValueError(f"{where}: channels must be names of channels, got {lines.channels!r}.")
    if lines.steps < 2:
        raise ValueError(f"{where}: steps must be at least 2, got {lines.steps}.")
    if lines.reduce not in (None, "mean", "min", "max"):
        hint = nearest(str(lines.reduce), ["mean", "min", "max"])
        raise ValueError(f"{where}: reduce is {lines.reduce!r}. {hint}")
    if lines.envs is not None and lines.reduce is None:
        raise ValueError(
            f'{where}: envs needs reduce, such as reduce="mean", because it draws one line.'
        )
    if lines.env is not None and lines.reduce is not None:
        raise ValueError(f"{where}: env and reduce are mutually exclusive.")
