"""Facts about a task that are stored in a policy's ONNX file, for the code that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.actuator import BuiltinPdActuator, TransmissionType
from mjlab_rec.envs.mdp.actions import JointPositionAction
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.actuator import Actuator
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

_GROUP = "actor"


def get_base_metadata(env: ManagerBasedRlEnv, run_path: str) -> dict[str, list | str | float]:
    """Describe the joints, actions and observations of a task.

    The task has an entity "robot", an action term "joint_pos" that is a JointPositionAction, and a
    group of observations "actor".

    Args:
        env: The environment.
        run_path: Name of the training run.
    """
    robot: Entity = env.scene["robot"]
    action = env.action_manager.get_term("joint_pos")
    if not isinstance(action, JointPositionAction):
        raise TypeError(
            "get_base_metadata describes policies with joint position targets: the action term "
            f"'joint_pos' must be a JointPositionAction, not {type(action).__name__}."
        )
    gains = joint_gains(env, robot).values()
    names = env.observation_manager.active_terms[_GROUP]
    terms = [env.observation_manager.get_term_cfg(_GROUP, name) for name in names]
    no_clip = (float("-inf"), float("inf"))
    return {
        "run_path": run_path,
        "joint_names": list(robot.joint_names),
        "joint_stiffness": [stiffness for stiffness, _ in gains],
        "joint_damping": [damping for _, damping in gains],
        "default_joint_pos": robot.data.default_joint_pos[0].tolist(),
        "command_names": list(env.command_manager.active_terms),
        "observation_names": list(names),
        "observation_terms_scale": [_plain_scale(term.scale) for term in terms],
        "observation_terms_flatten_history_dim": [term.flatten_history_dim for term in terms],
        "observation_terms_history_length": [term.history_length for term in terms],
        "observation_terms_clip": [list(term.clip or no_clip) for term in terms],
        "action_scale": action.scale[0].tolist(),
    }


def attach_metadata_to_onnx(onnx_path: str, metadata: dict[str, list | str | float]) -> None:
    """Store metadata as text in an ONNX file, lists separated by commas."""
    onnx = require("onnx", "train", "attach_metadata_to_onnx")
    model = onnx.load(onnx_path)
    for key, value in metadata.items():
        text = list_to_csv_str(value) if isinstance(value, list) else str(value)
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, onnx_path)


def list_to_csv_str(
    arr: Sequence[Any], *, decimals: int = 3, delimiter: str = ",", sub_delimiter: str = ";"
) -> str:
    """Write a list as text; the numbers of a list within it are joined by ``sub_delimiter``."""

    def text(entry: Any) -> str:
        return f"{entry:.{decimals}f}" if isinstance(entry, (int, float)) else str(entry)

    return delimiter.join(
        sub_delimiter.join(map(text, entry)) if isinstance(entry, (list, tuple)) else text(entry)
        for entry in arr
    )


def _plain_scale(scale: Any) -> Any:
    if scale is None:
        return 1.0
    if isinstance(scale, torch.Tensor):
        return scale.tolist()
    return list(scale) if isinstance(scale, tuple) else scale


def joint_gains(env: ManagerBasedRlEnv, robot: Entity) -> dict[str, tuple[float, float]]:
    """Stiffness and damping of each actuated joint as configured, in the order of the joints.

    They are those of the controller; a motor, which has none, has zeros.
    """
    found: dict[str, tuple[float, float]] = {}
    for actuator in robot.actuators:
        if actuator.transmission_type == TransmissionType.JOINT:
            gains = zip(*_gains_of(env, actuator), strict=True)
            found |= dict(zip(actuator.target_names, gains, strict=True))
    return {
        name: (float(found[name][0]), float(found[name][1]))
        for name in robot.joint_names
        if name in found
    }


def _gains_of(env: ManagerBasedRlEnv, actuator: Actuator) -> tuple[Any, Any]:
    own: Any = actuator
    if hasattr(own, "default_stiffness"):  # The actuator closes the loop itself.
        return own.default_stiffness[0].tolist(), own.default_damping[0].tolist()
    model, ids = env.sim.mj_model, actuator.global_ctrl_ids.tolist()
    gain, bias = model.actuator_gainprm, model.actuator_biasprm
    if isinstance(actuator, BuiltinPdActuator):
        n = actuator.num_targets
        return gain[ids[:n], 0], gain[ids[n:], 0]
    return 0.0 - bias[ids, 1], 0.0 - bias[ids, 2]  # Not -x, which makes zeros negative.
