"""Recorded steps are simulated again from the file alone, and differences are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.recorders import Hdf5RecorderCfg, MemoryRecorderCfg, NpzRecorderCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay import verify
from mjlab_rec.sim import MujocoCfg, SimulationCfg

CHANNELS = ("action", "reward", "state", "physics")


def quadruped(num_envs: int = 6, **recorder):
    """The velocity task, with a delay, a push in most episodes, and masses that change."""
    cfg = load_env_cfg("velocity-flat-quadruped")
    cfg.scene.num_envs = num_envs
    cfg.seed = 3
    cfg.events["push_robot"].interval_range_s = (0.06, 0.2)
    cfg.events["base_mass"].mode = "reset"
    for actuator in cfg.scene.entities["robot"].articulation.actuators:
        actuator.delay_max_lag = 3
    cfg.recorders = {"log": MemoryRecorderCfg(channels=CHANNELS, **recorder)}
    return cfg


def roll(cfg, steps: int) -> Rollouts:
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        size = env.action_manager.total_action_dim
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            env.step(torch.rand(env.num_envs, size, generator=generator) * 2 - 1)
            if step == steps // 2:
                env.reset(env_ids=torch.tensor([1]))
        return env.recorder_manager.get_term("log").rollouts


@pytest.fixture(scope="module")
def walk() -> Rollouts:
    return roll(quadruped(), 40)


class Changed(Rollouts):
    """A recording in which some values are others."""

    def __init__(self, rollouts: Rollouts, channel: str, row: int, by: float | None) -> None:
        super().__init__(rollouts._reader)
        self._change = channel, row, by

    def read_many(self, indices, channels=None):
        arrays = super().read_many(indices, channels)
        channel, row, by = self._change
        values = arrays[channel] = arrays[channel].copy()
        values[row].reshape(-1)[-1] += by
        return arrays


class WithoutModels(Rollouts):
    def __init__(self, rollouts: Rollouts) -> None:
        super().__init__(rollouts._reader)

    def model(self, index):
        return {}


def test_contacts_pushes_delays_and_randomization_come_out_bit_for_bit(walk):
    found = verify(walk)
    assert walk.channels["physics/ctrl"].shape == (4, 12)
    assert found.ok and found.tolerance == 0.0 and not found.why_tolerance
    assert found.steps == found.checked == 6 * 40
    assert [e.steps for e in found.episodes] == walk.episodes["rows"].to_list()
    assert found.notes == ()
    assert "steps are the same" in str(found.episodes[0])


@pytest.mark.parametrize("worlds", [1, 7, 64])
def test_number_of_worlds_and_memory_do_not_matter(walk, worlds):
    found = verify(walk, num_worlds=worlds, memory_bytes=50_000)
    assert found.ok and found.checked == 6 * 40


def test_the_first_step_that_differs_is_named(walk):
    lengths = walk.episodes["rows"].to_list()
    row = lengths[0] + 4
    by = 0.3
    found = verify(Changed(walk, "physics/ctrl", row, by), episodes=[0, 1])
    assert not found.ok
    same, other = found.episodes
    assert same.first is None and other.differing == 1
    assert other.first is not None and other.first.step == 4
    assert {"ctrl", "qpos", "qvel"} <= set(other.first.fields)
    assert other.first.amount is not None and other.first.amount > 0
    assert "first step 4 in" in str(other)
    data = found.to_json()
    assert not data["ok"] and data["episodes"][1]["first"]["step"] == 4


def test_the_last_step_of_an_episode_is_compared(walk):
    last = walk.episodes["rows"][0] - 1
    found = verify(Changed(walk, "physics/check", last, 1), episodes=[0])
    assert found.episodes[0].first is not None
    assert found.episodes[0].first.step == last
    assert found.episodes[0].first.amount is None  # The state before the reset is not in the file.


def test_model_fields_of_each_world_matter(walk):
    assert not verify(WithoutModels(walk)).ok


def test_a_tolerance_ignores_small_differences(walk):
    exact = verify(Changed(walk, "physics/ctrl", 3, 1e-6), episodes=[0])
    assert not exact.ok
    close = verify(Changed(walk, "physics/ctrl", 3, 1e-6), episodes=[0], tolerance=1e-2)
    assert close.ok and close.checked == walk.episodes["rows"][0] - 1
    far = verify(Changed(walk, "physics/ctrl", 3, 1.0), episodes=[0], tolerance=1e-5)
    assert far.episodes[0].first is not None and far.episodes[0].first.step == 3


def test_other_engines_are_compared_with_a_tolerance():
    sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine="mjbatch")
    cfg = cart_cfg(sim=sim, recorders={"log": MemoryRecorderCfg(channels=CHANNELS)})
    rollouts = roll(cfg, 12)
    found = verify(rollouts, engine="warp")
    assert found.ok and found.engine == "warp"
    assert found.tolerance > 0 and "engine" in found.why_tolerance


def test_recordings_of_warp_come_out_bit_for_bit():
    sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine="warp")
    cfg = cart_cfg(sim=sim, recorders={"log": MemoryRecorderCfg(channels=CHANNELS)})
    found = verify(roll(cfg, 12))
    assert found.ok and found.engine == "warp" and found.tolerance == 0.0


def test_without_the_channel_physics_events_look_like_differences():
    channels = ("action", "state")
    cfg = cart_cfg(recorders={"log": MemoryRecorderCfg(channels=channels)})
    found = verify(roll(cfg, 30))
    assert not found.ok and len(found.notes) == 2
    cfg = cart_cfg(recorders={"log": MemoryRecorderCfg(channels=channels)})
    cfg.events = {}
    found = verify(roll(cfg, 30))
    assert found.ok and found.checked == found.steps - len(found.episodes)


def test_forces_that_events_and_actions_apply(tmp_path):
    class Wind(mdp.JointEffortAction):
        """Pushes the pole while the physics runs, which is no control."""

        def apply_actions(self) -> None:
            super().apply_actions()
            robot = self._env.scene["robot"]
            force = torch.zeros(self.num_envs, 1, 3)
            force[:, 0, 0] = self.raw_action[:, 0]
            robot.write_external_wrench_to_sim(force, torch.zeros_like(force), body_ids=[1])

    path = str(tmp_path / "wind.h5")
    recorder = Hdf5RecorderCfg(path=path, channels=CHANNELS, block_steps=5)
    cfg = cart_cfg(recorders={"log": recorder})
    cfg.actions["push"].class_type = Wind  # pyright: ignore[reportAttributeAccessIssue]
    build = type(cfg.actions["push"]).build
    cfg.actions["push"].build = lambda env: Wind(cfg.actions["push"], env)
    assert build is not None
    cfg.events["gust"] = EventTermCfg(
        func=mdp.apply_external_force_torque,
        mode="reset",
        params={
            "force_range": (-1.0, 1.0),
            "torque_range": (-0.1, 0.1),
            "asset_cfg": SceneEntityCfg("robot", body_names=("cart",)),
        },
    )
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(25):
            env.step(action)
    found = verify(path)
    # What an action applies in the last step of an episode is not in the file.
    last = [e for e in found.episodes if e.differing]
    assert all(e.differing == 1 and e.first and e.first.step == e.steps - 1 for e in last)
    assert found.checked == found.steps == 4 * 25


def test_rows_that_are_not_consecutive():
    recorder = MemoryRecorderCfg(channels=CHANNELS, every=3, envs=(2, 0))
    found = verify(roll(cart_cfg(recorders={"log": recorder}), 30))
    assert found.ok and found.checked == found.steps > 0
    recorder = MemoryRecorderCfg(channels=("state",), every=3)
    found = verify(roll(cart_cfg(recorders={"log": recorder}), 30))
    assert not found.ok and found.checked == 0


def test_recordings_that_cannot_be_replayed_say_why(tmp_path):
    recorder = NpzRecorderCfg(path=str(tmp_path / "log"), channels=("obs", "action"))
    with ManagerBasedRlEnv(cart_cfg(recorders={"log": recorder})) as env:
        env.reset()
        for action in actions(12):
            env.step(action)
    with pytest.raises(DataError, match="no physics states.*--record replay"):
        verify(tmp_path / "log")
    with open_rollouts(tmp_path / "log") as rollouts, pytest.raises(DataError, match="'state'"):
        verify(rollouts)


def test_wrong_arguments_are_named(walk):
    with pytest.raises(ValueError, match="tolerance is -1"):
        verify(walk, tolerance=-1)
    with pytest.raises(ValueError, match="Unknown engine 'wrap'.*warp"):
        verify(walk, engine="wrap")
    with pytest.raises(DataError, match="no episode 99"):
        verify(walk, episodes=[99])
    with pytest.raises(ValueError, match="num_worlds"):
        verify(walk, num_worlds=0)


def test_progress_counts_all_steps(walk):
    seen: list[tuple[int, int]] = []
    verify(walk, memory_bytes=50_000, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (240, 240)
    assert np.all(np.diff([done for done, _ in seen]) > 0)
