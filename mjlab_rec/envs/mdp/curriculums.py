"""Stock curriculum rules: change terms in stages, at given numbers of training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.managers.curriculum_manager import CurriculumTermCfg

__all__ = [
    "RewardCurriculumStage",
    "TerminationCurriculumStage",
    "VelocityStage",
    "commands_vel",
    "reward_curriculum",
    "termination_curriculum",
]


class _Stage(TypedDict):
    step: int


class RewardCurriculumStage(_Stage, total=False):
    """From ``env.common_step_counter`` = ``step`` on, use this weight and these parameters."""

    weight: float
    params: dict[str, Any]


class TerminationCurriculumStage(_Stage, total=False):
    """From ``env.common_step_counter`` = ``step`` on, use this flag and these parameters."""

    time_out: bool
    params: dict[str, Any]


class VelocityStage(_Stage, total=False):
    """From ``env.common_step_counter`` = ``step`` on, sample commands from these ranges."""

    lin_vel_x: tuple[float, float] | None
    lin_vel_y: tuple[float, float] | None
    ang_vel_z: tuple[float, float] | None


class _StagedTerm:
    """Applies stages to the live config of one term of another manager."""

    _manager: str
    _name_param: str

    def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv) -> None:
        name = cfg.params[self._name_param]
        self._term_cfg = getattr(env, self._manager).get_term_cfg(name)
        self._stages: Sequence[Mapping[str, Any]] = cfg.params["stages"]
        _check_order(self._stages)
        known = [f.name for f in fields(self._term_cfg)]
        self._logged_fields: list[str] = []
        self._logged_params: list[str] = []
        for stage in self._stages:
            for key in stage:
                if key in ("step", "params"):
                    continue
                if key not in known:
                    raise AttributeError(f"'{name}' has no field '{key}'. {nearest(key, known)}")
                self._logged_fields.append(key)
            for key in stage.get("params", {}):
                if key not in self._term_cfg.params:
                    raise KeyError(
                        f"'{name}' has no parameter '{key}' (stage at step {stage['step']})."
                        f" {nearest(key, list(self._term_cfg.params))}"
                    )
                self._logged_params.append(key)

    def _apply(self, step: int) -> dict[str, torch.Tensor]:
        term = self._term_cfg
        for stage in self._stages:
            if step < stage["step"]:
                break
            for key, value in stage.items():
                if key == "params":
                    term.params.update(value)
                elif key != "step":
                    setattr(term, key, value)
        state = {key: getattr(term, key) for key in self._logged_fields}
        state.update((key, term.params[key]) for key in self._logged_params)
        return {
            key: torch.as_tensor(value)
            for key, value in state.items()
            if isinstance(value, (int, float, torch.Tensor))
        }


class reward_curriculum(_StagedTerm):
    """Changes a reward term's weight and parameters at given step counts.

    The last stage reached applies::

        CurriculumTermCfg(
            func=mdp.reward_curriculum,
            params={
                "reward_name": "joint_vel",
                "stages": [{"step": 0, "weight": -0.01}, {"step": 12000, "weight": -0.1}],
            },
        )
    """

    _manager = "reward_manager"
    _name_param = "reward_name"

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | slice | None,
        reward_name: str,
        stages: Sequence[RewardCurriculumStage],
    ) -> dict[str, torch.Tensor]:
        """Apply the stages reached so far and return the values in force."""
        return self._apply(env.common_step_counter)


class termination_curriculum(_StagedTerm):
    """Changes a termination term's parameters and its time_out flag at given step counts."""

    _manager = "termination_manager"
    _name_param = "termination_name"

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | slice | None,
        termination_name: str,
        stages: Sequence[TerminationCurriculumStage],
    ) -> dict[str, torch.Tensor]:
        """Apply the stages reached so far and return the values in force."""
        return self._apply(env.common_step_counter)


def commands_vel(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice | None,
    command_name: str,
    velocity_stages: Sequence[VelocityStage],
) -> dict[str, torch.Tensor]:
    """Widen the ranges of a uniform velocity command at given step counts."""
    _check_order(velocity_stages)
    cfg: Any = env.command_manager.get_term_cfg(command_name)
    ranges = cfg.ranges
    axes = ("lin_vel_x", "lin_vel_y", "ang_vel_z")
    for stage in velocity_stages:
        if env.common_step_counter < stage["step"]:
            break
        for axis in axes:
            if (range_ := stage.get(axis)) is not None:
                setattr(ranges, axis, range_)
    return {
        f"{axis}_{end}": torch.tensor(getattr(ranges, axis)[i])
        for axis in axes
        for i, end in enumerate(("min", "max"))
    }


def _check_order(stages: Sequence[Mapping[str, Any]]) -> None:
    steps = [stage["step"] for stage in stages]
    if steps != sorted(steps):
        raise ValueError(
            f"The stages must be in ascending order of step, but the steps are {steps}."
        )
