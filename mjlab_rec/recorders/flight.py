"""The flight recorder: keeps the last steps in memory, and writes them if something goes wrong."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
import torch

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import ChannelSpec, Episode, RunInfo
from mjlab_rec.data.staging import torch_dtype
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.channels import Channel, provide_final_obs, resolve_channels
from mjlab_rec.recorders.counters import EpisodeCounters
from mjlab_rec.recorders.rows import Lanes, Parts, RowReader
from mjlab_rec.recorders.shutdown import close_at_exit, closed
from mjlab_rec.recorders.watch import Watch
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

_ROWS = "rollout.npz"


class FlightRecorder(RecorderTerm):
    """Keeps the last steps on the device, and writes a folder for each thing that goes wrong.

    A dump is ``<path>/<task>-step-<N>-<reason>``, with the rows in ``rollout.npz``, which
    ``open_rollouts`` reads, the reason in ``reason.json`` and the model in ``model.mjb``. The last
    row is what the next step would have started from: what came of it is NaN (or 0) there.

    Conditions are looked at without making a GPU wait, so that a dump may come a few steps late;
    the steps that led to it are still there.
    """

    cfg: FlightRecorderCfg

    def __init__(self, cfg: FlightRecorderCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        cfg.check()
        self.folders: list[Path] = []
        """The dumps so far."""
        self._sources = resolve_channels(env, cfg.channels)
        if any(source.when == "next" for source in self._sources):
            provide_final_obs(env)
        known = list(env.termination_manager.active_terms)
        for name in cfg.on_terminations:
            if name not in known:
                raise ValueError(
                    f"{type(cfg).__name__}.on_terminations: there is no termination term {name!r}."
                    f" {nearest(name, known)}"
                )
        self.draws_random_numbers = any(isinstance(channel, Channel) for channel in cfg.channels)
        self._lanes = Lanes(range(env.num_envs), env.num_envs, str(env.device))
        self._ready = False  # Whether the ring continues from the step before.
        self._mid_step = False
        self._dumped: BaseException | None = None
        # In a notebook it may be there since long before this environment.
        self._old_error = getattr(sys, "last_value", None)

    # -- what the environment calls ----------------------------------------------------------------

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """The last step of some episodes: read what the reset is about to wipe out."""
        if self._ready:
            self._after()
        self._mid_step = True

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """New episodes begin, after a step that ended some or because the user says so."""
        if self._ready:
            self._counters.restart(env_ids)
            if not self._mid_step:
                self._look_ahead()
        elif not self._mid_step:
            self._prepare()

    def record_post_step(self) -> None:
        """A row is complete; see whether something is wrong."""
        was_reset, self._mid_step = self._mid_step, False
        if not self._ready:
            self._prepare()
            return
        if not was_reset:
            self._after()
        self._reader.complete(self._ring, self._row, was_reset)
        self._watch.after(self._ring, self._row)
        self._rows += 1
        self._look_ahead()
        for reason, step, env_ids in self._watch.news():
            self._dump(reason, {"step": step}, env_ids)

    def record_exception(self, error: BaseException) -> None:
        """``step()`` fails: write what led to it. A Ctrl-C is no failure."""
        self._dump_error("exception-in-step", error)
        if self._mid_step:
            # The row was being read; what comes now does not follow the one before it.
            self._ready = self._mid_step = False

    def close(self) -> None:
        """Write what led to an error of the caller's, if one is why the environment closes."""
        closed(self)
        last = getattr(sys, "last_value", None)
        error = sys.exc_info()[1] or (None if last is self._old_error else last)
        if error is not None:
            self._dump_error("exception", error)

    # -- what the user may call --------------------------------------------------------------------

    def start(self) -> None:
        """Go on; what was not seen in the meantime leaves no gap, since the past is forgotten."""
        if self.state != "recording":
            self._ready = False
        super().start()

    @property
    def files(self) -> list[Path]:
        """The rows of each dump, for ``open_rollouts``."""
        return [folder / _ROWS for folder in self.folders]

    def dump(self, reason: str = "manual") -> Path | None:
        """Write the last steps of all environments now; None if there were max_dumps already."""
        return self._dump(reason, {})

    # -- rows --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Begin an empty ring."""
        env = self._env
        if not hasattr(self, "_ring"):
            self._reader = RowReader(env, self._sources, self._lanes, chain=False, dtype=None)
            self._ring = self._allocate(self._reader.specs)
            self._watch = Watch(env, self._reader.specs, self.cfg.on_nan, self.cfg.on_terminations)
            close_at_exit(self)
        self._counters = EpisodeCounters(env, self._lanes, None, sums=False)
        self._rows = 0
        self._ready = True
        self._look_ahead()

    def _allocate(self, specs: Sequence[ChannelSpec]) -> Parts:
        # One slot more than rows: what the next step starts from is read ahead.
        size = (self.cfg.steps + 1, self.num_envs)
        ring = {
            f"/{spec.name}": torch.zeros(
                *size, *spec.shape, dtype=torch_dtype(spec.dtype), device=self.device
            )
            for spec in specs
        }
        kinds = {"episode": torch.int32, "taken": torch.int32, "return": torch.float32}
        kinds |= {"terminated": torch.bool, "truncated": torch.bool}
        for name, dtype in kinds.items():
            ring[name] = torch.zeros(size, dtype=dtype, device=self.device)
        return ring

    @property
    def _row(self) -> int:
        return self._rows % (self.cfg.steps + 1)

    def _after(self) -> None:
        """A step has been taken: read what came of it."""
        env, ring, row = self._env, self._ring, self._row
        self._counters.add_step()
        self._reader.after(ring, row)
        self._counters.write_totals({"total": ring["return"][row]})
        ring["terminated"][row].copy_(env.reset_terminated)
        ring["truncated"][row].copy_(env.reset_time_outs)

    def _look_ahead(self) -> None:
        """Read what the next step starts from."""
        ring, row = self._ring, self._row
        self._step = self._env.common_step_counter
        self._reader.before(ring, row)
        ring["episode"][row].copy_(self._counters.episode)
        ring["taken"][row].copy_(self._counters.length)
        self._watch.before(ring, row, self._step)

    # -- dumps -------------------------------------------------------------------------------------

    def _dump_error(self, reason: str, error: BaseException) -> None:
        """Write what led to an error, once however often it is seen."""
        if self.cfg.on_exception and isinstance(error, Exception) and error is not self._dumped:
            self._dumped = error
            self._dump(reason, {"error": "".join(traceback.format_exception(error))})

    def _dump(
        self, reason: str, details: dict[str, Any], env_ids: Sequence[int] | None = None
    ) -> Path | None:
        if not self._ready or len(self.folders) >= self.cfg.max_dumps:
            return None
        description = about(self._env)
        folder = _new_folder(
            Path(self.cfg.path), f"{description['task']}-step-{self._step}-{reason}"
        )
        self.folders.append(folder)
        ids = list(range(self.num_envs)) if env_ids is None else list(env_ids)
        details = {"reason": reason, "dumped_at_step": self._step, **details, "envs": ids}
        (folder / "reason.json").write_text(json.dumps(details, indent=2), encoding="utf-8")
        mujoco.mj_saveModel(self._env.sim.mj_model, str(folder / "model.mjb"), None)
        self._write_rows(folder, {**description, "flight": details}, ids)
        logger.warning("Flight recorder: %s; the last steps are in %s", reason, folder)
        return folder

    def _write_rows(self, folder: Path, description: dict[str, Any], env_ids: list[int]) -> None:
        from mjlab_rec.data.formats.npz import NpzWriter

        info = RunInfo(
            channels=self._reader.specs,
            envs=tuple(range(self.num_envs)),
            step_dt=self._env.step_dt,
            about=description,
            attachments={"model.mjb": (folder / "model.mjb").read_bytes()},
        )
        writer = NpzWriter(info, WriterOptions(path=str(folder / _ROWS)))
        try:
            rows = self._rows_of(env_ids)
            for i, env_id in enumerate(env_ids):
                for episode in self._episodes({k: v[:, i] for k, v in rows.items()}, env_id):
                    writer.write_episode(episode)
        finally:
            writer.close()

    def _rows_of(self, env_ids: list[int]) -> dict[str, np.ndarray]:
        """The ring from the oldest row to the one read ahead, on the host: (rows, envs, ...)."""
        size = self.cfg.steps + 1
        count = min(self._rows, self.cfg.steps) + 1
        order = [(self._rows + 1 - count + i) % size for i in range(count)]
        at = torch.tensor(order, device=self.device)
        ids = torch.tensor(env_ids, device=self.device)
        rows = {
            name: ring.index_select(0, at).index_select(1, ids).cpu().numpy()
            for name, ring in self._ring.items()
        }
        for spec in self._reader.specs:
            if spec.when == "after":
                rows[f"/{spec.name}"][-1] = np.nan if spec.dtype.kind == "f" else 0
        rows["terminated"][-1] = rows["truncated"][-1] = False
        return rows

    def _episodes(self, rows: dict[str, np.ndarray], env_id: int) -> list[Episode]:
        """What the ring holds of an environment's episodes, in order."""
        number, count = rows["episode"], len(rows["episode"])
        starts = [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), count]
        episodes = []
        for first, end in zip(starts, starts[1:], strict=False):
            running = end == count  # Its last row is the one read ahead.
            done = end - 1 - running  # Its last row with a result; before first if there is none.
            has_result = done >= first
            episodes.append(
                Episode(
                    env=env_id,
                    number=int(number[first]),
                    start=self._step - (count - 1 - first),
                    length=int(rows["taken"][end - 1]) + (not running),
                    total=float(rows["return"][done]) if has_result else 0.0,
                    recorded=float("nan"),
                    partial=int(rows["taken"][first]) > 0,
                    terminated=bool(rows["terminated"][done]) and has_result,
                    truncated=bool(rows["truncated"][done]) and has_result,
                    success=None,
                    arrays={
                        **{k[1:]: v[first:end] for k, v in rows.items() if k.startswith("/")},
                        "step": rows["taken"][first:end],
                    },
                )
            )
        return episodes


@dataclass(kw_only=True)
class FlightRecorderCfg(RecorderTermCfg):
    """Configuration of ``FlightRecorder``."""

    func: type = FlightRecorder

    path: str = "flight"
    """Folder for the folders of the dumps."""

    channels: tuple[str | Channel, ...] = (
        *("obs", "state", "action", "reward", "terminated", "truncated"),
    )
    """What to keep of every step."""

    steps: int = 200
    """How many of the last steps to keep, on the environment's device."""

    on_terminations: tuple[str, ...] = ()
    """Names of termination terms that cause a dump of the environments they end."""

    on_nan: bool = True
    """Dump the environments in which a channel becomes NaN or infinite."""

    on_exception: bool = True
    """Dump all environments on an error in ``step()``, or if an error elsewhere closes the
    environment."""

    max_dumps: int = 5
    """Dumps at most, whatever happens."""

    def check(self) -> None:
        """Say what is wrong with the values, if anything is."""
        for name in ("steps", "max_dumps"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{type(self).__name__}.{name} must be at least 1, got {getattr(self, name)}."
                )
        if not self.channels or not self.path:
            raise ValueError(f"{type(self).__name__} needs a path and at least one channel.")


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that is not there yet, numbered if need be."""
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
