"""Options of the rollout recorder: what is recorded, when, for how long, and of whom."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from rollout_log import StepLog, compare
from worlds import actions, cart_cfg, lengths

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import RecorderTermCfg, TerminationTermCfg
from mjlab_rec.recorders import (
    Channel,
    CsvRecorder,
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    Hdf5Recorder,
    Hdf5RecorderCfg,
    MemoryRecorder,
    MemoryRecorderCfg,
    at_episodes,
    at_steps,
    every_n_steps,
    manual,
    when,
)


def run(env: ManagerBasedRlEnv, steps: int) -> StepLog:
    log = StepLog(env, state=False)
    log.reset()
    for action in actions(steps, env.num_envs):
        log.step(action)
    return log


def make(recorder: RecorderTermCfg, num_envs: int = 4, **overrides: Any) -> ManagerBasedRlEnv:
    return ManagerBasedRlEnv(cart_cfg(num_envs, recorders={"log": recorder}, **overrides))


def recorded(env: ManagerBasedRlEnv) -> Any:
    return env.recorder_manager.get_term("log").rollouts


def spans(rollouts: Any) -> list[tuple[int, int, int]]:
    """Environment, first control step and rows of each episode."""
    return [(r["env"], r["start"], r["rows"]) for r in rollouts.episodes.iter_rows(named=True)]


def test_by_default_it_records_what_a_learner_needs():
    with make(MemoryRecorderCfg()) as env:
        log = run(env, 10)
        rollouts = recorded(env)
        assert list(rollouts.channels) == [
            "obs/actor",
            *(f"obs/critic/{t}" for t in ("joints", "late", "past", "goal", "action")),
            "action",
            "reward",
            "terminated",
            "truncated",
            "next_obs/actor",
            *(f"next_obs/critic/{t}" for t in ("joints", "late", "past", "goal", "action")),
        ]
        compare(rollouts, log.finished(), list(rollouts.channels))


def test_elements_are_named():
    asked = ("obs/actor", "action", "entity/robot/joint_pos", "entity/robot/site_pos_w", "ctrl")
    with make(MemoryRecorderCfg(channels=asked)) as env:
        run(env, 2)
        names = {name: spec.elements for name, spec in recorded(env).channels.items()}
    assert names["obs/actor"][:5] == ("joints.0", "joints.1", "late.0", "late.1", "past.0")
    assert names["obs/actor"][-2:] == ("goal", "action")
    assert names["action"] == ("push.slider",)
    assert names["entity/robot/joint_pos"] == ("slider", "hinge")
    assert names["entity/robot/site_pos_w"] == ("tip.0", "tip.1", "tip.2")
    assert names["ctrl"] == ("robot/push",)


def test_terms_of_a_concatenated_group_are_slices_of_it():
    with make(MemoryRecorderCfg(channels=("obs/actor", "obs/actor/past", "obs/actor/goal"))) as env:
        run(env, 10)
        rows = recorded(env)[0]
    np.testing.assert_array_equal(rows["obs/actor"][:, 4:13], rows["obs/actor/past"])
    np.testing.assert_array_equal(rows["obs/actor"][:, 13:14], rows["obs/actor/goal"])


def test_reward_terms_add_up_to_the_reward():
    with make(MemoryRecorderCfg(channels=("reward", "reward_terms"))) as env:
        run(env, 10)
        rows = recorded(env)[0]
    total = rows["reward_terms/height"] + rows["reward_terms/effort"]
    np.testing.assert_allclose(total, rows["reward"], rtol=1e-6)
    assert rows["reward_terms/effort"].any()


def test_termination_terms_say_why_each_episode_ended():
    said: dict[str, list[torch.Tensor]] = {"far": [], "late": []}

    def far(env):
        said["far"].append(env.scene["robot"].data.joint_pos[:, 0].abs() > 0.05)
        return said["far"][-1]

    def late(env):
        said["late"].append(lengths(env, (4, 9)))
        return said["late"][-1]

    terms = {
        "far": TerminationTermCfg(func=far),
        "late": TerminationTermCfg(func=late, time_out=True),
    }
    channels = ("termination_terms", "terminated", "truncated")
    with make(MemoryRecorderCfg(channels=channels), terminations=terms) as env:
        env.reset()
        for _ in range(60):
            env.step(torch.ones(env.num_envs, 1))
        rollouts = recorded(env)
    ended = {"far": 0, "late": 0}
    for i, about in enumerate(rollouts.episodes.iter_rows(named=True)):
        rows = rollouts[i]
        for name, values in said.items():
            found = rows[f"termination_terms/{name}"]
            steps = values[about["start"] : about["start"] + about["rows"]]
            assert found.tolist() == [bool(value[about["env"]]) for value in steps]
            ended[name] += int(found[-1])
        assert rows["termination_terms/far"].tolist() == rows["terminated"].tolist()
        assert rows["termination_terms/late"].tolist() == rows["truncated"].tolist()
    assert rollouts.channels["termination_terms/far"].dtype == bool
    assert min(ended.values()) > 3


def test_a_task_without_terminations_has_no_terms_of_them():
    channels = ("reward", "termination_terms")
    with make(MemoryRecorderCfg(channels=channels), terminations={}) as env:
        env.reset()
        env.step(torch.zeros(env.num_envs, 1))
        assert set(recorded(env).channels) == {"reward"}


def test_processed_action_and_ctrl_are_those_of_the_step_also_when_it_ends_the_episode():
    with make(MemoryRecorderCfg(channels=("action", "processed_action", "ctrl"))) as env:
        run(env, 9)
        rows = recorded(env)[0]
    np.testing.assert_array_equal(rows["processed_action"], rows["action"])
    np.testing.assert_array_equal(rows["ctrl"], rows["action"])
    assert rows["action"].all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acton", "Unknown channel 'acton'. Did you mean 'action'?"),
        ("obs/actr", "Did you mean 'obs/actor'?"),
        ("reward_terms/heigth", "Did you mean 'reward_terms/height'?"),
        ("entity/robot/joint_poss", "Did you mean 'joint_pos'?"),
        ("entity/robt/joint_pos", "Did you mean 'entity/robot/joint_pos'?"),
        ("sensor/imu", "There are none to choose from."),
    ],
)
def test_an_unknown_channel_suggests_the_nearest(name, message):
    with pytest.raises(ValueError) as caught:
        make(MemoryRecorderCfg(channels=(name,)))
    assert message in str(caught.value)


def test_a_channel_of_ones_own_is_read_before_or_after():
    count = {"calls": 0}

    def steps(env):
        count["calls"] += 1
        return env.episode_length_buf.clone()

    channels = (
        Channel(name="mine/before", func=steps, when="before", element_names=()),
        Channel(name="mine/after", func=steps, when="after"),
        Channel(
            name="tip",
            func=lambda env: env.scene["robot"].data.site_pos_w[:, 0],
            when="before",
            element_names=("x", "y", "z"),
            units="m",
        ),
    )
    with make(MemoryRecorderCfg(channels=channels)) as env:
        run(env, 20)
        rollouts = recorded(env)
        for i in range(len(rollouts)):
            rows = rollouts[i]
            assert rows["mine/before"].tolist() == rows["step"].tolist()
            assert rows["mine/after"].tolist() == (rows["step"] + 1).tolist()
        assert rollouts.channels["tip"].elements == ("x", "y", "z")
        assert rollouts.channels["tip"].units == "m"


@pytest.mark.parametrize("given", [{}, {"when": "befor"}])
def test_a_channel_of_ones_own_must_say_when_it_is_read(given):
    with pytest.raises(ValueError) as caught:
        Channel(name="mine", func=lambda env: env.reward_buf, **given)
    message = str(caught.value)
    assert message.startswith(
        f"Channel 'mine': when is {'missing' if not given else repr('befor')}."
    )
    assert 'when="before" reads the value before the action' in message
    assert 'when="after" reads what the action led to, before a reset' in message


def test_a_subclass_adds_a_channel_by_overriding_one_method():
    class Mine(MemoryRecorder):
        def channels(self):
            def energy(env):
                return env.scene["robot"].data.joint_vel.square().sum(dim=1)

            return (*super().channels(), Channel(name="energy", func=energy, when="before"))

    with make(MemoryRecorderCfg(func=Mine, channels=("reward",))) as env:
        run(env, 5)
        assert list(recorded(env).channels) == ["reward", "energy"]


def test_a_plain_cfg_with_params_works_too(tmp_path):
    path = tmp_path / "a.csv"
    cfg = RecorderTermCfg(func=CsvRecorder, params={"path": str(path), "channels": ("reward",)})
    with make(cfg) as env:
        run(env, 5)
    assert path.exists()
    with pytest.raises(ValueError, match="has no field 'pth'. Did you mean 'path'?"):
        make(RecorderTermCfg(func=CsvRecorder, params={"pth": "a.csv"}))


def broken_shape(env):
    return torch.zeros(env.num_envs, 1 + (env.common_step_counter > 3))


def broken_dtype(env):
    kind = torch.float64 if env.common_step_counter > 3 else torch.float32
    return torch.zeros(env.num_envs, dtype=kind)


@pytest.mark.parametrize(
    ("func", "error", "message"),
    [
        (broken_shape, ValueError, "Channel 'x' has changed: it is now torch.float32 (4, 2)"),
        (broken_dtype, ValueError, "Channel 'x' has changed: it is now torch.float64 (4,)"),
        (lambda env: np.zeros(4), TypeError, "Channel 'x' returned ndarray, expected a torch.T"),
        (lambda env: ["a"] * 4, TypeError, "Channel 'x' returned list, expected a torch.Tensor"),
        (lambda env: torch.zeros(3), ValueError, "Channel 'x' returned shape (3,), expected (4, "),
        (lambda env: torch.tensor(1.0), ValueError, "Channel 'x' returned shape (), expected (4,"),
        (lambda env: torch.zeros(4, dtype=torch.cfloat), Exception, "cannot have the dtype"),
    ],
)
def test_a_channel_that_breaks_its_promise_is_refused(func, error, message):
    with (
        make(MemoryRecorderCfg(channels=(Channel(name="x", func=func, when="before"),))) as env,
        pytest.raises(error) as caught,
    ):
        run(env, 10)
    assert message in str(caught.value)


def test_element_names_must_fit():
    channel = Channel(
        name="x", func=lambda env: torch.zeros(4, 3), when="before", element_names=("a", "b")
    )
    with make(MemoryRecorderCfg(channels=(channel,))) as env:
        with pytest.raises(ValueError, match="'x' has 3 elements but 2 element names: a, b"):
            env.reset()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"num_blocks": 1}, "num_blocks must be a whole number of at least 2, got 1"),
        ({"hz": -1.0}, "hz must be a number above 0, got -1.0"),
        ({"hz": 10.0, "every": 2}, "hz and every are mutually exclusive"),
        ({"keep": "good"}, "keep is 'good'. Possible: 'all', 'successful', 'failed', 'separate'"),
        ({"overflow": "wait"}, "overflow is 'wait'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"channels": ()}, "channels is empty"),
        ({"channels": "obs"}, "channels is a string; write ('obs',)"),
        ({"envs": (0, 9)}, "distinct indices from 0 to 3"),
        ({"envs": (0, 0)}, "distinct indices"),
        ({"envs": 0}, "must be a number from 1 to 4"),
        ({"length": 5}, "give a trigger too"),
        ({"success": "won"}, "Unknown termination term 'won'"),
        ({"trigger": "every_n_epsodes(2)"}, "Did you mean 'every_n_episodes'?"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, message):
    with pytest.raises((ValueError, KeyError)) as caught:
        make(MemoryRecorderCfg(**options))
    assert message in str(caught.value)


def test_hz_is_rounded_to_whole_steps_with_a_warning(caplog):
    asked = ("obs", "action", "reward", "next_obs")
    with make(MemoryRecorderCfg(channels=asked, hz=10.0)) as env:  # steps of 0.04 s
        log = run(env, 30)
        compare(recorded(env), log.finished(), ["obs/actor", "next_obs/actor"], every=2)
    assert "10 Hz is not a whole number of steps of 0.04 s" in caplog.text
    assert "every 2 steps, at 12.5 Hz" in caplog.text
    caplog.clear()
    make(MemoryRecorderCfg(hz=12.5)).close()
    assert not caplog.text


def test_float16_keeps_the_state_exact():
    with make(MemoryRecorderCfg(channels=("obs/actor", "state", "reward"), dtype="float16")) as env:
        log = run(env, 3)
        rows = recorded(env)[0]
        state = env.sim.get_state().dtype
    assert rows["obs/actor"].dtype == rows["reward"].dtype == np.float16
    assert rows["state"].dtype == np.float64 and state == torch.float64
    truth = np.stack([row["obs/actor"] for row in log.episodes[0][0].rows]).astype(np.float16)
    np.testing.assert_array_equal(rows["obs/actor"], truth)


def test_max_steps_and_max_episodes_end_the_recording():
    with make(MemoryRecorderCfg(max_steps=6)) as env:
        run(env, 20)
        assert recorded(env).rows == 6 * 4
        assert env.recorder_manager.get_term("log").rows == 6
    with make(MemoryRecorderCfg(max_episodes=3)) as env:  # they end after 4, 5, 7, 8, ... steps
        run(env, 20)
        whole = [r for r in recorded(env).episodes.iter_rows(named=True) if not r["cut"]]
        assert [(r["env"], r["length"]) for r in whole] == [(0, 7), (1, 4), (3, 5)]


def test_max_bytes_ends_the_recording(tmp_path):
    recorder = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), max_bytes=150_000, block_steps=5)
    with make(recorder) as env:
        log = StepLog(env, state=False)
        log.reset()
        for action in actions(100):
            log.step(action)
            if env.common_step_counter % 5 == 0:
                env.recorder_manager.get_term("log").flush()
        rows = env.recorder_manager.get_term("log").rows
    assert 5 < rows < 100, env.recorder_manager.get_term("log").files[0].stat().st_size


def won(env):
    return env.episode_length_buf > 4


@pytest.mark.parametrize("by_term", [True, False])
def test_only_successful_episodes_are_kept(by_term):
    cfg = cart_cfg()
    terminations = {"success": TerminationTermCfg(func=won), **cfg.terminations}
    options = {} if by_term else {"success": won}
    overrides = {"terminations": terminations} if by_term else {}
    lengths = {}
    for keep in ("all", "successful", "failed"):
        with make(MemoryRecorderCfg(keep=keep, **options), **overrides) as env:
            log = run(env, 20)
            env.close()
            table = recorded(env).episodes
            lengths[keep] = sorted(zip(table["length"], table["success"], strict=True), key=str)
            assert log.finished()
    assert {success for _, success in lengths["successful"]} == {True}
    assert {success for _, success in lengths["failed"]} <= {False, None}  # None: cut
    assert sorted(lengths["successful"] + lengths["failed"], key=str) == lengths["all"]


def test_successful_and_failed_episodes_go_to_separate_files(tmp_path):
    path = tmp_path / "a.h5"
    with make(Hdf5RecorderCfg(path=str(path), keep="separate", success=won)) as env:
        log = run(env, 20)
    tables = {}
    for kind in ("successful", "failed"):
        with open_rollouts(tmp_path / f"a_{kind}.h5") as rollouts:
            tables[kind] = rollouts.episodes
    assert set(tables["successful"]["success"]) == {True}
    assert set(tables["failed"]["success"]) == {False, None}  # None: cut
    count = len(tables["successful"]) + len(tables["failed"])
    assert count == len(log.finished())
    assert not path.exists()


def test_a_trigger_of_episodes_picks_whole_episodes():
    with make(MemoryRecorderCfg(trigger=at_episodes(1), block_steps=3)) as env:
        log = run(env, 20)
        rollouts = recorded(env)
        chosen = [log.episodes[i][1] for i in range(4)]
        done = [e for e in chosen if len(e.rows) < 9 or e.terminated]
        compare(rollouts, done, list(rollouts.channels))


def test_a_trigger_of_episodes_with_a_length_records_their_beginning():
    with make(MemoryRecorderCfg(trigger=at_episodes(1), length=2)) as env:
        run(env, 20)
        table = recorded(env).episodes
        assert table["rows"].to_list() == [2, 2, 2, 2]
        assert table["length"].to_list() == [7, 4, 9, 5]


@pytest.mark.parametrize("second", [6, 12])
def test_a_trigger_of_steps_records_stretches(second):
    with make(MemoryRecorderCfg(trigger=at_steps(3, second), length=2, block_steps=4)) as env:
        log = run(env, 20)
        rollouts = recorded(env)
        steps = set()
        for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            arrays, episode = rollouts[i], log.episodes[row["env"]][row["number"]]
            steps |= {(row["env"], episode.start + k) for k in arrays["step"].tolist()}
            for name in ("obs/actor", "next_obs/actor", "action", "terminated"):
                truth = [episode.rows[k][name] for k in arrays["step"]]
                np.testing.assert_array_equal(arrays[name], np.stack(truth))
        assert steps == {(i, k) for i in range(4) for k in (3, 4, second, second + 1)}


def test_a_condition_starts_recording_where_it_becomes_true():
    def third_step(env):
        return env.episode_length_buf >= 3

    with make(MemoryRecorderCfg(trigger=when(third_step))) as env:
        run(env, 19)
        rollouts = recorded(env)
        assert all(rollouts[i]["step"][0] == 3 for i in range(len(rollouts)))
        rows = {(r["env"], r["length"], r["rows"]) for r in rollouts.episodes.iter_rows(named=True)}
        assert {(0, 7, 4), (1, 4, 1), (2, 9, 6), (3, 5, 2)} <= rows


def test_a_manual_trigger_fires_by_hand():
    with make(MemoryRecorderCfg(trigger=manual(), length=3)) as env:
        env.reset()
        term = env.recorder_manager.get_term("log")
        for k, action in enumerate(actions(20)):
            if k == 8:
                term.fire()
            env.step(action)
        assert term.rows == 3
        with pytest.raises(RuntimeError, match="no trigger to fire"):
            MemoryRecorder(MemoryRecorderCfg(), env).fire()


def test_every_n_steps_may_fire_again_while_recording():
    with make(MemoryRecorderCfg(trigger=every_n_steps(4), length=6)) as env:
        run(env, 20)
        assert env.recorder_manager.get_term("log").rows == 20


@pytest.mark.parametrize("resume", [6, 11])
def test_pause_leaves_rows_out_and_keeps_counting(resume):
    with make(MemoryRecorderCfg(block_steps=4)) as env:
        log = StepLog(env, state=False)
        log.reset()
        term = env.recorder_manager.get_term("log")
        for k, action in enumerate(actions(20)):
            if k == 5:
                term.pause()
            if k == resume:
                term.start()
            log.step(action)
        rollouts = term.rollouts
        recorded_steps = set()
        for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            episode = log.episodes[row["env"]][row["number"]]
            rows = rollouts[i]
            recorded_steps |= {(row["env"], episode.start + int(s)) for s in rows["step"]}
            truth = [episode.rows[s]["next_obs/actor"] for s in rows["step"]]
            np.testing.assert_array_equal(rows["next_obs/actor"], np.stack(truth))
            if row["length"] == len(episode.rows):
                assert np.isclose(row["return"], episode.total)
        assert recorded_steps == {
            (i, k) for i in range(4) for k in range(20) if not 5 <= k < resume
        }


def test_stop_finishes_the_file_and_start_begins_another(tmp_path):
    path = tmp_path / "a.h5"
    with make(Hdf5RecorderCfg(path=str(path), autostart=False)) as env:
        log = StepLog(env, state=False)
        log.reset()
        term = env.recorder_manager.get_term("log")
        for k, action in enumerate(actions(20)):
            if k in (4, 13):
                term.start()
            if k == 10:
                term.stop()
                with open_rollouts(path) as rollouts:
                    assert rollouts.rows == 6 * 4
                first_nbytes = term.nbytes
                assert first_nbytes == pytest.approx(path.stat().st_size, rel=0.5)
            log.step(action)
        files = term.files
    assert term.nbytes > first_nbytes
    assert [f.name for f in [*files, *term.files[1:]]][0] == "a.h5"
    with open_rollouts(tmp_path / "a_1.h5") as rollouts:
        assert rollouts.rows == 7 * 4
        for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            episode = next(
                e
                for e in log.episodes[row["env"]]
                if e.start <= row["start"] < e.start + len(e.rows)
            )
            first = row["start"] - episode.start
            truth = [r["obs/actor"] for r in episode.rows[first : first + row["rows"]]]
            np.testing.assert_array_equal(rollouts[i]["obs/actor"], np.stack(truth))
            assert rollouts[i]["step"][0] == first


def test_recording_starts_without_a_reset_too():
    with make(MemoryRecorderCfg(channels=("reward",))) as env:
        for action in actions(5):
            env.step(action)
        assert recorded(env).rows == 4 * 4


def test_next_obs_without_obs():
    with make(MemoryRecorderCfg(channels=("next_obs/actor", "reward"))) as env:
        log = run(env, 12)
        compare(recorded(env), log.finished(), ["next_obs/actor", "reward"])


def test_the_episode_log_has_a_line_per_episode(tmp_path):
    path = tmp_path / "episodes.jsonl"
    with make(EpisodeLogRecorderCfg(path=str(path), success=won, envs=3)) as env:
        log = run(env, 20)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    truth = [e for e in log.finished((0, 1, 2)) if e.terminated]
    assert len(lines) == len(truth)
    for line in lines:
        episode = log.episodes[line["env"]][line["episode"]]
        assert line["length"] == len(episode.rows)
        assert line["return"] == pytest.approx(episode.total)
        assert line["terminated"] and not line["truncated"]
        assert line["success"] == (len(episode.rows) > 4)
        assert line["seed"] == 11
        assert line["step"] == episode.start + len(episode.rows)
        assert line["sim_time"] == pytest.approx(line["step"] * 0.04)
        assert sum(line["reward_terms"].values()) == pytest.approx(episode.total, rel=1e-5)
        assert line["wall_time"] > 1.7e9


def test_the_episode_log_waits_for_the_disk_if_it_must_survive_a_loss_of_power(
    tmp_path, monkeypatch
):
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: waited.append(os.fstat(descriptor).st_size))
    path = tmp_path / "e.jsonl"
    with make(EpisodeLogRecorderCfg(path=str(path), durability="power")) as env:
        run(env, 60)
    assert waited[-1] == path.stat().st_size > 0


def test_a_recording_describes_itself(tmp_path):
    path = tmp_path / "a.h5"
    with make(Hdf5RecorderCfg(path=str(path))) as env:
        run(env, 3)
        seed = env.cfg.seed
    with open_rollouts(path) as rollouts:
        about = rollouts.info.about
        assert about["seed"] == seed
        assert about["engine"] == "mjbatch"
        assert about["env_cfg"]["decimation"] == 4
        assert about["env_cfg"]["rewards"]["height"]["func"] == "worlds:tip_height"
        assert about["versions"]["mujoco"]
        assert rollouts.info.step_dt == pytest.approx(0.04)


@dataclass(kw_only=True)
class _MineCfg(Hdf5RecorderCfg):
    """A cfg of a user's own."""

    extra: int = 3


