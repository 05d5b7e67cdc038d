"""When to record: at which episodes of each environment, at which steps, or on a condition.

A ``Trigger`` is plain data, so that cfgs and presets can hold it: ``every_n_episodes(10)`` in
Python, ``"every_n_episodes(10)"`` or ``{kind = "every_n_episodes", n = 10}`` in TOML. ``build``
makes the runner, which a recorder calls and which keeps the state.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

Predicate = Callable[[Any], "bool | torch.Tensor"]
"""A condition: a function of the environment that returns a bool, or a bool per environment."""

# The arguments that each kind takes.
_KINDS: dict[str, tuple[str, ...]] = {
    "every_n_episodes": ("n",),
    "capped_cubic_episodes": (),
    "at_episodes": ("numbers",),
    "every_n_steps": ("n",),
    "at_steps": ("numbers",),
    "when": ("predicate",),
    "manual": (),
}


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When to record. Episodes and steps count from 0."""

    kind: str
    """Name of the function below that makes it."""

    n: int | None = None
    """For every_n_episodes and every_n_steps: the interval."""

    numbers: tuple[int, ...] | None = None
    """For at_episodes and at_steps: the episode or step numbers."""

    predicate: Predicate | None = None
    """For when: the condition."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Unknown trigger {self.kind!r}. {nearest(self.kind, list(_KINDS))}")
        takes = _KINDS[self.kind]
        for name in ("n", "numbers", "predicate"):
            given = getattr(self, name) is not None
            if given and name not in takes:
                raise ValueError(f"The trigger {self.kind} takes no {name}.")
            if not given and name in takes:
                raise ValueError(f"The trigger {self.kind} needs {name}.")
        if self.n is not None:
            _check_whole(self.kind, "n", self.n, least=1)
        if self.numbers is not None:
            object.__setattr__(self, "numbers", _checked_numbers(self.kind, self.numbers))
        if self.predicate is not None and not callable(self.predicate):
            raise TypeError(
                f"The trigger when needs a function of the environment, got {self.predicate!r}."
            )

    def __str__(self) -> str:
        if self.kind == "when":
            return f"when({getattr(self.predicate, '__qualname__', self.predicate)})"
        given = self.numbers or ([self.n] if self.n is not None else [])
        return f"{self.kind}({', '.join(map(str, given))})"

    @property
    def scope(self) -> Literal["episode", "step"]:
        """Whether it selects whole episodes as they begin, or steps."""
        return "episode" if self.kind.endswith("episodes") else "step"

    def build(self, env: ManagerBasedRlEnv) -> TriggerRunner:
        """Create a runner for one recorder of this environment."""
        n = self.n or 1
        if self.kind == "every_n_episodes":
            return _EpisodeRunner(self, lambda count: count % n == 0)
        if self.kind == "at_episodes":
            return _EpisodeRunner(self, _one_of(self.numbers or (), env.device))
        if self.kind == "capped_cubic_episodes":
            cube = _one_of([k**3 for k in range(10)], env.device)
            return _EpisodeRunner(self, lambda count: cube(count) | (count % 1000 == 0))
        if self.kind == "every_n_steps":
            return _StepRunner(self, lambda step: step % n == 0)
        if self.kind == "at_steps":
            return _StepRunner(self, frozenset(self.numbers or ()).__contains__)
        return _WhenRunner(self, env) if self.kind == "when" else _ManualRunner(self)


class TriggerRunner:
    """Evaluates a trigger for one recorder, and keeps the state for it.

    A recorder calls ``episodes`` as episodes begin if ``scope`` is "episode", else ``step`` before
    each control step. A condition that stays true fires only once.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.scope = trigger.scope

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        """Which episodes to record, given the count of earlier ones per environment: (k,) bool.

        Runs on the counters' device, without waiting for it.
        """
        return torch.zeros_like(count, dtype=torch.bool)

    def step(self, step: int) -> bool | torch.Tensor:
        """Whether to start at this step, given the number of earlier ones.

        A bool applies to all environments; a tensor (num_envs,) on their device decides for each.
        May be called again for the same step; then the last answer counts.
        """
        return False

    def fire(self) -> None:
        """Make the next ``step`` fire. Only ``manual()`` supports this."""
        raise RuntimeError(
            f"The trigger {self.trigger} cannot be fired by hand. Use manual() for that."
        )


def every_n_episodes(n: int) -> Trigger:
    """Record episodes 0, n, 2n, ... of each environment."""
    return Trigger(kind="every_n_episodes", n=n)


def capped_cubic_episodes() -> Trigger:
    """Record episodes 0, 1, 8, 27, ..., 729, 1000, 2000, 3000, ... of each environment."""
    return Trigger(kind="capped_cubic_episodes")


def at_episodes(*numbers: int) -> Trigger:
    """Record these episodes of each environment."""
    return Trigger(kind="at_episodes", numbers=numbers)


def every_n_steps(n: int) -> Trigger:
    """Start recording at steps 0, n, 2n, ... of the environment's step counter."""
    return Trigger(kind="every_n_steps", n=n)


def at_steps(*numbers: int) -> Trigger:
    """Start recording at these steps of the environment's step counter."""
    return Trigger(kind="at_steps", numbers=numbers)


