"""Pictures in an environment: as observations, in recordings, and after resets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import cart_cfg

from mjlab_rec.data import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.recorders import CsvRecorderCfg, Hdf5RecorderCfg, NpzRecorderCfg
from mjlab_rec.sensor import CameraSensorCfg

SIZE: dict[str, Any] = dict(width=12, height=8, pos=(0.0, -2.0, 0.3), fovy=50.0)
TO_THE_NORTH = (0.70710678, 0.70710678, 0.0, 0.0)


def rgb(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Pictures as they are, (num_envs, height, width, 3)."""
    return env.scene["eye"].data.rgb


def depth(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Depth as a network reads it, (num_envs, 1, height, width)."""
    return env.scene["eye"].data.depth.permute(0, 3, 1, 2)


def make(steps: tuple[int, ...] = (7, 4, 9, 5), size: Any = None, **fields: Any) -> Any:
    cfg = cart_cfg(4, steps, **fields)
    options = SIZE | (size or {})
    eye = CameraSensorCfg("eye", quat=TO_THE_NORTH, data_types=("rgb", "depth"), **options)
    cfg.scene.sensors = (*cfg.scene.sensors, eye)
    cfg.observations["eye"] = ObservationGroupCfg(
        {"rgb": ObservationTermCfg(func=rgb), "depth": ObservationTermCfg(func=depth)},
        concatenate_terms=False,
    )
    cfg.sim.engine = "mjbatch"
    return ManagerBasedRlEnv(cfg, device="cpu")


def test_observations_are_pictures_of_the_current_state() -> None:
    env = make()
    obs, _ = env.reset()
    assert obs["eye"]["rgb"].dtype == torch.uint8
    assert obs["eye"]["rgb"].shape == (4, 8, 12, 3)
    assert obs["eye"]["depth"].shape == (4, 1, 8, 12)
    assert len({row.numpy().tobytes() for row in obs["eye"]["depth"]}) > 1
    for _ in range(12):
        obs, *_ = env.step(torch.ones(4, 1))
        env.sim.forward()  # What the sensor shows now is what the observation showed.
        env.scene.invalidate()
        assert torch.equal(obs["eye"]["rgb"], rgb(env))
    env.close()


def test_no_world_sees_that_another_one_was_reset() -> None:
    runs = []
    for steps in ((30, 30, 30, 30), (30, 4, 30, 5)):
        env = make(steps=steps)
        env.reset()
        runs.append([env.step(torch.ones(4, 1))[0]["eye"]["rgb"][[0, 2]] for _ in range(8)])
        env.close()
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


CHANNELS = ("obs/eye", "next_obs/eye", "action", "sensor/eye/depth")


@pytest.mark.parametrize("cfg_type", [Hdf5RecorderCfg, NpzRecorderCfg])
def test_pictures_are_recorded_and_read_back(tmp_path: Path, cfg_type: Any) -> None:
    path = str(tmp_path / ("run.h5" if cfg_type is Hdf5RecorderCfg else "run"))
    recorder = cfg_type(path=path, channels=CHANNELS)
    env = make(recorders={"file": recorder})
    obs, _ = env.reset()
    seen = [obs]
    for _ in range(6):
        obs, *_ = env.step(torch.rand(4, 1) - 0.5)
        seen.append(obs)
    env.close()
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes
        index = next(i for i, row in enumerate(table.iter_rows(named=True)) if row["env"] == 0)
        first = rollouts[index]
    pictures = first["obs/eye/rgb"]
    assert pictures.dtype == np.uint8 and pictures.shape == (6, 8, 12, 3)
    for step in range(6):
        np.testing.assert_array_equal(pictures[step], seen[step]["eye"]["rgb"][0])
        np.testing.assert_array_equal(first["obs/eye/depth"][step], seen[step]["eye"]["depth"][0])
        np.testing.assert_array_equal(
            first["sensor/eye/depth"][step][..., 0], seen[step]["eye"]["depth"][0, 0]
        )
        np.testing.assert_array_equal(
            first["next_obs/eye/rgb"][step], seen[step + 1]["eye"]["rgb"][0]
        )


def test_a_picture_in_a_table_of_text_is_many_columns(tmp_path: Path, caplog: Any) -> None:
    path = str(tmp_path / "run.csv")
    recorder = CsvRecorderCfg(path=path, channels=("obs/eye/rgb", "action"))
    env = make(recorders={"file": recorder}, size=dict(width=24, height=16))
    obs, _ = env.reset()
    env.step(torch.zeros(4, 1))
    env.close()
    assert "gets 1152 columns for 'obs/eye/rgb'. HDF5, NPZ" in caplog.text
    with open_rollouts(path) as rollouts:
        np.testing.assert_array_equal(rollouts[0]["obs/eye/rgb"][0], obs["eye"]["rgb"][0])


def test_recording_pictures_does_not_change_the_rollout(tmp_path: Path) -> None:
    runs = []
    for recorders in (
        {},
        {"file": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=CHANNELS)},
    ):
        env = make(recorders=recorders)
        torch.manual_seed(0)
        env.reset()
        runs.append([env.step(torch.ones(4, 1)) for _ in range(10)])
        env.close()
    for (obs, *_), (other, *_) in zip(*runs, strict=True):
        assert torch.equal(obs["eye"]["rgb"], other["eye"]["rgb"])
        assert torch.equal(obs["actor"], other["actor"])
