"""The file formats of this package, declared like those of any other package."""

from __future__ import annotations

from pathlib import Path

from mjlab_rec.data.files import META
from mjlab_rec.data.formats.registry import Format

_HERE = "mjlab_rec.data.formats"
_HDF5 = b"\x89HDF\r\n\x1a\n"

FORMATS = (
    Format(
        name="csv",
        writer=f"{_HERE}.csv:CsvWriter",
        reader=f"{_HERE}.csv:CsvReader",
        suffixes=(".csv",),
    ),
    Format(
        name="hdf5",
        writer=f"{_HERE}.hdf5:Hdf5Writer",
        reader=f"{_HERE}.hdf5:Hdf5Reader",
        suffixes=(".h5", ".hdf5"),
        magic=_HDF5,
    ),
    Format(name="memory", writer=f"{_HERE}.memory:MemoryWriter"),
    Format(
        name="npz",
        writer=f"{_HERE}.npz:NpzWriter",
        reader=f"{_HERE}.npz:NpzReader",
        suffixes=(".npz",),
        mark=META,
        magic=b"PK\x03\x04",
    ),
    Format(
        name="parquet",
        writer=f"{_HERE}.parquet:ParquetWriter",
        reader=f"{_HERE}.parquet:ParquetReader",
        mark="mjlab_rec.parquet",
    ),
    Format(
        name="robomimic",
        writer=f"{_HERE}.robomimic:RobomimicWriter",
        reader=f"{_HERE}.robomimic:RobomimicReader",
        suffixes=(".h5", ".hdf5"),
        magic=_HDF5,
        recognises=f"{_HERE}.builtin:has_a_group_per_episode",
    ),
)


def has_a_group_per_episode(path: Path) -> bool:
    """Whether an HDF5 file has the layout of robomimic and Isaac Lab."""
    from mjlab_rec.data.formats import hdf5_header

    with open(path, "rb") as stream:
        if hdf5_header.is_ours(stream.read(hdf5_header.END)):
            return False
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return "data" in file
