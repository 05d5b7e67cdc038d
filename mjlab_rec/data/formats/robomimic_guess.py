"""Files of other programs in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.hdf5_checks import attribute, find, find_group, read_values
from mjlab_rec.data.formats.robomimic_layout import NAMES, OWN
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo
from mjlab_rec.data.values import check_count, check_name, check_shape

_MOST_DEPTH = 16
_MOST_ITEMS = 1000


def guessed_row(demo: Any, size: int, path: Path) -> dict[str, Any]:
    """An episode's row of the table, from a file of this size at a path.

    Values that the other program did not write are guessed.
    """
    if attribute(demo, OWN) is not None:
        raise DataError("It was recorded by mjlab_rec, but its file is damaged.")
    rows = attribute(demo, "num_samples")
    actions: Any = find(demo, "actions") if "actions" in demo or rows is None else None
    if rows is None:
        rows = len(actions)
    rows = check_count(rows, "Its num_samples")
    if actions is not None and (actions.shape or ())[:1] != (rows,):
        raise ValueError(f"it has {rows} samples, but actions of the shape {actions.shape}")
    env = _number(demo, "env")
    total = None
    if "rewards" in demo:
        rewards = find(demo, "rewards")
        if rewards.dtype.kind in "biuf" and rewards.shape == (rows,):
            what = f"'rewards' of '{demo.name}' in '{path}'"
            values = read_values(rewards, rewards.dtype, (rows,), size, what)
            total = float(np.sum(values, dtype=np.float64))
    success = _number(demo, "success")
    row = {
        "env": env if type(env) is int and 0 <= env < 1 << 31 else 0,
        "number": int(demo.name.rpartition("_")[2]),
        "start": 0,
        "length": rows,
        "rows": rows,
        "return": total,
        "recorded_return": total,
        "terminated": bool(_number(demo, "terminated")),
        "truncated": bool(_number(demo, "truncated")),
        "success": None if success is None else bool(success),
        "partial": False,
        "model": {},
    }
    return episode_table.checked([row], path)[0]


def guessed_info(data: Any, rows: list[dict[str, Any]], damages: list[str], path: Path) -> RunInfo:
    """The description of a recording, from its group of episodes.

    Episodes that cannot be read are removed from `rows`, and a sentence about each is added.
    """
    try:
        text = attribute(data, "env_args")
        about = {} if text is None else episode_table.load_json(text)
    except (DataError, TypeError, ValueError):
        about = {}
    sim = about.get("sim_args")
    sim = sim if isinstance(sim, dict) else {}
    steps = sim.get("dt", 0.0), sim.get("decimation", 1)
    good = all(type(n) in (int, float) and 0 <= n < 1e6 for n in steps)
    return RunInfo(
        channels=_channels_of_first(data, rows, damages, path),
        envs=tuple(sorted({row["env"] for row in rows} or {0})),
        step_dt=float(math.prod(steps)) if good else 0.0,
        about={"task": str(about.get("env_name", "")), "env_args": about},
    )


def _channels_of_first(
    data: Any, rows: list[dict[str, Any]], damages: list[str], path: Path
) -> tuple[ChannelSpec, ...]:
    """The channels of the first episode that can be read."""
    for row in list(rows):
        try:
            with damage(f"'{row['demo']}' in '{path}'"):
                return tuple(_channels(find_group(data, row["demo"]), row["rows"]))
        except DataError as error:
            rows.remove(row)
            damages.append(str(error))
    return ()


def _number(demo: Any, name: str) -> Any:
    """A numeric attribute; None if another program uses it for something else."""
    try:
        value = attribute(demo, name)
    except ValueError:
        return None
    return value if isinstance(value, int | float) else None


def renumber_duplicates(rows: list[dict[str, Any]]) -> None:
    """Renumber episodes so that no number occurs twice in an environment."""
    taken: dict[int, set[int]] = {}
    for row in rows:
        numbers = taken.setdefault(row["env"], set())
        if row["number"] in numbers:
            row["number"] = max(numbers) + 1
        numbers.add(row["number"])


def _channels(demo: Any, rows: int) -> Iterator[ChannelSpec]:
    """A channel for each dataset with numbers for every row."""
    ours = {path: name for name, path in NAMES.items() if name != "step"}
    waiting = [("", demo)]
    seen = 0
    while waiting:
        prefix, group = waiting.pop(0)
        for key in group:
            seen += 1
            if seen > _MOST_ITEMS or prefix.count("/") > _MOST_DEPTH:
                raise ValueError("it has too many objects, or a loop of them")
            name = check_name(f"{prefix}{key}", "dataset")
            item = find(group, key)
            if isinstance(item, h5py.Group):
                if name != "initial_state":  # of Isaac Lab, the state before the first row
                    waiting.append((f"{name}/", item))
                continue
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                continue
            if item.shape[:1] != (rows,) or item.dtype.kind not in "biuf":
                continue
            check_shape(item.shape[1:], item.dtype, f"'{name}' of '{demo.name}'")
            yield ChannelSpec(
                name=ours.get(name, name),
                dtype=item.dtype,
                shape=item.shape[1:],
                when="before" if name.startswith(("obs", "state")) else "after",
            )
