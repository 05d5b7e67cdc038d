"""Recorders in an environment like Isaac Lab's: true rows, although its hooks come early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from isaaclab_fake import Cfg, FakeIsaacLabEnv, RecorderManagerBaseCfg
from isaaclab_fake import isaaclab as isaaclab

from mjlab_rec.adapters.isaaclab import close_recordings, for_isaaclab
from mjlab_rec.data import open_rollouts
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders import (
    Channel,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorderCfg,
    VideoRecorderCfg,
)

STEPS = 40
CHANNELS = (
    *("obs", "action", "reward", "terminated", "truncated", "next_obs", "command"),
    *("reward_terms", "termination_terms", "entity/robot/joint_pos", "processed_action"),
    Channel(name="own", func=lambda env: env.action_manager.action * 2.0, when="after"),
)


def actions(steps: int = STEPS) -> torch.Tensor:
    return 2.0 * torch.rand(steps, 4, 1, generator=torch.Generator().manual_seed(3)) - 1.0


class LoggedEnv(FakeIsaacLabEnv):
    """Notes every row by itself; final observations come from the state at the reset."""

    def __init__(self, cfg: Cfg) -> None:
        super().__init__(cfg)
        self.rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self.number = [0] * cfg.num_envs
        self._finals: dict[int, np.ndarray] = {}
        self._stepping = False

    def step(self, action: torch.Tensor) -> tuple[Any, ...]:
        before = {
            "obs/policy": self.obs_buf["policy"].clone(),
            "command/goal": self.command_manager.get_command("goal").clone(),
            "entity/robot/joint_pos": self.robot.data.joint_pos.clone(),
        }
        self._before, self._finals, self._stepping = before["obs/policy"], {}, True
        result = super().step(action)
        self._stepping = False
        after = {
            "action": action,
            "processed_action": action,
            "own": 2.0 * action,
            "reward": self.reward_buf.clone(),
            "reward_terms/near": self.reward_buf.clone(),
            "terminated": self.reset_terminated.clone(),
            "truncated": self.reset_time_outs.clone(),
            "termination_terms/far": self.reset_terminated.clone(),
            "termination_terms/time_out": self.reset_time_outs.clone(),
            "following": self.obs_buf["policy"].clone(),
        }
        for i in range(self.num_envs):
            row = {name: value[i].numpy() for name, value in {**before, **after}.items()}
            row["final"] = self._finals.get(i)
            self.rows.setdefault((i, self.number[i]), []).append(row)
            self.number[i] += row["final"] is not None
        return result

    def cut(self, env_ids: list[int]) -> None:
        for i in env_ids:
            self.number[i] += (i, self.number[i]) in self.rows

    def _reset_idx(self, ids: torch.Tensor) -> None:
        if self._stepping:
            data, goal = self.robot.data, self.command_manager.get_command("goal")
            for i in ids.tolist():
                old = self._before[i, 2:4], data.joint_vel[i]
                self._finals[i] = torch.cat([data.joint_pos[i], *old, goal[i]]).numpy().copy()
        super()._reset_idx(ids)


@pytest.fixture
def record(isaaclab: None) -> Callable[..., FakeIsaacLabEnv]:
    """Make an environment with recorders."""

    def make(recorders: Any, logs: bool = False) -> FakeIsaacLabEnv:
        cfg = Cfg(recorders=for_isaaclab(recorders, task="fake"))
        return (LoggedEnv if logs else FakeIsaacLabEnv)(cfg)

    return make


def run(env: FakeIsaacLabEnv) -> list[torch.Tensor]:
    """Take steps, with a reset of two environments half way; returns all that the policy sees."""
    seen = [*env.reset()[0].values()]
    for step, action in enumerate(actions()):
        if step == STEPS // 2:
            env.reset(env_ids=torch.tensor([1, 2]))
            if isinstance(env, LoggedEnv):
                env.cut([1, 2])
        obs, *rest, _ = env.step(action)
        seen += [v.clone() for v in (*obs.values(), *rest)]
    return seen


def test_every_row_is_true(record: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "run.h5")
    env = record(Hdf5RecorderCfg(path=path, channels=CHANNELS), logs=True)
    run(env)
    close_recordings(env)
    env.close()
    finals = 0
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes.select("env", "number").rows()
        assert sorted(table) == sorted(env.rows)
        for key, episode in zip(table, rollouts, strict=True):
            rows = env.rows[key]
            for name in rows[0].keys() - {"following", "final"}:
                want = np.array([row[name] for row in rows])
                np.testing.assert_allclose(episode[name], want, rtol=1e-6, err_msg=name)
            following = np.array([row["following"] for row in rows])
            next_obs = episode["next_obs/policy"]
            # Not what the step returned: a reset of some environments computes all observations.
            np.testing.assert_array_equal(next_obs[:-1], episode["obs/policy"][1:])
            final = rows[-1]["final"]
            if final is None:
                np.testing.assert_array_equal(next_obs[-1], following[-1])
                continue
            finals += 1
            np.testing.assert_allclose(next_obs[-1][1:], final[1:], rtol=1e-6)
            assert 0.0 < abs(next_obs[-1][0] - final[0]) <= 0.01
    assert finals > 20


def test_it_changes_no_more_than_any_recorder_of_isaac_lab_does(record: Any) -> None:
    """Isaac Lab computes observations once more if there are recorders, which draws noise."""
    empty = run(record(MemoryRecorderCfg(autostart=False, channels=("reward",))))
    full = run(record({"a": MemoryRecorderCfg(channels=CHANNELS), "b": MemoryRecorderCfg()}))
    assert all(torch.equal(a, b) for a, b in zip(empty, full, strict=True))


def test_closing_the_environment_finishes_the_files(record: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "run.h5")
    env = record(Hdf5RecorderCfg(path=path))
    run(env)
    env.close()
    with open_rollouts(path) as rollouts:
        assert rollouts.finished and rollouts.rows == 4 * STEPS
        last = rollouts.episodes["start"] + rollouts.episodes["length"] == STEPS
        done = rollouts.episodes["terminated"] | rollouts.episodes["truncated"]
        for index in (last & ~done).arg_true():
            # env.close() has deleted what the last step led to.
            assert np.isnan(rollouts[index]["next_obs/policy"][-1]).all()
            assert np.isfinite(rollouts[index]["obs/policy"]).all()
        assert rollouts.info.about["task"] == "fake"
        assert rollouts.info.about["engine"] == "isaac"
        assert any("Isaac Lab" in note for note in rollouts.info.about["notes"])


@pytest.mark.parametrize("fails", ["physics", "reset"])
@pytest.mark.parametrize("resets", [True, False])
def test_a_step_that_fails_has_no_row(record: Any, fails: str, resets: bool) -> None:
    env = record(MemoryRecorderCfg())
    env.reset()
    env.limits[:] = 3
    for action in 0.1 * actions(2):
        env.step(action)
    env.fails = fails
    with pytest.raises(RuntimeError, match="failed"):
        env.step(torch.zeros(4, 1))
    env.fails = ""
    if resets:
        env.reset()
    else:
        env.limits[:] = 100
    for action in 0.1 * actions(2):
        env.step(action)
    close_recordings(env)
    rollouts = env.recorder_manager._terms["mjlab_rec"].manager.get_term("recorder").rollouts
    first = (rollouts.episodes["env"] == 0).arg_true()
    rows = [len(rollouts[i]["reward"]) for i in first]
    assert rows == ([2, 2] if resets else [2, 1])


def test_the_users_own_recorders_stay(isaaclab: None) -> None:
    own = RecorderManagerBaseCfg()
    assert for_isaaclab(MemoryRecorderCfg(), add_to=own) is own
    assert own.dataset_export_mode == 1
    assert for_isaaclab(MemoryRecorderCfg()).dataset_export_mode == 0


def test_a_recorder_of_ones_own_gets_isaac_labs_hooks(record: Any) -> None:
    calls = []

    class Own(RecorderTerm):
        def record_pre_step(self) -> None:
            calls.append("pre")

        def record_substep(self) -> None:
            calls.append("sub")

    env = record(RecorderTermCfg(func=Own))
    env.reset()
    env.step(torch.zeros(4, 1))
    assert calls == ["pre", "sub", "sub"]

    class Physics(RecorderTerm):
        def record_post_physics(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"overrides record_post_physics\(\), but Isaac Lab"):
        record(RecorderTermCfg(func=Physics)).reset()


def test_a_dump_needs_no_model(record: Any, tmp_path: Path) -> None:
    cfg = FlightRecorderCfg(
        path=str(tmp_path), channels=("obs", "action"), on_terminations=("time_out",)
    )
    env = record(cfg)
    run(env)
    close_recordings(env)
    flight = env.recorder_manager._terms["mjlab_rec"].manager.get_term("recorder")
    assert flight.folders
    with open_rollouts(flight.files[0]) as rollouts:
        assert len(rollouts)


def test_what_needs_mujoco_says_so(record: Any, tmp_path: Path) -> None:
    env = record(VideoRecorderCfg(path=str(tmp_path)))
    with pytest.raises(TypeError, match="VideoRecorder draws MuJoCo's model"):
        env.reset()
    env = record(MemoryRecorderCfg(channels=("state",)))
    with pytest.raises(ValueError, match="Unknown channel 'state'"):
        env.reset()


def test_without_isaac_lab_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "isaaclab", None)
    monkeypatch.delitem(sys.modules, "mjlab_rec.adapters.isaaclab_term", raising=False)
    with pytest.raises(ImportError, match="AppLauncher"):
        for_isaaclab(MemoryRecorderCfg())
