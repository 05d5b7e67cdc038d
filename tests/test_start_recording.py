"""Recorders added to a running environment: what they record, and what they leave alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import Painter, board_cfg, steps
from rollout_examples import Example, Rec, Request, ResetBy, Steps
from rollout_run import run
from rollout_world import World
from waiting import PATIENCE_S
from worlds import actions, cart_cfg, shaky, tip

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.files import PathExistsError
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.running_episodes import RunningEpisodes
from mjlab_rec.managers import NullRecorderManager, RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders import (
    Channel,
    EpisodeLogRecorderCfg,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    LivePlotRecorder,
    LivePlotRecorderCfg,
    MemoryRecorderCfg,
    VideoRecorderCfg,
    every_n_episodes,
)
from mjlab_rec.recorders.video import recorder as video_module
from mjlab_rec.rl.gymnasium_env import NumpyVectorEnv


@pytest.fixture
def env() -> Any:
    with ManagerBasedRlEnv(cart_cfg()) as made:
        yield made


def walk(env: ManagerBasedRlEnv, count: int, seed: int = 0) -> list[torch.Tensor]:
    """Steps steps, and return everything that they returned."""
    seen = []
    for action in actions(count, env.num_envs, seed):
        obs, reward, terminated, truncated, _ = env.step(action)
        policy: Any = obs["actor"]
        seen += [policy.clone(), reward.clone(), terminated.clone(), truncated.clone()]
    return seen


def height(env: ManagerBasedRlEnv) -> torch.Tensor:
    return tip(env)[:, 2]


def rows_of(handle: Any, channel: str) -> np.ndarray:
    """All rows of a memory recorder, by environment and step."""
    rollouts = handle.rollouts
    return np.concatenate([rollouts[i][channel] for i in range(len(rollouts))])


# What is recorded.


def test_a_function_is_recorded_after_the_step_and_its_result_copied(env):
    env.reset()
    walk(env, 1)
    buffer, wanted, calls = torch.zeros(4, 3), [], []

    def position(env: Any) -> torch.Tensor:
        calls.append(env.common_step_counter)
        buffer.copy_(tip(env))
        return buffer

    handle = env.start_recording(position, MemoryRecorderCfg())
    calls.clear()
    for action in actions(2, seed=1):  # No episode ends before the fourth step.
        env.step(action)
        wanted.append(tip(env)[0].clone())
    assert calls == [2, 3]  # Once a row.
    assert handle.rollouts.channels.keys() == {"position"}
    np.testing.assert_array_equal(handle.rollouts[0]["position"], torch.stack(wanted))


def test_an_ended_episodes_last_row_is_as_current_as_the_others(env):
    """Although the simulation does not say where bodies are until its next step."""
    env.cfg.final_obs = False
    env.reset()
    handle = env.start_recording(lambda env: {"tip": tip(env)}, MemoryRecorderCfg())
    past: Any = None
    wanted = []
    for action in actions(8):
        _, _, terminated, _, extras = env.step(action)
        past = extras["final_obs"]["critic"]["past"]
        wanted.append((past[0, -1] if past.ndim == 3 else past[0, -3:]).clone())
    first = handle.rollouts[0]
    assert len(first["tip"]) == 7 and bool(handle.rollouts.episodes["terminated"][0])
    np.testing.assert_array_equal(first["tip"], torch.stack(wanted[:7]))


def test_a_dict_gives_a_channel_per_entry_with_one_call(env):
    env.reset()
    calls = []

    def data() -> dict[str, Any]:
        calls.append(env.common_step_counter)
        robot = env.scene["robot"].data
        return {
            "joints": {"pos": robot.joint_pos, "vel": robot.joint_vel.double().numpy()},
            "is_high": height(env) > 1.9,
        }

    handle = env.start_recording(data, MemoryRecorderCfg(every=2))
    calls.clear()
    for action in actions(3):
        env.step(action)
    assert calls == [1, 3]
    channels = handle.rollouts.channels
    assert {name: channels[name].dtype for name in channels} == {
        "joints/pos": np.float32,
        "joints/vel": np.float64,
        "is_high": np.bool_,
    }
    assert handle.rollouts[0]["joints/vel"].shape == (2, 2)
    assert all(spec.when == "after" for spec in channels.values())


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("reward", {"reward"}),
        (("obs/actor", "action"), {"obs/actor", "action"}),
        ([Channel(name="own/x", func=height, when="before"), "reward"], {"own/x", "reward"}),
        (height, {"height"}),
        (lambda env: height(env), {"data"}),
        (lambda env, scale=2.0: height(env) * scale, {"data"}),
        (["action", height, lambda env: {"a": {"b": height(env)}}], {"action", "height", "a/b"}),
    ],
)
def test_what_to_record_may_be_given_in_many_ways(env, data, names):
    env.reset()
    handle = env.start_recording(data, MemoryRecorderCfg())
    walk(env, 2)
    assert set(handle.rollouts.channels) == names


def test_a_method_is_not_copied_with_the_object_it_belongs_to(env):
    class Task:
        def __init__(self) -> None:
            self.env, self.lock = env, threading.Lock()  # Neither can be copied.

        def height(self) -> torch.Tensor:
            return height(self.env)

        def read(self, env: Any) -> torch.Tensor:
            return self.height()

    env.reset()
    task = Task()
    own = Channel(name="own", func=task.read, when="before")
    handle = env.start_recording([task.height, own], MemoryRecorderCfg())
    walk(env, 1)
    assert set(handle.rollouts.channels) == {"height", "own"}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"reward"}, TypeError, "must be a channel's name, .* got set"),
        (
            {"a": torch.zeros(4)},
            TypeError,
            "got dict. Its value now .* write lambda: ... around it",
        ),
        (torch.zeros(4), TypeError, "got Tensor. Its value now"),
        ((), ValueError, "There is nothing to record"),
        ("obs/actr", ValueError, "Unknown channel 'obs/actr'. Did you mean 'obs/actor'"),
        (lambda: torch.zeros(3), ValueError, r"'data' has shape \(3,\), expected \(4, ...\)"),
        (lambda: {"a": {"b": torch.tensor(1.0)}}, ValueError, r"'a/b' has shape \(\), expected"),
        (lambda: {"a": [1, 2, 3, 4]}, TypeError, "'a' is list, expected a torch.Tensor or numpy"),
        (lambda: {"a": np.array(list("abcd"))}, TypeError, "'a' is .*, expected a torch.Tensor"),
        (lambda: {1: torch.zeros(4)}, TypeError, "The key 1 of the data is no name"),
        (
            lambda: {"a": {"": torch.zeros(4)}},
            TypeError,
            "The key '' of the data in 'a' is no name",
        ),
        (lambda: {}, ValueError, "data returned an empty dict"),
        (
            lambda: {"a/b": torch.ones(4), "a": {"b": torch.ones(4)}},
            ValueError,
            "two values .*'a/b'",
        ),
        (lambda a, b: a, TypeError, "takes no argument, or the environment; .* needs a, b"),
        ([height, height], ValueError, "There are two channels named 'height'"),
    ],
)
@pytest.mark.parametrize("is_reset", [True, False])
def test_what_cannot_be_recorded_is_refused_at_once(env, data, error, message, is_reset):
    if is_reset:
        env.reset()
    with pytest.raises(error, match=message):
        env.start_recording(data, MemoryRecorderCfg())
    assert isinstance(env.recorder_manager, NullRecorderManager)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"a": d["a"]}, "keys of data's data have changed: now they are a, and .* a, b"),
        (lambda d: {**d, "b": d["b"].double()}, "Channel 'b' has changed: it is now torch.float64"),
        (lambda d: {**d, "a": d["a"][:, :2]}, r"Channel 'a' has changed: it is now .* \(4, 2\)"),
        (lambda d: {**d, "a": d["a"][:2]}, r"Channel 'a' returned shape \(2, 3\)"),
    ],
)
def test_keys_shapes_and_types_must_not_change(env, change, message):
    env.reset()
    data = {"a": torch.zeros(4, 3), "b": torch.zeros(4)}
    env.start_recording(lambda: data, MemoryRecorderCfg())
    walk(env, 1)
    data = change(data)
    with pytest.raises((ValueError, TypeError), match=message):
        walk(env, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reward",), "got no recorder's cfg but str. It comes second"),
        ((Hdf5RecorderCfg,), r"got the class Hdf5RecorderCfg. Did you mean Hdf5RecorderCfg\(...\)"),
        (("reward", Hdf5RecorderCfg), "got the class Hdf5RecorderCfg"),
        ((MemoryRecorderCfg(), "reward"), "got no recorder's cfg but str. It comes second"),
        (("reward", VideoRecorderCfg()), "VideoRecorderCfg cannot be told what to record. Call"),
        ((RecorderTermCfg(func=len),), "func must be a subclass of RecorderTerm"),
    ],
)
def test_wrong_arguments_are_refused(env, arguments, message):
    env.reset()
    with pytest.raises(TypeError, match=message):
        env.start_recording(*arguments)


class Panels:
    """A backend of live plots that keeps the frames."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.files: list[Path] = []

    def draw(self, frame: Any, final: bool) -> None:
        self.frames.append(frame.contents)

    def close(self) -> None:
        pass


