"""Final observations of environments that reset inside the step and do not compute them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from mjlab_rec.adapters.random_numbers import GlobalRandom
from mjlab_rec.adapters.saved_state import SavedState
from mjlab_rec.managers.observation_manager import map_observations

logger = logging.getLogger(__name__)

# Attributes of the observation manager that computing a group leaves alone.
_KEPT = ("_env", "cfg", "_obs_buffer")


class Physics(Protocol):
    """Brings what observations are computed from up to date, and undoes that."""

    def objects(self) -> Sequence[object]:
        """Objects that computing observations may change, besides the observation manager."""
        ...

    def left_out(self) -> Sequence[object]:
        """Objects that it does not change, or that ``save`` covers."""
        ...

    def save(self) -> None:
        """Remember the physics as it is."""

    def refresh(self) -> None:
        """Bring derived quantities and sensors up to date with the state."""

    def restore(self) -> None:
        """Put back what ``save`` remembered."""


class FinalObservations:
    """Computes observations without changing what follows: state, buffers, random numbers.

    A group whose terms keep something between calls that cannot be put back is not known: its
    values are NaN, and ``notes`` says why.

    Args:
        manager: The environment's observation manager, with mjlab's names.
        physics: The physics behind it.
        rng: The random numbers.
    """

    def __init__(self, manager: Any, physics: Physics, rng: GlobalRandom) -> None:
        self._manager = manager
        self._physics = physics
        self._rng = rng
        self._unknown: set[str] = set()
        self.notes: list[str] = []
        """Which groups are not known, and why."""
        self._warned = False

    def check(self) -> None:
        """Find the groups that are not known: compute all twice; both must give the same bits."""
        reasons: dict[str, str] = {}
        with self._undone():
            self._physics.refresh()
            for group in self._manager.active_terms:
                try:
                    first = self._computed(group, 0, undone=True)
                    second = self._computed(group, 0, undone=True)
                except Exception as error:
                    reasons[group] = f"computing it raised {error!r}"
                    continue
                if not _equal(first, second):
                    reasons[group] = "computing it twice gives different values"
        self._unknown = set(reasons)
        self.notes = [
            f"The final observations of the group '{group}' are not known: {why}. They are NaN."
            for group, why in reasons.items()
        ]
        for note in self.notes:
            logger.warning("%s", note)

    @contextmanager
    def current(self, step: int, like: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the observations of the present state; inside, derived quantities are current.

        Args:
            step: Number of the step, on which their noise depends.
            like: Other observations; what is not known has their shape.
        """
        with self._undone():
            self._physics.refresh()
            found: dict[str, Any] = {}
            for group in self._manager.active_terms:
                if group not in self._unknown:
                    try:
                        found[group] = self._computed(group, step)
                    except Exception:
                        self._warn(group)
                if group not in found:
                    found[group] = map_observations(_unknown, {"": like[group]})[""]
            yield found

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Undo everything that happens inside to physics, buffers and random numbers."""
        with self._rng.rewound():
            saved = self._saved()
            self._physics.save()
            try:
                yield
            finally:
                self._physics.restore()
                saved.restore()

    def _saved(self) -> SavedState:
        manager, physics = self._manager, self._physics
        parts = [value for name, value in vars(manager).items() if name not in _KEPT]
        return SavedState([*parts, *physics.objects()], [manager, *physics.left_out()])

    def _computed(self, group: str, step: int, undone: bool = False) -> Any:
        cfg = _group_cfg(self._manager, group)
        policy = getattr(cfg, "nan_policy", None)
        saved = self._saved() if undone else None
        try:
            if policy in ("warn", "error"):
                # The environment never computes these observations, so it must not complain.
                cfg.nan_policy = "sanitize" if policy == "warn" else "disabled"
            with self._rng.seeded(step):
                value = self._manager.compute_group(group, update_history=True)
            return map_observations(torch.clone, {"": value})[""] if undone else value
        finally:
            if policy is not None:
                cfg.nan_policy = policy
            if saved is not None:
                saved.restore()

    def _warn(self, group: str) -> None:
        if not self._warned:
            self._warned = True
            logger.exception(
                "The final observations of the group '%s' could not be computed; they are NaN in"
                " this step, and wherever this happens again.",
                group,
            )


def _group_cfg(manager: Any, group: str) -> Any:
    cfg = manager.cfg
    return cfg.get(group) if isinstance(cfg, dict) else getattr(cfg, group, None)


def _unknown(value: torch.Tensor) -> torch.Tensor:
    return torch.full_like(value, torch.nan if value.is_floating_point() else 0)


def _equal(one: Any, other: Any) -> bool:
    """Whether two groups have the same bits, for which NaN equals NaN."""
    same: list[bool] = []

    def compare(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        same.append(a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num()))
        return a

    map_observations(compare, {"": one}, {"": other})
    return all(same)
