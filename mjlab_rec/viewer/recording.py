"""Starting and stopping recorders from a viewer, and their progress."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mjlab_rec.recorders.progress import Progress

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)


def toggle_recorder(env: ManagerBasedRlEnv, name: str) -> str | None:
    """Stop a recorder that records, or start one that is not recording; returns any error.

    A failing button must not end the run: a recorder that cannot start stays stopped.
    """
    manager = env.recorder_manager
    try:
        if manager.get_term(name).state == "recording":
            manager.stop(name)
        else:
            manager.start(name)
    except Exception as error:
        logger.exception("Recorder '%s' could not be started or stopped.", name)
        return str(error)
    return None


def describe(progress: Progress) -> str:
    """Return a recorder's progress in one line."""
    return " · ".join([progress.state, *progress.amounts])