class Plot(LivePlotRecorder):
    """Draws into memory."""

    def make_backend(self, panels: Any) -> Any:
        self.panels, self.shown = panels, Panels()
        return self.shown


def test_live_plots_and_flight_recorders_take_data_too(env, tmp_path):
    env.reset()
    data = lambda: {"a": height(env), "b": tip(env)}  # noqa: E731
    plot: Any = env.start_recording(data, LivePlotRecorderCfg(func=Plot, backend="page"))
    flight: Any = env.start_recording(data, FlightRecorderCfg(path=str(tmp_path)))
    walk(env, 3)
    plot.flush()
    assert [panel.title for panel in plot.panels] == ["a", "b"]
    assert [len(content["y"]) for content in plot.shown.frames[-1]] == [1, 3]
    flight.dump()
    with open_rollouts(flight.files[0]) as rollouts:
        assert set(rollouts.channels) == {"a", "b"}


# When.


def test_before_the_first_reset_everything_is_recorded(env):
    handle = env.start_recording("reward", MemoryRecorderCfg())
    env.reset()
    walk(env, 3)
    assert handle.rollouts.episodes["start"].to_list() == [0] * 4
    assert handle.rollouts.episodes["partial"].to_list() == [False] * 4


def test_an_episode_under_way_is_recorded_as_a_late_start(env):
    env.reset()
    walk(env, 5)  # Environment 1 is in its second episode, the others in their first.
    env.episode_length_buf += 100  # As learners do, which changes no episode's length.
    handle = env.start_recording(("reward", "obs"), MemoryRecorderCfg())
    walk(env, 1)
    env.stop_recording(handle)
    table = handle.rollouts.episodes
    assert table["number"].to_list() == [0, 1, 0, 1]
    assert table["start"].to_list() == [5] * 4
    assert table["length"].to_list() == [6, 2, 6, 1]
    assert table["rows"].to_list() == [1] * 4
    assert table["partial"].to_list() == [True, True, True, False]
    unknown = [value is None for value in table["return"].to_list()]
    assert unknown == [True, True, True, False]
    assert None not in table["recorded_return"].to_list()


