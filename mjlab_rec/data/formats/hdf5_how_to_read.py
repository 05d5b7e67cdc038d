"""How to read an HDF5 recording with h5py alone: the text and the labels that are in the file."""

from __future__ import annotations

import textwrap
from typing import Any

import h5py

from mjlab_rec.data.formats.hdf5_layout import Column

_ATTRIBUTE = 32 << 10  # maximum bytes of element names in an attribute; the header has them too

_COMMON = """\
A recording of mjlab_rec. mjlab_rec.data.open_rollouts(path) returns whole episodes, checks all
values and also reads recordings of several files. With h5py alone:

The values are in blocks/<channel>[block, env_index, row]. env_index counts the recorded
environments; the key "envs" of the JSON text `info` lists their numbers. Block b is valid if
index/blocks[b]["done"] is 1. It has index/blocks[b]["rows"] rows. The rest of its room is filled
with NaN, or with 0 where the type has no NaN. Each dataset has the names of its axes as dimension
labels, and `units` and `elements` as attributes. index/step[block, row] is the number of control
steps before a row. next_obs of a row is obs of the next row; for the last row of a block it is
tail/<channel>[block, env_index], for the last row of an episode final/<channel>[end]. `ends` lists
the episodes that ended: env, number of the episode, and env_index, block and row of its last row
(row -1: in an earlier block). Only the first index/blocks["ends"].sum() entries of ends, final and
values are valid.
"""

_BLOCKS = """\
An episode begins with the row after the last row of the environment's previous episode, maybe in an
earlier file. If the environment needs a step to reset, that step's row is in no episode: index/step
of it is below `at` of the episode before. The second episode of the first environment:

    index, ends = file["index/blocks"][:], file["ends"]
    ends = ends[: index["ends"].sum()]
    before, last = ends[ends["env_index"] == 0][:2]
    places = [(b, r) for b in range(before["block"], last["block"] + 1)
              for r in range(index["rows"][b])
              if (b, r) > (before["block"], before["row"])
              and (b, r) <= (last["block"], last["row"])
              and file["index/step"][b, r] >= before["at"]]
    values = np.array([file["blocks/{channel}"][b, 0, r] for b, r in places])
"""

_PACKED = """\
This file holds whole episodes one after another, all at env_index 0. Each begins with a new block.
The blocks of an episode are those whose index/envs["first_episode"] is the "key" of its entry in
ends; it may have begun in an earlier file. The second episode:

    index = file["index/blocks"][:]
    key = file["ends"][1]["key"]
    of = file["index/envs"]["first_episode"][: index["done"].sum(), 0]
    blocks = np.flatnonzero(of == key)
    values = np.concatenate([file["blocks/{channel}"][b, 0, : index["rows"][b]] for b in blocks])
"""

_PICTURES = """\
Pictures are encoded, if blocks/<channel> has the attribute `codec`. Then it, tail and final have
entries instead of values: `at` and `size` say which bytes of encoded/<channel> a picture is in, and
`check` is their CRC-32. With png and jpeg the bytes are a file, with h264 a stream of a few
pictures, of which `frame` counts. If values are floats, `kind` is 1 for pixels / float32(255), 2
for pixels * (float32(1) / float32(255)), and 3 for floats that are stored as below.

    entry = file["blocks/{picture}"][block, env_index, row]
    content = file["encoded/{picture}"][entry["at"] : entry["at"] + entry["size"]].tobytes()
    if entry["kind"] < 3:
        picture = np.asarray(PIL.Image.open(io.BytesIO(content)))
    else:
        planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(4, height, width, -1)
        steps = np.ascontiguousarray(np.moveaxis(planes, 0, 3)).view(np.uint32)[..., 0]
        steps = (steps >> 1) ^ (0 - (steps & 1))
        bits = steps.cumsum(axis=0, dtype=np.uint32).cumsum(axis=1, dtype=np.uint32)
        picture = bits.view(np.float32)
"""


def how_to_read(channel: str, packed: bool, picture: str = "") -> str:
    """A text for readers who have only the file and h5py; `picture` is a channel with a codec."""
    example = (_PACKED if packed else _BLOCKS).format(channel=channel)
    text = f"{_COMMON}\n{textwrap.dedent(example)}"
    return f"{text}\n{textwrap.dedent(_PICTURES.format(picture=picture))}" if picture else text


def label(dataset: Any, column: Column) -> None:
    """Name a dataset's axes, its unit and its elements."""
    for axis, name in enumerate(column.axes):
        dataset.dims[axis].label = name
    spec = column.spec
    if spec is None:
        return
    if spec.codec:
        dataset.attrs["codec"] = spec.codec
    if spec.units:
        dataset.attrs["units"] = spec.units
    names = [name.encode() for name in spec.elements]
    longest = max(map(len, names), default=0)
    if 0 < longest * len(names) < _ATTRIBUTE:
        kind = h5py.string_dtype("utf-8", longest)
        dataset.attrs.create("elements", names, (len(names),), kind)
    if column.path.startswith("blocks/"):
        dataset.attrs["valid_rows"] = "[block, env_index, : file['index/blocks']['rows'][block]]"
        dataset.attrs["when"] = spec.when
