"""On a GPU recorders write the same truth, change nothing, and never wait in the env thread."""

from __future__ import annotations

import pytest
import torch
from rollout_log import StepLog, compare
from test_recorders_truth import ASKED, CHANNELS, drive, world
from worlds import actions

from mjlab_rec.data import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import Hdf5RecorderCfg, MemoryRecorderCfg

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("block_steps", [1, 7, None])
@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("envs", [None, (5, 0, 3)])
def test_rows_are_what_happened(auto_reset, block_steps, envs):
    recorder = MemoryRecorderCfg(channels=ASKED, block_steps=block_steps, envs=envs)
    cfg = world(64, "warp", auto_reset=auto_reset, recorders={"log": recorder})
    with ManagerBasedRlEnv(cfg, device="cuda") as env:
        log = StepLog(env)
        drive(log, 40, auto_reset)
        expected = log.finished(envs and sorted(envs))
        compare(env.recorder_manager.get_term("log").rollouts, expected, CHANNELS)


def test_the_rollout_is_the_same_with_and_without_recorders(tmp_path):
    traces = []
    for recorders in ({}, {"log": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=ASKED)}):
        cfg = world(64, "warp", recorders=recorders)
        with ManagerBasedRlEnv(cfg, device="cuda") as env:
            env.reset()
            trace = [env.step(action.cuda())[0]["actor"].cpu() for action in actions(40, 64)]
        traces.append(trace)
    assert all(torch.equal(a, b) for a, b in zip(*traces, strict=True))


def test_recording_never_waits_for_the_gpu(tmp_path, monkeypatch):
    recorder = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=ASKED, block_steps=5)
    cfg = world(64, "warp", recorders={"log": recorder})
    with ManagerBasedRlEnv(cfg, device="cuda") as env:
        env.reset()
        for action in actions(20, 64):
            env.step(action.cuda())
        term = env.recorder_manager.get_term("log")

        def guarded(hook):
            def call(*args):
                before = torch.cuda.get_sync_debug_mode()
                torch.cuda.set_sync_debug_mode("error")
                try:
                    return hook(*args)
                finally:
                    torch.cuda.set_sync_debug_mode(before)

            return call

        for name in term.hooks_when_idle:
            monkeypatch.setattr(term, name, guarded(getattr(term, name)))
        env.recorder_manager._select_hooks()
        for action in actions(40, 64):
            env.step(action.cuda())
    with open_rollouts(tmp_path / "a.h5") as rollouts:
        assert rollouts.rows == 60 * 64
