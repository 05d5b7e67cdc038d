"""What an HDF5 file tells those who open it with h5py or with another program."""

from __future__ import annotations

import textwrap
from typing import Any

import h5py

from mjlab_rec.data.formats.hdf5_layout import Column

_ATTRIBUTE = 32 << 10  # bytes of element names above which they are left to the head

_COMMON = """\
A recording of mjlab_rec. mjlab_rec.data.open_rollouts(path) puts episodes together, checks all
values, and also reads recordings of several files. With h5py alone:

blocks/<channel>[block, lane, row] are the values. A lane is one environment: the key "envs" of the
JSON text `info` says which. Block b counts if index/blocks[b]["done"] is 1, and then it has
index/blocks[b]["rows"] rows: what comes after them is NaN, or 0 where the type has no NaN, and is
no data. Each dataset has the names of its axes as dimension labels; `units` and `elements` are
attributes of it. index/step[block, row] counts the control steps before a row; next_obs of a row is
obs of the next one, at the end of a block tail/<channel>[block, lane], at the end of an episode
final/<channel>[end]. ends lists the episodes that ended: env, number (of the episode), and the
lane, block and row (-1: before the block's first) of its last row. Only the first
index/blocks["ends"].sum() rows of it count, likewise in final and values.
"""

_BLOCKS = """\
An episode begins on the row after the one with which the lane's previous episode ended, maybe in an
earlier file. The second episode of lane 0:

    index, ends = file["index/blocks"][:], file["ends"]
    ends = ends[: index["ends"].sum()]
    before, last = ends[ends["lane"] == 0][:2]
    places = [(b, r) for b in range(before["block"], last["block"] + 1)
              for r in range(index["rows"][b])
              if (b, r) > (before["block"], before["row"])
              and (b, r) <= (last["block"], last["row"])]
    values = np.array([file["blocks/{channel}"][b, 0, r] for b, r in places])
"""

_PACKED = """\
This file holds whole episodes one after another in lane 0; each begins with a new block. The blocks
of an episode are those whose index/lanes["first_episode"] is the "key" of its row in ends; it may
have begun in an earlier file. The second episode:

    index = file["index/blocks"][:]
    key = file["ends"][1]["key"]
    of = file["index/lanes"]["first_episode"][: index["done"].sum(), 0]
    blocks = np.flatnonzero(of == key)
    values = np.concatenate([file["blocks/{channel}"][b, 0, : index["rows"][b]] for b in blocks])
"""


def how_to_read(channel: str, packed: bool) -> str:
    """A text for those who have nothing but the file and h5py."""
    example = (_PACKED if packed else _BLOCKS).format(channel=channel)
    return f"{_COMMON}\n{textwrap.dedent(example)}"


def label(dataset: Any, column: Column) -> None:
    """Name a dataset's axes, its unit and its elements."""
    for axis, name in enumerate(column.axes):
        dataset.dims[axis].label = name
    spec = column.spec
    if spec is None:
        return
    if spec.units:
        dataset.attrs["units"] = spec.units
    names = [name.encode() for name in spec.elements]
    longest = max(map(len, names), default=0)
    if 0 < longest * len(names) < _ATTRIBUTE:
        kind = h5py.string_dtype("utf-8", longest)
        dataset.attrs.create("elements", names, (len(names),), kind)
    if column.path.startswith("blocks/"):
        dataset.attrs["valid_rows"] = "[block, lane, : file['index/blocks']['rows'][block]]"
        dataset.attrs["when"] = spec.when
