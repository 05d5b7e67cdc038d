"""Configs of the cartpole tasks: observations, actions and rewards."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco

from mjlab_rec.actuator import XmlActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.viewer import ViewerConfig
from tasks.cartpole.mdp import pole_cos_sin, smooth_reward


def balance_env_cfg() -> ManagerBasedRlEnvCfg:
    """The pole starts upright, and must stay upright."""
    return _env_cfg(start_angle=0.0, start_spread=0.1)


def swingup_env_cfg() -> ManagerBasedRlEnvCfg:
    """The pole starts hanging down, and must be swung up and kept upright."""
    return _env_cfg(start_angle=math.pi, start_spread=0.0)


def _spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(Path(__file__).parent / "cartpole.xml"))


def _env_cfg(start_angle: float, start_spread: float) -> ManagerBasedRlEnvCfg:
    """Build the cfg from the pole's angle and the cart's spread (m) at the start of an episode."""
    cart = SceneEntityCfg("cartpole", joint_names=("slider",))
    pole = SceneEntityCfg("cartpole", joint_names=("hinge",))

    cartpole = EntityCfg(
        spec_fn=_spec,
        articulation=EntityArticulationInfoCfg(
            actuators=(XmlActuatorCfg(target_names_expr=("slider",)),)
        ),
        init_state=EntityCfg.InitialStateCfg(
            joint_pos={"slider": 0.0, "hinge": start_angle}, joint_vel={".*": 0.0}
        ),
    )
    seen = {
        "cart_pos": ObservationTermCfg(func=mdp.joint_pos_rel, params={"asset_cfg": cart}),
        "pole_angle": ObservationTermCfg(func=pole_cos_sin, params={"asset_cfg": pole}),
        "cart_vel": ObservationTermCfg(func=mdp.joint_vel_rel, params={"asset_cfg": cart}),
        "pole_vel": ObservationTermCfg(func=mdp.joint_vel_rel, params={"asset_cfg": pole}),
    }

    return ManagerBasedRlEnvCfg(
        scene=SceneCfg(
            num_envs=1,
            env_spacing=4.0,
            terrain=TerrainEntityCfg(terrain_type="plane"),
            entities={"cartpole": cartpole},
        ),
        sim=SimulationCfg(mujoco=MujocoCfg(timestep=0.01, disableflags=("contact",))),
        viewer=ViewerConfig(
            origin_type=ViewerConfig.OriginType.ASSET_BODY,
            entity_name="cartpole",
            body_name="cart",
            distance=4.0,
            elevation=-15.0,
            max_extra_envs=0,  # All worlds share one rail, and would overlap if drawn together.
        ),
        decimation=5,
        episode_length_s=50.0,
        observations={
            "actor": ObservationGroupCfg(seen, enable_corruption=True),
            "critic": ObservationGroupCfg(dict(seen)),
        },
        actions={
            "effort": mdp.JointEffortActionCfg(
                entity_name="cartpole", actuator_names=("slider",), scale=1.0
            )
        },
        rewards={
            "smooth": RewardTermCfg(
                func=smooth_reward, weight=1.0, params={"cart_cfg": cart, "pole_cfg": pole}
            )
        },
        terminations={"time_out": TerminationTermCfg(func=mdp.time_out, time_out=True)},
        events={
            "reset_cart": _start_near(cart, spread=start_spread),
            "reset_pole": _start_near(pole, spread=0.034),
        },
    )


def _start_near(joint: SceneEntityCfg, spread: float) -> EventTermCfg:
    """Start each episode within the spread of the joint's default position, and almost at rest."""
    return EventTermCfg(
        func=mdp.reset_joints_by_offset,
        mode="reset",
        params={
            "position_range": (-spread, spread),
            "velocity_range": (-0.01, 0.01),
            "asset_cfg": joint,
        },
    )
