"""Import trajectory files of ManiSkill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mjlab_rec.data.formats import episode_table, plain_files
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.importing.base import Foreign
from mjlab_rec.data.importing.guessed import Guessed
from mjlab_rec.data.importing.hdf5_groups import EpisodeGroups

PREFIX = "traj_"
_NAMES = {"actions": "action", "rewards": "reward", "dones": "done"}


def open_maniskill(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a trajectory file; the JSON file next to it is read if it exists."""
    groups = EpisodeGroups(path, PREFIX)
    try:
        description = path.with_suffix(".json")
        about: dict[str, Any] = {}
        if description.is_file():
            with damage(f"'{description}'", description):
                about = episode_table.load_json(plain_files.read(description, most=64 << 20))
        env_info = about.get("env_info")
        env_info = env_info if isinstance(env_info, dict) else {}
        listed = about.get("episodes")
        successes = {}
        for episode in listed if isinstance(listed, list) else []:
            if isinstance(episode, dict) and isinstance(episode.get("success"), bool):
                successes[f"{PREFIX}{episode.get('episode_id')}"] = episode["success"]
        more = {"task": str(env_info.get("env_id", "")), "maniskill": env_info}
        found = Guessed(groups, _channel, step_dt, more, successes)
        if not description.is_file():
            found.notes.append(f"There is no '{description}', so task and success are unknown.")
        return found
    except BaseException:
        groups.close()
        raise


def _channel(path: str) -> str | None:
    """The channel for a path in a trajectory."""
    if path == "obs":
        return "obs/actor"
    return _NAMES.get(path, path)
