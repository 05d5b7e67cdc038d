"""The command that plays a motion: where the robot's joints and bodies should be in each step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mjlab_rec.envs.mdp._common import sample_se3
from mjlab_rec.managers import CommandTermCfg
from mjlab_rec.utils.math import (
    matrix_from_quat,
    quat_error_magnitude,
    quat_from_euler_xyz,
    quat_mul,
)
from mjlab_rec.utils.string import nearest
from tasks.tracking.mdp.reference import MotionReference
from tasks.tracking.mdp.sampling import FailureBins
from tasks.tracking.sources import load_motion

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

_SamplingMode = Literal["adaptive", "uniform", "start"]
_REFERENCE_AXES = ((1.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 1.0))


class MotionCommand(MotionReference):
    """Plays a motion, a frame per control step, and starts episodes in the middle of it.

    At a reset it puts the robot into a frame of the motion. Then ``time_steps`` is the frame that
    the robot should reach with its next step: rewards compare the two after it. At the end of the
    motion the last frame remains; the termination ``motion_ended`` ends the episode there.
    """

    def __init__(self, cfg: MotionCommandCfg, env: ManagerBasedRlEnv) -> None:
        if cfg.sampling_mode not in get_args(_SamplingMode):
            raise ValueError(
                f"Unknown sampling_mode {cfg.sampling_mode!r}."
                f" {nearest(cfg.sampling_mode, get_args(_SamplingMode))}"
            )
        motion = load_motion(cfg.motion_file, env.cfg.scene.entities[cfg.entity_name])
        super().__init__(cfg, env, motion.resampled(1.0 / env.step_dt))
        self.failures = FailureBins(
            len(self.motion),
            env.step_dt,
            kernel_size=cfg.adaptive_kernel_size,
            decay=cfg.adaptive_lambda,
            uniform_ratio=cfg.adaptive_uniform_ratio,
            alpha=cfg.adaptive_alpha,
            device=self.device,
        )
        for name in _METRICS:
            self.metrics[name] = torch.zeros(env.num_envs, device=self.device)
        self._moved = False
        self._ghost: Any = None

    def reset_to_frame(self, env_ids: Tensor, frame: int) -> None:
        """Put these environments exactly into a frame of the motion, without noise.

        ``sim.forward()`` then brings the poses of the bodies up to date.
        """
        if not 0 <= frame < len(self.motion):
            raise ValueError(
                f"There is no frame {frame}: the motion has frames 0 to {len(self.motion) - 1}."
            )
        self.time_steps[env_ids] = frame
        self._look_up()
        self._write_state(env_ids, *self._start(env_ids))

    def advance(
        self, dt: Any, env_ids: Tensor | None = None, frozen: Tensor | None = None
    ) -> Tensor:
        """Advance time, and count which frames the robots failed at in this step."""
        if self.cfg.sampling_mode == "adaptive" and env_ids is None:
            self.failures.count(self.time_steps, self._env.termination_manager.terminated)
        return super().advance(dt, env_ids, frozen)

    def reset(self, env_ids: Tensor) -> dict[str, Tensor]:
        """Log the mean metrics of these environments, and put them into a frame of the motion."""
        log = super().reset(env_ids)
        self._moved = False  # The environment brings everything up to date after its resets.
        return log

    def create_gui(
        self,
        name: str,
        server: Any,
        get_env_idx: Callable[[], int],
        on_change: Callable[[], None] | None = None,
        request_action: Callable[[str, Any], None] | None = None,
    ) -> None:
        """Put a slider of frames on the web page, and a button that begins there."""
        with server.gui.add_folder(name):
            last = len(self.motion) - 2
            self._slider = server.gui.add_slider("Frame", 0, last, step=1, initial_value=0)
            button = server.gui.add_button("Begin at this frame")
            if request_action is not None:
                button.on_click(
                    lambda _: request_action("CUSTOM", {"type": "gui_reset", "all_envs": True})
                )

    def apply_gui_reset(self, env_ids: Tensor) -> bool:
        """Begin the episodes at the frame that was chosen on the web page."""
        if not hasattr(self, "_slider"):
            return False
        self.reset_to_frame(env_ids, int(self._slider.value))
        self._advance_frames(env_ids)
        return True

    def _resample_command(self, env_ids: Tensor) -> None:
        rng, count = self._env.rng, len(env_ids)
        # The last frame is none to start from: no step follows it.
        frames = len(self.motion) - 1
        if self.cfg.sampling_mode == "start":
            self.time_steps[env_ids] = 0
        elif self.cfg.sampling_mode == "uniform":
            self.time_steps[env_ids] = rng.integers(0, frames, (count,), env_ids)
        else:
            place = self.failures.draw(rng.uniform(0.0, 1.0, (count,), env_ids))
            self.time_steps[env_ids] = (place * frames).long().clamp_(max=frames - 1)
            self._log_sampling()
        self._look_up()
        root, joint_pos, joint_vel = self._start(env_ids)
        offset = sample_se3(self._env, self.cfg.pose_range, env_ids)
        root[:, :3] += offset[:, :3]
        turn = quat_from_euler_xyz(offset[:, 3], offset[:, 4], offset[:, 5])
        root[:, 3:7] = quat_mul(turn, root[:, 3:7])
        root[:, 7:] += sample_se3(self._env, self.cfg.velocity_range, env_ids)
        joint_pos += rng.uniform(*self.cfg.joint_position_range, joint_pos.shape, env_ids)
        limits = self.robot.data.soft_joint_pos_limits[env_ids]
        joint_pos = joint_pos.clamp(limits[..., 0], limits[..., 1])
        self._write_state(env_ids, root, joint_pos, joint_vel)
        self._moved = True

    def _update_command(self, env_ids: Tensor | None) -> None:
        if self._moved:
            # A command that expired in mid-episode moved robots after the step's forward pass.
            self._moved = False
            self._env.sim.forward()
            self._env.scene.invalidate()
        self._advance_frames(env_ids)

    def _update_metrics(self) -> None:
        values = (
            (self.anchor_pos_w - self.robot_anchor_pos_w).norm(dim=-1),
            quat_error_magnitude(self.anchor_quat_w, self.robot_anchor_quat_w),
            (self.anchor_lin_vel_w - self.robot_anchor_lin_vel_w).norm(dim=-1),
            (self.anchor_ang_vel_w - self.robot_anchor_ang_vel_w).norm(dim=-1),
            (self.body_pos_relative_w - self.robot_body_pos_w).norm(dim=-1).mean(dim=-1),
            quat_error_magnitude(self.body_quat_relative_w, self.robot_body_quat_w).mean(dim=-1),
            (self.body_lin_vel_w - self.robot_body_lin_vel_w).norm(dim=-1).mean(dim=-1),
            (self.body_ang_vel_w - self.robot_body_ang_vel_w).norm(dim=-1).mean(dim=-1),
            (self.joint_pos - self.robot_joint_pos).norm(dim=-1),
            (self.joint_vel - self.robot_joint_vel).norm(dim=-1),
        )
        for name, value in zip(_METRICS, values, strict=False):
            self.metrics[name].copy_(value)

    def _log_sampling(self) -> None:
        chances = self.failures.probabilities()
        most, where = chances.max(dim=0)
        self.metrics["sampling_entropy"].fill_(self.failures.entropy(chances))
        self.metrics["sampling_top1_prob"].fill_(most)
        self.metrics["sampling_top1_bin"].fill_(where / len(chances))

    def _advance_frames(self, env_ids: Tensor | None) -> None:
        last = len(self.motion) - 1
        if env_ids is None:
            self.time_steps.add_(1).clamp_(max=last)
        else:
            self.time_steps[env_ids] = (self.time_steps[env_ids] + 1).clamp_(max=last)
        self._look_up()

    def _start(self, env_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """State of the root (13), and positions and velocities of the joints, in the motion."""
        root = torch.cat([part[env_ids, -1] for part in self._parts[2:]], dim=1)
        return root, self.joint_pos[env_ids], self.joint_vel[env_ids]

    def _write_state(
        self, env_ids: Tensor, root: Tensor, joint_pos: Tensor, joint_vel: Tensor
    ) -> None:
        self.robot.write_root_state_to_sim(root, env_ids=env_ids)
        self.robot.write_joint_state_to_sim(joint_pos, joint_vel, env_ids=env_ids)
        self.robot.reset(env_ids)

    def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
        """Draw the robot as the motion wants it, or the frames of both."""
        for env_id in visualizer.get_env_indices(self.num_envs):
            if self.cfg.viz.mode == "ghost":
                self._draw_ghost(visualizer, env_id)
            else:
                self._draw_frames(visualizer, env_id)

    def _draw_ghost(self, visualizer: DebugVisualizer, env_id: int) -> None:
        index, model = self.robot.indexing, self._ghost_model()
        qpos = np.zeros(model.nq)
        (root,), joint_pos, _ = self._start(torch.tensor([env_id], device=self.device))
        qpos[index.free_joint_q_adr.cpu()] = root[:7].cpu()
        qpos[index.joint_q_adr.cpu()] = joint_pos[0].cpu()
        alpha = self.cfg.viz.ghost_color[3]
        visualizer.add_ghost_mesh(qpos, model, alpha=alpha, label=f"ghost {env_id}")

    def _draw_frames(self, visualizer: DebugVisualizer, env_id: int) -> None:
        for pos, quat, size, colors in (
            (self.body_pos_w, self.body_quat_w, 0.08, _REFERENCE_AXES),
            (self.robot_body_pos_w, self.robot_body_quat_w, 0.12, None),
        ):
            visualizer.add_frame(
                pos[env_id], matrix_from_quat(quat[env_id]), scale=size, axis_colors=colors
            )

    def _ghost_model(self) -> Any:
        """A copy of the model in which only the robot is seen, in the ghost's colour."""
        if self._ghost is None:
            model = copy.copy(self._env.sim.mj_model)
            own = {int(i) for i in self.robot.indexing.body_ids}
            for geom in range(model.ngeom):
                is_own = int(model.geom_bodyid[geom]) in own
                model.geom_rgba[geom] = self.cfg.viz.ghost_color
                model.geom_rgba[geom, 3] = float(is_own)
            self._ghost = model
        return self._ghost


