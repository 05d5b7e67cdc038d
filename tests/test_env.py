"""The environment's semantics: order, resets, seeds, final observations, bad input."""

from __future__ import annotations

import copy
import resource
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from worlds import Goal, GoalCfg, actions, cart_cfg, shaky, tip, user_noise

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    NullCommandManager,
    NullMetricsManager,
    NullRecorderManager,
    ObservationGroupCfg,
    ObservationTermCfg,
    RecorderTerm,
    RecorderTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.utils.noise import NoiseCfg, NoiseModel, NoiseModelCfg, UniformNoiseCfg

STEPS = 25


def flat(obs: Any) -> torch.Tensor:
    """All observations of all groups side by side. Shape (num_envs, everything)."""
    parts = []
    for group in obs.values():
        parts += group.values() if isinstance(group, dict) else [group]
    return torch.cat([part.flatten(start_dim=1) for part in parts], dim=1)


def rollout(env: ManagerBasedRlEnv, steps: int = STEPS, reset: bool = True) -> list[torch.Tensor]:
    """Everything a step returns and the state behind it, step by step."""
    rows = []
    if reset:
        obs, _ = env.reset()
        rows.append(torch.cat([flat(obs), env.sim.get_state()], dim=1))
    for action in actions(steps, env.num_envs):
        obs, reward, terminated, truncated, _ = env.step(action)
        flags = torch.stack([reward, terminated, truncated], dim=1)
        rows.append(torch.cat([flat(obs), flags, env.sim.get_state()], dim=1))
    return rows


def same(a: list[torch.Tensor], b: list[torch.Tensor], rows: Any = slice(None)) -> bool:
    return all(torch.equal(x[rows], y[rows]) for x, y in zip(a, b, strict=True))


def rollout_after_reset(env: ManagerBasedRlEnv) -> list[torch.Tensor]:
    env.reset()
    return rollout(env)


def zero(env: ManagerBasedRlEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, 1)


