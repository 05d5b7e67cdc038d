"""Binding plots to an environment: the panels, and the channels that they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mjlab_rec.recorders.cfg_fields import env_ids
from mjlab_rec.recorders.channels import Channel, Source, needs_final_obs, resolve_channels
from mjlab_rec.recorders.live_plot.panels import Panel
from mjlab_rec.recorders.live_plot.plots import (
    ImageCfg,
    LinesCfg,
    Plot,
    Quantity,
    Reduce,
    VectorsCfg,
)

_AXES = "xyz"


@dataclass
class EnvChannels:
    """Channels that are read from the same environments."""

    env_ids: tuple[int, ...]
    reduce: Reduce | None
    """How to combine the environments; None if there is only one."""
    latest: bool
    """Whether only the newest sample is drawn."""
    rows: int = 1
    """Number of samples to keep."""
    sources: dict[str, Source] = field(default_factory=dict)
    """The channels by name."""


@dataclass(frozen=True)
class BoundPanel:
    """A panel, and the channels that it shows."""

    plot: Plot
    panel: Panel
    channels: EnvChannels
    names: tuple[str, ...]
    """Names of the channels that it shows."""


class PlotBindings:
    """Binds plots to an environment.

    Args:
        env: The environment.
        plots: Plots by title and subtitle.
        default_env: The environment to draw, unless a plot sets its own.
        every: Steps from one sample to the next.
        x: Whether lines are drawn over "seconds" or "steps".
        early: Whether the environment has not been reset yet. Then the user's functions are not
            called, and checks that need their values are skipped.
    """

    def __init__(
        self,
        env: Any,
        plots: Mapping[tuple[str, str], Plot],
        default_env: int,
        every: int,
        x: str,
        early: bool,
    ) -> None:
        self._env, self._default_env, self._every = env, default_env, every
        self.needs_final_obs = False
        """Whether a plot shows next observations."""
        self._unit = "simulated time (s)" if x == "seconds" else "control step"
        self._early = early
        self._env_channels: dict[Any, EnvChannels] = {}
        self._names: dict[Any, str] = {}  # Names of the user's functions.
        self.panels: list[BoundPanel] = []
        """The panels, in order."""
        for (title, subtitle), plot in plots.items():
            where = f"plots[{title!r}]" + (f"[{subtitle!r}]" if subtitle else "")
            try:
                bound = self._bind(plot, title, subtitle)
            except (ValueError, TypeError) as error:
                error.add_note(f"in {where} of a live plot")
                raise
            self.panels += [bound] if bound is not None else []
        if not self.panels:
            raise ValueError("There is nothing to draw: this task has none of the channels.")

    @property
    def env_channels(self) -> list[EnvChannels]:
        """The channels to read."""
        return list(self._env_channels.values())

    @property
    def has_functions(self) -> bool:
        """Whether functions of the user are called."""
        return bool(self._names)

    def _bind(self, plot: Plot, title: str, subtitle: str) -> BoundPanel | None:
        """Bind a plot to the environment; None if the task has none of its channels."""
        head: dict[str, Any] = {"title": title, "subtitle": subtitle}
        if isinstance(plot, ImageCfg):
            (source,) = self._single(plot.channel)
            shape = self._shape(source)
            if shape is not None and not (
                len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
            ):
                raise ValueError(
                    f"The channel '{source.name}' is not an image: it has shape {shape} per"
                    " environment, expected (h, w), (h, w, 1) or (h, w, 3)."
                )
            channels = self._channels_of(plot.env, latest=True)
            return BoundPanel(
                plot, Panel(kind="image", **head), channels, (self._add(channels, source),)
            )
        if isinstance(plot, VectorsCfg):
            return self._vectors(plot, head)
        sources = [s for item in plot.channels for s in self._sources(item)]
        if not sources:
            return None
        labels = self._labels(plot, sources)
        channels = self._channels_of(plot.env, plot.envs, plot.reduce)
        channels.rows = max(channels.rows, rows_of(plot, self._every))
        names = tuple(self._add(channels, source) for source in sources)
        panel = Panel(
            kind="lines",
            **head,
            labels=labels,
            x_label=plot.x_label or self._unit,
            y_label=plot.y_label or _common_unit(sources),
            log=plot.log,
        )
        return BoundPanel(plot, panel, channels, names)

    def _vectors(self, plot: VectorsCfg, head: dict[str, Any]) -> BoundPanel:
        pair = [*self._single(plot.positions), *self._single(plot.vectors)]
        shapes = [self._shape(source) for source in pair]
        for source, shape in zip(pair, shapes, strict=True):
            if shape is not None and (not shape or shape[-1] not in (2, 3)):
                raise ValueError(
                    f"The channel '{source.name}' has no vectors: it has shape {shape} per"
                    " environment, expected (..., 2) or (..., 3)."
                )
        known = [shape for shape in shapes if shape is not None]
        if len(set(known)) > 1:
            raise ValueError(
                f"Positions '{pair[0].name}' and vectors '{pair[1].name}' differ in shape:"
                f" {shapes[0]} and {shapes[1]} per environment."
            )
        size = known[0][-1] if known else 3
        if len(plot.axes) != 2 or not all(0 <= axis < size for axis in plot.axes):
            raise ValueError(
                f"axes is {plot.axes}: it must be two coordinates from 0 to {size - 1}."
            )
        labels = [plot.x_label or _AXES[plot.axes[0]], plot.y_label or _AXES[plot.axes[1]]]
        panel = Panel(kind="vectors", **head, x_label=labels[0], y_label=labels[1])
        channels = self._channels_of(plot.env, latest=True)
        return BoundPanel(
            plot, panel, channels, tuple(self._add(channels, source) for source in pair)
        )

    def _channels_of(
        self,
        env: int | None,
        envs: int | tuple[int, ...] | None = None,
        reduce: Reduce | None = None,
        latest: bool = False,
    ) -> EnvChannels:
        """The channels of these environments, created on first use."""
        one = self._default_env if env is None else env
        asked = (one,) if reduce is None else envs
        try:
            ids = env_ids(asked, self._env.num_envs)
        except ValueError as error:
            if reduce is None:
                last = self._env.num_envs - 1
                raise ValueError(f"env is {one!r}: it must be an index from 0 to {last}.") from None
            raise ValueError(f"envs is {envs!r}: {error}") from None
        key = ids, reduce, latest
        if key not in self._env_channels:
            self._env_channels[key] = EnvChannels(ids, reduce, latest)
        return self._env_channels[key]

    def _add(self, channels: EnvChannels, source: Source) -> str:
        """Add a source to the channels, and return its name."""
        channels.sources.setdefault(source.name, source)
        return source.name

    def _sources(self, item: Quantity) -> list[Source]:
        if not isinstance(item, (str, Channel)):
            name = getattr(item, "__name__", type(item).__name__).replace("<lambda>", "value")
            item = Channel(name=name, func=item, when="after")
        sources = resolve_channels(self._env, [item])
        self.needs_final_obs |= needs_final_obs(self._env, sources)
        if isinstance(item, str):
            return sources
        # Two functions may have the same name, such as lambda.
        key, taken = (item.func, item.name, item.when), self._names.values()
        if key not in self._names:
            number, name = 1, item.name
            while name in taken:
                number += 1
                name = f"{item.name} {number}"
            self._names[key] = name
        return [dataclasses.replace(sources[0], name=self._names[key])]

    def _single(self, item: Quantity) -> list[Source]:
        sources = self._sources(item)
        if len(sources) != 1:
            listed = ", ".join(source.name for source in sources) or "no channel"
            raise ValueError(f"{item!r} must be a single channel here, but it stands for {listed}.")
        return sources

    def _shape(self, source: Source) -> tuple[int, ...] | None:
        """Shape per environment; None if it is not known yet."""
        if self._early and (source.of_obs is not None or source.name in self._names.values()):
            return None
        return tuple(source.read().shape[1:])

    def _labels(self, plot: LinesCfg, sources: list[Source]) -> tuple[str, ...]:
        labels: list[str] = []
        for source in sources:
            shape = self._shape(source)
            if shape is None and not source.elements:
                return plot.labels
            size = int(np.prod(shape, dtype=int)) if shape is not None else len(source.elements)
            if source.elements and size != len(source.elements):
                raise ValueError(
                    f"Channel '{source.name}' has {size} elements but {len(source.elements)}"
                    f" element names: {', '.join(source.elements)}."
                )
            short = source.name.partition("/")[2] or source.name
            if size == 1:
                labels.append(short)
            elif source.elements:
                prefix = f"{short} " if len(sources) > 1 else ""
                labels += [prefix + element for element in source.elements]
            else:
                labels += [f"{short}.{i}" for i in range(size)]
        if plot.labels and len(plot.labels) != len(labels):
            raise ValueError(
                f"labels has {len(plot.labels)} entries, but there are {len(labels)} lines:"
                f" {', '.join(labels)}."
            )
        return tuple(plot.labels) or tuple(labels)


def rows_of(plot: LinesCfg, every: int) -> int:
    """Number of samples that lines show."""
    return max(2, -(-plot.steps // every))


def _common_unit(sources: Sequence[Source]) -> str:
    units = {source.units for source in sources}
    return units.pop() if len(units) == 1 else ""
