"""Encode and decode the pictures of a channel, in several threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.pictures import codec as codecs
from mjlab_rec.data.pictures import floats, h264, jpeg, levels, png
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
_PICTURES, _STREAMS = 32, 256  # that a thread decodes at a time
_SAMPLES = 4  # pictures that choose the filter


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
        clip_of, runs = [], []
        for number, clip in enumerate(clips):
            for at in range(0, len(clip), most):
                clip_of.append(number)
                runs.append(clip[at : at + most])
        jobs = list(self._jobs(runs))
        found: list[list[_Run]] = [[] for _ in jobs]
        png_filter = self._filter(runs)

        def work(job: int) -> None:
            found[job] = self._encode(runs[jobs[job]], png_filter)

        for first in range(0, len(jobs), crew.threads):
            count = min(crew.threads, len(jobs) - first)
            crew.each(lambda n, first=first: work(first + n), count)
            report((first + count) / len(jobs))
        coded = [run for some in found for run in some]
        return _assembled(len(clips), clip_of, coded, self._group)

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
        # A segment: the pictures that are in the same bytes.
        keys = entries["kind"], entries["at"], sources
        order = np.lexsort((entries["frame"], *keys))
        fresh = np.ones(len(order), bool)
        fresh[1:] = np.any([np.diff(key[order]) for key in keys], axis=0)
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

    @property
    def _group(self) -> int:
        """Most pictures in the same bytes."""
        return h264.GROUP if self.codec.name == "h264" else 1

    def _jobs(self, runs: list[np.ndarray]) -> Iterator[slice]:
        """Runs that are encoded together: in a video many, otherwise one."""
        first, size = 0, 0
        for number, run in enumerate(runs, 1):
            size += len(run) * self._nbytes
            if self.codec.name != "h264" or size >= _VIDEO or number == len(runs):
                yield slice(first, number)
                first, size = number, 0

    def _filter(self, runs: list[np.ndarray]) -> int:
        """The filter for PNG files of these runs, from a few of their pictures."""
        if self.codec.name != "png" or not runs:
            return 0
        some = [run[len(run) // 2] for run in runs[:: -(-len(runs) // _SAMPLES)]]
        if self._dtype == np.float32:
            some = [levels.to_bytes(value, False, self._what)[0] for value in some]
            some = [value for value in some if value.dtype == np.uint8]
        return png.best_filter(some)

    def _encode(self, runs: list[np.ndarray], png_filter: int) -> list[_Run]:
        kinds = [levels.PLAIN] * len(runs)
        if self._dtype == np.float32:
            for number, run in enumerate(runs):
                lossy = self.codec.lossy
                runs[number], kinds[number] = levels.to_bytes(run, lossy, self._what)
        if self.codec.name == "h264":
            contents = h264.encode(runs, self.codec.quality, self._ffmpeg)
        else:
            contents = [self._files(*each, png_filter) for each in zip(runs, kinds, strict=True)]
        return [_Run(*each) for each in zip(contents, map(len, runs), kinds, strict=True)]

    def _files(self, run: np.ndarray, kind: int, png_filter: int) -> list[bytes]:
        if kind == levels.FLOATS:
            return floats.encode(run)
        if self.codec.name == "jpeg":
            return jpeg.encode(run, self.codec.quality)
        return png.encode(run, png_filter)

    def _decode(
        self,
        contents: list[bytes],
        places: list[np.ndarray],
        entries: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Decode segments; raises ValueError."""
        kinds = entries["kind"][[some[0] for some in places]]
        for kind in np.unique(kinds).tolist():
            mine = np.flatnonzero(kinds == kind).tolist()
            some, where = [contents[n] for n in mine], [places[n] for n in mine]
            if self.codec.name == "h264":
                values = self._of_streams(some, [entries["frame"][each] for each in where], kind)
            else:
                values = self._of_files(some, kind)
                if len(where) < sum(map(len, where)):  # The same picture several times.
                    values = values.repeat([len(each) for each in where], axis=0)
            out[np.concatenate(where)] = values

    def _of_streams(self, streams: list[bytes], frames: list[np.ndarray], kind: int) -> np.ndarray:
        numbers = np.empty((sum(map(len, frames)), *self._shape), np.uint8)
        h264.decode(streams, [each.astype(np.int64) for each in frames], numbers, self._ffmpeg)
        return self._from_levels(numbers, kind)

    def _of_files(self, files: list[bytes], kind: int) -> np.ndarray:
        exact = self._dtype == np.float32 and kind == levels.FLOATS
        dtype = self._dtype if exact or kind == levels.PLAIN else np.dtype(np.uint8)
        values = np.empty((len(files), *self._shape), dtype)
        if exact:
            floats.decode(files, values)
            return values
        (jpeg if self.codec.name == "jpeg" else png).decode(files, values)
        return self._from_levels(values, kind)

    def _from_levels(self, values: np.ndarray, kind: int) -> np.ndarray:
        if self._dtype == np.float32:
            return levels.from_bytes(values, kind)
        if kind != levels.PLAIN:
            raise ValueError(f"it is of the unknown kind {kind}")
        return values


@dataclass(frozen=True)
class _Run:
    """Encoded consecutive pictures."""

    contents: list[bytes]  # each of one picture, or of a group
    count: int
    kind: int  # what they become when they are read, as in `levels`


def _assembled(clips: int, clip_of: Sequence[int], runs: Sequence[_Run], group: int) -> Encoded:
    """Put runs together; `clip_of` says which clip each belongs to."""
    entries: list[list[np.ndarray]] = [[np.zeros(0, ENTRY_DTYPE)] for _ in range(clips)]
    pieces, at = [], 0
    for number, run in zip(clip_of, runs, strict=True):
        sizes = np.fromiter(map(len, run.contents), np.int64)
        checks = np.fromiter(map(crc32, run.contents), np.uint32)
        of, frame = np.divmod(np.arange(run.count), group)
        some = np.zeros(run.count, ENTRY_DTYPE)
        some["at"] = (at + np.cumsum(sizes) - sizes)[of]
        some["size"], some["check"] = sizes[of], checks[of]
        some["frame"], some["kind"] = frame, run.kind
        entries[number].append(some)
        pieces += run.contents
        at += int(sizes.sum())
    return Encoded(entries=[np.concatenate(some) for some in entries], pieces=pieces)
