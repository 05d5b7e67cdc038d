"""Stock commands: velocities for a moving base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import bounds
from mjlab_rec.managers.command_manager import CommandTerm, CommandTermCfg
from mjlab_rec.utils.math import quat_apply, wrap_to_pi

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

# Commanded and actual velocities, linear and yaw.
_COLORS = ((0.2, 0.2, 0.6, 0.6), (0.2, 0.6, 0.2, 0.6)), ((0.0, 0.6, 1.0, 0.7), (0.0, 1.0, 0.4, 0.7))

__all__ = ["UniformVelocityCommand", "UniformVelocityCommandCfg"]


@dataclass(kw_only=True)
class UniformVelocityCommandCfg(CommandTermCfg):
    """A planar velocity to follow: forward, to the left, and a yaw rate, in the root's axes.

    At each resampling an environment may become a standing, heading, world or forward one, with
    the given probabilities. Standing overrides all, forward overrides heading and world.
    """

    entity_name: str
    """Entity in the scene that follows the command; it has a floating base."""

    heading_command: bool = False
    """Whether there are heading environments, whose yaw rate steers towards a sampled heading."""

    heading_control_stiffness: float = 1.0
    """Yaw rate (rad/s) per heading error (rad) in heading environments."""

    rel_standing_envs: float = 0.0
    """Probability of a command to stand still."""

    rel_heading_envs: float = 1.0
    """Probability of following a heading, if ``heading_command``."""

    rel_world_envs: float = 0.0
    """Probability that the linear velocity keeps its direction in the world as the robot turns."""

    rel_forward_envs: float = 0.0
    """Probability of going straight ahead with at least 0.3 m/s."""

    init_velocity_prob: float = 0.0
    """Probability that an episode begins with the robot moving as commanded."""

    @dataclass
    class Ranges:
        """Ranges to sample from: m/s, rad/s, and rad for the heading."""

        lin_vel_x: tuple[float, float]
        lin_vel_y: tuple[float, float]
        ang_vel_z: tuple[float, float]
        heading: tuple[float, float] | None = None

    ranges: Ranges
    """Ranges to sample from."""

    @dataclass
    class VizCfg:
        """How the velocities are drawn."""

        z_offset: float = 0.2
        """Height of the arrows above the root, before scaling."""

        scale: float = 0.5
        """Metres per m/s or rad/s; it scales the height too."""

    viz: VizCfg = field(default_factory=VizCfg)
    """How the velocities are drawn if ``debug_vis``."""

    def __post_init__(self) -> None:
        if self.heading_command and self.ranges.heading is None:
            raise ValueError(
                "heading_command=True needs a range to sample headings from: set ranges.heading,"
                " for example to (-pi, pi)."
            )
        if self.ranges.heading is not None and not self.heading_command:
            raise ValueError("ranges.heading is set, but unused: set heading_command=True.")

    def build(self, env: ManagerBasedRlEnv) -> UniformVelocityCommand:
        """Make the term."""
        return UniformVelocityCommand(self, env)


class UniformVelocityCommand(CommandTerm):
    """Samples planar velocities uniformly; see the config for the kinds of environments."""

    cfg: UniformVelocityCommandCfg

    _FORWARD_MIN_SPEED = 0.3

    def __init__(self, cfg: UniformVelocityCommandCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.robot: Entity = env.scene[cfg.entity_name]
        n, device = env.num_envs, env.device
        self.vel_command_b = torch.zeros(n, 3, device=device)
        self.vel_command_w = torch.zeros(n, 3, device=device)
        self.heading_target = torch.zeros(n, device=device)
        self.heading_error = torch.zeros(n, device=device)
        self.is_standing_env = torch.zeros(n, dtype=torch.bool, device=device)
        self.is_heading_env = torch.zeros_like(self.is_standing_env)
        self.is_world_env = torch.zeros_like(self.is_standing_env)
        self.is_forward_env = torch.zeros_like(self.is_standing_env)
        self.metrics["error_vel_xy"] = torch.zeros(n, device=device)
        self.metrics["error_vel_yaw"] = torch.zeros(n, device=device)

    @property
    def command(self) -> torch.Tensor:
        """Velocity x, y (m/s) and yaw rate (rad/s) in the root's axes: (num_envs, 3)."""
        return self.vel_command_b

    def reset(self, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Resample and, by chance, start these environments at the commanded velocity."""
        extras = super().reset(env_ids)
        if self.cfg.init_velocity_prob > 0.0:
            # Standing and heading change the command. The robot's own heading is still that of the
            # episode before, until the next forward pass: take the one that was just written.
            self._adapt(self._heading_of_state)
            chosen = self._env.rng.uniform(0.0, 1.0, (len(env_ids), 1), env_ids)
            self._set_root_velocity(env_ids, chosen < self.cfg.init_velocity_prob)
        return extras

    def _set_root_velocity(self, env_ids: torch.Tensor, chosen: torch.Tensor) -> None:
        """Set the commanded velocity in these environments where chosen, bool (len(env_ids), 1)."""
        # Select with where() on the state: no wait for the device, and the others keep their bits.
        data, index, rows = self._env.sim.data, self.robot.indexing, env_ids[:, None]
        quat = data.qpos[rows, index.free_joint_q_adr[3:7]]
        command = self.vel_command_b[env_ids]
        planar = torch.zeros_like(command)
        planar[:, :2] = command[:, :2]
        turn = torch.zeros_like(command)
        turn[:, 2] = command[:, 2]
        # A free joint's qvel is the linear velocity in world axes and the angular one in its own.
        velocity = torch.cat((quat_apply(quat, planar), turn), dim=-1)
        current = data.qvel[rows, index.free_joint_v_adr]
        data.qvel[rows, index.free_joint_v_adr] = torch.where(chosen, velocity, current)

    def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
        """Draw the commanded velocity (blue, green) and the actual one (cyan, light green)."""
        env_ids = list(visualizer.get_env_indices(self.num_envs))
        if not env_ids:
            return
        data, scale = self.robot.data, self.cfg.viz.scale
        place, quat = data.root_link_pos_w[env_ids], data.root_link_quat_w[env_ids]
        up = torch.zeros_like(place)
        up[:, 2] = self.cfg.viz.z_offset
        start = place + quat_apply(quat, up) * scale
        actual = torch.cat((data.root_link_lin_vel_b[:, :2], data.root_link_ang_vel_b[:, 2:]), -1)
        for velocity, colors in zip((self.command, actual), _COLORS, strict=True):
            for axes, color in zip((slice(0, 2), slice(2, 3)), colors, strict=True):
                part = torch.zeros_like(place)
                part[:, axes] = velocity[env_ids, axes]
                visualizer.add_arrow(start, start + quat_apply(quat, part) * scale, color)

    def _update_metrics(self) -> None:
        steps = self.cfg.resampling_time_range[1] / self._env.step_dt
        data = self.robot.data
        error = self.vel_command_b[:, :2] - data.root_link_lin_vel_b[:, :2]
        self.metrics["error_vel_xy"] += torch.linalg.vector_norm(error, dim=-1) / steps
        error = self.vel_command_b[:, 2] - data.root_link_ang_vel_b[:, 2]
        self.metrics["error_vel_yaw"] += error.abs_() / steps

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        cfg, rng, n = self.cfg, self._env.rng, len(env_ids)
        ranges = [cfg.ranges.lin_vel_x, cfg.ranges.lin_vel_y, cfg.ranges.ang_vel_z]
        ranges.append(cfg.ranges.heading or (0.0, 0.0))
        sample = rng.uniform(*bounds(ranges, self.device), (n, 4), env_ids)
        chance = rng.uniform(0.0, 1.0, (n, 4), env_ids)
        velocity = sample[:, :3]

        forward = chance[:, 0] < cfg.rel_forward_envs
        ahead = torch.zeros_like(velocity)
        ahead[:, 0] = velocity[:, 0].abs().clamp_(min=self._FORWARD_MIN_SPEED)
        velocity = torch.where(forward[:, None], ahead, velocity)

        self.vel_command_b[env_ids] = velocity
        self.vel_command_w[env_ids] = velocity
        self.heading_target[env_ids] = sample[:, 3]
        self.is_forward_env[env_ids] = forward
        self.is_standing_env[env_ids] = chance[:, 1] < cfg.rel_standing_envs
        self.is_world_env[env_ids] = (chance[:, 2] < cfg.rel_world_envs) & ~forward
        if cfg.heading_command:
            self.is_heading_env[env_ids] = (chance[:, 3] < cfg.rel_heading_envs) & ~forward

    def _update_command(self, env_ids: torch.Tensor | None = None) -> None:
        # A pure function of the state, so updating all environments is right for some of them too.
        self._adapt(lambda: self.robot.data.heading_w)

    def _heading_of_state(self) -> torch.Tensor:
        data = self.robot.data
        forward = quat_apply(data.peek("qpos", "free_quat"), data.forward_vec_b)
        return torch.atan2(forward[:, 1], forward[:, 0])

    def _adapt(self, heading_of: Callable[[], torch.Tensor]) -> None:
        """Turn and stop the commands as the kinds of environments require."""
        cfg, command = self.cfg, self.vel_command_b
        if cfg.heading_command or cfg.rel_world_envs > 0.0:
            heading = heading_of()
            if cfg.heading_command:
                self.heading_error = wrap_to_pi(self.heading_target - heading)
                rate = cfg.heading_control_stiffness * self.heading_error
                rate = rate.clamp_(*cfg.ranges.ang_vel_z)
                command[:, 2] = torch.where(self.is_heading_env, rate, command[:, 2])
            if cfg.rel_world_envs > 0.0:
                cos, sin = torch.cos(heading), torch.sin(heading)
                x, y = self.vel_command_w[:, 0], self.vel_command_w[:, 1]
                turned = torch.stack((cos * x + sin * y, cos * y - sin * x), dim=-1)
                in_world = self.is_world_env[:, None]
                command[:, :2] = torch.where(in_world, turned, command[:, :2])
        if cfg.rel_standing_envs > 0.0:
            command.masked_fill_(self.is_standing_env[:, None], 0.0)