class Diary(RecorderTerm):
    """Notes every hook and what is valid at it."""

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.entries: list[Any] = []
        self.drawn: list[float] = []

    def note(self, hook: str, env_ids: torch.Tensor | None = None) -> None:
        env = self._env
        self.drawn.append(torch.rand(1).item())
        env.rng.uniform(0.0, 1.0, (env.num_envs, 2))
        self.entries.append(
            (
                hook,
                None if env_ids is None else env_ids.tolist(),
                flat(env.obs_buf).clone() if env.obs_buf else None,
                env.action_manager.action.clone(),
                env.reward_buf.clone(),
            )
        )

    def record_pre_step(self) -> None:
        self.note("pre_step")

    def record_substep(self) -> None:
        self.note("substep")

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        self.note("pre_reset", env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        self.note("post_reset", env_ids)

    def record_post_step(self) -> None:
        self.note("post_step")

    def close(self) -> None:
        self.entries.append(("close",))


DIARY = {"diary": RecorderTermCfg(func=Diary)}


# The order of a step.


def test_hooks_come_in_order_with_the_right_environments() -> None:
    env = ManagerBasedRlEnv(cart_cfg(steps=(2, 3, 99, 99), recorders=DIARY))
    diary: Any = env.recorder_manager.get_term("diary")
    env.reset()
    for action in actions(3):
        env.step(action)
    env.reset(env_ids=torch.tensor([2]))
    env.close()
    step = ["pre_step"] + ["substep"] * 4
    hooks = ["post_reset", *step, "post_step", *step, "pre_reset", "post_reset", "post_step"]
    hooks += [*step, "pre_reset", "post_reset", "post_step", "post_reset", "close"]
    assert [entry[0] for entry in diary.entries] == hooks
    ids = [entry[1] for entry in diary.entries if "reset" in entry[0]]
    assert ids == [[0, 1, 2, 3], [0], [0], [1], [1], [2]]


def test_what_is_valid_at_each_hook() -> None:
    env = ManagerBasedRlEnv(cart_cfg(steps=(2,), recorders=DIARY))
    diary: Any = env.recorder_manager.get_term("diary")
    env.reset()
    first, second = actions(2)
    obs_1, *_ = env.step(first)
    obs_2, reward, *_ = env.step(second)
    by_hook = {entry[0]: entry for entry in diary.entries}
    _, _, obs, action, rewards = by_hook["pre_reset"]
    assert torch.equal(obs, flat(obs_1)) and torch.equal(action, second)
    assert torch.equal(rewards, reward)
    for hook in ("post_reset", "post_step"):
        _, _, obs, action, _ = by_hook[hook]
        assert torch.equal(obs, flat(obs_2)) and not action.any()


def test_counters_flags_and_terminal_reward() -> None:
    cfg = cart_cfg(steps=(3, 99, 99, 99), episode_length_s=5 * 0.04)
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    assert env.max_episode_length == 5
    for step, action in enumerate(actions(5), start=1):
        _, reward, terminated, truncated, extras = env.step(action)
        assert terminated.tolist() == [step == 3, False, False, False]
        assert truncated.tolist() == [False] + [step == 5] * 3
        assert (reward != 0).all()
        assert ("Episode_Reward/height" in extras["log"]) == (step in (3, 5))
    assert env.common_step_counter == 5
    assert env.episode_length_buf.tolist() == [2, 0, 0, 0]


def test_max_episode_length_is_not_off_by_rounding() -> None:
    env = ManagerBasedRlEnv(cart_cfg(decimation=10, episode_length_s=1.1))
    assert env.max_episode_length == 11


def test_observations_see_derived_quantities_of_the_new_state() -> None:
    env = ManagerBasedRlEnv(cart_cfg(steps=(2, 99, 99, 99)))
    env.reset()
    for action in actions(3):
        obs, *_ = env.step(action)
        newest = obs["critic"]["past"][:, -3:]
        env.sim.forward()
        assert torch.equal(newest, tip(env))


def test_returned_tensors_are_the_callers_to_keep() -> None:
    env = ManagerBasedRlEnv(cart_cfg(final_obs=True))
    obs, _ = env.reset()
    kept = [(flat(obs), flat(obs).clone())]
    held, copies = [obs["critic"]["joints"]], [obs["critic"]["joints"].clone()]
    for action in actions(STEPS):
        obs, reward, terminated, truncated, extras = env.step(action)
        new = [reward, terminated, truncated, obs["actor"], extras["final_obs"]["actor"]]
        held += [*new, *obs["critic"].values()]
        copies += [t.clone() for t in [*new, *obs["critic"].values()]]
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))
    assert torch.equal(*kept[0])


# Resets.


def test_auto_reset_equals_explicit_reset() -> None:
    auto = ManagerBasedRlEnv(cart_cfg())
    manual = ManagerBasedRlEnv(cart_cfg(auto_reset=False))
    assert same(
        [flat(auto.reset()[0]), auto.sim.get_state()],
        [flat(manual.reset()[0]), manual.sim.get_state()],
    )
    ended = 0
    for action in actions(STEPS):
        obs_a, *rest_a, extras_a = auto.step(action)
        obs_m, *rest_m, _ = manual.step(action)
        assert same(rest_a, rest_m)
        done = rest_m[1] | rest_m[2]
        if done.any():
            ended += int(done.sum())
            obs_m, extras_m = manual.reset(env_ids=done.nonzero().flatten())
            assert extras_a["log"] == extras_m["log"]
        assert torch.equal(flat(obs_a), flat(obs_m))
        assert torch.equal(auto.sim.get_state(), manual.sim.get_state())
    assert ended > 12


