"""What counts as success: a termination term, or a function of the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def success_of(
    success: str | Callable[[Any], torch.Tensor] | None, env: Any
) -> Callable[[], torch.Tensor] | None:
    """A function that returns which environments have succeeded; None if there is none."""
    manager = env.termination_manager
    if callable(success):
        return lambda: success(env)
    if success is None and "success" not in manager.active_terms:
        return None
    name = "success" if success is None else success
    manager.get_term(name)  # Raises for an unknown name.
    return lambda: manager.get_term(name)
