"""Commands set by hand, which viewers show, hold and release."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.managers.command_manager import CommandTerm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandState:
    """The command of one term in one environment."""

    values: list[float]
    """The current command."""

    held: bool
    """Whether it was set by hand, and stays until released."""


@dataclass(frozen=True)
class CommandAxis:
    """One number of a command, as a slider shows it."""

    label: str
    """Its name, or its index."""

    low: float
    """Least value."""

    high: float
    """Greatest value."""


def command_axes(term: CommandTerm) -> list[CommandAxis]:
    """Return the names and ranges of a term's numbers.

    They come from the first fields of ``cfg.ranges`` if the config has it, as for velocity
    commands. Otherwise the range is -1 to 1, or to a whole number that is at least twice as large
    as the current commands.
    """
    count = term.command.shape[1]
    ranges = _ranges(getattr(term.cfg, "ranges", None))
    axes = []
    for index in range(count):
        if index < len(ranges) and ranges[index][1] < ranges[index][2]:
            label, low, high = ranges[index]
        else:
            reach = max(1.0, math.ceil(2.0 * float(term.command[:, index].abs().max())))
            label, low, high = str(index), -reach, reach
        axes.append(CommandAxis(label, low, high))
    return axes


def read_commands(env: ManagerBasedRlEnv, env_idx: int) -> dict[str, CommandState]:
    """Return the command of each term in one environment, except terms without a number each."""
    found = {}
    for name in env.command_manager.active_terms:
        term = env.command_manager.get_term(name)
        if term.command.ndim == 2:
            values = term.command[env_idx].tolist()
            found[name] = CommandState(values, bool(term.held[env_idx]))
    return found


def hold_command(
    env: ManagerBasedRlEnv, name: str, env_idx: int, values: list[float]
) -> str | None:
    """Set an environment's command until it is released; returns why, if it cannot be set."""
    ids = torch.tensor([env_idx], device=env.device)
    row = torch.tensor([values], device=env.device)
    try:
        env.command_manager.get_term(name).hold(row, ids)
    except NotImplementedError as error:
        logger.warning("%s", error)
        return str(error)
    return None


def release_command(env: ManagerBasedRlEnv, name: str, env_idx: int) -> None:
    """Let the task choose the command of this environment again."""
    ids = torch.tensor([env_idx], device=env.device)
    env.command_manager.get_term(name).release(ids)


def _ranges(ranges: Any) -> list[tuple[str, float, float]]:
    """Return name, least and greatest value of each pair of numbers among the fields."""
    if dataclasses.is_dataclass(ranges):
        ranges = {f.name: getattr(ranges, f.name) for f in dataclasses.fields(ranges)}
    if not isinstance(ranges, dict):
        return []
    return [
        (name, float(pair[0]), float(pair[1]))
        for name, pair in ranges.items()
        if isinstance(pair, (tuple, list)) and len(pair) == 2
    ]
