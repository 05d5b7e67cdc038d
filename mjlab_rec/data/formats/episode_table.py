"""The table of episodes and the description of a recording, for all formats."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import ROW_COLUMNS, DataError, Episode, RunInfo
from mjlab_rec.data.schema import check_channels as check_together
from mjlab_rec.data.values import check_count, check_dtype, check_name, check_shape, short_repr

SCHEMA: dict[str, pl.DataType] = {n: getattr(pl, kind)() for n, kind in EPISODE_COLUMNS.items()}
MOST_TEXT = 64 << 20
MOST_VALUES = 2_000_000
_MOST_LEVELS = 64
_SEAL = re.compile(rb',\s*"crc32": (\d{1,10})\}\s*\Z')
_SURROGATE = re.compile("[\ud800-\udfff]")


def table_row(
    *,
    env: int,
    number: int,
    start: int,
    length: int,
    rows: int,
    total: float,
    recorded: float,
    terminated: bool,
    truncated: bool,
    success: bool | None,
    partial: bool,
) -> dict[str, Any]:
    """An episode's row of the table, as plain data."""
    return {
        "env": env,
        "number": number,
        "start": start,
        "length": length,
        "rows": rows,
        "return": _known(total),
        "recorded_return": _known(recorded),
        "terminated": terminated,
        "truncated": truncated,
        "cut": not (terminated or truncated),
        "success": success,
        "partial": partial,
    }


def row_of(episode: Episode, offset: int = 0) -> dict[str, Any]:
    """The row of the table for an episode; `offset` is added to its number."""
    return table_row(
        env=int(episode.env),
        number=int(episode.number) + offset,
        start=int(episode.start),
        length=int(episode.length),
        rows=episode.rows,
        total=episode.total,
        recorded=episode.recorded,
        terminated=bool(episode.terminated),
        truncated=bool(episode.truncated),
        success=None if episode.success is None else bool(episode.success),
        partial=bool(episode.partial),
    )


def _known(total: Any) -> float | None:
    return None if total is None or np.isnan(total) else float(total)


def set_first_rows(rows: Iterable[dict[str, Any]]) -> int:
    """Set the first row of each episode in consecutive rows; returns the number of rows."""
    count = 0
    for row in rows:
        row["first"] = count
        count += row["rows"]
    return count


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The table as one array per column; unknown values are -1 or NaN."""
    kinds = {"Boolean": np.bool_, "Float64": np.float64, "Int32": np.int64, "Int64": np.int64}
    found = {}
    for name, kind in EPISODE_COLUMNS.items():
        values = [row[name] for row in rows]
        if name == "success":
            found[name] = np.array([-1 if value is None else value for value in values], np.int8)
        else:
            found[name] = np.array(values, kinds[kind])
    return found


def ordered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table, sorted by environment and number."""
    return sorted(rows, key=lambda row: (row["env"], row["number"]))


def checked(rows: Any, path: Path) -> list[dict[str, Any]]:
    """Check rows of the table from a file, which may contain anything.

    Unknown values may be None, NaN or -1, and become None. Raises DataError for rows that no writer
    writes.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"'{path}' is damaged: its table of episodes is not a list of rows.")
    found = [dict(row) for row in rows]
    for name, kind in EPISODE_COLUMNS.items():
        if name != "cut":
            _check_column(found, name, kind, path)
    for row in found:
        row["cut"] = not (row["terminated"] or row["truncated"])
        if row["rows"] > row["length"]:
            raise DataError(
                f"'{path}' is damaged: an episode of {row['length']} steps has {row['rows']} rows."
            )
    return found


def _check_column(rows: list[dict[str, Any]], name: str, kind: str, path: Path) -> None:
    """Convert the values of a column to its type; raise if that is impossible."""
    kinds = {"Boolean": {bool}, "Float64": {float, int, NoneType}}.get(kind, {int})
    if name == "success":
        kinds = {bool, int, NoneType}
    most = (1 << (63 if kind == "Int64" else 31)) - 1
    for row in rows:
        if name not in row:
            raise DataError(f"'{path}' is damaged: an episode has no '{name}'.")
        value = row[name]
        good = type(value) in kinds
        if good and kind == "Float64":
            good = type(value) is not int or abs(value) <= most << 32
            row[name] = _known(value) if good else None
        elif good and name == "success":
            good = value in (None, -1, 0, 1)
            row[name] = None if value in (None, -1) else bool(value)
        elif good and kind != "Boolean":
            good = 0 <= value <= most
        if not good:
            raise DataError(
                f"'{path}' is damaged: the '{name}' of an episode is {short_repr(value)}."
            )


def table(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """The table of episodes, in the order of the given rows."""
    return pl.DataFrame([[row[name] for name in SCHEMA] for row in rows], SCHEMA, orient="row")


def model_json(model: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Type and shape of an episode's model fields, as plain data."""
    return {name: [value.dtype.str, list(value.shape)] for name, value in model.items()}