_METRICS = (
    "error_anchor_pos",
    "error_anchor_rot",
    "error_anchor_lin_vel",
    "error_anchor_ang_vel",
    "error_body_pos",
    "error_body_rot",
    "error_body_lin_vel",
    "error_body_ang_vel",
    "error_joint_pos",
    "error_joint_vel",
    "sampling_entropy",
    "sampling_top1_prob",
    "sampling_top1_bin",
)


@dataclass(kw_only=True)
class MotionCommandCfg(CommandTermCfg):
    """Which motion to follow, with which bodies, and where in it episodes start."""

    resampling_time_range: tuple[float, float] = (1.0e9, 1.0e9)
    """Time after which the robot is put into another frame, in seconds: usually never."""

    motion_file: str
    """The motion: a path of a motion file, a CSV table or a recording, or the name of an example:
    squat, wave, step."""

    anchor_body_name: str
    """The body to which the others are relative, such as the torso."""

    body_names: tuple[str, ...]
    """The bodies that are tracked, the anchor among them."""

    entity_name: str = "robot"
    """The robot."""

    pose_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Noise of the root's first pose, by "x", "y", "z" (m), "roll", "pitch", "yaw" (rad)."""

    velocity_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Noise of the root's first velocity, by the same names (m/s, rad/s)."""

    joint_position_range: tuple[float, float] = (-0.52, 0.52)
    """Noise of the first joint positions, in radians."""

    sampling_mode: _SamplingMode = "adaptive"
    """Where episodes start: anywhere, more often where robots fail; anywhere; at the beginning."""

    adaptive_kernel_size: int = 1
    """How many seconds before a failure are drawn more often, too."""

    adaptive_lambda: float = 0.8
    """Weight of each of these seconds, relative to the one after it."""

    adaptive_uniform_ratio: float = 0.1
    """Failures per step, spread over the whole motion, that are added to those counted: with more,
    starts are more even."""

    adaptive_alpha: float = 0.001
    """Weight of each step in the running mean of failures."""

    @dataclass
    class VizCfg:
        """How the motion is drawn."""

        mode: Literal["ghost", "frames"] = "ghost"
        """The robot in another colour, or the frames of its bodies."""

        ghost_color: tuple[float, float, float, float] = (0.5, 0.7, 0.5, 0.5)
        """Colour of the ghost: red, green, blue and opacity."""

    viz: VizCfg = field(default_factory=VizCfg)
    """How the motion is drawn."""

    def build(self, env: ManagerBasedRlEnv) -> MotionCommand:
        """Build the command."""
        return MotionCommand(self, env)
