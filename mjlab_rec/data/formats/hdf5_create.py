"""Create an HDF5 file of a recording, with all its datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import hdf5_header
from mjlab_rec.data.formats.hdf5_file import content, put_text
from mjlab_rec.data.formats.hdf5_header import Header
from mjlab_rec.data.formats.hdf5_how_to_read import how_to_read, label
from mjlab_rec.data.formats.hdf5_layout import (
    CHUNK_DTYPE,
    STATE_DTYPE,
    Column,
    Plan,
    index_dtype,
)
from mjlab_rec.data.schema import FORMAT_VERSION, RunInfo


def new_file(info: RunInfo, run: str, part: int, plan: Plan | None) -> bytes:
    """The content of a file before its first block; without a plan it has no columns."""

    def fill(file: h5py.File) -> Mapping[int, bytes]:
        _describe(file, info, run, part, plan)
        attachments = {}
        for name, values in info.attachments.items():
            dataset = file.create_dataset(
                f"attachments/{name}", data=np.frombuffer(values, np.uint8)
            )
            attachments[name] = (_offset(dataset), len(values), crc32(values))
        state = _listed(file, "index/state", 1, STATE_DTYPE)
        header = Header(
            info=info, run=run, part=part, attachments=attachments, state=state, plan=plan
        )
        if plan is not None:
            for column in plan.columns:
                label(_make(file, column), column)
            # These have a fixed size, so that they can be read at any time.
            header.index = _listed(file, "index/blocks", plan.capacity, index_dtype(plan.layout))
            header.chunks = _listed(file, "index/chunks", (2, plan.slots), CHUNK_DTYPE)
        text = header.dump()
        copies = [
            file.create_dataset(f"index/header_{n}", data=np.frombuffer(text, np.uint8))
            for n in (1, 2)
        ]
        return hdf5_header.locators([(_offset(copy), text) for copy in copies])

    return content(0 if plan is None else plan.chunks, fill, hdf5_header.END)


def _describe(file: h5py.File, info: RunInfo, run: str, part: int, plan: Plan | None) -> None:
    packed = plan is not None and plan.layout.packed
    attributes = {"format": "mjlab_rec", "version": FORMAT_VERSION, "run": run, "part": part}
    file.attrs.update(attributes | {"packed": packed})
    if plan is not None and plan.layout.specs:
        specs, paths = plan.layout.specs, plan.layout.paths
        plain = next((spec for spec in specs if not spec.codec), specs[0])
        picture = next((paths[name] for name in plan.layout.streams), "")
        file.attrs["how_to_read"] = how_to_read(paths[plain.name], packed, picture)
    put_text(file, "info", json.dumps(info.to_json()))


def _make(file: h5py.File, column: Column) -> Any:
    """Create a dataset that grows along its first axis."""
    more: dict[str, Any] = {"compression": column.compression}
    if column.compression is None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        # A chunk gets its place when the dataset grows, and HDF5 does not write to it.
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        more["dcpl"] = plist
    shape, chunk = column.shape, (column.chunk, *column.shape)
    if column.items:
        shape = (column.items, *shape)
        blocks = max(1, column.chunk // column.items)
        chunk = (blocks, min(column.chunk, column.items), *column.shape)
    return file.create_dataset(
        column.path,
        (0, *shape),
        column.dtype,
        maxshape=(None, *shape),
        chunks=chunk,
        **more,
    )


def _listed(file: h5py.File, name: str, count: Any, dtype: np.dtype) -> int:
    """Create a dataset of zeros; returns its offset."""
    dataset: Any = file.create_dataset(name, data=np.zeros(count, dtype))
    return _offset(dataset)


def _offset(dataset: Any) -> int:
    """Offset of a dataset's values in the file; 0 if it has none."""
    return dataset.id.get_offset() or 0
