"""The episode log: one line of JSON per finished episode."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from mjlab_rec.data.block_memory import BlockShape
from mjlab_rec.data.files import PathLock
from mjlab_rec.data.formats.base import Durability, Writer, WriterOptions
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo
from mjlab_rec.data.staging import Staging
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg_fields import EnvsCfg, FileCfg, StartCfg, typed
from mjlab_rec.recorders.row_clock import RowClock
from mjlab_rec.recorders.success import success_of

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

_CHUNK = 1 << 16
_STEPS = 256
"""Number of steps after which lines are written."""
_SECONDS = 10.0


class EpisodeLogWriter(Writer):
    """Appends a line for each episode that ends, without its rows.

    The file holds only whole lines: a line that a full disk or a kill cut off is removed. Lines
    that could not be written are lost; later ones are written once there is space again.
    """

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._path_lock = PathLock(options.path, options.if_exists)
        self._safe = options.durability == "power"
        self._nbytes = 0
        self._seed = info.about.get("seed")
        try:
            # Unbuffered: a block's lines go to the file in one piece, and are there after a kill.
            self._file = open(self._path_lock.path, "a+b", buffering=0)
            try:
                self._end = self._repair()
            except BaseException:
                self._file.close()
                raise
        except BaseException as error:
            self._path_lock.release()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    @property
    def files(self) -> list[Path]:
        """The file."""
        return [self._path_lock.path]

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._nbytes

    def write(self, block: Block) -> None:
        """Write a line for each episode that ended in the block."""
        lines = "".join(json.dumps(line) + "\n" for line in self._lines(block)).encode()
        if not lines:
            return
        file, written = self._file, 0
        try:
            if os.fstat(file.fileno()).st_nlink == 0:
                raise DataError(
                    f"'{self._path_lock.path}' was removed while episodes were being written to it."
                    " Leave it in place until the recorder is closed."
                )
            while written < len(lines):  # A short write is silent; the next raises the error.
                written += file.write(lines[written:])
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(self._end)
            raise self._failure(error) from error
        self._end += len(lines)
        self._nbytes += len(lines)

    def write_episode(self, episode: Episode) -> None:
        """Not used: episode ends come with the blocks."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._path_lock.release()

    def _repair(self) -> int:
        """Remove a line that a killed process left unfinished, and return the file's size."""
        file, path = self._file, self._path_lock.path
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size and file.read(1) != b"{":
            raise DataError(
                f"'{path}' is not an episode log: its first line is not a JSON object. Choose"
                " another path, or set if_exists to 'overwrite' or 'number'."
            )
        end = size
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        if end < size:
            file.seek(end)
            if _is_line(file.read(_CHUNK)):
                end = size + file.write(b"\n")
            else:
                logger.warning("'%s': removed the last line, which was incomplete.", path)
                file.truncate(end)
        self._sync(folder=True)
        return end

    def _sync(self, folder: bool = False) -> None:
        """Wait for the disk if the lines must survive a power loss."""
        if not self._safe:
            return
        os.fsync(self._file.fileno())
        if folder:
            descriptor = os.open(self._path_lock.path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _failure(self, error: OSError) -> DataError:
        reason = error.strerror or error
        return DataError(
            f"Writing to '{self._path_lock.path}' failed: {reason}. Lines written earlier are"
            " intact."
        )

    def _lines(self, block: Block) -> Sequence[dict[str, Any]]:
        ends, envs = block.ends, np.asarray(self.info.envs)
        columns: dict[str, Sequence[Any]] = {
            "env": envs[ends.env_index].tolist(),
            "episode": ends.episode.tolist(),
            "length": ends.length.tolist(),
            "return": [_number(total) for total in ends.total.tolist()],
            "terminated": ends.terminated.tolist(),
            "truncated": ends.truncated.tolist(),
            "success": [{1: True, 0: False}.get(won) for won in ends.success.tolist()],
            "seed": [self._seed] * len(ends),
            "step": ends.at.tolist(),
            "sim_time": [round(at * self.info.step_dt, 9) for at in ends.at.tolist()],
        }
        lines = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        for name, values in ends.values.items():
            key, terms = (name, None) if name == "wall_time" else ("reward_terms", name)
            for line, value in zip(lines, values.tolist(), strict=True):
                if terms is None:
                    line[key] = round(value, 3)
                else:
                    line.setdefault(key, {})[terms] = _number(value)
        return lines


def _is_line(text: bytes) -> bool:
    """Whether this is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _number(value: float) -> float | None:
    """A float for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


class EpisodeLogRecorder(RowClock):
    """Writes one JSON line per finished episode.

    A line has env, episode (counted per environment), length, return, terminated, truncated,
    success, seed, step, sim_time, wall_time (seconds since 1970) and reward_terms, the sum of each
    term. Lines are written in batches, at most 256 steps after the episode's end. Episodes that
    end while the recorder is paused or stopped get no line.
    """

    cfg: EpisodeLogRecorderCfg
    cfg_type: ClassVar[type[RecorderTermCfg]]

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = typed(cfg, self.cfg_type)
        cfg = self.cfg
        success = success_of(cfg.success, env)
        super().__init__(cfg, env, success=success, sums=True, autostart=cfg.autostart)
        self.draws_random_numbers = callable(cfg.success)
        self._env_ids = cfg.env_ids(env.num_envs)
        self._written: list[Path] = []
        self._written_bytes = 0
        self._writer: EpisodeLogWriter | None = None
        self._store: Staging | None = None

    @property
    def files(self) -> list[Path]:
        """Files written so far."""
        return self._written + ([] if self._writer is None else self._writer.files)

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._written_bytes + (0 if self._writer is None else self._writer.nbytes)

    def on_open(self) -> None:
        """Open the file."""
        cfg, env = self.cfg, self._env
        info = RunInfo(channels=(), envs=self._env_ids, step_dt=env.step_dt, about=about(env))
        again = "number" if self._written and cfg.if_exists != "append" else cfg.if_exists
        options = WriterOptions(
            path=cfg.path, if_exists=again, block_rows=_STEPS, durability=cfg.durability
        )
        writer = self._writer = EpisodeLogWriter(info, options)
        shape = BlockShape(
            rows=_STEPS, ends=env.num_envs * (2 + _STEPS // 8), values=self.counters.sum_names
        )
        name = type(self).__name__
        self._store = Staging(info, shape, env.device, 2, "block", writer.write, name, _SECONDS)

    def on_step(self, ended: torch.Tensor) -> None:
        """Make room for the episodes that end with the step."""
        if self._store is not None:
            self._store.check()
            if not self._store.has_room(self.num_envs):
                self._store.hand_over()
            self._store.begin_step()

    def on_episodes_end(self, env_ids: torch.Tensor, cut: bool, in_row: bool) -> None:
        """Store how these episodes ended."""
        store = self._store
        if store is None or not self._on:
            return
        if not in_row and not store.has_room(len(env_ids)):
            store.hand_over()
        at = store.add_ends(len(env_ids), store.row, self._env.common_step_counter)
        self.counters.write_ends(store.memory.ends, at, env_ids, cut)

    def on_row_complete(self, was_reset: bool) -> None:
        """Commit the step."""
        if self._store is not None:
            self._store.commit(self._env.common_step_counter - 1)

    def on_step_failed(self) -> None:
        """Discard what was stored for the step."""
        if self._store is not None:
            self._store.undo_step()

    def on_flush(self) -> None:
        """Hand over what is stored so far."""
        if self._store is not None:
            self._store.hand_over()

    on_rows_stop = on_flush

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until everything handed over is written."""
        if self._store is not None:
            self._store.flush(timeout)

    def on_finish(self) -> None:
        """Write the rest and close the file."""
        store, writer = self._store, self._writer
        self._store = self._writer = None
        if store is None or writer is None or store.forked:
            return
        try:
            store.finish()
        finally:
            writer.close()
            self._written += writer.files
            self._written_bytes += writer.nbytes


@dataclass(kw_only=True)
class EpisodeLogRecorderCfg(StartCfg, EnvsCfg, FileCfg):
    """Configuration of ``EpisodeLogRecorder``."""

    func: type = EpisodeLogRecorder

    success: str | Callable[[Any], Any] | None = None
    """What counts as success, as for ``RolloutRecorderCfg``."""

    durability: Durability = "kill"
    """What written lines survive: a "kill" of the process, or also a loss of "power", for which the
    writer waits for the disk."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if not self.path:
            raise self.error("path", "is empty; set it to the file to write.")


EpisodeLogRecorder.cfg_type = EpisodeLogRecorderCfg
