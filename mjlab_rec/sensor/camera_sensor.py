"""Camera sensors: colours, depth and segmentation, seen by a camera in every world."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import mujoco
import torch

from mjlab_rec.sensor.sensor import SensorCfg
from mjlab_rec.sensor.sensor_context import ContextSensor, SensorContext
from mjlab_rec.sim.cameras import CameraDataType, CameraLook, CameraView
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

_DEFAULT_FOVY = 45.0  # MuJoCo's, in degrees.
_NUM_GROUPS = mujoco.mjNGROUP
_SHARED = ("use_textures", "use_shadows", "enabled_geom_groups")


@dataclass
class CameraSensorCfg(SensorCfg):
    """A camera, which is one of the model or a new one.

    ``use_textures``, ``use_shadows`` and ``enabled_geom_groups`` must be the same for all camera
    sensors of a scene.
    """

    camera_name: str | None = None
    """Name of an existing camera, such as "robot/wrist". None makes a new one, called like the
    sensor."""

    parent_body: str | None = None
    """Name of the body that a new camera is attached to, such as "robot/hand"; None attaches it to
    the world."""

    pos: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Position of a new camera, in the frame of the body or the world."""

    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation of a new camera (w, x, y, z), in the same frame. It looks along its own -z, with
    +x to the right and +y up."""

    fovy: float | None = None
    """Vertical field of view in degrees; for an orthographic camera the height of the picture in
    metres. None keeps that of an existing camera, and is 45 for a new one."""

    width: int = 160
    """Width of the pictures in pixels."""

    height: int = 120
    """Height of the pictures in pixels."""

    data_types: tuple[CameraDataType, ...] = ("rgb",)
    """Kinds of pictures: "rgb", "depth", "segmentation"."""

    use_textures: bool = True
    """Draw textures."""

    use_shadows: bool = False
    """Draw shadows."""

    enabled_geom_groups: tuple[int, ...] = (0, 1, 2)
    """The geom groups that cameras see, of 0 to 5."""

    orthographic: bool = False
    """Use an orthographic projection: without perspective."""

    clone_data: bool = False
    """Whether every read returns a copy, which may be changed. Otherwise all reads of a picture
    return the same tensors."""

    update_period: float = 0.0
    """Seconds of simulated time between two pictures of a world. 0 takes one whenever the
    simulation has changed."""

    def __post_init__(self) -> None:
        known = get_args(CameraDataType)
        if isinstance(self.data_types, str):
            self._fail("data_types", f"must be a tuple, such as ({self.data_types!r},)")
        if not self.data_types:
            self._fail("data_types", f"is empty; choose of {', '.join(known)}")
        for kind in self.data_types:
            if kind not in known:
                self._fail(
                    "data_types",
                    f"has an unknown kind of picture {kind!r}. {nearest(str(kind), known)}",
                )
        for name in ("width", "height"):
            if not getattr(self, name) >= 1:
                self._fail(name, f"must be at least 1 pixel, got {getattr(self, name)}")
        if self.fovy is not None and not (
            self.fovy > 0.0 and (self.orthographic or self.fovy < 180.0)
        ):
            unit = "metres, more than 0" if self.orthographic else "degrees, between 0 and 180"
            self._fail("fovy", f"must be in {unit}, got {self.fovy}")
        outside = [group for group in self.enabled_geom_groups if group not in range(_NUM_GROUPS)]
        if outside:
            self._fail(
                "enabled_geom_groups",
                f"has {outside[0]}; MuJoCo's geom groups are 0 to {_NUM_GROUPS - 1}",
            )
        if not self.update_period >= 0.0:
            self._fail("update_period", f"must be 0 or a time in seconds, got {self.update_period}")

    def build(self) -> CameraSensor:
        """Make the sensor."""
        return CameraSensor(self)

    def _fail(self, name: str, problem: str) -> None:
        raise ValueError(f"Camera sensor '{self.name}': {name} {problem.rstrip('.')}.")


@dataclass
class CameraSensorData:
    """The pictures of a camera sensor; None for kinds that its cfg does not ask for."""

    rgb: torch.Tensor | None = None
    """Colours: (num_envs, height, width, 3), uint8."""

    depth: torch.Tensor | None = None
    """Distance along the direction in which the camera looks, in metres: (num_envs, height, width,
    1), float32. 0 where there is nothing."""

    segmentation: torch.Tensor | None = None
    """What is seen: (num_envs, height, width, 2), int32, the number of the object and its type (of
    ``mujoco.mjtObj``: a geom or a flex). Both are -1 where there is nothing."""


class CameraSensor(ContextSensor[CameraSensorData]):
    """A camera whose pictures of all worlds are drawn together, when they are read.

    MuJoCo-Warp's ray tracer draws them, with either engine and without OpenGL, from the derived
    quantities of that moment. It shows what each world's model fields say: colours, materials,
    lights, sizes, meshes, the pose and the field of view of cameras.
    """

    senses: ClassVar[Literal["rays", "pictures"]] = "pictures"

    def __init__(self, cfg: CameraSensorCfg) -> None:
        super().__init__(cfg.name, cfg.update_period)
        self.cfg = cfg
        self._view: CameraView | None = None
        self._look = CameraLook(
            use_textures=cfg.use_textures,
            use_shadows=cfg.use_shadows,
            geom_groups=tuple(sorted(set(cfg.enabled_geom_groups))),
        )

    @property
    def camera_name(self) -> str:
        """Name of the camera in the model."""
        return self.cfg.name if self.cfg.camera_name is None else self.cfg.camera_name

    @property
    def camera_idx(self) -> int:
        """Number of the camera in the model; -1 before ``initialize``."""
        return -1 if self._view is None else self._view.camera

    def edit_spec(self, scene_spec: mujoco.MjSpec, entities: dict[str, Entity]) -> None:
        """Add the camera, or adapt the existing one."""
        cfg, names = self.cfg, [camera.name for camera in scene_spec.cameras]
        projection = mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC
        if cfg.camera_name is not None:
            camera: Any = next((c for c in scene_spec.cameras if c.name == cfg.camera_name), None)
            if camera is None:
                raise ValueError(
                    f"Camera sensor '{self.name}': the scene has no camera '{cfg.camera_name}'. "
                    + (nearest(cfg.camera_name, names) if names else "It has none; ")
                    + ("" if names else "set camera_name=None to add one.")
                )
            if cfg.fovy is not None:
                camera.fovy = cfg.fovy
            if cfg.orthographic:
                camera.proj = projection
            return
        if self.name in names:
            raise ValueError(
                f"Camera sensor '{self.name}': the scene already has a camera of that name. To use"
                f" it, set camera_name='{self.name}'; for a new one, choose another name."
            )
        parent = scene_spec.worldbody
        if cfg.parent_body is not None:
            bodies = [body.name for body in scene_spec.bodies]
            if cfg.parent_body not in bodies:
                raise ValueError(
                    f"Camera sensor '{self.name}': the scene has no body '{cfg.parent_body}' for"
                    f" parent_body. {nearest(cfg.parent_body, bodies)}"
                )
            parent = scene_spec.body(cfg.parent_body)
        if not cfg.orthographic:
            projection = mujoco.mjtProjection.mjPROJ_PERSPECTIVE
        parent.add_camera(
            name=self.name,
            pos=cfg.pos,
            quat=cfg.quat,
            fovy=_DEFAULT_FOVY if cfg.fovy is None else cfg.fovy,
            resolution=[cfg.width, cfg.height],
            proj=projection,
        )

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Find the camera in the model."""
        super().initialize(mj_model, model, data, device)
        names = [mj_model.camera(i).name for i in range(mj_model.ncam)]
        if self.camera_name not in names:
            raise ValueError(
                f"Camera sensor '{self.name}': the compiled model has no camera"
                f" '{self.camera_name}'. {nearest(self.camera_name, names)}"
            )
        self._view = CameraView(
            camera=names.index(self.camera_name),
            width=self.cfg.width,
            height=self.cfg.height,
            data_types=tuple(dict.fromkeys(self.cfg.data_types)),
        )

    def set_context(self, context: SensorContext) -> None:
        """Compute data with what this context provides."""
        super().set_context(context)
        first = context.camera_sensors[0]
        if isinstance(first, CameraSensor) and first._look != self._look:
            for name in _SHARED:
                mine, other = getattr(self.cfg, name), getattr(first.cfg, name)
                if mine != other:
                    raise ValueError(
                        f"Camera sensors must agree on {name}: it is {other} in '{first.name}' and"
                        f" {mine} in '{self.name}'. Use the same in all camera sensors of a scene."
                    )

    @property
    def data(self) -> CameraSensorData:
        """The current pictures, or the last ones with an update period."""
        data = super().data
        if not self.cfg.clone_data:
            return data
        pictures = {kind: getattr(data, kind) for kind in self.cfg.data_types}
        return dataclasses.replace(data, **{k: p.clone() for k, p in pictures.items()})

    def _measure(self, worlds: torch.Tensor | None) -> CameraSensorData:
        assert self._view is not None
        return CameraSensorData(**self.context.cameras(self._look).draw(self._view, worlds))
