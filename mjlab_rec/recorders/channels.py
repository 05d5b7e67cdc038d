"""The channels that can be recorded from an environment, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch

from mjlab_rec.data.block_memory import numpy_dtype
from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.recorders.physics_probe import PhysicsProbe
from mjlab_rec.utils.string import nearest

DEFAULT_CHANNELS = ("obs", "action", "reward", "terminated", "truncated", "next_obs")

# Names that stand for everything below them, of which a task may have nothing.
_MAY_BE_NONE = ("command", "reward_terms", "termination_terms")

Observations = dict[str, Any]


@dataclass(kw_only=True)
class Channel:
    """A custom quantity to record."""

    name: str
    """Name in the file; slashes group channels."""

    func: Callable[[Any], torch.Tensor]
    """Called as ``func(env)`` in every recorded step; returns (num_envs, ...). The value is read
    immediately, so it may be a live view."""

    when: Literal["before", "after"] = cast(Any, None)
    """"before" reads it before the action, when the row's observation is new. "after" reads it when
    the action has taken effect, and before a reset: what the step led to, such as rewards, contacts
    and terminations. It must be given."""

    element_names: tuple[str, ...] = ()
    """A name for each element of the flattened value."""

    units: str = ""
    """Unit of measurement."""

    current: bool = False
    """Whether an "after" value must also be current in an episode's last row, which costs a forward
    pass in steps that end episodes. Otherwise what the physics derives from the state, such as
    poses and velocities of bodies and sensors, is one physics step behind there (but for an
    environment with ``fresh_terms``)."""

    def __post_init__(self) -> None:
        if self.when not in ("before", "after"):
            given = "is missing" if self.when is None else f"is {self.when!r}"
            raise ValueError(
                f"Channel '{self.name}': when {given}. when=\"before\" reads the value before the"
                ' action, together with the observation that the policy sees. when="after" reads'
                " what the action led to, before a reset, such as rewards, contacts and"
                " terminations."
            )


@dataclass(kw_only=True)
class Source:
    """A channel bound to an environment."""

    name: str
    read: Callable[[], torch.Tensor]
    when: Literal["before", "after", "next"] = "after"
    elements: tuple[str, ...] = ()
    units: str = ""
    into: Callable[[torch.Tensor], object] | None = None
    """Writes the value into a given tensor, if that saves a copy."""
    exact: bool = False
    """Whether to keep its precision whatever the recorder's dtype."""
    derived: bool = False
    """Whether an "after" value is only correct after the step's forward pass."""
    current: bool = False
    """Whether it needs that pass before a reset, too."""
    of_obs: Callable[[Observations], torch.Tensor] | None = None
    """Returns the value from a dict of observations, if it is an observation."""
    next_of: str = ""
    """Name of the observation of which this is the next one."""
    probe: PhysicsProbe | None = None
    """What must be called around the physics steps, so that the value can be read later."""

    def spec(self, dtype: np.dtype | None, next_of: str = "") -> ChannelSpec:
        """How the channel is stored: floats as `dtype`, unless they must stay exact."""
        value = self.read()
        kind = numpy_dtype(value.dtype)
        if dtype is not None and kind.kind == "f" and not self.exact:
            kind = dtype
        shape = tuple(value.shape[1:])
        size = int(np.prod(shape, dtype=int))
        if self.elements and len(self.elements) != size:
            raise ValueError(
                f"Channel '{self.name}' has {size} elements but {len(self.elements)} element"
                f" names: {', '.join(self.elements)}."
            )
        return ChannelSpec(
            name=self.name,
            dtype=kind,
            shape=shape,
            elements=self.elements,
            when="before" if self.when == "before" else "after",
            units=self.units,
            next_of=next_of,
        )


def resolve_channels(env: Any, names: Sequence[str | Channel]) -> list[Source]:
    """Find channels by name; a name such as "obs" includes everything below it."""
    sources: dict[str, Source] = {}
    for name in names:
        for source in [_custom(env, name)] if isinstance(name, Channel) else _find(env, name):
            if isinstance(name, Channel) and source.name in sources:
                raise ValueError(f"There are two channels named '{source.name}'.")
            sources.setdefault(source.name, source)
    return list(sources.values())


