"""Configuration of the camera and its image, and its meaning for a model."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    import mujoco

    from mjlab_rec.scene import Scene

RendererName = Literal["auto", "gl", "warp"]


@dataclass(kw_only=True)
class ViewerConfig:
    """Position of the camera, what it follows and what the image shows."""

    class OriginType(enum.Enum):
        """What the camera looks at."""

        AUTO = enum.auto()
        """The first body that can move; in a scene without one, the point ``lookat``."""
        WORLD = enum.auto()
        """The point ``lookat`` in the world."""
        ASSET_ROOT = enum.auto()
        """The root body of the entity ``entity_name``."""
        ASSET_BODY = enum.auto()
        """The body ``body_name`` of the entity ``entity_name``."""

    renderer: RendererName = "auto"
    """What draws: "gl" is MuJoCo with OpenGL, "warp" MuJoCo-Warp's ray tracer, which needs no
    OpenGL and no display. "auto" uses OpenGL if it works, unless there is no graphics card and the
    meshes have enough faces for the ray tracer to be faster."""

    camera: str | int | None = None
    """Name or number of a camera of the model to look through, such as "robot/front". None uses a
    free camera, which the other fields describe."""

    origin_type: OriginType = OriginType.AUTO
    """What the camera looks at, and follows if it is a body."""

    height: int = 480
    """Image height in pixels."""

    width: int = 640
    """Image width in pixels."""

    enable_reflections: bool = True
    """Draw reflections of materials that reflect (OpenGL only)."""

    enable_shadows: bool = True
    """Draw shadows. Without them, software rendering is several times faster."""

    geom_group: tuple[int, int, int, int, int, int] = (1, 1, 1, 0, 0, 0)
    """Which of MuJoCo's six geom groups to draw."""

    site_group: tuple[int, int, int, int, int, int] = (1, 1, 1, 0, 0, 0)
    """Which of MuJoCo's six site groups to draw (OpenGL only)."""

    debug_vis: bool = False
    """Also draw what terms, sensors and the terrain draw to explain themselves, such as the arrow
    of a command: those whose own ``debug_vis`` is on. Viewers can switch it on and off."""

    env_idx: int = 0
    """The environment to draw."""

    max_extra_envs: int = 2
    """How many of the nearest other environments to draw too (OpenGL only)."""

    distance: float = 5.0
    """Distance of the camera from what it looks at, in metres."""

    elevation: float = -45.0
    """Angle of the camera's view above the horizon, in degrees; negative looks down."""

    azimuth: float = 90.0
    """Direction of the camera's view around the vertical, in degrees; 0 looks along +x."""

    fovy: float | None = None
    """Vertical field of view in degrees. None uses the model's."""

    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point to look at if no body is followed."""

    entity_name: str | None = None
    """The entity to follow. None means the only one, if the scene has only one."""

    body_name: str | None = None
    """The body to follow, for ``ASSET_BODY``."""

    def seen_from(
        self, position: Sequence[float], lookat: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> ViewerConfig:
        """Return a copy with a fixed camera at a position, which looks at a point in the world."""
        position, lookat = tuple(map(float, position)), tuple(map(float, lookat))
        distance = math.dist(position, lookat) if len(position) == len(lookat) == 3 else 0.0
        if not 0.0 < distance < math.inf:
            raise ValueError(
                f"A camera at {position} cannot look at {lookat}; give two different points of"
                " three numbers each."
            )
        x, y, z = (to - at for at, to in zip(position, lookat, strict=True))
        return dataclasses.replace(
            self,
            camera=None,
            origin_type=ViewerConfig.OriginType.WORLD,
            lookat=lookat,
            distance=distance,
            azimuth=math.degrees(math.atan2(y, x)),
            elevation=math.degrees(math.asin(z / distance)),
        )


def camera_id(camera: str | int, model: mujoco.MjModel) -> int:
    """Return the id of a camera of the model, given its name or number."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, int):
        if not 0 <= camera < model.ncam:
            raise ValueError(f"There is no camera {camera}: the model has {model.ncam}: {names}.")
        return camera
    if camera not in names:
        raise ValueError(f"There is no camera {camera!r}. {nearest(camera, names)}")
    return names.index(camera)


def check_env_ids(env_ids: Sequence[int], num_envs: int) -> None:
    """Raise for environments that do not exist."""
    for env_idx in env_ids:
        if not 0 <= env_idx < num_envs:
            raise ValueError(
                f"env_idx is {env_idx}, but there are {num_envs} environments: choose 0"
                f" to {num_envs - 1}."
            )


def followed_body(cfg: ViewerConfig, model: mujoco.MjModel, scene: Scene) -> int | None:
    """Return the body that the camera looks at; None for a fixed point."""
    kinds = ViewerConfig.OriginType
    if cfg.origin_type is kinds.WORLD:
        return None
    if cfg.origin_type is kinds.AUTO:
        moves = model.body_weldid != 0
        placed = model.body_mocapid[model.body_rootid] >= 0
        movable = np.flatnonzero(moves | placed)
        return int(movable[0]) if len(movable) else None

    names = list(scene.entities)
    name = cfg.entity_name
    if name is None and len(names) == 1:
        name = names[0]
    if name not in scene.entities:
        given = "is not set" if name is None else f"is {name!r}"
        raise ValueError(
            f"ViewerConfig.entity_name {given}, but origin_type {cfg.origin_type.name} follows an"
            f" entity. {nearest(name or '', names)}"
        )
    entity = scene.entities[name]
    if cfg.origin_type is kinds.ASSET_ROOT:
        return entity.indexing.root_body_id
    if cfg.body_name not in entity.body_names:
        raise ValueError(
            f"ViewerConfig.body_name is {cfg.body_name!r}, which is not a body of {name!r}."
            f" {nearest(cfg.body_name or '', entity.body_names)}"
        )
    return int(entity.indexing.body_ids[entity.body_names.index(cfg.body_name)])


def check_cfg(cfg: ViewerConfig) -> None:
    """Raise for values that no renderer can draw."""
    if cfg.width < 1 or cfg.height < 1:
        raise ValueError(
            f"ViewerConfig.width and height are {cfg.width} x {cfg.height}; both must be positive."
        )
    if cfg.max_extra_envs < 0:
        raise ValueError(
            f"ViewerConfig.max_extra_envs is {cfg.max_extra_envs}; it must not be negative."
        )
