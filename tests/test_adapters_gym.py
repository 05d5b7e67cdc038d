"""Recorders around Gymnasium's environments: rows are true, what they return is untouched."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gym_worlds import Maze, Tiny, check_rows, lives
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from long_runs import some_long

from mjlab_rec.adapters.gym_env import RecordEnv
from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.data import export_rollouts, open_rollouts
from mjlab_rec.recorders import (
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    NpzRecorderCfg,
    at_episodes,
)

MODES = {mode.name.lower(): mode for mode in AutoresetMode}
MAKERS: dict[str, Any] = {
    "CartPole-v1": partial(gymnasium.make, "CartPole-v1", max_episode_steps=9),
    "Blackjack-v1": partial(gymnasium.make, "Blackjack-v1"),
    "Ant-v5": partial(gymnasium.make, "Ant-v5", max_episode_steps=4),
    "Pusher-v5": partial(gymnasium.make, "Pusher-v5", max_episode_steps=4),
    "maze": Maze,
}

INFOS: dict[str, Any] = {
    "maze": {"x_position": (), "goal": (2,), "deep/n": (), "is_success": ()},
    "Ant-v5": {"x_position": (), "reward_forward": ()},
    "Pusher-v5": {"reward_dist": ()},
}


def some_actions(make: Any, steps: int, envs: int, seed: int = 3) -> list[Any]:
    """Random actions, (steps, environments)."""
    env = make()
    space = gymnasium.vector.utils.batch_space(env.action_space, envs)
    space.seed(seed)
    env.close()
    return [space.sample() for _ in range(steps)]


def drive(envs: Any, actions: Any, seed: int = 11) -> list[Any]:
    """Step through the actions; with the mode DISABLED, reset what is over. What came back."""
    found = [copy.deepcopy(envs.reset(seed=seed))]
    manual = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for t, action in enumerate(actions):
        result = envs.step(action)
        found.append(copy.deepcopy(result))
        over = np.asarray(result[2]) | np.asarray(result[3])
        if manual and over.any() and t + 1 < len(actions):
            found.append(copy.deepcopy(envs.reset(options={"reset_mask": over})))
    return found


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            assert_same(ours[name], theirs[name])
    elif isinstance(ours, (tuple, list)) or getattr(ours, "dtype", None) == np.dtype(object):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MAKERS)
def test_all_rows_are_true_and_what_comes_back_is_untouched(name, mode, tmp_path):
    make = MAKERS[name]
    actions = some_actions(make, 40 if name in ("maze", "Blackjack-v1") else 25, 3)
    plain = SyncVectorEnv([make] * 3, autoreset_mode=MODES[mode])
    want = drive(plain, actions)
    plain.close()
    recorders = {
        "blocks": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), block_steps=7),
        "episodes": NpzRecorderCfg(path=str(tmp_path / "b")),
    }
    inner = SyncVectorEnv([make] * 3, autoreset_mode=MODES[mode], copy=False)
    with RecordVector(inner, recorders) as envs:
        assert_same(drive(envs, actions), want)
    expected = lives(make, 11, actions, mode)
    for file in ("a.h5", "b"):
        with open_rollouts(str(tmp_path / file)) as rollouts:
            assert rollouts.finished and rollouts.verify() == []
            check_rows(rollouts, expected)


ASYNC = {("maze", mode) for mode in MODES} | {("Ant-v5", "next_step")}
"""Those that take little time."""


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode) if (name, mode) in ASYNC else some_long(name, mode)
        for name in MAKERS
        for mode in MODES
    ],
)
def test_rows_of_environments_in_other_processes_are_true(name, mode, tmp_path):
    make, infos = MAKERS[name], INFOS.get(name, {})
    actions = some_actions(make, 25 if (name, mode) in ASYNC else 60, 2)
    inner = AsyncVectorEnv([make] * 2, autoreset_mode=MODES[mode], copy=False)
    path = str(tmp_path / "a.h5")
    success = "is_success" if name == "maze" else ""
    with RecordVector(inner, Hdf5RecorderCfg(path=path), infos=infos, success=success) as envs:
        drive(envs, actions)
    expected = lives(make, 11, actions, mode)
    with open_rollouts(path) as rollouts:
        assert rollouts.verify() == []
        check_rows(rollouts, expected, infos)
        for rows, got in zip(
            [episode for of in expected for episode in of],
            rollouts.episodes["success"],
            strict=True,
        ):
            over = success and (rows[-1]["terminated"] or rows[-1]["truncated"])
            assert got == (rows[-1]["info"]["is_success"] if over else None)


def test_a_single_environment(tmp_path):
    actions = some_actions(Maze, 20, 1)
    path = str(tmp_path / "a.h5")
    with RecordEnv(Maze(), {"rows": Hdf5RecorderCfg(path=path)}, infos=("x_position",)) as env:
        obs, _ = env.reset(seed=11)
        assert env.observation_space.contains(obs)
        for action in actions:
            result = env.step(action[0])
            if result[2] or result[3]:
                env.reset()
    expected = lives(Maze, 11, actions, "disabled")
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, expected, ["x_position"])
        assert rollouts.info.step_dt == 0.1 and rollouts.info.about["seed"] == 11


def test_torch_arrays_stay_torch(tmp_path):
    pytest.importorskip("array_api_compat")
    from gymnasium.wrappers.vector import NumpyToTorch

    make = MAKERS["CartPole-v1"]
    actions = some_actions(make, 25, 3)
    path = str(tmp_path / "a.h5")
    inner = NumpyToTorch(SyncVectorEnv([make] * 3))
    with RecordVector(inner, {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        obs, _ = envs.reset(seed=11)
        assert isinstance(obs, torch.Tensor)
        for action in actions:
            obs, reward, *_ = envs.step(torch.from_numpy(action))
            assert isinstance(obs, torch.Tensor) and isinstance(reward, torch.Tensor)
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, lives(make, 11, actions, "next_step"))


def test_reset_of_some_environments_cuts_their_episodes(tmp_path):
    path = str(tmp_path / "a.h5")
    make = partial(Maze, most=100)
    inner = SyncVectorEnv([make] * 3)
    with RecordVector(inner, {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        envs.reset(seed=[4, 4, 4])
        for step in range(6):
            envs.step(np.zeros((3, 2), np.float32))
            if step == 2:
                envs.reset(options={"reset_mask": np.array([False, True, False])})
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes
        assert table.select("env", "number", "rows", "start").rows() == [
            *((0, 0, 6, 0), (1, 0, 3, 0), (1, 1, 3, 3), (2, 0, 6, 0))
        ]
        assert table["cut"].all()
        assert rollouts.info.about["seed"] == [4, 4, 4]


def test_rows_of_a_recording_that_begins_while_a_reset_is_pending(tmp_path):
    make = partial(Maze, most=4)
    actions = some_actions(make, 30, 3)
    for begin in range(8):
        path = str(tmp_path / f"{begin}.h5")
        with RecordVector(SyncVectorEnv([make] * 3)) as envs:
            envs.reset(seed=11)
            for t, action in enumerate(actions):
                if t == begin:
                    recording = envs.start_recording(Hdf5RecorderCfg(path=path))
                if t == begin + 12:
                    envs.stop_recording(recording)
                envs.step(action)
        expected = lives(make, 11, actions, "next_step")
        with open_rollouts(path) as rollouts:
            seen = set()
            for index, row in enumerate(rollouts.episodes.rows(named=True)):
                arrays = rollouts[index]
                for i, step in enumerate(arrays["step"]):
                    true = expected[row["env"]][row["number"]][step]
                    seen.add((row["env"], true["t"]))
                    np.testing.assert_array_equal(
                        arrays["obs/actor/inner/x"][i], true["obs/actor/inner/x"]
                    )
                    np.testing.assert_array_equal(
                        arrays["next_obs/actor/image"][i], true["next_obs/actor/image"]
                    )
        wanted = {
            (env, true["t"])
            for env, of in enumerate(expected)
            for episode in of
            for true in episode
            if begin <= true["t"] < begin + 12
        }
        assert seen == wanted


def test_chosen_episodes_csv_and_the_episode_log(tmp_path):
    actions = some_actions(Maze, 30, 3)
    recorders = {
        "csv": CsvRecorderCfg(
            path=str(tmp_path / "a.csv"), channels=("action", "reward"), block_steps=4
        ),
        "some": Hdf5RecorderCfg(path=str(tmp_path / "b.h5"), trigger=at_episodes(1, 3)),
        "log": EpisodeLogRecorderCfg(path=str(tmp_path / "log.jsonl")),
    }
    with RecordVector(SyncVectorEnv([Maze] * 3), recorders) as envs:
        drive(envs, actions)
    expected = lives(Maze, 11, actions, "next_step")
    with open_rollouts(str(tmp_path / "a.csv")) as rollouts:
        rows = [row for of in expected for episode in of for row in episode]
        assert rollouts.rows == len(rows)
        np.testing.assert_array_equal(
            rollouts.arrays("action"), np.array([row["action"] for row in rows])
        )
    with open_rollouts(str(tmp_path / "b.h5")) as rollouts:
        for index, row in enumerate(rollouts.episodes.rows(named=True)):
            assert row["number"] in (1, 3) and not row["partial"]
            true = expected[row["env"]][row["number"]]
            np.testing.assert_array_equal(
                rollouts[index]["obs/actor/image"], [each["obs/actor/image"] for each in true]
            )
    ended = sum(len(of) - (not _over(of[-1])) for of in expected)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == ended


def _over(episode: Any) -> bool:
    return episode[-1]["terminated"] or episode[-1]["truncated"]


@pytest.mark.parametrize("name", ["CartPole-v1", "maze"])
@pytest.mark.parametrize("kind", ["minari", "robomimic", "lerobot"])
def test_a_recording_is_exported(name, kind, tmp_path):
    make = MAKERS[name]
    path = str(tmp_path / "a.h5")
    with RecordVector(SyncVectorEnv([make] * 2), {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        drive(envs, some_actions(make, 12, 2))
    target = tmp_path / {"minari": "some-v0", "robomimic": "a.hdf5", "lerobot": "le"}[kind]
    options = {"pictures": "numbers"} if kind == "lerobot" else {}
    done = export_rollouts(path, str(target), kind, **options)
    with open_rollouts(path) as rollouts:
        assert done.rows == rollouts.rows and done.episodes == len(rollouts.episodes)


class Batched(gymnasium.vector.VectorEnv):
    """The shape of ManiSkill's vector environment: torch in and out, resets inside a step."""

    # Also of one that does not reset.
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int, auto_reset: bool = True, device: str = "cpu") -> None:
        self.num_envs, self.auto_reset = num_envs, auto_reset
        self.single_observation_space = spaces.Dict({"qpos": spaces.Box(-9e9, 9e9, (2,))})
        self.single_action_space = spaces.Box(-1, 1, (2,))
        self.device = torch.device(device)
        self.numbers = torch.arange(num_envs, device=device)
        self.elapsed_steps = torch.zeros(num_envs, dtype=torch.int32, device=device)
        self.qpos = torch.zeros(num_envs, 2, device=device)
        self.calls = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        ids = (options or {}).get("env_idx", self.numbers)
        self.calls += 1
        self.qpos = self.qpos.clone()
        self.qpos[ids] = 100.0 * self.calls + self.numbers[ids, None]
        self.elapsed_steps[ids] = 0
        return {"qpos": self.qpos}, {"reconfigure": False, "elapsed_steps": self.elapsed_steps}

    def step(self, actions: torch.Tensor) -> Any:
        self.qpos = self.qpos + actions
        self.elapsed_steps += 1
        terminated = self.elapsed_steps >= self.numbers + 2
        truncated = torch.zeros_like(terminated)
        reward = self.qpos.sum(dim=1)
        infos = {"success": self.qpos[:, 0] % 2 > 1, "elapsed_steps": self.elapsed_steps.clone()}
        obs, done = {"qpos": self.qpos}, terminated | truncated
        if done.any() and self.auto_reset:
            final_obs, final_info = obs, infos
            obs, infos = self.reset(options={"env_idx": done.nonzero().flatten()})
            infos |= {"final_observation": final_obs, "final_info": final_info}
            infos |= dict.fromkeys(("_final_info", "_final_observation", "_elapsed_steps"), done)
        return obs, reward, terminated, truncated, infos


