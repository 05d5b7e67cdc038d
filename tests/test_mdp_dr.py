"""Domain randomization: the engine, and every field of the table through it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import mujoco
import pytest
import torch
from mdp_worlds import chosen, ids, make_env

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.sim import RecomputeLevel

SOME = torch.tensor([1, 3])
OTHERS = torch.tensor([0, 2])
QUATS = ("geom_quat", "body_quat", "site_quat", "cam_quat")
ALL_FIELDS = sorted(
    {f for name in dr.fields.__all__ for f in getattr(dr, name).model_fields}
    | set(
        dr.geom_size.model_fields + dr.pseudo_inertia.model_fields + dr.pair_friction.model_fields
    )
    | set(dr.pd_gains.model_fields + dr.effort_limits.model_fields)
)


@pytest.fixture(scope="module")
def shared() -> ManagerBasedRlEnv:
    env = make_env()
    env.sim.expand_model_fields(ALL_FIELDS)
    return env


@pytest.fixture
def env(shared: ManagerBasedRlEnv) -> Iterator[ManagerBasedRlEnv]:
    """Four worlds whose model fields are per world and as compiled."""
    shared.rng.seed(3)
    yield shared
    for field in ALL_FIELDS:
        getattr(shared.sim.model, field)[:] = shared.sim.get_default_field(field)


def snapshot(env: ManagerBasedRlEnv) -> dict[str, torch.Tensor]:
    return {field: getattr(env.sim.model, field).clone() for field in ALL_FIELDS}


def changed(env: ManagerBasedRlEnv, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where fields differ from a snapshot: field -> bool tensor."""
    masks = {field: getattr(env.sim.model, field) != old for field, old in before.items()}
    return {field: mask for field, mask in masks.items() if mask.any()}


def call(env: ManagerBasedRlEnv, name: str, env_ids: torch.Tensor | None, **params: Any) -> None:
    func = getattr(dr, name)
    wanted = {"yaw_range": (0.1, 0.2)} if name in QUATS else {"ranges": (0.1, 0.2)}
    func(env, env_ids, **{**wanted, **params})


def asset_of(name: str) -> str:
    return "arm" if name.startswith("tendon") else "robot"


# Every field of the table.


@pytest.mark.parametrize("name", dr.fields.__all__)
def test_only_the_field_the_worlds_and_the_entity_change(env: ManagerBasedRlEnv, name: str):
    before = snapshot(env)
    asset = SceneEntityCfg(asset_of(name))
    call(env, name, SOME, asset_cfg=asset)
    func = getattr(dr, name)
    field = func.model_fields[0]
    masks = changed(env, before)
    assert list(masks) == [field]
    assert not masks[field][OTHERS].any()
    mask = (
        masks[field][SOME].flatten(start_dim=2).any(-1)
        if before[field].ndim > 2
        else (masks[field][SOME])
    )
    along = {"dof": "joint_v_adr", "qpos": "joint_q_adr"}
    prefix = field.split("_")[0]
    table = {
        "geom": "geom_ids",
        "body": "body_ids",
        "dof": along["dof"],
        "jnt": "joint_ids",
        "qpos0": along["qpos"],
        "site": "site_ids",
        "tendon": "tendon_ids",
        "cam": "cam_ids",
        "light": "light_ids",
        "mat": "mat_ids",
    }[prefix]
    own = getattr(env.scene[asset.name].indexing, table).tolist()
    assert own and mask.nonzero()[:, 1].unique().tolist() == sorted(own)


@pytest.mark.parametrize("name", [n for n in dr.fields.__all__ if n not in QUATS])
def test_repeating_does_not_pile_up(env: ManagerBasedRlEnv, name: str):
    field = getattr(dr, name).model_fields[0]
    default = env.sim.get_default_field(field)
    asset = SceneEntityCfg(asset_of(name))
    for operation, expected in (("scale", 1.1 * default), ("add", 0.1 + default)):
        for _ in range(3):
            call(
                env,
                name,
                None,
                operation=operation,
                ranges=(value(operation),) * 2,
                asset_cfg=asset,
            )
        new = getattr(env.sim.model, field)[0]
        moved = new != default
        torch.testing.assert_close(new[moved], expected[moved])
        assert operation == "scale" or moved.any()


def value(operation: str) -> float:
    return 1.1 if operation == "scale" else 0.1


@pytest.mark.parametrize("name", QUATS)
def test_turns_start_from_the_default_and_stay_unit(env: ManagerBasedRlEnv, name: str):
    field = getattr(dr, name).model_fields[0]
    for _ in range(3):
        getattr(dr, name)(env, None, roll_range=(0.1, 0.2), pitch_range=(-0.2, -0.1))
    quat = getattr(env.sim.model, field)
    torch.testing.assert_close(quat.norm(dim=-1), torch.ones(quat.shape[:2]))
    own = getattr(env.scene["robot"].indexing, {"cam_quat": "cam_ids"}.get(name, f"{name[:4]}_ids"))
    dot = (quat[:, own] * env.sim.get_default_field(field)[own]).sum(-1).abs().clamp(max=1.0)
    angle = 2 * torch.acos(dot)
    assert (angle > 0.14).all() and (angle < 0.29).all()


