"""Configuration of the camera and of the image it takes."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(kw_only=True)
class ViewerConfig:
    """Where the camera stands, what it follows and what the image shows."""

    class OriginType(enum.Enum):
        """What the camera looks at."""

        AUTO = enum.auto()
        """The first body that can move; in a scene without one, the point ``lookat``."""
        WORLD = enum.auto()
        """The point ``lookat`` of the world."""
        ASSET_ROOT = enum.auto()
        """The root body of the entity ``entity_name``."""
        ASSET_BODY = enum.auto()
        """The body ``body_name`` of the entity ``entity_name``."""

    camera: str | int | None = None
    """Name or number of a camera of the model to look through, such as "robot/front". None takes a
    free camera, which the other fields describe."""

    origin_type: OriginType = OriginType.AUTO
    """What the camera looks at, and follows if it is a body."""

    height: int = 240
    """Image height in pixels."""

    width: int = 320
    """Image width in pixels."""

    enable_reflections: bool = True
    """Draw reflections of materials that reflect."""

    enable_shadows: bool = True
    """Draw shadows. Without them, software rendering is several times faster."""

    geom_group: tuple[int, int, int, int, int, int] = (1, 1, 1, 0, 0, 0)
    """Which of MuJoCo's six geom groups are drawn."""

    site_group: tuple[int, int, int, int, int, int] = (1, 1, 1, 0, 0, 0)
    """Which of MuJoCo's six site groups are drawn."""

    env_idx: int = 0
    """The environment in the picture."""

    max_extra_envs: int = 2
    """How many of the nearest other environments are drawn too."""

    distance: float = 5.0
    """Distance of the camera from what it looks at, in metres."""

    elevation: float = -45.0
    """Angle of the camera's view above the horizon, in degrees; negative looks down."""

    azimuth: float = 90.0
    """Direction of the camera's view around the vertical, in degrees; 0 looks along +x."""

    fovy: float | None = None
    """Vertical field of view in degrees. None takes the model's."""

    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point to look at where no body is followed."""

    entity_name: str | None = None
    """The entity to follow. None takes the only one, if the scene has only one."""

    body_name: str | None = None
    """The body to follow, for ``ASSET_BODY``."""
