"""The environment as Gymnasium knows it: found by id, numpy arrays, final observations."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from worlds import cart_cfg

import mjlab_rec
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.rl import NumpyVectorEnv

ID = "mjlab_rec/cartpole-balance-v0"


def numpy_env(**overrides: Any) -> NumpyVectorEnv:
    """Four environments whose first episodes take 7, 4, 9 and 5 steps."""
    return NumpyVectorEnv(ManagerBasedRlEnv(cart_cfg(**overrides)))


def structure(value: Any) -> Any:
    """The keys, types and shapes of nested dicts of arrays, without the values."""
    if isinstance(value, dict):
        return {name: structure(item) for name, item in value.items()}
    return type(value), value.shape, value.dtype


def assert_equal(left: Any, right: Any) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name in left:
            assert_equal(left[name], right[name])
    else:
        np.testing.assert_array_equal(left, right)


def step_to_first_end(env: gymnasium.vector.VectorEnv) -> tuple[np.ndarray, dict[str, Any]]:
    """Step with action zero until an episode ends; its done flags and info."""
    env.reset(seed=1)
    for _ in range(20):
        action = np.zeros(env.action_space.shape, env.action_space.dtype)
        _, _, terminated, truncated, info = env.step(action)
        if (terminated | truncated).any():
            return terminated | truncated, info
        assert info == {}
    raise AssertionError("no episode ended")


@pytest.mark.parametrize("first", ["mjlab_rec", "gymnasium"])
def test_tasks_are_found_whichever_package_is_imported_first(first):
    second = {"mjlab_rec": "gymnasium", "gymnasium": "mjlab_rec"}[first]
    code = f"import {first}, {second}\nprint(gymnasium.spec({ID!r}).kwargs['task_id'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "cartpole-balance\n"


def test_make_vec_builds_the_task_with_overrides():
    assert mjlab_rec
    with pytest.raises(gymnasium.error.NameNotFound, match="cartpole-balance"):
        gymnasium.make_vec("mjlab_rec/cartpole-balanse-v0")
    overrides = {"sim.engine": "mjbatch", "decimation": 2}
    env = gymnasium.make_vec(ID, num_envs=3, seed=5, device="cpu", **overrides)
    assert isinstance(env, ManagerBasedRlEnv)
    assert (env.num_envs, env.cfg.seed, env.cfg.decimation) == (3, 5, 2)
    assert env.spec is not None and env.spec.id == ID
    obs, _ = env.reset()
    assert isinstance(obs["actor"], torch.Tensor)
    env.close()


def test_make_vec_names_the_nearest_cfg_field():
    with pytest.raises(ValueError, match="decimation"):
        gymnasium.make_vec(ID, decimatoin=2)


def test_make_vec_can_give_numpy_arrays():
    env = gymnasium.make_vec(ID, num_envs=2, device="cpu", numpy=True)
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs) and info == {}
    env.close()


def test_a_task_registered_later_is_found():
    from mjlab_rec import registry

    registry.register_task("late-cart", env_cfg=cart_cfg)
    env = gymnasium.make_vec("mjlab_rec/late-cart-v0", num_envs=2, device="cpu")
    assert env.num_envs == 2
    env.close()


def test_the_id_may_name_a_module_to_import_first(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from mjlab_rec.registry import register_task\nregister_task('mine', env_cfg='x:y')\n"
    (tmp_path / "my_tasks_to_import.py").write_text(source)
    with pytest.raises(ValueError, match="'x:y'"):
        gymnasium.make_vec("my_tasks_to_import:mjlab_rec/mine-v0")


@pytest.mark.parametrize("make", [gymnasium.make, partial(gymnasium.make_vec, num_envs=2)])
def test_gymnasium_make_is_refused_with_the_alternative(make):
    options = {} if make is gymnasium.make else {"vectorization_mode": "sync"}
    with pytest.raises(gymnasium.error.Error, match=rf"Use gymnasium.make_vec\('{ID}'"):
        make(ID, **options)


def test_importing_tasks_is_light_and_does_not_change_gymnasium():
    code = (
        "import sys, gymnasium\n"
        "from gymnasium.envs import registration\n"
        "before = list(sys.meta_path), dict(vars(registration)), dict(vars(gymnasium))\n"
        "import mjlab_rec\n"
        "after = list(sys.meta_path), dict(vars(registration)), dict(vars(gymnasium))\n"
        "print(before == after, 'tasks.cartpole.env_cfg' in sys.modules, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True False False\n"


def test_final_info_has_the_format_of_gymnasiums_own_vector_env():
    mode = AutoresetMode.SAME_STEP

    def cart_pole() -> gymnasium.Env:
        return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))

    theirs = SyncVectorEnv([cart_pole] * 4, autoreset_mode=mode)
    ours = numpy_env()
    assert ours.metadata["autoreset_mode"] is mode
    their_done, expected = step_to_first_end(theirs)
    done, info = step_to_first_end(ours)
    assert info.keys() == expected.keys()
    assert list(done) == [False, True, False, False]

    for key in ("final_obs", "_final_obs", "_final_info"):
        assert structure(info[key]) == structure(expected[key])
    for key in ("_final_obs", "_final_info"):
        np.testing.assert_array_equal(expected[key], their_done)
        np.testing.assert_array_equal(info[key], done)
    assert [obs is None for obs in info["final_obs"]] == list(~done)
    assert [obs is None for obs in expected["final_obs"]] == list(~their_done)

    # Theirs adds the wall-clock time of an episode.
    ended = {k: v for k, v in expected["final_info"]["episode"].items() if k not in ("t", "_t")}
    assert structure(info["final_info"]["episode"]) == structure(ended)
    np.testing.assert_array_equal(info["final_info"]["_episode"], done)
    ours.close()
    theirs.close()


def test_final_obs_is_the_last_observation_of_the_episode():
    # Without resets nothing replaces the last observation: it is the truth to compare with.
    whole = numpy_env(auto_reset=False)
    env = numpy_env()
    env.reset(seed=3)
    whole.reset(seed=3)
    action = np.full((4, 1), 0.3, np.float32)
    for _ in range(4):
        obs, _, terminated, _, info = env.step(action)
        truth, *_ = whole.step(action)
    assert list(terminated) == [False, True, False, False]
    final = info["final_obs"][1]
    assert env.single_observation_space.contains(final)
    assert_equal(final["actor"], truth["actor"][1])
    assert_equal(final["critic"], {name: value[1] for name, value in truth["critic"].items()})
    assert not np.array_equal(final["actor"], obs["actor"][1])
    env.close()
    whole.close()


def test_final_info_counts_return_and_length():
    env = numpy_env()
    env.reset(seed=3)
    returns, lengths = np.zeros(4), np.zeros(4, int)
    ended = 0
    for _ in range(16):
        _, reward, terminated, truncated, info = env.step(np.zeros((4, 1)))
        returns += reward
        lengths += 1
        for i in (terminated | truncated).nonzero()[0]:
            episode = info["final_info"]["episode"]
            assert episode["r"][i] == pytest.approx(returns[i])
            assert episode["l"][i] == lengths[i] == (7, 4, 9, 5)[i]
            returns[i], lengths[i] = 0.0, 0
            ended += 1
    assert ended == 2 + 4 + 1 + 3
    env.close()


def test_log_entries_go_to_the_episodes_that_ended():
    env = numpy_env()
    done, info = step_to_first_end(env)
    log = info["final_info"]["log"]
    assert "Episode_Reward/height" in log
    for name in ("Episode_Reward/height", "Episode_Metrics/height"):
        assert log[name].shape == (4,)
        assert log[name][1] != 0.0 and not log[name][~done].any()
        np.testing.assert_array_equal(log[f"_{name}"], done)
    env.close()


def test_spaces_contain_what_comes_out():
    env = numpy_env()
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert (env.single_action_space.low, env.single_action_space.high) == (-1.0, 1.0)
    env.action_space.seed(0)
    for _ in range(5):
        action = env.action_space.sample()
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(obs)
        assert [x.dtype for x in (reward, terminated, truncated)] == [np.float32, bool, bool]
    env.close()


def test_returned_arrays_are_never_changed():
    env = numpy_env()
    env.reset(seed=0)
    action = np.ones((4, 1), np.float32)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(6):
        action.setflags(write=False)
        obs, reward, terminated, *_ = env.step(action)
        action.setflags(write=True)
        kept += [(array, array.copy()) for array in (obs["actor"], reward, terminated)]
        action *= -1.0
    for array, copied in kept:
        np.testing.assert_array_equal(array, copied)
    env.close()


def test_reset_with_the_same_seed_repeats_the_rollout():
    env = numpy_env()

    def rollout(seed: int | None) -> list[np.ndarray]:
        seen = [env.reset(seed=seed)[0]["actor"]]
        for _ in range(10):
            seen.append(env.step(np.full((4, 1), 0.5))[0]["actor"])
        return seen

    first, other, again, unseeded = rollout(4), rollout(5), rollout(4), rollout(None)
    assert_equal(np.stack(first), np.stack(again))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], unseeded[0])
    assert not np.array_equal(first[0][0], first[0][1]), "environments must differ"
    env.close()


def test_reset_mask_resets_only_its_environments():
    env = numpy_env(steps=(100,))
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros((4, 1)))
    mask = np.array([False, True, False, True])
    options = {"reset_mask": mask}
    env.reset(options=options)
    assert options == {"reset_mask": mask}, "the caller's options are not to be changed"
    assert env.env.episode_length_buf.tolist() == [3, 0, 3, 0]
    env.close()


@pytest.mark.parametrize("mask", [[True] * 4, np.ones(3, bool), np.ones(4), np.zeros(4, bool)])
def test_reset_refuses_a_wrong_mask(mask):
    env = numpy_env()
    with pytest.raises(ValueError, match=r"reset_mask.*shape \(4,\)"):
        env.reset(options={"reset_mask": mask})
    env.close()


def test_reset_refuses_a_list_of_seeds():
    env = numpy_env()
    with pytest.raises(TypeError, match="one seed"):
        env.reset(seed=[1, 2, 3, 4])  # type: ignore[arg-type]
    env.close()


def test_gymnasiums_statistics_agree_with_ours():
    env = RecordEpisodeStatistics(numpy_env())
    env.reset(seed=2)
    ended = 0
    for _ in range(9):
        *_, info = env.step(np.zeros((4, 1), np.float32))
        if "final_info" in info:
            mask = info["_episode"]
            np.testing.assert_array_equal(mask, info["_final_info"])
            ours = info["final_info"]["episode"]
            np.testing.assert_allclose(info["episode"]["r"][mask], ours["r"][mask], rtol=1e-6)
            np.testing.assert_array_equal(info["episode"]["l"][mask], ours["l"][mask])
            ended += int(mask.sum())
    assert ended == env.episode_count == 1 + 2 + 1 + 1
    env.close()


def test_gymnasiums_list_of_infos_works():
    env = DictInfoToList(numpy_env())
    _, infos = env.reset(seed=2)
    assert infos == [{}, {}, {}, {}]
    for _ in range(4):
        *_, infos = env.step(np.zeros((4, 1), np.float32))
    assert [set(info) for info in infos] == [set(), {"final_obs", "final_info"}, set(), set()]
    assert infos[1]["final_info"]["episode"]["l"] == 4
    env.close()


def test_without_auto_reset_there_is_no_final_info():
    env = numpy_env(auto_reset=False)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset(seed=0)
    for _ in range(4):
        *_, terminated, _, info = env.step(np.zeros((4, 1)))
    assert terminated[1] and info == {}
    env.reset(options={"reset_mask": terminated})
    env.step(np.zeros((4, 1)))
    env.close()


def test_environments_do_not_share_metadata():
    one, other = numpy_env(), numpy_env(decimation=2)
    assert one.metadata["render_fps"] == pytest.approx(25.0)
    assert other.metadata["render_fps"] == pytest.approx(50.0)
    one.metadata["render_fps"] = 7.0
    assert other.metadata["render_fps"] == pytest.approx(50.0)
    assert ManagerBasedRlEnv.metadata.get("render_fps") is None
    one.close()
    other.close()


def test_render_gives_a_picture_of_each_environment():
    cfg = cart_cfg()
    cfg.viewer.width, cfg.viewer.height, cfg.viewer.max_extra_envs = 32, 24, 0
    env = NumpyVectorEnv(ManagerBasedRlEnv(cfg, render_mode="rgb_array"))
    env.reset(seed=0)
    try:
        frames = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    finally:
        env.close()
    assert isinstance(frames, tuple) and [frame.shape for frame in frames] == [(24, 32, 3)] * 4
    assert not np.array_equal(frames[0], frames[1])


def test_render_without_a_mode_gives_nothing():
    env = numpy_env()
    assert env.render_mode is None and env.render() is None
    env.close()
