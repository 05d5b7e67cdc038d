"""The environment, its configuration and the stock terms (``envs.mdp``)."""

from mjlab_rec.envs.env_cfg import ManagerBasedRlEnvCfg as ManagerBasedRlEnvCfg
from mjlab_rec.envs.manager_based_rl_env import ManagerBasedRlEnv as ManagerBasedRlEnv
