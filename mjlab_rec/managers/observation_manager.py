"""Observation manager: what the policy sees."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBaseCfg,
    find_term,
    resettable,
)
from mjlab_rec.managers.observation_tail import GroupTail
from mjlab_rec.utils.buffers import CircularBuffer, DelayBuffer
from mjlab_rec.utils.noise import NoiseCfg, NoiseModel, NoiseModelCfg
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

Observations = dict[str, torch.Tensor | dict[str, torch.Tensor]]
Shape = tuple[int, ...]

_NAN_POLICIES = ("disabled", "warn", "sanitize", "error")


@dataclass
class ObservationTermCfg(ManagerTermBaseCfg):
    """One part of an observation: computed, then noise, clip, scale, delay and history in turn."""

    noise: NoiseCfg | NoiseModelCfg | None = None
    """Noise to add, if the group enables corruption."""

    clip: tuple[float, float] | None = None
    """Lowest and highest value."""

    scale: tuple[float, ...] | float | torch.Tensor | None = None
    """Factor: one for all elements, or one for each."""

    delay_min_lag: int = 0
    """Shortest delay in steps."""

    delay_max_lag: int = 0
    """Longest delay in steps; 0 means no delay. Lags are drawn between the two, both included."""

    delay_per_env: bool = True
    """Draw a lag for each environment rather than one for all."""

    delay_hold_prob: float = 0.0
    """Probability of keeping the last lag instead of drawing a new one."""

    delay_update_period: int = 0
    """Steps between draws of the lag; 0 draws at every step."""

    delay_per_env_phase: bool = True
    """Spread the draws of different environments over the period."""

    history_length: int = 0
    """How many past values to stack, newest last; 0 means just the current one."""

    flatten_history_dim: bool = True
    """Flatten the stacked values into one axis, term by term."""


@dataclass
class ObservationGroupCfg:
    """Terms that are observed together, such as everything the actor sees."""

    terms: dict[str, ObservationTermCfg]
    """The terms by name; None switches a term off."""

    concatenate_terms: bool = True
    """Return one tensor instead of a dict of tensors."""

    concatenate_dim: int = -1
    """Axis of a single environment's terms to concatenate along."""

    enable_corruption: bool = False
    """Apply the terms' noise."""

    history_length: int | None = None
    """If given, overrides the history length of every term."""

    flatten_history_dim: bool = True
    """Overrides ``flatten_history_dim`` of every term, if ``history_length`` is given."""

    nan_policy: Literal["disabled", "warn", "sanitize", "error"] = "disabled"
    """What to do with NaN and infinities: nothing, set them to zero with or without a warning, or
    raise. All but "disabled" and "sanitize" make the step wait for a GPU."""

    nan_check_per_term: bool = True
    """Check each term before delay and history, and name it, rather than checking the group."""


