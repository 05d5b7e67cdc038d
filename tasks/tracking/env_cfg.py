"""Configs of the tracking task: what the robot sees, what it gets, and when it has failed."""

from __future__ import annotations

from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import ContactMatch, ContactSensorCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.noise import UniformNoiseCfg
from mjlab_rec.viewer import ViewerConfig
from tasks.robots.biped import ACTION_SCALE, FOOT_GEOMS, biped_cfg
from tasks.tracking import mdp

ANCHOR = "torso_link"
"""The body to which the others are relative."""

ENDS = tuple(
    f"{side}_{part}_link" for side in ("left", "right") for part in ("ankle_roll", "wrist_yaw")
)
"""Feet and hands."""

BODIES = (
    "pelvis",
    ANCHOR,
    *(
        f"{side}_{part}_link"
        for side in ("left", "right")
        for part in ("hip_roll", "knee", "ankle_roll", "shoulder_roll", "elbow", "wrist_yaw")
    ),
)
"""The bodies that are tracked."""

_KICK = {
    "x": (-0.5, 0.5),
    "y": (-0.5, 0.5),
    "z": (-0.2, 0.2),
    "roll": (-0.52, 0.52),
    "pitch": (-0.52, 0.52),
    "yaw": (-0.78, 0.78),
}
_MOTION = {"command_name": "motion"}


def tracking_env_cfg() -> ManagerBasedRlEnvCfg:
    """The biped follows a motion, by default three squats."""
    whole = ContactMatch(mode="subtree", pattern="pelvis", entity="robot")
    return ManagerBasedRlEnvCfg(
        scene=SceneCfg(
            terrain=TerrainEntityCfg(terrain_type="plane"),
            entities={"robot": biped_cfg()},
            sensors=(
                ContactSensorCfg(
                    name="self_collision",
                    primary=whole,
                    secondary=whole,
                    fields=("found", "force"),
                    reduce="none",
                    history_length=4,
                ),
            ),
            extent=2.0,
        ),
        sim=SimulationCfg(
            nconmax=35,
            njmax=250,
            mujoco=MujocoCfg(timestep=0.005, iterations=10, ls_iterations=20),
        ),
        viewer=ViewerConfig(
            origin_type=ViewerConfig.OriginType.ASSET_BODY,
            entity_name="robot",
            body_name=ANCHOR,
            distance=2.8,
            elevation=-8.0,
            azimuth=130.0,
        ),
        decimation=4,
        episode_length_s=10.0,
        observations=_observations(),
        actions={
            "joint_pos": mdp.JointPositionActionCfg(
                entity_name="robot", actuator_names=(".*",), scale=ACTION_SCALE
            )
        },
        commands={
            "motion": mdp.MotionCommandCfg(
                motion_file="squat",
                anchor_body_name=ANCHOR,
                body_names=BODIES,
                debug_vis=True,
                pose_range={
                    "x": (-0.05, 0.05),
                    "y": (-0.05, 0.05),
                    "z": (-0.01, 0.01),
                    "roll": (-0.1, 0.1),
                    "pitch": (-0.1, 0.1),
                    "yaw": (-0.2, 0.2),
                },
                velocity_range=dict(_KICK),
                joint_position_range=(-0.1, 0.1),
            )
        },
        events=_events(),
        rewards=_rewards(),
        terminations=_terminations(),
    )


def tracking_play_env_cfg() -> ManagerBasedRlEnvCfg:
    """The motion from its beginning, without noise and pushes, to watch."""
    cfg = tracking_env_cfg()
    cfg.episode_length_s = 1e9  # The end of the motion ends an episode.
    cfg.observations["actor"].enable_corruption = False
    cfg.events.pop("push_robot")
    motion = cfg.commands["motion"]
    assert isinstance(motion, mdp.MotionCommandCfg)
    motion.sampling_mode = "start"
    motion.pose_range, motion.velocity_range = {}, {}
    motion.joint_position_range = (0.0, 0.0)
    return cfg


