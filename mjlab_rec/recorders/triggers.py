"""When to record: at which episodes of each environment, at which steps, or on a condition.

A ``Trigger`` is plain data, so that cfgs and presets can hold it: ``every_n_episodes(10)`` in
Python, ``"every_n_episodes(10)"`` or ``{kind = "every_n_episodes", n = 10}`` in TOML. A function
of the step, the episode or the environment is a trigger too. ``build`` makes the runner, which a
recorder calls and which keeps the state.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mjlab_rec.recorders.trigger_runners import (
    ConditionRunner,
    EpisodeFunctionRunner,
    EpisodeRunner,
    ManualRunner,
    StartRunner,
    StepRunner,
    TriggerRunner,
    one_of,
)
from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

Predicate = Callable[[Any], Any]
"""A condition: a function of the step or the episode that returns a bool, or of the environment,
which may also return a bool per environment."""

# The arguments that each kind takes.
_KINDS: dict[str, tuple[str, ...]] = {
    "every_n_episodes": ("n",),
    "capped_cubic_episodes": (),
    "at_episodes": ("numbers",),
    "every_n_steps": ("n",),
    "at_steps": ("numbers",),
    "when": ("predicate",),
    "at_start": (),
    "manual": (),
}

# What a condition gets, by the name of its parameter.
_PARAMETERS: dict[str, Literal["step", "episode", "env"]] = {
    **dict.fromkeys(("step", "step_id", "steps"), "step"),
    **dict.fromkeys(("episode", "episode_id", "episodes"), "episode"),
    "env": "env",
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
                "The trigger when needs a function of the environment, the step or the episode,"
                f" got {self.predicate!r}."
            )

    def __str__(self) -> str:
        if self.kind == "when":
            return f"when({_name(self.predicate)})"
        given = self.numbers or ([self.n] if self.n is not None else [])
        return f"{self.kind}({', '.join(map(str, given))})"

    @property
    def scope(self) -> Literal["episode", "step"]:
        """Whether it selects whole episodes as they begin, or steps."""
        is_episode = self.kind.endswith("episodes") or self.takes == "episode"
        return "episode" if is_episode else "step"

    @property
    def takes(self) -> Literal["step", "episode", "env"] | None:
        """What the condition gets, which the name of its parameter says; None without one."""
        if self.predicate is None:
            return None
        return _PARAMETERS.get(_parameter(self.predicate) or "", "env")

    def build(self, env: ManagerBasedRlEnv) -> TriggerRunner:
        """Create a runner for one recorder of this environment."""
        n = self.n or 1
        if self.kind == "every_n_episodes":
            return EpisodeRunner(self, lambda count: count % n == 0)
        if self.kind == "at_episodes":
            return EpisodeRunner(self, one_of(self.numbers or (), env.device))
        if self.kind == "capped_cubic_episodes":
            cube = one_of([k**3 for k in range(10)], env.device)
            return EpisodeRunner(self, lambda count: cube(count) | (count % 1000 == 0))
        if self.kind == "every_n_steps":
            return StepRunner(self, lambda step: step % n == 0)
        if self.kind == "at_steps":
            return StepRunner(self, frozenset(self.numbers or ()).__contains__)
        if self.kind == "when":
            if self.takes == "episode":
                return EpisodeFunctionRunner(self, env)
            return ConditionRunner(self, env)
        return StartRunner(self) if self.kind == "at_start" else ManualRunner(self)


TriggerLike = Trigger | Mapping[str, Any] | str | Callable[..., Any]
"""What ``trigger_from`` reads."""


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
    each environment. It is called before every step; the end of an episode changes nothing. If its
    parameter is called ``step``, it gets the environment's step counter instead. If it is called
    ``episode``, it chooses whole episodes of each environment by their number, and is called once
    for each number.
    """
    return Trigger(kind="when", predicate=predicate)


def at_start() -> Trigger:
    """Record from the beginning of each recording, which ``start()`` after a stop begins too."""
    return Trigger(kind="at_start")


def manual() -> Trigger:
    """Start recording when ``fire()`` is called."""
    return Trigger(kind="manual")


def trigger_from(spec: TriggerLike) -> Trigger:
    """Read a trigger from data: ``{kind = "at_steps", numbers = [0, 5]}`` or ``"at_steps(0, 5)"``.

    A function, or "package.module:function", is one too: the name of its parameter says whether it
    gets the step, the episode or env. A function of this module without arguments, such as
    ``manual``, need not be called.
    """
    if isinstance(spec, Trigger):
        return spec
    if isinstance(spec, str) and re.fullmatch(r"\s*[\w.]+:\w+\s*", spec):
        spec = look_up(spec.strip())
    if isinstance(spec, str):
        data = _from_call(spec)
    elif isinstance(spec, Mapping):
        data = dict(spec)
    elif callable(spec):
        return _from_function(spec)
    else:
        raise TypeError(
            f"A trigger must be a Trigger, a function, a table or a string, got {spec!r}."
        )
    known = ["kind", "n", "numbers", "predicate"]
    for key in data:
        if key not in known:
            raise ValueError(f"Unknown key {key!r} of a trigger. {nearest(key, known)}")
    if "kind" not in data:
        raise ValueError(f"A trigger needs a kind. Known kinds: {', '.join(_KINDS)}.")
    if isinstance(data.get("predicate"), str):
        data["predicate"] = look_up(data["predicate"])
    return Trigger(**data)


def _from_function(function: Callable[..., Any]) -> Trigger:
    """Make a trigger of a function that was given without calling it."""
    name = getattr(function, "__name__", "")
    if name in _KINDS and function is globals()[name]:
        if _KINDS[name]:
            raise ValueError(f"The trigger {name} needs {_KINDS[name][0]}: write {name}(...).")
        return function()
    parameter = _parameter(function)
    if parameter not in _PARAMETERS:
        got = "not a single one" if parameter is None else repr(parameter)
        raise ValueError(
            f"The trigger {_name(function)} is a function, so the name of its only parameter must"
            f" say what it gets: step, episode or env; it is {got}. Rename it, or use"
            " every_n_steps(n), at_steps(...), every_n_episodes(n), at_episodes(...) or"
            " capped_cubic_episodes()."
        )
    return when(function)


def _parameter(function: Callable[..., Any]) -> str | None:
    """Name of a function's only parameter without a default; None if that cannot be said."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    all_of_them = [p for p in parameters if p.kind in by_place]
    needed = [p for p in all_of_them if p.default is inspect.Parameter.empty] or all_of_them
    return needed[0].name if len(needed) == 1 else None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


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