class _Term:
    """An observation term ready to run."""

    def __init__(self, name: str, cfg: ObservationTermCfg, env: ManagerBasedRlEnv) -> None:
        self.name = name
        self.cfg = cfg
        self.noise: Callable[..., torch.Tensor] | None = None
        self.noise_model: NoiseModel | None = None
        if isinstance(cfg.noise, NoiseModelCfg):
            model = cfg.noise.class_type(cfg.noise, num_envs=env.num_envs, device=env.device)
            self.noise_model = model
            self.noise = _with_optional_argument(model.__call__)
            self.reset_noise = _with_optional_argument(model.reset)
        elif cfg.noise is not None:
            self.noise = _with_optional_argument(cfg.noise.apply)
        self.scale: torch.Tensor | None = None
        if cfg.scale is not None:
            self.scale = torch.as_tensor(cfg.scale, dtype=torch.float, device=env.device).clone()
        self.delay: DelayBuffer | None = None
        if cfg.delay_max_lag > 0:
            self.delay = DelayBuffer(
                min_lag=cfg.delay_min_lag,
                max_lag=cfg.delay_max_lag,
                batch_size=env.num_envs,
                device=env.device,
                per_env=cfg.delay_per_env,
                hold_prob=cfg.delay_hold_prob,
                update_period=cfg.delay_update_period,
                per_env_phase=cfg.delay_per_env_phase,
                generator=env.rng.observation,
            )
        self.history: CircularBuffer | None = None
        if cfg.history_length > 0:
            self.history = CircularBuffer(cfg.history_length, env.num_envs, env.device)

    def buffers(self) -> list[CircularBuffer | DelayBuffer]:
        """The buffers that hold earlier observations."""
        return [buffer for buffer in (self.delay, self.history) if buffer is not None]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of one environment's observation, given the function's."""
        length = self.cfg.history_length
        if length == 0:
            return shape
        if not self.cfg.flatten_history_dim:
            return (length, *shape)
        return (length * torch.Size(shape).numel(),)


class _Group:
    """An observation group ready to run."""

    def __init__(
        self,
        cfg: ObservationGroupCfg,
        terms: list[_Term],
        shapes: list[Shape],
        tail: GroupTail | None,
    ) -> None:
        self.cfg = cfg
        self.terms = terms
        self.shapes = shapes
        self.tail = tail  # If given, it does what follows on the terms' functions.
        # The config counts the axes of one environment; in tensors the environments come first.
        self.dim = cfg.concatenate_dim + (cfg.concatenate_dim >= 0)

    def shape(self) -> Shape:
        """Shape of one environment's concatenated observation."""
        # Not on the meta device: its first use imports half of PyTorch, which takes seconds.
        parts = [torch.empty(1, *shape) for shape in self.shapes]
        return tuple(torch.cat(parts, dim=self.dim).shape[1:])


