"""An action term in task space: the pose of a frame, followed by inverse kinematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mujoco
import torch

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.envs.mdp.actions.ik_solver import IkSolver
from mjlab_rec.managers.action_manager import ActionTerm, ActionTermCfg
from mjlab_rec.utils.frames import apply_delta_pose
from mjlab_rec.utils.indexing import as_index
from mjlab_rec.utils.math import axis_angle_from_quat, normalize, quat_conjugate, quat_mul
from mjlab_rec.utils.string import resolve_expr

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

_FRAMES = ("body", "site", "geom")
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))

# The matrix that multiplies q in p times the conjugate of q, by components of p.
_TURN_INDEX = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_TURN_SIGN = (
    (1.0, 1.0, 1.0, 1.0),
    (1.0, -1.0, 1.0, -1.0),
    (1.0, -1.0, -1.0, 1.0),
    (1.0, 1.0, -1.0, -1.0),
)


@dataclass(kw_only=True)
class DifferentialIKActionCfg(ActionTermCfg):
    """Moves a frame of the entity; inverse kinematics turns that into joint position targets.

    In every physics step the joint displacement dq minimizes the squares of

    - `position_weight` (position error - J dq), `orientation_weight` (rotation error - J dq),
    - `joint_limit_weight` (way back to the soft limit - dq), for joints beyond it,
    - `posture_weight` (way to `posture_target` - dq), and `damping` dq,

    and the targets are the joint positions plus dq. The action is a position (3 numbers) if
    `orientation_weight` is 0, else also a rotation: a rotation vector in relative mode (6 numbers),
    a quaternion w, x, y, z in absolute mode (7 numbers).
    """

    actuator_names: tuple[str, ...] | list[str]
    """Names or regexes of the actuated joints that may move."""

    frame_type: Literal["body", "site", "geom"] = "body"
    """What the frame is."""

    frame_name: str
    """The body, site or geom of the entity whose pose is commanded."""

    use_relative_mode: bool = True
    """The action is a displacement from the frame's current pose, instead of a pose. Both are in
    the axes of the world."""

    delta_pos_scale: float = 1.0
    """In relative mode: metres per unit of action."""

    delta_ori_scale: float = 1.0
    """In relative mode: radians per unit of action."""

    damping: float = 0.05
    """Weight of the joint displacement itself, which keeps it small near singular poses."""

    max_dq: float = 0.5
    """Greatest displacement of a joint from where it is, in radians or metres."""

    position_weight: float = 1.0
    """Weight of the position error."""

    orientation_weight: float = 1.0
    """Weight of the rotation error; 0 leaves the orientation free."""

    joint_limit_weight: float = 0.0
    """Weight of returning joints that are beyond their soft limits."""

    posture_weight: float = 0.0
    """Weight of a preferred posture, which uses what freedom the task leaves."""

    posture_target: dict[str, float] | None = None
    """The preferred joint positions by name or regex; others keep their default position."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.frame_type not in _FRAMES:
            raise ValueError(
                f"{name}: frame_type is {self.frame_type!r}; it must be one of {_FRAMES}."
            )
        weights = {
            field: getattr(self, field)
            for field in (
                *("position_weight", "orientation_weight", "joint_limit_weight"),
                *("posture_weight", "damping"),
            )
        }
        negative = {field: value for field, value in weights.items() if value < 0.0}
        if negative:
            raise ValueError(f"{name}: {negative} must not be negative.")
        if not (self.position_weight or self.orientation_weight):
            raise ValueError(
                f"{name}: position_weight and orientation_weight are both 0, so that the action "
                "would have no effect. Set one of them."
            )
        if not self.max_dq > 0.0:
            raise ValueError(f"{name}: max_dq must be positive, got {self.max_dq}.")
        if self.clip is not None:
            raise ValueError(
                f"{name} takes no clip, got {self.clip}. Limit the joints' displacement by max_dq,"
                " and their positions by joint_limit_weight."
            )

    def build(self, env: ManagerBasedRlEnv) -> DifferentialIKAction:
        """Make the term."""
        return DifferentialIKAction(self, env)


