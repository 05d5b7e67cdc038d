"""Recordings simulated or shown again, from the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mjlab_rec.replay.results import Verification as Verification
    from mjlab_rec.replay.verification import verify as verify

_LAZY = {"verify": "mjlab_rec.replay.verification", "Verification": "mjlab_rec.replay.results"}


def __getattr__(name: str) -> Any:
    """Import what needs a simulator only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
