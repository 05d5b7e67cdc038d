"""Encode the pictures of blocks and episodes for an HDF5 file, and read them back.

A channel with a codec has entries instead of values in its columns, and a table with the bytes
that they refer to, ``encoded/<channel>``. Every entry has the checksum of its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.pictures import floats, h264, levels
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE, PictureCoder
from mjlab_rec.data.schema import Block, ChannelSpec, DataError, Episode, RunInfo
from mjlab_rec.data.worker import WRITER_NICENESS

if TYPE_CHECKING:
    from mjlab_rec.data.formats.hdf5_blocks import StoredPart

_JOINED = 1 << 20  # bytes that are written at a time
_MOST_OVERHEAD = 1 << 16  # bytes by which an encoded picture may be larger than its values


@dataclass(kw_only=True)
class EncodedChannel:
    """The pictures of a channel. The offsets in all entries begin with 0."""

    columns: dict[str, np.ndarray]  # entries, by the column or channel that they are for
    pieces: list[bytes]

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return sum(map(len, self.pieces))

    def moved(self, offset: int) -> dict[str, np.ndarray]:
        """The entries, for bytes that are written at an offset."""
        found = {}
        for name, entries in self.columns.items():
            found[name] = entries.copy()
            found[name]["at"][entries["size"] > 0] += np.uint64(offset)
        return found

    def content(self) -> Iterator[np.ndarray]:
        """All bytes."""
        some, size = [], 0
        for piece in self.pieces:
            some.append(piece)
            size += len(piece)
            if size >= _JOINED:
                yield np.frombuffer(b"".join(some), np.uint8)
                some, size = [], 0
        if some:
            yield np.frombuffer(b"".join(some), np.uint8)

    def rows(self, piece: slice) -> EncodedChannel:
        """A part of the rows, and only the bytes that they refer to."""
        chosen = {name: entries[piece] for name, entries in self.columns.items()}
        used = np.unique(np.concatenate([entries["at"] for entries in chosen.values()]))
        sizes = np.array([0, *map(len, self.pieces)], np.uint64)
        number = np.searchsorted(np.cumsum(sizes)[:-1], used)
        pieces = [self.pieces[at] for at in number.tolist()]
        starts = np.cumsum([0, *map(len, pieces)])
        for name, entries in chosen.items():
            chosen[name] = entries.copy()
            chosen[name]["at"] = starts[np.searchsorted(used, entries["at"])]
        return EncodedChannel(columns=chosen, pieces=pieces)


class PictureWriter:
    """Encodes the channels of a recording that have a codec."""

    def __init__(self, info: RunInfo) -> None:
        self._specs = {spec.name: spec for spec in info.channels}
        self._coders = {
            spec.name: PictureCoder(spec, "The HDF5 writer") for spec in info.stored if spec.codec
        }
        self._crew = Crew("pictures", niceness=WRITER_NICENESS)

    def close(self) -> None:
        """End the threads."""
        self._crew.close()

    def block(
        self, block: Block, rows: int, report: Callable[[str, float], None]
    ) -> dict[str, EncodedChannel]:
        """Encode a block's pictures of each channel: its columns "blocks", "tail" and "final".

        Args:
            block: The block.
            rows: Rows of a full block.
            report: Called with the name of a channel, and the fraction of it that is done.
        """
        found = {}
        for name, coder in self._coders.items():
            chained = name in block.tail
            ends = block.ends.env_index
            # An environment's clip: its rows, the value after them, and those at episodes' ends.
            of_env = [np.flatnonzero(ends == env_index) for env_index in range(block.num_envs)]
            clips = [block.arrays[name][:, env_index] for env_index in range(block.num_envs)]
            if chained:
                tail, final = block.tail[name], block.ends.final[name]
                clips = [
                    np.concatenate([clip, tail[env_index][None], final[of_env[env_index]]])
                    for env_index, clip in enumerate(clips)
                ]
            encoded = coder.encode(clips, self._crew, lambda done, name=name: report(name, done))
            columns: dict[str, np.ndarray] = {}
            columns["blocks"] = np.zeros((block.num_envs, rows), ENTRY_DTYPE)
            if chained:
                columns["tail"] = np.zeros(block.num_envs, ENTRY_DTYPE)
                columns["final"] = np.zeros(len(ends), ENTRY_DTYPE)
            for env_index, entries in enumerate(encoded.entries):
                columns["blocks"][env_index, : block.rows] = entries[: block.rows]
                if chained:
                    columns["tail"][env_index] = entries[block.rows]
                    columns["final"][of_env[env_index]] = entries[block.rows + 1 :]
            found[name] = EncodedChannel(columns=columns, pieces=encoded.pieces)
        return found

    def episode(self, episode: Episode) -> dict[str, EncodedChannel]:
        """Encode an episode's pictures: a column for the channel, and one for its next values."""
        found = {}
        for name, coder in self._coders.items():
            values = np.ascontiguousarray(episode.arrays[name])
            count, clip = len(values), [values]
            own: dict[str, np.ndarray] = {}  # rows whose next value is not that of the next row
            for other in self._specs.values():
                if other.next_of == name:
                    after = np.ascontiguousarray(episode.arrays[other.name])
                    own[other.name] = np.append(_different(after[:-1], values[1:]), count - 1)
                    clip.append(after[own[other.name]])
            (entries,) = (encoded := coder.encode([np.concatenate(clip)], self._crew)).entries
            columns, at = {name: entries[:count]}, count
            for other, rows in own.items():
                columns[other] = np.append(entries[1:count], entries[:1])
                columns[other][rows] = entries[at : at + len(rows)]
                at += len(rows)
            found[name] = EncodedChannel(columns=columns, pieces=encoded.pieces)
        return found


