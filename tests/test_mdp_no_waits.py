"""On a GPU no stock term may wait for the device; told here on the CPU from the operations used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mdp_worlds import chosen, make_env
from torch.utils._python_dispatch import TorchDispatchMode

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import EventTermCfg, RewardTermCfg, SceneEntityCfg

SOME = torch.tensor([1, 3])
WAITS = (
    "_local_scalar_dense",  # .item(), bool(tensor), int(tensor)
    "nonzero",
    "masked_select",
    "lift_fresh",  # torch.tensor(list): a copy from the host
)


class NoWaits(TorchDispatchMode):
    """Raises at operations that make the host wait for a GPU, or feed it from the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        masks = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        # x[ids] = 0.0 fills on the device on a GPU; here it looks like torch.tensor(0.0).
        number = name == "lift_fresh" and args[0].dim() == 0
        if (name in WAITS and not number) or masks:
            raise AssertionError(f"{name} waits for the device.")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def env() -> ManagerBasedRlEnv:
    bump = EventTermCfg(
        func=mdp.apply_body_impulse,
        mode="step",
        params={
            "force_range": (0.0, 1.0),
            "torque_range": (0.0, 1.0),
            "duration_s": (0.1, 0.2),
            "cooldown_s": (0.1, 0.2),
            "body_point_offset": (0.0, 0.0, 0.1),
            "asset_cfg": SceneEntityCfg("robot", body_names=("base", "right")),
        },
    )
    twist = mdp.UniformVelocityCommandCfg(
        entity_name="robot",
        resampling_time_range=(0.02, 0.02),
        heading_command=True,
        rel_standing_envs=0.2,
        rel_world_envs=0.2,
        rel_forward_envs=0.2,
        init_velocity_prob=0.5,
        ranges=mdp.UniformVelocityCommandCfg.Ranges((-1, 1), (-1, 1), (-1, 1), (-3, 3)),
    )
    hips = mdp.JointPositionActionCfg(
        entity_name="robot", actuator_names=(".*_hip",), clip={".*": (-1.0, 1.0)}
    )
    arm = mdp.RelativeJointPositionActionCfg(
        entity_name="arm", actuator_names=("elbow", "shoulder")
    )
    std = {"std": {".*": 0.3}}
    env = make_env(
        events={"bump": bump},
        commands={"twist": twist},
        actions={"hips": hips, "arm": arm},
        rewards={"posture": RewardTermCfg(func=mdp.posture, weight=1.0, params=std)},
    )
    functions = [getattr(dr, name) for name in dr.fields.__all__]
    functions += [dr.pd_gains, dr.effort_limits, dr.pseudo_inertia, dr.pair_friction]
    for function in functions:
        env.sim.expand_model_fields(function.model_fields)
    env.rng._on_cpu = False  # Draw as on a GPU; on the CPU numpy does it.
    env.step(torch.zeros(4, 4))
    return env


def check(call: Callable[[], Any]) -> None:
    call()  # The first call may look things up and keep them.
    with NoWaits():
        call()


def test_the_detector_detects():
    mask = torch.tensor([True, False])
    for call in (
        lambda: mask.any().item(),
        lambda: bool(mask.any()),
        lambda: mask.nonzero(),
        lambda: torch.zeros(2)[mask],
        lambda: torch.tensor([1.0]),
    ):
        with pytest.raises(AssertionError, match="waits for the device"), NoWaits():
            call()


