"""Where things lie in HDF5 files in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

import json
from typing import Any

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import RunInfo

OWN = "mjlab_rec"  # our group next to "data", by which we know our files; an episode's attribute
MARK_BYTES = 100

# Channels that have a name of their own in this layout.
NAMES = {"action": "actions", "reward": "rewards", "state": "states", "step": "steps"}
# What every episode has besides its channels.
_TAKEN = ("dones", "model_fields")


def dataset_path(channel: str) -> str:
    """Where a channel should lie in an episode's group; keys of observations are flat there."""
    group, _, key = channel.partition("/")
    if group in ("obs", "next_obs") and key:
        return f"{group}/{key.replace('/', '_')}"
    return NAMES.get(channel, channel)


def paths(info: RunInfo) -> dict[str, str]:
    """Where channels lie in an episode's group, in files of ours."""
    names = {"step": None, **dict.fromkeys(spec.name for spec in info.channels)}
    return dataset_paths(names, dataset_path, taken=_TAKEN)


def mark(episodes: int, *, finished: bool, last: bool) -> bytes:
    """What a file says about its state: how many episodes it has, and whether it was closed.

    It always has the same length, so that it can be changed where it is.
    """
    data: dict[str, Any] = {"episodes": episodes, "finished": finished, "last": last}
    return episode_table.seal(json.dumps(data)).ljust(MARK_BYTES).encode()