@pytest.mark.parametrize("which", [0, 1])
def test_a_partial_reset_does_not_change_other_environments(which: int) -> None:
    undisturbed, disturbed = (ManagerBasedRlEnv(cart_cfg()) for _ in range(2))
    for env in (undisturbed, disturbed):
        env.reset()
    others = [i for i in range(4) if i != which]
    for step, action in enumerate(actions(STEPS)):
        obs_u, *rest_u, _ = undisturbed.step(action)
        obs_d, *rest_d, _ = disturbed.step(action)
        if step % 3 == 1:
            before = flat(obs_d)
            obs_d, _ = disturbed.reset(env_ids=torch.tensor([which]))
            assert torch.equal(flat(obs_d)[others], before[others])
            assert not torch.equal(flat(obs_d)[which], before[which])
        assert torch.equal(flat(obs_u)[others], flat(obs_d)[others])
        assert same(rest_u, rest_d, others)
        states = undisturbed.sim.get_state(), disturbed.sim.get_state()
        assert torch.equal(states[0][others], states[1][others])


def test_commands_exist_in_the_first_observation() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    obs, _ = env.reset()
    assert (obs["critic"]["goal"] != 0).all()
    assert torch.equal(obs["critic"]["goal"], env.command_manager.get_command("goal"))


def test_without_auto_reset_ended_environments_must_be_reset() -> None:
    env = ManagerBasedRlEnv(cart_cfg(steps=(2, 99, 99, 99), auto_reset=False))
    env.reset()
    first, second, third = actions(3)
    env.step(first)
    _, _, terminated, *_ = env.step(second)
    assert terminated.tolist() == [True, False, False, False]
    with pytest.raises(RuntimeError, match=r"environments \[0\] must be reset"):
        env.step(third)
    env.reset(env_ids=terminated)
    env.step(third)


def test_resets_take_ids_or_a_mask() -> None:
    by_ids, by_mask = (ManagerBasedRlEnv(cart_cfg()) for _ in range(2))
    for env in (by_ids, by_mask):
        env.reset()
    obs_i, _ = by_ids.reset(env_ids=torch.tensor([1, 3]))
    obs_m, _ = by_mask.reset(env_ids=torch.tensor([False, True, False, True]))
    assert torch.equal(flat(obs_i), flat(obs_m))
    with pytest.raises(IndexError, match=r"env_ids \[4\] are out of range: there are 4"):
        by_ids.reset(env_ids=torch.tensor([4]))


# Final observations.


def test_final_obs_is_what_an_environment_without_reset_observes() -> None:
    auto = ManagerBasedRlEnv(cart_cfg(final_obs=True))
    manual = ManagerBasedRlEnv(cart_cfg(auto_reset=False))
    for env in (auto, manual):
        env.reset()
    ended = 0
    for action in actions(STEPS):
        _, _, _, _, extras = auto.step(action)
        obs, _, terminated, truncated, _ = manual.step(action)
        assert torch.equal(flat(extras["final_obs"]), flat(obs))
        done = terminated | truncated
        if done.any():
            ended += 1
            manual.reset(env_ids=done)
    assert ended > 8


def test_final_obs_holds_the_command_that_the_action_followed() -> None:
    env = ManagerBasedRlEnv(cart_cfg(steps=(3,), final_obs=True))
    env.reset()
    first, second, third = actions(3)
    env.step(first)
    obs, *_ = env.step(second)
    *_, extras = env.step(third)
    assert torch.equal(extras["final_obs"]["critic"]["goal"], obs["critic"]["goal"])


def test_final_obs_and_recorders_do_not_change_the_rollout() -> None:
    def env(**overrides: Any) -> ManagerBasedRlEnv:
        cfg = cart_cfg(**overrides)
        cfg.observations["shaky"] = ObservationGroupCfg({"x": ObservationTermCfg(func=shaky)})
        return ManagerBasedRlEnv(cfg)

    plain = rollout(env())
    assert same(plain, rollout(env(final_obs=True)))
    # The diary overrides record_substep, so here the physics takes its steps one by one, and it
    # draws random numbers at every hook.
    assert same(plain, rollout(env(recorders=DIARY)))
    assert same(plain, rollout(env(recorders=DIARY, final_obs=True)))