@pytest.mark.parametrize("scattered", [False, True])
def test_observations_rewards_and_terminations(env: ManagerBasedRlEnv, scattered: bool):
    names = ("wrist", "shoulder") if scattered else (".*",)
    arm = chosen(env, "arm", joint_names=names, actuator_names=names, preserve_order=scattered)
    for func in (mdp.joint_pos, mdp.joint_pos_rel, mdp.joint_vel, mdp.joint_vel_rel):
        check(lambda func=func: func(env, asset_cfg=arm))
    for func in (
        mdp.joint_torques_l2,
        mdp.joint_vel_l2,
        mdp.joint_acc_l2,
        mdp.joint_pos_limits,
        mdp.electrical_power_cost,
        mdp.joint_pos_out_of_limit,
    ):
        check(lambda func=func: func(env, arm))
    for func in (
        mdp.root_pos_w,
        mdp.root_quat_w,
        mdp.root_lin_vel_w,
        mdp.root_ang_vel_w,
        mdp.base_lin_vel,
        mdp.base_ang_vel,
        mdp.projected_gravity,
        mdp.last_action,
        mdp.is_alive,
        mdp.is_terminated,
        mdp.action_rate_l2,
        mdp.action_acc_l2,
        mdp.mean_action_acc,
        mdp.flat_orientation_l2,
        mdp.nan_detection,
        mdp.time_out,
    ):
        check(lambda func=func: func(env))
    check(lambda: mdp.builtin_sensor(env, "robot/gyro"))
    check(lambda: mdp.projected_gravity_from_sensor(env, "robot/up"))
    check(lambda: mdp.track_linear_velocity(env, 0.5, "twist"))
    check(lambda: mdp.track_angular_velocity(env, 0.5, "twist"))
    check(lambda: mdp.bad_orientation(env, 1.0))
    check(lambda: mdp.root_height_below_minimum(env, 1.0))
    check(lambda: env.reward_manager.compute(0.02))


def test_actions(env: ManagerBasedRlEnv):
    action = torch.zeros(4, 4)
    check(lambda: env.action_manager.process_action(action))
    check(env.action_manager.apply_action)
    check(lambda: env.action_manager.reset(SOME))


def test_commands(env: ManagerBasedRlEnv):
    term = env.command_manager.get_term("twist")
    check(lambda: term.reset(SOME))
    check(lambda: term.update(SOME))


@pytest.mark.parametrize("env_ids", [None, SOME], ids=["all", "some"])
def test_events(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None):
    ranges = {"x": (-1.0, 1.0), "yaw": (-1.0, 1.0)}
    check(lambda: mdp.reset_scene_to_default(env, env_ids))
    check(lambda: mdp.reset_root_state_uniform(env, env_ids, ranges, ranges))
    check(lambda: mdp.push_by_setting_velocity(env, env_ids, ranges))
    bodies = chosen(env, "robot", body_names=("base", "right"))
    check(lambda: mdp.apply_external_force_torque(env, env_ids, (0, 1), (0, 1), bodies))
    joints = chosen(env, "arm", joint_names=("shoulder", "wrist"))
    check(lambda: mdp.reset_joints_by_offset(env, env_ids, (0, 1), (0, 1), joints))
    bump = env.event_manager.get_term_cfg("bump")
    check(lambda: bump.func(env, None, **bump.params))
    check(lambda: bump.func.reset(env_ids))


@pytest.mark.parametrize("env_ids", [None, SOME], ids=["all", "some"])
def test_randomizations(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None):
    for name in dr.fields.__all__:
        func = getattr(dr, name)
        asset = SceneEntityCfg("arm" if name.startswith("tendon") else "robot")
        if name.endswith("_quat"):
            check(lambda f=func: f(env, env_ids, roll_range=(0.0, 0.1)))
        else:
            check(lambda f=func, a=asset: f(env, env_ids, (0.5, 1.0), a, operation="scale"))
    check(lambda: dr.geom_friction(env, env_ids, {".*_foot": (0.5, 1.0), "trunk": {1: (0.1, 1)}}))
    check(lambda: dr.pair_friction(env, env_ids, (0.5, 1.0), isotropic=True))
    check(lambda: dr.pseudo_inertia(env, env_ids, (-0.1, 0.1), d_range=(-0.1, 0.1)))
    check(lambda: dr.pd_gains(env, env_ids, (0.5, 1.0), (0.5, 1.0)))
    check(lambda: dr.effort_limits(env, env_ids, (0.5, 1.0)))
    servo = chosen(env, "arm", actuator_names=("elbow",))
    check(lambda: dr.effort_limits(env, env_ids, (0.5, 1.0), servo))
    check(lambda: dr.encoder_bias(env, env_ids, (0.0, 0.1)))
