"""The ground, and where on it each world has its origin."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import mujoco
import numpy as np
import torch

from mjlab_rec.entity import Entity, EntityCfg
from mjlab_rec.entity.names import PLURALS, Kind
from mjlab_rec.terrains.generator_cfg import TerrainGeneratorCfg
from mjlab_rec.terrains.origins import grid_origins, spread_over_columns
from mjlab_rec.terrains.terrain_generator import TerrainGenerator
from mjlab_rec.utils.random import RandomStreams
from mjlab_rec.utils.spec_config import LightCfg, MaterialCfg, TextureCfg
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.sim.debug_visualizer import DebugVisualizer

_TerrainType = Literal["generator", "plane"]
_LEVELS = 1  # Stream of the first levels, apart from the ground's own.


def _checker() -> TextureCfg:
    return TextureCfg(
        name="groundplane",
        type="2d",
        builtin="checker",
        mark="edge",
        rgb1=(0.74, 0.75, 0.76),
        rgb2=(0.67, 0.68, 0.69),
        markrgb=(0.84, 0.85, 0.86),
        width=300,
        height=300,
    )


def _ground() -> MaterialCfg:
    return MaterialCfg(
        name="groundplane",
        texuniform=True,
        texrepeat=(2.0, 2.0),  # A texture, of two by two squares, fills a square metre.
        texture="groundplane",
        geom_names_expr=("terrain$",),
    )


def _sun() -> LightCfg:
    # Together with the headlight at most 1: OpenGL cuts brighter light off, but not with shadows.
    return LightCfg(
        name="sun",
        type="directional",
        pos=(-1.2, -0.9, 3.0),
        dir=(0.4, 0.3, -1.0),
        diffuse=(0.35, 0.35, 0.35),
        specular=(0.1, 0.1, 0.1),
    )


@dataclass
class TerrainEntityCfg(EntityCfg):
    """The ground under all worlds."""

    terrain_type: _TerrainType = "plane"
    """"plane" is flat and infinite, "generator" the tiles of `terrain_generator`."""

    terrain_generator: TerrainGeneratorCfg | None = None
    """What to generate; needed if terrain_type is "generator", otherwise without effect."""

    env_spacing: float | None = 2.0
    """Distance between neighbouring origins on a plane, in meters; the scene sets it."""

    max_init_terrain_level: int | None = None
    """Highest row that worlds start in; None: the last."""

    num_envs: int = 1
    """Number of worlds; the scene sets it."""

    textures: tuple[TextureCfg, ...] = field(default_factory=lambda: (_checker(),))
    """Textures to add, by default a checkerboard for the plane. For plain ground set this and
    `materials` to ()."""

    materials: tuple[MaterialCfg, ...] = field(default_factory=lambda: (_ground(),))
    """Materials to add, by default one that covers the plane with the checkerboard."""

    lights: tuple[LightCfg, ...] = field(default_factory=lambda: (_sun(),))
    """Lights to add, by default one sun, the only light with shadows: where the terrain has lights,
    those in the XML files of the entities are switched off."""

    debug_vis: bool = False
    """Show in viewers the worlds' origins, those of the tiles, and flat patches."""

    def __post_init__(self) -> None:
        if self.spec_fn is not mujoco.MjSpec:
            raise ValueError(
                "TerrainEntityCfg makes its own model, so spec_fn must not be given. To add to the "
                "scene use SceneCfg.spec_fn; to use your own ground make it an entity in "
                "SceneCfg.entities."
            )

    def build(self) -> TerrainEntity:
        """Make the terrain on the CPU; a scene passes its own device."""
        return TerrainEntity(self)