@pytest.mark.parametrize("name", dr.fields.__all__)
def test_table_entries_survive_pickling_and_say_what_they_do(name: str):
    func = getattr(dr, name)
    assert pickle.loads(pickle.dumps(func)) is func
    assert func.__doc__ and func.__doc__.endswith(".")


# The engine.


def test_operations_and_default_axis_of_friction(env: ManagerBasedRlEnv):
    default = env.sim.get_default_field("geom_friction")
    own = ids(env, "robot", "geom", "trunk", "left_foot")
    asset = chosen(env, "robot", geom_names=("trunk", "left_foot"))
    dr.geom_friction(env, None, (0.3, 1.2), asset_cfg=asset)
    friction = env.sim.model.geom_friction
    assert (friction[:, own, 0] >= 0.3).all() and (friction[:, own, 0] <= 1.2).all()
    assert torch.equal(friction[:, own, 1:], default[own, 1:].expand(4, 2, 2))
    assert friction[:, own, 0].unique().numel() == 8


def test_events_on_different_axes_do_not_undo_each_other(env: ManagerBasedRlEnv):
    asset = chosen(env, "robot", geom_names="trunk")
    trunk = ids(env, "robot", "geom", "trunk")[0]
    dr.geom_friction(env, None, (2.0, 2.0), operation="scale", axes=[1], asset_cfg=asset)
    dr.geom_friction(env, None, {0: (3.0, 3.0)}, operation="scale", asset_cfg=asset)
    default = env.sim.get_default_field("geom_friction")[trunk]
    expected = default * torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(env.sim.model.geom_friction[:, trunk], expected.expand(4, 3))


def test_ranges_by_axis(env: ManagerBasedRlEnv):
    dr.body_com_offset(env, None, {0: (0.1, 0.1), 2: (-0.2, -0.2)})
    own = env.scene["robot"].indexing.body_ids
    offset = env.sim.model.body_ipos[:, own] - env.sim.get_default_field("body_ipos")[own]
    torch.testing.assert_close(offset, torch.tensor([0.1, 0.0, -0.2]).expand_as(offset))


def test_ranges_by_name(env: ManagerBasedRlEnv):
    dr.geom_friction(env, None, {".*_foot": (0.5, 0.6), "trunk": {0: (2.0, 2.5), 1: (0.7, 0.8)}})
    friction = env.sim.model.geom_friction
    feet = friction[:, ids(env, "robot", "geom", "left_foot", "right_foot")]
    trunk = friction[:, ids(env, "robot", "geom", "trunk")[0]]
    assert ((feet[..., 0] >= 0.5) & (feet[..., 0] <= 0.6)).all() and (feet[..., 1] < 0.01).all()
    assert ((trunk[:, 0] >= 2.0) & (trunk[:, 0] <= 2.5)).all()
    assert ((trunk[:, 1] >= 0.7) & (trunk[:, 1] <= 0.8)).all()


def test_ranges_by_name_stay_within_the_selection(env: ManagerBasedRlEnv):
    asset = chosen(env, "robot", geom_names=("right_foot", "trunk"))
    before = snapshot(env)
    dr.geom_friction(env, None, {".*_foot": (0.5, 0.5)}, asset_cfg=asset)
    mask = changed(env, before)["geom_friction"]
    assert mask.nonzero()[:, 1].unique().tolist() == ids(env, "robot", "geom", "right_foot")


def test_unknown_pattern_names_the_nearest(env: ManagerBasedRlEnv):
    with pytest.raises(ValueError, match=r"geoms of 'robot': .*'.*_fot'.*left_foot"):
        dr.geom_friction(env, None, {".*_fot": (0.5, 0.6)})


def test_shared_random_gives_all_parts_the_same(env: ManagerBasedRlEnv):
    dr.geom_friction(env, None, (0.3, 1.2), shared_random=True)
    own = env.scene["robot"].indexing.geom_ids
    value = env.sim.model.geom_friction[:, own, 0]
    assert torch.equal(value, value[:, :1].expand_as(value))
    assert value[:, 0].unique().numel() == 4


