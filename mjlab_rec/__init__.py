"""Manager-based RL environments on MuJoCo-Warp whose every rollout can be recorded."""

from mjlab_rec import gymnasium_ids

__version__ = "0.1.0"

gymnasium_ids.install()