class DifferentialIKAction(ActionTerm):
    """Follows the pose of a frame by damped least squares, in every physics step."""

    cfg: DifferentialIKActionCfg
    _entity: Entity

    def __init__(self, cfg: DifferentialIKActionCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg=cfg, env=env)
        entity, data = self._entity, self._entity.data
        joint_ids, self._target_names = entity.find_joints_by_actuator_names(cfg.actuator_names)
        self._joint_ids = torch.tensor(joint_ids, dtype=torch.long, device=self.device)
        self._index = as_index(joint_ids, self.device)
        self._find_frame()
        self._jacobian = env.sim.jacobian(self._body_id, self._find_dofs(joint_ids))
        if not any(self._jacobian.moving):
            raise ValueError(
                f"{self._where}: none of the joints {', '.join(self._target_names)} moves the "
                f"{cfg.frame_type} '{cfg.frame_name}'. Choose a frame on the arm, or other "
                "actuator_names."
            )

        with_turn, relative = cfg.orientation_weight > 0.0, cfg.use_relative_mode
        self._action_dim = 3 + with_turn * (3 if relative else 4)
        self._raw_actions = torch.zeros(self.num_envs, self._action_dim, device=self.device)
        self._action_scale = torch.ones(self._action_dim, device=self.device)
        if relative:
            self._action_scale[:3] = cfg.delta_pos_scale
            self._action_scale[3:] = cfg.delta_ori_scale
        self._desired_pos = torch.zeros(self.num_envs, 3, device=self.device)
        # Of the body that carries the frame: they turn alike.
        self._desired_body_quat = torch.zeros(self.num_envs, 4, device=self.device)
        self._desired_body_quat[:, 0] = 1.0
        self._turn_index = torch.tensor(_TURN_INDEX, device=self.device)
        self._turn_sign = torch.tensor(_TURN_SIGN, device=self.device)
        self._to_turn = self._desired_body_quat[:, self._turn_index] * self._turn_sign

        self._q, _ = data.state_columns(TransmissionType.JOINT, self._joint_ids)
        limits = data.soft_joint_pos_limits[:, self._index]
        self._solver = IkSolver(cfg, limits[..., 0], limits[..., 1], self._find_posture())

    @property
    def action_dim(self) -> int:
        """Three numbers for the position, and three or four for the orientation."""
        return self._action_dim

    @property
    def action_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Half a turn around each axis, or 1 for each number of a quaternion; infinite positions.

        They include every orientation.
        """
        _, high = super().action_bounds
        if type(self).process_actions is DifferentialIKAction.process_actions:
            half_turn = torch.pi if self.cfg.use_relative_mode else 1.0
            high[3:] = half_turn / self._action_scale[3:].abs()
        return -high, high

    @property
    def raw_action(self) -> torch.Tensor:
        """The term's slice of the policy's action; zero after a reset."""
        return self._raw_actions

    @property
    def target_ids(self) -> torch.Tensor:
        """Entity-local ids of the joints that move."""
        return self._joint_ids

    @property
    def target_names(self) -> list[str]:
        """Names of the joints that move."""
        return self._target_names

    @property
    def frame_pos(self) -> torch.Tensor:
        """Position of the frame in the world, (num_envs, 3)."""
        return self._frame_pos

    @property
    def frame_quat(self) -> torch.Tensor:
        """Orientation of the frame in the world, (num_envs, 4)."""
        local = self._local_quat
        return self._body_quat if local is None else quat_mul(self._body_quat, local)

    @property
    def desired_pos(self) -> torch.Tensor:
        """Where the frame shall be in the world, (num_envs, 3)."""
        return self._desired_pos

    @property
    def desired_quat(self) -> torch.Tensor:
        """How the frame shall be turned in the world, (num_envs, 4); without effect if free."""
        local = self._local_quat
        quat = self._desired_body_quat
        return quat if local is None else quat_mul(quat, local)

    def process_actions(self, actions: torch.Tensor) -> None:
        """Set the desired pose, measured from the current one in relative mode."""
        self._raw_actions.copy_(actions)
        self._set_desired(actions * self._action_scale)
        # The turn from a body quaternion q to the desired one: desired times the conjugate of q.
        self._to_turn = self._desired_body_quat[:, self._turn_index] * self._turn_sign

    def _set_desired(self, scaled: torch.Tensor) -> None:
        if self._action_dim == 6:
            pose = apply_delta_pose(self._frame_pos, self._body_quat, scaled)
            self._desired_pos.copy_(pose[0])
            self._desired_body_quat.copy_(pose[1])
            return
        if self.cfg.use_relative_mode:
            torch.add(self._frame_pos, scaled, out=self._desired_pos)
        else:
            self._desired_pos.copy_(scaled[:, :3])
        if self._action_dim == 7:
            quat, local = normalize(scaled[:, 3:]), self._local_quat
            if local is not None:
                quat = quat_mul(quat, quat_conjugate(local))
            self._desired_body_quat.copy_(quat)
        else:
            self._desired_body_quat.copy_(self._body_quat)

    def compute_dq(self) -> torch.Tensor:
        """Return the displacement of the joints, (num_envs, num_joints)."""
        solver = self._solver
        solver.set_jacobian(*self._jacobian.compute(self._frame_pos))
        if self.cfg.position_weight:
            torch.sub(self._desired_pos, self._frame_pos, out=solver.pos_error)
        if self.cfg.orientation_weight:
            turn = torch.bmm(self._to_turn, self._body_quat[..., None])[..., 0]
            solver.rot_error.copy_(axis_angle_from_quat(turn))
        return solver.solve(self._q.peek())

    def apply_actions(self) -> None:
        """Write the position targets."""
        target = self.compute_dq().add_(self._q.peek())
        self._entity.set_joint_position_target(target, joint_ids=self._index)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Forget the last action of these environments."""
        self._raw_actions[slice(None) if env_ids is None else env_ids] = 0.0

    @property
    def _where(self) -> str:
        return f"{type(self.cfg).__name__} of the entity '{self.cfg.entity_name}'"

    @property
    def _local_quat(self) -> torch.Tensor | None:
        """Orientation of the frame in its body; None if it is the body itself."""
        kind = self.cfg.frame_type
        if kind == "body":
            return None
        return getattr(self._env.sim.model, f"{kind}_quat")[:, self._frame_id]

    def _find_frame(self) -> None:
        kind, name, entity = self.cfg.frame_type, self.cfg.frame_name, self._entity
        finder = {"body": entity.find_bodies, "site": entity.find_sites, "geom": entity.find_geoms}
        try:
            ids, names = finder[kind](name)
        except ValueError as error:
            raise ValueError(f"{self._where}: frame_name: {error}") from None
        if len(ids) > 1:
            raise ValueError(
                f"{self._where}: frame_name '{name}' matches several {kind}s: {', '.join(names)}. "
                "Name one."
            )
        data, model = self._env.sim.data, self._env.sim.mj_model
        self._frame_id = int(getattr(entity.indexing, f"{kind}_ids")[ids[0]])
        is_body = kind == "body"
        self._body_id = (
            self._frame_id if is_body else int(getattr(model, f"{kind}_bodyid")[self._frame_id])
        )
        self._frame_pos = getattr(data, "xpos" if is_body else f"{kind}_xpos")[:, self._frame_id]
        self._body_quat = data.xquat[:, self._body_id]

    def _find_dofs(self, joint_ids: list[int]) -> list[int]:
        model = self._env.sim.mj_model
        ids = self._entity.indexing.joint_ids[self._joint_ids].tolist()
        wrong = [
            name
            for i, name in zip(ids, self._target_names, strict=True)
            if model.jnt_type[i] not in _SINGLE
        ]
        if wrong or len(self._entity.indexing.joint_q_adr) != self._entity.num_joints:
            raise ValueError(
                f"{self._where} moves hinges and slides of entities without ball joints"
                f"{', but was given ' + ', '.join(wrong) if wrong else ''}. Use other joints."
            )
        return [int(model.jnt_dofadr[i]) for i in ids]

    def _find_posture(self) -> torch.Tensor:
        posture = self._entity.data.default_joint_pos[:, self._index].clone()
        if self.cfg.posture_target is not None:
            try:
                values = resolve_expr(self.cfg.posture_target, self._target_names)
            except ValueError as error:
                raise ValueError(f"{self._where}: posture_target: {error}") from None
            for column, value in enumerate(values):
                if value is not None:
                    posture[:, column] = value
        return posture
