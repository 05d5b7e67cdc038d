"""Patterns of rays: where they start and where they point, in the frame of a sensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import torch

from mjlab_rec.utils.string import nearest

Rays = tuple[torch.Tensor, torch.Tensor]  # Starts (rays, 3) and unit vectors (rays, 3).


@dataclass
class GridPatternCfg:
    """Parallel rays that start on a rectangular grid."""

    size: tuple[float, float] = (1.0, 1.0)
    """Length along x and width along y, in meters."""

    resolution: float = 0.1
    """Distance between neighbouring rays, in meters."""

    direction: tuple[float, float, float] = (0.0, 0.0, -1.0)
    """Where all rays point, in the frame."""

    def generate_rays(self, mj_model: mujoco.MjModel | None, device: str) -> Rays:
        """Return where the rays start and point, row by row from the smallest y.

        Args:
            mj_model: Not used.
            device: Where the tensors live.
        """
        if not self.resolution > 0.0:
            raise ValueError(
                f"GridPatternCfg.resolution must be positive, got {self.resolution}: it is the"
                " distance between rays in meters."
            )
        if len(self.size) != 2 or not min(self.size) >= 0.0:
            raise ValueError(
                "GridPatternCfg.size must be a length and a width in meters, at least 0, got"
                f" {self.size}."
            )
        x, y = (self._line(size, device) for size in self.size)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        starts = torch.stack((grid_x, grid_y, torch.zeros_like(grid_x)), dim=-1).view(-1, 3)
        return starts, _parallel(self.direction, len(starts), device)

    def _line(self, size: float, device: str) -> torch.Tensor:
        """Coordinates from one end, as many as fit within half a spacing more than the size."""
        number = max(1, math.ceil(size / self.resolution + 0.5 - 1.0e-9))
        steps = torch.arange(number, dtype=torch.float64, device=device)
        return (steps * self.resolution - size / 2.0).float()


@dataclass
class RingPatternCfg:
    """Parallel rays that start on rings around the frame."""

    @dataclass
    class Ring:
        """A ring of rays."""

        radius: float
        """Distance from the frame, in meters."""

        num_samples: int
        """Number of rays on the ring, evenly spaced; the first is on the x axis."""

    rings: tuple[Ring, ...]
    """The rings."""

    include_center: bool = True
    """Whether to start with a ray in the centre."""

    direction: tuple[float, float, float] = (0.0, 0.0, -1.0)
    """Where all rays point, in the frame."""

    @classmethod
    def single_ring(
        cls,
        radius: float = 0.1,
        num_samples: int = 8,
        include_center: bool = True,
        direction: tuple[float, float, float] = (0.0, 0.0, -1.0),
    ) -> RingPatternCfg:
        """Return a pattern of one ring.

        Args:
            radius: Distance from the frame, in meters.
            num_samples: Number of rays on the ring.
            include_center: Whether to start with a ray in the centre.
            direction: Where all rays point, in the frame.
        """
        return cls((cls.Ring(radius, num_samples),), include_center, direction)

    def generate_rays(self, mj_model: mujoco.MjModel | None, device: str) -> Rays:
        """Return where the rays start and point, ring by ring.

        Args:
            mj_model: Not used.
            device: Where the tensors live.
        """
        starts = [(0.0, 0.0, 0.0)] if self.include_center else []
        for ring in self.rings:
            if not (ring.radius >= 0.0 and ring.num_samples >= 1):
                raise ValueError(
                    "A ring of RingPatternCfg needs a radius of at least 0 and at least one sample,"
                    f" got radius={ring.radius} and num_samples={ring.num_samples}."
                )
            for i in range(ring.num_samples):
                angle = 2.0 * math.pi * i / ring.num_samples
                starts.append((ring.radius * math.cos(angle), ring.radius * math.sin(angle), 0.0))
        if not starts:
            raise ValueError(
                "A RingPatternCfg without rings and with include_center=False has no rays. Add a"
                " ring, for example RingPatternCfg.single_ring(radius=0.1, num_samples=8)."
            )
        place = torch.tensor(starts, dtype=torch.float32, device=device)
        return place, _parallel(self.direction, len(starts), device)


@dataclass
class PinholeCameraPatternCfg:
    """Rays from one point through the pixels of a camera, which looks along -z with x to the right.

    The first and the last pixel of a row or column lie on the edge of the picture, and the first
    row is at the bottom, at -y.
    """

    width: int = 16
    """Pixels in a row."""

    height: int = 12
    """Pixels in a column."""

    fovy: float = 45.0
    """Vertical field of view, in degrees."""

    _camera_name: str | None = field(default=None, repr=False)

    @classmethod
    def from_mujoco_camera(cls, camera_name: str) -> PinholeCameraPatternCfg:
        """Return a pattern with the resolution and field of view of a camera of the scene.

        Args:
            camera_name: Name in the scene, with the entity: "robot/front".
        """
        return cls(width=0, height=0, fovy=0.0, _camera_name=camera_name)

    @classmethod
    def from_intrinsic_matrix(
        cls, intrinsic_matrix: Sequence[float], width: int, height: int
    ) -> PinholeCameraPatternCfg:
        """Return a pattern with square pixels and the vertical focal length of a camera.

        Args:
            intrinsic_matrix: The nine numbers fx, 0, cx, 0, fy, cy, 0, 0, 1, in pixels.
            width: Pixels in a row.
            height: Pixels in a column.
        """
        if len(intrinsic_matrix) != 9 or not intrinsic_matrix[4] > 0.0:
            raise ValueError(
                "from_intrinsic_matrix needs nine numbers fx, 0, cx, 0, fy, cy, 0, 0, 1 with fy"
                f" above 0, got {list(intrinsic_matrix)}."
            )
        fovy = 2.0 * math.degrees(math.atan(height / (2.0 * intrinsic_matrix[4])))
        return cls(width=width, height=height, fovy=fovy)

    def generate_rays(self, mj_model: mujoco.MjModel | None, device: str) -> Rays:
        """Return where the rays start and point, row by row.

        Args:
            mj_model: The model that has the camera, if the pattern is that of one.
            device: Where the tensors live.
        """
        width, height, slope_x, slope_y = self._lens(mj_model)
        u = torch.linspace(-1.0, 1.0, width, device=device) * slope_x
        v = torch.linspace(-1.0, 1.0, height, device=device) * slope_y
        grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
        directions = torch.stack((grid_u, grid_v, -torch.ones_like(grid_u)), dim=-1).view(-1, 3)
        directions = directions / directions.norm(dim=1, keepdim=True)
        return torch.zeros_like(directions), directions

    def _lens(self, mj_model: mujoco.MjModel | None) -> tuple[int, int, float, float]:
        """The resolution, and x and y of the corner ray at a distance of 1."""
        width, height, fovy = self.width, self.height, self.fovy
        where = "PinholeCameraPatternCfg"
        if self._camera_name is not None:
            where = f"Camera '{self._camera_name}'"
            model, camera = self._find_camera(mj_model)
            width, height = (int(pixels) for pixels in model.cam_resolution[camera])
            fovy = float(model.cam_fovy[camera])
            sensor_x, sensor_y = model.cam_sensorsize[camera]
            if sensor_x > 0.0 and sensor_y > 0.0:
                focal_x, focal_y = model.cam_intrinsic[camera, :2]
                return width, height, sensor_x / (2.0 * focal_x), sensor_y / (2.0 * focal_y)
        if width < 1 or height < 1 or not 0.0 < fovy < 180.0:
            raise ValueError(
                f"{where}: width and height must be at least 1 pixel and fovy between 0 and 180"
                f" degrees, got {width} x {height} and {fovy}."
            )
        slope = math.tan(math.radians(fovy) / 2.0)
        return width, height, slope * width / height, slope

    def _find_camera(self, mj_model: mujoco.MjModel | None) -> tuple[mujoco.MjModel, int]:
        if mj_model is None:
            raise ValueError("A pattern made by from_mujoco_camera needs the MuJoCo model.")
        try:
            return mj_model, int(mj_model.camera(self._camera_name).id)
        except KeyError:
            known = [mj_model.camera(i).name for i in range(mj_model.ncam)]
            raise ValueError(
                f"from_mujoco_camera: the scene has no camera '{self._camera_name}'."
                f" {nearest(self._camera_name or '', known)}"
            ) from None


PatternCfg = GridPatternCfg | PinholeCameraPatternCfg | RingPatternCfg


def _parallel(direction: tuple[float, float, float], number: int, device: str) -> torch.Tensor:
    """Repeat the unit vector along a direction."""
    vector = torch.tensor(direction, dtype=torch.float64)
    length = float(vector.norm()) if vector.shape == (3,) else math.nan
    if not (length > 0.0 and math.isfinite(length)):
        raise ValueError(
            f"The direction of a ray pattern must be three numbers that are not all 0, got"
            f" {direction}."
        )
    return (vector / length).float().to(device).repeat(number, 1)