@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_torch_environments_that_reset_inside(device, auto_reset, tmp_path):
    path = str(tmp_path / "a.h5")
    log: list[list[Any]] = [[] for _ in range(3)]
    envs = RecordVector(
        Batched(3, auto_reset, device),
        {"rows": Hdf5RecorderCfg(path=path)},
        infos=("elapsed_steps", "success"),
        success="success",
    )
    with envs:
        obs, _ = envs.reset(seed=1)
        for _ in range(14):
            action = torch.rand(3, 2, device=device)
            before = obs["qpos"].clone()
            obs, reward, terminated, _, infos = envs.step(action)
            after, info = obs["qpos"].clone(), infos
            if auto_reset and terminated.any():
                after = infos["final_observation"]["qpos"].clone()
                info = infos["final_info"]
            for i in range(3):
                row = (before[i], action[i], reward[i], after[i], info["success"][i])
                log[i].append(
                    [*(value.clone().cpu().numpy() for value in row), bool(terminated[i])]
                )
            if not auto_reset and terminated.any():
                obs, _ = envs.reset(options={"env_idx": terminated.nonzero().flatten()})
    with open_rollouts(path) as rollouts:
        got: list[list[Any]] = [[] for _ in range(3)]
        for index, episode in enumerate(rollouts.episodes.rows(named=True)):
            arrays = rollouts[index]
            assert arrays["info/elapsed_steps"].tolist() == (arrays["step"] + 1).tolist()
            if not episode["cut"]:
                assert episode["success"] == bool(arrays["info/success"][-1])
            names = "obs/actor/qpos", "action", "reward", "next_obs/actor/qpos", "info/success"
            got[episode["env"]] += zip(
                *(arrays[name] for name in (*names, "terminated")), strict=True
            )
        for env in range(3):
            assert len(got[env]) == len(log[env]) == 14
            for mine, true in zip(got[env], log[env], strict=True):
                for one, other in zip(mine, true, strict=True):
                    np.testing.assert_array_equal(one, other)


