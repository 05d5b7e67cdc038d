"""Paths in HDF5 files in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import RunInfo

OWN = "mjlab_rec"  # a group next to "data" and an attribute of episodes, which only our files have
MARK_BYTES = 100

# Groups of Isaac Lab in an episode's group, with the states of entities.
INITIAL = "initial_state"
"""Before the first row, with an axis of length one."""
LATER = "states"
"""After each row."""


@dataclass(frozen=True)
class Place:
    """Where the values of a channel are in an episode's group."""

    path: str
    """The dataset."""

    initial: str = ""
    """A dataset with the value of the first row, if those of the others are at `path`."""

    missing: int = 0
    """Rows that the episode has, but not the dataset."""


# Channels with another name in this layout.
NAMES = {"action": "actions", "reward": "rewards", "state": "states", "step": "steps"}
# Names in an episode's group that are not channels.
_TAKEN = ("dones", "model_fields")


def dataset_path(channel: str) -> str:
    """The preferred path of a channel in an episode's group; observations have flat keys."""
    group, _, key = channel.partition("/")
    if group in ("obs", "next_obs") and key:
        return f"{group}/{key.replace('/', '_')}"
    return NAMES.get(channel, channel)


def paths(info: RunInfo) -> dict[str, str]:
    """The paths of channels in an episode's group, in files of this package."""
    names = dict.fromkeys(["step", *(spec.name for spec in info.channels)])
    return dataset_paths(names, dataset_path, taken=_TAKEN)


def mark(episodes: int, *, finished: bool, last: bool) -> bytes:
    """The state of a file: its number of episodes, and whether it was closed.

    It always has the same length, so that it can be overwritten in place.
    """
    data: dict[str, Any] = {"episodes": episodes, "finished": finished, "last": last}
    return episode_table.seal(json.dumps(data)).ljust(MARK_BYTES).encode()
