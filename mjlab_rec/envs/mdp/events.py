"""Stock events: put the scene into an initial state, and disturb it later.

Each is called as ``func(env, env_ids, **params)``, with None for all environments. What an
environment draws depends only on its own random stream, not on what else is reset with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import (
    DEFAULT_ASSET_CFG,
    bounds,
    constant,
    resolve_env_ids,
    sample_se3,
)
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.utils.math import quat_apply, quat_from_euler_xyz, quat_mul
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.managers.event_manager import EventTermCfg
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

__all__ = [
    "apply_body_impulse",
    "apply_external_force_torque",
    "push_by_setting_velocity",
    "randomize_terrain",
    "reset_joints_by_offset",
    "reset_root_state_from_flat_patches",
    "reset_root_state_uniform",
    "reset_scene_to_default",
    "resolve_env_ids",
]


def _default_root_pose(
    env: ManagerBasedRlEnv, asset: Entity, env_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Default position, moved to the environment's origin, and default orientation."""
    root = asset.data.default_root_state[env_ids]
    return root[:, :3] + env.scene.env_origins[env_ids], root[:, 3:7]


def _write_root_pose(
    name: str, asset: Entity, pos: torch.Tensor, quat: torch.Tensor, env_ids: torch.Tensor
) -> None:
    """Place the root, whether it is floating or a mocap body."""
    pose = torch.cat((pos, quat), dim=-1)
    if not asset.is_fixed_base:
        asset.write_root_link_pose_to_sim(pose, env_ids=env_ids)
    elif asset.is_mocap:
        asset.write_mocap_pose_to_sim(pose, env_ids=env_ids)
    else:
        raise ValueError(
            f"Cannot move the root of '{name}': it is welded to the world. Give it a free joint or"
            " make its root a mocap body."
        )


