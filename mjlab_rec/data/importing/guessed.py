"""Guess the channels of files whose episodes have values before and after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mjlab_rec.data.importing.base import Foreign, Groups, guessed_row, pair_of
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

_FLAGS = ("terminated", "truncated", "success")


class Guessed(Foreign):
    """Reads every dataset with numbers for each row, or for each row and after the last one.

    Args:
        groups: The groups of the episodes.
        named: The channel for a path; None: it is no channel.
        step_dt: Duration of a step in seconds.
        about: What else is known of the recording.
        successes: Success of each episode, by its name.
    """

    def __init__(
        self,
        groups: Groups,
        named: Callable[[str], str | None],
        step_dt: float,
        about: dict[str, Any],
        successes: dict[str, bool] | None = None,
    ) -> None:
        self._groups = groups
        self.notes = []
        if not groups.names:
            raise DataError(f"'{groups.path}' has no episodes.")
        numbers, others = groups.datasets(groups.names[0])
        rows = groups.rows(groups.names[0])
        specs: list[ChannelSpec] = []
        self._paths: dict[str, tuple[str, bool]] = {}  # channel -> path, whether rows are the next
        left_out = list(others)
        taken = {"step"}
        for path, (dtype, (count, *shape)) in numbers.items():
            name = named(path)
            if name is None:
                continue
            while name in taken or f"next_{name}" in taken:
                name += "_"
            taken |= {name, f"next_{name}"} if count == rows + 1 else {name}
            if count not in (rows, rows + 1):
                left_out.append(path)
            elif count == rows + 1:
                specs += pair_of(name, dtype, tuple(shape))
                self._paths[name], self._paths[f"next_{name}"] = (path, False), (path, True)
            else:
                before = name.startswith(("obs/", "env_states/", "state"))
                when = "before" if before else "after"
                specs.append(ChannelSpec(name=name, dtype=dtype, shape=tuple(shape), when=when))
                self._paths[name] = path, False
        if left_out:
            self.notes.append(
                "Left out, because they are no numbers for each step:"
                f" {', '.join(sorted(set(left_out)))}."
            )
        self.info = RunInfo(channels=tuple(specs), envs=(0,), step_dt=step_dt, about=about)
        self.rows = [
            self._row(number, name, (successes or {}).get(name))
            for number, name in enumerate(groups.names)
        ]

    def read(self, number: int) -> dict[str, np.ndarray]:
        name, rows = self._groups.names[number], self.rows[number]["rows"]
        found = {"step": np.arange(rows, dtype=np.int32)}
        read: dict[str, np.ndarray] = {}
        kinds = self.info.kinds
        for channel, (path, following) in self._paths.items():
            if path not in read:
                read[path] = self._groups.read(name, path)
            values = read[path]
            paired = following or f"next_{channel}" in self._paths
            values = values[1:] if following else values[:-1] if paired else values
            dtype, shape = kinds[channel]
            if values.shape != (rows, *shape) or values.dtype != dtype:
                raise DataError(
                    f"'{path}' of '{name}' in '{self._groups.path}' has the type {values.dtype} and"
                    f" the shape {values.shape}, but the first episode and the actions say {dtype}"
                    f" and {(rows, *shape)}."
                )
            found[channel] = values
        return found

    def close(self) -> None:
        self._groups.close()

    def _row(self, number: int, name: str, success: bool | None) -> dict[str, Any]:
        facts: dict[str, Any] = {"success": success}
        paths = {channel: path for channel, (path, _) in self._paths.items()}
        rows = self._groups.rows(name)
        if "reward" in paths:
            facts["total"] = float(np.sum(self._groups.read(name, paths["reward"]), dtype=float))
        for flag in _FLAGS:
            if flag in paths and rows and facts.get(flag) is None:
                values = self._groups.read(name, paths[flag])
                if values.shape == (rows,):
                    facts[flag] = bool(values[-1])
        return guessed_row(number, rows, facts)