def all_sources(env: Any) -> list[Source]:
    """All that can be recorded of an environment, those of sensors and entities at the end."""
    found = [source for source in _sources(env) if not source.name.startswith("sensor/")]
    found += _sensors(env, "sensor") if env.scene.sensors else []
    for name, entity in env.scene.entities.items():
        for field in _entity_fields(entity):
            value = getattr(entity.data, field, None)
            if isinstance(value, torch.Tensor) and value.shape[:1] == (env.num_envs,):
                found.append(_entity_source(env, f"entity/{name}/{field}"))
    return found


def _custom(env: Any, channel: Channel) -> Source:
    def read() -> torch.Tensor:
        value = channel.func(env)
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"Channel '{channel.name}' returned {type(value).__name__}, expected a torch.Tensor"
                f" of shape ({env.num_envs}, ...) with numbers or flags."
            )
        if value.ndim == 0 or value.shape[0] != env.num_envs:
            raise ValueError(
                f"Channel '{channel.name}' returned shape {tuple(value.shape)}, expected"
                f" ({env.num_envs}, ...): one value per environment."
            )
        return value

    return Source(
        name=channel.name,
        read=read,
        when=channel.when,
        elements=tuple(channel.element_names),
        units=channel.units,
        derived=channel.when == "after",
        current=channel.current,
    )


def _find(env: Any, name: str) -> list[Source]:
    if name.startswith("entity/"):
        return [_entity_source(env, name)]
    if name == "sensor" or name.startswith("sensor/"):
        return _sensors(env, name)
    everything = list(_sources(env))
    found = [s for s in everything if s.name == name or s.name.startswith(name + "/")]
    # "obs/actor" is the whole group; its terms have names of their own.
    exact = [s for s in found if s.name == name]
    if exact:
        return exact
    if name in ("obs", "next_obs"):
        whole = {s.name for s in found if s.name.count("/") == 1}
        found = [s for s in found if s.name in whole or s.name.rpartition("/")[0] not in whole]
    if not found and name in _MAY_BE_NONE:
        return []  # A task may have none; the same list of channels suits many tasks.
    if not found:
        names = [s.name for s in everything]
        # First what stands for several, because a long list is cut.
        tops = [*(n.partition("/")[0] for n in names), *_MAY_BE_NONE]
        known = list(dict.fromkeys([*tops, *_entity_examples(env), *names]))
        raise ValueError(f"Unknown channel '{name}'. {nearest(name, known)}")
    return found


def _sources(env: Any) -> Iterator[Source]:
    """All channels except those of entities, which are too many to list."""
    yield from _observations(env)
    yield from _actions(env)
    yield Source(name="reward", read=lambda: env.reward_buf)
    yield from _reward_terms(env)
    yield Source(name="terminated", read=lambda: env.reset_terminated)
    yield Source(name="truncated", read=lambda: env.reset_time_outs)
    for name in _names(env.termination_manager):
        read = partial(env.termination_manager.get_term, name)
        yield Source(name=f"termination_terms/{name}", read=read)
    for name in _names(env.command_manager):
        read = partial(env.command_manager.get_command, name)
        yield Source(name=f"command/{name}", read=read, when="before")
    if hasattr(env.sim, "get_state"):
        yield Source(
            name="state",
            read=env.sim.get_state,
            into=env.sim.get_state,
            when="before",
            exact=True,
            elements=_state_elements(env.sim),
        )
        yield from _physics(env)
    if hasattr(env.sim, "mj_model"):
        yield Source(
            name="ctrl", read=lambda: env.sim.data.ctrl, elements=_actuator_names(env.sim.mj_model)
        )
    for name in env.scene.sensors:
        # Not read here: once read, a field is kept up to date from then on.
        yield Source(name=f"sensor/{name}", read=lambda: torch.empty(0), when="before")
    yield from getattr(env, "own_sources", list)()


def _physics(env: Any) -> Iterator[Source]:
    """What it takes, in addition to the state, to simulate a step again and compare the result."""
    if not hasattr(env.scene, "constant_between_substeps"):
        return  # Another package's environment, which does not call the hooks.
    probe = PhysicsProbe(env)
    names = _actuator_names(env.sim.mj_model)
    if names:
        count = probe.ctrl.shape[1]
        every = [f"{name}.{i}" for i in range(count) for name in names] if count > 1 else names
        yield Source(
            name="physics/ctrl",
            read=lambda: probe.ctrl,
            elements=tuple(every),
            exact=True,
            probe=probe,
        )
    yield Source(name="physics/check", read=lambda: probe.check, elements=probe.fields, probe=probe)


