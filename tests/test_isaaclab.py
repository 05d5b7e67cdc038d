"""Files of Isaac Lab: states of entities in exports, and in imports."""

from __future__ import annotations

from typing import Any

import h5py
import mujoco
import numpy as np
import pytest
import torch
from mdp_worlds import ROBOT, arm_cfg, make_env, robot_cfg, spec
from test_data_export import record, same

from mjlab_rec.data import DataError, export_rollouts, import_rollouts, open_rollouts
from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.recorders import Hdf5RecorderCfg

HEAVY = ROBOT.replace('name="trunk" type="box"', 'name="trunk" type="box" pos="0.07 0.02 -0.03"')
CUBE = """
<mujoco>
  <worldbody>
    <body name="cube"><freejoint/><geom type="box" size="0.1 0.1 0.1" pos="0.02 0 0.01"/></body>
  </worldbody>
</mujoco>
"""
CHANNELS = ("obs", "action", "reward", "terminated", "truncated", "next_obs", "state")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Any:
    """A recording of a floating robot, an arm and a cube, and its environment."""
    path = tmp_path_factory.mktemp("isaaclab") / "run.h5"
    cube = EntityCfg(spec_fn=spec(CUBE), init_state=EntityCfg.InitialStateCfg(pos=(1.0, 0.5, 3.0)))
    env = make_env(
        num_envs=2,
        entities={"robot": robot_cfg(spec_fn=spec(HEAVY)), "arm": arm_cfg(), "cube": cube},
        actions={
            name: mdp.JointEffortActionCfg(entity_name=name, actuator_names=(".*",), scale=2.0)
            for name in ("robot", "arm")
        },
        events={
            f"push_{name}": EventTermCfg(
                func=mdp.reset_root_state_uniform,
                mode="reset",
                params={
                    "pose_range": {"yaw": (-3.0, 3.0), "pitch": (-1.0, 1.0)},
                    "velocity_range": {each: (-2.0, 2.0) for each in ("x", "z", "roll", "yaw")},
                    "asset_cfg": SceneEntityCfg(name),
                },
            )
            for name in ("robot", "cube")
        },
        recorders={"hdf5": Hdf5RecorderCfg(path=str(path), channels=CHANNELS)},
    )
    generator = torch.Generator().manual_seed(0)
    env.reset()
    for step in range(20):
        if step == 12:
            env.reset(env_ids=torch.tensor([1]))
        env.step(torch.rand(2, 5, generator=generator) * 2 - 1)
    env.recorder_manager.close()
    yield path, env
    env.close()


def tree(group: Any) -> Any:
    """A group as nested dicts of arrays, like Isaac Lab's ``EpisodeData.data``."""
    return {
        key: tree(item) if isinstance(item, h5py.Group) else item[()] for key, item in group.items()
    }


def at(states: Any, index: int) -> Any:
    """The state of a step, like ``EpisodeData.get_state``; None if there are fewer."""
    if isinstance(states, dict):
        found = {key: at(value, index) for key, value in states.items()}
        return None if any(value is None for value in found.values()) else found
    return states[index] if index < len(states) else None


def of_mujoco(model: mujoco.MjModel, state: np.ndarray) -> dict[str, Any]:
    """What Isaac Lab's ``scene.get_state`` says, by MuJoCo's own functions."""
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, state.astype(float), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)

    def root(name: str) -> dict[str, np.ndarray]:
        body, both = model.body(name).id, np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, both, 0)
        return {
            "root_pose": np.concatenate([data.xpos[body], data.xquat[body]]),
            "root_velocity": np.concatenate([both[3:], both[:3]]),
        }

    def joints(prefix: str, *names: str) -> dict[str, np.ndarray]:
        each = [data.joint(f"{prefix}/{name}") for name in names]
        return {
            "joint_position": np.concatenate([joint.qpos for joint in each]),
            "joint_velocity": np.concatenate([joint.qvel for joint in each]),
        }

    return {
        "articulation": {
            "robot": root("robot/base") | joints("robot", "left_hip", "right_hip"),
            "arm": root("arm/mocap_base") | joints("arm", "shoulder", "elbow", "wrist"),
        },
        "rigid_object": {"cube": root("cube/cube")},
    }


