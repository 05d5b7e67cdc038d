"""Ray sensors: how far it is to what surrounds a body, along patterns of rays.

Shapes: F is the number of frames, N the number of rays, which is F times that of the pattern. All
rays of the first frame come first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import mujoco
import torch

from mjlab_rec.sensor.builtin_sensor import ObjRef
from mjlab_rec.sensor.ray_patterns import GridPatternCfg as GridPatternCfg
from mjlab_rec.sensor.ray_patterns import PatternCfg as PatternCfg
from mjlab_rec.sensor.ray_patterns import PinholeCameraPatternCfg as PinholeCameraPatternCfg
from mjlab_rec.sensor.ray_patterns import RingPatternCfg as RingPatternCfg
from mjlab_rec.sensor.sensor import SensorCfg
from mjlab_rec.sensor.sensor_context import ContextSensor, SensorContext
from mjlab_rec.sim.ray_spec import FrameType, RayAlignment, RaySpec
from mjlab_rec.utils.math import matrix_from_quat
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.sim.ray_caster import RayCaster
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

T = TypeVar("T", bound="RayCastData")

Color = tuple[float, float, float, float]

_STEEP = 0.1  # As in the kernel of the rays.


@dataclass
class RayCastSensorCfg(SensorCfg):
    """Casts a pattern of rays from one or several frames."""

    @dataclass
    class VizCfg:
        """How the rays are drawn. Lengths are multiples of the visualizer's mean size."""

        hit_color: Color = (0.0, 1.0, 0.0, 0.8)
        """Colour of rays that hit something."""

        miss_color: Color = (1.0, 0.0, 0.0, 0.4)
        """Colour of rays that hit nothing, of which a short piece is drawn."""

        hit_sphere_color: Color = (0.0, 1.0, 1.0, 1.0)
        """Colour of the spheres at hits."""

        hit_sphere_radius: float = 0.5
        """Radius of the spheres at hits."""

        show_rays: bool = False
        """Whether to draw the rays as arrows."""

        show_normals: bool = False
        """Whether to draw the normals of what was hit."""

        normal_color: Color = (1.0, 1.0, 0.0, 1.0)
        """Colour of the normals."""

        normal_length: float = 5.0
        """Length of the normals."""

    frame: ObjRef | tuple[ObjRef, ...]
    """Body, site or geom that carries the rays, or several of them, such as the feet."""

    pattern: PatternCfg = field(default_factory=GridPatternCfg)
    """Where the rays start and point, in the frame."""

    ray_alignment: RayAlignment = "base"
    """What the pattern turns with: "base" with the frame, "yaw" only with its heading, "world" not
    at all. Its centre is always the frame's position."""

    max_distance: float = 10.0
    """Hits that are further away count as misses, in meters."""

    exclude_parent_body: bool = True
    """Whether rays pass through the body that they are attached to; each frame's through its
    own."""

    include_geom_groups: tuple[int, ...] | None = (0, 1, 2)
    """Geom groups, 0 to 5, that rays can hit; None for all."""

    debug_vis: bool = False
    """Whether viewers draw the rays."""

    viz: VizCfg = field(default_factory=VizCfg)
    """How they are drawn."""

    update_period: float = 0.0
    """Seconds for which a world's last values are held, as by a sensor with a rate of its own; 0
    to cast rays in every step in which they are read."""

    def build(self) -> RayCastSensor[Any]:
        """Make the sensor."""
        return RayCastSensor(self)


@dataclass
class RayCastData:
    """What the rays hit. Never changes later."""

    distances: torch.Tensor
    """(num_envs, N): distance to the hit, -1 for a miss."""

    normals_w: torch.Tensor
    """(num_envs, N, 3): outward normal of the surface in the world, 0 for a miss."""

    hit_pos_w: torch.Tensor
    """(num_envs, N, 3): place of the hit in the world, where the ray starts for a miss."""

    pos_w: torch.Tensor
    """(num_envs, 3): position of the first frame in the world."""

    quat_w: torch.Tensor
    """(num_envs, 4): orientation of the first frame in the world."""

    frame_pos_w: torch.Tensor
    """(num_envs, F, 3): positions of all frames in the world."""

    frame_quat_w: torch.Tensor
    """(num_envs, F, 4): orientations of all frames in the world."""