def test_a_recorder_draws_from_the_callers_random_numbers() -> None:
    env = ManagerBasedRlEnv(cart_cfg(recorders=DIARY))
    diary: Any = env.recorder_manager.get_term("diary")
    torch.manual_seed(5)
    expected = torch.rand(8)
    torch.manual_seed(5)
    env.reset()
    env.step(actions(1)[0])
    assert diary.drawn == expected[: len(diary.drawn)].tolist() and len(diary.drawn) == 7
    assert torch.equal(torch.rand(1), expected[7:])


# Seeds.


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    first = rollout(ManagerBasedRlEnv(cart_cfg()))
    assert same(first, rollout(ManagerBasedRlEnv(cart_cfg())))
    assert not same(first, rollout(ManagerBasedRlEnv(cart_cfg(seed=12))))


def test_an_episode_starts_the_same_however_long_the_one_before_was() -> None:
    starts = []
    for length in (3, 6):
        env = ManagerBasedRlEnv(cart_cfg(steps=(length,)))
        env.reset()
        for action in actions(length):
            env.step(action)
        joints = env.scene["robot"].data
        starts.append(torch.cat([joints.joint_pos, env.command_manager.get_command("goal")], dim=1))
    assert torch.equal(*starts)


def test_noise_is_new_in_every_step() -> None:
    noise = UniformNoiseCfg(n_min=-1.0, n_max=1.0)
    term = ObservationTermCfg(func=zero, noise=noise)
    group = ObservationGroupCfg({"noise": term}, enable_corruption=True)
    env = ManagerBasedRlEnv(cart_cfg(observations={"actor": group}, commands={}))
    env.reset()
    seen = torch.cat([env.step(action)[0]["actor"] for action in actions(5)])
    assert len(seen.unique()) == seen.numel()


def test_reset_with_a_seed_restarts_the_random_numbers() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    first = rollout(env)
    env.reset(seed=11)
    # One more reset, as rollout() does after construction.
    fresh = ManagerBasedRlEnv(cart_cfg(seed=5))
    fresh.reset(seed=11)
    again, other = rollout(env, reset=False), rollout(fresh, reset=False)
    assert same(again, other) and same(first[1:], again)


