"""What draws pictures of a simulation: the interface, and the choice between what implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from mjlab_rec.sim.viewer_config import ViewerConfig

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene
    from mjlab_rec.sim.simulation import Simulation

RendererName = Literal["auto", "gl", "warp"]


class Renderer(Protocol):
    """Draws environments as a ``ViewerConfig`` says.

    It reads the simulation's state and never changes it, so rendering leaves no trace in a rollout.
    A picture is made in two steps: ``capture`` is quick and belongs to the thread that steps the
    simulation; ``draw`` takes its time and may run beside the simulation, in another thread.
    """

    def capture(self, env_ids: Sequence[int]) -> Any:
        """Remember what these environments look like now.

        To be called in the thread that steps the simulation. What it returns stays valid while the
        simulation goes on, and is for this renderer's ``draw`` only.
        """
        ...

    def draw(self, shot: Any) -> np.ndarray:
        """Draw a picture of each environment captured: uint8 (environments, height, width, 3).

        To be called in one thread, always the same, which may be another than ``capture``'s.
        """
        ...

    def render(self, env_idx: int | None = None) -> np.ndarray:
        """Draw an environment now (None: ``cfg.env_idx``): uint8 (height, width, 3)."""
        ...

    def close(self) -> None:
        """Free the graphics memory; to be called in the thread that draws. Idempotent."""
        ...


def make_renderer(
    sim: Simulation, cfg: ViewerConfig, scene: Scene, name: RendererName = "auto"
) -> Renderer:
    """Make what draws pictures; what is missing for that is said here, before anything is drawn.

    Args:
        sim: The simulation to draw.
        cfg: Size, camera, and what is shown.
        scene: The simulation's scene.
        name: "gl" draws with MuJoCo and OpenGL, "warp" with MuJoCo-Warp's ray tracer, which needs
            no OpenGL. "auto" takes OpenGL if it works.
    """
    from mjlab_rec.sim.gl_renderer import GlRenderer

    return GlRenderer(sim, cfg, scene)