class RayCastSensor(ContextSensor[T]):
    """A pattern of rays from each of its frames."""

    senses = "rays"

    def __init__(self, cfg: RayCastSensorCfg) -> None:
        super().__init__(cfg.name, cfg.update_period)
        self.cfg = cfg
        self._spec: RaySpec | None = None
        self._caster: RayCaster | None = None
        self._frame_names: list[str] = []
        self._debug_vis_enabled = True

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._frame_names)

    @property
    def num_rays_per_frame(self) -> int:
        """Number of rays of the pattern."""
        return len(self._ready().offsets)

    @property
    def num_rays(self) -> int:
        """Number of all rays."""
        return self.num_frames * self.num_rays_per_frame

    @property
    def include_geom_groups(self) -> tuple[int, ...] | None:
        """Geom groups that rays can hit; None for all."""
        return self.cfg.include_geom_groups

    @property
    def element_names(self) -> dict[str, tuple[str, ...]]:
        """A name for each element of the fields of `data`, for recordings."""
        rays = [f"{f}.{i}" for f in self._frame_names for i in range(self.num_rays_per_frame)]

        def with_axes(names: list[str], axes: str) -> tuple[str, ...]:
            return tuple(f"{name}.{axis}" for name in names for axis in axes)

        return {
            "distances": tuple(rays),
            "normals_w": with_axes(rays, "xyz"),
            "hit_pos_w": with_axes(rays, "xyz"),
            "pos_w": tuple("xyz"),
            "quat_w": tuple("wxyz"),
            "frame_pos_w": with_axes(self._frame_names, "xyz"),
            "frame_quat_w": with_axes(self._frame_names, "wxyz"),
        }

    def edit_spec(self, scene_spec: mujoco.MjSpec, entities: dict[str, Entity]) -> None:
        """Change nothing: rays are no sensors of MuJoCo's."""

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Find the frames, and make the pattern."""
        super().initialize(mj_model, model, data, device)
        cfg = self.cfg
        frames = (cfg.frame,) if isinstance(cfg.frame, ObjRef) else tuple(cfg.frame)
        if not frames:
            raise ValueError(
                f"Ray sensor '{cfg.name}' has no frame. Give it the body, site or geom that carries"
                " the rays: RayCastSensorCfg(frame=ObjRef(type='body', name=..., entity=...))."
            )
        if cfg.ray_alignment not in get_args(RayAlignment):
            raise ValueError(
                f"Ray sensor '{cfg.name}': unknown ray_alignment '{cfg.ray_alignment}'."
                f" {nearest(cfg.ray_alignment, get_args(RayAlignment))}"
            )
        if not cfg.max_distance > 0.0:
            raise ValueError(
                f"Ray sensor '{cfg.name}': max_distance must be positive, got {cfg.max_distance}."
            )
        found = [self._find(mj_model, frame) for frame in frames]
        try:
            offsets, directions = cfg.pattern.generate_rays(mj_model, device)
        except ValueError as error:
            raise ValueError(f"Ray sensor '{cfg.name}': {error}") from error
        if len(offsets) == 0:
            raise ValueError(f"Ray sensor '{cfg.name}': its pattern {cfg.pattern} has no rays.")
        self._frame_names = [frame.name for frame in frames]
        self._spec = RaySpec(
            frames=[(kind, index) for kind, index, _ in found],
            offsets=offsets,
            directions=directions,
            alignment=cfg.ray_alignment,
            max_distance=cfg.max_distance,
            groups=self._groups(),
            excluded_bodies=[body if cfg.exclude_parent_body else -1 for *_, body in found],
        )
        self._caster = None

    def set_context(self, context: SensorContext) -> None:
        """Cast rays in the simulation of this context."""
        super().set_context(context)
        self._caster = None

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Draw the rays, what they hit, and the normals there, as ``cfg.viz`` asks for."""
        if not self.cfg.debug_vis or not self._debug_vis_enabled:
            return
        data, viz, unit = self.data, self.cfg.viz, visualizer.meansize
        shown = visualizer.env_idx
        for env in visualizer.get_env_indices(len(data.distances)):
            starts, directions = self._in_world(data, env)
            hit = (data.distances[env] >= 0.0).cpu()
            ends = data.hit_pos_w[env].cpu()
            visualizer.env_idx = env
            if viz.show_rays:
                short = min(0.5, 0.05 * self.cfg.max_distance)
                shorts = starts[~hit] + short * directions[~hit]
                for color, first, last in (
                    (viz.hit_color, starts[hit], ends[hit]),
                    (viz.miss_color, starts[~hit], shorts),
                ):
                    if len(first):
                        visualizer.add_arrow(first, last, color, 0.1 * unit, self.name)
            if not hit.any():
                continue
            radius = viz.hit_sphere_radius * unit
            visualizer.add_sphere(ends[hit], radius, viz.hit_sphere_color, self.name)
            if viz.show_normals:
                tips = ends[hit] + viz.normal_length * unit * data.normals_w[env].cpu()[hit]
                visualizer.add_arrow(ends[hit], tips, viz.normal_color, 0.1 * unit, self.name)
        visualizer.env_idx = shown

    def _measure(self, worlds: torch.Tensor | None) -> T:
        spec = self._ready()
        if self._caster is None:
            self._caster = self.context.sim.ray_caster(spec)
        hits = self._caster.cast(worlds)
        data = RayCastData(
            distances=hits.distances,
            normals_w=hits.normals,
            hit_pos_w=hits.points,
            pos_w=hits.frame_pos[:, 0],
            quat_w=hits.frame_quat[:, 0],
            frame_pos_w=hits.frame_pos,
            frame_quat_w=hits.frame_quat,
        )
        return self._complete(data)

    def _complete(self, data: RayCastData) -> Any:
        """Add what a subclass derives from the hits."""
        return data

    def _ready(self) -> RaySpec:
        if self._spec is None:
            raise RuntimeError(
                f"Sensor '{self.name}' has no rays yet. Call scene.initialize() first."
            )
        return self._spec

    def _groups(self) -> tuple[int, ...]:
        every = tuple(range(mujoco.mjNGROUP))
        groups = self.cfg.include_geom_groups
        if groups is None:
            return every
        unknown = [group for group in groups if group not in every]
        if unknown or not groups:
            raise ValueError(
                f"Ray sensor '{self.name}': include_geom_groups must be in [0, {mujoco.mjNGROUP}),"
                f" got {unknown[0] if unknown else 'none'}. None means all groups."
            )
        return tuple(groups)

    def _find(self, model: mujoco.MjModel, frame: ObjRef) -> tuple[FrameType, int, int]:
        """Return kind and id of a frame, and the body that it belongs to."""
        if frame.type not in get_args(FrameType):
            raise ValueError(
                f"Ray sensor '{self.name}': a frame must be 'body', 'site', or 'geom', got"
                f" '{frame.type}'."
            )
        kind: FrameType = frame.type  # type: ignore[assignment]
        objects, number = {
            "body": (model.body, model.nbody),
            "site": (model.site, model.nsite),
            "geom": (model.geom, model.ngeom),
        }[kind]
        try:
            index = int(objects(frame.prefixed_name()).id)
        except KeyError:
            known = [name for name in (objects(i).name for i in range(number)) if name]
            raise ValueError(
                f"Ray sensor '{self.name}': the scene has no {kind} '{frame.prefixed_name()}'."
                f" {nearest(frame.prefixed_name(), known)}"
            ) from None
        bodies = {"body": range(number), "site": model.site_bodyid, "geom": model.geom_bodyid}
        return kind, index, int(bodies[kind][index])

    def _in_world(self, data: RayCastData, env: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the rays of an environment start and point, on the host: (N, 3) each."""
        spec = self._ready()
        turn = matrix_from_quat(data.frame_quat_w[env].cpu())
        if spec.alignment == "world":
            turn = torch.eye(3).expand_as(turn)
        elif spec.alignment == "yaw":
            x, right = turn[:, :2, 0], turn[:, [1, 0], 1] * torch.tensor([1.0, -1.0])
            ahead = torch.where(x.norm(dim=1, keepdim=True) < _STEEP, right, x)
            c, s = (ahead / ahead.norm(dim=1, keepdim=True).clamp(min=1e-6)).unbind(1)
            o, i = torch.zeros_like(c), torch.ones_like(c)
            turn = torch.stack((c, -s, o, s, c, o, o, o, i), dim=1).view(-1, 3, 3)
        starts = torch.einsum("fij,nj->fni", turn, spec.offsets.cpu())
        starts = starts + data.frame_pos_w[env].cpu()[:, None]
        directions = torch.einsum("fij,nj->fni", turn, spec.directions.cpu())
        return starts.reshape(-1, 3), directions.reshape(-1, 3)
