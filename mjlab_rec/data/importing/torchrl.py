"""Import exports to TorchRL: a TensorDict of all rows in memory-mapped files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.export.record import Record
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.importing.base import Foreign
from mjlab_rec.data.importing.recorded import Recorded, of_folder
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.values import check_name


def open_torchrl(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a folder that was exported."""
    record = of_folder(path, "Folders of TorchRL", use_record)
    return Recorded(_Rows(path, record), record, "model_fields")


class _Rows:
    """The rows of each stretch, read like groups of an HDF5 file.

    The files have nothing but values; their types and shapes are in the record. So neither
    tensordict nor a description that it would trust is needed.
    """

    def __init__(self, path: Path, record: Record) -> None:
        self.path = path
        self._ends = np.cumsum(record.counts)
        self._counts = record.counts
        self._kinds = {
            check_name(record.paths.get(name, name), "key"): kind
            for name, kind in record.info.kinds.items()
        }
        self._kinds["step"] = np.dtype(np.int64), ()
        self.names: Sequence[str] = [str(number) for number in range(len(record.counts))]

    def close(self) -> None:
        """There is nothing to close."""

    def rows(self, name: str) -> int:
        """The number of steps of a stretch."""
        return int(self._counts[int(name)])

    def has(self, name: str, path: str) -> bool:
        """Whether there are values at a key."""
        return path in self._kinds

    def read(self, name: str, path: str) -> np.ndarray:
        """The values of a stretch."""
        number, (dtype, shape) = int(name), self._kinds[path]
        file = self.path / f"{'step_count' if path == 'step' else path}.memmap"
        each = dtype.itemsize * math.prod(shape)
        opened = plain_files.opened(file, follow=False)
        with open(opened, "rb", buffering=0) as stream:
            size = stream.seek(0, 2)
            if size != each * int(self._ends[-1]):
                raise DataError(
                    f"'{file}' was changed after it was exported: it has {size} bytes instead of"
                    f" {each * int(self._ends[-1])}."
                )
            count = int(self._counts[number])
            first = int(self._ends[number]) - count
            content = plain_files.read_at(opened, file, first * each, count * each)
        values = np.frombuffer(content, dtype).reshape(count, *shape)
        return values.astype(np.int32) if path == "step" else values

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """There are no model fields."""
        return {}, []
