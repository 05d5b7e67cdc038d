"""When to record: at which episodes of each environment, at which steps, or on a condition.

A ``Trigger`` is plain data, so that cfgs and presets can hold it: ``every_n_episodes(10)`` in
Python, ``"every_n_episodes(10)"`` or ``{kind = "every_n_episodes", n = 10}`` in TOML. ``build``
makes the runner that a recorder asks and that keeps what must be remembered.
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
    """Name of one of the functions below, which make triggers."""

    n: int | None = None
    """For every_n_episodes and every_n_steps: from one to the next."""

    numbers: tuple[int, ...] | None = None
    """For at_episodes and at_steps: which."""

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
        """Whether it picks whole episodes as they begin, or moments at steps."""
        return "episode" if self.kind.endswith("episodes") else "step"

    def build(self, env: ManagerBasedRlEnv) -> TriggerRunner:
        """Make a runner for one recorder of this environment."""
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
    """Answers one recorder's questions, and remembers what it must for that.

    A recorder asks ``episodes`` as episodes begin if ``scope`` is "episode", else ``step`` before
    each control step. Each moment fires once: a condition that stays true does not fire again.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.scope = trigger.scope

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        """Which episodes to record, given how many of that environment came before: (k,) bool.

        Works on the counters' device, without waiting for it.
        """
        return torch.zeros_like(count, dtype=torch.bool)

    def step(self, step: int) -> bool | torch.Tensor:
        """Whether to begin at this step, given how many came before.

        A bool concerns all environments; a tensor (num_envs,) says it for each, on their device.
        It may be asked again about the same step; then the last answer counts.
        """
        return False

    def fire(self) -> None:
        """Make the next ``step`` fire. Only ``manual()`` can be told so."""
        raise RuntimeError(
            f"The trigger {self.trigger} decides by itself. Use manual() to fire by hand."
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
    """Record from steps 0, n, 2n, ... of the environment's step counter."""
    return Trigger(kind="every_n_steps", n=n)


def at_steps(*numbers: int) -> Trigger:
    """Record from these steps of the environment's step counter."""
    return Trigger(kind="at_steps", numbers=numbers)


def when(predicate: Predicate) -> Trigger:
    """Record from when a condition becomes true.

    The function gets the environment and returns a bool, or a bool tensor (num_envs,) to decide for
    each environment. It is asked before every step; that an episode ends is nothing special to it.
    """
    return Trigger(kind="when", predicate=predicate)


def manual() -> Trigger:
    """Record when told to, with the runner's ``fire()``."""
    return Trigger(kind="manual")


def trigger_from(spec: Trigger | Mapping[str, Any] | str) -> Trigger:
    """Read a trigger from data: ``{kind = "at_steps", numbers = [0, 5]}`` or ``"at_steps(0, 5)"``.

    The function of ``when`` is named as ``"package.module:function"``.
    """
    if isinstance(spec, Trigger):
        return spec
    if isinstance(spec, str):
        data = _from_call(spec)
    elif isinstance(spec, Mapping):
        data = dict(spec)
    else:
        raise TypeError(f"A trigger is a Trigger, a table or a text, got {spec!r}.")
    known = ["kind", "n", "numbers", "predicate"]
    for key in data:
        if key not in known:
            raise ValueError(f"Unknown key {key!r} of a trigger. {nearest(key, known)}")
    if "kind" not in data:
        raise ValueError(f"A trigger needs a kind. Known: {', '.join(_KINDS)}.")
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
        self._before: bool | torch.Tensor = False  # as it was before the step before
        self._latest: bool | torch.Tensor = False
        self._asked: int | None = None

    def step(self, step: int) -> bool | torch.Tensor:
        now = self._predicate(self._env)
        if isinstance(now, torch.Tensor):
            # A copy, because the function may return a buffer that it writes anew each time.
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
    """A test whether counters are among some numbers."""
    # On the device from the start: copying them at each question would wait for it.
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
        raise ValueError(f"{kind}: {twice} are given more than once.")
    return tuple(numbers)


def _check_whole(kind: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{kind}: {name} must be a whole number from {least} on, got {value!r}.")


def _from_call(text: str) -> dict[str, Any]:
    """Take ``kind`` or ``kind(argument, ...)`` apart."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no trigger. Write for example 'every_n_episodes(10)'.")
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
