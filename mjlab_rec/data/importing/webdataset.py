"""Import exports to WebDataset: tar files with a sample for each episode."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.formats.checks import damage, open_file
from mjlab_rec.data.formats.npz_archive import npy_header
from mjlab_rec.data.importing.base import Foreign
from mjlab_rec.data.importing.recorded import Recorded, of_folder, usable
from mjlab_rec.data.schema import DataError

SHARDS = "shard-*.tar"


def open_webdataset(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a folder that was exported."""
    samples, notes = Samples(path), []
    record = usable(of_folder(path, "Folders of WebDataset", use_record), samples, notes)
    if record is None:
        raise DataError(notes[0])
    return Recorded(samples, record, "model_fields")


class Samples:
    """The samples of all shards, in their order, read like groups of an HDF5 file.

    Args:
        path: The folder of the shards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, dict[str, tuple[Path, int, int]]] = {}  # file, offset and size
        for shard in sorted(path.glob(SHARDS)):
            with damage(f"'{shard}'", shard):
                try:
                    with open_file(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                        for member in tar:
                            key, dot, rest = member.name.partition(".")
                            if member.isreg() and dot:
                                place = shard, member.offset_data, member.size
                                self._members.setdefault(key, {})[rest] = place
                except tarfile.TarError as error:
                    raise DataError(f"'{shard}' cannot be read: {error}.") from None
        self.names: Sequence[str] = sorted(self._members)

    def close(self) -> None:
        """There is nothing to close."""

    def rows(self, name: str) -> int:
        """The number of steps of an episode."""
        return len(self.read(name, "step"))

    def has(self, name: str, path: str) -> bool:
        """Whether a sample has an array, or arrays below a path."""
        key = path.replace("/", ".")
        return any(each.startswith(f"{key}.") for each in self._members[name])

    def read(self, name: str, path: str) -> np.ndarray:
        """An array of a sample."""
        member = f"{path.replace('/', '.')}.npy"
        what = f"'{name}.{member}' in '{self.path}'"
        if member not in self._members[name]:
            raise DataError(f"There is no {what}.")
        file, offset, size = self._members[name][member]
        with damage(what):
            with open_file(file) as stream:
                stream.seek(offset)
                content = stream.read(size)
            start = io.BytesIO(content)
            shape, fortran, dtype = npy_header(start)
            wanted = math.prod(shape) * dtype.itemsize
            if dtype.kind not in "biuf" or fortran or len(content) - start.tell() != wanted:
                raise DataError(f"{what} is no array of numbers.")
            return np.frombuffer(content, dtype, offset=start.tell()).reshape(shape)

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """The arrays of model fields of a sample; the record says what else there is."""
        prefix, numbers = "model_fields.", {}
        for member in self._members[name]:
            if member.startswith(prefix) and member.endswith(".npy"):
                path = f"model_fields/{member[len(prefix) : -len('.npy')]}"
                values = self.read(name, path)
                numbers[path] = values.dtype, values.shape
        return numbers, []
