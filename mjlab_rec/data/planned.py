"""What was planned for a collection, and what of it is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mjlab_rec.data.workers import PLAN, Worker

_MOST_NUMBERED = 1 << 20
_MOST_RANGES = 10


@dataclass(frozen=True)
class Collection:
    """A folder of `mjlab-rec collect`, which has a folder for each finished shard."""

    folder: Path
    shards: int
    """How many are planned."""
    episodes: int
    """How many are planned."""

    def missing(self, recordings: Iterable[Path]) -> int:
        """How many shards have none of these recordings."""
        found = {path.parent for path in recordings if path.parent.parent == self.folder}
        return max(0, self.shards - len(found))


def read_collections(folders: Iterable[Path]) -> list[Collection]:
    """The collections in some folders, without those whose plan cannot be read."""
    found = []
    for folder in folders:
        try:
            plan = json.loads((folder / PLAN).read_bytes())
            found.append(Collection(folder, int(plan["shards"]), int(plan["episodes"])))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def progress(workers: Sequence[Worker], collections: Sequence[Collection]) -> str:
    """How much of some collections is there: "2 of 100 shards (40 of 2000 episodes)"."""
    folders = {each.folder for each in collections}
    there = [worker for worker in workers if worker.folder.parent in folders]
    episodes = sum(worker.episodes for worker in there)
    return (
        f"{len(there)} of {sum(each.shards for each in collections)} shards"
        f" ({episodes} of {sum(each.episodes for each in collections)} episodes)"
    )


def incomplete(
    workers: Sequence[Worker], collections: Sequence[Collection] = (), asked: Sequence[Path] = ()
) -> list[str]:
    """A sentence for each worker that is not complete, and for those that are missing.

    Args:
        workers: The workers that were found.
        collections: The collections that were found.
        asked: What the user asked for. If these are single shards, no others are missing.
    """
    found = [f"{worker.name}: {worker.lacks}." for worker in workers if worker.lacks]
    numbered = [worker for worker in workers if worker.number is not None]
    ranks = [worker for worker in numbered if worker.number[0] == "rank"]  # type: ignore[index]
    found += [_sentence(text) for text in _gaps("rank", ranks)]
    single = {*asked, *(path.parent for path in asked)}
    planned = {each.folder: each.shards for each in collections}
    of: dict[Path, list[Worker]] = {folder: [] for folder in planned}
    for worker in numbered:
        if worker.number[0] == "shard" and worker.folder not in single:  # type: ignore[index]
            of.setdefault(worker.folder.parent, []).append(worker)
    for folder, shards in of.items():
        where = f"'{folder}': " if len(of) > 1 else ""
        says = max((worker.about.get("shards", 0) for worker in shards), default=0)
        texts = _gaps("shard", shards, planned.get(folder, says))
        found += [where + text if where else _sentence(text) for text in texts]
    return found


def _gaps(kind: str, workers: Sequence[Worker], planned: int = 0) -> list[str]:
    """Sentences about numbers that no worker has, and those that several have."""
    numbers: dict[int, list[Worker]] = {}
    for worker in workers:
        assert worker.number is not None
        if worker.number[1] >= 0:
            numbers.setdefault(worker.number[1], []).append(worker)
    found = []
    below = range(min(max(planned, *numbers, 0), _MOST_NUMBERED))
    if missing := [number for number in below if number not in numbers]:
        which = f"{kind}{'s' * (len(missing) > 1)} {_ranges(missing)}"
        verb = "are" if len(missing) > 1 else "is"
        why = (
            f"of {planned} {verb} missing" if planned else f"{verb} missing: there are higher ones"
        )
        found.append(f"{which} {why}.")
    for number, same in numbers.items():
        if len(same) > 1:
            folders = ", ".join(f"'{worker.folder}'" for worker in same)
            found.append(f"there are several folders of {kind} {number}: {folders}.")
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as a text: 0, 2-9, 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(texts[:_MOST_RANGES]) + ", ..." * (len(texts) > _MOST_RANGES)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
