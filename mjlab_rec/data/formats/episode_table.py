"""What formats of whole episodes share: the table of episodes, and going on with a recording."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import DataError, Episode, RunInfo, check_name
from mjlab_rec.utils.string import nearest

MOST_TEXT = 64 << 20
MOST_VALUES = 2_000_000
_MOST_LEVELS = 64
_SEAL = re.compile(rb',\s*"crc32": (\d{1,10})\}\s*\Z')
_SURROGATE = re.compile("[\ud800-\udfff]")


def table_row(info: RunInfo, episode: Episode, offset: int = 0) -> dict[str, Any]:
    """An episode's row of the table, as plain data; `offset` is added to its number."""
    return {
        "env": int(episode.env),
        "number": int(episode.number) + offset,
        "start": int(episode.start),
        "length": int(episode.length),
        "rows": episode.rows,
        "return": _known(episode.total),
        "recorded_return": _known(episode.recorded),
        "terminated": bool(episode.terminated),
        "truncated": bool(episode.truncated),
        "cut": bool(episode.cut),
        "success": None if episode.success is None else bool(episode.success),
        "partial": bool(episode.partial),
    }


def _known(total: float) -> float | None:
    return None if np.isnan(total) else float(total)


def table(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """The table of episodes, in the order of the rows given."""
    schema = {name: getattr(pl, dtype) for name, dtype in EPISODE_COLUMNS.items()}
    return pl.DataFrame([[row[name] for name in schema] for row in rows], schema, orient="row")


def ordered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order that readers give them."""
    return sorted(rows, key=lambda row: (row["env"], row["number"]))


def dump_info(info: RunInfo, *, attachments: bool, **more: Any) -> str:
    """What a run says about itself, and more, as text; attached files if wanted, in base64.

    Raises DataError for what ``load_info`` would not read back.
    """
    data = info.to_json() | more
    if attachments:
        data["attachments"] = {
            name: base64.b64encode(content).decode() for name, content in info.attachments.items()
        }
    text = seal(json.dumps(data, indent=2))
    if len(text) > MOST_TEXT:
        raise DataError(
            f"The description of the run has {len(text) >> 20} MB with its attachments"
            f" {', '.join(info.attachments)}, but must not exceed {MOST_TEXT >> 20} MB. Attach"
            " less, or choose the format hdf5 or npz."
        )
    load_info(text, "this recording")
    return text


def load_info(
    text: str | bytes, path: Path | str, *, check: bool = True
) -> tuple[RunInfo, dict[str, Any]]:
    """The inverse of ``dump_info``: the run, and all that was in the text.

    Whatever the text, it raises nothing but DataError. If `check`, a checksum at its end is
    compared.
    """
    try:
        data = load_json(text, check=check)
        info = RunInfo.from_json(data)
        gaps = data.setdefault("gaps", 0)
        if type(gaps) is not int or not 0 <= gaps < 1 << 63:
            raise DataError("The number of rows lost is no count.")
        attached = data.get("attachments", {})
        if not isinstance(attached, dict):
            raise DataError("The attachments are no files with names.")
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
    return f'{head}, "crc32": {zlib.crc32(head.encode())}}}'


def load_json(text: str | bytes, *, check: bool = True, sealed: bool = False) -> dict[str, Any]:
    """A JSON object, without its checksum; raises DataError for everything else.

    Args:
        text: Any text or bytes at all.
        check: Whether to compare the checksum, if there is one.
        sealed: Whether a text without checksum is refused.
    """
    if len(text) > MOST_TEXT:
        raise DataError(f"The text has {len(text) >> 20} MB; {MOST_TEXT >> 20} MB are possible.")
    try:
        content = text.encode() if isinstance(text, str) else text
        # Each value comes with at least one of these; they bound the memory that is needed.
        if sum(map(content.count, b"[{,:")) > MOST_VALUES:
            raise DataError(f"The text has more than {MOST_VALUES} values.")
        if found := _SEAL.search(content, max(0, len(content) - 64)):
            content, stored = content[: found.start()], int(found[1])
            if check and zlib.crc32(content) != stored:
                raise DataError("The text was changed after it was written: wrong checksum.")
            content += b"}"
        elif sealed:
            raise DataError("The text is not complete: it has no checksum.")
        data = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"The text is no JSON that can be read: {_reason(error)}.") from None
    if not isinstance(data, dict):
        raise DataError("The text is no JSON object.")
    _check_values(data)
    return data


def _check_values(data: dict[str, Any]) -> None:
    """Raise for what can be loaded but neither compared nor written again."""
    level: list[Any] = [data]
    for _ in range(_MOST_LEVELS):
        level = [
            value
            for item in level
            for value in ((*item, *item.values()) if isinstance(item, dict) else item)
            if isinstance(value, dict | list) or (isinstance(value, str) and not _is_unicode(value))
        ]
        if not level:
            return
        if any(isinstance(value, str) for value in level):
            raise DataError("The text is no JSON that can be read: it is not valid Unicode.")
    raise DataError(f"The text is nested more than {_MOST_LEVELS} levels deep.")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not _SURROGATE.search(text)


def _from_base64(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise DataError(f"The attached file '{name}' is damaged.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return str(error).partition(". ")[0][:200].rstrip(".")


def check_same_run(old: RunInfo, new: RunInfo, path: Path) -> None:
    """Raise unless a recording can go on with these channels."""
    cure = "Choose another path, or if_exists='number'."
    if old.channels != new.channels:
        before, now = {s.name: s for s in old.channels}, {s.name: s for s in new.channels}
        differences = {
            "missing now": [n for n in before if n not in now],
            "new": [n for n in now if n not in before],
            "changed": [n for n in before if n in now and before[n] != now[n]],
        }
        told = "; ".join(f"{what}: {', '.join(n)}" for what, n in differences.items() if n)
        raise DataError(
            f"Cannot append to '{path}': it has other channels ({told or 'another order'}). {cure}"
        )
    for name in ("step_dt", "every"):
        if getattr(old, name) != getattr(new, name):
            raise DataError(
                f"Cannot append to '{path}': its {name} is {getattr(old, name)}, not"
                f" {getattr(new, name)}. {cure}"
            )


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise if a channel is asked for that there is not."""
    known = ["step", *known]
    for name in names:
        if name not in known:
            raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")