def test_a_failed_step_ends_the_episodes_before_it(tmp_path):
    class Fails(Maze):
        def step(self, action: Any) -> Any:
            if self.step_number == 3:
                raise OSError("broken")
            return super().step(action)

    path = str(tmp_path / "a.h5")
    make = partial(Fails, most=100)
    with RecordVector(SyncVectorEnv([make] * 2), {"rows": Hdf5RecorderCfg(path=path)}) as envs:
        envs.reset(seed=[4, 4])
        with pytest.raises(OSError, match="broken"):
            for _ in range(5):
                envs.step(np.zeros((2, 2), np.float32))
        envs.reset(seed=[4, 4])
        envs.step(np.zeros((2, 2), np.float32))
    with open_rollouts(path) as rollouts:
        assert rollouts.episodes["rows"].to_list() == [3, 1, 3, 1]


def test_what_a_kill_leaves_can_be_read(tmp_path):
    path, left = tmp_path / "a.h5", tmp_path / "left.h5"
    actions = some_actions(Maze, 25, 3)
    inner = SyncVectorEnv([Maze] * 3)
    with RecordVector(inner, Hdf5RecorderCfg(path=str(path), block_steps=4)) as envs:
        envs.reset(seed=11)
        for action in actions:
            envs.step(action)
        envs.recorder_manager.get_term("recorder").flush()
        shutil.copy(path, left)
    with open_rollouts(str(left)) as rollouts:
        assert not rollouts.finished
        check_rows(rollouts, lives(Maze, 11, actions, "next_step"))


