"""What formats of whole episodes share: the table of episodes, and going on with a recording."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import DataError, Episode, RunInfo
from mjlab_rec.utils.string import nearest


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
    """What a run says about itself, and more, as text; attached files if wanted, in base64."""
    data = info.to_json() | more
    if attachments:
        data["attachments"] = {
            name: base64.b64encode(content).decode() for name, content in info.attachments.items()
        }
    return json.dumps(data, indent=2)


def load_info(text: str | bytes, path: Path) -> tuple[RunInfo, dict[str, Any]]:
    """The inverse of ``dump_info``: the run, and all that was in the text."""
    try:
        data = json.loads(text)
        info = RunInfo.from_json(data)
        info.attachments = {
            name: base64.b64decode(content) for name, content in data.get("attachments", {}).items()
        }
        return info, data
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is not a recording, or it is damaged: {error!r}.") from error
    except DataError as error:
        raise DataError(f"'{path}' is not a recording. {error}") from None


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
