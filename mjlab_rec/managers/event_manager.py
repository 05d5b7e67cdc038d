"""Event manager: what happens at start-up, at resets, at intervals and at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBaseCfg,
    find_term,
    resettable,
)
from mjlab_rec.sim import RecomputeLevel
from mjlab_rec.utils.host import read_masks
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

EventMode = Literal["startup", "reset", "interval", "step"]
F = TypeVar("F", bound=Callable[..., Any])

# An interval is over when less than this is left; sums of float steps miss zero slightly.
_ALMOST_ZERO_S = 1e-6

_DERIVED_FIELDS: dict[RecomputeLevel, tuple[str, ...]] = {
    RecomputeLevel.none: (),
    RecomputeLevel.set_const_fixed: ("body_subtreemass",),
    RecomputeLevel.set_const_0: (
        "dof_invweight0",
        "body_invweight0",
        "tendon_length0",
        "tendon_invweight0",
        "actuator_acc0",
    ),
}
_DERIVED_FIELDS[RecomputeLevel.set_const] = (
    _DERIVED_FIELDS[RecomputeLevel.set_const_fixed] + _DERIVED_FIELDS[RecomputeLevel.set_const_0]
)


def requires_model_fields(
    *fields: str, recompute: RecomputeLevel = RecomputeLevel.none
) -> Callable[[F], F]:
    """Declare which model fields an event writes per world.

    The fields get their own value in every world before the first event runs, and ``recompute``
    says which derived constants follow from them and are recomputed after the event.
    """

    def decorate(func: F) -> F:
        func.model_fields = tuple(dict.fromkeys(fields + _DERIVED_FIELDS[recompute]))  # type: ignore[attr-defined]
        func.recompute = recompute  # type: ignore[attr-defined]
        return func

    return decorate


@dataclass(kw_only=True)
class EventTermCfg(ManagerTermBaseCfg):
    """One event: ``func(env, env_ids, **params)``; env_ids None means all environments."""

    mode: EventMode
    """When it happens: once at "startup", at each "reset", at an "interval" or at every "step"."""

    interval_range_s: tuple[float, float] | None = None
    """For mode "interval": range from which the time to the next event is drawn."""

    is_global_time: bool = False
    """For mode "interval": one timer for all environments, which episode ends do not restart."""

    min_step_count_between_reset: int = 0
    """For mode "reset": skip resets that follow the last event by fewer steps than this."""


class EventManager(ManagerBase):
    """Applies the events of each mode in the order of the config."""

    _call_arguments = 2

    def __init__(self, cfg: dict[str, EventTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        # One per environment; global timers live on the host, so that nothing must be read back
        # from the device for them.
        self._time_left: dict[str, torch.Tensor] = {
            name: torch.empty(env.num_envs, device=env.device)
            for name, term in self._modes.get("interval", {}).items()
            if not term.is_global_time
        }
        self._global_time_left: dict[str, float] = {}
        self._last_reset_event = {
            name: torch.empty(env.num_envs, dtype=torch.long, device=env.device)
            for name, term in self._modes.get("reset", {}).items()
            if term.min_step_count_between_reset > 0
        }
        self.restart()

    def __str__(self) -> str:
        rows = [
            (mode, name, term.interval_range_s or "")
            for mode, terms in self._modes.items()
            for name, term in terms.items()
        ]
        text = format_table("Event terms", ("Mode", "Name", "Interval (s)"), rows)
        if self.domain_randomization_fields:
            text += f"\n  Model fields per world: {', '.join(self.domain_randomization_fields)}"
        return text

    @property
    def active_terms(self) -> dict[EventMode, list[str]]:
        """Names of the terms, by mode."""
        return {mode: list(terms) for mode, terms in self._modes.items()}

    @property
    def available_modes(self) -> list[EventMode]:
        """Modes that have terms."""
        return list(self._modes)

    @property
    def domain_randomization_fields(self) -> tuple[str, ...]:
        """Model fields that some event writes per world."""
        fields = [
            field
            for terms in self._modes.values()
            for term in terms.values()
            for field in getattr(term.func, "model_fields", ())
        ]
        return tuple(dict.fromkeys(fields))

    def get_term_cfg(self, term_name: str) -> EventTermCfg:
        """The live config of a term."""
        return find_term("event", term_name, self._all)

    def reset(self, env_ids: torch.Tensor | None = None) -> dict[str, Any]:
        """Restart the interval timers of these environments."""
        for reset in self._resets:
            reset(env_ids=env_ids)
        self._restart_timers(self._all_ids() if env_ids is None else env_ids)
        return {}

    def restart(self) -> None:
        """Forget all past events, and redraw the time to the next ones."""
        for name, term in self._modes.get("interval", {}).items():
            if term.is_global_time:
                self._global_time_left[name] = self._draw_global_interval(term)
        self._restart_timers(self._all_ids())
        for last in self._last_reset_event.values():
            last.fill_(torch.iinfo(torch.long).min // 2)

    def apply(
        self,
        mode: EventMode,
        env_ids: torch.Tensor | None = None,
        dt: float | None = None,
        global_env_step_count: int | None = None,
    ) -> bool:
        """Apply the events of a mode, and return whether there were any.

        Mode "reset" needs ``env_ids`` and ``global_env_step_count``; mode "interval" needs ``dt``,
        the time since it was last applied, and finds the environments itself.
        """
        if mode == "interval":
            if dt is None:
                raise ValueError("Events of mode 'interval' need dt, the time step to advance by.")
            return self.apply_intervals(read_masks(self.advance_intervals(dt))[0], dt)
        level, happened = RecomputeLevel.none, False
        for name, term in self._modes.get(mode, {}).items():
            ids = env_ids
            if mode == "reset":
                if env_ids is None or global_env_step_count is None:
                    raise ValueError(
                        "Events of mode 'reset' need env_ids and global_env_step_count."
                    )
                ids = self._due_at_reset(name, term, env_ids, global_env_step_count)
                if len(ids) == 0:
                    continue
            level, happened = max(level, self._call(term, ids)), True
        self._recompute(level)
        return happened

    def advance_intervals(self, dt: float) -> list[torch.Tensor]:
        """Advance time by ``dt`` and return where each per-environment interval event is due.

        This is the first half of mode "interval" and ``apply_intervals`` the second, so that the
        step can read these masks back from the device along with others.
        """
        due = []
        for time_left in self._time_left.values():
            time_left -= dt
            due.append(time_left < _ALMOST_ZERO_S)
        return due

    def apply_intervals(self, due_ids: Sequence[torch.Tensor], dt: float) -> bool:
        """Apply the interval events that are due, and return whether there were any.

        ``due_ids`` are the environments found by ``advance_intervals``.
        """
        level, happened = RecomputeLevel.none, False
        ids_of = dict(zip(self._time_left, due_ids, strict=True))
        for name, term in self._modes.get("interval", {}).items():
            if term.is_global_time:
                self._global_time_left[name] -= dt
                if self._global_time_left[name] < _ALMOST_ZERO_S:
                    self._global_time_left[name] = self._draw_global_interval(term)
                    level, happened = max(level, self._call(term, None)), True
            elif len(ids := ids_of[name]) > 0:
                self._time_left[name][ids] = self._draw_interval(term, ids)
                level, happened = max(level, self._call(term, ids)), True
        self._recompute(level)
        return happened

    def _call(self, term: EventTermCfg, env_ids: torch.Tensor | None) -> RecomputeLevel:
        term.func(self._env, env_ids, **term.params)
        return getattr(term.func, "recompute", RecomputeLevel.none)

    def _recompute(self, level: RecomputeLevel) -> None:
        if level is not RecomputeLevel.none:
            self._env.sim.recompute_constants(level)

    def _due_at_reset(
        self, name: str, term: EventTermCfg, env_ids: torch.Tensor, step: int
    ) -> torch.Tensor:
        if term.min_step_count_between_reset <= 0:
            return env_ids
        last = self._last_reset_event[name]
        ids = env_ids[step - last[env_ids] >= term.min_step_count_between_reset]
        last[ids] = step
        return ids

    def _restart_timers(self, env_ids: torch.Tensor) -> None:
        for name, time_left in self._time_left.items():
            time_left[env_ids] = self._draw_interval(self._all[name], env_ids)

    def _draw_interval(self, term: EventTermCfg, env_ids: torch.Tensor) -> torch.Tensor:
        assert term.interval_range_s is not None
        return self._env.rng.uniform(*term.interval_range_s, (len(env_ids),), env_ids)

    def _draw_global_interval(self, term: EventTermCfg) -> float:
        assert term.interval_range_s is not None
        return self._env.rng.host.uniform(*term.interval_range_s)

    def _all_ids(self) -> torch.Tensor:
        return torch.arange(self._env.num_envs, device=self._env.device)

    def _prepare_terms(self) -> None:
        self._all = self._resolve(self.cfg)
        self._modes: dict[EventMode, dict[str, EventTermCfg]] = {}
        for name, term in self._all.items():
            if term.mode not in get_args(EventMode):
                raise ValueError(
                    f"EventManager term '{name}': unknown mode '{term.mode}'."
                    f" Known: {', '.join(get_args(EventMode))}."
                )
            if term.mode == "interval" and term.interval_range_s is None:
                raise ValueError(
                    f"EventManager term '{name}' has mode 'interval' but no interval_range_s."
                    " Set it to the shortest and longest time between events, in seconds."
                )
            self._modes.setdefault(term.mode, {})[name] = term
        self._resets = resettable(self._all)
