"""Command manager: goals for the policy, redrawn from time to time."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBase,
    find_term,
)
from mjlab_rec.utils.host import read_masks
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer


@dataclass(kw_only=True)
class CommandTermCfg(abc.ABC):
    """Configuration of a command term; ``build`` makes the term."""

    resampling_time_range: tuple[float, float]
    """Range in seconds from which the time to the next command is drawn."""

    debug_vis: bool = False
    """Let the term draw its command, where a viewer or a recorder shows such drawings."""

    @abc.abstractmethod
    def build(self, env: ManagerBasedRlEnv) -> CommandTerm:
        """Build the term that this config describes."""


class CommandTerm(ManagerTermBase):
    """Holds one command per environment.

    Subclasses draw it in ``_resample_command``, adjust it every step in ``_update_command`` and
    write what they want to log into the tensors of ``metrics`` in ``_update_metrics``.
    """

    # On the class, for subclasses that create their tensors before they call __init__.
    _held: torch.Tensor | None = None
    _held_command: torch.Tensor

    def __init__(self, cfg: CommandTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        self.metrics: dict[str, torch.Tensor] = {}
        self.time_left = torch.zeros(env.num_envs, device=env.device)
        self.command_counter = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)
        self._debug_vis_enabled = True

    @property
    @abc.abstractmethod
    def command(self) -> torch.Tensor:
        """The commands in force. Shape (num_envs, command_dim)."""

    @property
    def held(self) -> torch.Tensor:
        """Where the command was set by hand. Shape (num_envs,), bool."""
        if self._held is None:
            return torch.zeros_like(self.time_left, dtype=torch.bool)
        return self._held

    def hold(self, command: torch.Tensor, env_ids: torch.Tensor) -> None:
        """Set the commands of these environments and keep them until ``release``.

        Meanwhile time passes and commands are drawn as usual, so that other environments and later
        random numbers do not change.

        Args:
            command: Their commands, (len(env_ids), command_dim).
            env_ids: The environments.
        """
        shape = tuple(self.command[env_ids].shape)
        if tuple(command.shape) != shape:
            raise ValueError(
                f"{type(self).__name__}.hold: the commands have shape {tuple(command.shape)}, but"
                f" {shape} is needed."
            )
        if not command.isfinite().all():
            raise ValueError(f"{type(self).__name__}.hold: the commands must be finite numbers.")
        if self._held is None:
            self._held, self._held_command = self.held, self.command.clone()
        self._held[env_ids] = True
        self._held_command[env_ids] = command.to(self._held_command.dtype)
        self.apply_held()
        if not torch.equal(self.command[env_ids], self._held_command[env_ids]):
            self.release(env_ids)
            raise NotImplementedError(
                f"The command of {type(self).__name__} cannot be set by hand: its property"
                " `command` returns a new tensor each time. Let it return the tensor that holds"
                " the commands."
            )

    def release(self, env_ids: torch.Tensor | None = None) -> None:
        """Let the task change the commands of these environments (None: all) again."""
        if self._held is not None:
            self._held[slice(None) if env_ids is None else env_ids] = False

    def apply_held(self) -> None:
        """Restore the commands that were set by hand; called after commands were updated."""
        if self._held is not None:
            command = self.command
            command.copy_(torch.where(self._held[:, None], self._held_command, command))

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Draw the command, if the config asks for it."""
        if self.cfg.debug_vis and self._debug_vis_enabled:
            self._debug_vis_impl(visualizer)

    def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
        """Override to draw the command."""

    def create_gui(
        self,
        name: str,
        server: Any,
        get_env_idx: Callable[[], int],
        on_change: Callable[[], None] | None = None,
        request_action: Callable[[str, Any], None] | None = None,
    ) -> None:
        """Override to put your own controls on the web page, in place of sliders of the command.

        What the page's user does is called in another thread than the one that steps.

        Args:
            name: Name of the term.
            server: The ``viser.ViserServer``.
            get_env_idx: Returns the environment that is shown.
            on_change: Call it when something that is drawn has changed.
            request_action: Asks the viewer for something: ``("CUSTOM", {"type": "gui_reset",
                "all_envs": True})`` begins new episodes that ``apply_gui_reset`` may change.
        """

    def on_viewer_pause(self, paused: bool) -> None:
        """Override to follow the pauses of the web page's viewer."""

    def apply_gui_reset(self, env_ids: torch.Tensor) -> bool:
        """Override to put environments that begin an episode into a state chosen on the web page.

        Returns:
            Whether anything was written to the simulation.
        """
        return False

    def reset(self, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Log the mean metrics of these environments, and draw their first command."""
        log = {}
        for name, value in self.metrics.items():
            log[name] = value[env_ids].mean()
            value[env_ids] = 0.0
        self.command_counter[env_ids] = 0
        self._resample(env_ids)
        return log

    def compute(self, dt: Any, env_ids: torch.Tensor | None = None) -> None:
        """Advance these environments (None: all) by ``dt``, resampling commands that expire.

        A step calls the two halves ``advance`` and ``update`` instead, unless a subclass overrides
        this; then it passes a tensor of times, zero for new episodes.
        """
        due = self.advance(dt, env_ids)
        self.update(read_masks([due])[0][0], env_ids)

    def advance(
        self, dt: Any, env_ids: torch.Tensor | None = None, frozen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Advance time by ``dt`` and return where the command expires. Shape (num_envs,), bool.

        This is the first half of ``compute`` and ``update`` the second, so that the step can read
        the mask back from the device along with others. Time stops where ``frozen`` is true.
        """
        if env_ids is not None:
            self.time_left[env_ids] -= dt
            due = torch.zeros_like(self.time_left, dtype=torch.bool)
            due[env_ids] = self.time_left[env_ids] <= 0.0
            return due
        if frozen is None:
            self.time_left -= dt
            return self.time_left <= 0.0
        self.time_left -= dt * (~frozen)
        return (self.time_left <= 0.0) & ~frozen

    def update(self, due_ids: torch.Tensor, env_ids: torch.Tensor | None = None) -> None:
        """Refresh the metrics, draw new commands for ``due_ids`` and update all commands."""
        if env_ids is None:
            self._update_metrics()
        else:
            # _update_metrics updates all environments, but time passed only in these.
            before = {name: value.clone() for name, value in self.metrics.items()}
            self._update_metrics()
            for name, value in self.metrics.items():
                refreshed = value[env_ids]
                value.copy_(before.get(name, torch.zeros_like(value)))
                value[env_ids] = refreshed
        self._resample(due_ids)
        self._update_command(env_ids)

    def _resample(self, env_ids: torch.Tensor) -> None:
        if len(env_ids) > 0:
            times = self._env.rng.uniform(*self.cfg.resampling_time_range, (len(env_ids),), env_ids)
            self.time_left[env_ids] = times
            self._resample_command(env_ids)
            self.command_counter[env_ids] += 1

    @abc.abstractmethod
    def _update_metrics(self) -> None:
        """Write the current metrics into the tensors of ``self.metrics``."""

    @abc.abstractmethod
    def _resample_command(self, env_ids: torch.Tensor) -> None:
        """Draw new commands for these environments."""

    @abc.abstractmethod
    def _update_command(self, env_ids: torch.Tensor | None) -> None:
        """Adjust the commands to the current state: every step with None, at a reset with its ids.

        A term that counts steps must count only for these environments.
        """


class CommandManager(ManagerBase):
    """Resets, advances and provides the commands."""

    def __init__(self, cfg: dict[str, CommandTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)

    def __str__(self) -> str:
        rows = [
            (i, name, type(term).__name__) for i, (name, term) in enumerate(self._terms.items())
        ]
        return format_table("Command terms", ("Index", "Name", "Type"), rows)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    def get_command(self, name: str) -> torch.Tensor:
        """The commands of a term. Shape (num_envs, command_dim)."""
        return self.get_term(name).command

    def get_term(self, name: str) -> CommandTerm:
        """The term of this name."""
        return find_term("command", name, self._terms)

    def get_term_cfg(self, name: str) -> CommandTermCfg:
        """The live config of a term."""
        return self.get_term(name).cfg

    def reset(self, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Log the metrics of these environments and draw their first commands."""
        return {
            f"Metrics/{name}/{metric}": value
            for name, term in self._terms.items()
            for metric, value in term.reset(env_ids).items()
        }

    def compute(self, dt: float, env_ids: torch.Tensor | None = None) -> None:
        """Advance these environments (None: all) by ``dt``."""
        for term in self._terms.values():
            term.compute(dt, env_ids)
            term.apply_held()

    def advance(self, dt: float, frozen: torch.Tensor) -> list[torch.Tensor]:
        """Advance time by ``dt`` where not frozen; returns where each term's command expires."""
        self._dt = dt, frozen
        return [term.advance(dt, frozen=frozen) for term in self._in_halves]

    def update(self, due_ids: Sequence[torch.Tensor], env_ids: torch.Tensor | None = None) -> None:
        """Do the second half of ``compute``, after ``advance``."""
        for term, ids in zip(self._in_halves, due_ids, strict=True):
            term.update(ids, env_ids)
        dt, frozen = self._dt
        for term in self._in_one:
            term.compute(dt * (~frozen) if env_ids is None else dt, env_ids)
        self._apply_held()

    def begin(self, env_ids: torch.Tensor) -> None:
        """Update the first commands of new episodes, without advancing time."""
        no_ids = env_ids[:0]
        for term in self._in_halves:
            term.update(no_ids, env_ids)
        for term in self._in_one:
            term.compute(0.0, env_ids)
        self._apply_held()

    def get_visualizable_terms(self) -> list[tuple[str, Any]]:
        """Names and terms of those whose config has ``debug_vis``."""
        return [(name, term) for name, term in self._terms.items() if term.cfg.debug_vis]

    def create_gui(
        self,
        server: Any,
        get_env_idx: Callable[[], int],
        on_change: Callable[[], None] | None = None,
        request_action: Callable[[str, Any], None] | None = None,
    ) -> None:
        """Let the terms put their own controls on a web page."""
        for name, term in self._terms.items():
            term.create_gui(name, server, get_env_idx, on_change, request_action)

    def on_viewer_pause(self, paused: bool) -> None:
        """Tell the terms that the viewer was paused or continues."""
        for term in self._terms.values():
            term.on_viewer_pause(paused)

    def apply_gui_reset(self, env_ids: torch.Tensor) -> bool:
        """Let the terms change the state of new episodes; returns whether one did."""
        return any([term.apply_gui_reset(env_ids) for term in self._terms.values()])

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Each command of one environment."""
        return [(name, term.command[env_idx].tolist()) for name, term in self._terms.items()]

    def _apply_held(self) -> None:
        for term in self._terms.values():
            term.apply_held()

    def _prepare_terms(self) -> None:
        self._terms: dict[str, CommandTerm] = {}
        for name, term_cfg in self.cfg.items():
            if term_cfg is None:
                continue
            term: Any = deepcopy(term_cfg).build(self._env)
            if not isinstance(term, CommandTerm):
                raise TypeError(
                    f"Command term '{name}': {type(term_cfg).__name__}.build returned"
                    f" {type(term).__name__}, expected a CommandTerm."
                )
            self._terms[name] = term
        # A term with its own compute() decides itself when to resample.
        stock = CommandTerm.compute
        self._in_one = [t for t in self._terms.values() if type(t).compute is not stock]
        self._in_halves = [t for t in self._terms.values() if type(t).compute is stock]


class NullCommandManager(CommandManager):
    """Replaces the manager if there are no commands."""

    def __init__(self) -> None:
        self.cfg = {}
        self._prepare_terms()