def randomize_terrain(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """Move environments to random tiles of generated ground, of any kind and difficulty.

    Put it before the events that place robots, which use the origins.
    """
    if env.scene.terrain is not None:
        env.scene.terrain.randomize_env_origins(resolve_env_ids(env, env_ids))


def reset_scene_to_default(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """Put every entity into its default pose and joint state, at its environment's origin."""
    env_ids = resolve_env_ids(env, env_ids)
    for name, asset in env.scene.entities.items():
        if not asset.is_fixed_base or asset.is_mocap:
            _write_root_pose(name, asset, *_default_root_pose(env, asset, env_ids), env_ids)
        if not asset.is_fixed_base:
            velocity = asset.data.default_root_state[env_ids, 7:13]
            asset.write_root_link_velocity_to_sim(velocity, env_ids=env_ids)
        if asset.is_articulated:
            asset.write_joint_state_to_sim(
                asset.data.default_joint_pos[env_ids],
                asset.data.default_joint_vel[env_ids],
                env_ids=env_ids,
            )


def reset_root_state_uniform(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    pose_range: dict[str, tuple[float, float]],
    velocity_range: dict[str, tuple[float, float]] | None = None,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Put the root at its default pose plus a uniform offset, at the environment's origin.

    Args:
        env: The environment.
        env_ids: Environments to reset; None for all.
        pose_range: (low, high) by "x", "y", "z" (m), "roll", "pitch", "yaw" (rad); default 0.
        velocity_range: The same for the velocity in world axes (m/s, rad/s). Floating bases only.
        asset_cfg: The entity. Its base is floating, or fixed to a mocap body.
    """
    env_ids = resolve_env_ids(env, env_ids)
    offset = sample_se3(env, pose_range, env_ids)
    pos, quat = _default_root_pose(env, env.scene[asset_cfg.name], env_ids)
    _write_root_state(env, env_ids, pos, quat, offset, velocity_range, asset_cfg)


def reset_root_state_from_flat_patches(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    patch_name: str = "spawn",
    pose_range: dict[str, tuple[float, float]] | None = None,
    velocity_range: dict[str, tuple[float, float]] | None = None,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Put the root on a random flat patch of the environment's tile, plus a uniform offset.

    Its height above the patch is that of its default pose. Without such patches, as on a plane, it
    is put at the environment's origin, like by ``reset_root_state_uniform``.

    Args:
        env: The environment.
        env_ids: Environments to reset; None for all.
        patch_name: Name of the patches, in ``flat_patch_sampling`` of the sub-terrains.
        pose_range: Offsets, as for ``reset_root_state_uniform``.
        velocity_range: Velocities, as for ``reset_root_state_uniform``.
        asset_cfg: The entity. Its base is floating, or fixed to a mocap body.
    """
    env_ids = resolve_env_ids(env, env_ids)
    terrain = env.scene.terrain
    if terrain is None or patch_name not in terrain.flat_patches:
        if terrain is not None and terrain.flat_patches:
            known = list(terrain.flat_patches)
            raise ValueError(
                f"The terrain has no flat patches '{patch_name}'. {nearest(patch_name, known)}"
            )
        reset_root_state_uniform(env, env_ids, pose_range or {}, velocity_range, asset_cfg)
        return
    patches = terrain.flat_patches[patch_name]
    levels, types = terrain.terrain_levels[env_ids], terrain.terrain_types[env_ids]
    chosen = env.rng.integers(0, patches.shape[2], (len(env_ids),), env_ids)
    offset = sample_se3(env, pose_range or {}, env_ids)
    root = env.scene[asset_cfg.name].data.default_root_state[env_ids]
    pos = patches[levels, types, chosen].clone()
    pos[:, 2] += root[:, 2]
    _write_root_state(env, env_ids, pos, root[:, 3:7], offset, velocity_range, asset_cfg)


def _write_root_state(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor,
    pos: torch.Tensor,
    quat: torch.Tensor,
    offset: torch.Tensor,
    velocity_range: dict[str, tuple[float, float]] | None,
    asset_cfg: SceneEntityCfg,
) -> None:
    """Write a pose plus an offset, and the default velocity plus one from the range."""
    asset: Entity = env.scene[asset_cfg.name]
    turn = quat_from_euler_xyz(offset[:, 3], offset[:, 4], offset[:, 5])
    _write_root_pose(asset_cfg.name, asset, pos + offset[:, :3], quat_mul(quat, turn), env_ids)
    if asset.is_fixed_base:
        return
    velocity = asset.data.default_root_state[env_ids, 7:13]
    if velocity_range:
        velocity = velocity + sample_se3(env, velocity_range, env_ids)
    asset.write_root_link_velocity_to_sim(velocity, env_ids=env_ids)


def reset_joints_by_offset(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    position_range: tuple[float, float],
    velocity_range: tuple[float, float],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Set joints to their default state plus a uniform offset, within their soft limits."""
    env_ids = resolve_env_ids(env, env_ids)
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    pos = asset.data.default_joint_pos[env_ids][:, joints]
    vel = asset.data.default_joint_vel[env_ids][:, joints]
    limits = asset.data.soft_joint_pos_limits[env_ids][:, joints]
    pos = pos + env.rng.uniform(*position_range, pos.shape, env_ids)
    vel = vel + env.rng.uniform(*velocity_range, vel.shape, env_ids)
    pos = pos.clamp_(limits[..., 0], limits[..., 1])
    asset.write_joint_state_to_sim(pos, vel, joint_ids=joints, env_ids=env_ids)


def push_by_setting_velocity(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    velocity_range: dict[str, tuple[float, float]],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Kick a floating entity: add a uniform offset to its root velocity (m/s, rad/s, world axes).

    The kick takes no time and ignores mass. Use with ``mode="interval"``. For forces see
    ``apply_external_force_torque`` and ``apply_body_impulse``.
    """
    env_ids = resolve_env_ids(env, env_ids)
    asset: Entity = env.scene[asset_cfg.name]
    if asset.is_fixed_base:
        raise ValueError(f"Cannot push '{asset_cfg.name}': its base is fixed and has no velocity.")
    # Read the velocity from the state: derived quantities are one substep older.
    rows, index = env_ids[:, None], asset.indexing
    qvel = env.sim.data.qvel[rows, index.free_joint_v_adr]
    quat = env.sim.data.qpos[rows, index.free_joint_q_adr[3:7]]
    velocity = torch.cat((qvel[:, :3], quat_apply(quat, qvel[:, 3:])), dim=-1)
    velocity += sample_se3(env, velocity_range, env_ids)
    asset.write_root_link_velocity_to_sim(velocity, env_ids=env_ids)


def apply_external_force_torque(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    force_range: tuple[float, float],
    torque_range: tuple[float, float],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Apply a constant force (N) and torque (Nm) to bodies, drawn per axis, in world axes.

    It lasts until it is overwritten, so use it with ``mode="reset"`` for loads that hold for an
    episode, such as wind. For short bumps see ``apply_body_impulse``.
    """
    env_ids = resolve_env_ids(env, env_ids)
    asset: Entity = env.scene[asset_cfg.name]
    bodies = asset_cfg.index("body", env.scene)
    shape = (len(env_ids), len(asset.indexing.body_ids[bodies]), 3)
    asset.write_external_wrench_to_sim(
        env.rng.uniform(*force_range, shape, env_ids),
        env.rng.uniform(*torque_range, shape, env_ids),
        env_ids=env_ids,
        body_ids=bodies,
    )


class apply_body_impulse:
    """Bumps bodies repeatedly: waits, applies a force and torque for a while, waits again.

    Each environment has its own clock. Use with ``mode="step"``. A wait comes first, so no episode
    begins under a force.
    """

    @dataclass
    class VizCfg:
        """How the forces are drawn."""

        rgba: tuple[float, float, float, float] = (0.9, 0.2, 0.8, 0.9)
        """Colour of the arrows."""

        scale: float = 0.005
        """Metres per newton."""

        width: float = 0.015
        """Radius of the arrows' shafts in metres."""

        min_force: float = 1.0
        """Weaker forces (N) are not drawn."""

    def __init__(self, cfg: EventTermCfg, env: ManagerBasedRlEnv) -> None:
        self._env = env
        self._params = cfg.params
        self._active = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        # Time left in the wait, or in the impulse where one is active; drawn at each reset.
        cooldown_s: tuple[float, float] = cfg.params["cooldown_s"]
        self._time_left = torch.full((env.num_envs,), cooldown_s[1], device=env.device)
        self._choose(cfg.params.get("asset_cfg", DEFAULT_ASSET_CFG))

    def _choose(self, asset_cfg: SceneEntityCfg) -> None:
        self._asset: Entity = self._env.scene[asset_cfg.name]
        self._bodies = asset_cfg.index("body", self._env.scene)
        self._num_bodies = len(self._asset.indexing.body_ids[self._bodies])
        self._before = torch.zeros(self._env.num_envs, self._num_bodies, 6, device=self._env.device)

    def _end_all(self) -> None:
        """End all impulses, because other bodies are chosen now."""
        current = self._asset.data.body_external_wrench[:, self._bodies]
        wrench = torch.where(self._active[:, None, None], self._before, current)
        self._asset.write_external_wrench_to_sim(
            wrench[..., :3], wrench[..., 3:], body_ids=self._bodies
        )
        self._active.zero_()

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | None,
        force_range: tuple[float, float],
        torque_range: tuple[float, float],
        duration_s: tuple[float, float],
        cooldown_s: tuple[float, float],
        asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
        body_point_offset: tuple[float, float, float] | None = None,
        viz_cfg: VizCfg | None = None,
    ) -> None:
        """Advance all clocks by a step, and start and end impulses.

        Args:
            env: The environment.
            env_ids: Ignored: the clocks of all environments run.
            force_range: Range of each force component in world axes (N).
            torque_range: Range of each torque component in world axes (Nm).
            duration_s: Range of an impulse's duration.
            cooldown_s: Range of the wait before the next one.
            asset_cfg: Entity and bodies.
            body_point_offset: Where the force acts, from the body's centre of mass, in the body's
                axes (m). Off-centre forces turn the body too.
            viz_cfg: How the forces are drawn.
        """
        bodies = asset_cfg.index("body", env.scene)
        if self._asset is not env.scene[asset_cfg.name] or self._bodies is not bodies:
            self._end_all()
            self._choose(asset_cfg)
        # Every environment draws at every step, used or not: the host need not ask the device which
        # ones need a number, and no environment's numbers depend on the others.
        n, components = env.num_envs, 3 * self._num_bodies
        ranges = [duration_s, cooldown_s] + [force_range] * components + [torque_range] * components
        draw = env.rng.uniform(*bounds(ranges, env.device), (n, len(ranges)))
        duration, cooldown = draw[:, 0], draw[:, 1]
        force = draw[:, 2 : 2 + components].reshape(n, -1, 3)
        torque = draw[:, 2 + components :].reshape(n, -1, 3)

        self._time_left -= env.step_dt
        over = self._time_left <= 1e-6
        starts = over & ~self._active
        ends = over & self._active
        self._active ^= over
        self._time_left = torch.where(starts, duration, self._time_left)
        self._time_left = torch.where(ends, cooldown, self._time_left)

        if body_point_offset is not None:
            quat = self._asset.data.body_link_quat_w[:, self._bodies]
            arm = quat_apply(quat, constant(body_point_offset, env.device).expand_as(force))
            torque = torque + torch.linalg.cross(arm, force)
        impulse = torch.cat((force, torque), dim=-1)
        # Add to the other forces on the bodies, and restore those at the end.
        current = self._asset.data.body_external_wrench[:, self._bodies]
        starts, ends = starts[:, None, None], ends[:, None, None]
        wrench = torch.where(starts, current + impulse, torch.where(ends, self._before, current))
        self._before = torch.where(starts, current, self._before)
        self._asset.write_external_wrench_to_sim(
            wrench[..., :3], wrench[..., 3:], body_ids=self._bodies
        )

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Draw an arrow for each force that acts now, where it acts."""
        env_ids = list(visualizer.get_env_indices(self._env.num_envs))
        if not env_ids:
            return
        data, viz = self._asset.data, self._params.get("viz_cfg") or self.VizCfg()
        force = data.body_external_wrench[:, self._bodies][env_ids, :, :3]
        place = data.body_com_pos_w[:, self._bodies][env_ids]
        if (offset := self._params.get("body_point_offset")) is not None:
            quat = data.body_link_quat_w[:, self._bodies][env_ids]
            arm = constant(offset, self._env.device).expand_as(place)
            place = place + quat_apply(quat, arm)
        strong = torch.linalg.vector_norm(force, dim=-1) >= viz.min_force
        acts = (strong & self._active[env_ids][:, None])[..., None]
        end = torch.where(acts, place + viz.scale * force, place)
        # An arrow without a length is not drawn.
        visualizer.add_arrow(place.reshape(-1, 3), end.reshape(-1, 3), viz.rgba, viz.width)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Restart the wait in these environments; the physics reset has ended their impulses."""
        if not isinstance(env_ids, torch.Tensor):
            everyone = torch.arange(self._env.num_envs, device=self._env.device)
            env_ids = everyone[slice(None) if env_ids is None else env_ids]
        self._active[env_ids] = False
        low, high = self._params["cooldown_s"]
        self._time_left[env_ids] = self._env.rng.uniform(low, high, (len(env_ids),), env_ids)
