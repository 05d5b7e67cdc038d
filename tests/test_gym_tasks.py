"""tasks/gym: the same as Gymnasium's environments, step by step."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
from tasks.gym import model

SCRIPTS = Path(__file__).parent.parent / "scripts"
TASKS = [
    "gym-ant",
    "gym-half-cheetah",
    "gym-hopper",
    "gym-humanoid",
    "gym-inverted-double-pendulum",
    "gym-inverted-pendulum",
    "gym-pusher",
    "gym-reacher",
    "gym-swimmer",
    "gym-walker2d",
]
FLOAT32 = 1.2e-7  # Two units in the last place of 1.
KINDS = ("obs", "reward", "terms", "metrics")


@pytest.fixture
def lockstep(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from benchmarks import gym_lockstep

    return gym_lockstep


def make_env(task: str, num_envs: int, **fields) -> ManagerBasedRlEnv:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.sim.engine, cfg.seed = num_envs, "mjbatch", 0
    for name, value in fields.items():
        setattr(cfg, name, value)
    return ManagerBasedRlEnv(cfg)


@pytest.mark.parametrize("task", TASKS)
def test_every_step_equals_gymnasiums(lockstep, task):
    with lockstep.Lockstep(task, num_envs=4) as pair:
        found = pair.run(60, restart=False)
        names = {*found.group("terms"), *found.group("metrics")}
        theirs = pair.theirs[0]
        assert pair.env.single_action_space == theirs.action_space
        assert pair.env.max_episode_length == theirs.spec.max_episode_steps
        assert pair.env.step_dt == pytest.approx(theirs.unwrapped.dt)
        _, _, _, _, info = theirs.step(theirs.action_space.sample())
    assert found.worst("obs") < FLOAT32
    assert found.worst("terms") < 4 * FLOAT32  # Squares of numbers above 1.
    assert found.worst("metrics") < FLOAT32
    assert found.worst("reward") < 8 * FLOAT32  # Sums of numbers up to 10.
    assert found.endings == 0
    # Each entry of the info is a term of the reward or a metric.
    expected = set()
    for name, value in info.items():
        arrays = [f"{name}_{i}" for i in range(np.size(value))]
        expected |= {name} if np.ndim(value) == 0 else set(arrays)
    assert names == expected


def test_a_wrong_weight_is_noticed(lockstep):
    with lockstep.Lockstep("gym-hopper", num_envs=2) as pair:
        pair.env.reward_manager.get_term_cfg("reward_ctrl").weight *= 1.01
        found = pair.run(5, restart=True)
    assert found.worst("obs") < FLOAT32 < found.group("terms")["reward_ctrl"]
    assert found.worst("reward") > FLOAT32


def test_an_early_end_is_noticed(lockstep):
    with lockstep.Lockstep("gym-hopper", num_envs=4) as pair:
        pair.env.termination_manager.get_term_cfg("unhealthy").params["max_angle"] = 0.19
        assert pair.run(60, restart=True).endings > 0


def test_warp_is_close(lockstep):
    with lockstep.Lockstep("gym-hopper", num_envs=2, engine="warp") as pair:
        found = pair.run(20, restart=True)
    assert found.worst("obs") < 1e-4
    assert found.worst("reward") < 1e-4
    assert found.endings == 0


def test_warp_names_the_solver_that_it_needs():
    cfg = load_env_cfg("gym-humanoid")
    cfg.sim.engine = "warp"
    with pytest.raises(ValueError, match="PGS is unsupported. Use MujocoCfg.solver='newton'."):
        ManagerBasedRlEnv(cfg)


@pytest.mark.parametrize("task", TASKS)
def test_the_models_are_gymnasiums(task):
    theirs = gymnasium.make(f"{_their_id(task)}").unwrapped.model
    with make_env(task, 1) as env:
        ours = env.sim.mj_model
    carriers = ours.nbody - theirs.nbody  # The body that carries a robot without a free joint.
    assert carriers == (0 if task in ("gym-ant", "gym-humanoid") else 1)
    for name in ("body_mass", "body_inertia", "body_ipos", "body_pos", "body_invweight0"):
        mine = np.delete(getattr(ours, name), 1, axis=0) if carriers else getattr(ours, name)
        np.testing.assert_allclose(mine, getattr(theirs, name), rtol=1e-12, err_msg=name)
    for name in _FIELDS:
        mine, their = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(mine, their, rtol=1e-12, err_msg=name)
    options = [name for name in dir(theirs.opt) if not name.startswith("_")]
    for name in options:
        assert np.array_equal(getattr(ours.opt, name), getattr(theirs.opt, name)), name


_FIELDS = ("geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_solref", "geom_solimp")
_FIELDS += ("geom_contype", "geom_conaffinity", "geom_margin", "geom_condim", "geom_type")
_FIELDS += ("dof_damping", "dof_armature", "dof_frictionloss", "jnt_range", "jnt_stiffness")
_FIELDS += ("jnt_solref", "jnt_solimp", "jnt_margin", "jnt_axis", "qpos0", "qpos_spring")
_FIELDS += ("actuator_gear", "actuator_ctrlrange", "actuator_trnid", "actuator_gainprm")
_FIELDS += ("tendon_stiffness", "tendon_damping", "site_pos")


def _their_id(task: str) -> str:
    return "".join(word.capitalize() for word in task.split("-")[1:]) + "-v5"


@pytest.mark.parametrize("task", TASKS)
def test_episodes_start_as_gymnasiums_do(task):
    """Mean and spread of each number of the first observation; 600 starts on each side."""
    theirs = gymnasium.make(_their_id(task))
    expected = np.array([theirs.reset(seed=i)[0] for i in range(600)])
    with make_env(task, 600) as env:
        obs, _ = env.reset(seed=1)
    actual = obs["actor"].double().numpy()
    spread = expected.std(axis=0)
    error = 5 * spread * np.sqrt(2 / 600) + 1e-6
    assert (np.abs(actual.mean(axis=0) - expected.mean(axis=0)) < error).all()
    assert (np.abs(actual.std(axis=0) - spread) < 0.15 * spread + 1e-6).all()
    assert (np.abs(actual - expected.mean(axis=0)).max(axis=0) < 6 * spread + 1e-6).all()


def test_no_contact_is_lost_below_the_robots_first_body():
    """The floor of a robot without a free joint must not move with it, or be its parent."""
    with make_env("gym-half-cheetah", 1) as env:
        floor = env.sim.mj_model.geom("floor")
        assert floor.bodyid[0] == 0


def test_targets_and_cylinders_start_where_gymnasium_puts_them():
    with make_env("gym-reacher", 2000) as env:
        obs, _ = env.reset(seed=0)
        radius = torch.linalg.vector_norm(obs["actor"][:, 4:6], dim=-1)
    assert radius.max() < 0.2
    assert (radius < 0.1).float().mean() == pytest.approx(0.25, abs=0.03)  # Of the disc's area.
    with make_env("gym-pusher", 2000) as env:
        env.reset(seed=0)
        place = env.sim.data.qpos[:, 7:9]
        assert torch.linalg.vector_norm(place, dim=-1).min() > 0.17
        assert place[:, 0].min() < -0.29 and place[:, 0].max() > -0.01
        assert (env.sim.data.qpos[:, 9:] == 0).all()


def test_bodies_in_an_observation_are_where_the_last_physics_step_left_them():
    """As in Gymnasium, which observes without another forward pass; a reset has one."""
    with make_env("gym-reacher", 2, forward_after_step=False) as env:
        env.reset(seed=0)
        data = mujoco.MjData(env.sim.mj_model)
        for step in range(2):
            if step:
                env.step(torch.ones(2, 2))
            data.qpos[:], data.qvel[:] = env.sim.data.qpos[0], env.sim.data.qvel[0]
            mujoco.mj_forward(env.sim.mj_model, data)
            tip = data.body(f"{model.ROBOT}/fingertip").xpos
            seen = env.sim.data.xpos[0, env.sim.mj_model.body(f"{model.ROBOT}/fingertip").id]
            assert (np.abs(seen.numpy() - tip).max() < 1e-6) == (step == 0)


@pytest.mark.parametrize("auto_reset", [True, False])
def test_a_reset_of_one_environment_leaves_the_bodies_of_others_where_they_were(auto_reset):
    with (
        make_env("gym-ant", 2, auto_reset=auto_reset) as env,
        make_env("gym-ant", 2, auto_reset=False) as other,
    ):
        for each in (env, other):
            each.reset(seed=0)
            each.sim.data.xpos.clone()
            each.step(torch.ones(2, 8))
            each.episode_length_buf[0] = 999
            each.step(torch.ones(2, 8))
        if not auto_reset:
            env.reset(env_ids=torch.tensor([0]))
        assert torch.equal(env.sim.data.xpos[1], other.sim.data.xpos[1])
        assert not torch.equal(env.sim.data.xpos[0], other.sim.data.xpos[0])
        torso = env.sim.mj_model.body("robot/torso").id
        assert torch.equal(env.sim.data.xpos[0, torso], env.sim.data.qpos[0, :3])
