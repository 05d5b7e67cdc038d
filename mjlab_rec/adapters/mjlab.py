"""Recorders in mjlab's own environment."""

from __future__ import annotations

from typing import Any

from mjlab_rec.adapters.hosted import Recorders, named


def for_mjlab(recorders: Recorders, *, task: str | None = None, final_obs: bool = True) -> Any:
    """Return a recorder for the ``recorders`` of an environment's cfg in mjlab 1.6.

    mjlab's environment, its scripts and its results stay as they are: the same seed gives the same
    rollout, bit for bit on a CPU, with and without it.

    Args:
        recorders: The cfg of a recorder of this package, or several by name, which share the cost
            of final observations.
        task: The task's name, for descriptions and the names of clips.
        final_obs: Whether to compute final observations, which mjlab does not. This costs a forward
            pass in steps that end episodes. Without it, recorders must not record ``next_obs``.
    """
    given = named(recorders, "for_mjlab")
    try:
        from mjlab_rec.adapters.mjlab_term import term_cfg
    except ImportError as error:
        raise ImportError(
            f"for_mjlab() makes a recorder of mjlab 1.6, which cannot be imported here ({error})."
            " Install it next to this package, without the extras [cpu] and [train], which need"
            " other versions of what mjlab pins: pip install mjlab==1.6.0. In this package's own"
            " environments recorders need no adapter."
        ) from error
    return term_cfg(given, task, final_obs)
