"""Clips of recorded episodes, drawn from their states, for reports."""

from __future__ import annotations

import math
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate
from mjlab_rec.data.reporting import Clip
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.replay.recorded_env import RecordedEnv
from mjlab_rec.sim.renderer import make_renderer
from mjlab_rec.utils.extras import MissingExtraError, UnavailableError

_WIDTH, _HEIGHT = 320, 240
_MOST_FRAMES = 250
_MOST_BYTES = 3_000_000
_MOST_RATE = 25.0  # pictures per second
_CRF = 28


class StateClips:
    """Makes mp4 clips of episodes: the argument `clip` of ``mjlab_rec.data.report``.

    A clip has at most 250 pictures of 320 x 240, so a long episode is shown faster than it was. If
    states were not recorded, or cannot be drawn here, there is no clip.

    Args:
        seconds: Time after which a clip ends, whole or not.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self.why_not = ""
        """Why there is no clip."""

    def __call__(self, rollouts: Rollouts, index: int) -> Clip | None:
        """A clip of the episode in this row of the table, or None."""
        if "state" not in rollouts.channels or self.why_not:
            return None
        try:
            ffmpeg = find_ffmpeg("A clip")
            with tempfile.TemporaryDirectory() as folder:
                return self._made(rollouts, index, Path(folder) / "clip.mp4", ffmpeg)
        except (DataError, MissingExtraError, UnavailableError) as error:
            self.why_not = str(error)
            return None

    def _made(self, rollouts: Rollouts, index: int, path: Path, ffmpeg: str) -> Clip | None:
        until = time.monotonic() + self._seconds
        with RecordedEnv(rollouts, [index]) as env:
            env.cfg.viewer.width, env.cfg.viewer.height = _WIDTH, _HEIGHT
            states = env.timeline.length
            stride, rate = _pace(states, env.step_dt)
            renderer = make_renderer(env.sim, env.cfg.viewer, env.scene, "gl")  # pyright: ignore[reportArgumentType]
            try:
                writer = Mp4Writer(path, _WIDTH, _HEIGHT, rate, ffmpeg, crf=_CRF)
                try:
                    for position in range(0, states, stride):
                        if writer.frames and time.monotonic() > until:
                            break
                        env.seek(position)
                        writer.write(renderer.render(0))
                finally:
                    writer.close()
            finally:
                renderer.close()
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            self.why_not = f"A clip would have {len(data):,} bytes."
            return None
        return Clip(media_type="video/mp4", files=(data,))


def _pace(states: int, step_s: float) -> tuple[int, Fraction]:
    """States from a picture to the next, and pictures per second."""
    if step_s <= 0.0:  # Files of other programs may not say it.
        return max(1, math.ceil(states / _MOST_FRAMES)), Fraction(25)
    stride = max(1, math.ceil(1.0 / (_MOST_RATE * step_s) - 1e-6))
    if math.ceil(states / stride) <= _MOST_FRAMES:
        return stride, frame_rate(stride * step_s)
    rate = min(frame_rate(stride * step_s), Fraction(25))
    return math.ceil(states / _MOST_FRAMES), rate
