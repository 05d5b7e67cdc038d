"""Step one of tasks/gym and Gymnasium's environment of that name together, and compare them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.registry import load_env_cfg

_STATE = ("time", "qpos", "qvel", "qacc_warmstart")


@dataclass
class Differences:
    """The largest differences that were seen, |ours - theirs| / max(1, |theirs|)."""

    largest: dict[str, dict[str, float]] = field(default_factory=dict)
    """By kind ("obs", "reward", "terms", "metrics") and name; "obs" has "first" for resets."""
    endings: int = 0
    """Environment steps after which only one side was terminated, or only one truncated."""
    episodes: int = 0
    """Episodes that ended on Gymnasium's side."""
    obs_by_step: list[float] = field(default_factory=list)
    """The largest difference of observations in each step."""

    def group(self, kind: str) -> dict[str, float]:
        """The largest differences of this kind, by name."""
        return self.largest.get(kind, {})

    def worst(self, kind: str) -> float:
        """The largest difference of this kind."""
        return max(self.group(kind).values(), default=0.0)

    def note(self, kind: str, name: str, ours: Any, theirs: Any) -> float:
        """Compare values, and return their difference."""
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        if ours.shape != theirs.shape:
            raise ValueError(f"'{name}' has the shape {ours.shape}, Gymnasium's {theirs.shape}.")
        gap = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
        # NaN on one side only is as different as can be.
        gap = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.nan_to_num(gap, nan=np.inf))
        worst = float(gap.max(initial=0.0))
        group = self.largest.setdefault(kind, {})
        group[name] = max(group.get(name, 0.0), worst)
        return worst


def gymnasium_id(task: str) -> str:
    """The id of the environment that a task follows: HalfCheetah-v5 for gym-half-cheetah."""
    return "".join(word.capitalize() for word in task.split("-")[1:]) + "-v5"


class Lockstep:
    """A task and as many environments of Gymnasium, which get the same actions.

    Args:
        task: Id of the task.
        num_envs: Number of environments on each side.
        engine: Engine of the task.
        seed: Seed of both sides and of the actions.
    """

    def __init__(
        self, task: str, num_envs: int = 16, engine: str = "mjbatch", seed: int = 0
    ) -> None:
        cfg: ManagerBasedRlEnvCfg = load_env_cfg(task)
        cfg.scene.num_envs, cfg.auto_reset, cfg.seed = num_envs, False, seed
        cfg.sim.engine = engine  # type: ignore[assignment]
        if engine == "warp" and cfg.sim.mujoco.solver == "pgs":
            cfg.sim.mujoco.solver = "newton"
        self.env = ManagerBasedRlEnv(cfg)
        self.theirs = [
            gymnasium.make(gymnasium_id(task), disable_env_checker=True) for _ in range(num_envs)
        ]
        self._rng = np.random.default_rng(seed)
        self._seeds = iter(range(seed, 10**9))

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.env.close()
        for other in self.theirs:
            other.close()

    def run(self, steps: int, restart: bool) -> Differences:
        """Take steps with random actions.

        Args:
            steps: How many.
            restart: Start each step from Gymnasium's state. Otherwise only each episode does.
        """
        found = Differences()
        self._begin(list(range(len(self.theirs))), found)
        space = self.env.single_action_space
        assert isinstance(space, gymnasium.spaces.Box)
        for _ in range(steps):
            if restart:
                for other in self.theirs:
                    data = _mujoco(other).data
                    _mujoco(other).set_state(data.qpos.copy(), data.qvel.copy())
                self._copy_state(list(range(len(self.theirs))))
            shape = (len(self.theirs), *space.shape)
            action = self._rng.uniform(space.low, space.high, shape).astype(np.float32)
            self._step(action, found)
        return found

    def _begin(self, ids: list[int], found: Differences) -> None:
        """Start episodes on Gymnasium's side, and ours from the same states."""
        theirs = [self.theirs[i].reset(seed=next(self._seeds))[0] for i in ids]
        self.env.reset(env_ids=torch.tensor(ids))
        self._copy_state(ids)
        with torch.no_grad():
            ours = self.env.observation_manager.preview()["actor"]
        assert isinstance(ours, torch.Tensor)
        found.note("obs", "first", ours[ids], np.array(theirs))

    def _copy_state(self, ids: list[int]) -> None:
        sim = self.env.sim
        rows = sim.get_state()[ids]
        for name, columns in sim.state_layout.items():
            if name in _STATE:
                values = [np.atleast_1d(getattr(_mujoco(self.theirs[i]).data, name)) for i in ids]
                rows[:, columns] = torch.from_numpy(np.array(values)).to(rows.dtype)
        sim.set_state(rows, torch.tensor(ids))

    def _step(self, action: np.ndarray, found: Differences) -> None:
        obs, reward, terminated, truncated, _ = self.env.step(torch.from_numpy(action))
        results = [other.step(a) for other, a in zip(self.theirs, action, strict=True)]
        their_obs, their_reward, their_ends, their_cuts, infos = zip(*results, strict=True)
        found.obs_by_step.append(found.note("obs", "later", obs["actor"], np.array(their_obs)))
        found.note("reward", "reward", reward, np.array(their_reward))
        terms, metrics = self.env.reward_manager, self.env.metrics_manager
        for kind, manager in (("terms", terms), ("metrics", metrics)):
            ours = [manager.get_active_iterable_terms(i) for i in range(len(infos))]
            for name, *values in zip(manager.active_terms, *ours, strict=True):
                theirs = [_entry(info, name) for info in infos]
                found.note(kind, name, [value for _, (value,) in values], theirs)
        ends, cuts = np.array(their_ends, bool), np.array(their_cuts, bool)
        found.endings += int((terminated.numpy() != ends).sum())
        found.endings += int((truncated.numpy() != cuts).sum())
        over = np.flatnonzero(ends | cuts | (terminated | truncated).numpy()).tolist()
        found.episodes += len(over)
        if over:
            self._begin(over, found)


def _entry(info: dict[str, Any], name: str) -> float:
    """An entry of Gymnasium's info; "tendon_length_1" is the second number of an array."""
    if name in info:
        return info[name]
    array, _, index = name.rpartition("_")
    return info[array][int(index)]


def _mujoco(env: gymnasium.Env) -> Any:
    return env.unwrapped
