"""The rollout recorder: true rows of every environment, at full speed, into any format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
import torch

from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.pipeline import Pipeline
from mjlab_rec.data.schema import RunInfo
from mjlab_rec.data.staging import Shape, Staging, rows_for
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg import RolloutRecorderCfg, typed
from mjlab_rec.recorders.channels import (
    Channel,
    model_fields_in_flux,
    model_sources,
    provide_final_obs,
    resolve_channels,
)
from mjlab_rec.recorders.counters import EpisodeCounters
from mjlab_rec.recorders.rows import Lanes, RowReader, gather
from mjlab_rec.recorders.shutdown import close_at_exit, closed
from mjlab_rec.recorders.stretches import Stretches

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


class RolloutRecorder(RecorderTerm):
    """Writes a row per environment and step: what the policy saw, did and got, and what came of it.

    A row begins when its observation comes to exist and is complete at the end of the step that
    answers it. Values stay on the device until a block of rows is full; another thread writes.

    Subclasses set ``format``, or override ``channels`` to record more.
    """

    cfg: RolloutRecorderCfg
    cfg_type: ClassVar[type[RolloutRecorderCfg]] = RolloutRecorderCfg
    format: ClassVar[str] = "hdf5"
    """Name of the file format, unless the cfg names another."""
    sums_reward_terms: ClassVar[bool] = False
    """Whether ends of episodes carry the sum of each reward term."""

    rows_unit = "steps"

    # Episodes are counted also while no rows are recorded.
    hooks_when_idle = (
        *("record_pre_reset", "record_post_reset", "record_post_step", "record_exception"),
    )

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(typed(cfg, self.cfg_type), env)
        self.cfg.check()
        self.rows = 0
        """Recorded steps, each of all environments."""
        self._past = 0, 0, 0.0  # Bytes, drops and seconds of recordings that are finished.
        self._every = self.cfg.stride(env.step_dt)
        self._lanes = Lanes(self.cfg.env_ids(env.num_envs), env.num_envs, str(env.device))
        self._sources = resolve_channels(env, self.channels())
        self._stretches = Stretches(self.cfg.trigger, self.cfg.length, env)
        self._success = _success_of(self.cfg.success, env)
        if any(source.when == "next" for source in self._sources):
            provide_final_obs(env)
        own = any(isinstance(channel, Channel) for channel in self.channels())
        self.draws_random_numbers = own or callable(self.cfg.success) or bool(self.cfg.trigger)
        self._everyone = torch.arange(env.num_envs, device=env.device)
        self._on = False  # Whether the step to come is recorded, if it is one of every so many.
        self._due = False  # Whether the step being taken is recorded.
        self._last_step = -1  # The last step recorded.
        self._staging: Staging | None = None
        self._written: list[Path] = []  # Files of recordings that were stopped.
        self._episodes = 0
        self._mid_step = False  # Whether this step has had its pre-reset.
        if not self.cfg.autostart:
            super().stop()

    def channels(self) -> Sequence[str | Channel]:
        """What to record; a subclass may add to it."""
        return self.cfg.channels

    def writer(self) -> Callable[..., Any]:
        """What makes the writer, given a RunInfo and WriterOptions."""
        return writer_class(self.cfg.format or self.format)

    # -- what the environment calls ----------------------------------------------------------------

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """The last step of some episodes: read what the reset is about to wipe out."""
        if self._staging is not None:
            self._after()
            self._end(env_ids, in_row=self._due)
        self._mid_step = True

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """New episodes begin, after a step that ended some or because the user says so."""
        if self._staging is None:
            if not self._mid_step and self.state == "recording":
                self._prepare()
            return
        if self._mid_step:
            self._begin(env_ids)
        else:
            self._end(env_ids, in_row=False)
            self._begin(env_ids)
            self._look_ahead()

    def record_post_step(self) -> None:
        """A row is complete, and another one begins."""
        was_reset, self._mid_step = self._mid_step, False
        staging = self._staging
        if staging is None:
            if self.state == "recording":
                self._prepare()
            return
        if not was_reset:
            self._after()
        if self._due:
            self._reader.complete(staging.parts, staging.row, was_reset)
            self._last_step = self._env.common_step_counter - 1
            staging.commit(self._last_step)
            self.rows += 1
        self._look_ahead()

    def record_exception(self, error: BaseException) -> None:
        """A step failed: leave it out, and go on after the next one if there is one."""
        if self._staging is not None and not self._staging.failed:
            self._turn_block()  # Ends noted for a row that was not completed do not count.
            self._on = self._due = self._mid_step = False

    def close(self) -> None:
        """Write what is left and finish the files."""
        self._finish()

    # -- what the user may call --------------------------------------------------------------------

    @torch.no_grad()
    def start(self) -> None:
        """Record from the next step on: go on after ``pause()``, or begin a new recording."""
        super().start()
        if self._mid_step or not self._env.obs_buf:
            return  # The running step, or the first reset, will see to it.
        if self._staging is None:
            self._prepare()
        elif not self._on:
            self._look_ahead()

    def pause(self) -> None:
        """Leave out the steps from the next one on, until ``start()``; the file stays open."""
        super().pause()
        self._on = False

    def stop(self) -> None:
        """Finish the file. A later ``start()`` begins another, with a number in its name."""
        super().stop()
        self._finish()

    def fire(self) -> None:
        """Begin to record with the next step, if the trigger is ``manual()``."""
        self._stretches.fire()

    def flush(self) -> None:
        """Wait until everything recorded so far is written."""
        if self._staging is not None:
            self._turn_block()
            self._staging.flush()

    @property
    def files(self) -> list[Path]:
        """What was written so far."""
        return self._written + ([] if self._staging is None else self._pipeline.files)

    @property
    def nbytes(self) -> int:
        """Bytes written so far, also to recordings that were stopped."""
        return self._past[0] + (0 if self._staging is None else self._pipeline.nbytes)

    @property
    def dropped_rows(self) -> int:
        """Recorded steps that were lost because the disk could not keep up."""
        return self._past[1] + (0 if self._staging is None else self._staging.dropped_rows)

    @property
    def stalled_s(self) -> float:
        """Seconds for which the simulation waited for the disk."""
        return self._past[2] + (0.0 if self._staging is None else self._staging.stalled_s)

    # -- rows and episodes -------------------------------------------------------------------------

    def _after(self) -> None:
        """A step has been taken: count it, and read what came of it."""
        staging, env = self._staging, self._env
        assert staging is not None
        staging.check()
        self._due = self._on and (env.common_step_counter - 1) % self._every == 0
        if self._due and (staging.full or not staging.has_room(env.num_envs)):
            self._turn_block()
        if self._due and staging.row == 0:
            self._counters.write_header(staging.parts)
        self._counters.add_step()
        if self._due:
            self._counters.add_rows(None)
            self._reader.after(staging.parts, staging.row)

    def _look_ahead(self) -> None:
        """Decide whether the next step is recorded, and read what it starts from."""
        staging, step = self._staging, self._env.common_step_counter
        assert staging is not None
        was_on = self._on
        self._on = self.state == "recording" and not self._full and self._stretches.want(step)
        if self._on and not was_on:
            self._resume(staging)
        due = self._on and step % self._every == 0
        if due or (was_on and self._reader.chains):
            self._reader.before(staging.parts, staging.row)
        if due and self._stretches.per_env:
            active = self._stretches.active(step, self._counters.length)
            staging.parts["active"][staging.row].copy_(self._lanes.select(active))

    def _end(self, env_ids: torch.Tensor, in_row: bool) -> None:
        """Episodes are over, with the row that is being recorded or with the one before it."""
        staging = self._staging
        assert staging is not None
        over = self._full and self._env.common_step_counter > self._last_step + 1 and not in_row
        if over or (not self._on and staging.row == 0):
            return  # Their last step is not recorded.
        if not staging.has_room(len(env_ids)):
            self._turn_block()
        row = staging.row if in_row else staging.row - 1
        at = staging.add_ends(len(env_ids), row, self._env.common_step_counter)
        self._counters.write_ends(staging.parts, at, env_ids)
        if in_row:
            self._reader.finals(staging.parts, at, env_ids)
        else:
            self._reader.finals_from_row(staging.parts, at, env_ids, staging.row)
        if self.cfg.max_episodes is not None:
            real = self._counters.length.index_select(0, env_ids) > 0
            self._episodes += int((real & self._lanes.has(env_ids)).sum())

    def _begin(self, env_ids: torch.Tensor) -> None:
        """Episodes begin."""
        self._counters.restart(env_ids)
        self._stretches.begin(env_ids, self._counters.episode)
        self._write_model(env_ids)

    def _write_model(self, env_ids: torch.Tensor) -> None:
        """Write the per-world model fields that these episodes begin with."""
        staging = self._staging
        assert staging is not None
        if not self._model_fields:
            return
        if not self._on:
            self._model_is_known = False
            return
        if not staging.has_room(len(env_ids)):
            self._turn_block()
        at = staging.add_models(len(env_ids))
        staging.parts["model/env"][at] = env_ids
        gather(self._counters.episode, env_ids, staging.parts["model/episode"][at])
        for name in self._model_fields:
            field = getattr(self._env.sim.model, name)
            gather(field, env_ids, staging.parts["model/=" + name][at])

    def _turn_block(self) -> None:
        """Hand the running block over and begin another."""
        staging = self._staging
        assert staging is not None
        self._counters.write_totals(staging.parts)
        kept = staging.hand_over()
        if not kept:
            self._write_model(self._everyone)

    def _resume(self, staging: Staging) -> None:
        """Begin to record rows, possibly after some were left out."""
        if staging.row > 0:
            self._turn_block()
        if not self._model_is_known:
            self._model_is_known = True
            self._write_model(self._everyone)

    @property
    def _full(self) -> bool:
        """Whether as much was recorded as is wanted."""
        cfg = self.cfg
        return (
            (cfg.max_steps is not None and self.rows >= cfg.max_steps)
            or (cfg.max_episodes is not None and self._episodes >= cfg.max_episodes)
            or (cfg.max_bytes is not None and self._pipeline.nbytes >= cfg.max_bytes)
        )

    def _finish(self) -> None:
        """End the recording."""
        closed(self)
        staging, self._staging = self._staging, None
        if staging is None or staging.forked:
            return
        try:
            self._counters.write_totals(staging.parts)
            staging.finish()
        finally:
            try:
                self._pipeline.close()
            finally:
                self._written += self._pipeline.files
                nbytes, dropped, stalled = self._past
                self._past = (
                    nbytes + self._pipeline.nbytes,
                    dropped + staging.dropped_rows,
                    stalled + staging.stalled_s,
                )

    # -- getting ready -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Open the file and allocate the blocks, once all values can be read."""
        cfg, env = self.cfg, self._env
        dtype = None if cfg.dtype is None else np.dtype(cfg.dtype)
        sources = self._sources
        self._model_fields: tuple[str, ...] = ()
        attachments = {}
        if any(source.name == "state" for source in sources):
            changing = model_fields_in_flux(env)
            self._model_fields = tuple(
                name
                for name in sorted(set(env.sim.expanded_fields) - set(changing))
                if getattr(env.sim.model, name).numel()
            )
            sources = [*sources, *model_sources(env, changing)]
            attachments["model.mjb"] = _compiled(env.sim.mj_model)
        self._reader = RowReader(env, sources, self._lanes, self._every == 1, dtype)
        info = RunInfo(
            channels=self._reader.specs,
            envs=self._lanes.env_ids,
            step_dt=env.step_dt,
            every=self._every,
            about=about(env),
            attachments=attachments,
        )
        self._counters = EpisodeCounters(
            env, self._lanes, self._success, sums=self.sums_reward_terms
        )
        num_blocks = cfg.num_blocks or 3
        rows = cfg.block_steps or rows_for(
            info.stored, self._lanes.count, num_blocks, cfg.memory_bytes
        )
        options = WriterOptions(
            path=cfg.path,
            # A second recording of this run stands beside the first.
            if_exists="number" if self._written and cfg.if_exists != "append" else cfg.if_exists,
            compression=cfg.compression,
            roll_over_bytes=cfg.roll_over_bytes,
            block_rows=rows,
        )
        writer = self.writer()
        self._pipeline = Pipeline(
            writer,
            info,
            options,
            keep=cfg.keep,
            by_episode=getattr(writer, "by_episode", False) or self._stretches.per_env,
            max_episodes=cfg.max_episodes,
        )
        try:
            self._staging = Staging(
                info,
                Shape(
                    rows=rows,
                    # So many that a block is rarely cut short, so few that they are no burden.
                    ends=env.num_envs * (2 + rows // 8),
                    values=self._counters.sum_names,
                    model={
                        name: tuple(getattr(env.sim.model, name).shape[1:])
                        for name in self._model_fields
                    },
                    active=self._stretches.per_env,
                ),
                env.device,
                num_blocks,
                cfg.overflow,
                self._pipeline.write,
                type(self).__name__,
            )
        except BaseException:
            self._pipeline.close()
            raise
        close_at_exit(self)
        self._on = self._due = False
        self._model_is_known = False
        self._stretches.begin(self._everyone, self._counters.episode)
        self._look_ahead()


def _success_of(
    success: str | Callable[[Any], torch.Tensor] | None, env: Any
) -> Callable[[], torch.Tensor] | None:
    """What tells which environments have succeeded."""
    manager = env.termination_manager
    if callable(success):
        return lambda: success(env)
    if success is None and "success" not in manager.active_terms:
        return None
    name = "success" if success is None else success
    manager.get_term(name)  # Complains about unknown names.
    return lambda: manager.get_term(name)


def _compiled(model: mujoco.MjModel) -> bytes:
    """The compiled model as the contents of an MJB file."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()
