"""Checks that all variants of an entity have the same bodies, joints and other parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import mujoco

MESH = mujoco.mjtGeom.mjGEOM_MESH

# What identifies an element of a list of the spec, and what may not differ between variants.
_KEYS: dict[str, tuple[str, Callable[[Any], tuple]]] = {
    "actuators": ("actuator", lambda e: (e.name, int(e.trntype), e.target)),
    "sensors": ("sensor", lambda e: (e.name, int(e.type), int(e.objtype), e.objname)),
    "tendons": ("tendon", lambda e: (e.name,)),
    "equalities": ("equality", lambda e: (e.name, int(e.type), e.name1, e.name2)),
}


def validate_variant_specs(names: Sequence[str], specs: Sequence[mujoco.MjSpec]) -> None:
    """Raise ValueError unless the specs differ only in what may differ between worlds."""
    if not names or len(names) != len(specs):
        raise ValueError("VariantEntityCfg.variants needs at least one entry: {'name': spec_fn}.")
    for name, spec in zip(names, specs, strict=True):
        if not name or "/" in name:
            _fail(name, "the name of a variant is empty or contains '/'.", "choose another.")
        roots = len(spec.worldbody.bodies)
        if roots != 1:
            _fail(
                name,
                f"a variant must have exactly one root body, but this one has {roots}.",
                "make the others separate entities in SceneCfg.entities.",
            )
        _check_pairs(name, spec)
    for name, spec in zip(names[1:], specs[1:], strict=True):
        first, other = (s.worldbody.bodies[0] for s in (specs[0], spec))
        _compare_bodies(names[0], first, name, other, "")
        _compare_lists(names[0], specs[0], name, spec)


def body_paths(body: mujoco.MjsBody, parent: str = "") -> Iterator[tuple[str, mujoco.MjsBody]]:
    """A body and all below it, each with the names on the way to it."""
    path = f"{parent}/{body.name}"
    yield path, body
    for child in body.bodies:
        yield from body_paths(child, path)


def is_visual(geom: mujoco.MjsGeom) -> bool:
    """Whether a geom touches nothing."""
    return geom.contype == 0 and geom.conaffinity == 0


def _fail(name: str, what: str, hint: str) -> NoReturn:
    raise ValueError(f"mjlab_rec.entity: VariantEntityCfg '{name}': {what} Hint: {hint}")


def _check_pairs(name: str, spec: mujoco.MjSpec) -> None:
    meshes = {geom.name for geom in spec.geoms if geom.type == MESH}
    for pair in spec.pairs:
        for geom in (pair.geomname1, pair.geomname2):
            if geom in meshes:
                _fail(
                    name,
                    f"the contact pair '{pair.name}' names the mesh geom '{geom}', which worlds "
                    "with another variant do not have.",
                    "use contype and conaffinity instead of <pair>.",
                )


def _compare_bodies(
    first: str, one: mujoco.MjsBody, name: str, other: mujoco.MjsBody, parent: str
) -> None:
    path = f"{parent}/{other.name}"
    if one.name != other.name:
        _fail(
            name,
            f"body path '{path}' is '{parent}/{one.name}' in '{first}'.",
            "variants must have the same bodies, with the same names and in the same order.",
        )
    if len(one.joints) != len(other.joints):
        _fail(
            name,
            f"body '{path}' has {len(other.joints)} joints, but {len(one.joints)} in '{first}'.",
            "variants may have other meshes, but not other joints.",
        )
    for i, (a, b) in enumerate(zip(one.joints, other.joints, strict=True)):
        # A free joint is named later if it has no name.
        if a.type != b.type or a.name != b.name:
            _fail(
                name,
                f"joint {i} of body '{path}' is '{b.name}' of type {_type(b)}, but '{a.name}' of "
                f"type {_type(a)} in '{first}'.",
                "name and type of joints must be the same in all variants.",
            )
    _compare_geoms(first, one, name, other, path)
    if _inertial(one) != _inertial(other):
        _fail(
            name,
            f"the inertial representation of body '{path}' is {_inertial(other)}, but "
            f"{_inertial(one)} in '{first}'.",
            "leave <inertial> out in all variants, or give it in the same form in all.",
        )
    if len(one.bodies) != len(other.bodies):
        _fail(
            name,
            f"body '{path}' has {len(other.bodies)} child bodies, but {len(one.bodies)} in "
            f"'{first}'.",
            "variants must have the same bodies.",
        )
    for a, b in zip(one.bodies, other.bodies, strict=True):
        _compare_bodies(first, a, name, b, path)


def _compare_geoms(
    first: str, one: mujoco.MjsBody, name: str, other: mujoco.MjsBody, path: str
) -> None:
    ones, others = ([g for g in body.geoms if g.type != MESH] for body in (one, other))
    if len(ones) != len(others):
        _fail(
            name,
            f"body '{path}' has {len(others)} non-mesh geoms, but {len(ones)} in '{first}'.",
            "only mesh geoms may differ in number; make a mesh of it (mesh.make_sphere(), "
            "a box of eight vertices).",
        )
    for i, (a, b) in enumerate(zip(ones, others, strict=True)):
        if (a.name, a.type, is_visual(a)) != (b.name, b.type, is_visual(b)):
            _fail(
                name,
                f"primitive geom {i} of body '{path}' is {_geom(b)}, but {_geom(a)} in '{first}'.",
                "name and type of geoms that are no meshes, and whether they collide, must be the "
                "same in all variants. A mesh may be anything.",
            )


def _compare_lists(first: str, one: mujoco.MjSpec, name: str, other: mujoco.MjSpec) -> None:
    for attribute, (kind, key) in _KEYS.items():
        ones, others = ([key(e) for e in getattr(spec, attribute)] for spec in (one, other))
        hint = f"names, types and targets of {attribute} must be the same in all variants."
        if len(ones) != len(others):
            _fail(name, f"{kind} count {len(others)} differs from {len(ones)} in '{first}'.", hint)
        for i, (a, b) in enumerate(zip(ones, others, strict=True)):
            if a != b:
                _fail(name, f"{kind} #{i} is {b}, but {a} in '{first}'.", hint)


def _inertial(body: mujoco.MjsBody) -> str:
    if body.fullinertia[0] == body.fullinertia[0]:  # Not NaN, which stands for no value.
        return "fullinertia"
    return "diaginertia" if body.explicitinertial else "that of the geoms"


def _type(joint: mujoco.MjsJoint) -> str:
    return mujoco.mjtJoint(joint.type).name.removeprefix("mjJNT_").lower()


def _geom(geom: mujoco.MjsGeom) -> str:
    kind = mujoco.mjtGeom(geom.type).name.removeprefix("mjGEOM_").lower()
    return f"'{geom.name}', a {kind} that {'does not collide' if is_visual(geom) else 'collides'}"
