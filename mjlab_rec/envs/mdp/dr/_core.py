"""The mechanism behind all randomizations of model fields.

    new value = operation(base value, value drawn from the distribution over the range)

for the chosen environments, parts of the entity and axes of the field only. ``field_randomizer``
makes a named event function from a field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch

from mjlab_rec.envs.mdp._common import (
    DEFAULT_ASSET_CFG,
    bounds,
    resolve_env_ids,
    selected_names,
)
from mjlab_rec.envs.mdp.dr._types import (
    Distribution,
    Operation,
    draw,
    resolve_distribution,
    resolve_operation,
)
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.scene_entity_config import Kind, SceneEntityCfg, as_index
from mjlab_rec.sim import RecomputeLevel
from mjlab_rec.utils.math import quat_from_euler_xyz, quat_mul
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

Range = tuple[float, float]
Ranges = Range | dict[int, Range] | dict[str, Range]
Axis = Kind | Literal["dof", "qpos"]

# For what a model field counts along its first axis: the kind of part it belongs to, and the tensor
# of EntityIndexing that maps the entity's parts to the model's.
_AXES: dict[Axis, tuple[Kind, str]] = {
    "joint": ("joint", "joint_ids"),
    "dof": ("joint", "joint_v_adr"),
    "qpos": ("joint", "joint_q_adr"),
    "body": ("body", "body_ids"),
    "geom": ("geom", "geom_ids"),
    "site": ("site", "site_ids"),
    "actuator": ("actuator", "ctrl_ids"),
    "tendon": ("tendon", "tendon_ids"),
    "camera": ("camera", "cam_ids"),
    "light": ("light", "light_ids"),
    "material": ("material", "mat_ids"),
    "texture": ("texture", "tex_ids"),
    "pair": ("pair", "pair_ids"),
}


def model_ids(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg, along: Axis) -> torch.Tensor:
    """Indices, in the model's field, of the selected parts of an entity."""
    kind, table = _AXES[along]
    indexing = env.scene[asset_cfg.name].indexing
    return getattr(indexing, table)[asset_cfg.index(kind, env.scene)]


def default_values(
    env: ManagerBasedRlEnv, field: str, ids: torch.Tensor, env_ids: torch.Tensor
) -> torch.Tensor:
    """Values of the model as compiled, or of each world's variant: (envs, ids, ...), read-only."""
    values = env.sim.get_default_field(field)
    if field in env.sim.per_world_default_fields:
        return values[env_ids[:, None], ids]
    return values[ids].expand(len(env_ids), *values[ids].shape)


def randomize_model_field(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    field: str,
    *,
    along: Axis,
    ranges: Ranges,
    distribution: Distribution | str = "uniform",
    operation: Operation | str = "abs",
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    axes: Sequence[int] | None = None,
    default_axes: Sequence[int] | None = None,
    shared_random: bool = False,
) -> None:
    """Randomize a field of the model in some environments.

    Args:
        env: The environment.
        env_ids: Environments; None for all.
        field: Name in ``env.sim.model``, expanded per world.
        along: What the field's first axis counts.
        ranges: (low, high); or one range per axis; or one range per name or regex of the parts.
        distribution: "uniform", "log_uniform", "gaussian" (then a range is mean and std), or yours.
        operation: "abs" sets; "scale" and "add" start from the compiled model; or yours.
        asset_cfg: Entity and parts.
        axes: Components to randomize. None: those of ``ranges``, else ``default_axes``, else all.
        default_axes: See axes.
        shared_random: Draw once per environment and give all parts the same.
    """
    op, dist = resolve_operation(operation), resolve_distribution(distribution)
    env_ids = resolve_env_ids(env, env_ids)
    model_field = getattr(env.sim.model, field)
    components = model_field.shape[2] if model_field.ndim > 2 else None
    for ids, part_ranges in _by_part(env, field, asset_cfg, along, ranges):
        by_axis = _by_axis(field, part_ranges, axes, default_axes, components)
        _check_positive(field, dist, by_axis)
        cells = (env_ids[:, None], ids)
        if op.uses_defaults:
            base = default_values(env, field, ids, env_ids)
        else:
            base = model_field[cells]
        shape = (len(env_ids), 1 if shared_random else len(ids), len(by_axis))
        drawn = draw(env, dist, *bounds(list(by_axis.values()), env.device), shape, env_ids)
        values = op.initialize(base)
        if components is None:
            values[:] = drawn[..., 0]
            model_field[cells] = op.combine(base, values)
            continue
        for k, axis in enumerate(by_axis):
            values[..., axis] = drawn[..., k]
        new = op.combine(base, values)
        # Other axes keep the values that earlier events set.
        for axis in by_axis:
            model_field[*cells, axis] = new[..., axis]