class ObservationManager(ManagerBase):
    """Computes all groups, each a new tensor (or dict of tensors) every step.

    A function that several terms share with equal parameters is called once per step.
    """

    def __init__(self, cfg: dict[str, ObservationGroupCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        self._obs: Observations | None = None
        self._nobody = torch.zeros(0, dtype=torch.long, device=env.device)
        self._stale: list[torch.Tensor | slice] = []  # Environments reset since that observation.
        super().__init__(env)

    def __str__(self) -> str:
        tables = []
        for name, group in self._groups.items():
            rows = [
                (i, term.name, shape)
                for i, (term, shape) in enumerate(zip(group.terms, group.shapes, strict=True))
            ]
            total = f" (shape: {group.shape()})" if group.cfg.concatenate_terms else ""
            title = f"Observation terms of group '{name}'{total}"
            tables.append(format_table(title, ("Index", "Name", "Shape"), rows))
        return "\n".join(tables)

    @property
    def active_terms(self) -> dict[str, list[str]]:
        """Names of the terms, by group."""
        return {name: [t.name for t in group.terms] for name, group in self._groups.items()}

    @property
    def group_obs_term_dim(self) -> dict[str, list[Shape]]:
        """Shape of each term for one environment, by group."""
        return {name: list(group.shapes) for name, group in self._groups.items()}

    @property
    def group_obs_dim(self) -> dict[str, Shape | list[Shape]]:
        """Shape of each group for one environment; a list if its terms are not concatenated."""
        return {
            name: group.shape() if group.cfg.concatenate_terms else list(group.shapes)
            for name, group in self._groups.items()
        }

    @property
    def group_obs_concatenate(self) -> dict[str, bool]:
        """Whether each group is one tensor."""
        return {name: group.cfg.concatenate_terms for name, group in self._groups.items()}

    def get_term_cfg(self, group_name: str, term_name: str) -> ObservationTermCfg:
        """The live config of a term."""
        group = find_term("observation group", group_name, self._groups)
        return find_term("observation", term_name, {t.name: t for t in group.terms}).cfg

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, Any]:
        """Clear the history of these environments; their next observation starts from scratch."""
        self._stale.append(slice(None) if env_ids is None else env_ids)
        for reset in self._resets:
            reset(env_ids=env_ids)
        for term in self._all_terms():
            for buffer in term.buffers():
                buffer.reset(env_ids)
            if term.noise_model is not None:
                term.reset_noise(env_ids, self._env.rng)
        return {}

    def compute(
        self, update_history: bool = False, env_ids: torch.Tensor | None = None
    ) -> Observations:
        """Compute the observations.

        Without ``update_history`` this returns the last observation, if there is one, with that of
        environments that were reset since then replaced; no delay or history advances, and a
        history that has no frame since the reset is zero. With
        ``env_ids`` (after a reset of some environments) only theirs is new: the others keep their
        last observation, and their delays and histories do not advance.
        """
        last = self._obs
        if last is None or (update_history and env_ids is None):
            self._obs = self._compute(None)
            self._stale = []
        elif update_history:
            assert env_ids is not None
            self._obs = _replace_rows(last, self._compute(env_ids), env_ids)
            self._refreshed(env_ids)
        elif self._stale:
            rows = self._stale_mask().nonzero().flatten()
            with self._unchanged(self._all_terms()):
                self._obs = _replace_rows(last, self._compute(rows, to_history=False), rows)
            self._stale = []
        assert self._obs is not None
        return self._obs

    def compute_group(
        self, group_name: str, update_history: bool = False, env_ids: torch.Tensor | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Recompute one group, without changing what ``compute`` returns.

        Args:
            group_name: The group.
            update_history: Advance the group's delays and histories. Otherwise they give what
                they gave last; after a reset, a delay gives the first frame, and a history zero.
            env_ids: Environments whose delays and histories advance; None for all.
        """
        group = find_term("observation group", group_name, self._groups)
        self._env.rng.restart_observation()
        if update_history:
            return self._compute_group(group_name, group, {}, env_ids)
        rows = None if self._obs is None else self._stale_mask().nonzero().flatten()
        with self._unchanged(group.terms):
            return self._compute_group(group_name, group, {}, rows, to_history=rows is None)

    def preview(self) -> Observations:
        """Compute the observations, but leave delays, histories and random numbers as they were.

        The result is what ``compute`` would return now, used for the last observation of an
        episode. Terms are called once more for it, so a class term must not count its calls.
        """
        with self._unchanged(self._all_terms()):
            return self._compute(None)

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Each term of each group for one environment, flattened."""
        values = []
        obs = self.compute()
        for group_name, group in self._groups.items():
            data = obs[group_name]
            if isinstance(data, torch.Tensor):
                axis = group.dim if group.dim < 0 else group.dim - 1
                sizes = [shape[axis] for shape in group.shapes]
                parts = data[env_idx].split(sizes, dim=axis)
            else:
                parts = [data[term.name][env_idx] for term in group.terms]
            for term, part in zip(group.terms, parts, strict=True):
                values.append((f"{group_name}-{term.name}", part.flatten().tolist()))
        return values

    def _compute(self, env_ids: torch.Tensor | None, to_history: bool = True) -> Observations:
        # Noise is a function of (seed, step): a second call in the same step draws the same.
        self._env.rng.restart_observation()
        raw: dict[int, torch.Tensor] = {}
        return {
            name: self._compute_group(name, group, raw, env_ids, to_history)
            for name, group in self._groups.items()
        }

    def _compute_group(
        self,
        name: str,
        group: _Group,
        raw: dict[int, torch.Tensor],
        env_ids: torch.Tensor | None,
        to_history: bool = True,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        policy, per_term = group.cfg.nan_policy, group.cfg.nan_check_per_term
        if group.tail is not None:
            values = [self._value_of(call, raw) for call in self._calls_of[name]]
            obs = torch.cat(values, dim=-1)
            obs = group.tail.apply(obs, self._env.rng.observation)
            return obs if policy == "disabled" else _handle_nans(obs, policy, name)
        parts = []
        for term, call in zip(group.terms, self._calls_of[name], strict=True):
            obs = self._value_of(call, raw)
            if term.noise is not None:
                obs = term.noise(obs, self._env.rng.observation)
            if term.cfg.clip is not None:
                obs = obs.clamp(*term.cfg.clip)
            if term.scale is not None:
                obs = obs * term.scale
            if policy != "disabled" and per_term:
                obs = _handle_nans(obs, policy, f"{name}/{term.name}")
            if term.delay is not None:
                term.delay.append(obs, env_ids)
                obs = term.delay.compute(env_ids)
            if term.history is not None:
                term.history.append(obs, env_ids if to_history else self._nobody)
                obs = term.history.window  # A view, which is copied below in either case.
                if term.cfg.flatten_history_dim:
                    obs = obs.flatten(start_dim=1)
            parts.append(obs)
        if policy != "disabled" and not per_term:
            parts = [_handle_nans(part, policy, name) for part in parts]
        if group.cfg.concatenate_terms:
            return torch.cat(parts, dim=group.dim)
        # Concatenating copies; here the terms may still be views of the simulation.
        return {term.name: part.clone() for term, part in zip(group.terms, parts, strict=True)}

    @contextmanager
    def _unchanged(self, terms: Sequence[_Term]) -> Iterator[None]:
        """Put delays, histories, biases and random numbers back at the end of a block."""
        with ExitStack() as stack:
            stack.enter_context(self._env.rng.rewound())
            for term in terms:
                if (model := getattr(term.noise_model, "rollback", None)) is not None:
                    stack.enter_context(model())
                for buffer in term.buffers():
                    stack.enter_context(buffer.rollback())
            yield

    def _stale_mask(self) -> torch.Tensor:
        """Which environments were reset since the last observation. Shape (num_envs,)."""
        mask = torch.zeros(self._env.num_envs, dtype=torch.bool, device=self._env.device)
        for rows in self._stale:
            mask[rows] = True
        return mask

    def _refreshed(self, env_ids: torch.Tensor) -> None:
        """These environments have a new observation."""
        self._stale = [rows for rows in self._stale if rows is not env_ids]
        if self._stale:
            mask = self._stale_mask()
            mask[env_ids] = False
            self._stale = [mask]

    def _value_of(self, call: int, raw: dict[int, torch.Tensor]) -> torch.Tensor:
        """The value of a call, which is made once for all terms that share it."""
        value = raw.get(call)
        if value is None:
            value = raw[call] = self._evaluate(call)
        return value

    def _evaluate(self, call: int) -> torch.Tensor:
        func, params, shape, where = self._calls[call]
        value = func(self._env, **params)
        if value.shape != shape:
            raise ValueError(
                f"{where} returned shape {tuple(value.shape)}, but {tuple(shape)} at start-up."
            )
        return value

    def _all_terms(self) -> list[_Term]:
        return [term for group in self._groups.values() for term in group.terms]

    def _prepare_terms(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._resets: list[Callable[..., Any]] = []
        self._calls: list[tuple[Callable[..., torch.Tensor], dict[str, Any], torch.Size, str]] = []
        self._dtypes: list[torch.dtype] = []
        self._calls_of: dict[str, list[int]] = {}
        for group_name, group_cfg in self.cfg.items():
            if group_cfg is None or not any(group_cfg.terms.values()):
                continue
            if group_cfg.nan_policy not in _NAN_POLICIES:
                raise ValueError(
                    f"Observation group '{group_name}': unknown nan_policy"
                    f" '{group_cfg.nan_policy}'. Known: {', '.join(_NAN_POLICIES)}."
                )
            terms, shapes, calls, plain = [], [], [], []
            for name, term_cfg in self._resolve(group_cfg.terms).items():
                if not group_cfg.enable_corruption:
                    term_cfg.noise = None
                if group_cfg.history_length is not None:
                    term_cfg.history_length = group_cfg.history_length
                    term_cfg.flatten_history_dim = group_cfg.flatten_history_dim
                where = f"Observation term '{group_name}/{name}'"
                calls.append(self._add_call(term_cfg, where))
                shape, dtype = tuple(self._calls[calls[-1]][2][1:]), self._dtypes[calls[-1]]
                plain.append(GroupTail.suits(term_cfg, shape, dtype))
                terms.append(_Term(name, term_cfg, self._env))
                shapes.append(terms[-1].output_shape(shape))
                self._resets += resettable({name: term_cfg})
            self._calls_of[group_name] = calls
            tail = None
            per_term = group_cfg.nan_policy != "disabled" and group_cfg.nan_check_per_term
            flat = group_cfg.concatenate_terms and group_cfg.concatenate_dim in (-1, 0)
            if all(plain) and flat and not per_term:
                widths = [shape[0] for shape in shapes]
                tail = GroupTail(terms, widths, self._env.num_envs, self._env.device)
            self._groups[group_name] = _Group(deepcopy(group_cfg), terms, shapes, tail)
            if group_cfg.concatenate_terms:
                self._check_concatenation(group_name)

    def _add_call(self, cfg: ObservationTermCfg, where: str) -> int:
        """Register the term's function call, or find the equal call of an earlier term."""
        for index, (func, params, _, _) in enumerate(self._calls):
            if func is cfg.func and _equal(params, cfg.params):
                return index
        value = cfg.func(self._env, **cfg.params)
        if not isinstance(value, torch.Tensor) or value.shape[:1] != (self._env.num_envs,):
            given = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f"{where} returned {given}, expected a tensor of shape ({self._env.num_envs}, ...):"
                " one row per environment."
            )
        self._calls.append((cfg.func, cfg.params, value.shape, where))
        self._dtypes.append(value.dtype)
        return len(self._calls) - 1

    def _check_concatenation(self, group_name: str) -> None:
        group = self._groups[group_name]
        try:
            group.shape()
        except (RuntimeError, IndexError):
            shapes = {t.name: s for t, s in zip(group.terms, group.shapes, strict=True)}
            raise ValueError(
                f"Observation group '{group_name}': terms of shapes {shapes} cannot be"
                f" concatenated along dimension {group.cfg.concatenate_dim}. Give every term one"
                " row of values per environment, or set concatenate_terms=False."
            ) from None


def _with_optional_argument(method: Callable[..., Any]) -> Callable[..., Any]:
    """Omit the second argument, the source of randomness, for methods that take only one.

    Noise written for mjlab draws from torch's global generator, which is the environment's own
    while the environment runs.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(method).parameters.values()
    if sum(p.kind in kinds for p in parameters) >= 2:
        return method
    return lambda first, _: method(first)


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    try:
        return bool(a == b)
    except (RuntimeError, ValueError):  # Tensors and arrays do not compare to one bool.
        return False


def _replace_rows(old: Observations, new: Observations, env_ids: torch.Tensor) -> Observations:
    """Return the old observations, with some environments' rows taken from the new ones."""

    def merge(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        merged = a.clone()
        merged[env_ids] = b[env_ids]
        return merged

    return map_observations(merge, old, new)


def map_observations(
    func: Callable[..., torch.Tensor], *observations: Observations
) -> Observations:
    """Apply a function to the matching tensors of observations with equal structure."""
    result: Observations = {}
    for name, first in observations[0].items():
        values: list[Any] = [obs[name] for obs in observations]
        if isinstance(first, dict):
            result[name] = {key: func(*(value[key] for value in values)) for key in first}
        else:
            result[name] = func(*values)
    return result


def _handle_nans(obs: torch.Tensor, policy: str, where: str) -> torch.Tensor:
    if policy != "sanitize":
        bad = ~obs.isfinite().flatten(start_dim=1).all(dim=1)
        if not bad.any():
            return obs
        ids = bad.nonzero().flatten().tolist()
        message = f"NaN or infinity in observation '{where}' of environments {ids[:10]}"
        if policy == "error":
            raise ValueError(
                f"{message}. Look for an unstable simulation (a smaller timestep, softer gains), or"
                " set nan_policy to 'sanitize'."
            )
        logger.warning("%s; replaced with zero.", message)
    return torch.nan_to_num(obs, nan=0.0, posinf=0.0, neginf=0.0)