class PictureReader:
    """Decodes the pictures of a recording."""

    def __init__(self) -> None:
        self._coders: dict[str, PictureCoder] = {}
        self._crew = Crew("pictures")

    def close(self) -> None:
        """End the threads."""
        self._crew.close()

    def decode(
        self,
        spec: ChannelSpec,
        entries: np.ndarray,
        places: Sequence[tuple[StoredPart, int]],
        out: np.ndarray,
    ) -> None:
        """Write the pictures of entries to `out`, given the part and block that each is in."""
        if spec.name not in self._coders:
            self._coders[spec.name] = PictureCoder(spec, f"Reading '{spec.name}'")
        numbers = {id(part): number for number, (part, _) in enumerate(places)}
        sources = np.array([numbers[id(part)] for part, _ in places], np.int64)

        def read(place: int) -> bytes:
            part, block = places[place]
            return picture(part, spec, block, entries[place])

        def failure(place: int, why: str) -> DataError:
            part, block = places[place]
            return damaged(part, spec, block, entries[place], why)

        self._coders[spec.name].decode(entries, sources, read, out, self._crew, failure)


def picture(part: StoredPart, spec: ChannelSpec, block: int, entry: np.ndarray) -> bytes:
    """The bytes of an entry; raises DataError if they are damaged."""
    assert part.layout is not None
    column = part.columns[part.layout.streams[spec.next_of or spec.name]]
    at, size = int(entry["at"]), int(entry["size"])
    most = (spec.nbytes + _MOST_OVERHEAD) * h264.MOST
    if not 0 < size <= most or at + size > part.most_items(column.column):
        raise damaged(part, spec, block, entry, "its place is impossible")
    content = column.stretch(at, size)
    if part.check and crc32(content) != entry["check"]:
        raise damaged(part, spec, block, entry, "wrong checksum")
    return content


def damages(part: StoredPart, spec: ChannelSpec, block: int, entries: np.ndarray) -> list[str]:
    """A sentence for each of the entries whose bytes are damaged."""
    entries = entries[entries["size"] > 0]
    entries = entries[np.unique(entries["at"], return_index=True)[1]]
    found = []
    for entry in entries:
        try:
            picture(part, spec, block, entry)
        except DataError as error:
            found.append(str(error))
    return found


def not_finite(part: StoredPart, spec: ChannelSpec, block: int, entries: np.ndarray) -> np.ndarray:
    """Which of the entries have values that are NaN or infinite. Only compressed floats can."""
    found = np.zeros(entries.shape, bool)
    values = np.empty((1, *spec.shape), np.float32)
    for place in np.argwhere(entries["kind"] == levels.FLOATS):
        at = tuple(place.tolist())
        try:
            floats.decode([picture(part, spec, block, entries[at])], values)
            found[at] = not np.isfinite(values).all()
        except (DataError, ValueError):
            pass  # `damages` reports it.
    return found


def damaged(
    part: StoredPart, spec: ChannelSpec, block: int, entry: np.ndarray, why: str
) -> DataError:
    """The error for an entry that cannot be read."""
    return DataError(
        f"{part.where(block)}: a picture of '{spec.name}' (bytes {entry['at']} to"
        f" {int(entry['at']) + int(entry['size'])}) is damaged: {why}. Everything else can be read."
    )


def _different(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rows in which two arrays differ in any bit."""
    count, size = len(left), math.prod(left.shape[1:]) * left.itemsize
    first, second = (values.view(np.uint8).reshape(count, size) for values in (left, right))
    return np.flatnonzero((first != second).any(axis=1))
