"""Show generated ground in a viewer, or draw a picture of it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.utils.extras import MissingExtraError, UnavailableError
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.terrains import TerrainGeneratorCfg

_MOST_BALLS = 64
_BALL = """
<mujoco>
  <worldbody>
    <body name="ball">
      <freejoint/>
      <geom type="sphere" size="0.15" rgba="0.85 0.25 0.2 1"/>
    </body>
  </worldbody>
</mujoco>
"""


@dataclass(kw_only=True)
class TerrainArgs:
    """Options of ``terrain``."""

    name: tyro.conf.Positional[str] = "all"
    """all, rough or stairs: a grid of several kinds. Or the name of one kind, such as
    stepping_stones; an unknown name lists them."""
    rows: int | None = None
    """Number of rows, whose difficulty grows from 0 to 1. None: as the grid defines it, 5 for one
    kind."""
    cols: int | None = None
    """Number of columns with --random. Without it there is one for each kind."""
    random: bool = False
    """Tiles of random kind and difficulty."""
    difficulty: float | None = None
    """Difficulty of all tiles, from 0 to 1."""
    seed: int = 0
    """Seed of the ground."""
    color_scheme: Literal["height", "random", "none"] = "height"
    """Colours by height, by tile, or grey."""
    picture: Path | None = None
    """Write a picture to this PNG file instead of opening a viewer."""
    width: int = 1280
    """Width of the picture in pixels."""
    height: int = 720
    """Height of the picture in pixels."""
    viewer: Literal["auto", "native", "web"] = "auto"
    """native: a window. web: a browser. auto: a window if there is a display. A ball falls on each
    of up to 64 tiles, where robots would start."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, and show the terrain.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args = tyro.cli(
        TerrainArgs,
        args=argv,
        prog=prog,
        description=__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if args.picture is not None and args.picture.suffix.lower() != ".png":
        cli.fail(f"--picture writes PNG files, so its name must end in .png, got {args.picture}.")
    if args.picture is not None and not args.picture.absolute().parent.is_dir():
        cli.fail(f"--picture: there is no folder {args.picture.absolute().parent}.")
    try:
        generator = generator_cfg(args)
        if args.picture is None:
            show(env_cfg(generator), args)
        else:
            draw(generator, args)
    except (ValueError, UnavailableError, MissingExtraError) as error:
        cli.fail(str(error))


def generator_cfg(args: TerrainArgs) -> TerrainGeneratorCfg:
    """The ground that the options describe."""
    from mjlab_rec.terrains import config

    grids = {
        "all": config.ALL_TERRAINS_CFG,
        "rough": config.ROUGH_TERRAINS_CFG,
        "stairs": config.STAIRS_TERRAINS_CFG,
    }
    if args.name in grids:
        cfg = grids[args.name]
    elif args.name in config.ALL_TERRAIN_PRESETS:
        kind = config.ALL_TERRAIN_PRESETS[args.name]()
        cfg = dataclasses.replace(
            config.ALL_TERRAINS_CFG, sub_terrains={args.name: kind}, num_rows=5, num_cols=1
        )
    else:
        known = [*grids, *config.ALL_TERRAIN_PRESETS]
        raise ValueError(f"Unknown terrain {args.name!r}. {nearest(args.name, known)}")
    if args.cols is not None and not args.random:
        raise ValueError(
            "--cols needs --random: without it there is one column for each kind of ground."
        )
    cfg = dataclasses.replace(
        cfg,
        seed=args.seed,
        color_scheme=args.color_scheme,
        curriculum=not args.random,
        border_width=2.0,
        num_rows=cfg.num_rows if args.rows is None else args.rows,
        num_cols=cfg.num_cols if args.cols is None else args.cols,
    )
    if args.difficulty is not None:
        cfg.difficulty_range = (args.difficulty, args.difficulty)
    return cfg


