"""Recorders in Isaac Lab's manager-based environments."""

from __future__ import annotations

from typing import Any

from mjlab_rec.adapters.hosted import Recorders, named

TERM = "mjlab_rec"
"""Name of the term in Isaac Lab's recorder manager."""


def for_isaaclab(recorders: Recorders, *, task: str | None = None, add_to: Any = None) -> Any:
    """Return the ``recorders`` of an environment's cfg in Isaac Lab, with recorders in it.

    Isaac Lab itself then exports nothing, unless ``add_to`` says so.

    Args:
        recorders: The cfg of a recorder of this package, or several by name.
        task: The task's name, for descriptions.
        add_to: The environment's own ``recorders``, which are kept.
    """
    given = named(recorders, "for_isaaclab")
    try:
        from mjlab_rec.adapters.isaaclab_term import manager_cfg
    except ImportError as error:
        raise ImportError(
            f"for_isaaclab() makes a recorder of Isaac Lab, which cannot be imported: {error}."
            " Call it after Isaac Lab's AppLauncher has started the simulator, with the Python"
            " that has both packages."
        ) from error
    return manager_cfg(given, task, TERM, add_to)


def close_recordings(env: Any) -> None:
    """Finish the recordings of an Isaac Lab environment; call it before ``env.close()``.

    Otherwise what the very last step led to is not recorded: ``close()`` drops it first.
    """
    term = env.unwrapped.recorder_manager._terms.get(TERM)
    if term is None:
        raise ValueError("The environment has no recorder of for_isaaclab().")
    term.close()
