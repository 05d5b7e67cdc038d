"""Training in several processes, which torchrun starts: one training and one data set.

Each process has its own environments, seed and files of recordings. Gradients are averaged over
all of them; process 0 writes curves and checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from mjlab_rec.utils.extras import UnavailableError

# A process that ends without the others noticing must not keep them waiting for hours.
_TIMEOUT = timedelta(minutes=30)


class LostProcessError(UnavailableError):
    """Training cannot go on, because another of its processes has ended."""


@dataclass(frozen=True)
class Ranks:
    """Place of this process among all."""

    rank: int = 0
    """Its number."""
    local_rank: int = 0
    """Its number on this machine."""
    world_size: int = 1
    """How many there are."""

    @property
    def is_distributed(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes curves and checkpoints."""
        return self.rank == 0


def ranks() -> Ranks:
    """What torchrun says in the environment variables."""
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )


def choose_device(device: str) -> str:
    """The device of this process: with several GPUs, each process has its own."""
    here = ranks()
    if not here.is_distributed or device == "cpu":
        return device
    if device == "auto" and not torch.cuda.is_available():
        return "cpu"
    if device not in ("auto", "cuda"):
        raise ValueError(
            f"--device {device}: with torchrun each process has its own GPU. Give cuda, auto or"
            " cpu, and choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    count = torch.cuda.device_count()
    if here.local_rank >= count:
        raise ValueError(
            f"This machine has {count} GPUs, and process {here.local_rank} on it needs one of its"
            f" own. Start torchrun with --nproc-per-node {max(count, 1)}, or train with --device"
            " cpu."
        )
    return f"cuda:{here.local_rank}"


def connect(device: str) -> None:
    """Join the other processes: by NCCL on GPUs, by Gloo on CPUs."""
    here = ranks()
    if not here.is_distributed or torch.distributed.is_initialized():
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        rank=here.rank,
        world_size=here.world_size,
        timeout=_TIMEOUT,
    )


def disconnect() -> None:
    """Leave the other processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Raise LostProcessError where torch says that the connection to another process broke."""
    try:
        yield
    except RuntimeError as error:
        # Gloo has no error class of its own.
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(
            "Another process of this training has ended or cannot be reached, so this one ends,"
            " too, without another checkpoint. What that process printed last says why. The last"
            " checkpoint and all recordings are there: go on with --resume."
        ) from error


def from_first(value: Any) -> Any:
    """The value that process 0 has."""
    if not ranks().is_distributed:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def any_of_all(value: bool, device: str) -> bool:
    """Whether it is true in any process. All of them must call this."""
    if not ranks().is_distributed:
        return value
    flag = torch.tensor(int(value), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def path_of_rank(path: str | Path) -> str:
    """The path of this process's file, such as ``run_rank1.h5``."""
    here = ranks()
    path = Path(path)
    return str(path.with_name(f"{path.stem}_rank{here.rank}{path.suffix}"))
