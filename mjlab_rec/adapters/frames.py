"""Frames for videos from an environment's own ``render()``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)


class RenderedFrames:
    """Stands for a renderer: it calls ``render()`` when a frame is due, and copies the frames.

    Args:
        render: Returns a frame, frames of all environments, or None.
        num_envs: Number of environments.
        was_reset: Returns which environments were reset inside the last step (num_envs,), so that
            a frame no longer shows the end of their episode; None: none.
        name: Name of the environment, for messages.
    """

    def __init__(
        self,
        render: Callable[[], Any],
        num_envs: int,
        was_reset: Callable[[], torch.Tensor | None],
        name: str,
    ) -> None:
        self._render = render
        self._num_envs = num_envs
        self._was_reset = was_reset
        self._name = name
        self._latest: dict[int, np.ndarray] = {}
        self._told = False

    def capture(self, env_ids: Sequence[int], shapes: Any = None) -> list[np.ndarray]:
        """Take the frames of these environments now."""
        frames = self._frames()
        gone = self._was_reset()
        found = []
        for env_id in env_ids:
            if gone is not None and bool(gone[env_id]) and env_id in self._latest:
                self._tell()
            else:
                self._latest[env_id] = _as_picture(frames[env_id], self._name)
            found.append(self._latest[env_id])
        return found

    def draw(self, shot: list[np.ndarray]) -> np.ndarray:
        """Return the frames: (environments, height, width, 3)."""
        return np.stack(shot)

    def close(self) -> None:
        """Nothing to free: the environment closes its own window."""
        self._latest.clear()

    def _frames(self) -> Any:
        frames: Any = self._render()
        if frames is None or (isinstance(frames, list) and any(each is None for each in frames)):
            raise ValueError(
                f"{self._name}: render() returned nothing. Make the environment with"
                ' render_mode="rgb_array" to record videos.'
            )
        if isinstance(frames, torch.Tensor):
            frames = frames.detach().cpu().numpy()
        if isinstance(frames, np.ndarray) and frames.ndim == 3:
            frames = [frames]
        if isinstance(frames, list) and self._num_envs == 1 and len(frames) != 1:
            frames = frames[-1:]  # render_mode "rgb_array_list": all frames since the last call.
        if len(frames) != self._num_envs:
            raise ValueError(
                f"{self._name}: render() returned {len(frames)} frames for {self._num_envs}"
                " environments. Videos need one of each, from render_mode='rgb_array'."
            )
        return frames

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "%s resets inside step(), before a frame of an episode's last state could be"
                " taken: videos show the frame before it twice. With the autoreset modes NEXT_STEP"
                " and DISABLED they show the last state.",
                self._name,
            )


def _as_picture(frame: Any, name: str) -> np.ndarray:
    """A copy of a frame, uint8 (height, width, 3)."""
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu().numpy()
    frame = np.array(frame)  # A copy: some environments draw into the same array again.
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"{name}: render() returned {frame.dtype} of shape {frame.shape}, but videos need"
            " pictures: uint8 (height, width, 3), from render_mode='rgb_array'."
        )
    return np.ascontiguousarray(frame[..., :3] if frame.shape[2] != 1 else frame.repeat(3, axis=2))
