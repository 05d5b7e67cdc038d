"""The transition recorder: exact rows of the chosen channels, and the ends of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np
import torch

from mjlab_rec.data.block_memory import BlockMemory, BlockShape, EndsMemory
from mjlab_rec.data.schema import Block, RunInfo
from mjlab_rec.data.staging import RowStore, Staging, rows_for
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg_fields import typed
from mjlab_rec.recorders.channels import (
    Channel,
    Source,
    model_fields_in_flux,
    model_sources,
    needs_final_obs,
    resolve_channels,
)
from mjlab_rec.recorders.counters import LateEnds, gather
from mjlab_rec.recorders.row_clock import RowClock
from mjlab_rec.recorders.rows import EnvSelection, RowReader
from mjlab_rec.recorders.success import success_of
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.cfg import TransitionRecorderCfg


class Rows:
    """The rows of one step: ``rows["reward"]`` is a tensor whose first axis is ``env_ids``.

    The tensors may be overwritten by the next step; copy what you keep.
    """

    def __init__(
        self,
        channels: dict[str, torch.Tensor],
        env_ids: torch.Tensor,
        episode: torch.Tensor,
        step: torch.Tensor,
        time: torch.Tensor,
    ) -> None:
        self._channels = channels
        self.env_ids = env_ids
        """The environments (n,) int64."""
        self.episode = episode
        """Episode number of each environment, from 0 (n,) int32."""
        self.step = step
        """Earlier steps in the episode (n,) int32."""
        self.time = time
        """Seconds since the episode began (n,) float64."""

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._channels:
            raise KeyError(f"Unknown channel '{name}'. {nearest(name, list(self._channels))}")
        return self._channels[name]

    def __len__(self) -> int:
        return len(self.env_ids)

    def keys(self) -> list[str]:
        """Names of the channels."""
        return list(self._channels)


@dataclass(kw_only=True)
class EndedEpisodes:
    """Episodes that ended, each with at least one recorded row; n of them."""

    env_ids: torch.Tensor  # (n,) int64
    episode: torch.Tensor  # (n,) int32, from 0 per environment
    length: torch.Tensor  # (n,) int32, all steps, recorded or not
    rows: torch.Tensor  # (n,) int32, recorded rows
    returns: torch.Tensor  # (n,) float64, sum of rewards; NaN: unknown
    recorded_returns: torch.Tensor  # (n,) float64, sum of the recorded rows' rewards
    terminated: torch.Tensor  # (n,) bool
    truncated: torch.Tensor  # (n,) bool
    success: torch.Tensor  # (n,) int8: 1 yes, 0 no, -1 unknown

    @property
    def cut(self) -> torch.Tensor:
        """Which episodes were neither terminated nor truncated (n,) bool."""
        return ~(self.terminated | self.truncated)

    def __len__(self) -> int:
        return len(self.env_ids)


class TransitionRecorder(RowClock):
    """Base class for custom recorders: delivers each step as exact rows.

    Override ``record`` to get the rows of every recorded step on the environment's device, and
    ``episodes_ended`` to get the results of episodes. Or override ``process`` to get whole blocks
    of rows on the host, in a separate thread, while the simulation goes on.

    A row holds what the policy saw, what it did and what followed, also for the last step of an
    episode. ``close`` is called once, after the last row.
    """

    cfg: TransitionRecorderCfg
    cfg_type: ClassVar[type[RecorderTermCfg]]
    sums_reward_terms: ClassVar[bool] = False
    """Whether episode ends include the sum of each reward term."""

    rows_unit = "steps"

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = typed(cfg, self.cfg_type)
        cfg = self.cfg
        self._selection = EnvSelection(
            self.cfg.env_ids(env.num_envs), env.num_envs, str(env.device)
        )
        channels = self.channels()
        self._sources = resolve_channels(env, channels)
        self.needs_final_obs = needs_final_obs(env, self._sources)
        own = any(isinstance(channel, Channel) for channel in channels)
        self.draws_random_numbers = own or callable(self.cfg.success) or bool(self.cfg.trigger)
        super().__init__(
            cfg,
            env,
            every=self.cfg.stride(env.step_dt),
            trigger=self.cfg.trigger,
            length=self.cfg.length,
            success=success_of(self.cfg.success, env),
            sums=self.sums_reward_terms,
            autostart=self.cfg.autostart,
        )
        self.use_probes(self._sources)
        self._in_blocks = type(self).process is not TransitionRecorder.process
        self._past = 0, 0.0  # drops and seconds of finished recordings
        self._rows_before = 0  # rows of finished recordings
        self._store: RowStore | None = None
        self._model_is_known = False

    # -- for subclasses ----------------------------------------------------------------------------

    most_block_rows = 256
    """Maximum rows per block, unless the cfg sets block_steps."""

    def channels(self) -> Sequence[str | Channel]:
        """What to record; a subclass may add to it."""
        return self.cfg.channels

    def record(self, rows: Rows) -> None:
        """Called at the end of each recorded step with the rows of the chosen environments."""

    def episodes_ended(self, ended: EndedEpisodes) -> None:
        """Called when recorded episodes have ended, after ``record`` got their last row.

        Episodes that are still running when the recording ends are passed then, as cut.
        """

    def process(self, batch: Block) -> None:
        """Called in a separate thread with each block of rows, on the host.

        If a class overrides this, ``record`` and ``episodes_ended`` are not called. The arrays are
        reused afterwards. An error is raised in the next step, and the block's rows are lost.
        """

    def begin_recording(self, info: RunInfo, block_rows: int) -> None:
        """Called when a recording begins; `info` describes the rows."""

    def end_recording(self) -> None:
        """Called when a recording has ended, after the last rows and episodes."""

    @property
    def full(self) -> bool:
        """Whether a limit of the cfg is reached."""
        most = self.cfg.max_steps
        return most is not None and self.rows - self._rows_before >= most

    @property
    def dropped_rows(self) -> int:
        """Recorded steps that were lost because writing failed or could not keep up."""
        return self._past[0] + getattr(self._store, "dropped_rows", 0)

    @property
    def stalled_s(self) -> float:
        """Seconds that the simulation waited for blocks to be processed."""
        return self._past[1] + getattr(self._store, "stalled_s", 0.0)

    # -- moments -----------------------------------------------------------------------------------

    def on_open(self) -> None:
        """Allocate the memory, now that all values can be read."""
        cfg, env = self.cfg, self._env
        dtype = None if cfg.dtype is None else np.dtype(cfg.dtype)
        sources = [*self._sources, *self.more_sources()]
        self._model_fields: tuple[str, ...] = ()
        attachments = {}
        if any(source.name == "state" for source in sources):
            changing = model_fields_in_flux(env)
            self._model_fields = tuple(
                name
                for name in sorted(set(env.sim.expanded_fields) - set(changing))
                if getattr(env.sim.model, name).numel()
            )
            sources += model_sources(env, changing)
            attachments["model.mjb"] = compiled_model(env.sim.mj_model)
            attachments |= getattr(env, "model_attachments", dict)()
        chain = self._every == 1 and self._in_blocks
        self._reader = RowReader(env, sources, self._selection, chain, dtype)
        info = RunInfo(
            channels=self._reader.specs,
            envs=self._selection.env_ids,
            step_dt=env.step_dt,
            every=self._every,
            about=about(env),
            attachments=attachments,
        )
        num_blocks = cfg.num_blocks or 3
        fitting = rows_for(info.stored, self._selection.count, num_blocks, cfg.memory_bytes)
        if cfg.block_steps is None and cfg.num_blocks is None and fitting < self.most_block_rows:
            # Writing a large block is spread over many steps, and a kill in that time loses two.
            num_blocks, fitting = 2 * num_blocks, max(1, fitting // 2)
        rows = cfg.block_steps or min(fitting, self.most_block_rows)
        shape = BlockShape(
            rows=rows if self._in_blocks else 1,
            # Enough that few blocks are cut short, at little cost.
            ends=env.num_envs * (2 + rows // 8 * self._in_blocks),
            values=self.counters.sum_names,
            model={
                name: tuple(getattr(env.sim.model, name).shape[1:]) for name in self._model_fields
            },
            active=self._windows.per_env,
        )
        self._late = LateEnds(self.counters)
        self._model_is_known = False
        self.begin_recording(info, rows)
        try:
            if self._in_blocks:
                self._store = Staging(
                    info,
                    shape,
                    env.device,
                    num_blocks,
                    cfg.overflow,
                    self.process,
                    type(self).__name__,
                    cfg.block_seconds,
                )
            else:
                memory = BlockMemory(info, shape, torch.device(env.device))
                self._store = _OneRow(info, shape, memory)
        except BaseException:
            self.end_recording()
            raise

    def more_sources(self) -> Sequence[Source]:
        """Additional sources to record, bound when a recording begins."""
        return ()

    def on_step(self, ended: torch.Tensor) -> None:
        """Make room for the step's row, and store where its episodes are."""
        store = self._store
        if store is None:
            return
        store.check()
        if not self._on:
            return
        if not store.has_room(self.num_envs):
            self._next_block()
        if store.lost:
            store.lost = False
            self.counters.lose_rows()
            self._write_model(self._all_envs)
        store.begin_step()
        if self._due and store.row == 0:
            self._write_header(store)

    def on_row_taken(self) -> None:
        """Read the action's results before a reset overwrites them."""
        self._reader.after(self._filling.memory.channels, self._filling.row)

    def on_episodes_end(self, env_ids: torch.Tensor, cut: bool, in_row: bool) -> None:
        """Store how these episodes ended."""
        store, step = self._store, self._env.common_step_counter
        if store is None:
            return
        if self._in_blocks and not self._on:
            self._late.add(env_ids, cut, step)
            return
        if not in_row and not store.has_room(len(env_ids)):
            self._next_block()
        row = store.row if in_row else store.row - 1
        begins = step if self._pending is None else step + self._pending[env_ids]
        at = store.add_ends(len(env_ids), row, begins)
        memory = store.memory
        self.counters.write_ends(memory.ends, at, env_ids, cut)
        if in_row:
            self._reader.finals(memory.finals, at, env_ids)
        else:
            ahead = memory.channels
            self._reader.finals_from_row(memory.finals, at, env_ids, ahead, store.row)
            if not self._in_blocks:
                self._deliver_ends()

    def on_episodes_begin(self, env_ids: torch.Tensor) -> None:
        """Store the model fields that these episodes begin with."""
        if self._store is not None and self._on:
            self._write_model(env_ids)
        else:
            self._model_is_known = False

    def on_row_complete(self, was_reset: bool) -> None:
        """Complete the row; without blocks, deliver it."""
        store, step = self._filling, self._env.common_step_counter - 1
        self._reader.complete(store.memory.channels, store.row, was_reset)
        self.rows += self._counts(store)
        store.commit(step)
        if not self._in_blocks:
            self._deliver_rows()
            self._deliver_ends()

    def _counts(self, store: RowStore) -> bool:
        """Whether the completed row is recorded in any environment."""
        active = self._active_in(store.row)
        if active is None or (self.cfg.max_steps is None and self._pending is None):
            return True  # Not worth waiting for the device.
        return bool(active.any())

    def _active_in(self, row: int) -> torch.Tensor | None:
        """The recorded environments that have a value in the row of this step; None: all."""
        memory = self._filling.memory
        if memory.active is not None:
            return memory.active[row]
        return None if self._active is None else self._selection.select(self._active)

    def on_rows_start(self) -> None:
        """Store what ended since the last row, before new rows follow."""
        self._take_late_ends()
        if not self._model_is_known:
            self._model_is_known = True
            self._write_model(self._all_envs)

    def on_row_begins(self, has_row: bool) -> None:
        """Read the values at the next step's start."""
        store = self._filling
        if has_row or self._reader.chains:
            self._reader.before(store.memory.channels, store.row)
        if has_row and self._active is not None and store.memory.active is not None:
            store.memory.active[store.row].copy_(self._selection.select(self._active))

    def on_rows_stop(self) -> None:
        """Hand over the rows; what follows the last one has been read."""
        self._next_block()

    def on_step_failed(self) -> None:
        """Discard what was stored for the step."""
        self._filling.undo_step()

    def on_flush(self) -> None:
        """Hand over what is stored so far."""
        self._take_late_ends()
        self._next_block()

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until everything handed over is written."""
        self._filling.flush(timeout)

    def on_finish(self) -> None:
        """Cut the running episodes, hand over the rest, and end the recording."""
        store = self._filling
        try:
            if not store.forked:
                self.on_episodes_end(self._all_envs, cut=True, in_row=False)
                self._take_late_ends()
                self._write_totals(store)
                store.finish()
        finally:
            self._store = None
            dropped, stalled = self._past
            self._past = (
                dropped + getattr(store, "dropped_rows", 0),
                stalled + getattr(store, "stalled_s", 0.0),
            )
            self._rows_before = self.rows
            if not store.forked:
                self.end_recording()

    # -- blocks ------------------------------------------------------------------------------------

    @property
    def _filling(self) -> RowStore:
        assert self._store is not None
        return self._store

    def _next_block(self) -> None:
        """Hand over the current block and begin another; never while a row is being read."""
        store = self._filling
        self._write_totals(store)
        store.hand_over()

    def _write_header(self, store: RowStore) -> None:
        memory, select = store.memory, self._selection.select
        memory.first_episode.copy_(select(self.counters.episode))
        memory.first_step.copy_(select(self.counters.length))

    def _write_totals(self, store: RowStore) -> None:
        if not store.row:  # Otherwise the first row did this.
            self._write_header(store)
        store.memory.total.copy_(self._selection.select(self.counters.total))
        store.memory.recorded.copy_(self._selection.select(self.counters.recorded))

    def _take_late_ends(self) -> None:
        if self._late.any:
            store = self._filling
            at = store.add_ends(self.num_envs, -1, self._env.common_step_counter)
            self._late.take(store.memory.ends, at)

    def _write_model(self, env_ids: torch.Tensor) -> None:
        """Write the per-world model fields that these episodes begin with."""
        if not self._model_fields:
            return
        store = self._filling
        at = store.add_models(len(env_ids))
        memory = store.memory
        memory.model_env[at] = env_ids
        gather(self.counters.episode, env_ids, memory.model_episode[at])
        for name in self._model_fields:
            gather(getattr(self._env.sim.model, name), env_ids, memory.model[name][at])

    # -- rows and ends without blocks --------------------------------------------------------------

    def _deliver_rows(self) -> None:
        """Pass the completed row to ``record``."""
        memory = self._filling.memory
        env_ids, episode, step = self._selection.ids, memory.first_episode, memory.first_step
        channels = {spec.name: memory.channels[spec.name][0] for spec in self._reader.specs}
        active = self._active_in(0)
        if active is not None:
            chosen = active.nonzero().flatten()
            env_ids, episode, step = env_ids[chosen], episode[chosen], step[chosen]
            channels = {name: values[chosen] for name, values in channels.items()}
        if len(env_ids):
            time = step.double() * self._env.step_dt
            self.record(Rows(channels, env_ids, episode, step, time))

    def _deliver_ends(self) -> None:
        """Pass the stored episode ends to ``episodes_ended``."""
        store = self._filling
        ends, used = store.memory.ends, slice(store.ends)
        store.ends = 0
        counts = (
            (ends.length[used] > 0) & (ends.rows[used] > 0) & self._selection.has(ends.env[used])
        )
        at = counts.nonzero().flatten()
        if len(at):
            self.episodes_ended(_ended(ends, at))


class _OneRow(RowStore):
    """A block of one row, for rows that are delivered one by one."""

    def hand_over(self) -> None:
        self._go_on_in(self.memory)


def _ended(ends: EndsMemory, at: torch.Tensor) -> EndedEpisodes:
    return EndedEpisodes(
        env_ids=ends.env[at],
        episode=ends.episode[at],
        length=ends.length[at],
        rows=ends.rows[at],
        returns=ends.total[at],
        recorded_returns=ends.recorded[at],
        terminated=ends.terminated[at],
        truncated=ends.truncated[at],
        success=ends.success[at],
    )


def compiled_model(model: mujoco.MjModel) -> bytes:
    """The compiled model as the contents of an MJB file."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()
