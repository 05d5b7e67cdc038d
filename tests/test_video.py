"""Videos show what happened: each picture says which environment, episode and step it is of."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from colour_world import (
    HEIGHT,
    WIDTH,
    board_cfg,
    decode,
    episode,
    film,
    recorder_of,
    steps,
)
from waiting import PATIENCE_S, until

from mjlab_rec.data import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import at_start, every_n_steps, manual, when
from mjlab_rec.recorders.video import VideoRecorder, VideoRecorderCfg
from mjlab_rec.recorders.video import clip_writer as writer_module
from mjlab_rec.recorders.video import recorder as video_module
from mjlab_rec.recorders.video.clip_writer import arrange
from mjlab_rec.recorders.video.clips import Clip
from mjlab_rec.sim import gl
from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.utils.bitmap_text import draw_label
from mjlab_rec.utils.extras import MissingExtraError, UnavailableError

ROOT = Path(__file__).parent.parent


# -- lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_dt", [0.02, 0.015])
def test_clip_has_as_many_pictures_as_steps_at_every_length(
    tmp_path, ffmpeg, monkeypatch, painter, step_dt
):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    lengths = range(1, 41)
    recorders = {
        f"n{n}": VideoRecorderCfg(path=str(tmp_path), name=f"n{n}", length=n, trigger=at_start())
        for n in lengths
    }
    with ManagerBasedRlEnv(board_cfg(step_dt=step_dt, recorders=recorders)) as env:
        env.reset()
        steps(env, 43)
    for n in lengths:
        video = decode(tmp_path / f"n{n}-step-0.mp4", ffmpeg)
        assert video.seen() == episode(0, 1, n), n
        assert video.rate == (50 if step_dt == 0.02 else Fraction(200, 3))


def test_every_episode_length_is_filmed_whole_with_its_last_state(studio):
    lengths = tuple(range(1, 13))
    studio.film(13, 12, lengths, envs=12, trigger="at_episodes(0)")
    for env, length in enumerate(lengths):
        assert studio.seen(f"board-episode-0-env-{env}") == episode(0, 1, length, env)


@pytest.mark.parametrize("length", range(1, 41))
@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_clip_ends_with_its_last_step_however_many_are_left_out(length, every):
    clip = Clip(name="", env_ids=(0,), every=every, length=length)
    shown = [n for n in range(1, length + 1) if clip.step(False)]
    assert clip.done
    assert shown == sorted({*range(every, length + 1, every), length})


def test_length_can_be_in_seconds(studio):
    studio.film(40, length_s=0.25)
    assert studio.seen("board-step-0") == episode(0, 1, 12)  # 12.5 steps.


def test_from_the_start_without_a_length_everything_is_filmed(studio):
    studio.film(12, lengths=(5,))
    shown = episode(0, 1, 5) + episode(1, 1, 5) + episode(2, 1, 2)
    assert studio.all_seen() == {"board-step-0": shown}


def test_clip_of_steps_goes_on_over_the_end_of_an_episode(studio):
    studio.film(20, lengths=(4,), length=6)
    assert studio.all_seen() == {"board-step-0": episode(0, 1, 4) + episode(1, 1, 2)}


def test_several_episodes_in_a_clip(studio):
    studio.film(30, lengths=(4,), episodes=2, trigger="every_n_episodes(3)")
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 4) + episode(1, 1, 4),
        "board-episode-3-env-0": episode(3, 1, 4) + episode(4, 1, 4),
        "board-episode-6-env-0": episode(6, 1, 4) + episode(7, 1, 2),  # Closed in the middle.
    }


def test_whole_episodes_wait_for_the_next_one_to_begin(studio):
    studio.film(20, lengths=(5,), episodes=1, trigger="at_steps(7, 8, 15)")
    assert studio.all_seen() == {
        "board-episode-2-env-0": episode(2, 1, 5),
        "board-episode-3-env-0": episode(3, 1, 5),
    }


def test_an_episode_asked_for_before_and_as_it_begins_is_filmed_once(studio):
    studio.film(20, lengths=(5,), episodes=1, trigger="at_steps(7, 10)")
    assert studio.all_seen() == {"board-episode-2-env-0": episode(2, 1, 5)}


def test_step_trigger_without_length_films_to_the_end_of_the_episode(studio):
    studio.film(20, lengths=(8,), trigger="at_steps(3)")
    assert studio.all_seen() == {"board-step-3": episode(0, 4, 8)}


# -- triggers --------------------------------------------------------------------------------------


def test_step_trigger_gives_a_clip_each_time(studio):
    studio.film(25, length=4, trigger=every_n_steps(10))
    assert studio.all_seen() == {f"board-step-{n}": episode(0, n + 1, n + 4) for n in (0, 10, 20)}


def test_triggers_closer_than_a_clip_give_whole_clips_side_by_side(studio, painter):
    studio.film(12, length=7, trigger=every_n_steps(5))
    assert studio.all_seen() == {
        "board-step-0": episode(0, 1, 7),
        "board-step-5": episode(0, 6, 12),
        "board-step-10": episode(0, 11, 12),  # Closed in the middle.
    }
    # Each step once, however many clips show it, and once at the first reset.
    assert painter.made[0].drawn == 12 + 1


def test_an_episode_longer_than_its_clip_is_filmed_once(studio):
    studio.film(30, lengths=(14,), length=5, trigger="at_episodes(0, 1)")
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 5),
        "board-episode-1-env-0": episode(1, 1, 5),
    }


def test_capped_cubic_episodes(studio):
    studio.film(40, lengths=(3,), trigger="capped_cubic_episodes()")
    names = [f"board-episode-{n}-env-0" for n in (0, 1, 8)]
    assert studio.all_seen() == {n: episode(int(n.split("-")[2]), 1, 3) for n in names}


def test_a_condition_that_stays_true_fires_once(studio):
    late = when(lambda env: env.common_step_counter >= 6)
    studio.film(30, length=3, trigger=late)
    assert studio.all_seen() == {"board-step-6": episode(0, 7, 9)}


def test_a_condition_of_each_environment(studio):
    old = when(lambda env: env.episode_length_buf >= 5)
    studio.film(12, 3, (8, 3, 8), envs=(1, 2), length=2, trigger=old)
    assert studio.all_seen() == {"board-step-5-env-2": episode(0, 6, 7, env=2)}


def test_fire_begins_with_the_next_step(studio):
    env = studio.env(length=3, trigger=manual())
    env.reset()
    steps(env, 4)
    recorder_of(env).fire()
    steps(env, 6)
    env.close()
    assert studio.all_seen() == {"board-step-4": episode(0, 5, 7)}


def test_fire_needs_the_manual_trigger(studio):
    with pytest.raises(RuntimeError, match=r"at_start\(\) cannot be fired by hand. Use manual"):
        recorder_of(studio.env()).fire()
    with pytest.raises(RuntimeError, match="no trigger to fire"):
        recorder_of(studio.env(last_clip=("end",))).fire()


def test_max_clips(studio):
    studio.film(30, length=2, trigger=every_n_steps(5), max_clips=2)
    assert studio.names() == ["board-step-0", "board-step-5"]


# -- environments and layouts ----------------------------------------------------------------------


def test_separate_files_end_when_their_environments_do(studio, painter):
    studio.film(12, 4, (7, 4, 9, 5), envs=(2, 0, 1), trigger="every_n_episodes(2)")
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 7),
        "board-episode-0-env-1": episode(0, 1, 4, env=1),
        "board-episode-2-env-1": episode(2, 1, 4, env=1),
        "board-episode-0-env-2": episode(0, 1, 9, env=2),
    }
    assert {i for captured in painter.made[0].captured for i in captured} == {0, 1, 2}


def test_several_environments_have_their_number_in_step_names(studio):
    studio.film(6, 3, (4,), envs=2, length=6)
    assert studio.all_seen() == {
        f"board-step-0-env-{i}": episode(0, 1, 4, i) + episode(1, 1, 2, i) for i in (0, 1)
    }


def test_grid_shows_all_and_ends_with_the_first(studio):
    studio.film(20, 4, (7, 4, 9, 5), envs=(0, 1, 2), layout="grid", trigger="at_episodes(1)")
    assert studio.names() == ["board-episode-1"]
    video = studio.video("board-episode-1")
    assert video.images.shape == (7, 2 * HEIGHT, 2 * WIDTH, 3)
    assert video.seen(0, 2) == episode(1, 1, 7)
    assert video.seen(1, 2) == episode(1, 4, 4, 1) + episode(2, 1, 4, 1) + episode(3, 1, 2, 1)
    assert video.seen(2, 2) == episode(0, 8, 9, 2) + episode(1, 1, 5, 2)
    assert (video.images[:, HEIGHT:, WIDTH:] < 20).all()


def test_grid_of_steps(studio):
    studio.film(9, 5, (3,), envs=5, layout="grid", columns=5, length=9)
    video = studio.video("board-step-0")
    assert video.images.shape == (9, HEIGHT, 5 * WIDTH, 3)
    for i in range(5):
        assert video.seen(i, 5) == [s for n in range(3) for s in episode(n, 1, 3, i)]


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(1, None, (1, 1)), (2, None, (1, 2)), (5, None, (2, 3)), (7, 2, (4, 2)), (3, 9, (1, 3))],
)
def test_pictures_in_a_grid(count, columns, shape):
    images = [np.full((3, 5, 3), i + 1, np.uint8) for i in range(count)]
    whole = arrange(images, columns)
    assert whole.shape == (shape[0] * 3, shape[1] * 5, 3)
    assert [int(whole[i // shape[1] * 3 + 1, i % shape[1] * 5 + 1, 0]) for i in range(count)] == [
        *range(1, count + 1)
    ]


def test_lines_and_numbers_tell_the_pictures_of_a_grid_apart():
    high, wide = 480, 320
    images = [np.full((high, wide, 3), 100, np.uint8) for _ in range(5)]
    whole = arrange(images, 3, [7, 12, 0, 3, 999])
    assert whole.shape == (2 * high, 3 * wide, 3)
    line = np.zeros(whole.shape[:2], bool)
    line[high : high + 2, : 2 * wide] = line[:, wide : wide + 2] = True
    line[:high, 2 * wide : 2 * wide + 2] = True
    assert (whole[line] == 255).all(), "lines are as wide as the letters' strokes"
    for i, number in enumerate(["7", "12", "0", "3", "999"]):
        alone = images[0].copy()
        draw_label(alone, number)
        assert (alone != 100).any()
        top, left = i // 3 * high, i % 3 * wide
        cell = whole[top : top + high, left : left + wide]
        outside = ~line[top : top + high, left : left + wide]
        np.testing.assert_array_equal(cell[outside], alone[outside])
    assert (arrange(images[:1], None, [7]) == 100).all()
    assert all((image == 100).all() for image in images)


def test_cells_of_a_recorded_grid_carry_their_environments_numbers(studio, painter):
    view = ViewerConfig(width=160, height=120)
    studio.film(2, 5, (9,), envs=(4, 2), layout="grid", length=1, viewer=view)
    image = studio.video("board-step-0").images[0]
    for i, env_id in enumerate((4, 2)):
        corner = image[-12:, 160 * i + 160 - 9 : 160 * i + 160].astype(int)
        expected = np.zeros((120, 160, 3), np.uint8)
        draw_label(expected, str(env_id))
        assert np.abs(corner - expected[-12:, -9:]).mean() < 60
        assert (corner > 150).any() and image[:, 160].min() > 150


# -- speed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "shown", "rate"),
    [
        ({"fps": 25.0}, [2, 4, 6, 8, 9], 25),
        ({"fps": 1000.0}, [*range(1, 10)], 50),
        ({"speed": 0.5}, [*range(1, 10)], 25),
        ({"speed": 2.0, "fps": 50.0}, [2, 4, 6, 8, 9], 50),
        ({"fps": 20.0}, [2, 4, 6, 8, 9], 25),
    ],
)
def test_pictures_per_second_keep_the_right_speed(studio, fields, shown, rate, caplog):
    studio.film(9, length=9, **fields)
    video = studio.video("board-step-0")
    assert [step for _, _, step in video.seen()] == shown
    assert video.rate == rate
    fps = fields.get("fps", rate)
    assert ("not a whole number" in caplog.text) == (fps == 20)
    assert ("there are 50 control steps a second" in caplog.text) == (fps == 1000)


def test_last_state_of_every_episode_is_shown_when_steps_are_left_out(studio):
    studio.film(12, lengths=(5,), fps=25.0)
    shown = [(0, n, step) for n in (0, 1) for step in (2, 4, 5)] + [(0, 2, 2)]
    assert studio.seen("board-step-0") == shown


# -- the last clip ---------------------------------------------------------------------------------


def test_last_clip_before_a_termination(studio, painter):
    studio.film(20, 3, (9, 6, 1000), envs=3, last_clip=("end",), length=4, max_pending=1)
    assert studio.all_seen() == {
        "board-episode-0-last-env-0": episode(0, 6, 9),
        "board-episode-1-last-env-0": episode(1, 6, 9),
        "board-episode-0-last-env-1": episode(0, 3, 6, 1),
        "board-episode-1-last-env-1": episode(1, 3, 6, 1),
        "board-episode-2-last-env-1": episode(2, 3, 6, 1),
    }
    assert painter.made[0].drawn == 5 * 4 + 3  # Nothing else was drawn but at the first reset.


def test_last_clip_of_an_episode_shorter_than_the_clip(studio):
    studio.film(7, lengths=(3,), last_clip=("end",), length=5)
    assert studio.all_seen() == {f"board-episode-{n}-last-env-0": episode(n, 1, 3) for n in (0, 1)}


def test_last_clip_of_named_terminations_only(studio):
    studio.film(12, lengths=(5,), last_clip=("never",), length=3)
    assert studio.names() == []
    studio.film(12, lengths=(5,), last_clip=("never", "end"), length=3)
    assert len(studio.names()) == 2
    with pytest.raises(ValueError, match="no termination term 'nevr'. Did you mean 'never'"):
        studio.env(last_clip=("nevr",))


@pytest.mark.parametrize(("count", "shown"), [(13, episode(2, 1, 3)), (10, episode(1, 1, 5))])
def test_final_episode_is_saved_at_close(studio, count, shown):
    studio.film(count, lengths=(5,), last_clip=("close",))
    assert studio.all_seen() == {f"board-episode-{shown[0][1]}-last-env-0": shown}


def test_last_clip_at_close_is_not_saved_twice(studio):
    studio.film(10, lengths=(5,), last_clip=("end", "close"))
    assert studio.names() == ["board-episode-0-last-env-0", "board-episode-1-last-env-0"]


def test_last_clip_with_steps_left_out_ends_with_the_last(studio):
    studio.film(6, lengths=(6,), last_clip=("end",), length=4, fps=25.0)
    assert [step for _, _, step in studio.seen("board-episode-0-last-env-0")] == [4, 6]


def test_last_clip_in_a_grid(studio):
    studio.film(8, 2, (7, 4), envs=2, layout="grid", last_clip=("end",), length=4)
    video = studio.video("board-episode-0-last")
    assert video.seen(0, 2) == episode(0, 4, 7)
    assert video.seen(1, 2) == episode(0, 4, 4, 1) + episode(1, 1, 3, 1)


# -- by hand ---------------------------------------------------------------------------------------


def test_pause_leaves_steps_out_and_the_clip_gets_its_length(studio):
    env = studio.env(length=6)
    env.reset()
    steps(env, 3)
    recorder_of(env).pause()
    steps(env, 4)
    recorder_of(env).start()
    steps(env, 9)
    env.close()
    assert studio.all_seen() == {"board-step-0": episode(0, 1, 3) + episode(0, 8, 10)}


def test_episode_that_ends_in_a_pause_ends_its_clip(studio):
    env = studio.env(lengths=(5,), trigger="every_n_episodes(1)")
    env.reset()
    steps(env, 3)
    recorder_of(env).pause()
    steps(env, 4)  # The second episode begins unseen.
    recorder_of(env).start()
    steps(env, 8)
    env.close()
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 3),
        "board-episode-2-env-0": episode(2, 1, 5),
    }


def test_stop_finishes_the_file_and_start_begins_another(studio):
    env = studio.env()
    env.reset()
    steps(env, 3)
    recorder = recorder_of(env)
    recorder.stop()
    assert studio.all_seen() == {"board-step-0": episode(0, 1, 3)}
    assert recorder.nbytes == recorder.files[0].stat().st_size
    steps(env, 2)
    recorder.start()
    steps(env, 4)
    env.close()
    assert studio.all_seen()["board-step-5"] == episode(0, 6, 9)
    assert [path.stem for path in recorder.files] == studio.names()
    assert (recorder.rows, recorder.dropped_rows, recorder.state) == (7, 0, "stopped")
    assert recorder.nbytes == sum(path.stat().st_size for path in recorder.files)


def test_autostart_off_waits_for_start(studio, painter):
    env = studio.env(autostart=False, trigger="every_n_episodes(1)", lengths=(4,))
    env.reset()
    recorder_of(env).start()  # The episode has not taken a step yet.
    steps(env, 4)
    recorder_of(env).stop()
    steps(env, 6)
    recorder_of(env).start()  # In the middle of an episode, which is not filmed then.
    steps(env, 6)
    env.close()
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 4),
        "board-episode-3-env-0": episode(3, 1, 4),
    }


def test_start_at_the_same_step_gives_another_file(studio):
    env = studio.env(if_exists="overwrite")
    env.reset()
    steps(env, 2)
    for _ in range(2):
        recorder_of(env).stop()
        recorder_of(env).start()
        recorder_of(env).stop()  # Nothing was filmed, so there is no file.
    recorder_of(env).start()
    steps(env, 1)
    env.close()
    assert studio.names() == ["board-step-0", "board-step-2"]


def test_reset_by_hand_ends_an_episode(studio):
    env = studio.env(3, envs=(0, 1), trigger="every_n_episodes(1)")
    env.reset()
    steps(env, 3)
    env.reset(env_ids=torch.tensor([1, 2]))
    env.reset(env_ids=torch.tensor([1, 2]))  # An episode without a step does not count.
    steps(env, 2)
    env.reset()
    steps(env, 1)
    env.close()
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 5),
        "board-episode-0-env-1": episode(0, 1, 3, 1),
        "board-episode-1-env-0": episode(1, 1, 1),
        "board-episode-1-env-1": episode(1, 1, 2, 1),
        "board-episode-2-env-1": episode(2, 1, 1, 1),
    }


@pytest.mark.parametrize("fields", [{"trigger": "every_n_episodes(1)"}, {"last_clip": ("end",)}])
def test_without_auto_reset_the_last_state_is_there_too(studio, fields):
    env = studio.env(2, (3, 5), {"auto_reset": False}, envs=2, **fields)
    env.reset()
    for _ in range(6):
        _, _, terminated, truncated, _ = env.step(torch.zeros(2, 0))
        done = (terminated | truncated).nonzero().flatten()
        if len(done):
            recorder_of(env).flush()  # The clip is complete before the reset.
            for i in done.tolist():
                ended = [name for name in studio.names() if name.endswith(f"env-{i}")]
                assert studio.seen(ended[-1])[-1][2] == (3, 5)[i]
            env.reset(env_ids=done)
    env.close()
    seen = studio.all_seen()
    last = "-last" if "last_clip" in fields else ""
    assert seen[f"board-episode-0{last}-env-0"] == episode(0, 1, 3)
    assert seen[f"board-episode-1{last}-env-0"] == episode(1, 1, 3)
    assert seen[f"board-episode-0{last}-env-1"] == episode(0, 1, 5, 1)


def test_without_auto_reset_an_episode_ends_once(studio):
    env = studio.env(1, (3,), {"auto_reset": False}, episodes=2)
    env.reset()
    for _ in range(9):
        _, _, terminated, _, _ = env.step(torch.zeros(1, 0))
        if terminated[0]:
            env.reset()
    env.close()
    assert studio.all_seen() == {"board-episode-0-env-0": episode(0, 1, 3) + episode(1, 1, 3)}


def test_files_of_earlier_runs_stay(studio):
    for _ in range(2):
        studio.film(3, length=2)
    assert studio.names() == ["board-step-0", "board-step-0_1"]
    studio.film(3, length=3, if_exists="overwrite")
    assert studio.seen("board-step-0") == episode(0, 1, 3)
    with pytest.raises(DataError, match="already exists.*'overwrite'.*board-step-0_1.mp4"):
        studio.film(0, length=2, if_exists="error")  # As soon as it is known, at the reset.


# -- cost and silence ------------------------------------------------------------------------------


def test_nothing_is_captured_or_drawn_while_idle(studio, painter):
    env = studio.env(2, (6,), trigger="at_steps(5)", length=3)
    env.reset()
    (renderer,) = painter.made
    renderer.captured.clear()
    renderer.drawn = 0
    threads = set(threading.enumerate())
    steps(env, 5)
    assert renderer.captured == [] and set(threading.enumerate()) <= threads
    steps(env, 10)
    recorder_of(env).flush()
    assert (renderer.captured, renderer.drawn) == ([(0,)] * 3, 3)
    env.close()
    assert renderer.closed == 1


def test_what_happens_once_happens_in_the_first_reset_and_in_no_step(studio, painter):
    env = studio.env(2, envs=2, layout="grid", trigger="at_steps(5)", autostart=False)
    (renderer,) = painter.made
    assert renderer.drawn == 0
    env.reset()
    assert renderer.drawn == 2
    env.reset()
    assert renderer.drawn == 2
    env.close()
    assert studio.names() == []


@pytest.mark.parametrize("fields", [{"overlay": True}, {"layout": "grid"}, {"last_clip": ("end",)}])
def test_not_one_bit_of_the_rollout_changes(studio, fields):
    def rollout(env: ManagerBasedRlEnv) -> list[torch.Tensor]:
        torch.manual_seed(5)
        env.reset()
        seen = []
        for _ in range(20):
            obs, reward, *_ = env.step(torch.zeros(3, 0))
            command = env.command_manager.get_command("goal")
            seen += [obs["actor"].clone(), reward.clone(), env.sim.get_state().clone(), command]
        return [*seen, torch.rand(3)]

    with ManagerBasedRlEnv(board_cfg(3, (7, 4, 9))) as plain:
        expected = rollout(plain)
    env = studio.env(3, (7, 4, 9), envs=2, **fields)
    for got, wanted in zip(rollout(env), expected, strict=True):
        assert torch.equal(got, wanted)


def test_simulation_waits_where_drawing_is_too_slow(studio, painter, monkeypatch):
    gate = threading.Semaphore(1)  # For the first reset.
    draw = painter.draw

    def slowly(self, shot):
        assert gate.acquire(timeout=PATIENCE_S)
        return draw(self, shot)

    monkeypatch.setattr(painter, "draw", slowly)
    env = studio.env(max_pending=3)
    env.reset()
    steps(env, 3)
    assert recorder_of(env).stalled_s == 0
    room = recorder_of(env)._writer._room
    wait_for = room.wait_for

    def draw_meanwhile(true):
        gate.release(100)
        return wait_for(true)

    monkeypatch.setattr(room, "wait_for", draw_meanwhile)
    (renderer,) = painter.made
    for _ in range(5):
        steps(env, 1)
        assert len(renderer.captured) - renderer.drawn <= 3
    env.close()
    assert recorder_of(env).stalled_s > 0
    assert studio.seen("board-step-0") == episode(0, 1, 8)


def test_closing_tells_how_far_it_is(studio, painter, monkeypatch, caplog):
    gate, draw = threading.Semaphore(3), painter.draw

    def slowly(self, shot):
        assert gate.acquire(timeout=PATIENCE_S)
        return draw(self, shot)

    class Opens(logging.Handler):
        """Lets the rest be drawn once a message has come."""

        def emit(self, record: logging.LogRecord) -> None:
            gate.release(100)

    monkeypatch.setattr(painter, "draw", slowly)
    monkeypatch.setattr(writer_module, "_REPORT_EVERY_S", 0.01)
    env = studio.env(max_pending=100)
    env.reset()
    steps(env, 20)
    monkeypatch.setattr(writer_module.logger, "handlers", [Opens()])

    def draw_two() -> None:
        """While the end of the drawing is waited for."""
        until(lambda: "video progress" in {thread.name for thread in threading.enumerate()})
        gate.release(2)

    drawing = threading.Thread(target=draw_two)
    drawing.start()
    env.close()
    drawing.join()
    message = caplog.messages[0]
    assert re.match(r"VideoRecorder: \d+ of \d+ frames left to draw, about \d+ s\.", message)
    assert len(studio.seen("board-step-0")) == 20


def test_a_clip_that_was_to_begin_begins_after_a_reset_by_hand(studio):
    env = studio.env(trigger="at_steps(10)", lengths=(12,))
    env.reset()
    steps(env, 10)
    env.reset()  # At the step at which the trigger fires.
    steps(env, 30)
    env.close()
    assert studio.all_seen() == {"board-step-10": episode(1, 1, 12)}


def test_a_reset_by_hand_is_an_end_for_last_clip(studio):
    env = studio.env(last_clip=("end",), length=3)
    env.reset()
    steps(env, 5)
    recorder_of(env).pause()
    env.reset()
    recorder_of(env).start()
    steps(env, 4)
    env.reset()
    env.reset()
    steps(env, 5)
    env.close()
    assert studio.all_seen() == {"board-episode-1-last-env-0": episode(1, 2, 4)}


def test_last_clip_after_a_stop_begins_anew(studio):
    env = studio.env(last_clip=("end",), length=8, lengths=(20,))
    env.reset()
    steps(env, 5)
    recorder_of(env).stop()
    steps(env, 10)
    recorder_of(env).start()
    steps(env, 5)
    env.close()
    assert studio.all_seen() == {"board-episode-0-last-env-0": episode(0, 16, 20)}


def test_last_clips_are_kept_only_as_long_as_some_may_come(studio, painter):
    env = studio.env(last_clip=("end",), length=3, max_clips=1, lengths=(4,))
    env.reset()
    steps(env, 4)
    (renderer,) = painter.made
    captured = len(renderer.captured)
    steps(env, 20)
    env.close()
    assert len(renderer.captured) == captured
    assert studio.names() == ["board-episode-0-last-env-0"]


# -- the overlay -----------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch) -> list[list[str]]:
    """What is written into pictures."""
    lines: list[list[str]] = []

    def write(image: np.ndarray, text: Sequence[str]) -> None:
        lines.append(list(text))
        image[0] = 255

    monkeypatch.setattr(writer_module, "draw_text", write)
    return lines


def test_overlay_tells_the_numbers_of_the_moment(studio, written):
    fields = ("env", "episode", "step", "time", "return", "reward")
    studio.film(7, 2, (3, 5), envs=(1, 0), layout="grid", overlay=fields)
    assert written[:2] == [
        ["env 1", "episode 0", "step 1", "time 0.02 s", "return 1", "reward 1"],
        ["env 0", "episode 0", "step 1", "time 0.02 s", "return 1", "reward 1"],
    ]
    ends = [line for line in written if line[0] == "env 0"][2:4]
    assert ends[0] == ["env 0", "episode 0", "step 3", "time 0.06 s", "return 3", "reward 1"]
    assert ends[1] == ["env 0", "episode 1", "step 1", "time 0.02 s", "return 1", "reward 1"]


def test_overlay_shows_the_command_that_the_step_followed(studio, written):
    env = studio.env(2, (4, 100), envs=(1,), overlay=True)
    env.reset()
    followed = []
    for _ in range(12):
        followed.append(f"goal {env.command_manager.get_command('goal')[1, 0]:.2f}")
        steps(env, 1)
    env.close()
    assert [lines[-1] for lines in written] == followed
    assert [lines[0] for lines in written] == [f"step {n}" for n in range(1, 13)]


def test_overlay_is_in_the_picture(studio, written):
    studio.film(2, length=1, overlay=("step",))
    assert (studio.video("board-step-0").images[0][0] > 200).all()


def test_return_counts_also_what_was_not_filmed(studio, written):
    studio.film(9, trigger="at_steps(4)", length=2, overlay=("return",))
    assert written == [["return 5"], ["return 6"]]


def test_overlay_names_are_checked(studio):
    with pytest.raises(ValueError, match="cannot show 'rewrad'. Did you mean 'reward'"):
        studio.env(overlay=("rewrad",))
    with pytest.raises(ValueError, match="has none"):
        studio.env(overlay=("command",), world={"commands": {}})


# -- faults ----------------------------------------------------------------------------------------


def test_missing_package_is_said_at_once(studio, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"^VideoRecorder needs .*mjlab_rec\[video\]'$"):
        studio.env()


def test_wrong_camera_is_said_at_once(tmp_path, ffmpeg):
    if gl_works() is not None:
        pytest.skip(str(gl_works()))
    cfg = VideoRecorderCfg(path=str(tmp_path), camera="board/abvoe")
    with pytest.raises(ValueError, match="Did you mean 'board/above'"):
        ManagerBasedRlEnv(board_cfg(recorders={"video": cfg}))


@pytest.mark.parametrize("where", ["draw", "ffmpeg"])
def test_errors_come_back_in_the_rollout_and_at_close(studio, painter, monkeypatch, where):
    if where == "draw":

        def fail(self, shot):
            raise RuntimeError("out of paint")

        message = "out of paint"
    else:
        fake = studio.folder / "fake"
        fake.write_text("#!/bin/sh\nexec 0<&-\necho 'No space left' >&2\nexit 1\n")
        fake.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
        monkeypatch.setattr(video_module, "find_ffmpeg", lambda user: str(fake))
        message = "No space left"
    env = studio.env()
    env.reset()
    if where == "draw":
        monkeypatch.setattr(painter, "draw", fail)
    with pytest.raises(DataError, match=message):
        for _ in range(10000):
            steps(env, 1)
    with pytest.raises(ExceptionGroup) as caught:
        env.close()
    assert message in str(caught.value.exceptions[0])
    assert painter.made[0].closed == 1


def test_a_folder_that_cannot_be_made_is_said_before_the_first_step(studio):
    (studio.folder / "file").write_text("")
    env = studio.env(path=str(studio.folder / "file" / "clips"), trigger="at_steps(500)")
    with pytest.raises(DataError, match="Cannot create the folder .*: Not a directory"):
        env.reset()


def test_what_cannot_be_drawn_is_said_before_the_first_step(studio, painter, monkeypatch):
    def fail(self, shot):
        raise RuntimeError("out of paint")

    monkeypatch.setattr(painter, "draw", fail)
    env = studio.env(autostart=False)
    with pytest.raises(DataError, match="out of paint"):
        env.reset()
    with pytest.raises(ExceptionGroup):
        env.close()


def test_an_error_leaves_what_was_filmed(studio, painter, monkeypatch):
    draw = painter.draw

    def fail_later(self, shot):
        if self.drawn >= 1 + 4:
            raise RuntimeError("out of paint")
        return draw(self, shot)

    monkeypatch.setattr(painter, "draw", fail_later)
    env = studio.env(on_error="disable")
    env.reset()
    steps(env, 60)
    env.close()
    assert studio.all_seen() == {"board-step-0": episode(0, 1, 4)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"length": 3, "length_s": 1.0}, "length and length_s are mutually exclusive"),
        ({"length_s": 1.0, "episodes": 1}, "length_s and episodes are mutually exclusive"),
        ({"fps": 0.0}, "fps must be a number above 0"),
        ({"speed": -1.0}, "speed must be a number above 0"),
        ({"envs": (0, 7)}, "from 0 to 1"),
        ({"envs": 0}, "from 1 to 2"),
        ({"layout": "grdi"}, "layout is 'grdi'. Possible: 'separate', 'grid'"),
        ({"renderer": "vulkan"}, "Possible: None, 'auto', 'gl', 'warp'"),
        ({"if_exists": "append"}, "if_exists is 'append'"),
        ({"columns": 2}, 'columns needs layout="grid"'),
        ({"camera": 0, "follow": "board"}, "camera and follow are mutually exclusive"),
        ({"last_clip": ("end",), "episodes": 2}, "episodes is 2, but a last clip is of one"),
        ({"last_clip": "end"}, r"write \('end',\)"),
        ({"crf": 52}, "crf must be a whole number from 0 to 51"),
        ({"length": 2.5}, "length must be a whole number of at least 1, got 2.5"),
        ({"length": "5"}, "length must be a whole number of at least 1, got '5'"),
        ({"length_s": float("inf")}, "length_s must be a number above 0, got inf"),
        ({"envs": 1.0}, "envs must be a whole number, got 1.0"),
        ({"path": ""}, "path is empty"),
        ({"trigger": "every_n_step(3)"}, "Did you mean 'every_n_steps'"),
    ],
)
def test_wrong_values_are_explained(studio, fields, message):
    with pytest.raises(ValueError, match=message):
        studio.env(2, **fields)


def test_view_follows_an_entity_or_a_body():
    kinds = ViewerConfig.OriginType
    base = ViewerConfig(camera="front", width=1)
    view = VideoRecorderCfg(follow="robot", width=7).view(base)
    assert (view.camera, view.entity_name, view.origin_type) == (None, "robot", kinds.ASSET_ROOT)
    assert (view.width, base.width, base.camera) == (7, 1, "front")
    view = VideoRecorderCfg(follow="robot/arm").view(base)
    assert (view.entity_name, view.body_name, view.origin_type) == (
        "robot",
        "arm",
        kinds.ASSET_BODY,
    )
    assert VideoRecorderCfg(camera=2).view(base).camera == 2


def test_a_grid_shows_each_environment_alone():
    assert VideoRecorderCfg().view(ViewerConfig()).max_extra_envs == 2
    assert VideoRecorderCfg(layout="grid").view(ViewerConfig()).max_extra_envs == 0
    chosen = ViewerConfig(max_extra_envs=1)
    assert VideoRecorderCfg(layout="grid", viewer=chosen).view(ViewerConfig()) == chosen


# -- with real pictures, and in other processes ----------------------------------------------------


def gl_works() -> str | None:
    """Why OpenGL does not work here, or None."""
    try:
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
    except RuntimeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("renderer", ["gl", "warp"])
def test_real_pictures_show_the_true_last_state(tmp_path, ffmpeg, renderer):
    if renderer == "gl" and gl_works() is not None:
        pytest.skip(str(gl_works()))
    if renderer == "warp":
        pytest.importorskip("mjlab_rec.sim.warp_renderer")
    cfg = VideoRecorderCfg(
        path=str(tmp_path), envs=(1, 0), trigger="every_n_episodes(1)", renderer=renderer
    )
    film(cfg, 6, num_envs=2, steps=(3, 5))
    seen = {path.stem: decode(path, ffmpeg).seen() for path in tmp_path.glob("*.mp4")}
    assert seen == {
        "board-episode-0-env-0": episode(0, 1, 3),
        "board-episode-1-env-0": episode(1, 1, 3),
        "board-episode-0-env-1": episode(0, 1, 5, 1),
        "board-episode-1-env-1": episode(1, 1, 1, 1),
    }


PAINTED = """
from colour_world import *
from mjlab_rec.recorders.video import recorder as video_module
if "MUJOCO_GL" not in os.environ:
    video_module.make_renderer = Painter
