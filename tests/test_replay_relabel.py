"""Rewards and observations are computed again from recordings, as if they had been recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from long_runs import some_long
from worlds import cart_cfg

from mjlab_rec.data import OutputOptions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
)
from mjlab_rec.recorders import Channel, Hdf5RecorderCfg, MemoryRecorderCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay import relabel

CHANNELS = ("obs", "command", "state", "physics", "action", "reward", "reward_terms")
CHANNELS += ("terminated", "truncated", "next_obs")
OVERWRITE = OutputOptions(if_exists="overwrite")


def roll(cfg: Any, steps: int = 25, **recorder: Any) -> Rollouts:
    cfg.recorders = {"log": MemoryRecorderCfg(**{"channels": CHANNELS, **recorder})}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        shape = env.num_envs, env.action_manager.total_action_dim
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            env.step(torch.rand(shape, generator=generator) * 2 - 1)
            if step == steps // 2:
                env.reset(env_ids=torch.tensor([1]))
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


def world(**cfg: Any) -> Any:
    """The cart with pushes, a randomized mass, and observations of which none is random."""
    made = cart_cfg(**cfg)
    made.events["mass"] = EventTermCfg(
        func=mdp.dr.body_mass,
        mode="reset",
        params={
            "asset_cfg": SceneEntityCfg("robot", body_names=("pole",)),
            "operation": "scale",
            "ranges": (0.5, 2.0),
        },
    )
    for group in made.observations.values():
        group.enable_corruption = False
        group.terms["late"].delay_min_lag = 2
    return made


def other(cfg: Any) -> Any:
    """Other rewards and observations, some of which depend on earlier steps."""
    cfg.rewards["height"].weight = 3.0
    cfg.rewards["slow"] = RewardTermCfg(func=mdp.joint_vel_l2, weight=-0.5)
    cfg.rewards["jerk"] = RewardTermCfg(func=mdp.action_acc_l2, weight=-0.3)
    cfg.observations["actor"].terms["past"].history_length = 4
    cfg.observations["new"] = ObservationGroupCfg(
        terms={"velocity": ObservationTermCfg(func=mdp.joint_vel_rel, history_length=2)}
    )
    return cfg


@pytest.fixture(scope="module")
def recorded() -> Rollouts:
    return roll(world())


def opened(tmp_path: Any, *args: Any, **options: Any) -> tuple[Any, Rollouts]:
    found = relabel(args[0], tmp_path / "new.h5", *args[1:], options=OVERWRITE, **options)
    return found, open_rollouts(found.files[0])


@pytest.mark.parametrize(
    "task",
    [
        "cartpole-balance",
        "gym-hopper",  # rk4, and no forward pass after the steps.
        "velocity-flat-quadruped",  # Contacts, air times, delays, pushes, other masses.
        some_long("reach-arm"),
        some_long("lift-arm"),
        some_long("gym-ant"),
        some_long("velocity-rough-quadruped"),
    ],
)
def test_the_same_task_gives_the_recorded_rewards(task, tmp_path):
    def task_cfg() -> Any:
        cfg = load_env_cfg(task)
        cfg.scene.num_envs, cfg.seed, cfg.episode_length_s = 4, 1, 0.3
        if "quadruped" in task:
            cfg.events["push_robot"].interval_range_s = (0.06, 0.2)
            cfg.events["base_mass"].mode = "reset"
            for actuator in cfg.scene.entities["robot"].articulation.actuators:
                actuator.delay_max_lag = 3
        cfg.observations["actor"].enable_corruption = False
        return cfg

    before = roll(task_cfg())
    found, after = opened(tmp_path, before, task_cfg(), channels=["reward", "obs"])
    for channel in found.channels:
        # A push in the last step of an episode is in no recorded state.
        assert not channel.differing or channel.name.startswith("next_obs/"), str(channel)
        assert channel.known and channel.rows == 100
    columns = after.episodes.columns
    assert after.episodes.equals(before.episodes.select(columns))
    assert found.return_before == found.return_after
    for index in range(len(before)):
        old, new = before[index], after[index]
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[n], new[n]) for n in old if not n.startswith("next_obs"))
    if task == "velocity-flat-quadruped":  # In other worlds other delays are drawn.
        found, _ = opened(tmp_path, before, task_cfg(), num_worlds=3)
        assert all(channel.most < 1e-6 for channel in found.channels)
        assert not any("physics" in note for note in found.notes)
        assert any("encoder_bias drew at start-up" in note for note in found.notes)


def test_another_task_gives_what_would_have_been_recorded(recorded, tmp_path):
    truth = roll(other(world()))
    chosen = ["reward", "obs"]
    found, made = opened(tmp_path, recorded, other(world()), channels=chosen)
    assert {c.name for c in found.channels} >= {"reward_terms/jerk", "obs/new", "next_obs/actor"}
    assert not found.same and found.return_before != found.return_after
    columns = ["env", "number", "length", "return", "recorded_return", "terminated", "cut"]
    assert made.episodes.select(columns).equals(truth.episodes.select(columns))
    for index in range(len(truth)):
        new, true = made[index], truth[index]
        for name in true:
            if not name.startswith("next_obs"):
                assert np.array_equal(new[name], true[name]), name
            else:  # The last one may have been pushed.
                assert np.array_equal(new[name][:-1], true[name][:-1])
    assert made.channels["obs/actor"].shape == truth.channels["obs/actor"].shape
    assert made.channels["reward_terms/slow"] == truth.channels["reward_terms/slow"]


@pytest.mark.parametrize(("worlds", "memory"), [(1, 1 << 30), (3, 1 << 30), (None, 2000)])
def test_number_of_worlds_and_memory_hardly_matter(recorded, tmp_path, worlds, memory):
    options: Any = {"num_worlds": worlds, "memory_bytes": memory}
    # Its terminations depend on the number of the world.
    found, _ = opened(tmp_path, recorded, world(steps=(1000,)), channels=["reward"], **options)
    assert all(channel.most < 1e-6 for channel in found.channels)
    assert any("terminations of the task" in note for note in found.notes)
    assert not any("physics" in note for note in found.notes)


def test_some_episodes_terms_and_channels_of_your_own(recorded, tmp_path):
    cfg = world()
    cfg.rewards["far"] = RewardTermCfg(
        func=lambda env: env.scene["robot"].data.joint_pos[:, 0].abs(), weight=2.0
    )
    angle = Channel(
        name="angle",
        func=lambda env: env.scene["robot"].data.joint_pos[:, 1],
        when="before",
        units="rad",
    )
    names = ["reward_terms/far", "termination_terms", angle, "entity/robot/joint_vel"]
    found, made = opened(tmp_path, recorded, cfg, channels=names, episodes=[3, 1])
    assert [str(channel) for channel in found.channels] == [
        "reward_terms/far: new",
        *(f"termination_terms/{name}: new" for name in cfg.terminations),
        "angle: new",
        "entity/robot/joint_vel: new",
    ]
    assert len(made) == 2 and made.channels["angle"].units == "rad"
    columns = made.episodes.columns
    assert made.episodes.equals(recorded.episodes[[1, 3]].select(columns))
    layout = {name: i for i, name in enumerate(recorded.channels["state"].elements)}
    for index, old in enumerate((1, 3)):
        rows, state = made[index], recorded[old]["state"].astype(np.float32)
        assert np.array_equal(rows["angle"], state[:, layout["qpos.1"]])
        velocity = state[:, [layout["qvel.0"], layout["qvel.1"]]]
        assert np.array_equal(rows["entity/robot/joint_vel"], velocity)
        assert np.array_equal(rows["reward"], recorded[old]["reward"])
        assert (rows["reward_terms/far"] >= 0.0).all()
        assert np.array_equal(rows["termination_terms/end"], recorded[old]["terminated"])


def test_missing_rows_are_noted_and_make_the_return_unknown(tmp_path):
    thin = roll(world(), every=3)
    found, made = opened(tmp_path, thin, world())
    assert any("one of 3 steps" in note for note in found.notes)
    known = made.episodes["return"].is_not_null()
    assert known.to_list() == (made.episodes["rows"] == made.episodes["length"]).to_list()
    assert not known.all()
    terms = {channel.name: channel for channel in found.channels}
    assert not terms["reward_terms/height"].differing  # It looks at nothing earlier.
    assert terms["reward_terms/effort"].differing
    late = roll(world(), max_steps=10, autostart=True, every=1, channels=CHANNELS)
    found, made = opened(tmp_path, late, world())
    assert any("are missing" in note for note in found.notes)
    partial = made.episodes.filter(made.episodes["partial"])
    assert len(partial) and partial["return"].null_count() == len(partial)


@pytest.mark.parametrize("every", [1, 3])
def test_rows_at_gaps_are_those_of_their_steps(every, tmp_path):
    def cfg() -> Any:
        made = world(steps=(1000,))
        del made.events["kick"], made.events["together"]
        terms = {
            "position": ObservationTermCfg(func=mdp.joint_pos_rel),
            "time": ObservationTermCfg(func=lambda env: env.episode_length_buf[:, None].float()),
        }
        made.observations = {"now": ObservationGroupCfg(terms=terms)}
        return made

    recording = cfg()
    recording.recorders = {"log": MemoryRecorderCfg(channels=CHANNELS, every=every, max_steps=9)}
    with ManagerBasedRlEnv(recording) as env:
        env.reset()
        recorder: Any = env.recorder_manager.get_term("log")
        for step in range(30):
            if step in (0, 10):
                recorder.pause()
            elif step in (5, 15):
                recorder.start()
            env.step(torch.rand(4, 1) * 2 - 1)
    before = recorder.rollouts
    assert np.diff(before[0]["step"]).max() > 1 and before[0]["step"][0] == (5 if every == 1 else 6)
    found, _ = opened(tmp_path, before, cfg(), channels=["obs", "reward_terms/height"])
    for channel in found.channels:  # Terms that do not look back.
        assert not channel.differing and channel.known, str(channel)


def test_start_up_is_repeated_only_with_a_known_seed(tmp_path):
    cfg = world()
    drawn = []
    cfg.events["bias"] = EventTermCfg(
        func=lambda env, env_ids: drawn.append(env.cfg.seed), mode="startup"
    )
    before = roll(cfg, 3)
    drawn.clear()
    found, _ = opened(tmp_path, before, cfg)
    assert drawn == [11] and not any("start-up" in note for note in found.notes)
    del before.info.about["seed"]  # As of several recordings with different seeds.
    found, _ = opened(tmp_path, before, cfg)
    assert drawn == [11] and any("bias drew at start-up" in note for note in found.notes)


def test_pictures_that_are_kept_do_not_change_again(tmp_path):
    pytest.importorskip("simplejpeg")
    cfg = world()
    eye = Channel(
        name="eye",
        func=lambda env: torch.randint(0, 255, (env.num_envs, 16, 16, 3)).byte(),
        when="before",
    )
    path = tmp_path / "run.h5"
    cfg.recorders = {
        "log": Hdf5RecorderCfg(path=str(path), channels=(*CHANNELS, eye), pictures={"eye": "jpeg"})
    }
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(3):
            env.step(torch.zeros(4, 1))
    with open_rollouts(path) as before:
        assert before.channels["eye"].codec.startswith("jpeg")
        _, after = opened(tmp_path, before, world())
        assert all(np.array_equal(before[i]["eye"], after[i]["eye"]) for i in range(4))


def test_without_the_channel_physics_it_is_said(tmp_path):
    names = tuple(name for name in CHANNELS if name != "physics")
    found, _ = opened(tmp_path, roll(world(), channels=names), world(), channels=["reward"])
    assert found.same
    assert any("'physics' was not recorded" in note for note in found.notes)


def test_what_is_random_or_changed_is_noted(recorded, tmp_path):
    cfg = world()
    cfg.observations["actor"].enable_corruption = True
    cfg.observations["critic"].terms["late"].delay_min_lag = 0
    cfg.rewards["effort"] = None
    cfg.sim.mujoco.gravity = (0.0, 0.0, -5.0)
    found, _ = opened(tmp_path, recorded, cfg, channels=["reward", "obs"])
    said = "\n".join(found.notes)
    for words in (
        "noise of actor was drawn again",
        "delays of actor/late, critic/late were drawn again",
        "model of this task is not the recorded one",
        "steps the physics led to another state than recorded",
        "'reward_terms/effort' is as it was recorded",
        "has a curriculum",
        "events during episodes",
    ):
        assert words in said


def test_commands_that_are_not_known_are_refused_where_they_matter(tmp_path):
    names = tuple(name for name in CHANNELS if name != "command")
    without = roll(world(), channels=names)
    found, _ = opened(tmp_path, without, world(), channels=["reward"])
    assert found.same  # No reward reads it.
    with pytest.raises(DataError, match="observations depend on the command 'goal'.*'command'"):
        relabel(without, tmp_path / "no.h5", world(), channels=["obs"])
    assert not (tmp_path / "no.h5").exists()


def test_what_does_not_fit_is_named(recorded, tmp_path):
    out = tmp_path / "no.h5"
    with pytest.raises(DataError, match="'state' cannot be computed again.*replay --task"):
        relabel(recorded, out, world(), channels=["reward", "state"])
    with pytest.raises(DataError, match="'command/goal' cannot be computed again"):
        relabel(recorded, out, world(), channels=["command/goal"])
    with pytest.raises(DataError, match="no episode -1"):
        relabel(recorded, out, world(), episodes=[-1])
    with pytest.raises(ValueError, match="Unknown channel 'rewrad'.*reward"):
        relabel(recorded, out, world(), channels=["rewrad"])
    with pytest.raises(ValueError, match="channels must be a list"):
        relabel(recorded, out, world(), channels="reward")
    with pytest.raises(DataError, match="4 physics steps of 0.01 s, in this task 2 of 0.01"):
        relabel(recorded, out, world(decimation=2))
    cfg = world()
    cfg.actions = {}
    for group in cfg.observations.values():
        group.terms["action"] = None
    with pytest.raises(DataError, match="have 1 numbers, those of this task 0"):
        relabel(recorded, out, cfg)
    with pytest.raises(DataError, match="simulates something else"):
        relabel(recorded, out, load_env_cfg("gym-hopper"))
    with pytest.raises(DataError, match="no episodes"):
        relabel(recorded, out, world(), episodes=[])
    with pytest.raises(ValueError, match="num_worlds is 0"):
        relabel(recorded, out, world(), num_worlds=0)
    names = tuple(name for name in CHANNELS if name != "action")
    with pytest.raises(DataError, match="no actions"):
        relabel(roll(world(), 3, channels=names), out, world())
    with pytest.raises(DataError, match="no physics states"):
        relabel(roll(world(), 3, channels=("action", "reward")), out, world())
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(DataError, match="exists"):
        relabel(recorded, out, world())
    assert out.read_text() == "mine"


def test_an_error_on_the_way_leaves_no_file(recorded, tmp_path):
    calls = []

    def fails(env: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 12:
            raise ValueError("my own mistake")
        return torch.zeros(env.num_envs)

    cfg = world()
    cfg.rewards["mine"] = RewardTermCfg(func=fails, weight=1.0)
    with pytest.raises(ValueError, match="my own mistake"):
        relabel(recorded, tmp_path / "no.h5", cfg)
    assert not (tmp_path / "no.h5").exists()


def test_the_cfg_of_the_caller_stays_as_it_was(recorded, tmp_path):
    cfg = world()
    events, terms, count = list(cfg.events), list(cfg.rewards), cfg.scene.num_envs
    opened(tmp_path, recorded, cfg)
    assert (list(cfg.events), list(cfg.rewards), cfg.scene.num_envs) == (events, terms, count)
    assert cfg.auto_reset and not cfg.recorders.get("taken") and cfg.curriculum


def test_progress_counts_all_steps(recorded, tmp_path):
    seen: list[tuple[int, int]] = []
    relabel(recorded, tmp_path / "a.h5", world(), progress=lambda *now: seen.append(now))
    assert seen[-1] == (100, 100)
    assert np.all(np.diff([done for done, _ in seen]) > 0)