def test_the_episode_log_does_not_know_the_sums_of_episodes_under_way(env, tmp_path):
    env.reset()
    walk(env, 1)
    path = tmp_path / "log.jsonl"
    env.start_recording(EpisodeLogRecorderCfg(path=str(path)))
    walk(env, 8)
    env.stop_recording()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = {line["env"]: line for line in reversed(lines)}
    assert all(first[i]["return"] is None for i in range(4))
    assert all(set(first[i]["reward_terms"].values()) == {None} for i in range(4))
    second = next(line for line in lines if (line["env"], line["episode"]) == (1, 1))
    assert second["return"] is not None and None not in second["reward_terms"].values()


def test_a_trigger_of_episodes_counts_those_before(env):
    env.reset()
    walk(env, 9)
    handle = env.start_recording("reward", MemoryRecorderCfg(trigger=every_n_episodes(2)))
    walk(env, 20)
    numbers = handle.rollouts.episodes.filter(env=1)["number"].to_list()
    assert numbers == [2, 4, 6]  # The third was under way.


def test_clips_are_named_by_the_environments_episode(tmp_path, ffmpeg, monkeypatch):
    monkeypatch.setattr(video_module, "make_renderer", Painter)
    with ManagerBasedRlEnv(board_cfg(1, (3,))) as env:
        env.reset()
        steps(env, 7)
        handle: Any = env.start_recording(
            VideoRecorderCfg(path=str(tmp_path), trigger="every_n_episodes(1)")
        )
        steps(env, 8)
    shown = [file.stem.partition("-env")[0] for file in handle.files]
    assert shown == ["board-episode-3", "board-episode-4"]


