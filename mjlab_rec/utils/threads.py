"""The number of threads that torch uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_torch_thread(device: str) -> Iterator[None]:
    """On a CPU, let torch use one thread inside; the caller's setting is restored afterwards.

    An environment's tensors are small: passing parts to other threads costs more than it saves,
    above all while the physics engine's own threads are busy. Also, sums do not depend on the
    number of threads, so neither do the bits of a rollout.
    """
    before = torch.get_num_threads()
    if device != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
