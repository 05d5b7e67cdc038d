"""Random rollouts with pictures, for tests of codecs and of the formats that have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from data_worlds import World

from mjlab_rec.data.schema import ChannelSpec

EXACT = {
    "obs/eye": ("uint8", (12, 10, 3)),
    "obs/first": ("uint8", (3, 9, 8)),
    "obs/grey": ("uint8", (9, 11)),
    "obs/alpha": ("uint8", (8, 9, 4)),
    "obs/stack": ("uint8", (5, 8, 9)),
    "obs/depth": ("int16", (8, 9, 1)),
    "obs/far": ("uint16", (8, 9)),
    "obs/scaled": ("float32", (3, 8, 9)),
    "obs/noisy": ("float32", (8, 9, 1)),
}


def specs(codec: str, kinds: dict[str, tuple[str, tuple[int, ...]]]) -> list[ChannelSpec]:
    """Channels of pictures, and of the pictures after the step."""
    found = []
    for name, (dtype, shape) in kinds.items():
        spec = ChannelSpec(
            name=name, dtype=np.dtype(dtype), shape=shape, when="before", codec=codec
        )
        found += [spec, replace(spec, name=f"next_{name}", when="after", next_of=name)]
    return found


def scene(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A picture with slopes and a bright block."""
    image = np.zeros(shape)
    for axis, size in enumerate(shape):
        image += np.expand_dims(
            np.linspace(0, rng.uniform(20, 60), size), [a for a in range(len(shape)) if a != axis]
        )
    at = tuple(slice(int(rng.integers(0, max(1, size - 3))), None) for size in shape)
    image[at] += rng.uniform(0, 60)
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass
class PictureWorld(World):
    """A world whose channels include pictures."""

    codec: str = "png"
    kinds: Any = None
    noise: bool = True  # whether pictures are noise, or look like something
    steps: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        more = specs(self.codec, EXACT if self.kinds is None else self.kinds)
        if self.every > 1:
            more = [replace(spec, next_of="") for spec in more]
        self.info.channels = (*self.info.channels, *more)

    def _value(self, spec: ChannelSpec) -> np.ndarray:
        if not spec.codec or (self.noise and spec.name.split("/")[-1] != "scaled"):
            return super()._value(spec)
        image = scene(self.rng, spec.shape)
        if spec.dtype == np.float32:
            # As an environment on a CPU or on a GPU computes it.
            if self.seed % 2:
                return image.astype(np.float32) * (np.float32(1) / np.float32(255))
            return image.astype(np.float32) / np.float32(255)
        return image.astype(spec.dtype)