STEP, END, FAIL = Steps(count=2), Steps(ends=(1, 0)), Steps(fail="reward")
ADD, RESET = Request(what="add"), Request(what="reset")
TWO, LATE = World(num_envs=2), Rec(added=True)


@pytest.mark.parametrize(
    ("rec", "happens"),
    [
        (LATE, (STEP, END, STEP, ADD, STEP, END, STEP)),
        (LATE, (END, FAIL, ADD, STEP, ResetBy(), STEP)),  # No row: what it begins from is unknown.
        (LATE, (STEP, FAIL, ResetBy(), ADD, STEP)),
        (LATE, (FAIL, STEP, ADD, STEP, END)),
        (LATE, (STEP, Steps(ends=(1, 1), fail="observation"), STEP, ADD, STEP)),
        (LATE, (Steps(ends=(1, 1), fail="observation"), STEP, ADD, STEP)),  # No episode before it.
        (Rec(added=True, every=3, channels=("own/tip", "own/after")), (STEP, ADD, STEP, END, STEP)),
        (LATE, (STEP, ADD, STEP, Request(what="remove"), STEP)),
        (Rec(added=True, autostart=False), (STEP, ADD, STEP, Request(what="start"), STEP)),
        (LATE, (STEP, ADD, STEP, RESET, STEP, END)),
        (Rec(), (STEP, RESET, STEP, Request(what="reset", envs=(1,)), STEP, END, STEP)),
        (Rec(), (STEP, RESET, RESET, ResetBy(), RESET, STEP)),
        (Rec(), (STEP, Request(what="stop"), RESET, STEP, Request(what="start"), STEP)),
        (Rec(append=True, format="hdf5"), (STEP, RESET, STEP, Request(what="stop"), RESET, STEP)),
        (Rec(trigger=("at_episodes", (1,))), (STEP, RESET, STEP, RESET, STEP)),
        (Rec(trigger=("every_n_steps", 3)), (STEP, RESET, STEP, STEP, RESET, STEP)),
        (Rec(), (STEP, Steps(inside=(("reward", 0, "reset"),)), STEP)),
        (Rec(), (STEP, Steps(ends=(1, 0), inside=(("reward", 0, "reset elsewhere"),)), STEP)),
        (Rec(), (STEP, Steps(fail="event", inside=(("reward", 0, "reset"),)), STEP)),
    ],
)
@pytest.mark.parametrize("auto_reset", [True, False])
def test_rows_are_what_the_rules_say(rec, happens, auto_reset):
    world = dataclasses.replace(TWO, auto_reset=auto_reset)
    assert run(Example(world=world, recorders=(rec,), happens=happens)) == []


# What is left alone.


class Sloppy(RecorderTerm):
    """Draws from every generator, in every hook, and wants everything."""

    needs_final_obs = True

    def record_pre_step(self) -> None:
        torch.rand(3)
        self._env.rng.uniform(0.0, 1.0, (4, 1))

    record_substep = record_post_step = record_pre_step

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.record_pre_step()


def test_the_rollout_is_the_same_with_and_without_recordings():
    def rollout(records: bool) -> list[torch.Tensor]:
        torch.manual_seed(5)
        seen = []
        with ManagerBasedRlEnv(cart_cfg()) as env:
            for part in range(4):
                handles = []
                if records:
                    handles = [
                        env.start_recording(shaky, MemoryRecorderCfg()),
                        env.start_recording(RecorderTermCfg(func=Sloppy)),
                    ]
                if part == 0:
                    env.reset()
                seen += walk(env, 6, part)
                for handle in handles[part % 2 :]:
                    handle.reset([1, 2])
                    env.stop_recording(handle)
                seen += walk(env, 2, part)
                if records and part == 2:
                    env.stop_recording()
        return seen

    for ours, theirs in zip(rollout(True), rollout(False), strict=True):
        assert torch.equal(ours, theirs)


