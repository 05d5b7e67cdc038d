"""Pictures in Parquet files: a column of PNG or JPEG files, as Hugging Face's datasets has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.pictures import jpeg, png
from mjlab_rec.data.pictures.codec import parse
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.pictures.encoding import PictureCoder
from mjlab_rec.data.schema import ChannelSpec

CODECS = ("png", "jpeg")
KIND = pl.Struct({"bytes": pl.Binary, "path": pl.String})
"""The type of a column: files, and their paths, which are missing."""


def has_files(spec: ChannelSpec) -> bool:
    """Whether a channel is stored as files; otherwise as arrays."""
    return bool(spec.codec) and parse(spec.codec).name in CODECS and spec.dtype != np.float32


def encode(coder: PictureCoder, values: np.ndarray, crew: Crew) -> list[bytes]:
    """The pictures of an episode as files."""
    return coder.encode([np.ascontiguousarray(values)], crew).pieces


def column(name: str, files: Sequence[bytes]) -> pl.Series:
    """A column of files."""
    content = pl.Series("bytes", files, pl.Binary)
    path = pl.Series("path", [None] * len(files), pl.String)
    return pl.DataFrame([content, path]).to_struct(name)


def checksum(files: Sequence[bytes]) -> int:
    """The checksum of files one after another."""
    found = 0
    for file in files:
        found = crc32(file, found)
    return found


def decode(files: Sequence[bytes], spec: ChannelSpec, crew: Crew) -> np.ndarray:
    """The pictures of an episode; raises ValueError if they are not those of the channel."""
    read = png.decode
    if parse(spec.codec).name == "jpeg":
        jpeg.load(f"Reading '{spec.name}'")
        read = jpeg.decode
    values = np.empty((len(files), *spec.shape), spec.dtype)
    bounds = [len(files) * n // crew.threads for n in range(crew.threads + 1)]

    def work(n: int) -> None:
        some = slice(bounds[n], bounds[n + 1])
        read(files[some], values[some])

    crew.each(work, crew.threads)
    return values