def _observations(env: Any) -> Iterator[Source]:
    manager = env.observation_manager
    for group, terms in manager.active_terms.items():
        dims = [tuple(d) for d in manager.group_obs_term_dim[group]]
        whole = manager.group_obs_concatenate[group]
        offset = 0
        flat = all(len(d) == 1 for d in dims)
        if whole:
            elements: tuple[str, ...] = ()
            if flat:
                elements = tuple(
                    term if d[0] == 1 else f"{term}.{i}"
                    for term, d in zip(terms, dims, strict=True)
                    for i in range(d[0])
                )
            yield from _obs_pair(env, group, lambda obs, g=group: obs[g], elements)
        for term, dim in zip(terms, dims, strict=True):
            if not whole:
                get: Any = lambda obs, g=group, t=term: obs[g][t]  # noqa: E731
            elif flat:
                get = lambda obs, g=group, a=offset, b=offset + dim[0]: obs[g][:, a:b]  # noqa: E731
                offset += dim[0]
            else:
                continue  # Concatenated terms with several axes: only the group can be recorded.
            yield from _obs_pair(env, f"{group}/{term}", get, ())


def _obs_pair(
    env: Any, path: str, get: Callable[[Observations], torch.Tensor], elements: tuple[str, ...]
) -> Iterator[Source]:
    yield Source(
        name=f"obs/{path}",
        read=lambda: get(env.obs_buf),
        when="before",
        elements=elements,
        of_obs=get,
    )
    yield Source(
        name=f"next_obs/{path}",
        read=lambda: get(env.extras.get("final_obs", env.obs_buf)),
        when="next",
        elements=elements,
        of_obs=get,
        next_of=f"obs/{path}",
    )


def _actions(env: Any) -> Iterator[Source]:
    manager = env.action_manager
    if isinstance(manager.action, Mapping):  # Of parts that have different types.
        for name in manager.action:
            yield Source(name=f"action/{name}", read=lambda name=name: manager.action[name])
        return
    terms = [manager.get_term(name) for name in manager.active_terms]
    elements: list[str] = []
    for name, term, dim in zip(manager.active_terms, terms, manager.action_term_dim, strict=True):
        targets = getattr(term, "target_names", None) or [str(i) for i in range(dim)]
        if len(targets) != dim:
            targets = [str(i) for i in range(dim)]
        elements += [f"{name}.{target}" for target in targets]
    yield Source(name="action", read=lambda: manager.action, elements=tuple(elements))
    if terms:
        yield Source(
            name="processed_action",
            read=lambda: (
                torch.cat([_processed(term) for term in terms], dim=-1)
                if len(terms) > 1
                else _processed(terms[0])
            ),
        )


def _processed(term: Any) -> torch.Tensor:
    """A term's processed action; the raw action if it has none."""
    for name in ("processed_actions", "_processed_actions"):
        if hasattr(term, name):
            return getattr(term, name)
    return term.raw_action


def _reward_terms(env: Any) -> Iterator[Source]:
    manager = env.reward_manager
    scale = env.step_dt if getattr(env.cfg, "scale_rewards_by_dt", True) else 1.0
    for i, name in enumerate(manager.active_terms):
        yield Source(
            name=f"reward_terms/{name}",
            read=lambda i=i: step_reward(manager)[:, i] * scale,
        )


def step_reward(manager: Any) -> torch.Tensor:
    """Rate of each term (num_envs, terms); mjlab's manager has it only under a private name."""
    value = getattr(manager, "step_reward", None)
    return manager._step_reward if value is None else value