def test_starting_and_stopping_draw_no_random_numbers_of_the_caller(env):
    env.reset()
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    env.start_recording(lambda env: torch.rand(4), MemoryRecorderCfg())
    env.stop_recording()
    assert torch.equal(torch.rand(1), wanted)


def test_what_a_recorder_needs_is_provided_as_long_as_it_is_there(env):
    def needs() -> tuple[Any, ...]:
        _, _, _, _, extras = env.step(torch.zeros(4, 1))
        manager = env.recorder_manager
        return "final_obs" in extras, env._substeps_matter, type(manager) is NullRecorderManager

    env.cfg.final_obs = False
    env.reset()
    before = needs()
    assert before == (False, False, True)
    final = env.start_recording("next_obs", MemoryRecorderCfg())
    assert needs() == (True, False, False)
    sloppy = env.start_recording(RecorderTermCfg(func=Sloppy))
    env.stop_recording(final)
    assert needs() == (True, True, False)
    env.stop_recording(sloppy)
    assert needs() == before


def test_a_recorder_that_cannot_be_built_or_started_leaves_everything_as_it_was(env, tmp_path):
    class Failing(Sloppy):
        def __init__(self, cfg: Any, env: Any) -> None:
            super().__init__(cfg, env)
            raise OSError("no space")

    (tmp_path / "run.h5").write_text("something else")
    env.reset()
    with pytest.raises(OSError, match="no space"):
        env.start_recording(RecorderTermCfg(func=Failing))
    with pytest.raises(PathExistsError):
        env.start_recording("reward", Hdf5RecorderCfg(path=str(tmp_path / "run.h5")))
    assert isinstance(env.recorder_manager, NullRecorderManager) and not env._substeps_matter
    handle = env.start_recording("reward", MemoryRecorderCfg())
    hooks = env.recorder_manager._selected
    with pytest.raises(PathExistsError):
        env.start_recording("reward", Hdf5RecorderCfg(path=str(tmp_path / "run.h5")), name="b")
    assert env.recorder_manager.active_terms == ["recording"]
    assert env.recorder_manager._selected == hooks
    walk(env, 2)
    assert handle.rows == 2


# Handles.


def test_two_recordings_and_one_of_the_cfg_work_at_once(tmp_path):
    cfg = cart_cfg(recorders={"cfg": MemoryRecorderCfg()})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        first = env.start_recording("reward", Hdf5RecorderCfg(path=str(tmp_path / "a.h5")))
        walk(env, 2)
        second = env.start_recording("reward", Hdf5RecorderCfg(path=str(tmp_path / "b.h5")))
        walk(env, 2)
        third = env.start_recording("reward", MemoryRecorderCfg(), name="mine")
        assert env.recorder_manager.active_terms == ["cfg", "recording", "recording_2", "mine"]
        assert env.recorder_manager.get_term("recording_2") is second
        walk(env, 2)
        env.stop_recording("recording")
        walk(env, 2)
        env.stop_recording()
        assert env.recorder_manager.active_terms == ["cfg"]
        again = env.start_recording(MemoryRecorderCfg())
        assert env.recorder_manager.get_term("recording") is again
        walk(env, 1)
        rows = [first.rows, second.rows, third.rows, again.rows]
        assert rows == [6, 6, 4, 1]
        assert env.recorder_manager.get_term("cfg").rows == 9
    assert again.state == "stopped"  # Closed with the environment.
    for name in "ab":
        with open_rollouts(tmp_path / f"{name}.h5") as rollouts:
            assert rollouts.finished


def test_a_handle_is_paused_started_and_stopped(env, tmp_path):
    env.reset()
    handle = env.start_recording("reward", Hdf5RecorderCfg(path=str(tmp_path / "run.h5")))
    walk(env, 2)
    handle.flush(timeout=PATIENCE_S)
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        assert sum(rollouts.episodes["rows"]) == 8 and not rollouts.finished
    handle.pause()
    walk(env, 1)
    handle.start()
    walk(env, 1)
    handle.stop()
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        assert sum(rollouts.episodes["rows"]) == 12 and rollouts.finished
    env.stop_recording(handle)
    with pytest.raises(RuntimeError, match=r"closes with the environment, by stop_recording\(\)"):
        handle.start()


