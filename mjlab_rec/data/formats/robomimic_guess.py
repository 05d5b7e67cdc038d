"""Files of other programs in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.hdf5_checks import attribute, find, find_group, read_values
from mjlab_rec.data.formats.robomimic_layout import INITIAL, LATER, NAMES, OWN, Place
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


def guessed_info(
    data: Any, rows: list[dict[str, Any]], damages: list[str], path: Path
) -> tuple[RunInfo, dict[str, Place]]:
    """The description of a recording, from its group of episodes, and the places of channels.

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
    found = _channels_of_first(data, rows, damages, path)
    info = RunInfo(
        channels=tuple(spec for spec, _ in found),
        envs=tuple(sorted({row["env"] for row in rows} or {0})),
        step_dt=float(math.prod(steps)) if good else 0.0,
        about={"task": str(about.get("env_name", "")), "env_args": about},
    )
    return info, {spec.name: place for spec, place in found}


def _channels_of_first(
    data: Any, rows: list[dict[str, Any]], damages: list[str], path: Path
) -> list[tuple[ChannelSpec, Place]]:
    """The channels of the first episode that can be read."""
    for row in list(rows):
        try:
            with damage(f"'{row['demo']}' in '{path}'"):
                return _channels(find_group(data, row["demo"]), row["rows"])
        except DataError as error:
            rows.remove(row)
            damages.append(str(error))
    return []


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


def _channels(demo: Any, rows: int) -> list[tuple[ChannelSpec, Place]]:
    """The channels that an episode has: datasets with numbers for every row, and states."""
    found, initial = _datasets(demo, rows)
    states = []
    for later, first in initial.items():
        item = found.get(f"{LATER}/{later}")
        if item is not None and (item.dtype, item.shape[1:]) == (first.dtype, first.shape[1:]):
            del found[f"{LATER}/{later}"]
            name, missing = f"state/{later}", rows - len(item)
            place = Place(f"{LATER}/{later}", f"{INITIAL}/{later}", missing)
            states.append((_spec(name, item, when="before"), place))
            if not missing:
                states.append((_spec(f"next_{name}", item, next_of=name), Place(place.path)))
    of_states = {spec.name for spec, _ in states}
    ours = {path: name for name, path in NAMES.items() if name != "step"}
    others = []
    for path, item in found.items():
        name = ours.get(path, path)
        name = path if name in found else name
        while name == "step" or (name != path and name in found):
            name += "_"  # Each row has a number called "step".
        if len(item) == rows and name not in of_states:
            others.append((_spec(name, item, when=_when(path)), Place(path)))
    return [*others, *states]


def _spec(name: str, item: Any, **more: Any) -> ChannelSpec:
    return ChannelSpec(name=name, dtype=item.dtype, shape=item.shape[1:], **more)


def _datasets(demo: Any, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The datasets that may be channels, by path, and those of initial states."""
    found: dict[str, Any] = {}
    initial: dict[str, Any] = {}
    waiting = [("", demo)]
    seen = 0
    while waiting:
        prefix, group = waiting.pop(0)
        for key in group:
            seen += 1
            if seen > _MOST_ITEMS or prefix.count("/") > _MOST_DEPTH:
                raise ValueError("it has too many objects, or a loop of them")
            path = check_name(f"{prefix}{key}", "dataset")
            item = find(group, key)
            if isinstance(item, h5py.Group):
                waiting.append((f"{path}/", item))
            elif isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "biuf":
                check_shape(item.shape[1:], item.dtype, f"'{path}' of '{demo.name}'")
                later = path.removeprefix(f"{INITIAL}/")
                if later != path:
                    if len(item) == 1:
                        initial[later] = item
                elif len(item) == rows or (len(item) == rows - 1 and path.startswith(f"{LATER}/")):
                    found[path] = item
    return found, initial


def _when(path: str) -> Literal["before", "after"]:
    """When values were read: robomimic's states before a step, those of Isaac Lab after it."""
    before = path == LATER or path.startswith(("obs", "state/")) or path == "state"
    return "before" if before else "after"
