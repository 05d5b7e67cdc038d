"""Code that all managers share: term configs, the term resolver and the base classes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)


@dataclass
class ManagerTermBaseCfg:
    """A term: the function to call, and its arguments."""

    func: Any
    """A function ``func(env, **params)``, or a class built once as ``func(cfg=term_cfg, env=env)``
    and then called like that function. A class may define ``reset(env_ids)``."""

    params: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for each call. ``SceneEntityCfg`` values are resolved at start-up."""


class ManagerTermBase:
    """Base class for terms that keep state."""

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        self._env = env

    @property
    def num_envs(self) -> int:
        """Number of parallel environments."""
        return self._env.num_envs

    @property
    def device(self) -> str:
        """Device that all tensors live on."""
        return self._env.device

    @property
    def name(self) -> str:
        """Name of the term's class."""
        return type(self).__name__

    def reset(self, env_ids: torch.Tensor | slice | None) -> Any:
        """Clear the state of these environments; called when their episode ends."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the term's value."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__.")


CfgT = TypeVar("CfgT")


class ManagerBase:
    """Base class of the managers: owns a private copy of its config and its named terms."""

    _funcs: Mapping[str, Any] = {}
    """What the terms call, by name."""

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        self._env = env
        self._prepare_terms()

    @property
    def num_envs(self) -> int:
        """Number of parallel environments."""
        return self._env.num_envs

    @property
    def device(self) -> str:
        """Device that all tensors live on."""
        return self._env.device

    @property
    def active_terms(self) -> list[str] | dict[Any, list[str]]:
        """Names of the terms in use."""
        raise NotImplementedError

    def reset(self, env_ids: torch.Tensor) -> dict[str, Any]:
        """Reset these environments and return what to log about their episodes."""
        return {}

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Current value of each term for one environment, for plots and panels."""
        raise NotImplementedError

    def get_visualizable_terms(self) -> list[tuple[str, Any]]:
        """Names of the terms that can draw something, and the objects whose ``debug_vis`` does."""
        return [(name, term) for name, term in self._funcs.items() if hasattr(term, "debug_vis")]

    def debug_vis(self, visualizer: Any) -> None:
        """Let the terms draw."""
        for _, term in self.get_visualizable_terms():
            term.debug_vis(visualizer)

    def _prepare_terms(self) -> None:
        raise NotImplementedError

    def _resolve(self, cfg: Mapping[str, CfgT | None]) -> dict[str, CfgT]:
        """Resolve private copies of term configs; entries set to None are switched off.

        Each term gets its own copy, so that a config shared by two terms (or two environments)
        neither shares state nor is changed for its owner.
        """
        terms = {name: deepcopy(term_cfg) for name, term_cfg in cfg.items() if term_cfg is not None}
        for name, term_cfg in terms.items():
            self._resolve_common_term_cfg(name, term_cfg)
        funcs = {name: getattr(term_cfg, "func", None) for name, term_cfg in terms.items()}
        self._funcs = {**self._funcs, **funcs}
        return terms

    def _resolve_common_term_cfg(self, term_name: str, term_cfg: Any) -> None:
        """Check a term's parameters, resolve its scene entities and build it if it is a class."""
        where = f"{type(self).__name__} term '{term_name}'"
        if not callable(term_cfg.func):
            raise TypeError(f"{where}: func must be callable, got {term_cfg.func!r}.")
        _check_params(where, term_cfg, call_arguments=self._call_arguments)
        self._resolve_entities(where, term_cfg.params)
        if inspect.isclass(term_cfg.func):
            make = cast("Callable[..., Any]", term_cfg.func)
            term_cfg.func = make(cfg=term_cfg, env=self._env)

    def _resolve_entities(self, where: str, params: dict[str, Any]) -> None:
        """Resolve the scene entities among a term's parameters."""
        for param, value in params.items():
            if isinstance(value, SceneEntityCfg):
                try:
                    value.resolve(self._env.scene)
                except (KeyError, ValueError) as error:
                    message = error.args[0] if error.args else error
                    raise type(error)(f"{where}, parameter '{param}': {message}") from None

    _call_arguments = 1
    """Number of positional arguments that a term gets before its params (the env, ...)."""

    def _check_term_shape(self, name: str, value: torch.Tensor) -> None:
        if value.shape != (self._env.num_envs,):
            raise ValueError(
                f"{type(self).__name__} term '{name}' returned shape {tuple(value.shape)}, expected"
                f" ({self._env.num_envs},): one value per environment."
            )


def resettable(terms: Mapping[str, Any]) -> list[Callable[..., Any]]:
    """Return the ``reset`` methods of the terms that have one."""
    resets = [getattr(term_cfg.func, "reset", None) for term_cfg in terms.values()]
    return [reset for reset in resets if callable(reset)]


def find_term(kind: str, name: str, terms: Mapping[str, CfgT]) -> CfgT:
    """Look up a term by name, or raise an error that lists the names."""
    try:
        return terms[name]
    except KeyError:
        raise KeyError(f"Unknown {kind} term '{name}'. {nearest(name, list(terms))}") from None


def _check_params(where: str, term_cfg: Any, call_arguments: int) -> None:
    """Compare params with the term's signature, and fill in scene entities given as defaults."""
    func = term_cfg.func
    target = func.__call__ if inspect.isclass(func) else func
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return  # Built-in callables have no signature to compare with.
    skip = call_arguments + (1 if inspect.isclass(func) else 0)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters[:skip]):
        return
    named = parameters[skip:]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in named)
    known = {p.name: p for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for param in term_cfg.params:
        if param not in known and not open_ended:
            raise ValueError(
                f"{where}: unknown parameter '{param}' of {_name(func)}."
                f" {nearest(param, list(known))}"
            )
    for name, parameter in known.items():
        if name in term_cfg.params:
            continue
        if parameter.default is parameter.empty:
            raise ValueError(
                f"{where}: {_name(func)} needs the parameter '{name}'; add it to params."
            )
        if isinstance(parameter.default, SceneEntityCfg):
            # An unresolved default would mean all joints, whatever its names.
            if parameter.default.names_something():
                term_cfg.params[name] = deepcopy(parameter.default)


def _name(func: Any) -> str:
    return getattr(func, "__name__", type(func).__name__)