def test_every_recorder_can_be_flushed_and_reset(env):
    env.reset()
    handle = env.start_recording(RecorderTermCfg(func=Sloppy))
    handle.flush(timeout=PATIENCE_S)
    handle.reset()
    handle.reset(env_ids=[0])


def test_stopping_twice_is_no_error_but_stopping_what_is_unknown_is(tmp_path):
    cfg = cart_cfg(recorders={"cfg": MemoryRecorderCfg()})
    with ManagerBasedRlEnv(cfg) as env, ManagerBasedRlEnv(cart_cfg()) as other:
        env.stop_recording()  # Nothing to stop.
        handle = env.start_recording("reward", MemoryRecorderCfg())
        kept = env.start_recording("reward", MemoryRecorderCfg(), name="kept")
        for _ in range(2):
            env.stop_recording(handle)
            env.stop_recording("recording")
        for wrong in ("recordin", "keptt", 3, env.recorder_manager.get_term("cfg"), "cfg"):
            with pytest.raises(ValueError, match="what start_recording.* Known: kept"):
                env.stop_recording(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="There are none to choose from"):
            other.stop_recording(kept)
        with pytest.raises(ValueError, match="name is 'cfg': .* cfg, kept"):
            env.start_recording("reward", MemoryRecorderCfg(), name="cfg")
        assert kept.state == "recording"
    env.stop_recording(kept)
    env.stop_recording()
    with pytest.raises(RuntimeError, match="The environment is closed"):
        env.start_recording("reward", MemoryRecorderCfg())


def test_a_recording_that_cannot_be_finished_is_removed_all_the_same(env):
    class Failing(RecorderTerm):
        def close(self) -> None:
            raise OSError("disk full")

    env.reset()
    env.start_recording(RecorderTermCfg(func=Failing))
    last = env.start_recording("reward", MemoryRecorderCfg())
    with pytest.raises(ExceptionGroup) as caught:
        env.stop_recording()
    assert "disk full" in str(caught.value.exceptions[0])
    assert isinstance(env.recorder_manager, NullRecorderManager) and last.state == "stopped"


def test_nothing_is_started_or_closed_in_the_middle_of_a_step(env):
    class Inside(RecorderTerm):
        def record_post_step(self) -> None:
            self._env.stop_recording()

    env.reset()
    env.start_recording(RecorderTermCfg(func=Inside))
    with pytest.raises(RuntimeError, match=r"inside step\(\) or reset\(\)"):
        env.step(torch.zeros(4, 1))
    env.stop_recording()
    env.step(torch.zeros(4, 1))


def test_ctrl_c_does_not_part_a_recording_from_its_environment(env):
    class Interrupted(RecorderTerm):
        def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
            super().__init__(cfg, env)
            signal.raise_signal(signal.SIGINT)

    env.reset()
    with ManagerBasedRlEnv(cart_cfg(recorders={"open": MemoryRecorderCfg()})) as other:
        other.reset()  # Signals are postponed while a recorder has something open.
        with pytest.raises(KeyboardInterrupt):
            env.start_recording(RecorderTermCfg(func=Interrupted))
    assert env.recorder_manager.active_terms == ["recording"]


def test_another_thread_waits_for_the_end_of_the_step(env):
    env.reset()
    inside, started = threading.Event(), threading.Event()
    handles: list[Any] = []

    class Waiting(RecorderTerm):
        def record_post_step(self) -> None:
            if not handles:
                inside.set()
                assert not started.wait(0.05)

    def start() -> None:
        assert inside.wait(PATIENCE_S)
        handles.append(env.start_recording("reward", MemoryRecorderCfg()))
        started.set()

    env.start_recording(RecorderTermCfg(func=Waiting))
    thread = threading.Thread(target=start)
    thread.start()
    env.step(torch.zeros(4, 1))
    thread.join()
    walk(env, 2)
    assert handles[0].rows == 2
    assert handles[0].rollouts.episodes["start"].to_list() == [1] * 4


