"""Which channels of a recording are stored as pictures, and with which codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mjlab_rec.data.pictures.codec import Codec, check_fits, is_picture, parse
from mjlab_rec.data.schema import ChannelSpec, DataError
from mjlab_rec.utils.string import nearest

RAW = "raw"
_NEXT = "next_"


def with_codecs(
    channels: Sequence[ChannelSpec],
    pictures: str | Mapping[str, str] | None,
    codecs: Sequence[str],
    writer: str,
    floats: bool = True,
) -> tuple[ChannelSpec, ...]:
    """The channels, with a codec where they are to be stored as pictures.

    Args:
        channels: The channels of the recording.
        pictures: The field of the recorder's cfg.
        codecs: The codecs that the format has.
        writer: Name of the format's writer, for messages.
        floats: Whether these codecs also store floats in it.
    """
    usual = "png" if "png" in codecs else RAW
    if pictures is None:
        chosen = {spec.name: usual for spec in channels if is_picture(spec.dtype, spec.shape)}
    elif isinstance(pictures, str):
        exact = _checked(pictures, codecs, writer)
        chosen = {
            spec.name: pictures
            for spec in channels
            if is_picture(spec.dtype, spec.shape, floats and exact is not None and not exact.lossy)
        }
        if exact is not None and not chosen:
            raise ValueError(
                f"pictures is {pictures!r}, but no recorded channel is a picture: uint8 of the"
                " shape (height, width), with 1, 3 or 4 channels first or last. Name other"
                f" channels: pictures={{'obs/camera': {pictures!r}}}."
            )
    else:
        chosen = {spec.name: usual for spec in channels if is_picture(spec.dtype, spec.shape)}
        chosen |= _named(channels, pictures, codecs, writer)
    found = []
    for spec in channels:
        # What the action led to is stored like what was seen.
        text = chosen.get(spec.next_of or spec.name, RAW)
        codec = None if text == RAW else parse(text)
        if codec is not None:
            check_fits(codec, spec.dtype, spec.shape, f"Channel '{spec.name}'")
            if spec.dtype == np.float32 and not floats:
                raise ValueError(
                    f"Channel '{spec.name}' is float32, which {writer} stores as arrays only. Set"
                    f" pictures={{'{spec.name}': 'raw'}}, or use Hdf5RecorderCfg."
                )
        found.append(replace(spec, codec="" if codec is None else str(codec)))
    return tuple(found)


def _named(
    channels: Sequence[ChannelSpec],
    pictures: Mapping[str, str],
    codecs: Sequence[str],
    writer: str,
) -> dict[str, str]:
    """The codecs of channels that were named, and of their next values."""
    names = [spec.name for spec in channels]
    found = {}
    for name, text in pictures.items():
        if name not in names:
            raise ValueError(f"pictures names the channel '{name}'. {nearest(name, names)}")
        _checked(text, codecs, writer)
        found[name] = text
        found.setdefault(_NEXT + name, text)
    return found


def codec_named(text: str) -> Codec | None:
    """The codec of this name, None for "raw"; raises ValueError."""
    try:
        return None if text == RAW else parse(text)
    except DataError as error:
        raise ValueError(f"pictures: {error} Or 'raw' for arrays.") from None


def _checked(text: str, codecs: Sequence[str], writer: str) -> Codec | None:
    """The codec of this name, None for "raw"; raises ValueError unless the format has it."""
    codec = codec_named(text)
    if codec is not None and codec.name not in codecs:
        known = ", ".join(map(repr, (RAW, *codecs)))
        raise ValueError(
            f"pictures is {text!r}, but {writer} cannot store pictures like that. Possible:"
            f" {known}. Hdf5RecorderCfg with layout='blocks' has all codecs."
        )
    return codec
