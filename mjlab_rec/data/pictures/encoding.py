"""Encode and decode the pictures of a channel, in several threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.pictures import codec as codecs
from mjlab_rec.data.pictures import h264, jpeg, levels, png
from mjlab_rec.data.pictures.codec import Codec
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.schema import ChannelSpec, DataError

# A stored picture: the offset and size of the bytes that it is in, their checksum, its number in
# them (in a video), and what its values become when they are read, as in `levels`.
ENTRY_DTYPE = np.dtype(
    [("at", "<u8"), ("size", "<u4"), ("check", "<u4"), ("frame", "<u2"), ("kind", "<u2")]
)

_RUN = 4 << 20  # bytes of consecutive pictures that a thread encodes at a time
_VIDEO = 16 << 20  # bytes of pictures for one ffmpeg, which takes a while to start
_PICTURES, _STREAMS = 32, 64  # that a thread decodes at a time


@dataclass(kw_only=True)
class Encoded:
    """Encoded pictures. Offsets in `entries` are relative to the first of `pieces`."""

    entries: list[np.ndarray]  # of each clip, ENTRY_DTYPE
    pieces: list[bytes]

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return sum(map(len, self.pieces))


class PictureCoder:
    """Encodes and decodes the pictures of a channel.

    Raises if a package that the channel's codec needs is not installed.

    Args:
        spec: The channel.
        user: What needs the codec, for messages.
    """

    def __init__(self, spec: ChannelSpec, user: str) -> None:
        self.codec: Codec = codecs.parse(spec.codec)
        self._what = f"Channel '{spec.name}'"
        codecs.check_fits(self.codec, spec.dtype, spec.shape, self._what)
        self._shape, self._dtype = spec.shape, spec.dtype
        self._nbytes = spec.nbytes
        self._ffmpeg = ""
        if self.codec.name == "jpeg":
            jpeg.load(user)
        elif self.codec.name == "h264":
            self._ffmpeg = h264.load(user)

    def encode(
        self,
        clips: Sequence[np.ndarray],
        crew: Crew,
        report: Callable[[float], None] = lambda done: None,
    ) -> Encoded:
        """Encode clips of consecutive pictures, each (n, *shape).

        `report` is called with the fraction that is done.
        """
        most = max(h264.GROUP, _RUN // self._nbytes // h264.GROUP * h264.GROUP)
        runs = [
            (number, clip[at : at + most])
            for number, clip in enumerate(clips)
            for at in range(0, len(clip), most)
        ]
        jobs = list(self._bundles(runs))
        found: list[list[list[_Segment]]] = [[] for _ in jobs]

        def work(job: int) -> None:
            found[job] = self._encode([clip for _, clip in jobs[job]])

        for first in range(0, len(jobs), crew.threads):
            count = min(crew.threads, len(jobs) - first)
            crew.each(lambda n, first=first: work(first + n), count)
            report((first + count) / len(jobs))
        return _assembled(len(clips), jobs, found)

    def decode(
        self,
        entries: np.ndarray,
        sources: np.ndarray,
        read: Callable[[int], bytes],
        out: np.ndarray,
        crew: Crew,
        failure: Callable[[int, str], DataError],
    ) -> None:
        """Write the pictures of some entries to `out`, (n, *shape).

        Args:
            entries: What to decode, (n,) of ENTRY_DTYPE.
            sources: Numbers of the files that they are in, (n,).
            read: Returns the bytes of an entry, by its place in `entries`.
            out: Where to write.
            crew: The threads.
            failure: The error for an entry that cannot be decoded, given its place and a reason.
        """
        order = np.lexsort((entries["frame"], entries["at"], sources))
        at, of = entries["at"][order], sources[order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (at[1:] != at[:-1]) | (of[1:] != of[:-1])
        bounds = [*np.flatnonzero(fresh).tolist(), len(order)]
        count = len(bounds) - 1  # of segments
        most = _STREAMS if self.codec.name == "h264" else _PICTURES
        each = max(1, min(most, -(-count // crew.threads)))
        jobs = list(range(0, count, each))

        def work(job: int) -> None:
            first, last = jobs[job], min(jobs[job] + each, count)
            places = [order[a:b] for a, b in itertools.pairwise(bounds[first : last + 1])]
            contents = [read(int(some[0])) for some in places]
            try:
                self._decode(contents, places, entries, out)
            except ValueError:
                # One of them is damaged.
                for content, some in zip(contents, places, strict=True):
                    try:
                        self._decode([content], [some], entries, out)
                    except ValueError as error:
                        raise failure(int(some[0]), str(error)) from None

        crew.each(work, len(jobs))

    def _bundles(self, runs: list[tuple[int, np.ndarray]]) -> Any:
        """Runs that are encoded together: in a video many, otherwise one."""
        bundle, size = [], 0
        for run in runs:
            bundle.append(run)
            size += len(run[1]) * self._nbytes
            if self.codec.name != "h264" or size >= _VIDEO:
                yield bundle
                bundle, size = [], 0
        if bundle:
            yield bundle

    def _encode(self, clips: list[np.ndarray]) -> list[list[_Segment]]:
        kinds = [levels.PLAIN] * len(clips)
        if self._dtype == np.float32:
            for number, clip in enumerate(clips):
                lossy = self.codec.lossy
                clips[number], kinds[number] = levels.to_bytes(clip, lossy, self._what)
        if self.codec.name == "h264":
            streams = h264.encode(clips, self.codec.quality, self._ffmpeg)
        else:
            streams = [self._files(*each) for each in zip(clips, kinds, strict=True)]
        group = h264.GROUP if self.codec.name == "h264" else 1
        return [
            [
                _Segment(content, min(group, len(clip) - at * group), kind)
                for at, content in enumerate(contents)
            ]
            for clip, kind, contents in zip(clips, kinds, streams, strict=True)
        ]

    def _files(self, clip: np.ndarray, kind: int) -> list[bytes]:
        if kind == levels.FLOATS:
            return [png.deflated(np.ascontiguousarray(value)) for value in clip]
        if self.codec.name == "jpeg":
            return jpeg.encode(clip, self.codec.quality)
        return png.encode(clip)

    def _decode(
        self,
        contents: list[bytes],
        places: list[np.ndarray],
        entries: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Decode segments; raises ValueError."""
        where = np.concatenate(places)
        kinds = entries["kind"][where]
        floats = self._dtype == np.float32
        if not floats and kinds.any():
            raise ValueError(f"it is of the unknown kind {kinds.max()}")
        if floats and (kinds == levels.FLOATS).any():
            self._decode_floats(contents, places, entries, out)
            return
        values = np.empty((len(where), *self._shape), np.uint8 if floats else self._dtype)
        if self.codec.name == "h264":
            frames = [entries["frame"][some].astype(np.int64) for some in places]
            h264.decode(contents, frames, values, self._ffmpeg)
        else:
            if len(contents) != len(where):  # The same picture several times.
                contents = [
                    content
                    for content, some in zip(contents, places, strict=True)
                    for _ in range(len(some))
                ]
            (jpeg if self.codec.name == "jpeg" else png).decode(contents, values)
        if not floats:
            out[where] = values
            return
        for kind in np.unique(kinds).tolist():
            mine = kinds == kind
            out[where[mine]] = levels.from_bytes(values[mine], kind)

    def _decode_floats(
        self,
        contents: list[bytes],
        places: list[np.ndarray],
        entries: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Decode segments some of which are compressed floats."""
        for content, some in zip(contents, places, strict=True):
            if (entries["kind"][some] != levels.FLOATS).all():
                self._decode([content], [some], entries, out)
                continue
            values = png.inflated(content, self._nbytes)
            if len(values) != self._nbytes:
                raise ValueError(f"it has {len(values)} bytes instead of {self._nbytes}")
            out[some] = np.frombuffer(values, np.float32).reshape(self._shape)


@dataclass(frozen=True)
class _Segment:
    """The bytes of one or more pictures."""

    content: bytes
    count: int
    kind: int


def _assembled(
    count: int,
    jobs: list[list[tuple[int, np.ndarray]]],
    found: list[list[list[_Segment]]],
) -> Encoded:
    """Put the results of all jobs together."""
    entries: list[list[tuple[int, int, int, int, int]]] = [[] for _ in range(count)]
    pieces, at = [], 0
    for job, results in zip(jobs, found, strict=True):
        for (number, _), segments in zip(job, results, strict=True):
            for segment in segments:
                size, check = len(segment.content), crc32(segment.content)
                entries[number] += [
                    (at, size, check, frame, segment.kind) for frame in range(segment.count)
                ]
                pieces.append(segment.content)
                at += size
    return Encoded(entries=[np.array(some, ENTRY_DTYPE) for some in entries], pieces=pieces)