def _sensors(env: Any, name: str) -> list[Source]:
    """All sensors with this name, or all fields of a sensor that has several."""
    wanted = name.partition("/")[2]
    found = []
    for key, sensor in env.scene.sensors.items():
        if wanted not in ("", key) and not wanted.startswith(key + "/"):
            continue
        value = sensor.data
        if isinstance(value, torch.Tensor):
            read: Any = lambda s=sensor: s.data  # noqa: E731
            found.append(Source(name=f"sensor/{key}", read=read, when="before"))
        elif is_dataclass(value):
            for item in fields(value):
                if isinstance(getattr(value, item.name), torch.Tensor):
                    read = lambda s=sensor, f=item.name: getattr(s.data, f)  # noqa: E731
                    path = f"sensor/{key}/{item.name}"
                    names = getattr(sensor, "element_names", {}).get(item.name, ())
                    found.append(Source(name=path, read=read, when="before", elements=names))
    chosen = [s for s in found if s.name == name] or [
        s for s in found if s.name.startswith(name + "/") or not wanted
    ]
    if not chosen:
        known = [s.name for s in found] or [f"sensor/{key}" for key in env.scene.sensors]
        raise ValueError(f"Unknown channel '{name}'. {nearest(name, known)}")
    return chosen


def _entity_source(env: Any, name: str) -> Source:
    _, _, rest = name.partition("/")
    # Entity names may contain slashes, field names do not.
    entity_name, _, attribute = rest.rpartition("/")
    entities = env.scene.entities
    if entity_name not in entities:
        known = _entity_examples(env)
        raise ValueError(f"Unknown channel '{name}'. {nearest(name, known)}")
    entity = entities[entity_name]
    known = _entity_fields(entity)
    value = None
    if attribute in known:
        value = getattr(entity.data, attribute, None)
    if not isinstance(value, torch.Tensor) or value.shape[:1] != (env.num_envs,):
        hint = nearest(attribute, known)
        raise ValueError(
            f"Unknown channel '{name}': the data of entity '{entity_name}' has no field"
            f" '{attribute}' that has a value per environment. {hint}"
        )
    return Source(
        name=name,
        read=lambda: getattr(entity.data, attribute),
        when="before",
        elements=_entity_elements(entity, attribute, tuple(value.shape[1:])),
    )


def _entity_fields(entity: Any) -> list[str]:
    data = entity.data
    names = {n for n in dir(type(data)) if not callable(getattr(type(data), n, None))}
    names |= {n for n, v in vars(data).items() if isinstance(v, torch.Tensor)}
    return sorted(n for n in names if not n.startswith("_"))


def _entity_examples(env: Any) -> list[str]:
    return [
        f"entity/{name}/{field}"
        for name, entity in env.scene.entities.items()
        for field in ("joint_pos", "root_link_pos_w")
        if field in _entity_fields(entity)
    ]


def _entity_elements(entity: Any, attribute: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the parts that a field has values for, such as joints."""
    kind = attribute.partition("_")[0]
    parts = getattr(entity, f"{kind}_names", ())
    if not shape or len(parts) != shape[0] or not parts:
        return ()
    rest = [".".join(map(str, index)) for index in np.ndindex(*shape[1:])]
    return tuple(part + (f".{r}" if r else "") for part in parts for r in rest)


def _state_elements(sim: Any) -> tuple[str, ...]:
    return tuple(
        name if columns.stop - columns.start == 1 else f"{name}.{i}"
        for name, columns in sim.state_layout.items()
        for i in range(columns.stop - columns.start)
    )


def _actuator_names(model: Any) -> tuple[str, ...]:
    return tuple(model.actuator(i).name or f"actuator{i}" for i in range(model.nu))


def _names(manager: Any) -> list[str]:
    return list(manager.active_terms)


def needs_final_obs(env: Any, sources: Sequence[Source]) -> bool:
    """Whether the environment must provide final observations; raise if it cannot."""
    needing = [source.name for source in sources if source.when == "next" or source.current]
    if not needing:
        return False
    if not hasattr(env.cfg, "final_obs"):
        raise ValueError(
            f"{type(env).__name__} provides no final observations, so '{needing[0]}' would be wrong"
            " where episodes end. Remove it from the recorder's channels."
        )
    return True


def model_fields_in_flux(env: Any) -> list[str]:
    """Per-world model fields that events change during episodes."""
    return [
        field
        for term in (getattr(env.cfg, "events", None) or {}).values()
        if term is not None and term.mode in ("interval", "step")
        for field in getattr(term.func, "model_fields", ())
    ]


def model_sources(env: Any, fields: Sequence[str]) -> list[Source]:
    """Channels for the model fields that may change at any step."""
    return [
        Source(
            name=f"model/{field}",
            read=lambda f=field: getattr(env.sim.model, f),
            when="before",
            exact=True,
        )
        for field in dict.fromkeys(fields)
    ]
