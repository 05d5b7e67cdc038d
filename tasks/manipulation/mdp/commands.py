"""Goals: a place for an object, and a pose for the hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from mjlab_rec.envs.mdp._common import bounds
from mjlab_rec.managers import CommandTerm, CommandTermCfg
from mjlab_rec.utils.math import matrix_from_quat, quat_error_magnitude, quat_from_euler_xyz

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

_Range = tuple[float, float]
_Color = tuple[float, float, float, float]

_FIXED_TARGET = (0.3, 0.0, 0.2)


@dataclass(kw_only=True)
class LiftingCommandCfg(CommandTermCfg):
    """A place to which an object is to be lifted. Positions are from the environment's origin."""

    entity_name: str
    """The object."""

    success_threshold: float = 0.05
    """Distance from the target, in metres, within which the object has arrived."""

    difficulty: Literal["fixed", "dynamic"] = "fixed"
    """Whether the target is always the same, or drawn from ``target_position_range``."""

    @dataclass
    class TargetPositionRangeCfg:
        """Where targets are, in metres."""

        x: _Range = (0.22, 0.38)
        y: _Range = (-0.15, 0.15)
        z: _Range = (0.1, 0.25)

    target_position_range: TargetPositionRangeCfg = field(default_factory=TargetPositionRangeCfg)
    """Where targets are, if the difficulty is "dynamic"."""

    @dataclass
    class ObjectPoseRangeCfg:
        """Where the object starts, in metres, and how it is turned, in radians."""

        x: _Range = (0.24, 0.36)
        y: _Range = (-0.12, 0.12)
        z: _Range = (0.02, 0.02)
        yaw: _Range = (-math.pi, math.pi)

    object_pose_range: ObjectPoseRangeCfg | None = field(default_factory=ObjectPoseRangeCfg)
    """Where the object is put when an episode begins; None leaves that to others."""

    @dataclass
    class VizCfg:
        """How the target is drawn."""

        target_color: _Color = (1.0, 0.5, 0.0, 0.3)

    viz: VizCfg = field(default_factory=VizCfg)
    """How the target is drawn if ``debug_vis``."""

    def build(self, env: ManagerBasedRlEnv) -> LiftingCommand:
        """Make the term."""
        return LiftingCommand(self, env)


