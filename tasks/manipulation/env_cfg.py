"""Configs of the manipulation tasks: what the arm sees, does, and is rewarded for."""

from __future__ import annotations

from typing import Literal

import mujoco

from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.envs import mdp as stock
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import (
    ActionTermCfg,
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import CameraSensorCfg, ContactMatch, ContactSensorCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.noise import UniformNoiseCfg
from mjlab_rec.viewer import ViewerConfig
from tasks.manipulation import mdp
from tasks.robots.arm import ARM_JOINTS, FINGERS, GRIPPER_JOINT, HAND, PADS, arm_cfg

CUBE_SIZE = 0.04
"""Length of the cube's edges, in metres."""

_NEVER_S = 1e9  # Goals last as long as the episode.


def lift_env_cfg() -> ManagerBasedRlEnvCfg:
    """The arm grasps a cube and lifts it to a place in the air."""
    cfg = _arm_env_cfg(episode_length_s=4.0)
    cfg.scene.entities["cube"] = EntityCfg(spec_fn=_cube)
    cfg.scene.sensors = (
        ContactSensorCfg(
            name="grip",
            primary=ContactMatch("body", FINGERS, entity="robot"),
            secondary=ContactMatch("body", "cube", entity="cube"),
            fields=("force",),
            reduce="netforce",
        ),
    )
    cfg.actions["gripper"] = stock.JointPositionActionCfg(
        entity_name="robot",
        actuator_names=(GRIPPER_JOINT,),
        # From beyond closed, which grips firmly, to open.
        offset=0.0125,
        scale=0.025,
        use_default_offset=False,
    )
    cfg.commands["lift_height"] = mdp.LiftingCommandCfg(
        entity_name="cube",
        resampling_time_range=(_NEVER_S, _NEVER_S),
        difficulty="dynamic",
        debug_vis=True,
    )
    _observe(
        cfg,
        ee_to_cube=ObservationTermCfg(
            func=mdp.ee_to_object_distance, params={"object_name": "cube", "asset_cfg": _hand()}
        ),
        cube_to_goal=ObservationTermCfg(
            func=mdp.object_to_goal_distance,
            params={"object_name": "cube", "command_name": "lift_height"},
        ),
        grasped=ObservationTermCfg(
            func=mdp.object_grasped, params={"sensor_name": "grip", "asset_cfg": _hand()}
        ),
    )
    cfg.events |= {
        "cube_mass": EventTermCfg(
            func=dr.pseudo_inertia,
            mode="startup",
            params={"asset_cfg": SceneEntityCfg("cube"), "alpha_range": (-0.35, 0.35)},
        ),
        "fingertip_friction_slide": EventTermCfg(
            func=dr.geom_friction,
            mode="startup",
            params={
                "asset_cfg": SceneEntityCfg("robot", geom_names=PADS),
                "ranges": (0.6, 1.5),
                "axes": [0],
                "shared_random": True,
            },
        ),
    }
    cfg.rewards |= {
        "reach": RewardTermCfg(
            func=mdp.reach_object,
            weight=1.0,
            params={"object_name": "cube", "std": 0.2, "asset_cfg": _hand()},
        ),
        "lift": RewardTermCfg(
            func=mdp.staged_position_reward,
            weight=1.0,
            params={
                "command_name": "lift_height",
                "object_name": "cube",
                "sensor_name": "grip",
                "bringing_std": 0.2,
                "asset_cfg": _hand(),
            },
        ),
        "lift_precise": RewardTermCfg(
            func=mdp.bring_object_reward,
            weight=1.0,
            params={"command_name": "lift_height", "object_name": "cube", "std": 0.05},
        ),
        # This is 5 in the last step; holding on at the goal would be worth 4, discounted by 0.95.
        "success": RewardTermCfg(func=mdp.succeeded, weight=100.0),
    }
    cfg.terminations |= {
        "success": _success("lift_height"),
        "out_of_reach": TerminationTermCfg(
            func=mdp.object_out_of_reach, params={"object_name": "cube", "max_distance": 0.6}
        ),
    }
    return cfg


def lift_depth_env_cfg() -> ManagerBasedRlEnvCfg:
    """The arm lifts the cube, which it sees only through the depth camera at its wrist."""
    return _with_camera(lift_env_cfg(), "depth")


def lift_rgb_env_cfg() -> ManagerBasedRlEnvCfg:
    """The arm lifts a cube of any colour, which it sees only through the camera at its wrist."""
    cfg = _with_camera(lift_env_cfg(), "rgb")
    cfg.events["cube_color"] = EventTermCfg(
        func=dr.geom_rgba,
        mode="reset",
        params={
            "asset_cfg": SceneEntityCfg("cube", geom_names=(".*",)),
            "ranges": (0.0, 1.0),
            "axes": [0, 1, 2],
        },
    )
    return cfg


def reach_env_cfg() -> ManagerBasedRlEnvCfg:
    """The arm moves its hand to a pose: position and orientation."""
    cfg = _arm_env_cfg(episode_length_s=3.0)
    cfg.commands["ee_pose"] = mdp.PoseCommandCfg(
        entity_name="robot",
        site_name=HAND,
        resampling_time_range=(_NEVER_S, _NEVER_S),
        debug_vis=True,
    )
    _observe(
        cfg,
        ee_to_pose=ObservationTermCfg(
            func=mdp.ee_to_pose, params={"command_name": "ee_pose", "asset_cfg": _hand()}
        ),
    )
    cfg.rewards |= {
        "reach": RewardTermCfg(
            func=mdp.pose_reward,
            weight=1.0,
            params={"command_name": "ee_pose", "position_std": 0.2, "rotation_std": 0.5},
        ),
        "success": RewardTermCfg(func=mdp.succeeded, weight=100.0),
    }
    cfg.terminations["success"] = _success("ee_pose")
    return cfg


def _arm_env_cfg(episode_length_s: float) -> ManagerBasedRlEnvCfg:
    """Build what the tasks share: the arm on the ground, its joint actions, its start."""
    joints = SceneEntityCfg("robot", joint_names=ARM_JOINTS)
    actions: dict[str, ActionTermCfg] = {
        "joint_pos": mdp.JointStepActionCfg(
            entity_name="robot", actuator_names=ARM_JOINTS, scale=0.15
        )
    }
    return ManagerBasedRlEnvCfg(
        scene=SceneCfg(env_spacing=1.5, terrain=TerrainEntityCfg(), entities={"robot": arm_cfg()}),
        sim=SimulationCfg(
            nconmax=40,
            njmax=200,
            mujoco=MujocoCfg(
                timestep=0.01, iterations=20, ls_iterations=20, impratio=10.0, cone="elliptic"
            ),
        ),
        viewer=ViewerConfig(
            origin_type=ViewerConfig.OriginType.ASSET_BODY,
            entity_name="robot",
            body_name="link2",
            distance=1.4,
            elevation=-20.0,
            azimuth=130.0,
        ),
        decimation=5,  # 20 actions per second.
        episode_length_s=episode_length_s,
        actions=actions,
        rewards={
            "action_rate_l2": RewardTermCfg(func=stock.action_rate_l2, weight=-0.01),
            "joint_vel_hinge": RewardTermCfg(
                func=mdp.joint_velocity_hinge_penalty,
                weight=-0.01,
                params={"max_vel": 2.0, "asset_cfg": joints},
            ),
            "joint_pos_limits": RewardTermCfg(
                func=stock.joint_pos_limits, weight=-1.0, params={"asset_cfg": joints}
            ),
        },
        terminations={"time_out": TerminationTermCfg(func=stock.time_out, time_out=True)},
        events={
            # Puts each arm where its environment is: env_spacing apart.
            "reset_base": EventTermCfg(
                func=stock.reset_root_state_uniform, mode="reset", params={"pose_range": {}}
            ),
            "reset_robot_joints": EventTermCfg(
                func=stock.reset_joints_by_offset,
                mode="reset",
                params={
                    "position_range": (-0.1, 0.1),
                    "velocity_range": (0.0, 0.0),
                    "asset_cfg": joints,
                },
            ),
        },
    )


def _observe(cfg: ManagerBasedRlEnvCfg, **goal: ObservationTermCfg) -> None:
    """Show the goal to actor and critic, next to the joints and the last action."""
    noise = UniformNoiseCfg(n_min=-0.005, n_max=0.005)
    terms = {
        "joint_pos": ObservationTermCfg(func=stock.joint_pos_rel, noise=noise),
        "joint_vel": ObservationTermCfg(func=stock.joint_vel_rel, scale=0.2, noise=noise),
        **goal,
        "actions": ObservationTermCfg(func=stock.last_action),
    }
    cfg.observations = {
        # The critic sees the same without noise.
        "actor": ObservationGroupCfg(terms, enable_corruption=True),
        "critic": ObservationGroupCfg(dict(terms)),
    }


def _with_camera(cfg: ManagerBasedRlEnvCfg, kind: Literal["rgb", "depth"]) -> ManagerBasedRlEnvCfg:
    """Take what a robot cannot know from the actor, and give actor and critic pictures."""
    cfg.scene.sensors += (
        CameraSensorCfg(
            name="wrist", camera_name="robot/wrist", width=32, height=32, data_types=(kind,)
        ),
    )
    if kind == "depth":
        picture = ObservationTermCfg(
            func=mdp.camera_depth, params={"sensor_name": "wrist", "cutoff_distance": 0.5}
        )
    else:
        picture = ObservationTermCfg(func=mdp.camera_rgb, params={"sensor_name": "wrist"})
    cfg.observations["camera"] = ObservationGroupCfg({f"wrist_{kind}": picture})
    actor = cfg.observations["actor"].terms
    del actor["ee_to_cube"], actor["cube_to_goal"]
    actor["goal_position"] = ObservationTermCfg(
        func=mdp.target_position, params={"command_name": "lift_height", "asset_cfg": _hand()}
    )
    return cfg


def _success(command_name: str) -> TerminationTermCfg:
    return TerminationTermCfg(
        func=mdp.goal_reached, params={"command_name": command_name, "hold_time_s": 0.2}
    )


def _hand() -> SceneEntityCfg:
    return SceneEntityCfg("robot", site_names=(HAND,))


def _cube() -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name="cube")
    body.add_freejoint(name="cube")
    half = CUBE_SIZE / 2
    body.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(half, half, half),
        mass=0.05,
        rgba=(0.8, 0.2, 0.2, 1.0),
    )
    return spec
