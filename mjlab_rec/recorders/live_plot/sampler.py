"""Samples for live plots: the last values to draw, kept on the environment's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from mjlab_rec.recorders.channels import Source
from mjlab_rec.recorders.live_plot.bindings import BoundPanel, EnvChannels, PlotBindings, rows_of
from mjlab_rec.recorders.live_plot.panels import Contents, Panel, image, lines, vectors
from mjlab_rec.recorders.live_plot.plots import ImageCfg, Plot, VectorsCfg
from mjlab_rec.recorders.rows import EnvSelection, RowReader
from mjlab_rec.sim.snapshot import to_host

_TAKEN = (
    "(steps taken)"  # Steps since the episode began; where they are not consecutive, a line breaks.
)
Rings = dict[str, torch.Tensor]
"""A ring buffer of values for each channel."""

_REDUCE: dict[str, Callable[..., Any]] = {"mean": torch.mean, "min": torch.amin, "max": torch.amax}


class _RingBuffers:
    """A ring buffer for each channel of the same environments."""

    def __init__(self, env: Any, channels: EnvChannels, taken: Callable[[], torch.Tensor]) -> None:
        self._reduce = channels.reduce
        selection = EnvSelection(channels.env_ids, env.num_envs, str(env.device))
        sources = list(channels.sources.values())
        if channels.reduce is None and not channels.latest:
            sources.append(Source(name=_TAKEN, read=taken, when="before"))
        self._reader = RowReader(env, sources, selection, chain=False, dtype=None)
        device = env.device
        # One more than are kept: the values at the next step's start are read in advance.
        self._slots = channels.rows + 1
        read_rows = self._slots if self._reduce is None else 1
        self._read: Rings = {}
        for source in sources:
            value = source.read()
            shape = (read_rows, selection.count, *value.shape[1:])
            self._read[source.name] = torch.zeros(shape, dtype=value.dtype, device=device)
        self.rings: Rings = {
            name: part[:, 0]
            if self._reduce is None
            else torch.zeros((self._slots, *part.shape[2:]), device=device)
            for name, part in self._read.items()
        }

    def before(self, row: int) -> None:
        self._reader.before(self._read, self._row(row))

    def after(self, row: int) -> None:
        self._reader.after(self._read, self._row(row))

    def complete(self, row: int, was_reset: bool) -> None:
        self._reader.complete(self._read, self._row(row), was_reset)
        if self._reduce is None:
            return
        reduce = _REDUCE[self._reduce]
        for name, ring in self.rings.items():
            # Not out=: the ring buffer is float32, whatever the channel is.
            ring[row % self._slots].copy_(reduce(self._read[name][0].float(), dim=0))

    def _row(self, row: int) -> int:
        return row % self._slots if self._reduce is None else 0


class Samples:
    """A copy of the ring buffers on the host; from a GPU it may still be in transfer.

    Args:
        rings: Ring buffers by environments and name of the channel.
        rows: Number of samples taken so far.
        steps: Their control steps, also a ring buffer.
    """

    def __init__(self, rings: Mapping[int, Rings], rows: int, steps: np.ndarray) -> None:
        self.rows, self.steps = rows, steps.copy()
        self._events: list[Any] = []
        self.rings = {
            key: {name: self._copy(ring) for name, ring in parts.items()}
            for key, parts in rings.items()
        }

    def wait(self) -> None:
        """Wait until the copy is complete."""
        for event in self._events:
            event.synchronize()

    def _copy(self, ring: torch.Tensor) -> torch.Tensor:
        copy, event = to_host(ring if ring.is_cuda else ring.clone())
        self._events += [] if event is None else [event]
        return copy


class Sampler:
    """Samples the values that the plots draw, and turns them into the panels' contents.

    Args:
        env: The environment.
        plots: Plots by title and subtitle.
        default_env: The environment to draw, unless a plot sets its own.
        every: Steps from one sample to the next.
        x: Whether lines are drawn over "seconds" or "steps".
        taken: Returns the steps since each environment's episode began (num_envs,).
    """

    def __init__(
        self,
        env: Any,
        plots: Mapping[tuple[str, str], Plot],
        default_env: int,
        every: int,
        x: str,
        taken: Callable[[], torch.Tensor],
    ) -> None:
        self._env, self._every, self._x, self._taken = env, every, x, taken
        self._bind: Callable[[bool], PlotBindings] = partial(
            PlotBindings, env, plots, default_env, every, x
        )
        # Checked before the first reset as far as possible, so that mistakes show early.
        early = self._bind(True)
        self.has_functions = early.has_functions
        """Whether functions of the user are called."""
        self.needs_final_obs = early.needs_final_obs
        """Whether a plot shows next observations."""
        self.rows = 0
        """Samples taken so far."""

    def prepare(self) -> list[Panel]:
        """Discard all samples and allocate the ring buffers, now that all values can be read."""
        self.rows = 0
        bindings = self._bind(False)
        self._panels = bindings.panels
        self._buffers = {
            id(channels): _RingBuffers(self._env, channels, self._taken)
            for channels in bindings.env_channels
        }
        self._rings = {key: buffers.rings for key, buffers in self._buffers.items()}
        self._steps = np.zeros(max(channels.rows for channels in bindings.env_channels), np.int64)
        return [bound.panel for bound in self._panels]

    # -- in the stepping thread --------------------------------------------------------------------

    def before(self) -> None:
        """Read the values at the next step's start."""
        for buffers in self._buffers.values():
            buffers.before(self.rows)

    def after(self) -> None:
        """Read the step's results before a reset overwrites them."""
        for buffers in self._buffers.values():
            buffers.after(self.rows)

    def complete(self, step: int, was_reset: bool) -> None:
        """Complete the step's sample."""
        for buffers in self._buffers.values():
            buffers.complete(self.rows, was_reset)
        self._steps[self.rows % len(self._steps)] = step
        self.rows += 1

    def samples(self) -> Samples:
        """A copy of all samples; call its ``wait`` before use."""
        return Samples(self._rings, self.rows, self._steps)

    # -- in the drawing thread ---------------------------------------------------------------------

    def contents(self, samples: Samples) -> list[Contents]:
        """What each panel shows of the samples."""
        samples.wait()
        return [self._content(bound, samples) for bound in self._panels]

    def _content(self, bound: BoundPanel, samples: Samples) -> Contents:
        rings, plot = samples.rings[id(bound.channels)], bound.plot
        values = [rings[name].numpy() for name in bound.names]
        newest = samples.rows - 1
        if isinstance(plot, ImageCfg):
            return image(values[0][newest % 2], plot.value_range)
        if isinstance(plot, VectorsCfg):
            return vectors(values[0][newest % 2], values[1][newest % 2], plot.axes)
        count = min(rows_of(plot, self._every), samples.rows)
        index = np.arange(samples.rows - count, samples.rows)
        y = [value[index % len(value)].reshape(count, -1) for value in values]
        steps = samples.steps[index % len(samples.steps)]
        goes_on = np.diff(steps) == self._every
        taken = rings.get(_TAKEN)
        if taken is not None:
            goes_on &= np.diff(taken.numpy()[index % len(taken)]) == self._every
        x = steps * self._env.step_dt if self._x == "seconds" else steps.astype(np.float64)
        all_y = np.concatenate(y, axis=1).T.astype(np.float64)
        return lines(x, all_y, np.flatnonzero(~goes_on) + 1, plot.log)
