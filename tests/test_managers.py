"""Managers on a fake environment: what each computes, logs, resets and refuses."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fakes import FakeEnv

from mjlab_rec.managers import (
    ActionManager,
    ActionTerm,
    ActionTermCfg,
    CommandManager,
    CommandTerm,
    CommandTermCfg,
    CurriculumManager,
    CurriculumTermCfg,
    EventManager,
    EventTermCfg,
    MetricsManager,
    MetricsTermCfg,
    NullCommandManager,
    NullCurriculumManager,
    NullMetricsManager,
    RecorderManager,
    RecorderTerm,
    RecorderTermCfg,
    RewardManager,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationManager,
    TerminationTermCfg,
)
from mjlab_rec.managers.event_manager import RecomputeLevel, requires_model_fields


@pytest.fixture
def env() -> FakeEnv:
    return FakeEnv()


def value(env: FakeEnv, factor: float = 1.0) -> torch.Tensor:
    return env.value * factor


class Counting:
    """A class term that counts its calls and remembers its resets."""

    def __init__(self, cfg: Any, env: FakeEnv) -> None:
        self.calls = 0
        self.resets: list[Any] = []

    def __call__(self, env: FakeEnv) -> torch.Tensor:
        self.calls += 1
        return torch.full((env.num_envs,), float(self.calls))

    def reset(self, env_ids: Any) -> None:
        self.resets.append(env_ids)


# Terms in general.


def test_unknown_parameter_is_refused_and_the_nearest_named(env: FakeEnv) -> None:
    cfg = {"r": RewardTermCfg(func=value, weight=1.0, params={"facter": 2.0})}
    with pytest.raises(ValueError, match="term 'r': unknown parameter 'facter' of value.*'factor'"):
        RewardManager(cfg, env)


def test_missing_parameter_is_named(env: FakeEnv) -> None:
    def needs(env: FakeEnv, limit: float) -> torch.Tensor:
        return env.value

    with pytest.raises(ValueError, match="needs needs the parameter 'limit'|needs the parameter"):
        RewardManager({"r": RewardTermCfg(func=needs, weight=1.0)}, env)


def test_parameters_of_class_terms_are_checked_too(env: FakeEnv) -> None:
    cfg = {"r": RewardTermCfg(func=Counting, weight=1.0, params={"speed": 1})}
    with pytest.raises(ValueError, match="unknown parameter 'speed' of Counting"):
        RewardManager(cfg, env)


def test_configs_are_not_changed_and_not_shared(env: FakeEnv) -> None:
    shared = RewardTermCfg(func=Counting, weight=1.0)
    cfg = {"a": shared, "b": shared, "off": None}
    before = copy.deepcopy(cfg)
    manager = RewardManager(cfg, env)
    assert cfg == before
    assert manager.active_terms == ["a", "b"]
    assert manager.get_term_cfg("a").func is not manager.get_term_cfg("b").func


def test_scene_entities_are_resolved_also_when_they_are_defaults(env: FakeEnv) -> None:
    seen = {}
    default = SceneEntityCfg("robot", joint_names=("knee", "toe"))

    def term(env: FakeEnv, given: SceneEntityCfg, left: SceneEntityCfg = default) -> torch.Tensor:
        seen.update(given=given, left=left)
        return env.value

    params = {"given": SceneEntityCfg("robot", joint_names=".*k.*")}
    RewardManager({"r": RewardTermCfg(func=term, weight=1.0, params=params)}, env).compute(0.1)
    assert seen["given"].joint_ids == [1, 2]
    assert seen["given"].index("joint") == slice(1, 3)
    assert seen["left"].joint_ids == [1, 3]
    assert seen["left"].index("joint").tolist() == [1, 3]
    assert default.joint_ids == slice(None)


def test_names_without_a_match_list_the_known_names(env: FakeEnv) -> None:
    params = {"asset": SceneEntityCfg("robot", joint_names="kne")}

    def term(env: FakeEnv, asset: SceneEntityCfg) -> torch.Tensor:
        return env.value

    with pytest.raises(ValueError, match="(?s)term 'r', parameter 'asset'.*kne.*knee"):
        RewardManager({"r": RewardTermCfg(func=term, weight=1.0, params=params)}, env)


def test_names_and_ids_that_disagree_are_refused(env: FakeEnv) -> None:
    cfg = SceneEntityCfg("robot", joint_names=("knee",), joint_ids=[0])
    with pytest.raises(ValueError, match="joint_names.*joint_ids says"):
        cfg.resolve(env.scene)
    with pytest.raises(ValueError, match="out of range.*4 joints"):
        SceneEntityCfg("robot", joint_ids=[4]).resolve(env.scene)


def test_resolving_twice_changes_nothing(env: FakeEnv) -> None:
    cfg = SceneEntityCfg("robot", joint_names=("toe", "knee"), preserve_order=True)
    cfg.resolve(env.scene)
    first = copy.deepcopy(cfg)
    cfg.resolve(env.scene)
    assert cfg == first and cfg.joint_ids == [3, 1] and cfg.joint_names == ["toe", "knee"]
    everything = SceneEntityCfg("robot", joint_names=".*")
    everything.resolve(env.scene)
    assert everything.joint_ids == slice(None)


def test_a_term_of_the_wrong_shape_is_named(env: FakeEnv) -> None:
    def wrong(env: FakeEnv) -> torch.Tensor:
        return env.value[:, None]

    manager = RewardManager({"w": RewardTermCfg(func=wrong, weight=1.0)}, env)
    with pytest.raises(ValueError, match=r"RewardManager term 'w' returned shape \(4, 1\)"):
        manager.compute(0.1)


def test_every_manager_prints_a_table_of_its_terms(env: FakeEnv) -> None:
    text = str(RewardManager({"alive": RewardTermCfg(func=value, weight=0.5)}, env))
    assert "alive" in text and "0.5" in text and "Weight" in text


def test_null_managers_are_managers_without_terms() -> None:
    ids = torch.tensor([0])
    for null in (NullCommandManager(), NullCurriculumManager(), NullMetricsManager()):
        assert isinstance(null, type(null).__mro__[1]) and null.active_terms == []
        assert null.reset(ids) == {} and null.get_active_iterable_terms(0) == []
        with pytest.raises(KeyError, match="term 'x'. There are none to choose from"):
            null.get_term_cfg("x")


def test_null_managers_take_every_call_of_a_step() -> None:
    ids = torch.tensor([0])
    commands, curriculum, metrics = (
        NullCommandManager(),
        NullCurriculumManager(),
        NullMetricsManager(),
    )
    assert commands.advance(0.1, frozen=torch.tensor([False])) == []
    commands.update([], ids)
    commands.begin(ids)
    commands.compute(0.1)
    curriculum.compute(env_ids=ids)
    metrics.compute_substep()
    metrics.compute()
    assert not metrics.has_substep_terms


# Rewards.


def test_reward_is_the_weighted_sum_scaled_by_dt(env: FakeEnv) -> None:
    cfg = {
        "a": RewardTermCfg(func=value, weight=2.0),
        "b": RewardTermCfg(func=value, weight=-1.0, params={"factor": 3.0}),
    }
    manager = RewardManager(cfg, env)
    assert torch.allclose(manager.compute(dt=0.1), env.value * -0.1)
    assert torch.allclose(manager.step_reward[:, 1], env.value * -3.0)
    assert manager.get_active_iterable_terms(2) == [("a", [4.0]), ("b", [-6.0])]
    unscaled = RewardManager(cfg, env, scale_by_dt=False)
    assert torch.allclose(unscaled.compute(dt=0.1), env.value * -1.0)


def test_rewards_are_new_tensors_every_step(env: FakeEnv) -> None:
    manager = RewardManager({"a": RewardTermCfg(func=Counting, weight=1.0)}, env)
    first = manager.compute(dt=1.0)
    manager.compute(dt=1.0)
    assert first.tolist() == [1.0] * 4


def test_nan_and_infinite_contributions_count_as_zero(env: FakeEnv) -> None:
    def broken(env: FakeEnv) -> torch.Tensor:
        return torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])

    cfg = {
        "broken": RewardTermCfg(func=broken, weight=1.0),
        "fine": RewardTermCfg(func=value, weight=1.0),
    }
    assert RewardManager(cfg, env).compute(dt=1.0).tolist() == [0.0, 1.0, 2.0, 4.0]


def test_weight_zero_is_not_computed_and_can_be_changed_later(env: FakeEnv) -> None:
    manager = RewardManager({"a": RewardTermCfg(func=Counting, weight=0.0)}, env)
    assert manager.compute(dt=1.0).tolist() == [0.0] * 4
    assert manager.get_term_cfg("a").func.calls == 0
    manager.get_term_cfg("a").weight = 2.0
    assert manager.compute(dt=1.0).tolist() == [2.0] * 4


def test_reset_logs_episode_sums_per_second_and_clears_only_those(env: FakeEnv) -> None:
    manager = RewardManager({"a": RewardTermCfg(func=value, weight=1.0)}, env)
    manager.compute(dt=0.5)
    manager.compute(dt=0.5)
    log = manager.reset(env.ids(1, 3))
    assert log["Episode_Reward/a"].item() == pytest.approx((1 + 3) / 2 / 2.0)
    assert manager.episode_sums["a"].tolist() == [0.0, 0.0, 2.0, 0.0]


# Terminations.


def over(env: FakeEnv, limit: float) -> torch.Tensor:
    return env.value > limit


def test_terminations_and_time_outs_are_kept_apart(env: FakeEnv) -> None:
    cfg = {
        "fell": TerminationTermCfg(func=over, params={"limit": 2.0}),
        "late": TerminationTermCfg(func=over, params={"limit": 1.0}, time_out=True),
    }
    manager = TerminationManager(cfg, env)
    assert manager.compute().tolist() == [False, False, True, True]
    assert manager.terminated.tolist() == [False, False, False, True]
    assert manager.time_outs.tolist() == [False, False, True, True]
    assert manager.get_term("late").tolist() == [False, False, True, True]
    log = manager.reset(env.ids(2, 3))
    assert log == {"Episode_Termination/fell": 1, "Episode_Termination/late": 2}


def test_flags_are_new_tensors_every_step(env: FakeEnv) -> None:
    cfg = {"fell": TerminationTermCfg(func=over, params={"limit": 2.0})}
    manager = TerminationManager(cfg, env)
    manager.compute()
    kept = manager.terminated
    env.value = env.value - 10
    manager.compute()
    assert kept.tolist() == [False, False, False, True]


def test_a_termination_that_is_not_boolean_is_refused(env: FakeEnv) -> None:
    manager = TerminationManager({"x": TerminationTermCfg(func=value)}, env)
    with pytest.raises(TypeError, match="'x' returned torch.float32, expected torch.bool"):
        manager.compute()


# Metrics.


def test_metrics_reduce_over_the_episode(env: FakeEnv) -> None:
    cfg = {how: MetricsTermCfg(func=value, reduce=how) for how in ("mean", "sum", "max", "last")}
    manager = MetricsManager(cfg, env)
    for factor in (1.0, 5.0, 3.0):
        env.value = torch.ones(4) * factor
        manager.compute()
    log = manager.reset(env.ids(0, 1))
    assert {key: v.item() for key, v in log.items()} == {
        "Episode_Metrics/mean": 3.0,
        "Episode_Metrics/sum": 9.0,
        "Episode_Metrics/max": 5.0,
        "Episode_Metrics/last": 3.0,
    }
    manager.compute()
    assert manager.reset(env.ids(0))["Episode_Metrics/sum"].item() == 3.0
    assert manager.reset(env.ids(2))["Episode_Metrics/sum"].item() == 12.0


def test_metrics_of_an_episode_without_steps_are_zero(env: FakeEnv) -> None:
    manager = MetricsManager({"m": MetricsTermCfg(func=value, reduce="max")}, env)
    assert manager.reset(env.ids(0, 1))["Episode_Metrics/m"].item() == 0.0


def test_substep_metrics_take_the_mean_over_substeps(env: FakeEnv) -> None:
    manager = MetricsManager({"m": MetricsTermCfg(func=Counting, per_substep=True)}, env)
    assert manager.has_substep_terms
    for _ in range(2):
        for _ in range(4):
            manager.compute_substep()
        manager.compute()
    # Calls return 1..8; the means of the two steps are 2.5 and 6.5.
    assert manager.reset(env.ids(0))["Episode_Metrics/m"].item() == pytest.approx(4.5)


def test_unknown_reduction_is_refused(env: FakeEnv) -> None:
    with pytest.raises(ValueError, match="unknown reduce 'median'"):
        MetricsManager({"m": MetricsTermCfg(func=value, reduce="median")}, env)  # type: ignore[arg-type]


# Curriculum.


def test_curriculum_gets_the_ids_and_logs_what_it_returns(env: FakeEnv) -> None:
    def rule(env: FakeEnv, env_ids: torch.Tensor, step: float) -> dict[str, float]:
        env.log.append(env_ids.tolist())
        return {"level": step, "more": torch.tensor(2.0)}

    cfg = {
        "rule": CurriculumTermCfg(func=rule, params={"step": 0.5}),
        "quiet": CurriculumTermCfg(func=lambda env, env_ids: None),
    }
    manager = CurriculumManager(cfg, env)
    assert manager.reset(env.ids(0)) == {}
    manager.compute(env.ids(2, 3))
    assert env.log == [[2, 3]]
    assert manager.reset(env.ids(0)) == {"Curriculum/rule/level": 0.5, "Curriculum/rule/more": 2.0}
    assert manager.get_active_iterable_terms(0) == [("rule", [0.5, 2.0])]


# Events.


def note(env: FakeEnv, env_ids: torch.Tensor | None) -> None:
    env.log.append(None if env_ids is None else env_ids.tolist())


def test_events_happen_in_their_mode_only(env: FakeEnv) -> None:
    cfg = {mode: EventTermCfg(func=note, mode=mode) for mode in ("startup", "reset", "step")}
    manager = EventManager(cfg, env)
    manager.apply("startup")
    manager.apply("step")
    manager.apply("reset", env_ids=env.ids(1), global_env_step_count=0)
    assert env.log == [None, None, [1]]
    assert manager.active_terms == {"startup": ["startup"], "reset": ["reset"], "step": ["step"]}


def test_interval_events_fire_when_their_time_has_passed(env: FakeEnv) -> None:
    manager = EventManager(
        {"push": EventTermCfg(func=note, mode="interval", interval_range_s=(0.3, 0.3))}, env
    )
    for _ in range(2):
        manager.apply("interval", dt=0.1)
    manager.reset(env.ids(1))
    for _ in range(3):
        manager.apply("interval", dt=0.1)
    assert env.log == [[0, 2, 3], [1]]


def test_a_global_interval_event_hits_all_environments_and_survives_resets(env: FakeEnv) -> None:
    cfg = EventTermCfg(func=note, mode="interval", interval_range_s=(0.2, 0.2), is_global_time=True)
    manager = EventManager({"push": cfg}, env)
    manager.apply("interval", dt=0.1)
    manager.reset(env.ids(0, 1, 2, 3))
    manager.apply("interval", dt=0.1)
    assert env.log == [None]


def test_reset_events_can_be_spaced_out(env: FakeEnv) -> None:
    cfg = EventTermCfg(func=note, mode="reset", min_step_count_between_reset=10)
    manager = EventManager({"rare": cfg}, env)
    manager.apply("reset", env_ids=env.ids(0, 1), global_env_step_count=0)
    manager.apply("reset", env_ids=env.ids(1, 2), global_env_step_count=5)
    manager.apply("reset", env_ids=env.ids(1, 2), global_env_step_count=12)
    assert env.log == [[0, 1], [2], [1]]


def test_events_declare_fields_and_the_strongest_recompute_runs_once(env: FakeEnv) -> None:
    @requires_model_fields("body_mass", recompute=RecomputeLevel.set_const)
    def mass(env: FakeEnv, env_ids: torch.Tensor | None) -> None:
        pass

    @requires_model_fields("body_gravcomp", recompute=RecomputeLevel.set_const_fixed)
    def gravcomp(env: FakeEnv, env_ids: torch.Tensor | None) -> None:
        pass

    cfg = {
        "a": EventTermCfg(func=gravcomp, mode="reset"),
        "b": EventTermCfg(func=mass, mode="reset"),
    }
    manager = EventManager(cfg, env)
    assert {"body_mass", "body_gravcomp", "body_subtreemass", "dof_invweight0"} <= set(
        manager.domain_randomization_fields
    )
    manager.apply("reset", env_ids=env.ids(0), global_env_step_count=0)
    assert env.recomputed == [RecomputeLevel.set_const]


def test_bad_events_are_refused(env: FakeEnv) -> None:
    with pytest.raises(ValueError, match="no interval_range_s"):
        EventManager({"p": EventTermCfg(func=note, mode="interval")}, env)
    with pytest.raises(ValueError, match="unknown mode 'often'"):
        EventManager({"p": EventTermCfg(func=note, mode="often")}, env)  # type: ignore[arg-type]


# Commands.


class Ramp(CommandTerm):
    """Counts updates per environment and draws a random goal."""

    def __init__(self, cfg: RampCfg, env: FakeEnv) -> None:
        super().__init__(cfg, env)  # type: ignore[arg-type]
        self.goal = torch.zeros(env.num_envs, 1)
        self.updates = torch.zeros(env.num_envs)
        self.metrics["updates"] = torch.zeros(env.num_envs)

    @property
    def command(self) -> torch.Tensor:
        return self.goal

    def _update_metrics(self) -> None:
        self.metrics["updates"] += 1

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        self.goal[env_ids] = self._env.rng.uniform(0.0, 1.0, (len(env_ids), 1), env_ids)

    def _update_command(self, env_ids: torch.Tensor | None) -> None:
        self.updates[slice(None) if env_ids is None else env_ids] += 1


@dataclass(kw_only=True)
class RampCfg(CommandTermCfg):
    """Configuration of ``Ramp``."""

    def build(self, env: Any) -> Ramp:
        return Ramp(self, env)


def test_commands_are_resampled_when_their_time_is_up(env: FakeEnv) -> None:
    manager = CommandManager({"ramp": RampCfg(resampling_time_range=(0.25, 0.25))}, env)
    manager.reset(env.ids(0, 1, 2, 3))
    term = manager.get_term("ramp")
    first = manager.get_command("ramp").clone()
    for _ in range(2):
        manager.compute(0.1)
    assert torch.equal(manager.get_command("ramp"), first)
    manager.compute(0.1)
    assert (manager.get_command("ramp") != first).all()
    assert term.command_counter.tolist() == [2] * 4
    assert manager.reset(env.ids(1)) == {"Metrics/ramp/updates": 3.0}
    assert term.command_counter.tolist() == [2, 1, 2, 2]


def test_a_partial_reset_does_not_change_commands_of_others(env: FakeEnv) -> None:
    manager = CommandManager({"ramp": RampCfg(resampling_time_range=(1.0, 2.0))}, env)
    manager.reset(env.ids(0, 1, 2, 3))
    manager.compute(0.1)
    term: Any = manager.get_term("ramp")
    before = copy.deepcopy((term.goal, term.time_left, term.updates, term.metrics["updates"]))
    manager.reset(env.ids(2))
    manager.compute(0.0, env_ids=env.ids(2))
    after = (term.goal, term.time_left, term.updates, term.metrics["updates"])
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[[0, 1, 3]], new[[0, 1, 3]])
    assert term.updates.tolist() == [1, 1, 2, 1]
    assert term.goal[2] != before[0][2]


def test_frozen_environments_keep_their_full_timers(env: FakeEnv) -> None:
    manager = CommandManager({"ramp": RampCfg(resampling_time_range=(0.1, 0.1))}, env)
    manager.reset(env.ids(0, 1, 2, 3))
    (due,) = manager.advance(0.1, frozen=torch.tensor([False, True, False, False]))
    assert due.tolist() == [True, False, True, True]
    assert manager.get_term("ramp").time_left[1].item() == pytest.approx(0.1)


# Actions.


class Hold(ActionTerm):
    """Takes two values and remembers them."""

    @property
    def action_dim(self) -> int:
        return 2

    @property
    def raw_action(self) -> torch.Tensor:
        return self.held

    def process_actions(self, actions: torch.Tensor) -> None:
        self.held = actions.clone()

    def apply_actions(self) -> None:
        self._env.log.append(self.held.clone())  # type: ignore[attr-defined]


@dataclass(kw_only=True)
class HoldCfg(ActionTermCfg):
    """Configuration of ``Hold``."""

    def build(self, env: Any) -> Hold:
        return Hold(self, env)


def test_actions_are_split_among_terms_and_remembered(env: FakeEnv) -> None:
    cfg = {"left": HoldCfg(entity_name="robot"), "right": HoldCfg(entity_name="robot")}
    manager = ActionManager(cfg, env)
    actions = [torch.rand(4, 4) for _ in range(3)]
    for action in actions:
        manager.process_action(action)
    assert torch.equal(manager.get_term("right").raw_action, actions[2][:, 2:])
    assert torch.equal(manager.action, actions[2])
    assert torch.equal(manager.prev_action, actions[1])
    assert torch.equal(manager.prev_prev_action, actions[0])
    manager.reset(env.ids(1))
    assert manager.action[1].abs().sum() == 0 and torch.equal(manager.action[0], actions[2][0])
    assert manager.prev_prev_action[1].abs().sum() == 0


def test_an_action_of_the_wrong_shape_is_refused(env: FakeEnv) -> None:
    manager = ActionManager({"left": HoldCfg(entity_name="robot")}, env)
    with pytest.raises(ValueError, match=r"shape \(4, 3\), expected \(4, 2\)"):
        manager.process_action(torch.zeros(4, 3))


# Recorders.


class Noting(RecorderTerm):
    """Notes some of its hooks."""

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        self._env.log.append(("pre_reset", self.cfg.params["name"]))  # type: ignore[attr-defined]

    def close(self) -> None:
        self._env.log.append(("close", self.cfg.params["name"]))  # type: ignore[attr-defined]
        if self.cfg.params.get("fail"):
            raise OSError("disk full")


def test_recorder_hooks_reach_only_terms_that_override_them(env: FakeEnv) -> None:
    cfg = {"a": RecorderTermCfg(func=Noting, params={"name": "a"}), "off": None}
    manager = RecorderManager(cfg, env)
    manager.record_post_step()
    manager.record_pre_reset(env.ids(0))
    assert env.log == [("pre_reset", "a")]
    assert "a" in manager and "off" not in manager and not manager.has_substep_terms
    assert manager.get_term("a").name == "Noting"
    with pytest.raises(KeyError, match="Unknown recorder term 'b'"):
        manager.get_term("b")


def test_close_reaches_every_recorder_and_raises_all_errors_together(env: FakeEnv) -> None:
    cfg = {
        name: RecorderTermCfg(func=Noting, params={"name": name, "fail": name != "b"})
        for name in "abc"
    }
    manager = RecorderManager(cfg, env)
    with pytest.raises(ExceptionGroup) as caught:
        manager.close()
    assert [entry[1] for entry in env.log] == ["a", "b", "c"]
    assert len(caught.value.exceptions) == 2


def test_a_function_is_not_a_recorder(env: FakeEnv) -> None:
    with pytest.raises(TypeError, match="must be a subclass of RecorderTerm"):
        RecorderManager({"f": RecorderTermCfg(func=note)}, env)
