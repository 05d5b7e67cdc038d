"""How many threads torch and the physics engine use on the CPU cores of this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

# A forward pass of this many multiplications takes about 0.2 ms, many times as long as it takes to
# pass its parts to other threads. An estimate: it depends on the machine.
_WORTH_SHARING = 20_000_000

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Threads:
    """How many threads a process that trains uses at which time."""

    engine: int
    """Threads that step the physics: SimulationCfg.num_threads."""
    rollout: int
    """Torch's threads while environments are stepped, inference of the policy included."""
    update: int
    """Torch's threads while the networks are updated; the physics engine is idle then."""


def choose_threads(
    multiplications: int = 0, *, processes: int | None = None, cores: int | None = None
) -> Threads:
    """Choose numbers of threads for training on a CPU.

    The engine steps environments on all cores. Torch's threads would take the cores away from it,
    because they wait for work in a loop that keeps a core busy; so there is one during a rollout.
    In an update they help if the networks or the mini-batches are large.

    Args:
        multiplications: Parameters of the networks times steps in a mini-batch.
        processes: How many processes train on this machine; None: as torchrun says, or 1.
        cores: Cores that all of them may use; None: those that this process may use.
    """
    if processes is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own = max(1, (cores or usable_cores()) // max(1, processes))
    update = own if multiplications >= _WORTH_SHARING else 1
    return Threads(engine=own, rollout=1, update=update)


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """How many CPU cores this process may use.

    It may be bound to some of the machine's, and a container may limit the time on them.

    Args:
        cgroup: Where Linux says what limits the process.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux only.
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_quota(cgroup) or cores)))


def _quota(cgroup: Path) -> float | None:
    """Seconds of processor time per second that cgroups of version 2 or 1 allow; None: no limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((cgroup / "cpu" / name).read_text() for name in names)
        return float(quota) / float(period) if float(quota) > 0.0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is not a number.
        return None


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use this many threads inside; the caller's setting is restored afterwards."""
    before = torch.get_num_threads()
    if before == number:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def single_torch_thread(device: str) -> AbstractContextManager[None]:
    """On a CPU, let torch use one thread inside; the caller's setting is restored afterwards.

    An environment's tensors are small: passing parts to other threads costs more than it saves,
    above all while the physics engine's own threads are busy. Also, sums do not depend on the
    number of threads, so neither do the bits of a rollout.
    """
    return torch_threads(1 if device == "cpu" else torch.get_num_threads())
