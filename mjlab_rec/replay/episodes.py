"""The choice of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mjlab_rec.data.files import local_path
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError

_DUMP = "rollout.npz"


def recording_path(path: str | Path) -> Path:
    """The recording at a path, which may be the folder that a flight recorder wrote."""
    path = local_path(path)
    inside = path / _DUMP
    return inside if path.is_dir() and inside.is_file() else path


def chosen_episodes(
    rollouts: Rollouts, episodes: Sequence[int] = (), envs: Sequence[int] = ()
) -> list[int]:
    """Return rows of the table of episodes: these, or all, if they belong to these environments.

    Raises:
        DataError: There are no such episodes.
    """
    count = len(rollouts)
    if not count:
        raise DataError("The recording has no episodes.")
    for index in episodes:
        if not 0 <= index < count:
            raise DataError(
                f"There is no episode {index}: the recording has {count}, numbered from 0."
            )
    of = rollouts.episodes["env"].to_list()
    known = sorted(set(of))
    for env in envs:
        if env not in known:
            shown = ", ".join(map(str, known[:20])) + ", ..." * (len(known) > 20)
            raise DataError(f"Environment {env} was not recorded. Recorded are: {shown}.")
    chosen = list(dict.fromkeys(episodes)) or list(range(count))
    found = [index for index in chosen if not envs or of[index] in envs]
    if not found:
        raise DataError(
            f"None of the episodes {list(episodes)} belongs to the environments {list(envs)}."
        )
    return found