def model_kinds(data: Any, path: Path | str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """The inverse of ``model_json``; raises DataError for anything else."""
    found = {}
    try:
        for name, (text, shape) in data.items():
            what = f"Model field '{check_name(name, 'model field')}' in '{path}'"
            dtype = check_dtype(text, what)
            check_shape(shape, dtype, what)
            found[name] = dtype, tuple(shape)
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"'{path}' is damaged: its list of model fields cannot be read.") from None
    return found


def attached_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Size and checksum of attached files, as plain data."""
    return {name: [len(content), crc32(content)] for name, content in files.items()}


def read_attached(
    data: Any,
    read: Callable[[str, int], bytes],
    path: Path,
    damages: list[str],
    *,
    check: bool = True,
) -> dict[str, bytes]:
    """The attached files that ``attached_json`` lists, without damaged ones.

    Args:
        data: The result of ``attached_json``, or anything else.
        read: Returns the content of a name, at most this number of bytes.
        path: The recording, for messages.
        damages: A sentence is added to it for each damaged file.
        check: Whether checksums are compared.
    """
    found = {}
    try:
        files = [
            (check_name(name, "attached file"), int(n), int(crc)) for name, (n, crc) in data.items()
        ]
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise DataError(
            f"'{path}' is damaged: its list of attached files cannot be read."
        ) from None
    for name, size, crc in files:
        try:
            content = read(name, size)
            if len(content) != size or (check and crc32(content) != crc):
                raise DataError(f"The attached file '{name}' of '{path}' is damaged.")
            found[name] = content
        except DataError as error:
            damages.append(str(error))
    return found


def dump_info(info: RunInfo, *, attachments: bool, **more: Any) -> str:
    """The description of a recording as text, with `more` keys and attached files in base64.

    Raises DataError if ``load_info`` could not read it.
    """
    data = info.to_json() | more
    if attachments:
        data["attachments"] = {
            name: base64.b64encode(content).decode() for name, content in info.attachments.items()
        }
    text = seal(json.dumps(data, indent=2))
    if len(text) > MOST_TEXT:
        raise DataError(
            f"The description of the recording has {len(text) >> 20} MB with its attachments"
            f" {', '.join(info.attachments)}, but at most {MOST_TEXT >> 20} MB are possible. Attach"
            " less, or choose the format hdf5 or npz."
        )
    load_info(text, "this recording")
    return text


def load_info(
    text: str | bytes, path: Path | str, *, check: bool = True
) -> tuple[RunInfo, dict[str, Any]]:
    """The inverse of ``dump_info``: the description, and all keys of the text.

    Raises only DataError, for any text. If `check`, a checksum at its end is compared.
    """
    try:
        data = load_json(text, check=check)
        info = RunInfo.from_json(data)
        check_count(data.setdefault("gaps", 0), "The number of lost rows", below=1 << 63)
        attached = data.get("attachments", {})
        if not isinstance(attached, dict):
            raise DataError("Its attachments must be files with names.")
        info.attachments = {
            check_name(name, "attached file"): _from_base64(name, value)
            for name, value in attached.items()
        }
    except DataError as error:
        raise DataError(f"'{path}' is not a recording, or it is damaged. {error}") from None
    return info, data


def seal(text: str) -> str:
    """A JSON object with a checksum of its text as the last key."""
    head = text.rstrip().removesuffix("}").rstrip()
    return f'{head}, "crc32": {crc32(head.encode())}}}'


def load_json(text: str | bytes, *, check: bool = True, sealed: bool = False) -> dict[str, Any]:
    """Parse a JSON object, without its checksum; raises DataError for anything else.

    Args:
        text: Any text or bytes.
        check: Whether to compare the checksum, if there is one.
        sealed: Whether a text without a checksum raises.
    """
    if len(text) > MOST_TEXT:
        raise DataError(
            f"The text has {len(text) >> 20} MB; at most {MOST_TEXT >> 20} MB are possible."
        )
    try:
        content = text.encode() if isinstance(text, str) else text
        # Each value has at least one of these, so their number bounds the memory.
        if sum(map(content.count, b"[{,:")) > MOST_VALUES:
            raise DataError(f"The text has more than {MOST_VALUES} values.")
        if found := _SEAL.search(content, max(0, len(content) - 64)):
            content, stored = content[: found.start()], int(found[1])
            if check and crc32(content) != stored:
                raise DataError("The text was changed after it was written: wrong checksum.")
            content += b"}"
        elif sealed:
            raise DataError("The text is incomplete: it has no checksum.")
        data = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"The text is not valid JSON: {_reason(error)}.") from None
    if not isinstance(data, dict):
        raise DataError("The text is not a JSON object.")
    if content.count(b"{") + content.count(b"[") > _MOST_LEVELS or b"\\u" in content:
        _check_values(data)
    return data


def _check_values(data: dict[str, Any]) -> None:
    """Raise for values that can be loaded but neither compared nor written again."""
    level: list[Any] = [data]
    for _ in range(_MOST_LEVELS):
        values = [v for d in level for v in ((*d, *d.values()) if isinstance(d, dict) else d)]
        if any(isinstance(v, str) and _SURROGATE.search(v) for v in values):
            raise DataError("The text is not valid JSON: it is not valid Unicode.")
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise DataError(f"The text is nested more than {_MOST_LEVELS} levels deep.")


def _from_base64(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise DataError(f"The attached file '{name}' is damaged.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return str(error).partition(". ")[0][:200].rstrip(".")


def check_channels(info: RunInfo) -> None:
    """Raise for channels that a table of rows has no column for, before anything is written."""
    check_together(info.channels)
    for spec in info.channels:
        check_name(spec.name, "channel")
        if spec.name in ROW_COLUMNS:
            raise DataError(
                f"A channel cannot be called '{spec.name}': every table of rows has the columns"
                f" {', '.join(ROW_COLUMNS)}. Rename the channel."
            )
        if not spec.size:
            raise DataError(
                f"Channel '{spec.name}' has the shape {list(spec.shape)}: it has no elements, so"
                " there is nothing to record. Do not record it."
            )


def merged_info(old: RunInfo, new: RunInfo, path: Path) -> RunInfo:
    """The description of a table of rows after appending a recording to it."""
    check_same_run(old, new, path)
    return replace(old, envs=tuple(sorted({*old.envs, *new.envs})))


def check_same_run(old: RunInfo, new: RunInfo, path: Path) -> None:
    """Raise unless a recording with these channels can be appended."""
    cure = "Choose another path, or if_exists='number'."
    if old.channels != new.channels:
        before, now = {s.name: s for s in old.channels}, {s.name: s for s in new.channels}
        differences = {
            "missing now": [n for n in before if n not in now],
            "new": [n for n in now if n not in before],
            "changed": [n for n in before if n in now and before[n] != now[n]],
        }
        how = "; ".join(f"{what}: {', '.join(n)}" for what, n in differences.items() if n)
        raise DataError(
            f"Cannot append to '{path}': it has other channels ({how or 'another order'}). {cure}"
        )
    for name in ("step_dt", "every"):
        if getattr(old, name) != getattr(new, name):
            raise DataError(
                f"Cannot append to '{path}': its {name} is {getattr(old, name)}, not"
                f" {getattr(new, name)}. {cure}"
            )
