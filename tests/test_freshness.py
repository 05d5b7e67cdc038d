"""From which moment the quantities are that terms and observations see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mdp_worlds import make_env, robot_cfg
from worlds import actions, cart_cfg, tip

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)

STEPS = 30


def root(env: ManagerBasedRlEnv) -> torch.Tensor:
    data = env.scene["robot"].data
    return torch.cat((data.root_link_pose_w, data.root_link_vel_w), dim=1)


def body(env: ManagerBasedRlEnv) -> torch.Tensor:
    data = env.scene["robot"].data
    return torch.cat((data.body_link_pose_w[:, 0], data.body_link_vel_w[:, 0]), dim=1)


def gyro(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.scene["robot/gyro"].data


def root_spin(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.scene["robot"].data.root_link_ang_vel_b


class Notes:
    """A reward, termination or event that notes what it sees."""

    def __init__(self, cfg: Any, env: ManagerBasedRlEnv) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, env: ManagerBasedRlEnv, env_ids: Any = None) -> torch.Tensor:
        looks = (root, body, gyro, root_spin)
        self.seen.append({look.__name__: look(env) for look in looks})
        self.seen[-1]["qpos"] = env.sim.data.qpos[:, :7].clone()
        return torch.zeros(env.num_envs, dtype=torch.bool)


def falling(**cfg: Any) -> ManagerBasedRlEnv:
    """A robot that tumbles, and terms of each kind that note what they see."""
    spin = {"roll": (3.0, 3.0), "yaw": (-2.0, -2.0), "x": (1.0, 1.0)}
    start = {"velocity_range": spin, "pose_range": {"yaw": (-3.0, 3.0)}}
    terms = {name: ObservationTermCfg(func=f) for name, f in (("root", root), ("body", body))}
    return make_env(
        entities={"robot": robot_cfg()},
        events={
            "spin": EventTermCfg(func=mdp.reset_root_state_uniform, mode="reset", params=start),
            **cfg.pop("events", {}),
        },
        actions={"hips": mdp.JointEffortActionCfg(entity_name="robot", actuator_names=(".*",))},
        observations={"actor": ObservationGroupCfg(terms)},
        rewards={"notes": RewardTermCfg(func=Notes, weight=1.0)},
        terminations={"notes": TerminationTermCfg(func=Notes)},
        **cfg,
    )


@pytest.mark.parametrize("fresh", [False, True])
def test_terms_see_one_consistent_set(fresh: bool):
    env = falling(fresh_terms=fresh, events={"look": EventTermCfg(func=Notes, mode="step")})
    notes = [
        env.reward_manager.get_term_cfg("notes").func,
        env.termination_manager.get_term_cfg("notes").func,
        env.event_manager.get_term_cfg("look").func,
    ]
    for _ in range(5):
        before = env.sim.data.qpos[:, :7].clone()
        obs, *_ = env.step(torch.zeros(4, 2))
        one, *others = [note.seen[-1] for note in notes]
        assert all(torch.equal(one[key], other[key]) for other in others for key in one)
        assert torch.equal(one["root"], one["body"])
        torch.testing.assert_close(one["gyro"], one["root_spin"], rtol=1e-4, atol=1e-4)
        pose, now = one["root"][:, :7], one["qpos"]
        if fresh:
            torch.testing.assert_close(pose, now, rtol=0, atol=1e-5)
        else:  # Two physics steps make a control step: one is seen, the other is not yet.
            torch.testing.assert_close(pose[:, :2], (before + now)[:, :2] / 2, rtol=0, atol=1e-4)
            assert (pose - now).abs().max() > 1e-3
        seen = obs["actor"]
        torch.testing.assert_close(seen[:, :7], now, rtol=0, atol=1e-5)
        assert torch.equal(seen[:, :13], seen[:, 13:])


def test_fresh_terms_change_nothing_but_what_terms_see():
    plain, fresh = (
        ManagerBasedRlEnv(cart_cfg(fresh_terms=value, final_obs=True)) for value in (False, True)
    )
    plain.reset(), fresh.reset()
    for action in actions(STEPS):
        obs, _, *flags, extras = plain.step(action)
        obs_f, _, *flags_f, extras_f = fresh.step(action)
        for a, b in ((obs, obs_f), (extras["final_obs"], extras_f["final_obs"])):
            assert torch.equal(a["actor"], b["actor"])
            assert all(torch.equal(a["critic"][k], b["critic"][k]) for k in a["critic"])
        assert all(torch.equal(a, b) for a, b in zip(flags, flags_f, strict=True))
        assert torch.equal(plain.sim.get_state(), fresh.sim.get_state())
    assert plain.common_step_counter == fresh.common_step_counter


def counted_forwards(env: ManagerBasedRlEnv, monkeypatch: Any) -> list[Any]:
    masks: list[Any] = []
    forward: Callable[..., None] = env.sim.forward
    monkeypatch.setattr(
        env.sim,
        "forward",
        lambda mask=None: (masks.append(None if mask is None else mask.clone()), forward(mask)),
    )
    return masks


def test_fresh_terms_need_a_second_forward_only_after_resets_and_events(monkeypatch: Any):
    cfg = cart_cfg(steps=(3, 99, 99, 99), fresh_terms=True, final_obs=True, events={})
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    masks = counted_forwards(env, monkeypatch)
    for step, action in enumerate(actions(4), start=1):
        masks.clear()
        obs, *_ = env.step(action)
        assert masks[0] is None and len(masks) == (2 if step == 3 else 1)
        if step == 3:
            assert masks[1].tolist() == [True, False, False, False]
        newest = obs["critic"]["past"][:, -3:]
        env.sim.forward()
        assert torch.equal(newest, tip(env))


def test_observations_see_what_events_wrote_after_fresh_terms():
    env = ManagerBasedRlEnv(cart_cfg(fresh_terms=True))
    env.reset()
    for action in actions(STEPS):
        obs, *_ = env.step(action)
        newest = obs["critic"]["past"][:, -3:]
        env.sim.forward()
        assert torch.equal(newest, tip(env))


def test_an_episode_starts_towards_its_own_heading():
    """The command's velocity is written before the forward pass that shows the new heading."""
    twist = mdp.UniformVelocityCommandCfg(
        entity_name="robot",
        resampling_time_range=(5.0, 5.0),
        heading_command=True,
        init_velocity_prob=1.0,
        ranges=mdp.UniformVelocityCommandCfg.Ranges((-1, 1), (-1, 1), (-9, 9), (-3, 3)),
    )
    yaw = {"pose_range": {"yaw": (-3.0, 3.0)}}
    env = make_env(
        entities={"robot": robot_cfg()},
        events={"turn": EventTermCfg(func=mdp.reset_root_state_uniform, mode="reset", params=yaw)},
        commands={"twist": twist},
        actions={"hips": mdp.JointEffortActionCfg(entity_name="robot", actuator_names=(".*",))},
    )
    for _ in range(3):
        env.reset()
        rate = env.scene["robot"].data.root_link_ang_vel_b[:, 2]
        torch.testing.assert_close(rate, env.command_manager.get_command("twist")[:, 2])
        assert (rate.abs() > 0.01).any()