def when(predicate: Predicate) -> Trigger:
    """Start recording when a condition becomes true.

    The function gets the environment and returns a bool, or a bool tensor (num_envs,) to decide for
    each environment. It is called before every step; the end of an episode changes nothing.
    """
    return Trigger(kind="when", predicate=predicate)


def manual() -> Trigger:
    """Start recording when ``fire()`` is called."""
    return Trigger(kind="manual")


def trigger_from(spec: Trigger | Mapping[str, Any] | str) -> Trigger:
    """Read a trigger from data: ``{kind = "at_steps", numbers = [0, 5]}`` or ``"at_steps(0, 5)"``.

    The function of ``when`` is given as ``"package.module:function"``.
    """
    if isinstance(spec, Trigger):
        return spec
    if isinstance(spec, str):
        data = _from_call(spec)
    elif isinstance(spec, Mapping):
        data = dict(spec)
    else:
        raise TypeError(f"A trigger must be a Trigger, a table or a string, got {spec!r}.")
    known = ["kind", "n", "numbers", "predicate"]
    for key in data:
        if key not in known:
            raise ValueError(f"Unknown key {key!r} of a trigger. {nearest(key, known)}")
    if "kind" not in data:
        raise ValueError(f"A trigger needs a kind. Known kinds: {', '.join(_KINDS)}.")
    if isinstance(data.get("predicate"), str):
        data["predicate"] = look_up(data["predicate"])
    return Trigger(**data)


class _EpisodeRunner(TriggerRunner):
    def __init__(self, trigger: Trigger, chosen: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(trigger)
        self._chosen = chosen

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        return self._chosen(count)


class _StepRunner(TriggerRunner):
    def __init__(self, trigger: Trigger, chosen: Callable[[int], bool]) -> None:
        super().__init__(trigger)
        self._chosen = chosen

    def step(self, step: int) -> bool:
        return self._chosen(step)


class _ManualRunner(TriggerRunner):
    _told = False
    _fired_at: int | None = None

    def step(self, step: int) -> bool:
        if self._told:
            self._told, self._fired_at = False, step
        return step == self._fired_at

    def fire(self) -> None:
        self._told = True


class _WhenRunner(TriggerRunner):
    def __init__(self, trigger: Trigger, env: ManagerBasedRlEnv) -> None:
        super().__init__(trigger)
        assert trigger.predicate is not None
        self._predicate, self._env = trigger.predicate, env
        self._before: bool | torch.Tensor = False  # at the previous step
        self._latest: bool | torch.Tensor = False
        self._asked: int | None = None

    def step(self, step: int) -> bool | torch.Tensor:
        now = self._predicate(self._env)
        if isinstance(now, torch.Tensor):
            # A copy, because the function may reuse the buffer that it returns.
            now = self._checked(now).expand(self._env.num_envs).clone()
        elif not isinstance(now, bool):
            raise TypeError(self._complaint(f"a {type(now).__name__}"))
        if step != self._asked:
            self._asked, self._before = step, self._latest
        before, self._latest = self._before, now
        if isinstance(now, bool) and isinstance(before, bool):
            return now and not before
        return torch.logical_not(torch.as_tensor(before, device=self._env.device)) & now

    def _checked(self, now: torch.Tensor) -> torch.Tensor:
        if now.dtype != torch.bool or now.shape not in ((), (self._env.num_envs,)):
            raise TypeError(self._complaint(f"a {now.dtype} tensor of shape {tuple(now.shape)}"))
        return now

    def _complaint(self, got: str) -> str:
        return (
            f"The condition of {self.trigger} returned {got}, expected a bool or a torch.bool"
            f" tensor of shape ({self._env.num_envs},)."
        )


def _one_of(numbers: Any, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Create a test of whether counters are among some numbers."""
    # Copied to the device once: a copy in each call would wait for the device.
    known = torch.tensor(sorted(numbers), dtype=torch.long, device=device)

    def test(count: torch.Tensor) -> torch.Tensor:
        place = torch.searchsorted(known, count.long()).clamp_(max=len(known) - 1)
        return known[place] == count

    return test


def _checked_numbers(kind: str, numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, (tuple, list)) or not numbers:
        raise ValueError(f"{kind} needs at least one number, got {numbers!r}.")
    for number in numbers:
        _check_whole(kind, "each number", number, least=0)
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ValueError(f"{kind}: given more than once: {twice}.")
    return tuple(numbers)


def _check_whole(kind: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{kind}: {name} must be a whole number of at least {least}, got {value!r}."
        )


def _from_call(text: str) -> dict[str, Any]:
    """Parse ``kind`` or ``kind(argument, ...)``."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a trigger. Write, for example, 'every_n_episodes(10)'.")
    kind, words = match[1], (match[2] or "").strip()
    takes = _KINDS.get(kind, ())
    if not words or kind not in _KINDS:
        return {"kind": kind}
    if not takes:
        raise ValueError(f"The trigger {kind} takes no arguments, got {words!r}.")
    if kind == "when":
        return {"kind": kind, "predicate": words.strip("'\"")}
    try:
        values = ast.literal_eval(f"({words},)")
    except (ValueError, SyntaxError):
        raise ValueError(f"{text!r}: the arguments must be whole numbers.") from None
    if takes == ("n",) and len(values) != 1:
        raise ValueError(f"The trigger {kind} takes one number, got {words!r}.")
    return {"kind": kind, takes[0]: values[0] if takes == ("n",) else values}
