"""Moving or still pictures of an episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mjlab_rec.data.pictures.codec import is_picture
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec

_FRAMES = 6


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An episode in pictures: files that all have the same media type."""

    media_type: str
    """Such as "video/mp4" or "image/png"."""
    files: tuple[bytes, ...]


ClipMaker = Callable[[Rollouts, int], Clip | None]
"""Makes a clip of an episode, by its row in the table; None if that is not possible."""


def picture_channel(channels: tuple[ChannelSpec, ...]) -> ChannelSpec | None:
    """The first channel of pictures that browsers can show."""
    fitting = (spec for spec in channels if is_picture(spec.dtype, spec.shape))
    return next((spec for spec in fitting if not spec.next_of), None)


def recorded_frames(rollouts: Rollouts, index: int) -> Clip | None:
    """A few of the recorded pictures of an episode; None if it has none."""
    from mjlab_rec.data.pictures import png

    spec = picture_channel(rollouts.info.channels)
    if spec is None:
        return None
    values = rollouts.read(index, [spec.name])[spec.name]
    if not len(values):
        return None
    at = np.unique(np.linspace(0, len(values) - 1, _FRAMES).astype(int))
    frames = values[at]
    files = png.encode(frames, png.best_filter([frames]))
    return Clip(media_type="image/png", files=tuple(files))
