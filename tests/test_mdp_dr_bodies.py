"""Randomizations that touch several fields: inertia, geom sizes, pairs, actuators, encoders."""

from __future__ import annotations

import itertools
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from mdp_worlds import ARM, arm_cfg, chosen, ids, make_env, robot_cfg, spec

from mjlab_rec.actuator import (
    BuiltinPdActuatorCfg,
    BuiltinPositionActuatorCfg,
    XmlActuatorCfg,
)
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import SceneEntityCfg

SOME = torch.tensor([1, 3])
OTHERS = torch.tensor([0, 2])


def expanded(*funcs: Any, **kwargs: Any) -> ManagerBasedRlEnv:
    env = make_env(**kwargs)
    for func in funcs:
        env.sim.expand_model_fields(func.model_fields)
    return env


# Inertia.


def point_masses(env: ManagerBasedRlEnv, body: int, mass: Any, ipos: Any, inertia: Any, iquat: Any):
    """Six points with the mass, centre and inertia of a body: (positions, masses)."""
    moments = 0.5 * inertia.sum() - inertia
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, iquat)
    axes = matrix.reshape(3, 3)
    arms = axes @ np.diag(np.sqrt(3 * moments / mass))
    return np.array([ipos + s * arms[:, k] for k in range(3) for s in (1, -1)]), mass / 6


