"""Workers that torchrun or SLURM starts: which of how many this one is, and its shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mjlab_rec.collecting.plan import PlanError, Shard


@dataclass(frozen=True)
class Place:
    """Which of how many workers this process is."""

    rank: int = 0
    """Its number, from 0."""
    count: int = 1
    """How many there are."""
    local_rank: int = 0
    """Its number on this machine."""
    local_count: int = 1
    """How many there are on this machine."""
    cores: int | None = None
    """Cores of all workers on this machine; None: those that this process may use."""
    launcher: str = ""
    """What started it; empty if nothing did."""

    def part(self, number: int, count: int) -> Place:
        """The place of one of several processes that this worker starts."""
        return replace(
            self,
            rank=self.rank * count + number,
            count=self.count * count,
            local_rank=self.local_rank * count + number,
            local_count=self.local_count * count,
        )

    def share(self, shards: Iterable[Shard]) -> list[Shard]:
        """The shards that this worker plays: every ``count``-th of all.

        It depends on nothing else, so the workers need not talk to each other.
        """
        return [shard for shard in shards if shard.number % self.count == self.rank]


def place(
    rank: int | None = None,
    count: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Place:
    """The place of this process, as torchrun or SLURM says in environment variables.

    A task of a SLURM array may run several processes with srun. The number of a worker then counts
    the processes of all tasks.

    Args:
        rank: Overrides the number of the worker.
        count: Overrides how many there are.
        environ: The environment variables; None: those of this process.
    """
    said = _Variables(os.environ if environ is None else environ)
    if (rank is None) != (count is None):
        raise PlanError("Give both --rank and --ranks, or neither of them.")
    if rank is not None and count is not None:
        here = Place(rank, count, launcher="--rank")
    elif "RANK" in said and "WORLD_SIZE" in said:
        here = Place(
            *(said["RANK"], said["WORLD_SIZE"]),
            *(said.get("LOCAL_RANK", 0), said.get("LOCAL_WORLD_SIZE", 1)),
            launcher="torchrun",
        )
    elif "SLURM_ARRAY_TASK_ID" in said or said.get("SLURM_STEP_NUM_TASKS", 1) > 1:
        here = _of_slurm(said)
    else:
        return Place()
    if not 0 <= here.rank < here.count:
        raise PlanError(
            f"{here.launcher}: worker {here.rank} of {here.count} does not exist; they count from"
            " 0. Give --rank and --ranks."
        )
    return here


def _of_slurm(said: _Variables) -> Place:
    rank, count = 0, 1
    if "SLURM_ARRAY_TASK_ID" in said:
        first, last = said["SLURM_ARRAY_TASK_MIN"], said["SLURM_ARRAY_TASK_MAX"]
        count = said["SLURM_ARRAY_TASK_COUNT"]
        step, uneven = divmod(last - first, max(1, count - 1))
        rank, between = divmod(said["SLURM_ARRAY_TASK_ID"] - first, max(1, step))
        if uneven or between:
            raise PlanError(
                f"The SLURM array has {count} tasks from {first} to {last}, which are not evenly"
                " spaced, so it is not clear which worker this is. Use --array=0-7 or the like:"
                " what is missing is divided among the tasks, whatever their ids were before."
            )
    # Set by srun only, not in the batch script itself, which is one process.
    processes = said.get("SLURM_STEP_NUM_TASKS", 1)
    shared = processes > 1
    return Place(
        rank=rank * processes + (said["SLURM_PROCID"] if shared else 0),
        count=count * processes,
        local_rank=said.get("SLURM_LOCALID", 0) if shared else 0,
        # Such as "4(x2),3": 4 on each of two machines, and 3 on another.
        local_count=said.first("SLURM_STEP_TASKS_PER_NODE", 1) if shared else 1,
        # Not those that this process may use: srun may bind each process to its own.
        cores=said.get("SLURM_CPUS_ON_NODE", 0) or None,
        launcher="SLURM",
    )


class _Variables:
    """Environment variables that are numbers."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __contains__(self, name: str) -> bool:
        return bool(self._environ.get(name))

    def __getitem__(self, name: str) -> int:
        text = self._environ.get(name, "")
        try:
            return int(text)
        except ValueError:
            raise PlanError(
                f"The environment variable {name} is {text!r}, which is not a number. Give --rank"
                " and --ranks."
            ) from None

    def get(self, name: str, default: int) -> int:
        """The number, or a default if it is not set."""
        return self[name] if name in self else default

    def first(self, name: str, default: int) -> int:
        """The number that it begins with."""
        text = self._environ.get(name, "").partition("(")[0].partition(",")[0]
        return int(text) if text.isdigit() else default
