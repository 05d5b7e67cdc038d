"""Corners of the recorders around Gymnasium's environments: odd infos, types, spaces and errors."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gym_worlds import Lived, Maze, Tiny
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from mjlab_rec.adapters.frames import RenderedFrames
from mjlab_rec.adapters.gym_env import RecordEnv
from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.adapters.infos import Infos
from mjlab_rec.adapters.saved_state import SavedState
from mjlab_rec.data import open_rollouts
from mjlab_rec.recorders import DEFAULT_CHANNELS, Hdf5RecorderCfg


class Edited(VectorWrapper):
    """Changes what a step returns."""

    def __init__(self, env: Any, edit: Any) -> None:
        super().__init__(env)
        self.edit = edit
        self.t = -1

    def reset(self, **kwargs: Any) -> Any:
        obs, infos = super().reset(**kwargs)
        return self.edit(-1, obs, infos)[:2]

    def step(self, actions: Any) -> Any:
        self.t += 1
        obs, *values, infos = super().step(actions)
        obs, infos = self.edit(self.t, obs, infos)
        return (obs, *values, infos)


def no_actions(count: int) -> np.ndarray:
    return np.zeros((count, 1), np.float32)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_statistics_of_a_wrapper_are_in_the_last_row(mode, as_list, tmp_path):
    path = str(tmp_path / "a.h5")
    inner: Any = RecordEpisodeStatistics(SyncVectorEnv([Tiny] * 2, autoreset_mode=mode))
    inner = DictInfoToList(inner) if as_list else inner
    with RecordVector(inner, Hdf5RecorderCfg(path=path), infos=("episode/r",)) as envs:
        envs.reset(seed=3)
        for _ in range(15):
            envs.step(no_actions(2))
    with open_rollouts(path) as rollouts:
        ended = 0
        for index, facts in enumerate(rollouts.episodes.rows(named=True)):
            got = rollouts[index]["info/episode/r"]
            assert np.isnan(got[:-1]).all() and np.isnan(got[-1]) == facts["cut"]
            if not facts["cut"]:
                assert got[-1] == pytest.approx(facts["return"])
                ended += 1
        assert ended > 2


@pytest.mark.parametrize("fails", [(3,), (4, 5), (6, 9), (7, 11, 14)])
def test_rows_after_a_step_whose_infos_cannot_be_recorded(fails, tmp_path):
    def edit(t: int, obs: Any, infos: Any) -> Any:
        return obs, {"x": np.zeros((2, 7) if t in fails else 2)}

    path = str(tmp_path / "a.h5")
    inner = Edited(SyncVectorEnv([Tiny] * 2), edit)
    with RecordVector(inner, Hdf5RecorderCfg(path=path), infos=("x",)) as envs:
        envs.reset(seed=3)
        for t in range(25):
            if t in fails:
                with pytest.raises(ValueError, match="The info 'x' has the shape"):
                    envs.step(no_actions(2))
            else:
                envs.step(no_actions(2))
    true: dict[tuple[int, int], Any] = {}  # The rows by environment and step.
    for env in range(2):
        life, step = Lived(Tiny, 3 + env), 0
        for t in range(25):
            if life.over:
                life.reset()
                step = 0
            else:
                life.step(no_actions(1)[0], t)
                true[env, t] = life.episodes[-1][-1] | {"step": step}
                step += 1
            if t in fails:
                step = 0
    # Neither a failed step nor the next one has a row.
    lost = {*fails, *(t + 1 for t in fails)}
    seen = set()
    with open_rollouts(path) as rollouts:
        for index, facts in enumerate(rollouts.episodes.rows(named=True)):
            arrays = rollouts[index]
            for i in range(facts["rows"]):
                key = facts["env"], facts["start"] + i
                seen.add(key)
                for name in ("obs/actor", "next_obs/actor", "reward", "terminated", "step"):
                    np.testing.assert_array_equal(arrays[name][i], true[key][name])
    assert seen == {key for key in true if key[1] not in lost}


def test_a_recorder_of_everything_does_not_depend_on_the_order_of_recorders(tmp_path):
    everything = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"))
    some = Hdf5RecorderCfg(path=str(tmp_path / "b.h5"), channels=("info/x_position",))
    for recorders in ({"a": everything, "b": some}, {"b": some, "a": everything}):
        with RecordEnv(Maze(), recorders) as env:
            env.reset(seed=0)
            env.step(np.zeros(2, np.float32))
        with open_rollouts(str(tmp_path / "a.h5")) as rollouts:
            assert "info/x_position" in rollouts[0]
        (tmp_path / "a.h5").unlink()
        (tmp_path / "b.h5").unlink()


class Odd(Tiny):
    """Has a part that numpy cannot hold as one array."""

    observation_space = spaces.Dict(
        {
            "x": Tiny.observation_space,
            "one": spaces.OneOf((spaces.Discrete(2), spaces.Box(0, 1, (3,)))),
        }
    )

    def reset(self, **kwargs: Any) -> Any:
        x, info = super().reset(**kwargs)
        return {"x": x, "one": (1, np.zeros(3))}, info

    def step(self, action: Any) -> Any:
        x, *values = super().step(action)
        return ({"x": x, "one": (1, np.zeros(3))}, *values)


def test_parts_that_are_not_recorded_may_have_any_shape(tmp_path, caplog):
    path = str(tmp_path / "a.h5")
    with RecordEnv(Odd(), Hdf5RecorderCfg(path=path)) as env:
        env.reset(seed=1)
        after, *_ = env.step(np.zeros(1, np.float32))
    assert "one (OneOf)" in caplog.text
    with open_rollouts(path) as rollouts:
        np.testing.assert_array_equal(rollouts[0]["next_obs/actor/x"], [after["x"]])


def test_parts_of_the_same_name_are_refused():
    class Twice(Tiny):
        observation_space = spaces.Dict(
            {"a/b": spaces.Box(0, 1), "a": spaces.Dict({"b": spaces.Box(0, 1)})}
        )

    with pytest.raises(ValueError, match="several parts.* under the same name: a/b"):
        RecordEnv(Twice())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, np.uint64])
def test_observations_of_another_type_than_their_space(kind, tmp_path):
    def edit(t: int, obs: Any, infos: Any) -> Any:
        given = torch.from_numpy(obs).to(kind) if kind is not np.uint64 else abs(obs).astype(kind)
        seen.append(np.asarray(given.to(torch.float64) if kind is not np.uint64 else given))
        return given, infos

    seen: list[np.ndarray] = []
    path = str(tmp_path / "a.h5")
    inner = Edited(SyncVectorEnv([Tiny] * 2, autoreset_mode=AutoresetMode.DISABLED), edit)
    with RecordVector(inner, Hdf5RecorderCfg(path=path)) as envs:
        envs.reset(seed=5)
        envs.step(no_actions(2))
    with open_rollouts(path) as rollouts:
        for env in range(2):
            for name, values in zip(("obs/actor", "next_obs/actor"), seen, strict=True):
                np.testing.assert_array_equal(rollouts[env][name][0], values[env])


def test_a_wrapper_that_could_not_be_made_leaves_the_environment_open():
    closed = []

    class Inner(SyncVectorEnv):
        def close(self, **kwargs: Any) -> None:
            closed.append(self)

    class Half(RecordVector):
        def __init__(self, env: Any) -> None:
            halves.append(self)
            super().__init__(env, autoreset_mode="never")

    halves: list[Any] = []
    with pytest.raises(ValueError, match="Unknown autoreset_mode"):
        Half(Inner([Tiny]))
    halves[0].close()  # As Gymnasium does when it is deleted.
    assert not closed


def test_an_environment_that_is_reset_twice_at_once_begins_one_episode(tmp_path):
    class Chooses(VectorWrapper):
        """Takes indices, like ManiSkill."""

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            ids = (options or {}).get("env_idx")
            if ids is not None:
                options = {"reset_mask": np.isin(np.arange(self.num_envs), ids)}
            return super().reset(seed=seed, options=options)

    path = str(tmp_path / "a.h5")
    make = partial(Maze, most=100)
    inner = Chooses(SyncVectorEnv([make] * 2))
    with RecordVector(inner) as envs:
        envs.reset(seed=[4, 4])
        envs.step(np.zeros((2, 2), np.float32))
        envs.reset(options={"env_idx": [1, 1]})
        envs.start_recording(Hdf5RecorderCfg(path=path))
        envs.step(np.zeros((2, 2), np.float32))
    with open_rollouts(path) as rollouts:
        numbers = rollouts.episodes.select("env", "number", "rows").rows()
        assert numbers == [(0, 0, 1), (1, 1, 1)]


def test_infos_that_are_read_only_or_no_array_of_numbers():
    infos = Infos(("x", "y"), 2, "cpu")
    given = np.array([1, 2], np.uint32)
    given.flags.writeable = False
    infos.take({"x": given[::-1], "_x": np.array([True, False])}, None)
    np.testing.assert_array_equal(infos["x"].numpy(), [2.0, np.nan])
    with pytest.raises(ValueError, match="'x' is not a number nor an array of numbers"):
        infos.take({"x": np.array(["a", "b"])}, None)
    with pytest.raises(ValueError, match="'y' is one value for all environments together"):
        infos.take({"y": 3.0}, None)


def test_a_missing_final_observation_is_said(tmp_path):
    def edit(t: int, obs: Any, infos: Any) -> Any:
        if "final_obs" in infos:
            infos["final_obs"][:] = None
        return obs, infos

    inner = Edited(SyncVectorEnv([Tiny] * 2, autoreset_mode=AutoresetMode.SAME_STEP), edit)
    with RecordVector(inner, Hdf5RecorderCfg(path=str(tmp_path / "a.h5"))) as envs:
        envs.reset(seed=3)
        with pytest.raises(ValueError, match="have no 'final_obs'"):
            for _ in range(30):
                envs.step(no_actions(2))


def test_frames_of_environments_that_do_not_draw():
    frames = RenderedFrames(lambda: [None, None], 2, lambda: None, "walk")
    with pytest.raises(ValueError, match='walk: render.. returned nothing.*"rgb_array"'):
        frames.capture([0])


def test_arrays_that_nothing_can_write_to_are_left_alone():
    class Term:
        table = np.arange(3)
        values = np.arange(3)

    term = Term()
    term.table, term.values = np.arange(3), np.arange(3)
    term.table.flags.writeable = False
    saved = SavedState([term])
    term.values[:] = 7
    saved.restore()
    assert term.values.tolist() == [0, 1, 2]


def test_gymnasium_knows_the_spec_of_a_wrapped_environment():
    with RecordEnv(gymnasium.make("CartPole-v1")) as env:
        assert env.spec is not None and env.spec.id == "CartPole-v1"


def test_what_cannot_be_recorded_is_said():
    class Talk(Maze):
        observation_space = spaces.Text(5)

    with pytest.raises(ValueError, match="observation space Text.*cannot be recorded"):
        RecordEnv(Talk())
    envs = SyncVectorEnv([Maze])
    envs.metadata = {}
    with pytest.raises(ValueError, match="does not say when it resets.*Give autoreset_mode"):
        RecordVector(envs)
    with pytest.raises(ValueError, match="Unknown autoreset_mode 'NEXT'.*NEXT_STEP"):
        RecordVector(envs, autoreset_mode="NEXT")
    envs = RecordVector(envs, autoreset_mode="next_step")
    with pytest.raises(RuntimeError, match="Call reset"):
        envs.step(np.zeros((1, 2), np.float32))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(envs)
    with pytest.raises(ValueError, match="Unknown channel 'state'"):
        envs.start_recording(("state",), Hdf5RecorderCfg(path="never.h5"))
    envs.close()
    envs.close()
    with pytest.raises(RuntimeError, match="closed"):
        envs.reset()


def test_an_info_of_another_shape_is_refused(tmp_path):
    cfg = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=("info/goal",))
    with RecordEnv(Maze(), {"rows": cfg}) as env:
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"infos=\{'goal': \(2,\)\}"):
            env.step(np.zeros(2, np.float32))


def test_rounded_actions_are_said(tmp_path, caplog):
    cfg = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=DEFAULT_CHANNELS)
    with RecordEnv(Maze(), {"rows": cfg}) as env:
        env.reset(seed=0)
        env.step(np.array([0.5, 0.25]))
        assert "rounded" not in caplog.text
        env.step(np.array([0.1, 0.25]))
        assert "The action is of type float64, but is recorded as float32" in caplog.text