def _observations() -> dict[str, ObservationGroupCfg]:
    """What the robot can measure, with noise; the critic sees everything, without."""

    def seen(noise: float | None = None, **kwargs) -> ObservationTermCfg:
        noise_cfg = None if noise is None else UniformNoiseCfg(n_min=-noise, n_max=noise)
        return ObservationTermCfg(noise=noise_cfg, **kwargs)

    command = ObservationTermCfg(func=mdp.generated_commands, params=_MOTION)
    lin_vel, ang_vel = {"sensor_name": "robot/imu_lin_vel"}, {"sensor_name": "robot/imu_ang_vel"}
    actor = {
        "command": command,
        "motion_anchor_pos_b": seen(0.25, func=mdp.motion_anchor_pos_b, params=_MOTION),
        "motion_anchor_ori_b": seen(0.05, func=mdp.motion_anchor_ori_b, params=_MOTION),
        "base_lin_vel": seen(0.5, func=mdp.builtin_sensor, params=lin_vel),
        "base_ang_vel": seen(0.2, func=mdp.builtin_sensor, params=ang_vel),
        "joint_pos": seen(0.01, func=mdp.joint_pos_rel, params={"biased": True}),
        "joint_vel": seen(0.5, func=mdp.joint_vel_rel),
        "actions": seen(func=mdp.last_action),
    }
    critic = {
        "command": command,
        "motion_anchor_pos_b": seen(func=mdp.motion_anchor_pos_b, params=_MOTION),
        "motion_anchor_ori_b": seen(func=mdp.motion_anchor_ori_b, params=_MOTION),
        "body_pos": seen(func=mdp.robot_body_pos_b, params=_MOTION),
        "body_ori": seen(func=mdp.robot_body_ori_b, params=_MOTION),
        "base_lin_vel": seen(func=mdp.builtin_sensor, params=lin_vel),
        "base_ang_vel": seen(func=mdp.builtin_sensor, params=ang_vel),
        "joint_pos": seen(func=mdp.joint_pos_rel),
        "joint_vel": seen(func=mdp.joint_vel_rel),
        "actions": seen(func=mdp.last_action),
    }
    return {
        "actor": ObservationGroupCfg(actor, enable_corruption=True),
        "critic": ObservationGroupCfg(critic),
    }


def _events() -> dict[str, EventTermCfg]:
    """Pushes, and how robots differ. The command itself puts them into the motion."""
    feet = SceneEntityCfg("robot", geom_names=FOOT_GEOMS)
    return {
        "push_robot": EventTermCfg(
            func=mdp.push_by_setting_velocity,
            mode="interval",
            interval_range_s=(1.0, 3.0),
            params={"velocity_range": dict(_KICK)},
        ),
        "base_com": EventTermCfg(
            func=mdp.dr.body_com_offset,
            mode="startup",
            params={
                "asset_cfg": SceneEntityCfg("robot", body_names=(ANCHOR,)),
                "operation": "add",
                "ranges": {0: (-0.025, 0.025), 1: (-0.05, 0.05), 2: (-0.05, 0.05)},
            },
        ),
        "encoder_bias": EventTermCfg(
            func=mdp.dr.encoder_bias, mode="startup", params={"bias_range": (-0.01, 0.01)}
        ),
        "foot_friction": EventTermCfg(
            func=mdp.dr.geom_friction,
            mode="startup",
            params={
                "asset_cfg": feet,
                "operation": "abs",
                "ranges": (0.3, 1.2),
                "shared_random": True,
            },
        ),
    }


def _rewards() -> dict[str, RewardTermCfg]:
    """The six rewards of the motion sum up to 5 per second; the penalties keep the robot whole."""

    def follow(func, weight: float, std: float) -> RewardTermCfg:
        return RewardTermCfg(func=func, weight=weight, params={**_MOTION, "std": std})

    return {
        "motion_global_root_pos": follow(mdp.motion_global_anchor_position_error_exp, 0.5, 0.3),
        "motion_global_root_ori": follow(mdp.motion_global_anchor_orientation_error_exp, 0.5, 0.4),
        "motion_body_pos": follow(mdp.motion_relative_body_position_error_exp, 1.0, 0.3),
        "motion_body_ori": follow(mdp.motion_relative_body_orientation_error_exp, 1.0, 0.4),
        "motion_body_lin_vel": follow(mdp.motion_global_body_linear_velocity_error_exp, 1.0, 1.0),
        "motion_body_ang_vel": follow(mdp.motion_global_body_angular_velocity_error_exp, 1.0, 3.14),
        "action_rate_l2": RewardTermCfg(func=mdp.action_rate_l2, weight=-0.1),
        "joint_limit": RewardTermCfg(func=mdp.joint_pos_limits, weight=-10.0),
        "self_collisions": RewardTermCfg(
            func=mdp.self_collision_cost, weight=-10.0, params={"sensor_name": "self_collision"}
        ),
    }


def _terminations() -> dict[str, TerminationTermCfg]:
    """The end of time or of the motion, and failures: fallen, turned over, a foot or hand lost."""
    robot = SceneEntityCfg("robot")
    return {
        "time_out": TerminationTermCfg(func=mdp.time_out, time_out=True),
        "motion_ended": TerminationTermCfg(func=mdp.motion_ended, time_out=True, params=_MOTION),
        "anchor_pos": TerminationTermCfg(
            func=mdp.bad_anchor_pos_z_only, params={**_MOTION, "threshold": 0.25}
        ),
        "anchor_ori": TerminationTermCfg(
            func=mdp.bad_anchor_ori, params={**_MOTION, "asset_cfg": robot, "threshold": 0.8}
        ),
        "ee_body_pos": TerminationTermCfg(
            func=mdp.bad_motion_body_pos_z_only,
            params={**_MOTION, "threshold": 0.25, "body_names": ENDS},
        ),
    }