def test_start_up_events_depend_only_on_the_seed() -> None:
    def friction(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
        env.drawn = torch.cat([env.rng.uniform(0.0, 1.0, (4,)), torch.rand(2)])  # type: ignore[attr-defined]

    cfg = cart_cfg(seed=5)
    cfg.events["friction"] = EventTermCfg(func=friction, mode="startup")
    fresh = ManagerBasedRlEnv(cart_cfg(events=cfg.events))
    env: Any = ManagerBasedRlEnv(cfg)
    first = env.drawn
    env.reset(seed=11)
    assert torch.equal(env.drawn, fresh.drawn) and not torch.equal(first, env.drawn)  # type: ignore[attr-defined]
    env.reset(seed=5)
    assert torch.equal(env.drawn, first)


def test_environments_in_one_process_do_not_share_random_numbers() -> None:
    events = {"start": EventTermCfg(func=user_noise, mode="reset")}
    alone = rollout(ManagerBasedRlEnv(cart_cfg(events=events)))
    env, other = (ManagerBasedRlEnv(cart_cfg(events=copy.deepcopy(events))) for _ in range(2))
    rows = [torch.cat([flat(env.reset()[0]), env.sim.get_state()], dim=1)]
    other.reset()
    for action in actions(STEPS):
        torch.rand(7)  # A policy that samples.
        other.step(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        flags = torch.stack([reward, terminated, truncated], dim=1)
        rows.append(torch.cat([flat(obs), flags, env.sim.get_state()], dim=1))
    assert same(alone, rows)


def test_an_unset_seed_is_drawn_and_kept_in_the_environments_own_config() -> None:
    cfg = cart_cfg(seed=None)
    env, other = ManagerBasedRlEnv(cfg), ManagerBasedRlEnv(cfg)
    assert cfg.seed is None and env.cfg.seed != other.cfg.seed
    assert same(rollout(env), rollout(ManagerBasedRlEnv(cart_cfg(seed=env.cfg.seed))))


def test_torch_works_on_one_thread_inside_and_as_before_outside() -> None:
    seen = []

    def look(env: ManagerBasedRlEnv) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return torch.zeros(env.num_envs)

    torch.set_num_threads(2)
    try:
        rewards = {"look": RewardTermCfg(func=look, weight=1.0)}
        env = ManagerBasedRlEnv(cart_cfg(rewards=rewards))
        env.reset()
        env.step(actions(1)[0])
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# Life cycle.


def test_closing_is_idempotent_and_a_context_manager_closes() -> None:
    with ManagerBasedRlEnv(cart_cfg(recorders=DIARY)) as env:
        env.reset()
    env.close()
    diary: Any = env.recorder_manager.get_term("diary")
    assert [entry[0] for entry in diary.entries] == ["post_reset", "close"]
    with pytest.raises(RuntimeError, match="is closed"):
        env.step(actions(1)[0])


def test_metadata_belongs_to_the_instance() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    other = ManagerBasedRlEnv(cart_cfg(decimation=8, auto_reset=False))
    assert env.metadata["render_fps"] == pytest.approx(25.0)
    assert other.metadata["render_fps"] == pytest.approx(12.5)
    assert env.metadata["autoreset_mode"] != other.metadata["autoreset_mode"]
    assert env.render() is None


def test_the_table_names_engine_and_terms() -> None:
    env = ManagerBasedRlEnv(cart_cfg(recorders=DIARY))
    assert repr(env) == "<ManagerBasedRlEnv: 4 environments, mjbatch on cpu>"
    text = env.summary()
    for word in ("mjbatch on cpu", "joints", "height", "kick", "goal", "diary", "time_out"):
        assert word in text


def test_the_callers_config_is_not_changed() -> None:
    cfg = cart_cfg(recorders=DIARY)
    before = copy.deepcopy(cfg)
    rollout(ManagerBasedRlEnv(cfg), steps=2)
    assert cfg == before


def test_a_failing_start_closes_the_recorders() -> None:
    closed = []

    class Closing(Diary):
        def close(self) -> None:
            closed.append(self.cfg.params["n"])

    class Failing(Diary):
        def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
            raise OSError("no space")

    def fail(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
        raise ValueError("bad friction")

    first = RecorderTermCfg(func=Closing, params={"n": 1})
    with pytest.raises(OSError, match="no space"):
        failing = RecorderTermCfg(func=Failing)
        ManagerBasedRlEnv(cart_cfg(recorders={"a": first, "b": failing}))
    with pytest.raises(ValueError, match="bad friction"):
        events = {"f": EventTermCfg(func=fail, mode="startup")}
        ManagerBasedRlEnv(cart_cfg(recorders={"a": first}, events=events))
    assert closed == [1, 1]


def test_later_changes_of_the_callers_config_do_not_reach_the_environment() -> None:
    cfg = cart_cfg()
    env = ManagerBasedRlEnv(cfg)
    cfg.sim.mujoco.timestep = 0.002
    assert env.step_dt == pytest.approx(0.04)


def test_looking_before_the_first_reset_changes_nothing() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    env.get_observations()
    assert same(rollout(env), rollout(ManagerBasedRlEnv(cart_cfg())))


def test_resetting_no_environment_changes_nothing() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    obs, _ = env.reset()
    again, extras = env.reset(env_ids=torch.zeros(4, dtype=torch.bool))
    assert torch.equal(flat(obs), flat(again)) and extras == {"log": {}}
    with pytest.raises(ValueError, match=r"mask of shape \(3,\), expected \(4,\)"):
        env.reset(env_ids=torch.ones(3, dtype=torch.bool))


def test_a_command_that_overrides_compute_is_called_every_step() -> None:
    class Own(Goal):
        def compute(self, dt: Any, env_ids: torch.Tensor | None = None) -> None:
            self.calls.append((dt, env_ids))

    class OwnCfg(GoalCfg):
        def build(self, env: Any) -> Own:
            term = Own(self, env)
            term.calls = []  # type: ignore[attr-defined]
            return term

    cfg = cart_cfg(steps=(1, 99, 99, 99))
    cfg.commands = {"goal": OwnCfg(resampling_time_range=(1.0, 1.0))}
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    env.step(actions(1)[0])
    calls = env.command_manager.get_term("goal").calls
    assert calls[0][0] == 0.0 and calls[0][1].tolist() == [0, 1, 2, 3]
    assert calls[1][0].tolist() == pytest.approx([0.0, 0.04, 0.04, 0.04]) and calls[1][1] is None


def test_noise_written_for_mjlab_runs() -> None:
    @dataclass
    class Old(NoiseCfg):
        def apply(self, data: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return data + torch.rand_like(data)

    class OldModel(NoiseModel):
        def reset(self, env_ids: Any = None) -> None:  # type: ignore[override]
            self.resets = getattr(self, "resets", 0) + 1

        def __call__(self, data: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return data + self.resets

    class OldModelCfg(NoiseModelCfg, class_type=OldModel):
        pass

    def env() -> ManagerBasedRlEnv:
        noises = {"a": Old(), "b": OldModelCfg(noise_cfg=Old())}
        terms = {k: ObservationTermCfg(func=zero, noise=n) for k, n in noises.items()}
        group = ObservationGroupCfg(terms, enable_corruption=True)
        return ManagerBasedRlEnv(cart_cfg(observations={"actor": group}, commands={}))

    first = env()
    obs, _ = first.reset()
    assert (obs["actor"][:, 0] > 0).all() and (obs["actor"][:, 1] == 1).all()
    assert same(rollout(first), rollout_after_reset(env()))


@pytest.mark.cuda
def test_the_steady_step_waits_for_the_gpu_once() -> None:
    cfg = cart_cfg(num_envs=64, steps=(10_000,))
    cfg.events = {}
    env = ManagerBasedRlEnv(cfg, device="cuda")
    env.reset()
    action = torch.zeros(64, 1, device="cuda")
    for _ in range(3):
        env.step(action)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as waits:
            env.step(action)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1


# Bad input.


def test_bad_actions_are_refused() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(4, 2\), expected \(4, 1\)"):
        env.step(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"shape \(3, 1\), expected \(4, 1\)"):
        env.step(torch.zeros(3, 1))
    with pytest.raises(TypeError, match="torch.int64, expected floating point"):
        env.step(torch.zeros(4, 1, dtype=torch.long))
    with pytest.raises(TypeError, match="takes a torch.Tensor, got list"):
        env.step([[0.0]] * 4)  # type: ignore[arg-type]
    action = torch.zeros(4, 1)
    action[2] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite values for environments \[2\]"):
        env.step(action)


@pytest.mark.parametrize("num_envs", [0, -1])
def test_no_environments_are_refused(num_envs: int) -> None:
    with pytest.raises(ValueError, match="num_envs"):
        ManagerBasedRlEnv(cart_cfg(num_envs=num_envs))


def test_bad_settings_are_refused() -> None:
    with pytest.raises((ValueError, RuntimeError), match="tpu"):
        ManagerBasedRlEnv(cart_cfg(), device="tpu")
    with pytest.raises(ValueError, match="decimation must be at least 1"):
        ManagerBasedRlEnv(cart_cfg(decimation=0))
    with pytest.raises(ValueError, match="Unknown render_mode 'human'"):
        ManagerBasedRlEnv(cart_cfg(), render_mode="human")
    with pytest.raises(ValueError, match="restarts every random stream"):
        ManagerBasedRlEnv(cart_cfg()).reset(seed=1, env_ids=torch.tensor([0]))


@pytest.mark.parametrize("num_envs", [4.0, "4", None])
def test_a_number_of_environments_that_is_none_is_refused(num_envs: Any) -> None:
    with pytest.raises(TypeError, match=r"cfg.scene.num_envs must be an int, got"):
        ManagerBasedRlEnv(cart_cfg(num_envs=num_envs))


@pytest.mark.parametrize("num_envs", [10**9, 10**15])
def test_more_environments_than_fit_into_memory_are_refused_first(num_envs: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=rf"num_envs={num_envs} .* at least [\d,]+ GB .* this machine has"
    ):
        ManagerBasedRlEnv(cart_cfg(num_envs=num_envs))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # In kB.


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "rewards",
            [RewardTermCfg(func=tip, weight=1.0)],
            r"cfg.rewards must be a dict of RewardTermCfg by name, got .* \(list\)"
            r"\. Write {'name': RewardTermCfg\(...\)}, or {}\.",
        ),
        ("recorders", [RecorderTerm], r"cfg.recorders must be a dict of RecorderTermCfg by name"),
        ("metrics", None, r"cfg.metrics must be a dict of MetricsTermCfg by name, got None"),
        (
            "rewards",
            {"high": tip},
            r"cfg.rewards\['high'\] must be of type RewardTermCfg, got the function tip\."
            r" Write RewardTermCfg\(func=tip, ...\)\.",
        ),
        (
            "observations",
            {"actor": tip},
            r"cfg.observations\['actor'\] must be of type ObservationGroupCfg, got the function",
        ),
        (
            "observations",
            {"actor": ObservationGroupCfg({"tip": tip})},  # type: ignore[dict-item]
            r"cfg.observations\['actor'\].terms\['tip'\] must be of type ObservationTermCfg",
        ),
        (
            "terminations",
            {"end": TerminationTermCfg},
            r"got the class TerminationTermCfg. Did you mean TerminationTermCfg\(...\)\?",
        ),
        ("commands", {"goal": Goal}, r"must be of type CommandTermCfg, got the class Goal\.$"),
        ("scene", "flat", r"cfg.scene must be of type SceneCfg, got 'flat' \(str\)"),
    ],
)
def test_what_is_in_the_wrong_place_of_a_cfg_is_named(field: str, value: Any, message: str) -> None:
    cfg = cart_cfg()
    setattr(cfg, field, value)
    with pytest.raises(TypeError, match=message):
        ManagerBasedRlEnv(cfg)


def test_a_function_instead_of_a_cfg_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"cfg must be .* function cart_cfg. Did you mean cart_cfg\("
    ):
        ManagerBasedRlEnv(cart_cfg)  # type: ignore[arg-type]


def one(env: ManagerBasedRlEnv) -> torch.Tensor:
    return torch.ones(env.num_envs)


def test_observations_of_the_wrong_shape_are_refused() -> None:
    for func, message in [
        (lambda env: torch.ones(3, 2), r"'actor/bad' returned \(3, 2\)"),
        (lambda env: None, "'actor/bad' returned NoneType"),
    ]:
        group = ObservationGroupCfg({"bad": ObservationTermCfg(func=func)})
        with pytest.raises(ValueError, match=message):
            ManagerBasedRlEnv(cart_cfg(observations={"actor": group}, commands={}))
    terms = {"a": ObservationTermCfg(func=one), "b": ObservationTermCfg(func=tip)}
    with pytest.raises(ValueError, match="'actor'.*cannot be concatenated along dimension -1"):
        observations = {"actor": ObservationGroupCfg(terms)}
        ManagerBasedRlEnv(cart_cfg(observations=observations, commands={}))


@pytest.mark.parametrize("policy", ["warn", "sanitize", "error", "disabled"])
@pytest.mark.parametrize("per_term", [True, False])
def test_nan_policies(policy: str, per_term: bool, caplog: pytest.LogCaptureFixture) -> None:
    def broken(env: ManagerBasedRlEnv) -> torch.Tensor:
        values = torch.ones(env.num_envs, 1)
        if env.common_step_counter:
            values[1] = float("nan")
        return values

    group = ObservationGroupCfg(
        {"broken": ObservationTermCfg(func=broken)},
        nan_policy=policy,  # type: ignore[arg-type]
        nan_check_per_term=per_term,
    )
    env = ManagerBasedRlEnv(cart_cfg(observations={"actor": group}, commands={}))
    env.reset()
    if policy == "error":
        with pytest.raises(ValueError, match=r"observation 'actor.*environments \[1\]"):
            env.step(actions(1)[0])
        return
    obs, *_ = env.step(actions(1)[0])
    if policy == "disabled":
        assert obs["actor"].isnan().tolist() == [[False], [True], [False], [False]]
    else:
        assert obs["actor"].flatten().tolist() == [1, 0, 1, 1]
    assert ("environments [1]" in caplog.text) == (policy == "warn")


# The other engine, end to end.


def test_on_the_warp_engine_end_to_end() -> None:
    cfg = cart_cfg(num_envs=3, final_obs=True)
    cfg.sim.engine = "warp"
    env = ManagerBasedRlEnv(cfg)
    reference = ManagerBasedRlEnv(cart_cfg(num_envs=3, final_obs=True))
    ours, theirs = rollout(env), rollout(reference)
    width = flat(env.obs_buf).shape[1]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a[:, :width], b[:, :width].float(), atol=1e-3)
    again = copy.deepcopy(cfg)
    assert same(ours, rollout(ManagerBasedRlEnv(again)))


