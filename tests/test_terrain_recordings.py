"""Recordings on generated ground, with a height scan, replay from the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from mdp_worlds import make_env, robot_cfg
from terrain_worlds import grid

from mjlab_rec.actuator import BuiltinMotorActuatorCfg
from mjlab_rec.data import open_rollouts
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.envs.mdp.actions import JointEffortActionCfg
from mjlab_rec.managers import (
    CurriculumTermCfg,
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
)
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import GridPatternCfg, ObjRef, RayCastSensorCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.terrains.config import pyramid_stairs, random_rough

NUM_ENVS = 5


def climb(env: ManagerBasedRlEnv, env_ids: torch.Tensor) -> torch.Tensor:
    """Move each world up in its even episodes."""
    yes = torch.ones(len(env_ids), dtype=torch.bool, device=env.device)
    env.scene.terrain.update_env_origins(env_ids, yes, ~yes)
    return env.scene.terrain.terrain_levels.float().mean()


def clearance(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Mean distance to the ground."""
    return env.scene["scan"].data.distances.mean(dim=1)


def make(**fields: Any) -> ManagerBasedRlEnv:
    subs = {"stairs": pyramid_stairs(), "rough": random_rough()}
    ground = TerrainEntityCfg(
        terrain_type="generator",
        terrain_generator=grid(curriculum=True, num_rows=4, size=(8.0, 8.0), sub_terrains=subs),
        max_init_terrain_level=0,
    )
    scan = RayCastSensorCfg(
        name="scan",
        frame=ObjRef(type="body", name="base", entity="robot"),
        pattern=GridPatternCfg(size=(0.6, 0.4), resolution=0.2),
        ray_alignment="yaw",
    )
    terms = {
        "scan": ObservationTermCfg(mdp.height_scan, params={"sensor_name": "scan"}),
        "joints": ObservationTermCfg(mdp.joint_pos_rel),
    }
    motors = BuiltinMotorActuatorCfg(target_names_expr=(".*_hip",), effort_limit=3.0)
    robot = robot_cfg(articulation=EntityArticulationInfoCfg(actuators=(motors,)))
    scene = SceneCfg(num_envs=NUM_ENVS, terrain=ground, entities={"robot": robot}, sensors=(scan,))
    return make_env(
        scene=scene,
        actions={"push": JointEffortActionCfg(entity_name="robot", actuator_names=(".*",))},
        observations={"actor": ObservationGroupCfg(terms)},
        rewards={"clearance": RewardTermCfg(clearance, weight=1.0)},
        curriculum={"climb": CurriculumTermCfg(climb)},
        events={
            "place": EventTermCfg(
                func=mdp.reset_root_state_uniform,
                mode="reset",
                params={"pose_range": {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, "velocity_range": {}},
            )
        },
        episode_length_s=0.4,
        **fields,
    )


def roll(env: ManagerBasedRlEnv, steps: int = 30, reset: int | None = None) -> list[torch.Tensor]:
    """Observations and rewards of each step; `reset` is a world that is reset by hand at step 7."""
    generator = torch.Generator().manual_seed(0)
    env.reset(seed=0)
    seen = []
    for step in range(steps):
        if step == 7 and reset is not None:
            env.reset(env_ids=torch.tensor([reset]))
        size = (NUM_ENVS, env.action_manager.total_action_dim)
        obs, reward, *_ = env.step(torch.rand(size, generator=generator) * 2 - 1)
        seen.append(torch.cat((obs["actor"], reward[:, None]), dim=1))
    return seen


def test_recording_on_generated_ground_changes_nothing_and_replays_exactly(tmp_path: Path):
    path = str(tmp_path / "run.h5")
    channels = ("obs", "state", "action", "sensor/scan")
    with make() as env:
        plain = roll(env)
    with make(recorders={"rows": Hdf5RecorderCfg(path=path, channels=channels)}) as env:
        recorded = roll(env)
        decimation = env.cfg.decimation
        levels = env.scene.terrain.terrain_levels.clone()
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert (levels > 0).all()  # The worlds did move.

    with open_rollouts(path) as rollouts:
        (tmp_path / "model.mjb").write_bytes(rollouts.attachments["model.mjb"])
        model = mujoco.MjModel.from_binary_path(str(tmp_path / "model.mjb"))
        kind, data = mujoco.mjtState.mjSTATE_INTEGRATION, mujoco.MjData(model)
        compared = 0
        for index in range(len(rollouts)):
            rows = rollouts[index]
            for before, after in zip(rows["state"][:-1], rows["state"][1:], strict=True):
                # The row before has the ctrl of the step before it; this step's is in the next.
                mujoco.mj_setState(model, data, after, kind)
                ctrl = data.ctrl.copy()
                mujoco.mj_setState(model, data, before, kind)
                data.ctrl[:] = ctrl
                mujoco.mj_step(model, data, decimation)
                found = np.empty_like(after)
                mujoco.mj_getState(model, data, found, kind)
                np.testing.assert_allclose(found, after, atol=1e-9)
                compared += 1
        assert compared > 20
        # What was recorded of the scan is what the policy saw: heights of the same moment.
        scan = rollouts[0]["sensor/scan/distances"]
        assert scan.shape[1] == 12 and np.isfinite(scan).all()


@pytest.mark.parametrize("world", [0, 3])
def test_a_reset_on_generated_ground_leaves_other_worlds_alone(world: int):
    with make() as env:
        plain = roll(env)
    with make() as env:
        other = roll(env, reset=world)
    rest = [i for i in range(NUM_ENVS) if i != world]
    assert all(torch.equal(a[rest], b[rest]) for a, b in zip(plain, other, strict=True))
    assert not torch.equal(plain[7][world], other[7][world])