def check_close(one: Any, other: Any, limit: float = 1e-5) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            check_close(one[key], other[key], limit)
    else:
        np.testing.assert_allclose(one, other, atol=limit)


def test_states_are_those_that_mujoco_computes(made, tmp_path):
    path, env = made
    exported = export_rollouts(path, tmp_path / "demos", "isaaclab")
    assert not any("initial_state" in note for note in exported.notes)
    with h5py.File(exported.path) as file, open_rollouts(path) as rollouts:
        assert len(rollouts) == 3
        for number, episode in enumerate(rollouts):
            demo = tree(file[f"data/demo_{number}"])
            truth = [of_mujoco(env.sim.mj_model, state) for state in episode["state"]]
            first = demo["initial_state"]
            assert first["articulation"]["robot"]["root_pose"].shape == (1, 7)
            assert first["rigid_object"]["cube"]["root_velocity"].dtype == np.float32
            check_close(at(first, 0), truth[0])
            for step, state in enumerate(truth[1:]):  # After each step but the last one.
                check_close(at(demo["states"], step), state)
            assert at(demo["states"], len(truth) - 1) is None
            assert same(demo["state"], episode["state"])
    imported = import_rollouts(exported.path, tmp_path / "again.h5")
    with open_rollouts(path) as before, open_rollouts(imported.path) as after:
        assert after.episodes.equals(before.episodes.select(after.episodes.columns))
        for one, other in zip(before, after, strict=True):
            assert one.keys() == other.keys() and all(same(one[n], other[n]) for n in one)


def test_a_replay_from_the_initial_state_gets_the_states(made, tmp_path):
    """What Isaac Lab's replay tool does, with its limit, in an environment of this package."""
    path, env = made
    out = export_rollouts(path, tmp_path / "demos", "isaaclab").path
    with h5py.File(out) as file:
        demo = tree(file["data/demo_0"])
    env.reset()
    for kind, entities in demo["initial_state"].items():
        for name, values in entities.items():
            entity = env.scene[name]
            tensors = {key: torch.from_numpy(value).repeat(2, 1) for key, value in values.items()}
            if entity.is_fixed_base:
                entity.write_mocap_pose_to_sim(tensors["root_pose"])
            else:
                entity.write_root_link_pose_to_sim(tensors["root_pose"])
                entity.write_root_com_velocity_to_sim(tensors["root_velocity"])
            if kind == "articulation":
                entity.write_joint_state_to_sim(
                    tensors["joint_position"], tensors["joint_velocity"]
                )
    env.sim.forward()
    for step, action in enumerate(demo["actions"][:-1]):
        env.step(torch.from_numpy(action).repeat(2, 1))
        now = of_mujoco(env.sim.mj_model, env.sim.get_state()[0].numpy())
        check_close(at(demo["states"], step), now, limit=0.01)


def test_order_of_joints_and_quaternions_can_be_chosen(made, tmp_path):
    path, _ = made
    plain = export_rollouts(path, tmp_path / "plain", "isaaclab").path
    joints = ["right_hip", "left_hip", "wrist", "arm/shoulder", "elbow"]
    other = export_rollouts(path, tmp_path / "o", "isaaclab", quaternion="xyzw", joints=joints).path
    with h5py.File(plain) as one, h5py.File(other) as two:
        assert (one["data"].attrs["quaternion"], two["data"].attrs["quaternion"]) == (
            *("wxyz", "xyzw"),
        )
        assert '"arm": ["wrist", "shoulder", "elbow"]' in two["data"].attrs["joint_names"]
        for place in ("initial_state", "states"):
            before = tree(one[f"data/demo_0/{place}/articulation"])
            after = tree(two[f"data/demo_0/{place}/articulation"])
            for field in ("joint_position", "joint_velocity"):
                assert same(before["robot"][field][:, [1, 0]], after["robot"][field])
                assert same(before["arm"][field][:, [2, 0, 1]], after["arm"][field])
            pose = before["robot"]["root_pose"]
            assert same(pose[:, [0, 1, 2, 4, 5, 6, 3]], after["robot"]["root_pose"])
            assert same(before["robot"]["root_velocity"], after["robot"]["root_velocity"])
    for bad, text in (
        ({"joints": ["left_hip"]}, "some of 'robot', but not all of them: right_hip"),
        ({"joints": ["left_hop"]}, "Unknown joint 'left_hop'. Did you mean 'left_hip'"),
        ({"quaternion": "zyxw"}, "quaternion is 'zyxw'"),
    ):
        with pytest.raises(DataError, match=text):
            export_rollouts(path, tmp_path / "bad", "isaaclab", **bad)


