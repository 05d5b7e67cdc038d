"""Recordings simulated or shown again, from the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mjlab_rec.replay.into_task import PlayedEpisode as PlayedEpisode
    from mjlab_rec.replay.into_task import play_into_task as play_into_task
    from mjlab_rec.replay.policies import PolicyComparison as PolicyComparison
    from mjlab_rec.replay.policies import compare_policy as compare_policy
    from mjlab_rec.replay.relabelling import Relabelled as Relabelled
    from mjlab_rec.replay.relabelling import RelabelledChannel as RelabelledChannel
    from mjlab_rec.replay.relabelling import relabel as relabel
    from mjlab_rec.replay.results import Verification as Verification
    from mjlab_rec.replay.verification import verify as verify

_LAZY = {
    "play_into_task": "mjlab_rec.replay.into_task",
    "PlayedEpisode": "mjlab_rec.replay.into_task",
    "relabel": "mjlab_rec.replay.relabelling",
    "Relabelled": "mjlab_rec.replay.relabelling",
    "RelabelledChannel": "mjlab_rec.replay.relabelling",
    "verify": "mjlab_rec.replay.verification",
    "Verification": "mjlab_rec.replay.results",
    "compare_policy": "mjlab_rec.replay.policies",
    "PolicyComparison": "mjlab_rec.replay.policies",
}


def __getattr__(name: str) -> Any:
    """Import what needs a simulator only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
