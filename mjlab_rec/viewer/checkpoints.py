"""The checkpoints of a run, among which viewers switch while playing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from mjlab_rec.rl.policies import Policy
from mjlab_rec.rl.run_folders import BEST, checkpoints

logger = logging.getLogger(__name__)

_LOOKS_EVERY_S = 1.0


class Checkpoints:
    """The checkpoints in the folder of the one that plays; those of a running training appear.

    Args:
        path: The checkpoint that plays.
        load: Makes the policy of a checkpoint. It may raise any error.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], Policy],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.current = path.name
        """Name of the checkpoint that plays."""
        self.error: str | None = None
        """Why the last one that was chosen does not play; None if it does."""
        self._path = path
        self._load = load
        self._clock = clock
        self._names: list[str] = []
        self._look_at = -float("inf")

    def names(self) -> list[str]:
        """The names of all, by iteration, with the best one last. It looks once a second."""
        if (now := self._clock()) >= self._look_at:
            self._look_at = now + _LOOKS_EVERY_S
            self._names = self._look()
        return self._names

    def neighbour(self, by: int) -> str | None:
        """The name that is some places after the current one; None at the ends."""
        self._look_at = -float("inf")
        names = self.names()
        place = names.index(self.current) + by if self.current in names else len(names) - 1
        return names[place] if 0 <= place < len(names) else None

    def load(self, name: str) -> Policy | None:
        """Load one of them; None, and ``error``, if it does not load."""
        try:
            policy = self._load(self._path.parent / name)
        except Exception as error:  # A file that is being written, or of another task.
            logger.warning("%s", error)
            self.error = str(error)
            return None
        self.current, self.error = name, None
        return policy

    def _look(self) -> list[str]:
        folder = self._path.parent
        try:
            names = [path.name for path in checkpoints(folder)]
        except OSError:
            return self._names  # The folder is gone; what plays can still be shown.
        others = [BEST] if (folder / BEST).is_file() else []
        others += [self._path.name] if self._path.name not in [*names, *others] else []
        return names + others