def test_the_selection_keeps_its_order(env: ManagerBasedRlEnv):
    asset = chosen(env, "arm", joint_names=("wrist", "shoulder"), preserve_order=True)
    dr.joint_damping(env, None, {"wrist": (5.0, 5.0), "shoulder": (6.0, 6.0)}, asset_cfg=asset)
    dofs = [env.sim.mj_model.joint(f"arm/{n}").dofadr[0] for n in ("shoulder", "elbow", "wrist")]
    expected = torch.tensor([6.0, 1.0, 5.0]).expand(4, 3)
    torch.testing.assert_close(env.sim.model.dof_damping[:, dofs], expected)


@pytest.mark.parametrize("distribution", ["uniform", "log_uniform", "gaussian"])
def test_draws_of_a_world_do_not_depend_on_other_worlds(env: ManagerBasedRlEnv, distribution: str):
    results = []
    for env_ids in (None, torch.tensor([2]), torch.tensor([3, 2])):
        env.rng.seed(9)
        dr.body_mass(env, env_ids, (0.5, 2.0), distribution=distribution, operation="abs")
        results.append(env.sim.model.body_mass[2].clone())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    env.rng.seed(10)
    dr.body_mass(env, None, (0.5, 2.0), distribution=distribution, operation="abs")
    assert not torch.equal(results[0], env.sim.model.body_mass[2])


def test_own_operation_and_distribution(env: ManagerBasedRlEnv):
    negate = dr.Operation(
        "negate", torch.zeros_like, lambda base, drawn: -(base + drawn), uses_defaults=True
    )
    two = dr.Distribution("two", lambda low, high, shape, device: low.expand(shape) * 2)
    dr.body_mass(env, None, (1.5, 9.0), operation=negate, distribution=two)
    own = env.scene["robot"].indexing.body_ids
    expected = -(env.sim.get_default_field("body_mass")[own] + 3.0)
    torch.testing.assert_close(env.sim.model.body_mass[:, own], expected.expand(4, -1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ranges": (0.1, 1.0), "axes": [3]}, r"geom_friction has no axes \[3\], only \[0, 1, 2\]"),
        ({"ranges": {0: (0.1, 1.0)}, "axes": [0, 1]}, r"lack the axes \[1\]"),
        ({"ranges": (0.1, 1.0), "operation": "multiply"}, "Unknown operation 'multiply'"),
        ({"ranges": (0.1, 1.0), "distribution": "unifrom"}, "Did you mean 'uniform'"),
        ({"ranges": (0.0, 1.0), "distribution": "log_uniform"}, "needs positive bounds"),
    ],
)
def test_bad_input(env: ManagerBasedRlEnv, params: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        dr.geom_friction(env, None, **params)


# Derived constants, through the event manager.


def test_derived_constants_follow_in_all_modes():
    event = EventTermCfg(func=dr.body_mass, mode="reset", params={"ranges": (2.0, 3.0)})
    env = make_env(events={"mass": event})
    assert dr.body_mass.recompute == RecomputeLevel.set_const
    mass = env.sim.model.body_mass
    total = env.sim.model.body_subtreemass[:, env.scene["robot"].indexing.root_body_id]
    own = mass[:, env.scene["robot"].indexing.body_ids].sum(dim=1)
    torch.testing.assert_close(total, own)
    assert own.unique().numel() == 4 and (own > 12.0).all()

    model = env.sim.mj_model
    data = mujoco.MjData(model)
    model.body_mass[:] = mass[2].double().numpy()
    mujoco.mj_setConst(model, data)
    expected = torch.from_numpy(model.dof_invweight0).float()
    torch.testing.assert_close(env.sim.model.dof_invweight0[2].float(), expected)


def test_a_reset_randomizes_only_the_worlds_it_resets():
    event = EventTermCfg(func=dr.body_mass, mode="reset", params={"ranges": (2.0, 3.0)})
    env = make_env(events={"mass": event})
    before = env.sim.model.body_mass.clone()
    env.reset(env_ids=SOME)
    after = env.sim.model.body_mass
    assert torch.equal(before[OTHERS], after[OTHERS]) and not torch.equal(before[SOME], after[SOME])
    own = env.scene["robot"].indexing.body_ids
    factor = after[:, own] / env.sim.get_default_field("body_mass")[own]
    assert ((factor >= 2.0) & (factor <= 3.0)).all()


def test_physics_feels_the_randomized_field():
    event = EventTermCfg(
        func=dr.joint_damping,
        mode="startup",
        params={
            "ranges": {"wrist": (0.0, 1.0)},
            "asset_cfg": SceneEntityCfg("arm"),
        },
    )
    env = make_env(events={"damping": event})
    for _ in range(50):
        env.step(torch.zeros(4, 0))
    damping = env.sim.model.dof_damping[:, env.sim.mj_model.joint("arm/wrist").dofadr[0]]
    speed = env.sim.data.qvel[:, env.sim.mj_model.joint("arm/wrist").dofadr[0]]
    assert torch.equal(damping.argsort(), speed.abs().argsort(descending=True))
