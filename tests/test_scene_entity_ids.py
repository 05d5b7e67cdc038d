"""Stock terms, events and randomizations work on the parts that a SceneEntityCfg's ids name."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdp_worlds import ARM, arm_cfg, ids, make_env, robot_cfg, scramble

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import (
    CurriculumTermCfg,
    EventTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
)

JOINTS = ["shoulder", "elbow", "wrist"]
QUATS = ("geom_quat", "body_quat", "site_quat", "cam_quat")
OTHER_EVENTS = (dr.geom_size, dr.pseudo_inertia, dr.pair_friction, dr.pd_gains, dr.effort_limits)
MODEL_FIELDS = sorted(
    {f for name in dr.fields.__all__ for f in getattr(dr, name).model_fields}
    | {f for func in OTHER_EVENTS for f in func.model_fields}
    | {"geom_matid", "mat_texid"}
)
# Three of every kind in one entity, so that ids can be chosen in any order.
PARTS = """
  <asset>
    <texture name="t0" type="2d" builtin="flat" width="4" height="4"/>
    <texture name="t1" type="2d" builtin="flat" width="4" height="4"/>
    <texture name="t2" type="2d" builtin="flat" width="4" height="4"/>
    <material name="m0" texture="t0"/><material name="m1" texture="t1"/>
    <material name="m2" texture="t2"/>
  </asset>
  <contact>
    <pair name="p0" geom1="upper_geom" geom2="fore_geom" condim="6"/>
    <pair name="p1" geom1="upper_geom" geom2="hand_geom" condim="6"/>
    <pair name="p2" geom1="fore_geom" geom2="hand_geom" condim="6"/>
  </contact>
  <tendon>
    <fixed name="d1" stiffness="1" damping="0.1" frictionloss="0.1" armature="0.1">
      <joint joint="elbow" coef="1"/></fixed>
    <fixed name="d2" stiffness="1" damping="0.1" frictionloss="0.1" armature="0.1">
      <joint joint="wrist" coef="1"/></fixed>
  </tendon>
