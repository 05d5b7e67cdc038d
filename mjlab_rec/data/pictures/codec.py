"""How the pictures of a channel are stored: the names of codecs, and what each of them can take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mjlab_rec.data.values import DataError, short_repr
from mjlab_rec.utils.string import nearest

CODECS = ("png", "jpeg", "h264")
_QUALITIES = {"jpeg": (1, 100, 90), "h264": (0, 51, 18)}  # least, most, default
_SIDES = (1, 16384)  # pixels
_TYPES = {"png": ("uint8", "uint16", "int16", "float32"), "jpeg": ("uint8", "float32")}
_CHANNELS = (1, 3, 4)
_SURE = 8  # pixels


@dataclass(frozen=True)
class Codec:
    """A way to store pictures."""

    name: str
    """"png", "jpeg" or "h264"."""

    quality: int = 0
    """JPEG: 1 to 100, the higher the better. H.264: its crf, 0 to 51, the lower the better."""

    @property
    def lossy(self) -> bool:
        """Whether pictures change a little."""
        return self.name != "png"

    def __str__(self) -> str:
        return f"{self.name}:{self.quality}" if self.lossy else self.name


def parse(text: str) -> Codec:
    """The codec that a text such as "png", "jpeg" or "h264:23" names; raises DataError."""
    name, colon, number = text.partition(":")
    if name not in CODECS:
        raise DataError(f"Unknown codec {short_repr(text)}. {nearest(name, CODECS)}")
    if name not in _QUALITIES:
        if colon:
            raise DataError(f"The codec {short_repr(text)}: {name} has no quality. Write '{name}'.")
        return Codec(name)
    least, most, usual = _QUALITIES[name]
    if not colon:
        return Codec(name, usual)
    if not (number.isascii() and number.isdigit() and least <= int(number[:5]) <= most):
        raise DataError(
            f"The codec {short_repr(text)}: the quality of {name} must be a whole number from"
            f" {least} to {most}, such as '{name}:{usual}'."
        )
    return Codec(name, int(number))


def check_fits(codec: Codec, dtype: np.dtype, shape: tuple[int, ...], what: str) -> None:
    """Raise DataError if a codec cannot store values of this type and shape."""
    types = _TYPES.get(codec.name, _TYPES["jpeg"])
    if dtype.name not in types:
        raise DataError(
            f"{what} is {dtype.name}, but {codec.name} stores {', '.join(types)}. Record it as an"
            " array: pictures='raw', with compression='gzip' to make it smaller."
        )
    height, width, channels = size_of(shape) if len(shape) > 1 else (0, 0, 0)
    if codec.lossy and channels not in (1, 3):
        height = 0
    if not all(_SIDES[0] <= side <= _SIDES[1] for side in (height, width)):
        wanted = "(height, width), with 1 or 3 channels first or last"
        raise DataError(
            f"{what} has the shape {shape}, which is no picture for {codec.name}: it must be"
            f" {wanted if codec.lossy else wanted.replace('1 or 3', '1, 3 or 4')}, and at most"
            f" {_SIDES[1]} pixels wide and high. Record it as an array: pictures='raw'."
        )


def size_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of values of this shape, as they are stored.

    Values that are neither (height, width, channels) nor (channels, height, width), such as several
    pictures in one value, are one grey picture: the pictures are below each other.
    """
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return shape[0], shape[1], shape[2]
    if _channels_first(shape):
        return shape[1], shape[2], shape[0]
    return math.prod(shape[:-1]), shape[-1], 1


def as_pictures(values: np.ndarray) -> np.ndarray:
    """Values (n, *shape) as pictures (n, height, width, channels), a view if possible."""
    shape = values.shape[1:]
    if _channels_first(shape):
        return np.moveaxis(values, 1, 3)
    return values.reshape(len(values), *size_of(shape))


def into_values(pictures: np.ndarray, out: np.ndarray) -> None:
    """Write pictures (n, height, width, channels) to values (n, *shape)."""
    if _channels_first(out.shape[1:]):
        pictures = np.moveaxis(pictures, 3, 1)
    np.copyto(out, pictures.reshape(out.shape))


def is_picture(dtype: np.dtype, shape: tuple[int, ...], floats: bool = False) -> bool:
    """Whether values of this type and shape are surely pictures: of uint8, or of floats as well."""
    height, width, _ = size_of(shape) if len(shape) in (2, 3) else (0, 0, 0)
    if floats and dtype.name == "float32" and len(shape) == 3 and size_of(shape)[2] > 1:
        return min(height, width) >= _SURE
    return dtype.name in ("uint8", "uint16") and min(height, width) >= _SURE


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in _CHANNELS and shape[2] not in _CHANNELS