def test_a_typed_cfg_of_ones_own_reaches_the_recorder(tmp_path):
    class Mine(Hdf5Recorder):
        cfg_type = _MineCfg

    with make(_MineCfg(func=Mine, path=str(tmp_path / "a.h5"), extra=5)) as env:
        assert env.recorder_manager.get_term("log").cfg.extra == 5


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("/abs/x", (), "cannot be called"),
        ("../x", (), "cannot be called"),
        ("step", (), "cannot be called 'step'"),
        ("nothing", (0,), "no element"),
    ],
)
@pytest.mark.parametrize("make_cfg", [CsvRecorderCfg, Hdf5RecorderCfg, MemoryRecorderCfg])
def test_a_channel_that_no_file_can_hold_is_refused_at_the_first_reset(
    make_cfg, name, shape, message, tmp_path
):
    channel = Channel(name=name, func=lambda env: torch.zeros(env.num_envs, *shape), when="before")
    path = "" if make_cfg is MemoryRecorderCfg else str(tmp_path / "a.csv")
    cfg = make_cfg(path=path.replace(".csv", ".h5") if make_cfg is Hdf5RecorderCfg else path)
    cfg.channels = (channel, "reward")
    with make(cfg) as env, pytest.raises(DataError, match=message):
        env.reset()
    assert list(tmp_path.iterdir()) == []
