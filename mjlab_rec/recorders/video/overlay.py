"""Values shown as text in a video's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mjlab_rec.sim.snapshot import to_host
from mjlab_rec.utils.string import nearest

FIELDS = ("env", "episode", "step", "time", "return", "reward", "command")
_DEFAULT = ("step", "time", "return", "command")


@dataclass(frozen=True)
class OverlayData:
    """The values to show in the images of one moment."""

    counts: tuple[tuple[int, int, int], ...]
    """For each image: environment, episode, and steps taken in it."""

    numbers: torch.Tensor
    """Numbers (images, columns), on the host once the event has occurred."""

    event: Any = None


class Overlay:
    """Reads the values to show in the simulation's thread, and formats them in another thread.

    Args:
        env: The environment.
        env_ids: The environments that may be shown.
        fields: What to show; True shows the default fields.
    """

    def __init__(self, env: Any, env_ids: Sequence[int], fields: bool | Sequence[str]) -> None:
        commands = list(env.command_manager.active_terms)
        if fields is True:
            fields = [name for name in _DEFAULT if name != "command" or commands]
        self._fields = list(fields) if fields else []
        for name in self._fields:
            if name not in FIELDS:
                raise ValueError(f"The overlay cannot show {name!r}. {nearest(name, FIELDS)}")
        if "command" in self._fields and not commands:
            raise ValueError("The overlay cannot show a command: the environment has none.")
        self._env = env
        self._slot = {env_id: slot for slot, env_id in enumerate(env_ids)}
        self._ids = torch.tensor(list(env_ids), device=env.device)
        self._commands = commands if "command" in self._fields else []
        self._followed: list[torch.Tensor] = []
        self._sizes: list[int] = []
        # The return of an episode that is already running stays unknown.
        running = env.episode_length_buf[self._ids] > 0
        self._total = torch.where(running, torch.nan, 0.0).double()

    def __bool__(self) -> bool:
        return bool(self._fields)

    def before(self) -> None:
        """Store the commands before a step."""
        if self._commands:
            commands = (self._env.command_manager.get_command(name) for name in self._commands)
            self._followed = [command.index_select(0, self._ids) for command in commands]
            self._sizes = [command.shape[1] for command in self._followed]

    def after(self) -> None:
        """Add up the reward after a step."""
        if "return" in self._fields:
            self._total += self._env.reward_buf.index_select(0, self._ids)

    def restart(self, env_ids: Sequence[int]) -> None:
        """Reset the returns when episodes begin."""
        if "return" in self._fields:
            for env_id in env_ids:
                self._total[self._slot[env_id]] = 0.0

    def note(self, counts: Sequence[tuple[int, int, int]]) -> OverlayData:
        """Read the current numbers, without making a GPU wait."""
        columns = [self._total[:, None].float()]
        columns.append(self._env.reward_buf.index_select(0, self._ids)[:, None])
        columns += [followed.float() for followed in self._followed]
        rows = torch.cat(columns, dim=1)
        if len(counts) < len(self._slot):
            rows = torch.stack([rows[self._slot[env_id]] for env_id, _, _ in counts])
        return OverlayData(tuple(counts), *to_host(rows))

    def lines(self, note: OverlayData) -> list[list[str]]:
        """The lines of text for each image."""
        if note.event is not None:
            note.event.synchronize()
        return [
            self._lines(*counts, numbers)
            for counts, numbers in zip(note.counts, note.numbers.tolist(), strict=True)
        ]

    def _lines(self, env_id: int, episode: int, step: int, numbers: list[float]) -> list[str]:
        total, reward, *commands = numbers
        lines = {
            "env": [f"env {env_id}"],
            "episode": [f"episode {episode}"],
            "step": [f"step {step}"],
            "time": [f"time {step * self._env.step_dt:.2f} s"],
            "return": [f"return {total:.4g}"],
            "reward": [f"reward {reward:.4g}"],
            "command": [],
        }
        for name, size in zip(self._commands, self._sizes, strict=False):
            values = " ".join(f"{value:.2f}" for value in commands[:size])
            lines["command"].append(f"{name} {values}")
            commands = commands[size:]
        return [line for name in self._fields for line in lines[name]]
