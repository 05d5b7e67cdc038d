"""Configs of the velocity tasks: a legged robot goes as fast, and where, as it is told to.

``velocity_env_cfg`` makes the task of any LeggedRobot. What is the same for all of them is here;
observations, rewards and events have files of their own.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.managers import (
    CurriculumTermCfg,
    EventTermCfg,
    MetricsTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import (
    ContactMatch,
    ContactSensorCfg,
    GridPatternCfg,
    ObjRef,
    RayCastSensorCfg,
    RingPatternCfg,
    TerrainHeightSensorCfg,
)
from mjlab_rec.sensor.sensor import SensorCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.terrains.config import ROUGH_TERRAINS_CFG
from mjlab_rec.viewer import ViewerConfig
from tasks.velocity import mdp
from tasks.velocity.event_cfg import events
from tasks.velocity.observation_cfg import SCAN_RANGE, observations
from tasks.velocity.reward_cfg import rewards
from tasks.velocity.robot import LeggedRobot
from tasks.velocity.robots import biped, quadruped


def flat_quadruped_env_cfg() -> ManagerBasedRlEnvCfg:
    """The quadruped on a plane."""
    return velocity_env_cfg(quadruped())


def flat_quadruped_play_env_cfg() -> ManagerBasedRlEnvCfg:
    """The quadruped on a plane, to watch."""
    return play(flat_quadruped_env_cfg())


def rough_quadruped_env_cfg() -> ManagerBasedRlEnvCfg:
    """The quadruped on stairs, slopes and rough ground, which get harder as it learns."""
    return velocity_env_cfg(quadruped(), rough=True)


def rough_quadruped_play_env_cfg() -> ManagerBasedRlEnvCfg:
    """The quadruped on stairs, slopes and rough ground, to watch."""
    return play(rough_quadruped_env_cfg())


def flat_biped_env_cfg() -> ManagerBasedRlEnvCfg:
    """The biped on a plane."""
    return velocity_env_cfg(biped())


def flat_biped_play_env_cfg() -> ManagerBasedRlEnvCfg:
    """The biped on a plane, to watch."""
    return play(flat_biped_env_cfg())


def rough_biped_env_cfg() -> ManagerBasedRlEnvCfg:
    """The biped on stairs, slopes and rough ground, which get harder as it learns."""
    return velocity_env_cfg(biped(), rough=True)


def rough_biped_play_env_cfg() -> ManagerBasedRlEnvCfg:
    """The biped on stairs, slopes and rough ground, to watch."""
    return play(rough_biped_env_cfg())


def velocity_env_cfg(robot: LeggedRobot, rough: bool = False) -> ManagerBasedRlEnvCfg:
    """The task of following velocity commands, for any legged robot.

    Args:
        robot: The robot.
        rough: Whether the ground is generated, and scanned, rather than a plane.
    """
    entity = robot.entity_cfg()
    return ManagerBasedRlEnvCfg(
        scene=SceneCfg(
            terrain=_rough_ground() if rough else TerrainEntityCfg(terrain_type="plane"),
            entities={"robot": entity},
            sensors=_sensors(robot, rough),
            extent=2.0,
        ),
        sim=SimulationCfg(
            nconmax=70 if rough else None,
            njmax=600 if rough else 300,
            contact_sensor_maxmatch=256 if rough else 64,
            mujoco=MujocoCfg(timestep=0.005, iterations=10, ls_iterations=20),
        ),
        viewer=ViewerConfig(
            origin_type=ViewerConfig.OriginType.ASSET_BODY,
            entity_name="robot",
            body_name=robot.base,
            distance=2.0 + 2.0 * robot.height,
            elevation=-12.0,
            azimuth=130.0,
        ),
        decimation=4,
        episode_length_s=20.0,
        observations=observations(robot, rough),
        actions={
            "joint_pos": mdp.JointPositionActionCfg(
                entity_name="robot", actuator_names=(".*",), scale=robot.action_scale
            )
        },
        commands={
            "twist": mdp.UniformVelocityCommandCfg(
                entity_name="robot",
                resampling_time_range=(3.0, 8.0),
                rel_standing_envs=0.1,
                rel_heading_envs=0.3,
                rel_forward_envs=0.2,
                heading_command=True,
                heading_control_stiffness=0.5,
                debug_vis=True,
                ranges=mdp.UniformVelocityCommandCfg.Ranges(
                    lin_vel_x=(-1.0, 1.0),
                    lin_vel_y=(-0.5, 0.5),
                    ang_vel_z=(-1.0, 1.0),
                    heading=(-math.pi, math.pi),
                ),
                viz=mdp.UniformVelocityCommandCfg.VizCfg(z_offset=robot.height),
            )
        },
        events=events(robot),
        rewards=rewards(robot, rough),
        terminations=_terminations(robot, rough),
        curriculum=_curriculum(rough),
        metrics={"mean_action_acc": MetricsTermCfg(func=mdp.mean_action_acc)},
    )


def play(cfg: ManagerBasedRlEnvCfg) -> ManagerBasedRlEnvCfg:
    """Change a velocity task for watching: no noise, no pushes, no end, ground of all kinds."""
    cfg.episode_length_s = 1e9
    cfg.observations["actor"].enable_corruption = False
    cfg.events.pop("push_robot")
    cfg.curriculum = {}
    cfg.terminations.pop("out_of_terrain_bounds", None)
    ground = cfg.scene.terrain
    if ground is not None and ground.terrain_generator is not None:
        ground.terrain_generator = replace(
            ground.terrain_generator, curriculum=False, num_rows=5, num_cols=5, border_width=10.0
        )
        # First, since the events that place the robot use the origins.
        tile = {"randomize_terrain": EventTermCfg(func=mdp.randomize_terrain, mode="reset")}
        cfg.events = {**tile, **cfg.events}
    return cfg


def _rough_ground() -> TerrainEntityCfg:
    return TerrainEntityCfg(
        terrain_type="generator",
        terrain_generator=replace(ROUGH_TERRAINS_CFG, curriculum=True),
        max_init_terrain_level=5,
    )


def _sensors(robot: LeggedRobot, rough: bool) -> tuple[SensorCfg, ...]:
    ground = ContactMatch(mode="body", pattern="terrain")
    feet = ContactSensorCfg(
        name="feet_ground_contact",
        primary=robot.feet_match(),
        secondary=ground,
        fields=("found", "force"),
        reduce="netforce",
        track_air_time=True,
    )
    sensors: list[SensorCfg] = [feet]
    if robot.avoid_self_collisions:
        whole = ContactMatch(mode="subtree", pattern=robot.base, entity="robot")
        sensors.append(_touch("self_collision", whole, whole))
    if not rough:
        return tuple(sensors)
    for name, geoms in (
        ("forbidden_ground_touch", robot.forbidden_geoms),
        ("unwanted_ground_touch", robot.unwanted_geoms),
    ):
        if geoms:
            match = ContactMatch(mode="geom", pattern=geoms, entity="robot")
            sensors.append(_touch(name, match, ground))
    sensors.append(
        RayCastSensorCfg(
            name="terrain_scan",
            frame=ObjRef(type="body", name=robot.base, entity="robot"),
            ray_alignment="yaw",
            pattern=GridPatternCfg(size=(1.6, 1.0), resolution=0.1),
            max_distance=SCAN_RANGE,
            include_geom_groups=(0,),  # The ground's.
            debug_vis=True,
        )
    )
    sensors.append(
        TerrainHeightSensorCfg(
            name="foot_height_scan",
            frame=tuple(ObjRef(type="site", name=n, entity="robot") for n in robot.sites()),
            ray_alignment="yaw",
            pattern=RingPatternCfg.single_ring(radius=0.04, num_samples=4),
            max_distance=1.0,
            include_geom_groups=(0,),
        )
    )
    return tuple(sensors)


def _touch(name: str, primary: ContactMatch, secondary: ContactMatch) -> ContactSensorCfg:
    """The force between two sides in each physics step of a control step."""
    return ContactSensorCfg(
        name=name,
        primary=primary,
        secondary=secondary,
        fields=("found", "force"),
        reduce="none",
        history_length=4,
    )


def _terminations(robot: LeggedRobot, rough: bool) -> dict[str, TerminationTermCfg]:
    ends = {
        "time_out": TerminationTermCfg(func=mdp.time_out, time_out=True),
        "fell_over": TerminationTermCfg(
            func=mdp.bad_orientation, params={"limit_angle": math.radians(70.0)}
        ),
    }
    if not rough:
        ends["too_low"] = TerminationTermCfg(
            func=mdp.root_height_below_minimum, params={"minimum_height": 0.4 * robot.height}
        )
        return ends
    ends["out_of_terrain_bounds"] = TerminationTermCfg(
        func=mdp.out_of_terrain_bounds, time_out=True
    )
    if robot.forbidden_geoms:
        ends["illegal_contact"] = TerminationTermCfg(
            func=mdp.illegal_contact, params={"sensor_name": "forbidden_ground_touch"}
        )
    return ends


def _curriculum(rough: bool) -> dict[str, CurriculumTermCfg]:
    rules = {
        "command_vel": CurriculumTermCfg(
            func=mdp.commands_vel,
            params={
                "command_name": "twist",
                "velocity_stages": [
                    {"step": 0, "lin_vel_x": (-1.0, 1.0)},
                    {"step": 300 * 24, "lin_vel_x": (-1.0, 1.5)},
                    {"step": 1500 * 24, "lin_vel_x": (-1.5, 2.0)},
                ],
            },
        )
    }
    if rough:
        rules["terrain_levels"] = CurriculumTermCfg(
            func=mdp.terrain_levels_vel, params={"command_name": "twist"}
        )
    return rules
