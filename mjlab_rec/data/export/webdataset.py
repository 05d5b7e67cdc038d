"""Export to WebDataset: tar files with a sample for each episode."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.export import record
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.schema import DataError


def write_webdataset(source: Source, path: Path, *, shard_bytes: int = 256 << 20) -> None:
    """Write a folder of shard-000000.tar, shard-000001.tar, ...

    A sample is an episode: its number with leading zeros, so that the order of names is that of
    numbers, then ``.json`` with facts about it, and ``.<channel>.npy`` for each channel, with dots
    for slashes: ``000000012.obs.actor.npy``.

    Args:
        source: What to export.
        path: The folder to write.
        shard_bytes: Size at which the next file begins.
    """
    if shard_bytes < 1:
        raise DataError(f"shard_bytes is {shard_bytes}, but it must be at least 1.")
    path.mkdir()
    names = {name: name.replace("/", ".") for name in ("step", *source.specs)}
    if len(set(names.values())) < len(names):
        raise DataError(
            "Two channels have the same name with dots for slashes. Export one of them."
        )
    shards = 0
    tar: tarfile.TarFile | None = None
    try:
        for batch in source.batches():
            for number, rows in enumerate(batch.slices()):
                if tar is None or tar.offset >= shard_bytes:
                    if tar is not None:
                        tar.close()
                    tar = tarfile.open(path / f"shard-{shards:06d}.tar", "x")
                    shards += 1
                key = f"{batch.first + number:09d}"
                _add(tar, f"{key}.json", json.dumps(_facts(batch, number)).encode())
                for name, values in batch.arrays.items():
                    _add(tar, f"{key}.{names[name]}.npy", _npy(values[rows]))
                for name, value in batch.models[number].items():
                    _add(tar, f"{key}.model_fields.{name}.npy", _npy(value))
    finally:
        if tar is not None:
            tar.close()
    (path / record.FILE).write_bytes(record.dump(source, names))


def _facts(batch: Batch, number: int) -> dict[str, Any]:
    """What the table of episodes says about a stretch, as JSON data."""
    row = {name: values[number].item() for name, values in batch.table.items()}
    row["success"] = None if row["success"] < 0 else row["success"] == 1
    for name, value in row.items():
        if isinstance(value, float) and not np.isfinite(value):
            row[name] = None  # JSON has no other word for it.
    return {**row, "rows": int(batch.counts[number])}


def _npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
