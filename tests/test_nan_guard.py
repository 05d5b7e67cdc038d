"""The NaN guard: a flight recorder that the environment adds, and the replay of its dump."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.commands import replay_dump
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import TerminationTermCfg
from mjlab_rec.recorders.flight import FlightRecorder
from mjlab_rec.sim import SimulationCfg
from mjlab_rec.utils.nan_guard import NanGuard, NanGuardCfg


def make(tmp_path: Path, env_cfg: dict[str, Any] | None = None, **guard: Any) -> ManagerBasedRlEnv:
    cfg = cart_cfg(**(env_cfg or {}))
    settings = {"enabled": True, "output_dir": str(tmp_path / "dumps"), "buffer_size": 6, **guard}
    cfg.sim.nan_guard = NanGuardCfg(**settings)
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    return env


def steps(env: ManagerBasedRlEnv, count: int) -> None:
    for action in actions(count, env.num_envs):
        env.step(action)


def dump_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "dumps").iterdir()
    return folder


def test_it_is_off_by_default_and_the_environment_then_records_nothing(tmp_path: Path) -> None:
    assert not SimulationCfg().nan_guard.enabled
    env = ManagerBasedRlEnv(cart_cfg())
    assert not env.sim.nan_guard.enabled and env.recorder_manager.active_terms == []


def test_the_last_steps_of_the_worlds_that_diverged_are_written_once(tmp_path: Path) -> None:
    env = make(tmp_path)
    assert isinstance(env.recorder_manager.get_term("nan_guard"), FlightRecorder)
    steps(env, 9)
    assert not (tmp_path / "dumps").exists()
    env.sim.data.qpos[2, 0] = torch.nan
    steps(env, 3)
    env.sim.data.qpos[1, 0] = torch.nan
    steps(env, 3)
    folder = dump_of(tmp_path)
    reason = json.loads((folder / "reason.json").read_text())
    assert reason["reason"] == "nan" and reason["envs"] == [2]
    assert (folder / "model.mjb").stat().st_size > 0
    with open_rollouts(folder / "rollout.npz") as rollouts:
        assert set(rollouts.channels) == {"state", "action"}
        assert rollouts.rows == 7


def test_no_more_worlds_are_written_than_asked_for(tmp_path: Path) -> None:
    env = make(tmp_path, max_envs_to_dump=2)
    steps(env, 2)
    env.sim.data.qvel[1:4] = torch.inf
    steps(env, 2)
    reason = json.loads((dump_of(tmp_path) / "reason.json").read_text())
    assert reason["envs"] == [1, 2] and reason["all_envs"] == [1, 2, 3]


def test_a_world_that_is_reset_in_the_same_step_is_written_too(tmp_path: Path) -> None:
    ends = {"diverged": TerminationTermCfg(func=mdp.nan_detection)}
    env = make(tmp_path, {"terminations": ends})
    steps(env, 4)
    env.sim.data.qvel[0] = torch.nan
    steps(env, 1)
    assert env.sim.data.qvel.isfinite().all()
    folder = dump_of(tmp_path)
    assert json.loads((folder / "reason.json").read_text())["envs"] == [0]


def test_the_guard_changes_no_bit_of_the_rollout(tmp_path: Path) -> None:
    guarded, plain = make(tmp_path), ManagerBasedRlEnv(cart_cfg())
    plain.reset()
    for env in (guarded, plain):
        steps(env, 20)
    assert torch.equal(guarded.sim.get_state(), plain.sim.get_state())


def test_detection_finds_the_worlds() -> None:
    env = ManagerBasedRlEnv(cart_cfg())
    env.reset()
    assert not NanGuard.detect_nans(env.sim.data).any()
    env.sim.data.qacc[1] = torch.inf
    env.sim.data.qvel[3] = torch.nan
    assert NanGuard.detect_nans(env.sim.data).tolist() == [False, True, False, True]


# The replay.


@pytest.fixture
def dump(tmp_path: Path) -> replay_dump.Dump:
    env = make(tmp_path)
    steps(env, 9)
    env.sim.data.qpos[2, 0] = torch.nan
    env.sim.data.qpos[1, 1] = torch.nan
    steps(env, 2)
    return replay_dump.read_dump(dump_of(tmp_path))


def test_a_dump_is_read_with_what_went_wrong_where(dump: replay_dump.Dump) -> None:
    assert dump.envs == [1, 2] and dump.states.shape[:2] == (7, 2)
    assert dump.finite[:-2].all() and not dump.finite[-1].any()
    assert np.isfinite(dump.shown()).all()
    from rich.console import Console

    console = Console(width=200, record=True)
    console.print(replay_dump.report(dump))
    text = console.export_text()
    assert "nan" in text and "Environment 2" in text and "not finite from step" in text
    assert "qpos" in text


def test_the_states_are_shown_one_after_the_other(dump: replay_dump.Dump) -> None:
    cfg = cart_cfg()
    replay_dump.prepare(cfg, dump)
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    replayed = replay_dump.ReplayedEnv(env, dump)
    replayed.reset()
    for step in (*range(7), 0, 1):
        state = env.sim.get_state().numpy()
        np.testing.assert_allclose(state, dump.shown()[step], rtol=1e-6)
        replayed.step(None)


def test_play_shows_a_dump_in_a_viewer(dump: replay_dump.Dump) -> None:
    class Viewer:
        url = ""
        seen: list[float] = []

        @property
        def closed_by_user(self) -> bool:
            return len(self.seen) >= 4

        def open(self, playback: Any) -> None:
            self.playback = playback
            playback.speed = None

        def update(self) -> None:
            self.seen.append(float(self.playback.env.sim.data.qpos[0, 0]))

        def close(self) -> None:
            pass

    cfg = cart_cfg()
    replay_dump.prepare(cfg, dump)
    with ManagerBasedRlEnv(cfg) as env:
        replay_dump.run(env, dump, Viewer())  # type: ignore[arg-type]
        column = env.sim.state_layout["qpos"].start
    np.testing.assert_allclose(Viewer.seen, dump.shown()[1:5, 0, column], rtol=1e-5)


def test_play_writes_a_video_of_a_dump(dump: replay_dump.Dump) -> None:
    pytest.importorskip("imageio_ffmpeg")
    cfg = cart_cfg()
    cfg.viewer.width, cfg.viewer.height = 64, 48
    replay_dump.prepare(cfg, dump)
    try:
        with ManagerBasedRlEnv(cfg, render_mode="rgb_array") as env:
            replay_dump.run(env, dump, None)
    except replay_dump_unavailable() as error:
        pytest.skip(str(error))
    assert (dump.folder / "replay.mp4").stat().st_size > 0


def replay_dump_unavailable() -> type[Exception]:
    from mjlab_rec.utils.extras import UnavailableError

    return UnavailableError


def test_other_folders_and_other_tasks_are_refused(dump: replay_dump.Dump, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a dump .* there is no rollout.npz"):
        replay_dump.read_dump(tmp_path)
    env = ManagerBasedRlEnv(cart_cfg())
    other = replay_dump.Dump(dump.folder, {}, [0], dump.states[..., :-1], dump.elements)
    with pytest.raises(DataError, match="numbers, those of this task .*Give the task"):
        replay_dump.ReplayedEnv(env, other)
