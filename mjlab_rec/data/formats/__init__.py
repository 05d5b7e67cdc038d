"""One file per format: how blocks or episodes are written, and read back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.data.formats.base import Writer

# Loaded on first use: h5py and polars take a while to import.
WRITERS = {
    "csv": "csv:CsvWriter",
    "hdf5": "hdf5:Hdf5Writer",
    "memory": "memory:MemoryWriter",
    "npz": "npz:NpzWriter",
    "parquet": "parquet:ParquetWriter",
    "robomimic": "robomimic:RobomimicWriter",
}


def writer_class(name: str) -> type[Writer]:
    """The writer of a format, by the format's name."""
    if name not in WRITERS:
        raise ValueError(f"Unknown format '{name}'. {nearest(name, list(WRITERS))}")
    module, _, attribute = WRITERS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
