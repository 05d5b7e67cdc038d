"""Reading device tensors on the host with as few waits as possible."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def read_masks(
    masks: Sequence[torch.Tensor], counts: Sequence[torch.Tensor] = ()
) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Return the indices where masks are true and the values of integer vectors, in one wait.

    Getting the indices of a mask makes the host wait for the device, and so does reading a number.
    Here all numbers are copied together, so on a GPU the step waits once.

    Args:
        masks: Boolean tensors of equal shape (num_envs,).
        counts: Integer tensors of shape (k,), each with its own k.

    Returns:
        One index tensor per mask, and one list of Python integers per count tensor.
    """
    if not masks:
        return [], [vector.tolist() for vector in counts]
    if masks[0].device.type == "cpu":
        return [mask.nonzero().squeeze(-1) for mask in masks], [v.tolist() for v in counts]
    sizes = torch.stack(list(masks)).sum(dim=1)
    numbers = torch.cat([sizes, *(vector.long() for vector in counts)]).tolist()
    found = [
        torch.nonzero_static(mask, size=size).squeeze(-1)
        for mask, size in zip(masks, numbers, strict=False)
    ]
    rest, values = numbers[len(masks) :], []
    for vector in counts:
        values.append(rest[: len(vector)])
        rest = rest[len(vector) :]
    return found, values
