"""Gymnasium environments for tests, and what vector environments of them must have gone through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Maze(gymnasium.Env):
    """An image, a vector and numbers; its seed decides how long an episode is, and how it ends."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (12, 10, 3), np.uint8),
            "inner": spaces.Dict({"x": spaces.Box(-np.inf, np.inf, (2,), np.float64)}),
            "which": spaces.Tuple((spaces.Discrete(9), spaces.MultiBinary(3))),
            "far": spaces.Box(0, 60000, (2,), np.uint16),
        }
    )
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None, most: int = 6) -> None:
        self.render_mode = render_mode
        self.most = most

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.step_number = 0
        self.end = int(self.np_random.integers(1, self.most))
        self.x = self.np_random.normal(size=2)
        return self._obs(), {"note": "new"}

    def step(self, action: Any) -> Any:
        self.step_number += 1
        self.x = self.x + np.asarray(action, np.float64)
        over = self.step_number >= self.end
        info = {"x_position": float(self.x[0]), "goal": self.x * 2, "deep": {"n": self.step_number}}
        if over:
            info["is_success"] = bool(self.x[0] > 0)
        wins = bool(self.end % 2)
        return self._obs(), float(self.x.sum()), over and wins, over and not wins, info

    def render(self) -> Any:
        return np.full((16, 16, 3), 10 * self.step_number, np.uint8)

    def _obs(self) -> Any:
        return {
            "image": self.np_random.integers(0, 255, (12, 10, 3), np.uint8),
            "inner": {"x": self.x.copy()},
            "which": (self.step_number % 9, np.array([1, 0, self.step_number % 2], np.int8)),
            "far": np.array([self.step_number, 60000], np.uint16),
        }


def flat(value: Any, name: str = "obs/actor") -> dict[str, np.ndarray]:
    """Nested values by the names of their channels."""
    if isinstance(value, dict):
        parts: Any = value.items()
    elif isinstance(value, tuple):
        parts = enumerate(value)
    else:
        return {name: np.asarray(value)}
    return {n: v for key, part in parts for n, v in flat(part, f"{name}/{key}").items()}


class Lived:
    """What one environment goes through, in a loop of our own."""

    def __init__(self, make: Callable[[], gymnasium.Env], seed: int | None) -> None:
        self.env = make()
        self.obs, _ = self.env.reset(seed=seed)
        self.episodes: list[list[dict[str, Any]]] = [[]]
        self.over = False

    def step(self, action: Any, t: int) -> None:
        """A step of it, which is the t-th of the vector environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        row = {**flat(self.obs), **{f"next_{k}": v for k, v in flat(obs).items()}}
        row |= {"action": action, "reward": reward, "terminated": terminated}
        row |= {"truncated": truncated, "info": info, "t": t}
        self.episodes[-1].append(row)
        self.obs, self.over = obs, terminated or truncated

    def reset(self) -> None:
        """Begin another episode."""
        self.obs, _ = self.env.reset()
        self.over = False
        self.episodes.append([])


def lives(
    make: Callable[[], gymnasium.Env], seed: int, actions: Sequence[Any], mode: str
) -> list[list[list[dict[str, Any]]]]:
    """Rows of the episodes of each environment; `actions` is (steps, environments)."""
    found = []
    for i in range(len(actions[0])):
        life = Lived(make, seed + i)
        for t, action in enumerate(actions):
            if life.over:
                life.reset()
                if mode == "next_step":
                    continue  # This step only resets.
            life.step(action[i], t)
        found.append([episode for episode in life.episodes if episode])
        life.env.close()
    return found


def check_rows(rollouts: Any, expected: Any, infos: Sequence[str] = ()) -> None:
    """Compare a recording with what the environments went through, bit for bit."""
    table = rollouts.episodes
    known = [(env, number) for env, of in enumerate(expected) for number in range(len(of))]
    assert table.select("env", "number").rows() == known
    for index, (env, number) in enumerate(known):
        rows, arrays = expected[env][number], rollouts[index]
        assert arrays["step"].tolist() == list(range(len(rows)))
        facts = table.row(index, named=True)
        assert facts["start"] == rows[0]["t"]
        assert facts["length"] == facts["rows"] == len(rows)
        assert facts["terminated"] == rows[-1]["terminated"]
        assert facts["truncated"] == rows[-1]["truncated"]
        assert not facts["partial"]
        assert facts["return"] == sum((float(row["reward"]) for row in rows), 0.0)
        for name in {*rows[0], *arrays} - {"info", "t", "step"}:
            if name.startswith("info/"):
                continue
            want = np.array([row[name] for row in rows])
            got = arrays[name]
            assert got.shape == want.shape, name
            if want.dtype != np.uint16 and name not in ("reward",):
                assert got.dtype == want.dtype or want.dtype == np.int64, name
            np.testing.assert_array_equal(got, want, name)
        for name in infos:
            for row, got in zip(rows, arrays[f"info/{name}"], strict=True):
                value = row["info"]
                for key in name.split("/"):
                    value = value.get(key, np.nan) if isinstance(value, dict) else value
                np.testing.assert_array_equal(got, value, name)


class Tiny(gymnasium.Env):
    """Two random numbers as an observation; ends at random."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> Any:
        end = int(self.np_random.integers(8))
        obs = self.np_random.normal(size=2) + float(action[0])
        return obs, float(obs[0]), end in (0, 2), end in (1, 2), {}
