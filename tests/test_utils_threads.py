"""Numbers of threads for the cores that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mjlab_rec.utils.threads import (
    choose_threads,
    single_torch_thread,
    torch_threads,
    usable_cores,
)

LARGE = 1_000_000_000


def test_torch_gets_one_thread_in_rollouts_and_all_cores_in_large_updates():
    small, large = choose_threads(1000, cores=8), choose_threads(LARGE, cores=8)
    assert (small.engine, small.rollout, small.update) == (8, 1, 1)
    assert (large.engine, large.rollout, large.update) == (8, 1, 8)


def test_processes_on_one_machine_share_its_cores(monkeypatch):
    assert choose_threads(LARGE, cores=8, processes=3).engine == 2
    assert choose_threads(LARGE, cores=2, processes=3) == choose_threads(cores=1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_threads(LARGE, cores=8).update == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu.max": "nonsense"}, 6),
    ],
)
def test_a_container_may_limit_the_cores(files, cores, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path) == cores


def test_the_setting_of_torch_is_restored():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with single_torch_thread("cpu"):
            assert torch.get_num_threads() == 1
        with single_torch_thread("cuda:0"):
            assert torch.get_num_threads() == before + 1
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before
