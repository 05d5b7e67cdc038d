"""What the workers of a collection say about themselves: a file worker.json in each folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

WORKER = "worker.json"
"""A file in the folder of a recording that says who made it. All of its keys may be missing: shard,
shards (how many there are), rank, host, seed, planned_episodes, finished, versions, cfg_hash,
policy_hash. Others are ignored."""
PLAN = "collect.json"
"""A file in the folder of a collection, in whose folders WORKER is written last. Its keys shards
and episodes say how many are planned."""

_MOST_BYTES = 16 << 20
_KINDS: dict[str, tuple[type, ...]] = {
    "shard": (int,),
    "shards": (int,),
    "rank": (int,),
    "host": (str,),
    "seed": (int, list),
    "planned_episodes": (int,),
    "finished": (bool,),
    "versions": (dict,),
    "cfg_hash": (str,),
    "policy_hash": (str,),
}


@dataclass(kw_only=True)
class Worker:
    """A worker's folder, what its file says, and what was found there."""

    folder: Path
    about: Mapping[str, Any]
    problem: str = ""
    """Why its file cannot be read."""
    states: list[str] = field(default_factory=list)
    """The states of its recordings that are not finished."""
    recordings: int = 0
    episodes: int = 0

    @property
    def rank(self) -> int | None:
        """Its number among the workers."""
        return self.about.get("rank")

    @property
    def number(self) -> tuple[str, int] | None:
        """What is numbered, and its number: a shard, of which a worker may have several, or it."""
        kind = "shard" if "shard" in self.about else "rank"
        return None if self.about.get(kind) is None else (kind, self.about[kind])

    @property
    def name(self) -> str:
        """How messages call it."""
        known = [f"{kind} {self.about[kind]}" for kind in ("rank", "host") if kind in self.about]
        return f"'{self.folder}'" + f" ({', '.join(known)})" * bool(known)

    @property
    def lacks(self) -> str:
        """What is missing, in words; empty if it is complete."""
        why = []
        if self.problem:
            why.append(self.problem)
        if not self.recordings:
            why.append("it has no recording")
        planned = self.about.get("planned_episodes")
        if planned is not None and self.episodes < planned:
            why.append(f"it has {self.episodes} of {planned} episodes")
        if not self.about.get("finished", not self.states):
            why.append("it has not finished")
        return ", ".join([*why, *self.states])


def read_worker(folder: Path, content: bytes | None = None) -> Worker | None:
    """What the worker of a folder says about itself; None if it has no worker.json.

    Args:
        folder: The folder.
        content: The content of the file, if it was read before.
    """
    try:
        if content is None:
            with open(folder / WORKER, "rb") as stream:
                content = stream.read(_MOST_BYTES)
        data = json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        return Worker(folder=folder, about={}, problem=f"its {WORKER} cannot be read ({error})")
    if not isinstance(data, dict):
        return Worker(folder=folder, about={}, problem=f"its {WORKER} is not a JSON object")
    about, wrong = {}, []
    for name, kinds in _KINDS.items():
        value = data.get(name)
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if right:
            about[name] = value
        elif value is not None:
            wrong.append(name)
    problem = f"its {WORKER} has an impossible {' and '.join(wrong)}" if wrong else ""
    return Worker(folder=folder, about=about, problem=problem)


def differing(workers: Sequence[Worker]) -> list[str]:
    """A sentence for each description in which the workers differ, though they should not."""
    found = []
    for name in ("cfg_hash", "policy_hash", "versions"):
        values: dict[str, list[Worker]] = {}
        for worker in workers:
            if name in worker.about:
                text = json.dumps(worker.about[name], sort_keys=True)
                values.setdefault(text, []).append(worker)
        if len(values) > 1:
            rarest = min(values.values(), key=len)
            found.append(
                f"The workers have {len(values)} different values of {name}. The rarest is that of"
                f" {rarest[0].name}" + (f" and {len(rarest) - 1} more." if rarest[1:] else ".")
            )
    return found


def table(workers: Sequence[Worker]) -> pl.DataFrame:
    """A row per worker: rank, folder, host, seed, planned and found episodes, what is missing."""
    import polars as pl

    texts = ("folder", "host", "seed", "lacks", "versions", "cfg_hash", "policy_hash")
    numbers = ("rank", "shard", "planned_episodes", "episodes", "recordings")
    kinds = {**dict.fromkeys(numbers, pl.Int64), **dict.fromkeys(texts, pl.String),
             "complete": pl.Boolean}  # fmt: skip
    rows = [
        {
            **{n: v for n, v in worker.about.items() if n in kinds},
            **{n: json.dumps(worker.about[n]) for n in ("seed", "versions") if n in worker.about},
            "folder": str(worker.folder),
            "episodes": worker.episodes,
            "recordings": worker.recordings,
            "complete": not worker.lacks,
            "lacks": worker.lacks or None,
        }
        for worker in workers
    ]
    return pl.DataFrame(rows, schema=kinds, orient="row")
