"""What a live plot shows: lines, images and vector fields as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mjlab_rec.recorders.channels import Channel
from mjlab_rec.utils.plain_data import build
from mjlab_rec.utils.string import nearest

Quantity = str | Channel | Callable[[Any], Any]
"""A channel by name or of your own, or a function of the environment that returns a tensor
(num_envs, ...), which is read at the end of each step, before a reset."""

Reduce = Literal["mean", "min", "max"]


@dataclass(kw_only=True)
class LinesCfg:
    """Lines over the last steps, one for each number of its channels."""

    channels: tuple[Quantity, ...]
    """What to draw. A name such as "reward_terms" stands for everything below it."""

    labels: tuple[str, ...] = ()
    """A label for each line. Empty takes the names of the channels and of their elements."""

    steps: int = 500
    """How many of the last control steps to show."""

    x_label: str = ""
    """Label of the horizontal axis. Empty names its unit."""

    y_label: str = ""
    """Label of the vertical axis."""

    log: bool = False
    """Draw the vertical axis logarithmically; values that are not positive are left out."""

    env: int | None = None
    """The environment to draw. None means the recorder's."""

    reduce: Reduce | None = None
    """Draw the mean, min or max over environments instead of the values of one."""

    envs: int | tuple[int, ...] | None = None
    """Environments to reduce: the first so many, or these. None means all."""


@dataclass(kw_only=True)
class ImageCfg:
    """The newest picture of a channel of shape (h, w), (h, w, 1) or (h, w, 3) per environment."""

    channel: Quantity
    """What to draw. With three axes it is RGB: whole numbers from 0 to 255, or fractions up to 1.
    With two it is drawn in shades of grey, and what is not finite in red."""

    value_range: tuple[float, float] | None = None
    """Values that are black and white in shades of grey. None fits them to each picture."""

    env: int | None = None
    """The environment to draw. None means the recorder's."""


@dataclass(kw_only=True)
class VectorsCfg:
    """The newest vector field: arrows at positions."""

    positions: Quantity
    """Where the arrows begin: (..., 2) or (..., 3) per environment."""

    vectors: Quantity
    """The arrows, in the same shape. They are scaled to fit; those not finite are left out."""

    axes: tuple[int, int] = (0, 1)
    """Coordinates to draw horizontally and vertically: 0 for x, 1 for y, 2 for z."""

    x_label: str = ""
    """Label of the horizontal axis. Empty names the coordinate."""

    y_label: str = ""
    """Label of the vertical axis. Empty names the coordinate."""

    env: int | None = None
    """The environment to draw. None means the recorder's."""


Plot = LinesCfg | ImageCfg | VectorsCfg

# A table is known by the field that it cannot do without.
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
"""What is drawn if nothing is asked for. A task without reward terms has no plot of them."""


def flat_plots(plots: Mapping[str, Any]) -> dict[tuple[str, str], Plot]:
    """Plots by title and subtitle, made of what a cfg or a preset says."""
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
        raise ValueError(f'{where}: envs are reduced to one line: say how, such as reduce="mean".')
    if lines.env is not None and lines.reduce is not None:
        raise ValueError(f"{where}: env and reduce exclude each other.")
