"""What terms, sensors and terrains draw with, under the name that they import."""

from __future__ import annotations

from typing import Any

from mjlab_rec.sim.debug_visualizer import DebugVisualizer as DebugVisualizer


class NullDebugVisualizer(DebugVisualizer):
    """Takes draw commands and forgets them."""

    def __init__(self, env_idx: int = 0, meansize: float = 0.1) -> None:
        super().__init__(env_idx, meansize=meansize)

    def _add(self, *args: Any) -> None:
        pass

    def add_ghost_mesh(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""
