"""The field `pictures` of recorders: which channels it means, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_camera_env import make

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError
from mjlab_rec.recorders import Channel, CsvRecorderCfg, Hdf5RecorderCfg, NpzRecorderCfg
from mjlab_rec.recorders.pictures import with_codecs
from mjlab_rec.recorders.presets import Preset

HDF5 = "png", "jpeg", "h264"


def spec(name: str, dtype: str, *shape: int, next_of: str = "") -> ChannelSpec:
    when: Any = "before" if name.startswith("obs") else "after"
    return ChannelSpec(name=name, dtype=np.dtype(dtype), shape=shape, when=when, next_of=next_of)


CHANNELS = (
    spec("obs/eye", "uint8", 84, 84, 3),
    spec("next_obs/eye", "uint8", 84, 84, 3, next_of="obs/eye"),
    spec("obs/float", "float32", 3, 32, 32),
    spec("obs/depth", "float32", 1, 32, 32),
    spec("bits", "uint8", 2, 4),
    spec("action", "float32", 8),
)


def codecs(pictures: Any, known: tuple[str, ...] = HDF5) -> dict[str, str]:
    found = with_codecs(CHANNELS, pictures, known, "Writer")
    return {spec.name: spec.codec for spec in found if spec.codec}


@pytest.mark.parametrize(
    "pictures, expected",
    [
        (None, {"obs/eye": "png", "next_obs/eye": "png"}),
        ("raw", {}),
        ("png", {"obs/eye": "png", "next_obs/eye": "png", "obs/float": "png"}),
        ("jpeg", {"obs/eye": "jpeg:90", "next_obs/eye": "jpeg:90"}),
        ({"obs/eye": "raw", "obs/depth": "png"}, {"obs/depth": "png"}),
        (
            {"obs/float": "h264:23"},
            {"obs/eye": "png", "next_obs/eye": "png", "obs/float": "h264:23"},
        ),
    ],
)
def test_which_channels_are_stored_how(pictures, expected):
    assert codecs(pictures) == expected


def test_a_format_without_codecs_stores_arrays():
    assert codecs(None, ()) == codecs("raw", ()) == {}


@pytest.mark.parametrize(
    "pictures, why",
    [
        ("webp", "Unknown codec 'webp'.*png, jpeg, h264"),
        ("jpeg:0", "quality of jpeg must be a whole number from 1 to 100, such as 'jpeg:90'"),
        ("h264:x", "from 0 to 51"),
        ("png:3", "png has no quality"),
        ({"obs/eyes": "png"}, "channel 'obs/eyes'. Did you mean 'obs/eye'"),
        ({"action": "png"}, "'action' has the shape \\(8,\\), which is no picture for png"),
    ],
)
def test_what_cannot_be_is_an_error(pictures, why):
    with pytest.raises((ValueError, DataError), match=why):
        codecs(pictures)


def test_a_lossy_codec_refuses_what_is_no_colour_picture():
    depth = [spec("obs/mm", "int16", 32, 32)]
    with pytest.raises(DataError, match="is int16, but jpeg stores uint8, float32. Record it as"):
        with_codecs(depth, {"obs/mm": "jpeg"}, HDF5, "Writer")
    alpha = [spec("obs/alpha", "uint8", 32, 32, 4)]
    with pytest.raises(DataError, match="with 1 or 3 channels first or last"):
        with_codecs(alpha, "jpeg", HDF5, "Writer")
    with pytest.raises(ValueError, match="no recorded channel is a picture"):
        with_codecs(CHANNELS[-1:], "jpeg", HDF5, "Writer")


@pytest.mark.parametrize("cfg", [CsvRecorderCfg, NpzRecorderCfg])
def test_a_format_that_stores_arrays_refuses_codecs(cfg, tmp_path: Path):
    name = "CsvWriter" if cfg is CsvRecorderCfg else "NpzWriter"
    path = str(tmp_path / ("run.csv" if cfg is CsvRecorderCfg else "run"))
    env = make(recorders={"file": cfg(path=path, channels=("obs/eye/rgb",), pictures="png")})
    with pytest.raises(
        ValueError, match=f"{name} cannot store pictures like that. Possible: 'raw'"
    ):
        env.reset()
    env.close()


def record(path: Path, steps: int = 12, **fields: Any) -> list[dict[str, torch.Tensor]]:
    """Record an environment with a camera; returns the observations before each step."""
    scaled = Channel(
        name="scaled", func=lambda env: env.obs_buf["eye"]["rgb"].float().div_(255.0), when="before"
    )
    channels = ("obs/eye/rgb", "next_obs/eye/rgb", scaled, "action", "terminated", "truncated")
    env = make(recorders={"file": Hdf5RecorderCfg(path=str(path), channels=channels, **fields)})
    obs, _ = env.reset()
    seen = []
    for _ in range(steps):
        seen.append({name: value.clone() for name, value in obs["eye"].items()})
        obs, *_ = env.step(torch.ones(4, 1))
    env.close()
    return seen


def test_pictures_of_an_environment_are_png_by_default(tmp_path: Path):
    seen = record(tmp_path / "run.h5")
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        assert rollouts.channels["obs/eye/rgb"].codec == "png"
        assert rollouts.channels["next_obs/eye/rgb"].codec == "png"
        assert rollouts.channels["scaled"].codec == ""
        for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            found = rollouts[index]
            for at in range(row["rows"]):
                image = seen[row["start"] + at]["rgb"][row["env"]]
                assert np.array_equal(found["obs/eye/rgb"][at], image.numpy())
            assert np.array_equal(found["next_obs/eye/rgb"][:-1], found["obs/eye/rgb"][1:])


@pytest.mark.parametrize("fields", [{}, {"max_episodes": 5}], ids=["blocks", "episodes"])
def test_float_pictures_are_stored_as_png_and_read_back_exactly(fields, tmp_path: Path):
    record(tmp_path / "raw.h5", pictures="raw", **fields)
    record(tmp_path / "png.h5", pictures="png", **fields)
    with open_rollouts(tmp_path / "raw.h5") as raw, open_rollouts(tmp_path / "png.h5") as png:
        assert png.channels["scaled"].codec == "png"
        assert len(raw) == len(png) > 4
        for index in range(len(raw)):
            for name, values in raw[index].items():
                assert np.array_equal(values, png[index][name], equal_nan=False), name


def test_the_episodes_layout_keeps_arrays(tmp_path: Path):
    record(tmp_path / "demos.h5", layout="episodes")
    with open_rollouts(tmp_path / "demos.h5") as rollouts:
        assert rollouts.channels["obs/eye/rgb"].codec == ""
        assert rollouts[0]["obs/eye/rgb"].dtype == np.uint8


def test_pictures_can_be_set_on_the_command_line():
    preset = Preset("hdf5")
    preset.set("pictures", ["jpeg:80"])
    assert preset.build().pictures == "jpeg:80"  # type: ignore[attr-defined]
    preset.set("pictures", ["{'obs/camera': 'h264'}"])
    assert preset.build().pictures == {"obs/camera": "h264"}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="Hdf5RecorderCfg.pictures: Unknown codec 'gif'"):
        Hdf5RecorderCfg(pictures="gif").check()
