"""Randomizations of geoms and contact pairs that change more than one field or axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import mujoco
import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, resolve_env_ids
from mjlab_rec.envs.mdp.dr._core import Ranges, model_ids, randomize_model_field
from mjlab_rec.envs.mdp.dr._types import Distribution, Operation
from mjlab_rec.envs.mdp.dr.fields import geom_friction as geom_friction
from mjlab_rec.envs.mdp.dr.fields import geom_pos as geom_pos
from mjlab_rec.envs.mdp.dr.fields import geom_quat as geom_quat
from mjlab_rec.envs.mdp.dr.fields import geom_rgba as geom_rgba
from mjlab_rec.envs.mdp.dr.material import geom_matid as geom_matid
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

_Geom = mujoco.mjtGeom
_Size = torch.Tensor  # (..., 3), one of MuJoCo's geom sizes
# Half extents of the box around a primitive, and radius of the sphere around it.
_EXTENTS: dict[int, Callable[[_Size], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {
    _Geom.mjGEOM_SPHERE: lambda s: (s[..., 0], s[..., 0], s[..., 0]),
    _Geom.mjGEOM_CAPSULE: lambda s: (s[..., 0], s[..., 0], s[..., 0] + s[..., 1]),
    _Geom.mjGEOM_CYLINDER: lambda s: (s[..., 0], s[..., 0], s[..., 1]),
    _Geom.mjGEOM_ELLIPSOID: lambda s: (s[..., 0], s[..., 1], s[..., 2]),
    _Geom.mjGEOM_BOX: lambda s: (s[..., 0], s[..., 1], s[..., 2]),
}
_RADIUS: dict[int, Callable[[_Size], torch.Tensor]] = {
    _Geom.mjGEOM_SPHERE: lambda s: s[..., 0],
    _Geom.mjGEOM_CAPSULE: lambda s: s[..., 0] + s[..., 1],
    _Geom.mjGEOM_CYLINDER: lambda s: torch.linalg.vector_norm(s[..., :2], dim=-1),
    _Geom.mjGEOM_ELLIPSOID: lambda s: s.amax(dim=-1),
    _Geom.mjGEOM_BOX: lambda s: torch.linalg.vector_norm(s, dim=-1),
}


@requires_model_fields("geom_size", "geom_rbound", "geom_aabb")
def geom_size(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    ranges: Ranges,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    distribution: Distribution | str = "uniform",
    operation: Operation | str = "scale",
    axes: list[int] | None = None,
    shared_random: bool = False,
) -> None:
    """Randomize sizes of primitive geoms, and update the bounds that collision detection uses.

    Use it at startup: it reads values back from the device. Masses do not change.
    """
    env_ids = resolve_env_ids(env, env_ids)
    ids = model_ids(env, asset_cfg, "geom")
    by_type: dict[int, list[int]] = {}
    for geom in ids.tolist():
        by_type.setdefault(int(env.sim.mj_model.geom_type[geom]), []).append(geom)
    unsupported = [_Geom(kind).name for kind in by_type if kind not in _EXTENTS]
    if unsupported:
        raise ValueError(
            f"geom_size randomizes {', '.join(_Geom(kind).name for kind in _EXTENTS)}, but"
            f" '{asset_cfg.name}' selects {unsupported}. Exclude them with geom_names."
        )
    randomize_model_field(
        env,
        env_ids,
        "geom_size",
        along="geom",
        ranges=ranges,
        distribution=distribution,
        operation=operation,
        asset_cfg=asset_cfg,
        axes=axes,
        shared_random=shared_random,
    )
    model = env.sim.model
    for kind, geoms in by_type.items():
        cells = (env_ids[:, None], torch.tensor(geoms, device=env.device))
        size = model.geom_size[cells]
        model.geom_rbound[cells] = _RADIUS[kind](size)
        # The last three of the six numbers; the first are the centre, zero for primitives.
        half = torch.stack(_EXTENTS[kind](size), dim=-1)
        model.geom_aabb.view(*model.geom_aabb.shape[:2], 6)[..., 3:][cells] = half


@requires_model_fields("pair_friction")
def pair_friction(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    ranges: Ranges,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    distribution: Distribution | str = "uniform",
    operation: Operation | str = "abs",
    axes: list[int] | None = None,
    shared_random: bool = False,
    isotropic: bool = False,
) -> None:
    """Randomize friction of contact pairs: slide 1 (default), slide 2, spin, roll 1, roll 2.

    ``isotropic`` gives slide 2 the value of slide 1, and roll 2 that of roll 1 if either of the
    two is randomized.
    """
    randomize_model_field(
        env,
        env_ids,
        "pair_friction",
        along="pair",
        ranges=ranges,
        distribution=distribution,
        operation=operation,
        asset_cfg=asset_cfg,
        axes=axes,
        default_axes=(0,),
        shared_random=shared_random,
    )
    if not isotropic:
        return
    friction = env.sim.model.pair_friction
    cells = (resolve_env_ids(env, env_ids)[:, None], model_ids(env, asset_cfg, "pair"))
    friction[*cells, 1] = friction[*cells, 0]
    if not {3, 4}.isdisjoint(axes if axes is not None else _axes_of(ranges)):
        friction[*cells, 4] = friction[*cells, 3]


def _axes_of(ranges: Ranges) -> set[int]:
    """Return the axes that ranges name, including those nested in ranges by name."""
    if not isinstance(ranges, Mapping):
        return set()
    named = {key for key in ranges if isinstance(key, int)}
    return named.union(*(_axes_of(inner) for inner in ranges.values()))
