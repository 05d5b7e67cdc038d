"""The flight recorder: keeps the last steps in memory and writes them if something goes wrong."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
import torch

from mjlab_rec.data.block_memory import torch_dtype
from mjlab_rec.data.files import local_path
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Episode, RunInfo
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg_fields import CheckedCfg, Count, typed
from mjlab_rec.recorders.channels import Channel, needs_final_obs, resolve_channels
from mjlab_rec.recorders.data_functions import data_channels
from mjlab_rec.recorders.failures import NAN, FailureDetector
from mjlab_rec.recorders.row_clock import RowClock
from mjlab_rec.recorders.rows import EnvSelection, RowReader
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.utils.nan_guard import NanGuardCfg

logger = logging.getLogger(__name__)

_ROWS = "rollout.npz"
_MODEL = "model.mjb"


class FlightRecorder(RowClock):
    """Keeps the last steps on the device and writes them to a folder on each failure.

    A dump is ``<path>/<task>-step-<N>-<reason>``: the rows in ``rollout.npz``, for
    ``open_rollouts``, the reason in ``reason.json`` and the model in ``model.mjb``. The last row
    holds the start of the next step; its results are NaN (or 0).

    Conditions are checked without making a GPU wait, so a dump may come a few steps late; it still
    contains the steps that led to the failure.
    """

    cfg: FlightRecorderCfg
    cfg_type: ClassVar[type[RecorderTermCfg]]

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = typed(cfg, self.cfg_type)
        cfg = self.cfg
        super().__init__(cfg, env)
        self.folders: list[Path] = []
        """Folders of the dumps so far."""
        self._sources = resolve_channels(env, cfg.channels)
        self.use_probes(self._sources)
        self.needs_final_obs = needs_final_obs(env, self._sources)
        known = list(env.termination_manager.active_terms)
        for name in cfg.on_terminations:
            if name not in known:
                raise ValueError(
                    f"{type(cfg).__name__}.on_terminations: there is no termination term {name!r}."
                    f" {nearest(name, known)}"
                )
        self.draws_random_numbers = any(isinstance(channel, Channel) for channel in cfg.channels)
        self._dumped: BaseException | None = None
        # In a notebook it may be older than this environment.
        self._old_error = getattr(sys, "last_value", None)

    def record_exception(self, error: BaseException) -> None:
        """``step()`` failed: write the steps before it. A Ctrl-C is not a failure."""
        self._dump_error("exception-in-step", error)
        super().record_exception(error)

    @property
    def files(self) -> list[Path]:
        """The file of rows of each dump, for ``open_rollouts``."""
        return [folder / _ROWS for folder in self.folders]

    def dump(self, reason: str = "manual") -> Path | None:
        """Write the last steps of all environments now; None if max_dumps is reached."""
        return self._dump(reason, {})

    # -- moments -----------------------------------------------------------------------------------

    def on_open(self) -> None:
        """Allocate the ring buffer."""
        env = self._env
        selection = EnvSelection(range(env.num_envs), env.num_envs, str(env.device))
        self._reader = RowReader(env, self._sources, selection, chain=False, dtype=None)
        # One slot more than rows: the values at the next step's start are read in advance.
        size = (self.cfg.steps + 1, self.num_envs)

        def ring(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.zeros(*size, *shape, dtype=dtype, device=self.device)

        specs = self._reader.specs
        self._ring = {spec.name: ring(torch_dtype(spec.dtype), *spec.shape) for spec in specs}
        self._episode, self._taken = ring(torch.int32), ring(torch.int32)
        self._return = ring(torch.float64)
        self._terminated, self._truncated = ring(torch.bool), ring(torch.bool)
        self._failures = FailureDetector(env, specs, self.cfg.on_nan, self.cfg.on_terminations)

    def on_rows_start(self) -> None:
        """Empty the ring buffer, so that steps missed in the meantime leave no gap in it."""
        self._count = 0

    def on_row_begins(self, has_row: bool) -> None:
        """Read the values at the next step's start."""
        row, counters = self._row, self.counters
        self._step = self._env.common_step_counter
        self._reader.before(self._ring, row)
        self._episode[row].copy_(counters.episode)
        self._taken[row].copy_(counters.length)
        self._failures.before(self._ring, row, self._step)

    def on_row_taken(self) -> None:
        """Read the action's results."""
        env, row = self._env, self._row
        self._reader.after(self._ring, row)
        self._return[row].copy_(self.counters.total)
        self._terminated[row].copy_(env.reset_terminated)
        self._truncated[row].copy_(env.reset_time_outs)

    def on_row_complete(self, was_reset: bool) -> None:
        """The step is over; its failures are noted with the next step's start."""
        self._reader.complete(self._ring, self._row, was_reset)
        self._failures.after(self._ring, self._row)
        self._count += 1

    def record_post_step(self) -> None:
        """A step is over: dump if there is a failure."""
        super().record_post_step()
        for reason, step, env_ids in self._failures.found() if self._open else ():
            self._dump(reason, {"step": step}, env_ids)

    def on_finish(self) -> None:
        """Write the last steps if an error in the caller's code closes the environment."""
        last = getattr(sys, "last_value", None)
        error = sys.exc_info()[1] or (None if last is self._old_error else last)
        if error is not None:
            self._dump_error("exception", error)

    @property
    def _row(self) -> int:
        return self._count % (self.cfg.steps + 1)

    # -- dumps -------------------------------------------------------------------------------------

    def _dump_error(self, reason: str, error: BaseException) -> None:
        """Write the steps that led to an error, once per error."""
        if self.cfg.on_exception and isinstance(error, Exception) and error is not self._dumped:
            self._dumped = error
            self._dump(reason, {"error": "".join(traceback.format_exception(error))})

    def _dump(
        self, reason: str, details: dict[str, Any], env_ids: Sequence[int] | None = None
    ) -> Path | None:
        if not self._on or len(self.folders) >= self.cfg.max_dumps:
            return None
        description = about(self._env)
        folder = _new_folder(
            local_path(self.cfg.path), f"{description['task']}-step-{self._step}-{reason}"
        )
        self.folders.append(folder)
        ids = list(range(self.num_envs)) if env_ids is None else list(env_ids)
        if self.cfg.max_envs is not None and len(ids) > self.cfg.max_envs:
            details["all_envs"] = ids
            ids = ids[: self.cfg.max_envs]
        rows = self._rows_of(ids)
        if reason == NAN:
            details["channels"] = self._not_finite(rows)
        details = {"reason": reason, "dumped_at_step": self._step, **details, "envs": ids}
        (folder / "reason.json").write_text(json.dumps(details, indent=2), encoding="utf-8")
        if hasattr(self._env.sim, "mj_model"):
            mujoco.mj_saveModel(self._env.sim.mj_model, str(folder / _MODEL), None)
        self._write_rows(folder, {**description, "flight": details}, ids, rows)
        where = ", ".join(details.get("channels", ()))
        told = f"{reason} in {where}" if where else reason
        logger.warning("Flight recorder: %s; the last steps are in %s", told, folder)
        return folder

    def _write_rows(
        self, folder: Path, description: dict[str, Any], env_ids: list[int], rows: _RingRows
    ) -> None:
        from mjlab_rec.data.formats.npz import NpzWriter

        model = folder / _MODEL
        info = RunInfo(
            channels=self._reader.specs,
            envs=tuple(range(self.num_envs)),
            step_dt=self._env.step_dt,
            about=description,
            attachments={_MODEL: model.read_bytes()} if model.exists() else {},
        )
        writer = NpzWriter(info, WriterOptions(path=str(folder / _ROWS)))
        try:
            for env_index, env_id in enumerate(env_ids):
                for episode in self._episodes(rows.of(env_index), env_id):
                    writer.write_episode(episode)
        finally:
            writer.close()

    def _rows_of(self, env_ids: list[int]) -> _RingRows:
        """The ring buffer on the host, from the oldest row to the one read in advance."""
        size = self.cfg.steps + 1
        count = min(self._count, self.cfg.steps) + 1
        order = [(self._count + 1 - count + i) % size for i in range(count)]
        at = torch.tensor(order, device=self.device)
        ids = torch.tensor(env_ids, device=self.device)

        def host(ring: torch.Tensor) -> np.ndarray:
            return ring.index_select(0, at).index_select(1, ids).cpu().numpy()

        channels = {name: host(ring) for name, ring in self._ring.items()}
        for spec in self._reader.specs:
            if spec.when == "after":
                channels[spec.name][-1] = np.nan if spec.dtype.kind == "f" else 0
        terminated, truncated = host(self._terminated), host(self._truncated)
        terminated[-1] = truncated[-1] = False
        return _RingRows(
            channels=channels,
            episode=host(self._episode),
            taken=host(self._taken),
            total=host(self._return),
            terminated=terminated,
            truncated=truncated,
        )

    def _not_finite(self, rows: _RingRows) -> list[str]:
        """Names of the channel elements that are NaN or infinite in some row."""
        found = []
        for spec in self._reader.specs:
            if spec.dtype.kind == "f":
                # The last row has no results yet.
                values = rows.channels[spec.name][: None if spec.when == "before" else -1]
                bad = np.atleast_1d(~np.isfinite(values).reshape(-1, spec.size).all(axis=0))
                found += [name for name, is_bad in zip(spec.columns(), bad, strict=True) if is_bad]
        return found

    def _episodes(self, rows: _RingRows, env_id: int) -> list[Episode]:
        """An environment's episodes in the ring buffer, in order."""
        # Steps that only reset the environment are in no episode.
        total, at = len(rows.taken), np.flatnonzero(rows.taken >= 0)
        ahead = rows.taken[-1] >= 0
        rows = rows.chosen(at)
        number, count = rows.episode, len(rows.episode)
        starts = [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), count]
        episodes = []
        for first, end in zip(starts, starts[1:], strict=False):
            running = ahead and end == count  # Its last row is the one read in advance.
            done = end - 1 - running  # Its last row with a result; before first if there is none.
            has_result = done >= first
            episodes.append(
                Episode(
                    env=env_id,
                    number=int(number[first]),
                    start=self._step - (total - 1 - int(at[first])),
                    # Includes the next step, of which only the start is known.
                    length=int(rows.taken[end - 1]) + 1,
                    total=float(rows.total[done]) if has_result else 0.0,
                    recorded=float("nan"),
                    terminated=bool(rows.terminated[done]) and has_result,
                    truncated=bool(rows.truncated[done]) and has_result,
                    success=None,
                    partial=int(rows.taken[first]) > 0,
                    arrays={
                        **{name: values[first:end] for name, values in rows.channels.items()},
                        "step": rows.taken[first:end],
                    },
                )
            )
        return episodes