class TerrainEntity(Entity):
    """The ground, body "terrain", and the origin of each world.

    A plane has a grid of origins. On generated ground each world is on a tile: in a column, its
    ``terrain_types``, and a row, its ``terrain_levels``. Columns are shared out by the
    ``proportion`` of the sub-terrains in curriculum mode, else evenly; rows are random. Worlds do
    not meet, so several may be on a tile.

    Args:
        cfg: What ground.
        device: Where tensors live.
        seed: Seed of the ground if its cfg has none, and of the first rows. None draws one.
    """

    cfg: TerrainEntityCfg

    def __init__(self, cfg: TerrainEntityCfg, device: str = "cpu", seed: int | None = None) -> None:
        _check(cfg)
        self._device = device
        self._seed = seed
        self.streams: RandomStreams | None = None
        """Random numbers of the worlds; None uses torch's global ones. An environment sets it."""
        super().__init__(cfg)
        # The scene adds everything else to the terrain's spec, where it would count as terrain.
        self._own = {kind: super(TerrainEntity, self).elements_of(kind) for kind in PLURALS}

        self.env_origins = torch.zeros(cfg.num_envs, 3, device=device)
        """Origin of each world, (num_envs, 3). Always the same tensor, changed in place."""
        self.terrain_origins: torch.Tensor | None = None
        """Origin of each tile, (rows, columns, 3); None on a plane."""
        self.terrain_levels = torch.zeros(cfg.num_envs, dtype=torch.long, device=device)
        """Row of each world, (num_envs,)."""
        self.terrain_types = torch.zeros_like(self.terrain_levels)
        """Column of each world, (num_envs,)."""
        self.max_terrain_level = 1
        """Number of rows."""
        self.flat_patches: dict[str, torch.Tensor] = {}
        """Flat places in the world by name, each (rows, columns, patches, 3)."""
        self.flat_patch_radii: dict[str, float] = {}
        """Radius of the flat places by name, in meters."""
        if self.tiles is None:
            self.configure_env_origins()
            return
        for name, places in self.tiles.flat_patches.items():
            self.flat_patches[name] = torch.from_numpy(places).to(device, torch.float)
        self.flat_patch_radii.update(self.tiles.flat_patch_radii)
        weights = [sub.proportion for sub in self.tiles.cfg.sub_terrains.values()]
        # Without curriculum, columns are not kinds.
        share = np.array(weights) if self.tiles.cfg.curriculum else None
        self.configure_env_origins(self.tiles.terrain_origins, share)

    def configure_env_origins(
        self,
        origins: np.ndarray | torch.Tensor | None = None,
        proportions: np.ndarray | None = None,
    ) -> None:
        """Place all worlds again, on tiles or on a grid.

        Args:
            origins: Origin of each tile, (rows, columns, 3); None for a grid.
            proportions: Weight of each column; None for equal ones.
        """
        count, device = self.cfg.num_envs, self._device
        if origins is None:
            if self.cfg.env_spacing is None:
                raise ValueError(
                    "A plane needs env_spacing, the distance between the worlds' origins."
                )
            self.terrain_origins = None
            self.env_origins.copy_(grid_origins(count, self.cfg.env_spacing, device))
            return
        tiles = torch.as_tensor(origins).to(device, torch.float)
        self.terrain_origins = tiles
        rows, columns = tiles.shape[:2]
        self.max_terrain_level = rows
        highest = rows - 1
        if self.cfg.max_init_terrain_level is not None:
            highest = min(self.cfg.max_init_terrain_level, highest)
        # The first rows do not depend on the worlds' streams, which start with the first episode.
        seed = self._seed
        if seed is None and self.tiles is not None:
            seed = self.tiles.seed
        rng = np.random.default_rng(None if seed is None else [seed, _LEVELS])
        levels = torch.from_numpy(rng.integers(0, highest + 1, count)).to(device)
        types = torch.from_numpy(spread_over_columns(count, columns, proportions)).to(device)
        self._place(torch.arange(count, device=device), levels, types)

    def update_env_origins(
        self, env_ids: torch.Tensor, move_up: torch.Tensor, move_down: torch.Tensor
    ) -> None:
        """Move worlds to the next row or the one before; beyond the last row to a random one.

        Args:
            env_ids: Numbers of the worlds.
            move_up: Which of them move to the next row, bool (len(env_ids),).
            move_down: Which of them move to the row before.
        """
        if self.terrain_origins is None:
            return
        levels = self.terrain_levels[env_ids] + move_up.long() - move_down.long()
        again = self._draw(self.max_terrain_level, env_ids)
        levels = torch.where(levels >= self.max_terrain_level, again, levels.clamp(min=0))
        self._place(env_ids, levels, self.terrain_types[env_ids])

    def randomize_env_origins(self, env_ids: torch.Tensor) -> None:
        """Move worlds to random tiles."""
        if self.terrain_origins is None:
            return
        rows, columns = self.terrain_origins.shape[:2]
        levels = self._draw(rows, env_ids)
        self._place(env_ids, levels, self._draw(columns, env_ids))

    def set_levels(self, levels: torch.Tensor) -> None:
        """Move worlds to these rows; if their number differs, as many worlds to each in proportion.

        Args:
            levels: Rows, such as the ``terrain_levels`` of an earlier run.
        """
        if self.terrain_origins is None:
            return
        count = self.cfg.num_envs
        if len(levels) != count:
            at = torch.arange(count, device=levels.device) * len(levels) // count
            levels = levels[at]
        levels = levels.to(self._device).clamp(0, self.max_terrain_level - 1)
        ids = torch.arange(count, device=self._device)
        self._place(ids, levels, self.terrain_types)

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Draw origins and flat patches, if the cfg asks for it."""
        if not self.cfg.debug_vis:
            return
        shown = visualizer.get_env_indices(len(self.env_origins))
        origins = self.env_origins.cpu()[list(shown)]
        visualizer.add_sphere(origins, 0.3, (0.2, 0.6, 0.2, 0.3), label="env_origin")
        if self.terrain_origins is None:
            return
        tiles = self.terrain_origins.reshape(-1, 3)
        visualizer.add_sphere(tiles, 0.5, (0.2, 0.2, 0.6, 0.3), label="terrain_origin")
        for name, patches in self.flat_patches.items():
            places = patches.reshape(-1, 3).cpu()
            above = places + torch.tensor([0.0, 0.0, 0.02])
            radius, color = self.flat_patch_radii[name], (0.9, 0.6, 0.1, 0.3)
            visualizer.add_cylinder(places, above, radius, color, label=f"flat_patch_{name}")

    def elements_of(self, kind: Kind) -> tuple:
        """The terrain's own parts of one kind."""
        return self._own[kind] if hasattr(self, "_own") else super().elements_of(kind)

    def _place(self, env_ids: torch.Tensor, levels: torch.Tensor, types: torch.Tensor) -> None:
        """Put worlds on these tiles, in place."""
        assert self.terrain_origins is not None
        self.terrain_levels[env_ids] = levels
        self.terrain_types[env_ids] = types
        self.env_origins[env_ids] = self.terrain_origins[levels, types]

    def _draw(self, below: int, env_ids: torch.Tensor) -> torch.Tensor:
        """A random number for each world, from 0; those of the others do not affect it."""
        if self.streams is not None:
            return self.streams.integers(0, below, (len(env_ids),), env_ids)
        return torch.randint(0, below, (len(env_ids),), device=self._device)

    def _build_spec(self) -> None:
        self._spec = mujoco.MjSpec()
        if self.cfg.terrain_type == "generator":
            assert self.cfg.terrain_generator is not None
            self.tiles = TerrainGenerator(self.cfg.terrain_generator, self._device, self._seed)
            self.tiles.compile(self._spec)
            return
        self.tiles = None
        self._spec.worldbody.add_body(name="terrain").add_geom(
            name="terrain",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=(0.0, 0.0, 0.01),
        )

    def _apply_spec_editors(self) -> None:
        if self.tiles is None:
            super()._apply_spec_editors()
            return
        # The defaults are for a plane: tiles have colours of their own.
        cfg = self.cfg
        textures = tuple(texture for texture in cfg.textures if texture != _checker())
        materials = tuple(material for material in cfg.materials if material != _ground())
        self.cfg = dataclasses.replace(cfg, textures=textures, materials=materials)
        try:
            super()._apply_spec_editors()
        finally:
            self.cfg = cfg


def _check(cfg: TerrainEntityCfg) -> None:
    types = get_args(_TerrainType)
    if cfg.terrain_type not in types:
        raise ValueError(
            f"Unknown terrain_type {cfg.terrain_type!r}. {nearest(str(cfg.terrain_type), types)}"
        )
    if cfg.terrain_type == "generator" and not isinstance(
        cfg.terrain_generator, TerrainGeneratorCfg
    ):
        raise ValueError(
            'TerrainEntityCfg.terrain_type is "generator", so terrain_generator must be a'
            f" TerrainGeneratorCfg, got {cfg.terrain_generator!r}. Give one, such as"
            ' mjlab_rec.terrains.config.ROUGH_TERRAINS_CFG, or use terrain_type="plane".'
        )
    if cfg.num_envs < 1:
        raise ValueError(f"TerrainEntityCfg.num_envs must be at least 1, got {cfg.num_envs}.")
    if cfg.max_init_terrain_level is not None and cfg.max_init_terrain_level < 0:
        raise ValueError(
            "TerrainEntityCfg.max_init_terrain_level must be 0 or above, got"
            f" {cfg.max_init_terrain_level}."
        )
