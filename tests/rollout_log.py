"""What happened in a rollout, written down step by step and independently of any recorder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass
class LoggedEpisode:
    """One episode of one environment."""

    env: int
    start: int
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    @property
    def total(self) -> float:
        """Sum of rewards, added up as doubles."""
        return float(sum(np.float64(row["reward"]) for row in self.rows))


class StepLog:
    """Drives an environment and notes every row with plain Python."""

    def __init__(self, env: ManagerBasedRlEnv, state: bool = True) -> None:
        self.env = env
        env.cfg.final_obs = True
        self.episodes: dict[int, list[LoggedEpisode]] = defaultdict(list)
        self.trace: list[torch.Tensor] = []
        self._state = state

    def reset(self, env_ids: torch.Tensor | None = None) -> None:
        """Reset some environments and begin their episodes."""
        self.env.reset(env_ids=env_ids)
        self._begin(range(self.env.num_envs) if env_ids is None else env_ids.tolist())

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """Steps a step, note the row of every environment, and return who is done."""
        env = self.env
        before: dict[str, Any] = {f"obs/{k}": v for k, v in _flat(env.obs_buf)}
        before["command/goal"] = env.command_manager.get_command("goal")
        before["entity/robot/joint_pos"] = env.scene["robot"].data.joint_pos
        if self._state:
            before["state"] = env.sim.get_state()
        before = {name: _array(value) for name, value in before.items()}
        _, reward, terminated, truncated, extras = env.step(action)
        after = {f"next_obs/{k}": _array(v) for k, v in _flat(extras["final_obs"])}
        after["action"] = _array(action)
        after["reward"] = _array(reward)
        after["terminated"] = _array(terminated)
        after["truncated"] = _array(truncated)
        done = terminated | truncated
        for i in range(env.num_envs):
            episode = self.episodes[i][-1]
            episode.rows.append({k: v[i] for k, v in {**before, **after}.items()})
            episode.terminated = bool(terminated[i])
            episode.truncated = bool(truncated[i])
        self.trace += [reward.clone(), *(v.clone() for _, v in _flat(env.obs_buf))]
        if env.cfg.auto_reset:
            self._begin(done.nonzero().flatten().tolist())
        return done

    def finished(self, env_ids: Any = None) -> list[LoggedEpisode]:
        """Every episode that has rows, by environment and then in order."""
        ids = range(self.env.num_envs) if env_ids is None else env_ids
        return [e for i in ids for e in self.episodes[i] if e.rows]

    def _begin(self, env_ids: Any) -> None:
        for i in env_ids:
            self.episodes[i].append(LoggedEpisode(i, self.env.common_step_counter))


def compare(rollouts: Any, expected: list[LoggedEpisode], channels: list[str], every: int = 1):
    """Check that what is read back is what was noted, bit for bit."""
    table = list(rollouts.episodes.iter_rows(named=True))
    wanted = [(e, [k for k in range(len(e.rows)) if (e.start + k) % every == 0]) for e in expected]
    wanted = [(episode, kept) for episode, kept in wanted if kept]
    assert [row["env"] for row in table] == [episode.env for episode, _ in wanted]
    for i, (row, (episode, kept)) in enumerate(zip(table, wanted, strict=True)):
        where = f"episode {i}: {row}"
        # A table of rows does not say when it began.
        assert row["start"] in (None, episode.start + kept[0]), where
        assert row["rows"] == len(kept), where
        lengths = {len(episode.rows)}
        if every > 1 and row["cut"]:  # Nobody may have seen how it went on after the last row.
            lengths.add(kept[-1] + 1)
        assert row["length"] in lengths, where
        assert row["terminated"] == episode.terminated, where
        assert row["truncated"] == episode.truncated, where
        assert row["cut"] == (not (episode.terminated or episode.truncated)), where
        if row["length"] == len(episode.rows):
            assert np.isclose(row["return"], episode.total, rtol=1e-12), where
        arrays = rollouts[i]
        assert arrays["step"].tolist() == kept, where
        for name in channels:
            truth = np.stack([episode.rows[k][name] for k in kept])
            assert arrays[name].dtype == truth.dtype, (where, name)
            np.testing.assert_array_equal(arrays[name], truth, err_msg=f"{where}: {name}")


def _flat(obs: dict[str, Any], prefix: str = "") -> Any:
    for name, value in obs.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
