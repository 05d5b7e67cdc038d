"""The environment, its configuration and the stock terms (``envs.mdp``)."""

from mjlab_rec.envs.env_cfg import ManagerBasedRlEnvCfg
from mjlab_rec.envs.manager_based_rl_env import ManagerBasedRlEnv
from mjlab_rec.envs.manager_based_rl_env import StepReturn as VecEnvStepReturn
from mjlab_rec.managers.observation_manager import Observations as VecEnvObs

__all__ = ["ManagerBasedRlEnv", "ManagerBasedRlEnvCfg", "VecEnvObs", "VecEnvStepReturn"]