class LiftingCommand(CommandTerm):
    """Puts the object on the ground when an episode begins, and draws where it is to be lifted.

    A target that is drawn later in an episode leaves the object where it is.
    """

    cfg: LiftingCommandCfg

    def __init__(self, cfg: LiftingCommandCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.object: Entity = env.scene[cfg.entity_name]
        self.target_pos = torch.zeros(env.num_envs, 3, device=env.device)
        for name in ("object_height", "position_error", "at_goal", "episode_success"):
            self.metrics[name] = torch.zeros(env.num_envs, device=env.device)

    @property
    def command(self) -> torch.Tensor:
        """Target positions in the world: (num_envs, 3)."""
        return self.target_pos

    def compute_success(self) -> torch.Tensor:
        """Where the object is at its target now. Shape (num_envs,), bool."""
        return self._error() < self.cfg.success_threshold

    def reset(self, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Draw a target, and put the object where it starts."""
        log = super().reset(env_ids)
        where = self.cfg.object_pose_range
        if where is not None:
            pose = self._draw(env_ids, (where.x, where.y, where.z, where.yaw))
            turn = torch.zeros_like(pose[:, 3])
            quat = quat_from_euler_xyz(turn, turn, pose[:, 3])
            pos = pose[:, :3] + self._env.scene.env_origins[env_ids]
            self.object.write_root_link_pose_to_sim(torch.cat((pos, quat), dim=-1), env_ids)
            still = torch.zeros(len(env_ids), 6, device=self.device)
            self.object.write_root_link_velocity_to_sim(still, env_ids)
        return log

    def _error(self) -> torch.Tensor:
        return torch.linalg.vector_norm(self.target_pos - self.object.data.root_link_pos_w, dim=-1)

    def _update_metrics(self) -> None:
        metrics, height = self.metrics, self.object.data.root_link_pos_w[:, 2]
        torch.sub(height, self._env.scene.env_origins[:, 2], out=metrics["object_height"])
        metrics["position_error"].copy_(self._error())
        metrics["at_goal"].copy_(metrics["position_error"] < self.cfg.success_threshold)
        success = metrics["episode_success"]
        torch.maximum(success, metrics["at_goal"], out=success)

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        where = self.cfg.target_position_range
        ranges = (where.x, where.y, where.z)
        if self.cfg.difficulty == "fixed":
            ranges = tuple((value, value) for value in _FIXED_TARGET)
        self.target_pos[env_ids] = (
            self._draw(env_ids, ranges) + self._env.scene.env_origins[env_ids]
        )

    def _update_command(self, env_ids: torch.Tensor | None = None) -> None:
        """Targets stand still."""

    def _draw(self, env_ids: torch.Tensor, ranges: Sequence[_Range]) -> torch.Tensor:
        low, high = bounds(ranges, self.device)
        return self._env.rng.uniform(low, high, (len(env_ids), len(ranges)), env_ids)

    def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
        env_ids = list(visualizer.get_env_indices(self.num_envs))
        if env_ids:
            visualizer.add_sphere(self.target_pos[env_ids], 0.03, self.cfg.viz.target_color)


@dataclass(kw_only=True)
class PoseCommandCfg(CommandTermCfg):
    """A pose for a site of a robot. Positions are from the environment's origin."""

    entity_name: str
    """The robot."""

    site_name: str
    """The site whose pose is commanded, such as the point between the fingers."""

    position_threshold: float = 0.02
    """Distance in metres within which the site has arrived."""

    rotation_threshold: float = 0.2
    """Angle in radians within which it is turned as commanded."""

    @dataclass
    class Ranges:
        """Ranges to draw from: metres, and radians for rotations about fixed axes x, y, z."""

        pos_x: _Range = (0.22, 0.36)
        pos_y: _Range = (-0.18, 0.18)
        pos_z: _Range = (0.05, 0.22)
        roll: _Range = (-0.3, 0.3)
        pitch: _Range = (math.pi - 0.6, math.pi + 0.1)
        yaw: _Range = (-0.6, 0.6)

    ranges: Ranges = field(default_factory=Ranges)
    """Ranges to draw from. A pitch of pi points a hand, whose z axis leads out of it, down."""

    def build(self, env: ManagerBasedRlEnv) -> PoseCommand:
        """Make the term."""
        return PoseCommand(self, env)


class PoseCommand(CommandTerm):
    """Draws poses for a site of a robot."""

    cfg: PoseCommandCfg

    def __init__(self, cfg: PoseCommandCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.robot: Entity = env.scene[cfg.entity_name]
        self._site = self.robot.find_sites(cfg.site_name)[0][0]
        self.target = torch.zeros(env.num_envs, 7, device=env.device)
        self.target[:, 3] = 1.0
        for name in ("position_error", "rotation_error", "at_goal"):
            self.metrics[name] = torch.zeros(env.num_envs, device=env.device)

    @property
    def command(self) -> torch.Tensor:
        """Target poses in the world, position and quaternion w, x, y, z: (num_envs, 7)."""
        return self.target

    def compute_success(self) -> torch.Tensor:
        """Where the site has the commanded pose now. Shape (num_envs,), bool."""
        return self._arrived(*self.errors())

    def _arrived(self, distance: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        cfg = self.cfg
        return (distance < cfg.position_threshold) & (angle < cfg.rotation_threshold)

    def errors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance in metres and angle in radians to the commanded pose. Each (num_envs,)."""
        data, target = self.robot.data, self.target
        distance = torch.linalg.vector_norm(target[:, :3] - data.site_pos_w[:, self._site], dim=-1)
        return distance, quat_error_magnitude(target[:, 3:], data.site_quat_w[:, self._site])

    def _update_metrics(self) -> None:
        distance, angle = self.errors()
        self.metrics["position_error"].copy_(distance)
        self.metrics["rotation_error"].copy_(angle)
        self.metrics["at_goal"].copy_(self._arrived(distance, angle))

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        r = self.cfg.ranges
        low, high = bounds((r.pos_x, r.pos_y, r.pos_z, r.roll, r.pitch, r.yaw), self.device)
        draw = self._env.rng.uniform(low, high, (len(env_ids), 6), env_ids)
        self.target[env_ids, :3] = draw[:, :3] + self._env.scene.env_origins[env_ids]
        self.target[env_ids, 3:] = quat_from_euler_xyz(draw[:, 3], draw[:, 4], draw[:, 5])

    def _update_command(self, env_ids: torch.Tensor | None = None) -> None:
        """Targets stand still."""

    def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
        for i in visualizer.get_env_indices(self.num_envs):
            visualizer.add_frame(
                self.target[i, :3], matrix_from_quat(self.target[i, 3:]), scale=0.08
            )