# Shape of the API that tasks rely on.


def test_an_environment_without_terms_runs() -> None:
    cfg = cart_cfg(observations={}, commands={}, rewards={}, terminations={}, metrics={}, events={})
    env = ManagerBasedRlEnv(cfg)
    obs, _ = env.reset()
    assert obs == {}
    _, reward, terminated, truncated, _ = env.step(actions(1)[0])
    assert not reward.any() and not terminated.any() and not truncated.any()
    assert isinstance(env.command_manager, NullCommandManager)
    assert isinstance(env.metrics_manager, NullMetricsManager)
    assert isinstance(env.recorder_manager, NullRecorderManager)
    assert "Metrics terms" not in env.summary() and "Action terms" in env.summary()


def test_terms_set_to_none_are_skipped() -> None:
    cfg = cart_cfg()
    cfg.rewards["effort"] = None  # type: ignore[assignment]
    cfg.terminations["end"] = None  # type: ignore[assignment]
    cfg.commands = {"goal": cfg.commands["goal"], "none": None}  # type: ignore[dict-item]
    env = ManagerBasedRlEnv(cfg)
    assert env.reward_manager.active_terms == ["height"]
    assert env.termination_manager.active_terms == ["time_out"]
    assert env.command_manager.active_terms == ["goal"]


def test_unknown_entity_names_the_known_ones() -> None:
    cfg = cart_cfg(
        rewards={
            "r": RewardTermCfg(
                func=mdp.joint_vel_l2, weight=1.0, params={"asset_cfg": _entity("robto")}
            )
        },
        terminations={"t": TerminationTermCfg(func=mdp.time_out, time_out=True)},
    )
    with pytest.raises(KeyError, match="(?s)'r'.*robto.*robot"):
        ManagerBasedRlEnv(cfg)


def _entity(name: str) -> Any:
    from mjlab_rec.managers import SceneEntityCfg

    return SceneEntityCfg(name)


def test_scene_cfg_is_reusable() -> None:
    cfg = cart_cfg()
    assert isinstance(cfg.scene, SceneCfg)
    assert same(rollout(ManagerBasedRlEnv(cfg)), rollout(ManagerBasedRlEnv(cfg)))
