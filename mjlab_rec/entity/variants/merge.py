"""One model with the assets of all variants, and a geom for each slot."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from mjlab_rec.entity.variants.slots import Slots, VariantGeomSpec, geoms_of
from mjlab_rec.entity.variants.topology import MESH, body_paths

# Lists of a spec whose elements refer to bodies, joints or geoms.
_REFERRING = (
    *("actuators", "sensors", "tendons", "equalities", "pairs", "excludes", "keys", "skins"),
    *("flexes", "numerics", "texts", "tuples"),
)


def merge_specs(
    names: Sequence[str], specs: Sequence[mujoco.MjSpec], slots: Slots
) -> mujoco.MjSpec:
    """The first variant's spec, with the other variants' assets and empty slots filled up.

    Meshes, materials and textures are called ``<variant>/<name>``.
    """
    merged = specs[0].copy()
    _prefix_assets(merged, f"{names[0]}/")
    for name, spec in zip(names[1:], specs[1:], strict=True):
        _add_assets(merged, spec, f"{name}/")
    bodies = dict(body_paths(merged.worldbody.bodies[0]))
    geoms = [geom for _, geom in geoms_of(merged)]
    for s, slot in enumerate(slots[0]):
        own = slots[1][0][s]
        if own is not None:
            geoms[own.index].name = slot.template_geom_name
            continue
        variant, model = next(
            (v, column[s]) for v, column in enumerate(slots[1]) if column[s] is not None
        )
        assert model is not None
        _add_geom(bodies[slot.key.body_path], slot.template_geom_name, names[variant], model)
    return merged


def forbid_simple_bodies(merged: mujoco.MjSpec, models: Sequence[mujoco.MjModel]) -> None:
    """Keep MuJoCo from compiling in, for all worlds, that a body is symmetric.

    Its inertia matrix is then stored as a diagonal, which is wrong for variants that are not. The
    masses that this sets are those of no variant; each world gets its own.
    """
    symmetric = np.stack([model.body_simple for model in models])
    for i, body in enumerate(merged.bodies):
        if i == 0 or symmetric[:, i].all():
            continue
        merged.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
        body.explicitinertial = True
        body.fullinertia[:] = (np.nan, 0, 0, 0, 0, 0)
        body.mass = max(models[0].body_mass[i], 1e-3)
        body.ipos[:] = (0.1, 0.2, 0.3)
        body.iquat[:] = (1, 0, 0, 0)
        body.inertia[:] = max(models[0].body_inertia[i].max(), 1e-6)


def _prefix_assets(spec: mujoco.MjSpec, prefix: str) -> None:
    """Rename the assets and all references to them."""
    for element in (*spec.geoms, *spec.sites, *spec.tendons, *spec.skins):
        if element.material:
            element.material = prefix + element.material
    for geom in spec.geoms:
        if geom.meshname:
            geom.meshname = prefix + geom.meshname
    for material in spec.materials:
        for role, texture in enumerate(material.textures):
            if texture:
                material.textures[role] = prefix + texture
    for mesh in spec.meshes:
        if mesh.material:
            mesh.material = prefix + mesh.material
    for element in (*spec.meshes, *spec.materials, *spec.textures):
        if element.name:
            element.name = prefix + element.name


def _add_assets(merged: mujoco.MjSpec, spec: mujoco.MjSpec, prefix: str) -> None:
    donor = spec.copy()
    # MuJoCo computes a mesh's convex hull only if a geom collides with it; compiled once, the mesh
    # keeps that also without the geom.
    donor.compile()
    for kind in _REFERRING:
        for element in list(getattr(donor, kind)):
            donor.delete(element)
    root = donor.worldbody.bodies[0].name
    # Attaching is the only way to copy assets; what came with them goes again.
    merged.attach(donor, prefix=prefix, frame=merged.worldbody.add_frame())
    merged.delete(merged.body(prefix + root))


def _add_geom(body: mujoco.MjsBody, name: str, variant: str, like: VariantGeomSpec) -> None:
    """Add a geom that the first variant does not have; it weighs nothing."""
    body.add_geom(
        name=name,
        type=MESH,
        meshname=f"{variant}/{like.mesh_name}",
        material=f"{variant}/{like.material}" if like.material else "",
        contype=like.contype,
        conaffinity=like.conaffinity,
        condim=like.condim,
        priority=like.priority,
        group=like.group,
        mass=0.0,
    )