def env_cfg(generator: TerrainGeneratorCfg) -> ManagerBasedRlEnvCfg:
    """An environment in which balls fall on the ground, each on a tile of its own."""
    import mujoco

    from mjlab_rec.entity import EntityCfg
    from mjlab_rec.envs import ManagerBasedRlEnvCfg, mdp
    from mjlab_rec.managers import EventTermCfg, SceneEntityCfg, TerminationTermCfg
    from mjlab_rec.scene import SceneCfg
    from mjlab_rec.sim.viewer_config import ViewerConfig
    from mjlab_rec.terrains import TerrainEntityCfg

    columns = len(generator.sub_terrains) if generator.curriculum else generator.num_cols
    x, y = generator.num_rows * generator.size[0], columns * generator.size[1]
    ball = EntityCfg(
        spec_fn=lambda: mujoco.MjSpec.from_string(_BALL),
        init_state=EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 0.5)),
    )
    place = {"pose_range": {}, "asset_cfg": SceneEntityCfg("ball")}
    return ManagerBasedRlEnvCfg(
        decimation=4,
        episode_length_s=6.0,
        seed=generator.seed,
        scene=SceneCfg(
            num_envs=min(generator.num_rows * columns, _MOST_BALLS),
            terrain=TerrainEntityCfg(terrain_type="generator", terrain_generator=generator),
            entities={"ball": ball},
        ),
        events={
            "tile": EventTermCfg(func=mdp.randomize_terrain, mode="reset"),
            "place": EventTermCfg(func=mdp.reset_root_state_uniform, mode="reset", params=place),
        },
        terminations={"time_out": TerminationTermCfg(func=mdp.time_out, time_out=True)},
        viewer=ViewerConfig(
            origin_type=ViewerConfig.OriginType.WORLD,
            # The longer side is across the picture.
            distance=0.7 * math.hypot(x, y) + 0.3 * min(x, y) + 2.0,
            elevation=-42.0,
            azimuth=170.0 if y >= x else 80.0,
            max_extra_envs=_MOST_BALLS,
        ),
    )


def show(cfg: ManagerBasedRlEnvCfg, args: TerrainArgs) -> None:
    """Open the viewer, until it is closed."""
    import torch

    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer import make_viewer
    from mjlab_rec.viewer.playback import Playback

    with ManagerBasedRlEnv(cfg) as env:
        _describe(env)
        viewer = make_viewer(args.viewer, env)
        if viewer is None:
            cli.fail("No viewer works on this machine. Use --picture terrain.png.")
        if url := getattr(viewer, "url", None):
            Console().print(f"The viewer is at {url}", markup=False)
        action = torch.zeros(env.num_envs, env.action_manager.total_action_dim)
        with Playback(env, lambda obs: action, viewers=[viewer], speed=1.0) as playback:
            playback.run()


def draw(generator: TerrainGeneratorCfg, args: TerrainArgs) -> None:
    """Draw the ground from above the side and write the picture."""
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.utils.spec_export import png

    cfg = env_cfg(generator)
    cfg.scene.num_envs = 1
    cfg.viewer.width, cfg.viewer.height = args.width, args.height
    with ManagerBasedRlEnv(cfg, render_mode="rgb_array") as env:
        env.reset()
        _describe(env)
        image = env.render()
    assert image is not None and args.picture is not None
    args.picture.write_bytes(png(image))
    Console().print(f"Wrote {args.picture}", markup=False, soft_wrap=True)


def _describe(env: ManagerBasedRlEnv) -> None:
    terrain = env.scene.terrain
    assert terrain is not None and terrain.tiles is not None
    tiles, kinds = terrain.tiles, {t.name for row in terrain.tiles.tiles for t in row}
    Console(highlight=False).print(
        f"{tiles.num_rows} x {tiles.num_cols} tiles of {len(kinds)} kinds,"
        f" {len(terrain.geom_names)} geoms, seed {tiles.seed}",
        markup=False,
    )
