"""Recorders around EnvPool, ManiSkill, stable-baselines3, jax; where these are installed."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gym_worlds import Maze, check_rows, lives
from gymnasium.vector import SyncVectorEnv

from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.data import open_rollouts
from mjlab_rec.recorders import Hdf5RecorderCfg

# These packages warn, for example about float64 bounds and about forks.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("task", ["CartPole-v1", "Ant-v4"])
def test_envpool(task, tmp_path):
    envpool = pytest.importorskip("envpool")
    kwargs = {"env_type": "gymnasium", "num_envs": 4, "seed": 5, "max_episode_steps": 9}
    plain = envpool.make(task, **kwargs)
    rng = np.random.default_rng(0)
    actions = [
        rng.integers(0, 2, 4) if task == "CartPole-v1" else rng.uniform(-1, 1, (4, 8))
        for _ in range(40)
    ]
    # What happens, of the plain environments: after an end, a step only resets.
    before, _ = plain.reset()
    before = before.copy()
    first, expected, over = before, [[[]] for _ in range(4)], np.zeros(4, bool)
    returned = []
    for t, action in enumerate(actions):
        obs, reward, terminated, truncated, info = plain.step(action)
        returned.append([v.copy() for v in (obs, reward, terminated, truncated)])
        for i in range(4):
            if over[i]:
                assert info["elapsed_step"][i] == 0 and reward[i] == 0
                expected[i].append([])
            else:
                row = {"obs/actor": before[i], "next_obs/actor": obs[i].copy(), "t": t}
                row |= {"action": action[i], "reward": reward[i], "info": {}}
                row |= {"terminated": bool(terminated[i]), "truncated": bool(truncated[i])}
                row["info"]["elapsed_step"] = info["elapsed_step"][i]
                expected[i][-1].append(row)
        before, over = obs.copy(), terminated | truncated
    plain.close()
    assert sum(len(of) for of in expected) > 8

    path = str(tmp_path / "a.h5")
    inner = envpool.make(task, **kwargs)
    recorders = {"rows": Hdf5RecorderCfg(path=path)}
    with RecordVector(inner, recorders, infos=("elapsed_step",), task=task) as envs:
        np.testing.assert_array_equal(envs.reset()[0], first)
        for action, want in zip(actions, returned, strict=True):
            for ours, theirs in zip(envs.step(action), want, strict=False):
                np.testing.assert_array_equal(ours, theirs)
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, [[e for e in of if e] for of in expected], ["elapsed_step"])


def test_envpool_that_steps_some_at_a_time_is_refused():
    envpool = pytest.importorskip("envpool")
    envs = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=4, batch_size=2)
    with pytest.raises(ValueError, match="batch_size equal to num_envs"):
        RecordVector(envs)
    envs.close()


@pytest.mark.parametrize("kind", ["DummyVecEnv", "SubprocVecEnv"])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pusher-v5"])
def test_stable_baselines(name, kind, tmp_path):
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    from mjlab_rec.adapters.sb3 import RecordVecEnv

    make = partial(gymnasium.make, name, max_episode_steps=6)
    env = make()
    env.action_space.seed(0)
    actions = [np.array([env.action_space.sample() for _ in range(3)]) for _ in range(25)]
    path = str(tmp_path / "a.h5")
    venv = getattr(vec_env, kind)([make] * 3)
    with RecordVecEnv(venv, {"rows": Hdf5RecorderCfg(path=path)}, task=name) as envs:
        envs.seed(11)
        envs.reset()
        for action in actions:
            envs.step(action)
    expected = lives(make, 11, actions, "same_step")
    for of in expected:
        for episode in of:
            for row in episode:
                if kind == "DummyVecEnv":  # Its rewards are float32.
                    row["reward"] = float(np.float32(row["reward"]))
                for key in ("obs/actor", "next_obs/actor"):
                    row[key] = row[key].astype(venv.observation_space.dtype)
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, expected)


def test_stable_baselines_learns_through_the_wrapper(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    from mjlab_rec.adapters.sb3 import RecordVecEnv

    path = str(tmp_path / "a.h5")
    venv = DummyVecEnv([partial(gymnasium.make, "CartPole-v1")] * 2)
    with RecordVecEnv(venv, {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        sb3.PPO("MlpPolicy", envs, n_steps=32, batch_size=32, n_epochs=1).learn(128)
    with open_rollouts(path) as rollouts:
        assert rollouts.rows >= 128 and rollouts.info.about["task"] == "CartPole-v1"


class Simulated(gymnasium.Env):
    """Stands for ManiSkill's simulation, which needs a GPU: batches, and resets of some."""

    def __init__(self, num_envs: int) -> None:
        import torch

        self.num_envs, self.device, self.reconfiguration_freq = num_envs, torch.device("cpu"), 0
        self.single_observation_space = gymnasium.spaces.Box(-9e9, 9e9, (2,))
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        batch = partial(gymnasium.vector.utils.batch_space, n=num_envs)
        self.observation_space = batch(self.single_observation_space)
        self.action_space = batch(self.single_action_space)
        self.metadata = {"render_modes": []}
        self.numbers = torch.arange(num_envs)
        self.elapsed_steps = torch.zeros(num_envs, dtype=torch.int32)
        self.x = torch.zeros(num_envs, 2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        ids = (options or {}).get("env_idx", self.numbers)
        self.x = self.x.clone()
        self.x[ids] += 100.0
        self.elapsed_steps[ids] = 0
        return self.x, {"reconfigure": False}

    def step(self, action: Any) -> Any:
        self.x = self.x + action
        self.elapsed_steps += 1
        terminated = self.elapsed_steps >= self.numbers + 2
        info = {"success": self.x[:, 0] % 2 > 1, "elapsed_steps": self.elapsed_steps.clone()}
        return self.x, self.x.sum(1), terminated, self.elapsed_steps >= 3, info


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_maniskills_vector_environment(resets, ignores, tmp_path):
    maniskill = pytest.importorskip("mani_skill.vector.wrappers.gymnasium")
    import torch

    inner = maniskill.ManiSkillVectorEnv(
        Simulated(3), auto_reset=resets, ignore_terminations=ignores, record_metrics=True
    )
    path = str(tmp_path / "a.h5")
    infos = ("success", "elapsed_steps", "episode/return")
    names = ("obs/actor", "action", "reward", "next_obs/actor", "terminated", "truncated")
    log: list[list[Any]] = [[] for _ in range(3)]
    with RecordVector(inner, Hdf5RecorderCfg(path=path), infos=infos, success="success") as envs:
        obs, _ = envs.reset(seed=0)
        for _ in range(17):
            action, before = torch.rand(3, 2), obs.clone()
            obs, reward, terminated, truncated, info = envs.step(action)
            done = terminated | truncated
            final, said = obs, info
            if resets and done.any():
                final, said = info["final_observation"], info["final_info"]
            row = before, action, reward, final, terminated, truncated
            row += said["success"], said["elapsed_steps"], said["episode"]["return"]
            for i in range(3):
                log[i].append([value[i].clone().numpy() for value in row])
            if not resets and done.any():
                obs, _ = envs.reset(options={"env_idx": done.nonzero().flatten()})
    got: list[list[Any]] = [[] for _ in range(3)]
    with open_rollouts(path) as rollouts:
        for index, facts in enumerate(rollouts.episodes.rows(named=True)):
            arrays = rollouts[index]
            every = (*names, *(f"info/{name}" for name in infos))
            got[facts["env"]] += zip(*(arrays[name] for name in every), strict=True)
            assert facts["cut"] or facts["success"] == bool(arrays["info/success"][-1])
    for mine, true in zip(got, log, strict=True):
        for rows in zip(mine, true, strict=True):
            for one, other in zip(*rows, strict=True):
                np.testing.assert_array_equal(one, other)


def test_arrays_of_jax(tmp_path):
    jax = pytest.importorskip("jax")

    class Jax(gymnasium.vector.VectorWrapper):
        """Gives arrays of jax, and takes them."""

        def reset(self, **kwargs: Any) -> Any:
            obs, infos = super().reset(**kwargs)
            return jax.numpy.asarray(obs), infos

        def step(self, actions: Any) -> Any:
            *values, infos = super().step(np.asarray(actions))
            return (*map(jax.numpy.asarray, values), infos)

    make = partial(gymnasium.make, "CartPole-v1", max_episode_steps=9)
    rng = np.random.default_rng(0)
    actions = [rng.integers(0, 2, 3) for _ in range(30)]
    path = str(tmp_path / "a.h5")
    inner = Jax(SyncVectorEnv([make] * 3))
    with RecordVector(inner, {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        obs, _ = envs.reset(seed=11)
        for action in actions:
            obs, *_ = envs.step(jax.numpy.asarray(action))
            assert isinstance(obs, jax.Array)
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, lives(make, 11, actions, "next_step"))


def test_minari_loads_an_export(tmp_path):
    minari = pytest.importorskip("minari")
    from mjlab_rec.data import export_rollouts

    path = str(tmp_path / "a.h5")
    with RecordVector(SyncVectorEnv([Maze] * 2), {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        envs.reset(seed=11)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(20)]
        for action in actions:
            envs.step(action)
    export_rollouts(path, str(tmp_path / "maze-v0"), "minari")
    data = minari.MinariDataset(tmp_path / "maze-v0" / "data")
    expected = [episode for of in lives(Maze, 11, actions, "next_step") for episode in of]
    assert data.total_episodes == len(expected)
    for got, true in zip(data.iterate_episodes(), expected, strict=True):
        assert len(got.observations["image"]) == len(true) + 1
        np.testing.assert_array_equal(
            got.observations["image"][-1], true[-1]["next_obs/actor/image"]
        )
        np.testing.assert_array_equal(got.actions, [row["action"] for row in true])
