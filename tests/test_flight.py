"""The flight recorder: what makes it write, what it writes, and nothing otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import Channel
from mjlab_rec.recorders.failures import FailureDetector
from mjlab_rec.recorders.flight import FlightRecorder, FlightRecorderCfg


class Poison:
    """A channel that a test can spoil."""

    def __init__(self) -> None:
        self.value = torch.zeros(4, 2)

    def channel(self, when: Any = "after") -> Channel:
        return Channel(name="poison", func=lambda env: self.value, when=when)


def make(tmp_path: Path, env_cfg: dict[str, Any] | None = None, **cfg: Any) -> Any:
    recorder = FlightRecorderCfg(path=str(tmp_path / "flight"), **cfg)
    env = ManagerBasedRlEnv(cart_cfg(recorders={"flight": recorder}, **(env_cfg or {})))
    env.reset()
    return env


def flight(env: Any) -> FlightRecorder:
    return env.recorder_manager.get_term("flight")


def dumps(tmp_path: Path) -> list[str]:
    folder = tmp_path / "flight"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def dumped(env: Any) -> Path:
    """Dump now."""
    folder = flight(env).dump()
    assert folder is not None
    return folder


def reason(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "reason.json").read_text())


# What makes it write.


def test_nothing_is_written_while_all_is_well(tmp_path):
    with make(tmp_path, steps=5) as env:
        for action in actions(30):
            env.step(action)
    assert dumps(tmp_path) == [] and flight(env).files == flight(env).folders == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_value_that_is_not_finite_is_written_with_what_led_to_it(tmp_path, bad, when):
    poison = Poison()
    with make(tmp_path, steps=5, channels=("action", poison.channel(when))) as env:
        given = actions(3)
        for action in given[:2]:
            env.step(action)
        poison.value[2, 1] = bad
        env.step(given[2])
        (folder,) = flight(env).folders
    assert folder.name == "ManagerBasedRlEnv-step-3-nan"
    assert reason(folder)["step"] == 3 and reason(folder)["envs"] == [2]
    with open_rollouts(folder / "rollout.npz") as rollouts:
        (episode,) = rollouts
    # Three rows with a result, and the one that the next step would have started from.
    assert episode["step"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(episode["action"][:3], torch.stack(given)[:, 2])
    assert not np.isfinite(episode["poison"][3 if when == "before" else 2, 1])
    assert np.isfinite(episode["poison"][:2]).all()


def test_a_value_that_stays_bad_is_written_once_and_again_when_it_turns_bad_anew(tmp_path):
    poison = Poison()
    with make(tmp_path, steps=5, channels=(poison.channel(),)) as env:
        for value in [0.0, np.nan, np.nan, 0.0, np.nan, np.nan]:
            poison.value[0] = value
            env.step(actions(1)[0])
        poison.value[1] = np.nan  # Another environment counts by itself.
        env.step(actions(1)[0])
        folders = flight(env).folders
    assert [reason(folder)["step"] for folder in folders] == [2, 5, 7]
    assert [reason(folder)["envs"] for folder in folders] == [[0], [0], [1]]


def test_a_new_episode_can_turn_bad_anew(tmp_path):
    poison = Poison()
    with make(tmp_path, steps=5, channels=(poison.channel(),)) as env:
        poison.value[0] = np.nan
        env.step(actions(1)[0])
        env.reset()
        env.step(actions(1)[0])
    assert [reason(folder)["step"] for folder in flight(env).folders] == [1, 2]


def test_large_values_are_finite(tmp_path):
    poison = Poison()
    poison.value[:] = 3e38
    with make(tmp_path, steps=5, channels=(poison.channel(),)) as env:
        env.step(actions(1)[0])
    assert dumps(tmp_path) == []


def test_nan_can_be_ignored(tmp_path):
    poison = Poison()
    poison.value[:] = np.nan
    with make(tmp_path, steps=5, channels=(poison.channel(),), on_nan=False) as env:
        env.step(actions(1)[0])
    assert dumps(tmp_path) == []


def test_a_chosen_termination_writes_the_environments_that_it_ended(tmp_path):
    with make(tmp_path, steps=3, channels=("obs", "action"), on_terminations=("end",)) as env:
        for action in actions(5):  # Environment 1 ends after 4 steps, 3 after 5.
            env.step(action)
        first, second = flight(env).folders
    assert first.name.endswith("step-4-end") and reason(first)["envs"] == [1]
    assert second.name.endswith("step-5-end") and reason(second)["envs"] == [3]
    with open_rollouts(first / "rollout.npz") as rollouts:
        table = rollouts.episodes
        ended, fresh = rollouts
    assert table["terminated"].to_list() == [True, False]
    assert table["length"].to_list() == [4, 1] and table["number"].to_list() == [0, 1]
    assert table["start"].to_list() == [1, 4]
    assert ended["step"].tolist() == [1, 2, 3] and fresh["step"].tolist() == [0]
    assert np.array_equal(ended["action"], torch.stack(actions(4))[1:, 1])
    assert np.isnan(fresh["action"]).all() and np.isfinite(fresh["obs/actor"]).all()


def test_an_error_in_step_is_written_and_still_raised(tmp_path):
    with make(tmp_path, steps=3) as env:
        env.step(actions(1)[0])
        with pytest.raises(ValueError, match="NaN"):
            env.step(torch.full((4, 1), np.nan))
        (folder,) = flight(env).folders
        env.step(actions(1)[0])
        assert dumped(env).name.endswith("step-2-manual")
    assert folder.name.endswith("step-1-exception-in-step")
    assert "The action has NaN" in reason(folder)["error"]
    assert reason(folder)["envs"] == [0, 1, 2, 3]


def test_an_error_within_a_reset_is_written_and_recording_goes_on_afresh(tmp_path):
    trouble = SimpleNamespace(on=False)

    def curriculum(env_ids: torch.Tensor) -> None:
        if trouble.on:
            raise OSError("sensor lost")

    with make(tmp_path, steps=9, channels=("action",)) as env:
        env.curriculum_manager.compute = curriculum  # It comes between the hooks of a reset.
        for action in actions(3):
            env.step(action)
        trouble.on = True
        with pytest.raises(OSError, match="sensor lost"):
            env.step(actions(1)[0])
        trouble.on = False
        (folder,) = flight(env).folders
        env.reset()
        env.step(actions(1)[0])
        again = dumped(env)
    with open_rollouts(folder / "rollout.npz") as rollouts:
        assert [len(episode["step"]) for episode in rollouts] == [4] * 4
        assert all(np.isnan(episode["action"][-1]).all() for episode in rollouts)
    with open_rollouts(again / "rollout.npz") as rollouts:
        assert [episode["step"].tolist() for episode in rollouts] == [[0, 1]] * 4


def test_an_error_of_the_caller_that_closes_the_environment_is_written(tmp_path):
    with pytest.raises(ZeroDivisionError), make(tmp_path, steps=3) as env:
        env.step(actions(1)[0])
        _ = 1 / 0
    (folder,) = flight(env).folders
    assert folder.name.endswith("step-1-exception")
    assert "ZeroDivisionError" in reason(folder)["error"]


def test_one_error_is_written_once(tmp_path):
    with pytest.raises(ValueError, match="NaN"), make(tmp_path, steps=3) as env:
        env.step(torch.full((4, 1), np.nan))
    assert [name.rpartition("step-")[2] for name in dumps(tmp_path)] == ["0-exception-in-step"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_is_no_error(tmp_path, error):
    with pytest.raises(error), make(tmp_path, steps=3) as env:
        env.step(actions(1)[0])
        raise error
    assert dumps(tmp_path) == []


def test_errors_can_be_ignored(tmp_path):
    with pytest.raises(ValueError), make(tmp_path, steps=3, on_exception=False) as env:
        env.step(torch.full((4, 1), np.nan))
    assert dumps(tmp_path) == []


def test_no_more_dumps_than_allowed(tmp_path):
    with make(tmp_path, steps=3, max_dumps=2) as env:
        made = [flight(env).dump("look at this!") for _ in range(3)]
    assert made[2] is None
    assert flight(env).files == [folder / "rollout.npz" for folder in made if folder]
    name = "ManagerBasedRlEnv-step-0-look-at-this-"
    assert dumps(tmp_path) == [name, f"{name}_1"]


# What it writes.


def test_a_dump_holds_the_last_rows_with_state_and_model(tmp_path):
    states = []
    with make(tmp_path, steps=4, env_cfg={"terminations": {}}) as env:
        for action in actions(9):
            states.append(env.sim.get_state().clone())
            env.step(action)
        states.append(env.sim.get_state().clone())
        folder = dumped(env)
        before = mujoco.mj_sizeModel(env.sim.mj_model)
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    assert mujoco.mj_sizeModel(model) == before
    with open_rollouts(folder / "rollout.npz") as rollouts:
        assert rollouts.attachments["model.mjb"] == (folder / "model.mjb").read_bytes()
        assert rollouts.info.about["flight"]["reason"] == "manual"
        for env_id, episode in enumerate(rollouts):
            assert episode["step"].tolist() == [5, 6, 7, 8, 9]
            expected = torch.stack(states)[5:, env_id]
            assert np.array_equal(episode["state"], expected)
            assert np.array_equal(episode["action"][:4], torch.stack(actions(9))[5:, env_id])
            assert np.isnan(episode["action"][4]).all() and np.isnan(episode["reward"][4])


def test_next_observations_are_those_before_a_reset(tmp_path):
    finals = []
    with make(tmp_path, steps=9, channels=("obs", "next_obs")) as env:
        for action in actions(5):
            env.step(action)
            finals.append(env.extras["final_obs"]["actor"][1].clone())
        folder = dumped(env)
    with open_rollouts(folder / "rollout.npz") as rollouts:
        ended, fresh = rollouts[1], rollouts[2]
    assert np.array_equal(ended["next_obs/actor"], torch.stack(finals[:4]))
    assert np.array_equal(ended["next_obs/actor"][:3], ended["obs/actor"][1:])
    assert np.array_equal(fresh["next_obs/actor"][0], finals[4])
    assert np.isnan(fresh["next_obs/actor"][1]).all()


def test_an_episode_cut_by_a_reset_from_outside_is_neither_terminated_nor_truncated(tmp_path):
    with make(tmp_path, steps=9, channels=("obs",)) as env:
        for action in actions(2):
            env.step(action)
        env.reset(env_ids=torch.tensor([1]))
        fresh = env.obs_buf["actor"][1].clone()
        folder = dumped(env)
    with open_rollouts(folder / "rollout.npz") as rollouts:
        table = rollouts.episodes
        assert table["env"].to_list() == [0, 1, 1, 2, 3]
        assert table["rows"].to_list() == [3, 2, 1, 3, 3]
        assert table["length"].to_list() == [3, 2, 1, 3, 3]
        assert table["cut"].to_list() == [True] * 5
        assert np.array_equal(rollouts[2]["obs/actor"][0], fresh)


def test_what_happens_in_a_pause_is_not_pasted_together(tmp_path):
    with make(tmp_path, steps=9, channels=("action",)) as env:
        env.step(actions(1)[0])
        env.recorder_manager.pause("flight")
        env.step(actions(1)[0])
        env.recorder_manager.start("flight")
        for action in actions(2):
            env.step(action)
        folder = dumped(env)
    with open_rollouts(folder / "rollout.npz") as rollouts:
        steps = [episode["step"].tolist() for episode in rollouts]
    # Environment 1 ended with step 4.
    assert steps == [[2, 3, 4], [2, 3], [0], [2, 3, 4], [2, 3, 4]]


def test_recording_leaves_the_rollout_as_it_was(tmp_path):
    rewards = []
    with ManagerBasedRlEnv(cart_cfg()) as env:
        env.reset()
        rewards.append(torch.stack([env.step(action)[1] for action in actions(12)]))
    with make(tmp_path, steps=4, on_terminations=("end",)) as env:
        rewards.append(torch.stack([env.step(action)[1] for action in actions(12)]))
    assert torch.equal(*rewards)


# What it refuses.


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"steps": 0}, "FlightRecorderCfg.steps must be a whole number of at least 1, got 0"),
        (
            {"max_dumps": 0},
            "FlightRecorderCfg.max_dumps must be a whole number of at least 1, got 0",
        ),
        ({"channels": ()}, "needs a path and at least one channel"),
        ({"on_terminations": ("and",)}, "no termination term 'and'. Did you mean 'end'"),
    ],
)
def test_a_bad_cfg_is_refused(tmp_path, cfg, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **cfg)


# On a GPU.


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_watching_never_waits_for_the_gpu():
    done = torch.zeros(4, dtype=torch.bool, device="cuda")
    env: Any = SimpleNamespace(
        num_envs=4,
        device="cuda",
        termination_manager=SimpleNamespace(get_term=lambda name: done),
    )
    spec: Any = SimpleNamespace(name="x", dtype=np.dtype("float32"), when="before")
    detector = FailureDetector(env, [spec], True, ["end"])
    ring = {"/x": torch.zeros(3, 4, 2, device="cuda")}

    def look(step: int) -> list[Any]:
        detector.after(ring, 0)
        detector.before(ring, 0, step)
        return detector.found()

    look(0)  # What is loaded at first use may wait.
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 5):
            look(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ring["/x"][0, 2, 1] = float("nan")
    found = []
    for step in range(5, 9):
        torch.cuda.synchronize()
        found += look(step)
    assert found == [("nan", 5, [2])]
