"""Configuration of an entity: its model, its initial state and its actuators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mujoco

from mjlab_rec.actuator import ActuatorCfg
from mjlab_rec.utils.spec_config import (
    CameraCfg,
    CollisionCfg,
    GeomCfg,
    LightCfg,
    MaterialCfg,
    MeshCfg,
    TextureCfg,
)

if TYPE_CHECKING:
    from mjlab_rec.entity.entity import Entity


@dataclass
class EntityArticulationInfoCfg:
    """How an entity's joints are driven and limited."""

    actuators: tuple[ActuatorCfg, ...] = ()
    """The actuators, in the order of ctrl."""

    soft_joint_pos_limit_factor: float = 1.0
    """Width of the soft joint limits as a fraction of the hard ones, around the same center."""


@dataclass
class EntityCfg:
    """A robot or an object: an MJCF model, its initial state and its actuators."""

    @dataclass
    class InitialStateCfg:
        """Where the entity starts, before any event places it."""

        pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
        """Position of the root, in meters."""

        rot: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
        """Orientation of the root, a quaternion (w, x, y, z)."""

        lin_vel: tuple[float, float, float] = (0.0, 0.0, 0.0)
        """Linear velocity of a floating root in the world frame."""

        ang_vel: tuple[float, float, float] = (0.0, 0.0, 0.0)
        """Angular velocity of a floating root in the world frame."""

        joint_pos: dict[str, float] | None = field(default_factory=lambda: {".*": 0.0})
        """Joint positions by name or regex; joints not named start at 0. None takes the positions
        of the model's first keyframe."""

        joint_vel: dict[str, float] = field(default_factory=lambda: {".*": 0.0})
        """Joint velocities by name or regex; joints not named start at 0."""

    init_state: InitialStateCfg = field(default_factory=InitialStateCfg)
    """Where the entity starts."""

    spec_fn: Callable[[], mujoco.MjSpec] = mujoco.MjSpec
    """Builds the MuJoCo model, for example `lambda: MjSpec.from_file(path)`."""

    articulation: EntityArticulationInfoCfg | None = None
    """Actuators and soft limits; None for an entity without actuators."""

    sort_actuators: bool = False
    """Order ctrl by joints, then tendons, then sites, each in the model's order, rather than by
    config. Actuators of the XML keep their position."""

    lights: tuple[LightCfg, ...] = ()
    """Lights to add. Those of the model are off where the scene already has some, such as a sun."""

    cameras: tuple[CameraCfg, ...] = ()
    """Cameras to add."""

    textures: tuple[TextureCfg, ...] = ()
    """Textures to add."""

    materials: tuple[MaterialCfg, ...] = ()
    """Materials to add and to assign to geoms."""

    meshes: tuple[MeshCfg, ...] = ()
    """Changes to meshes."""

    geoms: tuple[GeomCfg, ...] = ()
    """Changes to individual attributes of geoms."""

    collisions: tuple[CollisionCfg, ...] = ()
    """Which geoms collide, and how; applied last of all these, before actuators are added."""

    def build(self) -> Entity:
        """Build the entity; override this to build one of your own class."""
        from mjlab_rec.entity.entity import Entity

        return Entity(self)
