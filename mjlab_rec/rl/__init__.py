"""Interfaces for learning code: RSL-RL, and Gymnasium with numpy arrays."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mjlab_rec.rl.config import RslRlBaseRunnerCfg as RslRlBaseRunnerCfg
from mjlab_rec.rl.config import (
    RslRlDistillationAlgorithmCfg as RslRlDistillationAlgorithmCfg,
)
from mjlab_rec.rl.config import RslRlDistillationRunnerCfg as RslRlDistillationRunnerCfg
from mjlab_rec.rl.config import RslRlModelCfg as RslRlModelCfg
from mjlab_rec.rl.config import RslRlOnPolicyRunnerCfg as RslRlOnPolicyRunnerCfg
from mjlab_rec.rl.config import RslRlPpoAlgorithmCfg as RslRlPpoAlgorithmCfg
from mjlab_rec.rl.gymnasium_env import NumpyVectorEnv as NumpyVectorEnv

if TYPE_CHECKING:
    from mjlab_rec.rl.distillation import MjlabDistillationRunner as MjlabDistillationRunner
    from mjlab_rec.rl.runner import MjlabOnPolicyRunner as MjlabOnPolicyRunner
    from mjlab_rec.rl.vecenv_wrapper import RslRlVecEnvWrapper as RslRlVecEnvWrapper

# Their base classes are those of RSL-RL, which the other names must not need.
_NEED_RSL_RL = {
    "MjlabDistillationRunner": "distillation",
    "MjlabOnPolicyRunner": "runner",
    "RslRlVecEnvWrapper": "vecenv_wrapper",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_RSL_RL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NEED_RSL_RL[name]}"), name)
