"""The episode log: one line of JSON per finished episode."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mjlab_rec.data.files import Claim, IfExists
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.schema import Block, Episode, RunInfo
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.cfg import RolloutRecorderCfg, typed
from mjlab_rec.recorders.channels import Channel
from mjlab_rec.recorders.rollout import RolloutRecorder

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


class EpisodeLogWriter(Writer):
    """Appends a line for each end of an episode, and nothing of its rows."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._claim = Claim(options.path, options.if_exists)
        # Unbuffered: a block's lines go to the file in one piece, and are there after a kill.
        self._file = open(self._claim.path, "ab", buffering=0)
        self._nbytes = 0
        self._seed = info.about.get("seed")

    @property
    def files(self) -> list[Path]:
        """The file."""
        return [self._claim.path]

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._nbytes

    def write(self, block: Block) -> None:
        """Write a line for each episode that ended in the block."""
        lines = "".join(json.dumps(line) + "\n" for line in self._lines(block))
        if lines:
            self._nbytes += self._file.write(lines.encode())

    def write_episode(self, episode: Episode) -> None:
        """Not used: ends come with the blocks."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._claim.release()

    def _lines(self, block: Block) -> Sequence[dict[str, Any]]:
        ends, envs = block.ends, np.asarray(self.info.envs)
        columns: dict[str, Sequence[Any]] = {
            "env": envs[ends.lane].tolist(),
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


def _number(value: float) -> float | None:
    """A float as JSON has it: it knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


@dataclass(kw_only=True)
class EpisodeLogRecorderCfg(RecorderTermCfg):
    """Configuration of ``EpisodeLogRecorder``."""

    func: Any = field(default_factory=lambda: EpisodeLogRecorder)

    path: str
    """File to write, one JSON object per line."""

    envs: int | tuple[int, ...] | None = None
    """Which environments: the first so many, or these. None means all."""

    success: str | Callable[[Any], Any] | None = None
    """What a success is, as for ``RolloutRecorderCfg``."""

    if_exists: IfExists = "error"
    """What to do if the path exists: "error", "overwrite", "append" to it, or add a "number"."""


class EpisodeLogRecorder(RolloutRecorder):
    """Writes one JSON line per finished episode.

    A line has env, episode (counted per environment), length, return, terminated, truncated,
    success, seed, step, sim_time, wall_time (seconds since 1970) and reward_terms, the sum of each
    term. Lines are written in batches: at the latest 256 steps after the episode's end.
    """

    sums_reward_terms = True

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        cfg = typed(cfg, EpisodeLogRecorderCfg)
        names = [f.name for f in fields(cfg)]
        super().__init__(RolloutRecorderCfg(**{name: getattr(cfg, name) for name in names}), env)

    def channels(self) -> Sequence[str | Channel]:
        """No rows."""
        return ()

    def writer(self) -> Callable[..., Any]:
        """What writes lines."""
        return EpisodeLogWriter
