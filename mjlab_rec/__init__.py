"""Manager-based RL environments on MuJoCo-Warp whose every rollout can be recorded."""

from mjlab_rec import registry

__version__ = "0.1.0"

# Here, and not when a task is first asked for: Gymnasium does not ask, it must have been told.
registry.discover()