def _by_part(
    env: ManagerBasedRlEnv, field: str, asset_cfg: SceneEntityCfg, along: Axis, ranges: Ranges
) -> Iterator[tuple[torch.Tensor, Range | dict[int, Range]]]:
    """Split ranges given by name into (model indices, ranges of these parts)."""
    ids = model_ids(env, asset_cfg, along)
    if not (isinstance(ranges, Mapping) and any(isinstance(key, str) for key in ranges)):
        yield ids, ranges  # type: ignore[misc]
        return
    kind = _AXES[along][0]
    names = selected_names(env.scene[asset_cfg.name], asset_cfg, kind)
    for pattern, part_ranges in ranges.items():
        try:
            index = _matching(str(pattern), names, str(env.device))
        except ValueError as error:
            raise ValueError(f"ranges of {field}, {kind}s of '{asset_cfg.name}': {error}") from None
        yield ids[index], part_ranges  # type: ignore[misc]


@lru_cache(maxsize=1024)
def _matching(pattern: str, names: tuple[str, ...], device: str) -> slice | torch.Tensor:
    """Return the indices of matching names, cached so that repeated events make no tensors."""
    found = [i for i, name in enumerate(names) if re.fullmatch(pattern, name)]
    if not found:
        raise ValueError(f"no name matches '{pattern}'. {nearest(pattern, names)}")
    with torch.inference_mode(False):
        return as_index(found, device)


def _by_axis(
    field: str,
    ranges: Range | dict[int, Range],
    axes: Sequence[int] | None,
    default_axes: Sequence[int] | None,
    components: int | None,
) -> dict[int, Range]:
    """Map each axis to randomize to its range. Fields without components have only axis 0."""
    possible = range(components or 1)
    if axes is None:
        axes = list(ranges) if isinstance(ranges, Mapping) else default_axes or possible
    wrong = [axis for axis in axes if axis not in possible]
    if wrong:
        raise ValueError(f"{field} has no axes {wrong}, only {list(possible)}.")
    if not isinstance(ranges, Mapping):
        return dict.fromkeys(axes, ranges)
    missing = [axis for axis in axes if axis not in ranges]
    if missing:
        raise ValueError(f"ranges of {field} lack the axes {missing}; they have {list(ranges)}.")
    return {axis: ranges[axis] for axis in axes}


def _check_positive(field: str, dist: Distribution, by_axis: Mapping[int, Range]) -> None:
    if dist.name == "log_uniform" and any(low <= 0 or high <= 0 for low, high in by_axis.values()):
        raise ValueError(
            f"{field}: log_uniform needs positive bounds, got {list(by_axis.values())}. Raise the"
            " lower bound, or use 'uniform'."
        )


def draw_angle(
    env: ManagerBasedRlEnv,
    distribution: Distribution | str,
    range_: Range,
    shape: tuple[int, ...],
    env_ids: torch.Tensor,
) -> torch.Tensor:
    """Draw values from one range; (0, 0) means exactly zero in every distribution."""
    if tuple(range_) == (0.0, 0.0):
        return torch.zeros(shape, device=env.device)
    return draw(env, distribution, *bounds([range_], env.device), shape, env_ids)


def field_randomizer(
    name: str,
    field: str,
    along: Axis,
    doc: str,
    *,
    operation: Operation | str = "abs",
    axes: Sequence[int] | None = None,
    recompute: RecomputeLevel = RecomputeLevel.none,
) -> Callable[..., None]:
    """Make the event that randomizes one model field; these are the defaults of its parameters."""
    default_operation, default_axes = operation, axes

    @requires_model_fields(field, recompute=recompute)
    def randomize(
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | None,
        ranges: Ranges,
        asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
        distribution: Distribution | str = "uniform",
        operation: Operation | str = default_operation,
        axes: list[int] | None = None,
        shared_random: bool = False,
    ) -> None:
        randomize_model_field(
            env,
            env_ids,
            field,
            along=along,
            ranges=ranges,
            distribution=distribution,
            operation=operation,
            asset_cfg=asset_cfg,
            axes=axes,
            default_axes=default_axes,
            shared_random=shared_random,
        )

    return _named(randomize, name, doc)


def quat_randomizer(
    name: str,
    field: str,
    along: Axis,
    doc: str,
    *,
    recompute: RecomputeLevel = RecomputeLevel.none,
) -> Callable[..., None]:
    """Make the event that rotates the default orientations of a field by random angles."""

    @requires_model_fields(field, recompute=recompute)
    def randomize(
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | None,
        roll_range: tuple[float, float] = (0.0, 0.0),
        pitch_range: tuple[float, float] = (0.0, 0.0),
        yaw_range: tuple[float, float] = (0.0, 0.0),
        distribution: Distribution | str = "uniform",
        asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    ) -> None:
        env_ids = resolve_env_ids(env, env_ids)
        ids = model_ids(env, asset_cfg, along)
        shape = (len(env_ids), len(ids))
        turn = quat_from_euler_xyz(
            *(
                draw_angle(env, distribution, angle_range, shape, env_ids)
                for angle_range in (roll_range, pitch_range, yaw_range)
            )
        )
        quat = default_values(env, field, ids, env_ids)
        getattr(env.sim.model, field)[env_ids[:, None], ids] = quat_mul(turn, quat)

    return _named(randomize, name, doc)


def _named(func: Any, name: str, doc: str) -> Any:
    """Name a generated function after the variable of the table that holds it, so it can pickle."""
    func.__name__ = func.__qualname__ = name
    func.__doc__ = doc
    func.__module__ = "mjlab_rec.envs.mdp.dr.fields"
    return func