def test_a_recorder_that_does_not_need_final_observations_needs_none(tmp_path):
    class Forgets(gymnasium.vector.VectorWrapper):
        """Says nothing about final observations."""

        def step(self, actions: Any) -> Any:
            *values, _ = super().step(actions)
            return (*values, {})

    path = str(tmp_path / "a.h5")
    inner = SyncVectorEnv([Tiny] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    cfg = Hdf5RecorderCfg(path=path, channels=("obs", "action", "reward", "terminated"))
    actions = some_actions(Tiny, 30, 2)
    with RecordVector(Forgets(inner), cfg) as envs:
        drive(envs, actions)
    with open_rollouts(path) as rollouts:
        assert rollouts.rows == 60
    inner = SyncVectorEnv([Tiny] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with RecordVector(Forgets(inner), Hdf5RecorderCfg(path=path, if_exists="overwrite")) as envs:
        with pytest.raises(ValueError, match="have no 'final_obs'.*NEXT_STEP"):
            drive(envs, actions)


class Parts(Tiny):
    """Takes actions of several parts."""

    action_space = spaces.Dict(
        {"move": spaces.Box(-1, 1, (2,)), "grip": spaces.Discrete(3), "say": spaces.Text(4)}
    )

    def step(self, action: Any) -> Any:
        return super().step([float(action["move"][0])])


def test_actions_of_several_parts(tmp_path, caplog):
    path = str(tmp_path / "a.h5")
    given = [{"move": np.float32([t / 8, 0]), "grip": t % 3, "say": "ha"} for t in range(9)]
    with RecordEnv(Parts(), Hdf5RecorderCfg(path=path)) as env:
        env.reset(seed=1)
        for action in given:
            if any(env.step(action)[2:4]):
                env.reset()
    assert "Parts of the action space are not recorded" in caplog.text
    assert "say (Text)" in caplog.text
    with open_rollouts(path) as rollouts:
        assert rollouts.arrays("action/grip").tolist() == [each["grip"] for each in given]
        np.testing.assert_array_equal(
            rollouts.arrays("action/move"), [each["move"] for each in given]
        )


def test_functions_of_the_user_do_not_change_random_numbers(tmp_path):
    def noise(env: Any) -> torch.Tensor:
        return torch.rand(env.num_envs) + float(np.random.rand())

    torch.manual_seed(0)
    np.random.seed(0)
    want = torch.rand(3), np.random.rand(3)
    torch.manual_seed(0)
    np.random.seed(0)
    with RecordVector(SyncVectorEnv([Tiny] * 2)) as envs:
        envs.reset(seed=0)
        envs.start_recording(noise, Hdf5RecorderCfg(path=str(tmp_path / "a.h5")))
        for _ in range(5):
            envs.step(np.zeros((2, 1), np.float32))
    assert torch.equal(torch.rand(3), want[0])
    np.testing.assert_array_equal(np.random.rand(3), want[1])


@pytest.mark.parametrize("mode", MODES)
def test_the_flight_recorder_keeps_the_last_true_rows(mode, tmp_path):
    class Diverges(Tiny):
        total = 0

        def step(self, action: Any) -> Any:
            type(self).total += 1
            obs, reward, *rest = super().step(action)
            return (obs, np.nan if self.total == 30 else reward, *rest)

    cfg = FlightRecorderCfg(path=str(tmp_path), channels=("obs", "action", "reward"), steps=12)
    actions = some_actions(Diverges, 25, 2)
    with RecordVector(SyncVectorEnv([Diverges] * 2, autoreset_mode=MODES[mode]), cfg) as envs:
        drive(envs, actions)
    Diverges.total = 100  # Without a NaN.
    expected = lives(Diverges, 11, actions, mode)
    (folder,) = tmp_path.glob("Diverges-*")
    with open_rollouts(str(folder / "rollout.npz")) as rollouts:
        assert rollouts.rows >= 8
        for index, row in enumerate(rollouts.episodes.rows(named=True)):
            arrays, true = rollouts[index], expected[row["env"]][row["number"]]
            steps = arrays["step"].tolist()
            assert steps == list(range(steps[0], steps[0] + len(steps))) and steps[0] >= 0
            assert row["start"] == true[steps[0]]["t"]
            for step, obs, reward in zip(steps, arrays["obs/actor"], arrays["reward"], strict=True):
                np.testing.assert_array_equal(obs, true[step]["obs/actor"])
                assert np.isnan(reward) or reward == true[step]["reward"]
