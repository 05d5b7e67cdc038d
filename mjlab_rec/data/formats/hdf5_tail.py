"""Read the blocks of an HDF5 recording while they are written, each of them once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_layout import CONTINUED, FINISHED, STATE_DTYPE, index_dtype
from mjlab_rec.data.formats.hdf5_pictures import PictureReader
from mjlab_rec.data.schema import Block, ChannelSpec, DataError, Ends, RunInfo


@dataclass(kw_only=True)
class NewBlock:
    """A block of a recording that grows."""

    block: Block
    run: str
    """The run that it belongs to: a recording that was appended to has several."""


class BlockTail:
    """The blocks of a recording that were not read yet.

    Args:
        path: The first part.
        check: Whether to compare checksums, and to raise for a block that is lost.
    """

    def __init__(self, path: Path, check: bool = True) -> None:
        self.path, self.check = path, check
        self.info: RunInfo | None = None
        """The description of the recording; None until its first file can be read."""
        self.packed = False
        """Whether it consists of whole episodes, whose blocks are not returned."""
        self.finished = False
        """Whether it was closed, and all of its blocks were returned."""
        self._done: set[Path] = set()  # parts that will have no more blocks
        self._next = 0  # block of the part that is being read
        self._peek: tuple[Path, int, int, int, bytes] | None = None
        self._pictures = PictureReader()

    def blocks(self) -> Iterator[NewBlock]:
        """The blocks that were written since the last call."""
        while True:
            paths = files.parts(self.path)  # Listed first: if there is a next part, this is whole.
            left = [path for path in paths if path not in self._done]
            if not left or not self._has_news(left[0], alone=len(left) == 1):
                return
            part = StoredPart(left[0], self.check, first=self._next, attached=False)
            self.finished = False
            try:
                yield from self._of_part(part)
                # A file without columns is closed before the one that replaces it takes its place.
                over = part.state == FINISHED or (part.state == CONTINUED and bool(part.layout))
                if over and part.missing and self.check:
                    raise DataError(part.missing)
                if self.packed or not (over or left[1:]):
                    self._look_ahead(part)
                    return
                self._done.add(left[0])
                self._next, self._peek = 0, None
                self.finished = part.state == FINISHED and not left[1:]
            finally:
                part.file.close()

    def close(self) -> None:
        """End the threads that decode pictures."""
        self._pictures.close()

    def _has_news(self, path: Path, alone: bool) -> bool:
        """Whether a part has another block or was closed, without reading all of its index."""
        if self._peek is None or self._peek[0] != path or not alone:
            return True
        _, state, index, size, known = self._peek
        try:
            file = plain_files.opened(path)
        except DataError:
            return True
        try:
            now = plain_files.read_at(file, path, state, STATE_DTYPE.itemsize)
            return now != known or any(plain_files.read_at(file, path, index, size))
        finally:
            os.close(file)

    def _look_ahead(self, part: StoredPart) -> None:
        """Note where the part changes next."""
        if part.layout is None:
            return  # The file is replaced with the first block.
        header, size = part.header, index_dtype(part.layout).itemsize
        state = part.file.read(header.state, STATE_DTYPE.itemsize)
        if np.frombuffer(state, STATE_DTYPE)[0]["state"] == part.state:
            self._peek = part.path, header.state, header.index + self._next * size, size, state

    def _of_part(self, part: StoredPart) -> Iterator[NewBlock]:
        if self.info is None:
            self.info = part.info
        if part.layout is None:
            return
        self.packed = part.layout.packed
        if self.packed:
            return
        for number in range(self._next, len(part.index)):
            if number in part.lost:
                if self.check:
                    raise DataError(f"{part.lost[number]} With check=False the others are read.")
            else:
                yield NewBlock(block=self._block(part, number), run=part.run)
            self._next = number + 1

    def _block(self, part: StoredPart, number: int) -> Block:
        layout, row = part.layout, part.index[number]
        assert layout is not None
        rows = int(row["rows"])

        def of(kind: str, spec: ChannelSpec, count: int | None = None) -> np.ndarray:
            values = part.columns[f"{kind}/{layout.paths[spec.name]}"].block(number)
            values = values if count is None else values[:, :count]
            return self._decoded(part, number, spec, values) if spec.codec else values

        arrays = {spec.name: of("blocks", spec, rows).swapaxes(0, 1) for spec in layout.specs}
        per_env = part.columns["index/envs"].block(number)
        table = part.columns["ends"].block(number)
        names = ("env_index", "row", "at", "length", "total", "rows", "recorded")
        facts: dict[str, Any] = {
            n: table[n] for n in (*names, "terminated", "truncated", "success")
        }
        return Block(
            info=part.info,
            rows=rows,
            arrays=arrays,
            tail={spec.name: of("tail", spec) for spec in layout.chained},
            step=part.columns["index/step"].block(number)[:rows],
            first_episode=per_env["first_episode"],
            first_step=per_env["first_step"],
            total=per_env["total"],
            recorded=per_env["recorded"],
            ends=Ends(
                episode=table["key"],
                **facts,
                final={spec.name: of("final", spec) for spec in layout.chained},
            ),
            gap=int(row["gap"]),
        )

    def _decoded(
        self, part: StoredPart, number: int, spec: ChannelSpec, entries: np.ndarray
    ) -> np.ndarray:
        out = np.empty((entries.size, *spec.shape), spec.dtype)
        flat = np.ascontiguousarray(entries).reshape(-1)
        self._pictures.decode(spec, flat, [(part, number)] * entries.size, out)
        return out.reshape(*entries.shape, *spec.shape)