def test_without_states_or_their_model_the_export_says_so(tmp_path):
    path = record(tmp_path / "run.h5", seed=1)  # Its model is damaged.
    done = export_rollouts(path, tmp_path / "a", "isaaclab")
    assert "cannot replay the file" in done.notes[0] and "model cannot be read" in done.notes[0]
    done = export_rollouts(path, tmp_path / "b", "isaaclab", channels=["action", "obs/actor"])
    assert "needs the channel 'state'" in done.notes[0]


def isaaclab_file(path, counts=(3, 1, 4), states=True, initial=True):
    """A file as Isaac Lab's recorder writes it."""
    rng, truth = np.random.default_rng(0), []
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["total"] = sum(counts)
        file["data"].attrs["env_args"] = '{"env_name": "Isaac-Lift-v0", "type": 2}'
        for number, count in enumerate(counts):
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"], demo.attrs["success"] = count, number != 1
            made = {"actions": rng.normal(size=(count, 2)).astype(np.float32)}
            made["obs/joint_pos"] = rng.normal(size=(count, 3)).astype(np.float32)
            for name, size in (("articulation/robot/root_pose", 7), ("rigid_object/cube/x", 6)):
                values = rng.normal(size=(count + 1, size)).astype(np.float32)
                if initial:
                    made[f"initial_state/{name}"] = values[:1]
                if states:
                    made[f"states/{name}"] = values[1:]
            for name, values in made.items():
                demo.create_dataset(name, data=values, compression="gzip")
            truth.append(made)
    return path, truth


def test_states_of_isaac_lab_become_channels_and_come_back(tmp_path):
    path, truth = isaaclab_file(tmp_path / "demos.hdf5")
    done = import_rollouts(path, tmp_path / "run.h5", step_dt=0.02)
    assert not done.notes
    with open_rollouts(done.path) as rollouts:
        assert rollouts.info.about["task"] == "Isaac-Lift-v0"
        assert rollouts.episodes["success"].to_list() == [True, False, True]
        for name in ("articulation/robot/root_pose", "rigid_object/cube/x"):
            assert rollouts.channels[f"state/{name}"].when == "before"
            for episode, made in zip(rollouts, truth, strict=True):
                all_states = [made[f"initial_state/{name}"], made[f"states/{name}"]]
                both = np.concatenate(all_states)
                assert same(episode[f"state/{name}"], both[:-1])
                assert same(episode[f"next_state/{name}"], both[1:])
    again = export_rollouts(done.path, tmp_path / "again.hdf5", "isaaclab").path
    with h5py.File(again) as file:
        for number, made in enumerate(truth):
            for name, values in made.items():
                assert same(file[f"data/demo_{number}/{name}"][()], values), name
    for record_used in (True, False):
        back = import_rollouts(again, tmp_path / f"{record_used}.h5", record=record_used)
        with open_rollouts(done.path) as before, open_rollouts(back.path) as after:
            for one, other in zip(before, after, strict=True):
                assert all(same(one[name], other[name]) for name in one)


def test_what_belongs_to_no_step_is_left_out(tmp_path):
    path, truth = isaaclab_file(tmp_path / "a.hdf5", states=False)
    done = import_rollouts(path, tmp_path / "a.h5")
    assert done.notes == ("Left out: initial_state, because there are no states after it.",)
    path, truth = isaaclab_file(tmp_path / "b.hdf5", initial=False)
    with open_rollouts(import_rollouts(path, tmp_path / "b.h5").path) as rollouts:
        name = "states/articulation/robot/root_pose"
        assert rollouts.channels[name].when == "after"
        assert same(rollouts[0][name], truth[0][name])


def test_an_episode_with_other_states_is_named(tmp_path):
    path, _ = isaaclab_file(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_2/states/rigid_object/cube/x"]
        file["data/demo_2/states/rigid_object/cube/x"] = np.zeros((2, 6), np.float32)
    with pytest.raises(DataError, match="states/rigid_object/cube/x"):
        import_rollouts(path, tmp_path / "run.h5")
