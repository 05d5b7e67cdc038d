"""The command that shows generated ground."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mjlab_rec.commands import terrain
from mjlab_rec.commands.terrain import TerrainArgs, env_cfg, generator_cfg
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.terrains.config import ALL_TERRAIN_PRESETS, ALL_TERRAINS_CFG


def decoded(path: Path) -> np.ndarray:
    """The pixels of a PNG file with 8-bit colours and without filters."""
    data, at, packed, shape = path.read_bytes(), 8, b"", (0, 0)
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        if kind == b"IHDR":
            shape = struct.unpack(">II", body[:8])
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape[1], 1 + 3 * shape[0])
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(shape[1], shape[0], 3)


def test_a_picture_shows_the_ground(tmp_path, capsys):
    path = tmp_path / "stairs.png"
    words = f"pyramid_stairs --rows 2 --picture {path} --width 160 --height 120"
    terrain.main(words.split())
    out = capsys.readouterr().out
    assert "2 x 1 tiles of 1 kinds" in out and "seed 0" in out and "Wrote" in out
    image = decoded(path).astype(int)
    assert image.shape == (120, 160, 3)
    terracotta = (image[..., 0] - image[..., 2] > 40).mean()
    assert terracotta > 0.02, "the high steps are reddish"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pyramid_stiars", "Unknown terrain 'pyramid_stiars'. Did you mean 'pyramid_stairs'"),
        ("rough --cols 4", "--cols needs --random"),
        ("flat --rows 0", "num_rows must be at least 1, got 0"),
        ("flat --picture flat.jpg", "must end in .png, got flat.jpg"),
        ("flat --picture nowhere/flat.png", "--picture: there is no folder"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = words.split() if "--picture" in words else [*words.split(), "--picture", "a.png"]
    with pytest.raises(SystemExit) as caught:
        terrain.main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["all", "rough", "stairs", *ALL_TERRAIN_PRESETS])
def test_every_grid_and_every_kind_has_a_name(name: str):
    cfg = generator_cfg(TerrainArgs(name=name))
    assert cfg.curriculum and cfg.seed == 0
    assert name in ("all", "rough", "stairs") or list(cfg.sub_terrains) == [name]


def test_options_change_the_grid_but_not_the_preset():
    args: dict[str, Any] = {"rows": 2, "cols": 3, "random": True, "difficulty": 0.3, "seed": 4}
    cfg = generator_cfg(TerrainArgs(name="all", color_scheme="none", **args))
    assert (cfg.num_rows, cfg.num_cols, cfg.curriculum, cfg.seed) == (2, 3, False, 4)
    assert cfg.difficulty_range == (0.3, 0.3) and cfg.color_scheme == "none"
    assert (ALL_TERRAINS_CFG.num_rows, ALL_TERRAINS_CFG.seed) == (10, None)


def test_balls_fall_where_robots_would_start():
    cfg = env_cfg(generator_cfg(TerrainArgs(name="rough", rows=2)))
    assert cfg.scene.num_envs == 14
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        ball = env.scene["ball"].data.root_link_pos_w - env.scene.env_origins
        assert ball[:, 2].tolist() == pytest.approx([0.5] * 14, abs=1e-5)