def test_a_reset_handle_breaks_lines_where_the_environment_goes_on(env):
    env.reset()
    cfg = LivePlotRecorderCfg(func=Plot, backend="page", plots={"r": "reward"}, x="steps")
    handle: Any = env.start_recording(cfg)
    walk(env, 2)
    handle.reset([1])  # Not the one that is drawn.
    walk(env, 1)
    handle.reset([0, 2])
    walk(env, 2)
    handle.flush()
    assert handle.shown.frames[-1][0]["x"].tolist() == [0, 1, 2, 2.5, 3, 4]


def test_bad_environments_cannot_be_reset(env):
    env.reset()
    handle = env.start_recording("reward", MemoryRecorderCfg())
    walk(env, 1)
    with pytest.raises(IndexError, match=r"env_ids \[4\] are out of range: there are 4"):
        handle.reset([4])
    handle.reset(torch.tensor([True, False, False, False]))
    handle.reset([])
    walk(env, 1)
    assert handle.rollouts.episodes["number"].to_list() == [0, 1, 0, 0, 0]


def test_wrappers_reach_it(env):
    envs = NumpyVectorEnv(env)
    envs.reset()
    handle = envs.unwrapped.start_recording("reward", MemoryRecorderCfg())  # type: ignore[attr-defined]
    envs.step(np.zeros((4, 1), np.float32))
    assert handle.rows == 1


# The cfg.


def changes(cfg: ManagerBasedRlEnvCfg) -> list[Any]:
    """Ways to change a cfg's recorders."""
    new = MemoryRecorderCfg()
    return [
        lambda: setattr(cfg, "recorders", {"x": new}),
        lambda: cfg.recorders.__setitem__("x", new),
        lambda: cfg.recorders.update(x=new),
        lambda: cfg.recorders.setdefault("x", new),
        lambda: cfg.recorders.__ior__({"x": new}),
        lambda: cfg.recorders.__delitem__("a"),
        lambda: cfg.recorders.pop("a"),
        lambda: cfg.recorders.popitem(),
        lambda: cfg.recorders.clear(),
    ]


def test_recorders_put_into_the_cfg_of_a_running_environment_are_refused():
    cfg = cart_cfg(recorders={"a": MemoryRecorderCfg()})
    with ManagerBasedRlEnv(cfg) as env, ManagerBasedRlEnv(cfg):
        for change in changes(env.cfg):
            with pytest.raises(TypeError, match="start_recording"):
                change()
        assert list(env.cfg.recorders) == ["a"]
        cfg.recorders["b"] = MemoryRecorderCfg()  # The caller's own is as it was.
        cfg.recorders = {}


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
        lambda cfg: pickle.loads(pickle.dumps(cfg)),
    ],
)
def test_copies_of_its_cfg_are_free(copied):
    cfg = cart_cfg(recorders={"a": MemoryRecorderCfg()})
    for entity in cfg.scene.entities.values():
        entity.spec_fn = _spec  # A lambda cannot be pickled.
    with ManagerBasedRlEnv(cfg) as env:
        for i in range(len(changes(cfg))):
            changes(copied(env.cfg))[i]()
        assert type(copied(env.cfg).recorders) is dict
        assert type(copy.deepcopy(env.cfg.recorders)) is dict
        with ManagerBasedRlEnv(copied(env.cfg)) as other:
            assert other.recorder_manager.active_terms == ["a"]


def _spec() -> Any:
    return cart_cfg().scene.entities["robot"].spec_fn()


# Counting.


def test_running_episodes_are_counted_as_the_rules_say():
    running = RunningEpisodes(2, "cpu")
    both, first = torch.tensor([0, 1]), torch.tensor([0])

    def state() -> tuple[Any, ...]:
        return running.number.tolist(), running.length.tolist(), running.step_failed

    running.reset(both)
    assert state() == ([0, 0], [0, 0], False)
    running.begin_step()
    running.end_step(None)
    assert state() == ([0, 0], [1, 1], False)
    running.cut()  # An error between steps ends no episode.
    assert state() == ([0, 0], [1, 1], False)
    running.begin_step()
    running.end_step(first)
    assert state() == ([1, 0], [0, 2], False)
    running.begin_step()
    running.cut()
    running.cut()
    assert state() == ([1, 1], [0, 0], True)
    running.reset(first)
    assert state() == ([1, 1], [0, 0], False)