cfg = VideoRecorderCfg(path=out, trigger="at_start", max_pending=job.get("max_pending", 256))
env = ManagerBasedRlEnv(board_cfg(recorders={"video": cfg}))
env.reset()
"""


@pytest.fixture
def run(runner, tmp_path):
    """Runs code after this beginning: boards are painted, or drawn by a kind of OpenGL."""

    def run(code: str, graphics: str | None = None, **job: Any) -> dict[str, Any]:
        code = PAINTED + textwrap.dedent(code)
        if graphics is None:
            return runner.run(code, out=str(tmp_path), **job)
        # MuJoCo chooses the OpenGL when it is imported.
        prelude = f"import os, signal, sys\nout, job = {str(tmp_path)!r}, {job!r}\n"
        chosen = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
        places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        ran = subprocess.run(
            [sys.executable, "-c", prelude + code],
            env={**chosen, "MUJOCO_GL": graphics, "PYTHONPATH": places},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        return {"code": ran.returncode, "output": ran.stdout}

    return run


def test_a_kill_leaves_nearly_all_pictures(run, tmp_path, ffmpeg):
    code = """
        steps(env, 200)
        (writer,) = recorder_of(env)._writer._writers.values()
        print(writer._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ran = run(code, max_pending=4)
    assert ran["code"] == -signal.SIGKILL, ran
    from test_mp4 import wait_for_end

    wait_for_end(int(ran["output"]))
    seen = decode(tmp_path / "board-step-0.mp4", ffmpeg).seen()
    assert 195 <= len(seen) <= 200
    assert seen == episode(0, 1, len(seen))


SIGTERM = "os.kill(os.getpid(), signal.SIGTERM)"
ENDS = {"": 0, SIGTERM: 128 + signal.SIGTERM, "1 / 0": 1}


@pytest.mark.parametrize(
    ("graphics", "end"),
    [
        *((None, end) for end in ENDS),
        *((kind, SIGTERM) for kind in ("egl", "osmesa")),
        *(
            pytest.param(kind, end, marks=pytest.mark.long)
            for kind in ("egl", "osmesa")
            for end in ENDS
            if end != SIGTERM
        ),
    ],
)
def test_every_other_end_of_the_process_loses_nothing(
    run, tmp_path, ffmpeg, monkeypatch, graphics, end
):
    if graphics is not None:
        monkeypatch.setenv("MUJOCO_GL", graphics)
        monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)  # Set where EGL is in use.
        try:
            gl.find_backend()
        except UnavailableError as error:
            pytest.skip(str(error))
    ran = run("steps(env, 50)\n" + end, graphics)
    assert ran["code"] == ENDS[end], ran
    assert ran["output"].count("Traceback") == (end == "1 / 0"), ran
    assert decode(tmp_path / "board-step-0.mp4", ffmpeg).seen() == episode(0, 1, 50)


def test_a_forked_child_neither_hangs_nor_writes(run, tmp_path, ffmpeg):
    ran = run("""
        steps(env, 10)
        hold, release = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(release)
            env.close()
            os.read(hold, 1)
            sys.exit(7)
        steps(env, 5)
        env.close()
        os.close(release)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert ran["output"].strip() == "7", ran
    assert decode(tmp_path / "board-step-0.mp4", ffmpeg).seen() == episode(0, 1, 15)


def test_the_recorder_is_the_cfgs_default():
    assert VideoRecorderCfg().func is VideoRecorder