def inertia_of(points: np.ndarray, mass: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre and inertia matrix about the centre."""
    centre = points.mean(axis=0)
    arms = points - centre
    second = mass * arms.T @ arms
    return mass * len(points), centre, np.trace(second) * np.eye(3) - second


def test_pseudo_inertia_is_that_of_matter_stretched_sheared_and_moved():
    env = expanded(dr.pseudo_inertia)
    asset = chosen(env, "robot", body_names=("left",))
    body = ids(env, "robot", "body", "left")[0]
    model = env.sim.mj_model
    numbers = dict(alpha=0.2, d1=0.1, d2=-0.2, d3=0.3, s12=0.2, s13=-0.1, s23=0.3, t1=0.01, t2=0.02)
    for _ in range(2):  # Twice: it starts from the compiled model each time.
        dr.pseudo_inertia(
            env, SOME, asset_cfg=asset, **{f"{k}_range": (v, v) for k, v in numbers.items()}
        )
    old = [getattr(model, f"body_{n}")[body].copy() for n in ("mass", "ipos", "inertia", "iquat")]
    points, mass = point_masses(env, body, *old)
    stretch = np.array([[np.exp(0.1), 0.2, -0.1], [0, np.exp(-0.2), 0.3], [0, 0, np.exp(0.3)]])
    moved = points @ stretch.T + [0.01, 0.02, 0.0]
    expected = inertia_of(moved, mass * np.exp(0.4))
    new = [
        getattr(env.sim.model, f"body_{n}")[1, body].double().numpy()
        for n in ("mass", "ipos", "inertia", "iquat")
    ]
    actual = inertia_of(*point_masses(env, body, *new))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-9)
    assert np.linalg.norm(new[3]) == pytest.approx(1.0, abs=1e-6)
    for field in dr.pseudo_inertia.model_fields[:4]:
        default = env.sim.get_default_field(field)
        values = getattr(env.sim.model, field)
        assert torch.equal(values[OTHERS], default.expand(2, *default.shape))
        rest = [i for i in range(model.nbody) if i != body]
        assert torch.equal(values[:, rest], default[rest].expand(4, *default[rest].shape))


def test_density_scales_mass_and_inertia_without_rotation():
    env = expanded(dr.pseudo_inertia)
    dr.pseudo_inertia(env, None, alpha_range=(-0.3, 0.3))
    own = env.scene["robot"].indexing.body_ids
    model, default = env.sim.model, env.sim.get_default_field
    factor = model.body_mass[:, own] / default("body_mass")[own]
    assert (factor >= np.exp(-0.6)).all() and (factor <= np.exp(0.6)).all()
    assert factor.unique().numel() == 12
    inertia = model.body_inertia[:, own] / default("body_inertia")[own]
    torch.testing.assert_close(inertia, factor[..., None].expand_as(inertia))
    torch.testing.assert_close(model.body_ipos[:, own], default("body_ipos")[own].expand(4, 3, 3))
    torch.testing.assert_close(model.body_iquat[:, own], default("body_iquat")[own].expand(4, 3, 4))


def test_inertia_stays_physical_for_wild_numbers():
    env = expanded(dr.pseudo_inertia, num_envs=64)
    dr.pseudo_inertia(
        env, None, (-1, 1), d_range=(-1, 1), t_range=(-1, 1), s12_range=(-2, 2), s23_range=(-2, 2)
    )
    own = env.scene["robot"].indexing.body_ids
    inertia = env.sim.model.body_inertia[:, own]
    assert inertia.isfinite().all() and (inertia > 0).all()
    for a, b, c in itertools.permutations(range(3)):
        assert (inertia[..., a] <= (inertia[..., b] + inertia[..., c]) * (1 + 1e-5)).all()


def test_inertia_of_a_world_does_not_depend_on_the_others_in_the_call():
    results = []
    for env_ids in (None, torch.tensor([2])):
        env = expanded(dr.pseudo_inertia)
        dr.pseudo_inertia(env, env_ids, (-1, 1), d_range=(-1, 1), t_range=(-1, 1))
        results.append(env.sim.model.body_inertia[2].clone())
    assert torch.equal(*results)


# Geoms and pairs.


def test_geom_sizes_bring_their_bounds_along():
    env = expanded(dr.geom_size)
    model = env.sim.mj_model
    for name in ("robot", "arm"):
        dr.geom_size(env, SOME, (1.5, 2.0), asset_cfg=SceneEntityCfg(name))
    primitives = [g for g in range(model.ngeom) if "/" in model.geom(g).name]
    assert len(primitives) == 6
    for world in range(4):
        size = env.sim.model.geom_size[world].double().numpy()
        for geom in primitives:
            spec = mujoco.MjSpec()
            spec.worldbody.add_geom(type=int(model.geom_type[geom]), size=size[geom])
            alone = spec.compile()
            assert env.sim.model.geom_rbound[world, geom] == pytest.approx(
                alone.geom_rbound[0], rel=1e-5
            )
            aabb = env.sim.model.geom_aabb[world, geom].flatten().numpy()
            np.testing.assert_allclose(aabb, alone.geom_aabb[0], rtol=1e-5, atol=1e-6)
        default = model.geom_size[primitives]
        used = default > 0
        grown = size[primitives] / np.maximum(default, 1e-12)
        if world in SOME:
            assert (grown[used] >= 1.499).all() and (grown[used] <= 2.001).all()
        else:
            np.testing.assert_allclose(grown[used], 1.0, rtol=1e-6)


def test_pair_friction_can_be_isotropic():
    env = expanded(dr.pair_friction)
    default = env.sim.get_default_field("pair_friction")
    feet = ids(env, "robot", "pair", "feet")[0]
    shin = ids(env, "robot", "pair", "shin")[0]
    asset = chosen(env, "robot", pair_names=("feet",))
    dr.pair_friction(env, SOME, (2.0, 3.0), asset_cfg=asset, isotropic=True)
    friction = env.sim.model.pair_friction
    assert torch.equal(friction[SOME, feet, 0], friction[SOME, feet, 1])
    assert (friction[SOME, feet, 0] >= 2.0).all()
    assert torch.equal(friction[:, feet, 2:], default[feet, 2:].expand(4, 3))
    assert torch.equal(friction[:, shin], default[shin].expand(4, 5))
    assert torch.equal(friction[OTHERS, feet], default[feet].expand(2, 5))
    dr.pair_friction(env, None, {"feet": {3: (0.5, 0.6)}}, isotropic=True)
    assert torch.equal(friction[:, feet, 3], friction[:, feet, 4]) and friction[0, feet, 3] >= 0.5


# Looks.


def test_materials_and_textures_come_from_the_selection():
    env = expanded(dr.geom_matid, dr.mat_texid, num_envs=32)
    before = env.sim.model.geom_matid.clone(), env.sim.model.mat_texid.clone()
    feet = chosen(env, "robot", geom_names=(".*_foot",))
    dr.geom_matid(env, torch.arange(16), asset_cfg=feet)
    dr.mat_texid(env, torch.arange(16), asset_cfg=SceneEntityCfg("robot"))
    own = ids(env, "robot", "geom", "left_foot", "right_foot")
    materials = ids(env, "robot", "mat", "skin", "metal")
    picked = env.sim.model.geom_matid[:16, own]
    assert sorted(picked.unique().tolist()) == materials
    assert (picked[:, 0] != picked[:, 1]).any()
    textures = ids(env, "robot", "tex", "paint", "rust")
    role = mujoco.mjtTextureRole.mjTEXROLE_RGB.value
    assert sorted(env.sim.model.mat_texid[:16, materials, role].unique().tolist()) == textures
    assert torch.equal(env.sim.model.geom_matid[16:], before[0][16:])
    assert torch.equal(env.sim.model.mat_texid[16:], before[1][16:])
    dr.geom_matid(env, None, asset_cfg=feet, shared_random=True)
    picked = env.sim.model.geom_matid[:, own]
    assert torch.equal(picked[:, 0], picked[:, 1])
    with pytest.raises(ValueError, match="'arm' has no material to choose from"):
        dr.geom_matid(env, None, asset_cfg=SceneEntityCfg("arm"))


# Actuators.


def arm_env(*actuators: Any, **kwargs: Any) -> ManagerBasedRlEnv:
    articulation = EntityArticulationInfoCfg(actuators=actuators)
    entities = {"robot": robot_cfg(), "arm": arm_cfg(articulation=articulation, **kwargs)}
    return expanded(dr.pd_gains, dr.effort_limits, entities=entities)


def position_servos(**kwargs: Any) -> BuiltinPositionActuatorCfg:
    return BuiltinPositionActuatorCfg(
        target_names_expr=("shoulder", "elbow"), stiffness=50.0, damping=2.0, **kwargs
    )


def gains(env: ManagerBasedRlEnv, *names: str) -> torch.Tensor:
    """(gain, bias on position, bias on velocity) of the arm's actuators: (num_envs, n, 3)."""
    own = ids(env, "arm", "actuator", *names)
    model = env.sim.model
    return torch.cat(
        [model.actuator_gainprm[:, own, :1], model.actuator_biasprm[:, own, 1:3]], dim=-1
    )


@pytest.mark.parametrize("operation", ["scale", "abs"])
def test_gains_of_position_servos(operation: str):
    env = arm_env(position_servos())
    kp, kd = ((2.0, 3.0), (0.5, 0.6)) if operation == "scale" else ((100.0, 150.0), (1.0, 1.2))
    for _ in range(2):
        dr.pd_gains(env, SOME, kp, kd, asset_cfg=SceneEntityCfg("arm"), operation=operation)
    now = gains(env, "shoulder", "elbow")
    untouched = torch.tensor([50.0, -50.0, -2.0])
    torch.testing.assert_close(now[OTHERS], untouched.expand(2, 2, 3))
    new = now[SOME]
    assert ((new[..., 0] >= 100.0) & (new[..., 0] <= 150.0)).all()
    torch.testing.assert_close(new[..., 1], -new[..., 0])
    assert ((-new[..., 2] >= 1.0) & (-new[..., 2] <= 1.2)).all()
    assert new[..., 0].unique().numel() == 4


def test_gains_of_single_actuators_within_a_group():
    env = arm_env(position_servos())
    asset = chosen(env, "arm", actuator_names=("elbow",))
    dr.pd_gains(env, None, (2.0, 2.0), (3.0, 3.0), asset_cfg=asset)
    expected = torch.tensor([[50.0, -50.0, -2.0], [100.0, -100.0, -6.0]])
    torch.testing.assert_close(gains(env, "shoulder", "elbow"), expected.expand(4, 2, 3))


def test_gains_of_pd_pairs_keep_damping_in_the_velocity_servo():
    pd = BuiltinPdActuatorCfg(
        target_names_expr=("shoulder", "elbow"), stiffness=50.0, damping=2.0, effort_limit=10.0
    )
    env = arm_env(pd)
    dr.pd_gains(env, None, (2.0, 2.0), (3.0, 3.0), asset_cfg=SceneEntityCfg("arm"))
    own = env.scene["arm"].indexing.ctrl_ids
    gain, bias = env.sim.model.actuator_gainprm[0, own], env.sim.model.actuator_biasprm[0, own]
    torch.testing.assert_close(gain[:, 0], torch.tensor([100.0, 100.0, 6.0, 6.0]))
    torch.testing.assert_close(bias[:, 1], torch.tensor([-100.0, -100.0, 0.0, 0.0]))
    torch.testing.assert_close(bias[:, 2], torch.tensor([0.0, 0.0, -6.0, -6.0]))

    dr.effort_limits(env, SOME, (0.5, 0.5), asset_cfg=SceneEntityCfg("arm"))
    joints = ids(env, "arm", "joint", "shoulder", "elbow")
    ranges = env.sim.model.jnt_actfrcrange[:, joints]
    torch.testing.assert_close(ranges[SOME], torch.tensor([-5.0, 5.0]).expand(2, 2, 2))
    torch.testing.assert_close(ranges[OTHERS], torch.tensor([-10.0, 10.0]).expand(2, 2, 2))


def test_gains_and_limits_of_a_law_outside_of_mujoco():
    env = expanded(dr.pd_gains, dr.effort_limits)
    group = env.scene["robot"].actuators[0]
    left = chosen(env, "robot", actuator_names=("left_hip",))
    for _ in range(2):
        dr.pd_gains(env, SOME, (2.0, 2.0), (3.0, 3.0), asset_cfg=left)
        dr.effort_limits(env, SOME, (4.0, 4.0), asset_cfg=left)
    place = group.target_names.index("left_hip")
    for values, default, factor in (
        (group.stiffness, 20.0, 2.0),
        (group.damping, 1.0, 3.0),
        (group.force_limit, 5.0, 4.0),
    ):
        expected = torch.full((4, 2), default)
        expected[SOME, place] *= factor
        torch.testing.assert_close(values, expected)


def test_a_raised_effort_limit_reaches_the_joint():
    env = expanded(
        dr.effort_limits,
        actions={
            "hips": mdp.JointPositionActionCfg(entity_name="robot", actuator_names=(".*_hip",))
        },
    )
    dr.effort_limits(env, SOME, (3.0, 3.0))
    env.step(torch.full((4, 2), 10.0))  # The law wants 200 Nm, the limits are 5 and 15 Nm.
    force = env.scene["robot"].data.qfrc_actuator[:, 0]
    torch.testing.assert_close(force, torch.tensor([5.0, 15.0, 5.0, 15.0]))


@pytest.mark.parametrize("operation", ["scale", "abs"])
def test_effort_limits_of_servos_and_motors(operation: str):
    env = expanded(dr.effort_limits)
    span = (0.5, 0.6) if operation == "scale" else (5.0, 6.0)
    servos = chosen(env, "arm", actuator_names=("shoulder", "elbow"))
    dr.effort_limits(env, SOME, span, asset_cfg=servos, operation=operation)
    own = ids(env, "arm", "actuator", "shoulder", "elbow")
    limits = env.sim.model.actuator_forcerange[:, own]
    torch.testing.assert_close(limits[OTHERS], torch.tensor([-10.0, 10.0]).expand(2, 2, 2))
    assert ((limits[SOME, :, 1] >= 5.0) & (limits[SOME, :, 1] <= 6.0)).all()
    torch.testing.assert_close(limits[..., 0], -limits[..., 1])
    wrist = ids(env, "arm", "actuator", "wrist")[0]
    torch.testing.assert_close(
        env.sim.model.actuator_forcerange[:, wrist], torch.tensor([-3.0, 3.0]).expand(4, 2)
    )


def test_gains_of_position_actuators_from_the_xml():
    xml = XmlActuatorCfg(target_names_expr=("shoulder",))
    servo = '<actuator><position name="shoulder" joint="shoulder" kp="30" kv="3"/></actuator>'
    arm = arm_cfg(
        spec_fn=spec(ARM.replace("</mujoco>", servo + "</mujoco>")),
        articulation=EntityArticulationInfoCfg(actuators=(xml,)),
    )
    env = expanded(dr.pd_gains, entities={"arm": arm})
    dr.pd_gains(env, None, (2.0, 2.0), (3.0, 3.0), asset_cfg=SceneEntityCfg("arm"))
    torch.testing.assert_close(
        gains(env, "shoulder"), torch.tensor([60.0, -60.0, -9.0]).expand(4, 1, 3)
    )


def test_actuators_without_gains_or_limits_are_errors():
    env = expanded(dr.pd_gains, dr.effort_limits)
    with pytest.raises(TypeError, match=r"BuiltinMotorActuators on \['wrist'\]"):
        dr.pd_gains(env, None, (1.0, 1.0), (1.0, 1.0), asset_cfg=SceneEntityCfg("arm"))
    with pytest.raises(ValueError, match="'scale' and 'abs', got 'add'"):
        dr.pd_gains(env, None, (1.0, 1.0), (1.0, 1.0), operation="add")
    unlimited = arm_env(position_servos())
    with pytest.raises(ValueError, match="no effort limit to randomize"):
        dr.effort_limits(unlimited, None, (1.0, 1.0), asset_cfg=SceneEntityCfg("arm"))


def test_encoder_bias_of_chosen_joints_and_worlds():
    env = make_env()
    asset = chosen(env, "arm", joint_names=("wrist", "shoulder"), preserve_order=True)
    dr.encoder_bias(env, SOME, (0.1, 0.2), asset_cfg=asset)
    bias = env.scene["arm"].data.encoder_bias
    assert (bias[OTHERS] == 0).all() and (bias[:, 1] == 0).all()
    assert ((bias[SOME][:, [0, 2]] >= 0.1) & (bias[SOME][:, [0, 2]] <= 0.2)).all()
    assert (env.scene["robot"].data.encoder_bias == 0).all()