@dataclass(kw_only=True)
class _RingRows:
    """Rows of the ring buffer ordered by time, the last one without results: (rows, envs, ...)."""

    channels: dict[str, np.ndarray]
    episode: np.ndarray
    taken: np.ndarray
    total: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def of(self, env_index: int) -> _RingRows:
        """One environment's (rows, ...)."""
        return self._each(lambda values: values[:, env_index])

    def chosen(self, at: np.ndarray) -> _RingRows:
        """Some of the rows."""
        return self._each(lambda values: values[at])

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> _RingRows:
        channels = {name: change(values) for name, values in self.channels.items()}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "channels"}
        return _RingRows(
            channels=channels, **{name: change(values) for name, values in rest.items()}
        )


@dataclass(kw_only=True)
class FlightRecorderCfg(CheckedCfg):
    """Configuration of ``FlightRecorder``."""

    func: type = FlightRecorder

    path: str = "flight"
    """Folder in which each dump gets a folder."""

    channels: tuple[str | Channel, ...] = (
        *("obs", "state", "action", "reward", "terminated", "truncated"),
    )
    """Channels to keep of every step."""

    steps: Count = 200
    """Number of last steps to keep, on the environment's device."""

    on_terminations: tuple[str, ...] = ()
    """Termination terms that trigger a dump of the environments they end."""

    on_nan: bool = True
    """Dump the environments in which a channel becomes NaN or infinite."""

    on_exception: bool = True
    """Dump all environments on an error in ``step()``, or if an error elsewhere closes the
    environment."""

    max_dumps: Count = 5
    """Maximum number of dumps."""

    max_envs: Count | None = None
    """Maximum number of environments in a dump; None means all that are concerned."""

    def with_data(self, data: Any, env: Any) -> FlightRecorderCfg:
        """Return a copy that keeps this, as given to ``start_recording``."""
        return replace(self, channels=data_channels(data, env))

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if not self.channels or not self.path:
            raise ValueError(f"{type(self).__name__} needs a path and at least one channel.")


FlightRecorder.cfg_type = FlightRecorderCfg


def nan_guard_recorder(cfg: NanGuardCfg, terminations: Sequence[str]) -> FlightRecorderCfg:
    """The flight recorder that does what a NaN guard is asked for.

    Args:
        cfg: The NaN guard.
        terminations: Termination terms that end the episodes of worlds that diverged.
    """
    return FlightRecorderCfg(
        path=cfg.output_dir,
        channels=("state", "action"),
        steps=cfg.buffer_size,
        on_terminations=tuple(terminations),
        on_exception=False,
        max_dumps=1,
        max_envs=cfg.max_envs_to_dump,
    )


def _new_folder(parent: Path, name: str) -> Path:
    """Create a new folder, numbered if the name is taken."""
    plain = re.sub(r"[^\w.-]+", "-", name)
    parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        folder = parent / (f"{plain}_{number}" if number else plain)
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