</mujoco>
"""
ON_BODIES = {
    body: f'<site name="s{i}"/><camera name="c{i}"/><light name="l{i}" pos="0 0 1"/>'
    for i, body in enumerate(("upper", "fore", "hand"))
}


def arm_xml() -> str:
    xml = ARM.replace('<site name="tip"/>', "").replace("</mujoco>", PARTS)
    for joint, body in zip(JOINTS, ON_BODIES, strict=True):
        xml = xml.replace(f'<joint name="{joint}"', f'{ON_BODIES[body]}<joint name="{joint}"')
    return xml


@pytest.fixture(scope="module")
def env() -> ManagerBasedRlEnv:
    from mdp_worlds import spec

    servos = BuiltinPositionActuatorCfg(
        target_names_expr=tuple(JOINTS), stiffness=50.0, damping=2.0, effort_limit=10.0
    )
    arm = arm_cfg(
        spec_fn=spec(arm_xml()),
        articulation=EntityArticulationInfoCfg(
            actuators=(servos,), soft_joint_pos_limit_factor=0.5
        ),
    )
    env = make_env(entities={"robot": robot_cfg(), "arm": arm})
    env.sim.expand_model_fields(MODEL_FIELDS)
    env.step(torch.zeros(4, 0))
    scramble(env)
    return env


# Ways to choose ids. Each takes the environment, a kind and ids, and gives a config.


def given_to_the_constructor(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return SceneEntityCfg("arm", **{f"{kind}_ids": chosen})  # type: ignore[arg-type]


def resolved(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    cfg = given_to_the_constructor(env, kind, list(chosen))
    cfg.resolve(env.scene)
    return cfg


def set_after_resolving(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    cfg = resolved(env, kind, [1, 0])
    cfg.index(kind)  # type: ignore[arg-type]
    setattr(cfg, f"{kind}_ids", chosen)
    return cfg


def set_after_resolving_names(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    cfg = SceneEntityCfg("arm", **{f"{kind}_names": ".*"})  # type: ignore[arg-type]
    cfg.resolve(env.scene)
    setattr(cfg, f"{kind}_ids", chosen)
    return cfg


def changed_in_place(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    cfg = resolved(env, kind, [1, 0])
    cfg.index(kind)  # type: ignore[arg-type]
    getattr(cfg, f"{kind}_ids")[:] = chosen
    return cfg


def set_before_resolving_again(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    cfg = set_after_resolving(env, kind, chosen)
    cfg.resolve(env.scene)
    return cfg


def a_tensor(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return set_after_resolving(env, kind, torch.tensor(chosen, dtype=torch.long))  # type: ignore


def an_array(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return set_after_resolving(env, kind, np.array(chosen, dtype=int))  # type: ignore


def a_tuple(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return set_after_resolving(env, kind, tuple(chosen))  # type: ignore


def a_copy(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return copy.deepcopy(set_after_resolving(env, kind, chosen))


def replaced(env: Any, kind: str, chosen: list[int]) -> SceneEntityCfg:
    return dataclasses.replace(resolved(env, kind, [1, 0]), **{f"{kind}_ids": chosen})


WAYS: list[Callable[[Any, str, list[int]], SceneEntityCfg]] = [
    given_to_the_constructor,
    resolved,
    set_after_resolving,
    set_after_resolving_names,
    changed_in_place,
    set_before_resolving_again,
    a_tensor,
    an_array,
    a_tuple,
    a_copy,
    replaced,
]
CHOICES = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
examples = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


# Terms.


def soft(data: Any) -> tuple[np.ndarray, np.ndarray]:
    limits = data.soft_joint_pos_limits.numpy()
    return limits[..., 0], limits[..., 1]


def beyond(data: Any, columns: list[int]) -> np.ndarray:
    (low, high), pos = soft(data), data.joint_pos.numpy()
    return (np.maximum(low - pos, 0) + np.maximum(pos - high, 0))[:, columns].sum(1)


def outside(data: Any, columns: list[int]) -> np.ndarray:
    (low, high), pos = soft(data), data.joint_pos.numpy()
    return ((pos < low) | (pos > high))[:, columns].any(1)


TERMS: dict[Any, tuple[str, Callable[[Any, list[int]], np.ndarray]]] = {
    mdp.joint_pos: ("joint", lambda d, c: d.joint_pos.numpy()[:, c]),
    mdp.joint_vel: ("joint", lambda d, c: d.joint_vel.numpy()[:, c]),
    mdp.joint_pos_rel: ("joint", lambda d, c: (d.joint_pos - d.default_joint_pos).numpy()[:, c]),
    mdp.joint_vel_rel: ("joint", lambda d, c: (d.joint_vel - d.default_joint_vel).numpy()[:, c]),
    mdp.joint_torques_l2: ("actuator", lambda d, c: (d.actuator_force.numpy()[:, c] ** 2).sum(1)),
    mdp.joint_vel_l2: ("joint", lambda d, c: (d.joint_vel.numpy()[:, c] ** 2).sum(1)),
    mdp.joint_acc_l2: ("joint", lambda d, c: (d.joint_acc.numpy()[:, c] ** 2).sum(1)),
    mdp.joint_pos_limits: ("joint", beyond),
    mdp.joint_pos_out_of_limit: ("joint", outside),
    mdp.electrical_power_cost: (
        "joint",
        lambda d, c: (d.qfrc_actuator * d.joint_vel).clamp(min=0).numpy()[:, c].sum(1),
    ),
}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)
@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_terms_use_exactly_these_ids(env: Any, term: Any, chosen: list[int], way: Any) -> None:
    kind, expected = TERMS[term]
    value = term(env, asset_cfg=way(env, kind, list(chosen)))
    wanted = expected(env.scene["arm"].data, chosen)
    np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=1e-5)


@given(first=CHOICES, second=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_posture_follows_ids_and_std(
    env: Any, first: list[int], second: list[int], way: Any
) -> None:
    std = {".*": 0.3}
    widths = {0: 0.1, 1: 0.3, 2: 0.7}
    cfg = way(env, "joint", list(first))
    params = {"std": std, "asset_cfg": cfg}
    term = mdp.posture(RewardTermCfg(func=mdp.posture, weight=1.0, params=params), env)
    data = env.scene["arm"].data

    def expected(columns: list[int], scale: Any) -> np.ndarray:
        error = (data.joint_pos - data.default_joint_pos).numpy()[:, columns]
        return np.exp(-((error / scale) ** 2).mean(1))

    np.testing.assert_allclose(term(env, **params).numpy(), expected(first, 0.3), rtol=1e-4)
    cfg.joint_ids = list(second)
    np.testing.assert_allclose(term(env, **params).numpy(), expected(second, 0.3), rtol=1e-4)
    value = term(env, std={JOINTS[i]: widths[i] for i in second}, asset_cfg=cfg)
    wanted = expected(second, np.array([widths[i] for i in second]))
    np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4)


# Events.


@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_joints_are_reset_by_id(env: Any, chosen: list[int], way: Any) -> None:
    arm = env.scene["arm"]
    far = torch.full((4, 3), 9.0)
    arm.write_joint_state_to_sim(far, far)
    mdp.reset_joints_by_offset(
        env, None, (0.0, 0.0), (0.0, 0.0), asset_cfg=way(env, "joint", list(chosen))
    )
    moved = (env.sim.data.qvel[:, arm.indexing.joint_v_adr] != 9.0).numpy()
    assert (
        sorted(np.flatnonzero(moved.all(0)))
        == sorted(chosen)
        == sorted(np.flatnonzero(moved.any(0)))
    )
    scramble(env)


@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_forces_act_on_bodies_by_id(env: Any, chosen: list[int], way: Any) -> None:
    wrench = env.sim.data.xfrc_applied
    wrench.zero_()
    cfg = way(env, "body", list(chosen))
    mdp.apply_external_force_torque(env, None, (1.0, 2.0), (3.0, 4.0), asset_cfg=cfg)
    bodies = model_rows(env, "body", [0, 1, 2])
    assert hit(wrench) == sorted(bodies[i] for i in chosen)
    wrench.zero_()


@given(first=CHOICES, second=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_impulses_move_on_to_other_bodies(
    env: Any, first: list[int], second: list[int], way: Any
) -> None:
    wrench = env.sim.data.xfrc_applied
    wrench.zero_()
    bodies = model_rows(env, "body", [0, 1, 2])
    params: dict[str, Any] = dict(
        force_range=(1.0, 2.0),
        torque_range=(1.0, 2.0),
        duration_s=(9.0, 9.0),
        cooldown_s=(0.0, 0.0),
        asset_cfg=way(env, "body", list(first)),
    )
    bump = mdp.apply_body_impulse(
        EventTermCfg(func=mdp.apply_body_impulse, mode="step", params=params), env
    )
    bump.reset()
    bump(env, None, **params)
    assert hit(wrench) == sorted(bodies[i] for i in first)
    params["asset_cfg"].body_ids = list(second)
    bump(env, None, **params)
    assert hit(wrench) == (sorted(bodies[i] for i in first) if first == second else [])
    wrench.zero_()
    bump.reset()
    bump(env, None, **params)
    assert hit(wrench) == sorted(bodies[i] for i in second)
    wrench.zero_()


def hit(wrench: torch.Tensor) -> list[int]:
    return np.flatnonzero((wrench != 0).any(-1).all(0).numpy()).tolist()


# Randomizations.

KINDS = {"dof": "joint", "jnt": "joint", "qpos0": "joint", "cam": "camera", "mat": "material"}


def model_rows(env: Any, field: str, chosen: list[int]) -> list[int]:
    """Rows of a model field for an arm's parts, by MuJoCo's names."""
    prefix = field.split("_")[0]
    kind = KINDS.get(prefix, prefix)
    names = list(getattr(env.scene["arm"], f"{kind}_names"))
    wanted = [names[i] for i in chosen]
    accessor = {"camera": "cam", "material": "mat", "texture": "tex"}.get(kind, kind)
    parts = [getattr(env.sim.mj_model, accessor)(f"arm/{name}") for name in wanted]
    if prefix == "dof":
        return [int(part.dofadr[0]) for part in parts]
    if prefix == "qpos0":
        return [int(part.qposadr[0]) for part in parts]
    return [part.id for part in parts]


def rows_changed(env: Any, field: str, call: Callable[[], None]) -> list[int]:
    """Rows of a field that a call changes in some world; the field is put back."""
    value = getattr(env.sim.model, field)
    before = value.clone()
    call()
    now = getattr(env.sim.model, field)
    mask = (now != before).reshape(4, before.shape[1], -1).any(-1).any(0)
    now.copy_(before)
    return np.flatnonzero(mask.numpy()).tolist()


@pytest.mark.parametrize("name", dr.fields.__all__)
@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@settings(examples, max_examples=25)
def test_fields_are_randomized_by_id(env: Any, name: str, chosen: list[int], way: Any) -> None:
    func = getattr(dr, name)
    field = func.model_fields[0]
    prefix = field.split("_")[0]
    cfg = way(env, KINDS.get(prefix, prefix), list(chosen))
    params = (
        {"yaw_range": (0.1, 0.2)} if name in QUATS else {"ranges": (0.6, 0.7), "operation": "abs"}
    )
    found = rows_changed(env, field, lambda: func(env, None, asset_cfg=cfg, **params))
    assert found == sorted(model_rows(env, field, chosen))


WHOLE: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "geom_size": (dr.geom_size, "geom", "geom_size", {"ranges": (1.5, 2.0)}),
    "pair_friction": (dr.pair_friction, "pair", "pair_friction", {"ranges": (0.1, 0.2)}),
    "pseudo_inertia": (dr.pseudo_inertia, "body", "body_ipos", {"t_range": (0.1, 0.2)}),
    "pd_gains": (
        dr.pd_gains,
        "actuator",
        "actuator_gainprm",
        {"kp_range": (2.0, 3.0), "kd_range": (2.0, 3.0)},
    ),
    "effort_limits": (
        dr.effort_limits,
        "actuator",
        "actuator_forcerange",
        {"effort_limit_range": (0.1, 0.2)},
    ),
}


@pytest.mark.parametrize("name", WHOLE)
@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@settings(examples, max_examples=25)
def test_other_randomizations_go_by_id(env: Any, name: str, chosen: list[int], way: Any) -> None:
    func, kind, field, params = WHOLE[name]
    cfg = way(env, kind, list(chosen))
    found = rows_changed(env, field, lambda: func(env, None, asset_cfg=cfg, **params))
    assert found == sorted(model_rows(env, field, chosen))


@given(geoms=CHOICES, materials=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_materials_of_geoms_go_by_id(
    env: Any, geoms: list[int], materials: list[int], way: Any
) -> None:
    cfg = way(env, "geom", list(geoms))
    cfg.material_ids = list(materials)
    matid = env.sim.model.geom_matid
    matid.fill_(-1)
    dr.geom_matid(env, None, asset_cfg=cfg)
    rows = ids(env, "arm", "geom", *(["upper_geom", "fore_geom", "hand_geom"][i] for i in geoms))
    assert np.flatnonzero((matid >= 0).any(0).numpy()).tolist() == sorted(rows)
    own = {env.sim.mj_model.mat(f"arm/m{i}").id for i in materials}
    assert set(matid[:, rows].flatten().tolist()) <= own


@given(materials=CHOICES, textures=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_textures_of_materials_go_by_id(
    env: Any, materials: list[int], textures: list[int], way: Any
) -> None:
    cfg = way(env, "material", list(materials))
    cfg.texture_ids = list(textures)
    texid = env.sim.model.mat_texid
    texid.fill_(-1)
    dr.mat_texid(env, None, asset_cfg=cfg)
    rows = [env.sim.mj_model.mat(f"arm/m{i}").id for i in materials]
    assert np.flatnonzero((texid >= 0).any(-1).any(0).numpy()).tolist() == sorted(rows)
    own = {env.sim.mj_model.tex(f"arm/t{i}").id for i in textures}
    assert set(texid[texid >= 0].flatten().tolist()) <= own


@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_encoder_bias_goes_by_id(env: Any, chosen: list[int], way: Any) -> None:
    bias = env.scene["arm"].data.encoder_bias
    bias.zero_()
    dr.encoder_bias(env, None, (0.1, 0.2), asset_cfg=way(env, "joint", list(chosen)))
    assert np.flatnonzero((bias != 0).all(0).numpy()).tolist() == sorted(chosen)
    bias.zero_()


@given(chosen=CHOICES, way=st.sampled_from(WAYS))
@examples
def test_ranges_by_name_look_among_the_ids(env: Any, chosen: list[int], way: Any) -> None:
    cfg = way(env, "geom", list(chosen))
    names = ["upper_geom", "fore_geom", "hand_geom"]
    ranges = {names[i]: (0.1 * i, 0.1 * i) for i in chosen}
    before = env.sim.model.geom_friction.clone()
    dr.geom_friction(env, None, ranges, asset_cfg=cfg)
    for i in range(3):
        row = env.sim.mj_model.geom(f"arm/{names[i]}").id
        wanted = torch.full((4,), 0.1 * i) if i in chosen else before[:, row, 0]
        torch.testing.assert_close(env.sim.model.geom_friction[:, row, 0], wanted)
    env.sim.model.geom_friction.copy_(before)


# The config itself.


@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(0, 2), slice(None, None, 2)])
def test_slices(env: Any, part: slice) -> None:
    vel = env.scene["arm"].data.joint_vel
    for way in (given_to_the_constructor, set_after_resolving):
        cfg = way(env, "joint", part)  # type: ignore[arg-type]
        assert torch.equal(mdp.joint_vel(env, asset_cfg=cfg), vel[:, part])
    cfg.resolve(env.scene)
    assert torch.equal(mdp.joint_vel(env, asset_cfg=cfg), vel[:, part])


def test_a_mask_selects_where_it_is_true(env: Any) -> None:
    vel = env.scene["arm"].data.joint_vel
    for mask in (torch.tensor([True, False, True]), np.array([True, False, True])):
        cfg = set_after_resolving(env, "joint", mask)  # type: ignore[arg-type]
        assert torch.equal(mdp.joint_vel(env, asset_cfg=cfg), vel[:, [0, 2]])


def test_an_unchanged_choice_gives_the_same_index_object(env: Any) -> None:
    for cfg in (SceneEntityCfg("arm"), resolved(env, "joint", [2, 0]), SceneEntityCfg("arm")):
        assert cfg.index("joint") is cfg.index("joint")


def test_ids_set_back_to_all_mean_all(env: Any) -> None:
    cfg = SceneEntityCfg("arm", joint_names=("elbow",))
    cfg.resolve(env.scene)
    cfg.joint_ids = slice(None)
    assert mdp.joint_vel(env, asset_cfg=cfg).shape == (4, 3)


@pytest.mark.parametrize("wrong", [[3], [0, 7], [-1]])
def test_ids_out_of_range_are_errors(env: Any, wrong: list[int]) -> None:
    cfg = set_after_resolving(env, "joint", wrong)
    with pytest.raises(ValueError, match=r"joint_ids .* out of range: 'arm' has 3 joints"):
        mdp.joint_vel(env, asset_cfg=cfg)
    with pytest.raises(ValueError, match=r"joint_ids .* out of range: 'arm' has 3 joints"):
        mdp.joint_vel(env, asset_cfg=SceneEntityCfg("arm", joint_ids=wrong))


@pytest.mark.parametrize("wrong", ["elbow", 1.5, [0.5], [True, False], None])
def test_other_types_are_errors(env: Any, wrong: Any) -> None:
    cfg = SceneEntityCfg("arm")
    cfg.joint_ids = wrong
    with pytest.raises(TypeError, match="joint_ids must be a slice or integers"):
        cfg.index("joint")


def test_names_set_by_hand_are_looked_up_when_a_term_needs_them(env: Any) -> None:
    vel = env.scene["arm"].data.joint_vel
    fresh = SceneEntityCfg("arm", joint_names=("elbow",))
    assert torch.equal(mdp.joint_vel(env, asset_cfg=fresh), vel[:, [1]])
    fresh.joint_names = ("wrist", "shoulder")
    assert torch.equal(mdp.joint_vel(env, asset_cfg=fresh), vel[:, [0, 2]])
    assert fresh.joint_ids == [0, 2] and fresh.joint_names == ["shoulder", "wrist"]
    fresh.joint_names = ("elbw",)
    with pytest.raises(ValueError, match="Did you mean 'elbow'"):
        mdp.joint_vel(env, asset_cfg=fresh)
    fresh.joint_names, fresh.joint_ids = ("elbow",), [2]  # The ids are what counts.
    assert torch.equal(mdp.joint_vel(env, asset_cfg=fresh), vel[:, [2]])


def test_without_a_scene_names_are_an_error_and_not_all_parts() -> None:
    cfg = SceneEntityCfg("arm", joint_names=("elbow",))
    with pytest.raises(ValueError, match=r"\('elbow',\) of 'arm' have not been looked up.*resolve"):
        cfg.index("joint")


def test_resolving_again_follows_what_was_changed(env: Any) -> None:
    cfg = SceneEntityCfg("arm", joint_names=("elbow",))
    cfg.resolve(env.scene)
    cfg.joint_ids = [0]
    cfg.resolve(env.scene)
    assert cfg.joint_names == ["shoulder"] and cfg.joint_ids == [0]
    cfg.joint_ids, cfg.joint_names = [1], ["wrist"]
    with pytest.raises(ValueError, match="Give one of the two"):
        cfg.resolve(env.scene)


def test_managers_and_curricula_may_change_ids_in_mid_run() -> None:
    def narrow(env: Any, env_ids: Any) -> None:
        term = env.reward_manager.get_term_cfg("speed")
        term.params["asset_cfg"].joint_ids = [1]

    speed = RewardTermCfg(
        func=mdp.joint_vel_l2, weight=1.0, params={"asset_cfg": SceneEntityCfg("arm")}
    )
    env = make_env(
        rewards={"speed": speed},
        curriculum={"narrow": CurriculumTermCfg(func=narrow)},
        scale_rewards_by_dt=False,
    )
    data = env.scene["arm"].data
    env.reward_manager.get_term_cfg("speed").params["asset_cfg"].joint_ids = [0, 2]
    # The reward is computed from the state at the end of the step.
    torch.testing.assert_close(
        env.step(torch.zeros(4, 0))[1], (data.joint_vel**2)[:, [0, 2]].sum(1)
    )
    env.reset()
    torch.testing.assert_close(env.step(torch.zeros(4, 0))[1], data.joint_vel[:, 1] ** 2)
    env.reward_manager.get_term_cfg("speed").params["asset_cfg"] = SceneEntityCfg(
        "arm", joint_ids=[2]
    )
    torch.testing.assert_close(env.step(torch.zeros(4, 0))[1], data.joint_vel[:, 2] ** 2)
