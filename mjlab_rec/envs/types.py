"""Types of observations and of what a step returns, under mjlab's module name."""

from mjlab_rec.envs.manager_based_rl_env import StepReturn as VecEnvStepReturn
from mjlab_rec.managers.observation_manager import Observations as VecEnvObs

__all__ = ["VecEnvObs", "VecEnvStepReturn"]
