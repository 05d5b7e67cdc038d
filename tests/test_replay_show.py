"""Recorded episodes are shown from the file alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import MemoryRecorderCfg
from mjlab_rec.recorders.flight import FlightRecorderCfg
from mjlab_rec.replay import verify
from mjlab_rec.replay.episodes import chosen_episodes, recording_path
from mjlab_rec.replay.recorded_env import RecordedEnv
from mjlab_rec.viewer.frame import FrameReader
from mjlab_rec.viewer.playback import Playback
from mjlab_rec.viewer.timeline import Section, Timeline


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    channels = ("action", "reward", "reward_terms", "command", "obs/actor", "state")
    recorders: Any = {"log": MemoryRecorderCfg(channels=channels)}
    with ManagerBasedRlEnv(cart_cfg(recorders=recorders)) as env:
        env.reset()
        for action in actions(20):
            env.step(action)
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


def states(rollouts: Rollouts, *episodes: int) -> np.ndarray:
    return np.concatenate([rollouts.read(e, ["state"])["state"] for e in episodes])


def played(env: RecordedEnv, steps: int | None = None) -> np.ndarray:
    """The states that are shown until it stops."""
    env.reset()
    seen = [env.sim.get_state()]
    shown: Any = env
    playback = Playback(shown, lambda obs: obs)
    most = env.timeline.length * 2 if steps is None else steps
    playback.run(
        lambda: playback.paused or playback.steps == most,
        lambda result: seen.append(env.sim.get_state()),
    )
    return torch.stack(seen, dim=1).numpy()


def test_a_timeline_knows_its_sections():
    timeline = Timeline([Section("a", 3), Section("b", 2), Section("c", 4)])
    assert timeline.length == 9 and timeline.starts == [0, 3, 5]
    timeline.seek(4)
    assert timeline.section == 1 and timeline.section_end == 4
    assert timeline.describe() == "b: state 2 of 2"
    assert (timeline.jump(-1), timeline.jump(0), timeline.jump(1)) == (3, 3, 5)
    timeline.seek(3)
    assert timeline.jump(-1) == 0
    timeline.seek(99)
    assert timeline.position == 8 and timeline.at_end and timeline.jump(1) == 5
    timeline.advance()
    assert timeline.position == 8
    timeline.loop = True
    timeline.advance()
    assert timeline.position == 0 and not timeline.at_end
    timeline.backwards = True
    timeline.advance()
    assert timeline.position == 8
    with pytest.raises(ValueError, match="needs sections"):
        Timeline([])


def test_all_states_of_the_chosen_episodes_are_shown_in_order(rollouts):
    env = RecordedEnv(rollouts, [2, 0])
    assert np.array_equal(played(env)[0], states(rollouts, 2, 0))
    assert env.timeline.at_end


def test_backwards_and_in_a_loop(rollouts):
    env = RecordedEnv(rollouts, [1, 3], backwards=True)
    assert np.array_equal(played(env)[0], states(rollouts, 1, 3)[::-1])
    env = RecordedEnv(rollouts, [1], loop=True)
    wanted = states(rollouts, 1)
    again = np.concatenate((wanted, wanted))
    assert np.array_equal(played(env, steps=len(again) - 1)[0], again)


def test_a_grid_shows_several_episodes_at_once(rollouts):
    env = RecordedEnv(rollouts, [0, 1, 2], worlds=2)
    assert env.num_envs == 2 and len(env.timeline.sections) == 2
    first, second = played(env)
    a, b, c = (states(rollouts, episode) for episode in (0, 1, 2))
    longest = max(len(a), len(b))

    def held(rows: np.ndarray) -> np.ndarray:
        return np.concatenate((rows, np.repeat(rows[-1:], longest - len(rows), axis=0)))

    assert np.array_equal(first, np.concatenate((held(a), c)))
    assert np.array_equal(second[:longest], held(b))


def test_seeking_jumping_and_numbers_that_viewers_show(rollouts):
    shown: Any = RecordedEnv(rollouts, [0, 1, 2])
    playback = Playback(shown, lambda obs: obs)
    shown.reset()
    playback.seek(lambda timeline: timeline.starts[1] + 2, pause=True)
    playback._serve()
    assert playback.paused
    assert np.array_equal(shown.sim.get_state()[0], states(rollouts, 1)[2])
    assert shown.episode_length_buf.tolist() == [2]
    frame = FrameReader(playback, max_envs=1).read()
    arrays = rollouts.read(1)
    assert frame.where.startswith("Episode 1 (environment 0, its episode 1): state 3 of")
    assert frame.observations["obs/actor"] == pytest.approx(arrays["obs/actor"][2])
    assert frame.observations["command/goal"] == pytest.approx(arrays["command/goal"][2])
    assert frame.rewards == pytest.approx(
        {name: arrays[f"reward_terms/{name}"][2] for name in ("height", "effort")}
    )
    playback.reset_shown()
    playback._serve()
    assert np.array_equal(shown.sim.get_state()[0], states(rollouts, 1)[0])


def test_what_is_shown_can_be_recorded(rollouts):
    env = RecordedEnv(rollouts, [0, 1])
    env.add_recorders({"again": MemoryRecorderCfg(channels=("action", "reward", "state"))})
    played(env)
    env.close()
    again = env.recorder_manager.get_term("again").rollouts  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(again.read(0)["state"], states(rollouts, 0))
    for name in ("action", "reward"):
        assert np.array_equal(again.read(0)[name], rollouts.read(0)[name])


def test_a_dump_of_a_flight_recorder_is_a_recording_too(tmp_path):
    channels = ("state", "physics", "action", "reward")
    cfg = FlightRecorderCfg(path=str(tmp_path), steps=12, channels=channels)
    with ManagerBasedRlEnv(cart_cfg(recorders={"flight": cfg})) as env:
        env.reset()
        for action in actions(20):
            env.step(action)
        folder = env.recorder_manager.get_term("flight").dump()  # pyright: ignore[reportAttributeAccessIssue]
    path = recording_path(folder)
    with open_rollouts(path) as rollouts:
        shown = RecordedEnv(rollouts, chosen_episodes(rollouts, envs=[2]))
        shown.reset()
        assert shown.timeline.length == 13  # The last state has no action yet.
        episodes = [i for i in range(len(rollouts)) if rollouts.episodes["rows"][i] > 1]
        found = verify(rollouts, episodes=episodes)
    assert found.checked > 30
    # What the last row led to was not known when the dump was written.
    assert all(e.differing <= 1 for e in found.episodes)
