"""The biped: it stands by itself, is symmetric, and touches only what it should."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import EventTermCfg, ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from tasks.robots.biped import ACTION_SCALE, biped_cfg


def standing(robot: EntityCfg, num_envs: int = 1) -> ManagerBasedRlEnv:
    return ManagerBasedRlEnv(
        ManagerBasedRlEnvCfg(
            scene=SceneCfg(
                num_envs=num_envs, terrain=TerrainEntityCfg(), entities={"robot": robot}
            ),
            sim=SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(timestep=0.005)),
            decimation=4,
            observations={
                "actor": ObservationGroupCfg({"q": ObservationTermCfg(func=mdp.joint_pos_rel)})
            },
            actions={
                "joint_pos": mdp.JointPositionActionCfg(
                    entity_name="robot", actuator_names=(".*",), scale=ACTION_SCALE
                )
            },
            events={"reset": EventTermCfg(func=mdp.reset_scene_to_default, mode="reset")},
        )
    )


@pytest.mark.parametrize("feet_only", [False, True])
def test_stands_for_five_seconds_without_feedback_also_after_a_small_push(feet_only: bool):
    with standing(biped_cfg(feet_only=feet_only), num_envs=3) as env:
        env.reset(seed=0)
        robot = env.scene["robot"]
        push = torch.zeros(3, 6)
        push[:, 0] = torch.tensor([0.0, 0.1, -0.1])
        robot.write_root_link_velocity_to_sim(push)
        start = robot.data.root_link_pos_w.clone()
        for _ in range(250):
            env.step(torch.zeros(3, 29))
        moved = robot.data.root_link_pos_w - start
        assert moved[:, :2].norm(dim=1).max() < 0.05, moved
        assert moved[:, 2].abs().max() < 0.02
        assert robot.data.joint_vel[0].abs().max() < 0.05


def test_left_and_right_mirror_each_other():
    model = biped_cfg().spec_fn().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert model.njnt == 30
    assert data.subtree_com[1][1] == pytest.approx(0.0, abs=1e-9)
    assert model.body_mass.sum() == pytest.approx(33.34, abs=0.01)
    mirror = np.array([1.0, -1.0, 1.0])
    for left in range(model.nbody):
        name = model.body(left).name
        if not name.startswith("left_"):
            continue
        right = model.body(name.replace("left_", "right_", 1)).id
        np.testing.assert_allclose(data.xipos[right], data.xipos[left] * mirror, atol=1e-9)
        np.testing.assert_allclose(
            model.body_inertia[right], model.body_inertia[left], atol=1e-9, err_msg=name
        )
        joint = model.joint(name.replace("_link", "_joint"))
        other = model.joint(name.replace("_link", "_joint").replace("left_", "right_", 1))
        mirrored = joint.range if joint.axis[1] else -joint.range[::-1]
        np.testing.assert_array_equal(other.range, mirrored, err_msg=name)


def test_starts_within_its_limits_with_only_the_feet_in_contact():
    with standing(biped_cfg()) as env:
        env.reset(seed=0)
        env.step(torch.zeros(1, 29))
        data, model = env.scene["robot"].data, env.sim.mj_model
        limits = data.soft_joint_pos_limits[0]
        assert (data.default_joint_pos[0] > limits[:, 0]).all()
        assert (data.default_joint_pos[0] < limits[:, 1]).all()
        now = mujoco.MjData(model)
        now.qpos[:] = env.sim.data.qpos[0].numpy()
        mujoco.mj_forward(model, now)
        pairs = {(model.geom(c.geom1).name, model.geom(c.geom2).name) for c in now.contact}
    feet = {f"robot/{side}_foot{i}_collision" for side in ("left", "right") for i in (1, 2)}
    assert pairs == {("terrain", foot) for foot in feet}


def test_feet_only_leaves_no_other_geom_that_can_touch():
    for feet_only, count in ((True, 4), (False, 23)):
        with standing(biped_cfg(feet_only=feet_only)) as env:
            model = env.sim.mj_model
            colliding = [
                model.geom(i).name
                for i in range(model.ngeom)
                if model.geom_conaffinity[i] and model.geom(i).name.startswith("robot/")
            ]
        assert len(colliding) == count, colliding
        assert all("_foot" in name for name in colliding) == feet_only
