"""The ground, and where on it each world has its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import torch

from mjlab_rec.entity import Entity, EntityCfg
from mjlab_rec.entity.names import PLURALS, Kind
from mjlab_rec.utils.spec_config import LightCfg, MaterialCfg, TextureCfg


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

    terrain_type: Literal["plane"] = "plane"
    """Shape of the ground. Height fields and generated terrain are not supported yet."""

    terrain_generator: None = None
    """What generates the ground; not supported yet, so None."""

    env_spacing: float | None = 2.0
    """Distance between neighbouring origins, in meters; the scene sets it."""

    max_init_terrain_level: int | None = None
    """No effect, accepted so that tasks port: a plane has no levels."""

    num_envs: int = 1
    """Number of worlds; the scene sets it."""

    textures: tuple[TextureCfg, ...] = field(default_factory=lambda: (_checker(),))
    """Textures to add, by default a checkerboard. For plain ground set this and `materials`
    to ()."""

    materials: tuple[MaterialCfg, ...] = field(default_factory=lambda: (_ground(),))
    """Materials to add, by default one that covers the ground with the checkerboard."""

    lights: tuple[LightCfg, ...] = field(default_factory=lambda: (_sun(),))
    """Lights to add, by default one sun, the only light with shadows: where the terrain has lights,
    those in the XML files of the entities are switched off."""

    def __post_init__(self) -> None:
        if self.terrain_type != "plane":
            raise ValueError(
                f"Unknown terrain_type '{self.terrain_type}'. Known: plane. Height fields and "
                "generated terrain are not supported yet; add geoms with SceneCfg.spec_fn."
            )
        if self.terrain_generator is not None:
            raise ValueError(
                f"TerrainEntityCfg.terrain_generator must be None, got {self.terrain_generator!r}: "
                "generated terrain is not supported yet, and a plane needs none."
            )
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
    """The ground: body and geom "terrain", a grid of origins, and a light."""

    cfg: TerrainEntityCfg

    def __init__(self, cfg: TerrainEntityCfg, device: str = "cpu") -> None:
        super().__init__(cfg)
        if cfg.env_spacing is None:
            raise ValueError("A plane needs env_spacing, the distance between the worlds' origins.")
        self.env_origins = grid_origins(cfg.num_envs, cfg.env_spacing, device)
        """Origin of each world, (num_envs, 3)."""
        # The scene adds everything else to the terrain's spec, where it would count as terrain.
        self._own = {kind: super(TerrainEntity, self).elements_of(kind) for kind in PLURALS}

    def elements_of(self, kind: Kind) -> tuple:
        """The terrain's own parts of one kind."""
        return self._own[kind] if hasattr(self, "_own") else super().elements_of(kind)

    def _build_spec(self) -> None:
        spec = mujoco.MjSpec()
        spec.worldbody.add_body(name="terrain").add_geom(
            name="terrain",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=(0.0, 0.0, 0.01),
        )
        self._spec = spec


def grid_origins(num_envs: int, spacing: float, device: str) -> torch.Tensor:
    """Origins on a centered grid that is about square, (num_envs, 3)."""
    rows = math.ceil(num_envs / math.isqrt(num_envs))
    columns = math.ceil(num_envs / rows)
    number = torch.arange(num_envs, device=device)
    origins = torch.zeros(num_envs, 3, device=device)
    origins[:, 0] = ((rows - 1) / 2 - number // columns) * spacing
    origins[:, 1] = (number % columns - (columns - 1) / 2) * spacing
    return origins
