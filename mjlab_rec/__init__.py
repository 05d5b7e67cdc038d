"""Manager-based RL environments on MuJoCo-Warp whose every rollout can be recorded."""

from pathlib import Path

from mjlab_rec import registry

__version__ = "0.1.0"

MJLAB_SRC_PATH: Path = Path(__file__).parent
"""The folder of this package, under mjlab's name."""

# Here, and not when a task is first asked for: Gymnasium does not ask, it must have been told.
registry.discover()
