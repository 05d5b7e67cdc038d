"""What to record, as ``start_recording`` takes it: names, channels, and functions of data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mjlab_rec.recorders.channels import Channel

_EXPECTED = (
    "What to record must be a channel's name, a Channel, a tuple of them, or a function that"
    " returns a tensor or array (num_envs, ...), or a dict of them"
)


def data_channels(data: Any, env: Any) -> tuple[str | Channel, ...]:
    """Return the channels that this data stands for; a function is called once to learn them."""
    items = list(data) if isinstance(data, (list, tuple)) else [data]
    if not items:
        raise ValueError(f"There is nothing to record: got {data!r}.")
    return tuple(channel for item in items for channel in _channels(item, env))


def _channels(item: Any, env: Any) -> list[str | Channel]:
    if isinstance(item, str):
        return [item]
    if isinstance(item, Channel):
        # A cfg is copied deeply, but the object that a method belongs to must not be.
        return [replace(item, func=lambda env, func=item.func: func(env))]
    if not callable(item) or isinstance(item, type):
        if isinstance(item, (torch.Tensor, np.ndarray, Mapping)):
            hint = " Its value now would be recorded again and again; write lambda: ... around it."
        else:
            hint = ""
        raise TypeError(f"{_EXPECTED}, got {type(item).__name__}.{hint}")
    function = _DataFunction(item, env)
    return [
        Channel(name=name, func=lambda env, i=i: function.value(i), when="after", current=True)
        for i, name in enumerate(function.names)
    ]


class _DataFunction:
    """Calls a function once for all channels that it returns, which are read in order."""

    def __init__(self, func: Callable[..., Any], env: Any) -> None:
        self._func, self._env = func, env
        self._arguments = (env,) if _takes_env(func) else ()
        name = getattr(func, "__name__", "data")
        self.name = name if name.isidentifier() else "data"
        values = self._call()
        self.names = list(values)
        """Names of the channels."""
        for channel, value in values.items():
            if value.ndim == 0 or len(value) != env.num_envs:
                raise ValueError(
                    f"'{channel}' has shape {tuple(value.shape)}, expected ({env.num_envs}, ...):"
                    " one value per environment."
                )
        self._values = list(values.values())

    def value(self, index: int) -> torch.Tensor:
        """The value of a channel; for the first one, the function is called again."""
        if index == 0:
            values = self._call()
            if list(values) != self.names:
                raise ValueError(
                    f"The keys of {self.name}'s data have changed: now they are"
                    f" {', '.join(values)}, and when recording began {', '.join(self.names)}."
                )
            self._values = list(values.values())
        return self._values[index]

    def _call(self) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}
        for path, value in _flat(self._func(*self._arguments), ""):
            name = path or self.name
            if name in values:
                raise ValueError(f"{self.name} returned two values named '{name}'.")
            values[name] = self._tensor(name, value)
        if not values:
            raise ValueError(f"{self.name} returned an empty dict: there is nothing to record.")
        return values

    def _tensor(self, name: str, value: Any) -> torch.Tensor:
        if isinstance(value, np.ndarray):
            try:
                return torch.tensor(value, device=self._env.device)
            except TypeError:
                value = value.dtype  # It has no numbers.
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"'{name}' is {type(value).__name__}, expected a torch.Tensor or numpy array of"
                f" shape ({self._env.num_envs}, ...) with numbers or flags."
            )
        return value.detach().to(self._env.device)


def _takes_env(func: Callable[..., Any]) -> bool:
    """Whether a function has a parameter that must be given; raise if there are several."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return False  # A built-in function says nothing about its parameters.
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise TypeError(
            f"A function of data takes no argument, or the environment; {func!r} needs"
            f" {', '.join(p.name for p in needed)}."
        )
    return bool(needed)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values in nested dicts, by their keys joined with "/"."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, item in value.items():
        if not isinstance(key, str) or not key:
            raise TypeError(
                f"The key {key!r} of the data{f' in {path!r}' if path else ''} is no name. Keys"
                " must be strings, and not empty."
            )
        yield from _flat(item, f"{path}/{key}" if path else key)
