"""What differs between the compiled variants: the numbers that each world must get."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.sim.engine import array_names, has_world_axis
from mjlab_rec.sim.world_fields import Values

# Computed from the other fields, or places in other arrays.
_DERIVED = re.compile(
    r".*(0|subtreemass|lengthspring|lengthrange|dof_length|_user|adr|num|simple|sameframe|plugin"
    r"|history|delay|interval)$"
)
_PLACES = re.compile(r".*id$")
# Of a body, sums over its geoms, of which only some are filled.
_BODY_SUMS = ("body_contype", "body_conaffinity", "body_margin")
# The merged model has others.
_INERTIAL = ("body_mass", "body_inertia", "body_ipos", "body_iquat")
# MuJoCo's name for each kind of part, which its fields begin with.
PREFIXES = {
    "body": "body_",
    "geom": "geom_",
    "joint": "jnt_",
    "dof": "dof_",
    "qpos": "qpos",
    "site": "site_",
    "camera": "cam_",
    "light": "light_",
    "tendon": "tendon_",
    "actuator": "actuator_",
    "equality": "eq_",
}


@dataclass(frozen=True)
class Part:
    """A compiled variant, and where its parts are in the scene."""

    name: str
    model: mujoco.MjModel
    own: dict[str, list[int]]
    """For each kind of part, the parts' indices in the variant's own model."""
    scene: dict[str, list[int]]
    """And in the scene's, in the same order."""


def differences(
    scene: mujoco.MjModel, parts: Sequence[Part], title: str
) -> list[dict[str, Values]]:
    """What each variant's worlds get, by model field, where it differs from the scene's model.

    Raises:
        ValueError: Variants differ in something that all worlds share.
    """
    found: list[dict[str, Values]] = [{} for _ in parts]
    for field, kind in _fields(scene):
        by_part = [
            dict(zip(p.scene[kind], getattr(p.model, field)[p.own[kind]], strict=True))
            for p in parts
        ]
        ids = sorted({i for values in by_part for i in values})
        fixed = not has_world_axis(field, getattr(scene, field))
        compiled = getattr(scene, field)
        always = field in _INERTIAL
        changed = [i for i in ids if _differs(by_part, i, compiled[i], always)]
        if not changed:
            continue
        if fixed:
            _refuse(scene, parts, by_part, field, kind, changed[0], title)
        for values, mine in zip(by_part, found, strict=True):
            have = [i for i in changed if i in values]
            if have:
                mine[field] = Values(np.array(have), np.array([values[i] for i in have]))
    return found


def _fields(scene: mujoco.MjModel) -> Iterator[tuple[str, str]]:
    """The model's fields that describe parts, with the kind of part."""
    for field in array_names(scene):
        if (
            (_DERIVED.match(field) and field != "qpos0")
            or _PLACES.match(field)
            or field in _BODY_SUMS
        ):
            continue
        for kind, prefix in PREFIXES.items():
            if field.startswith(prefix):
                yield field, kind


def _differs(by_part: list[dict[int, Any]], i: int, compiled: Any, always: bool) -> bool:
    """Whether variants differ in an element, or from the scene.

    Where all variants agree the scene's value counts, unless it is never that of a variant.
    """
    have = [values[i] for values in by_part if i in values]
    like = compiled if always or len(have) < len(by_part) else have[0]
    return not all(np.array_equal(like, value) for value in have)


def _refuse(
    scene: mujoco.MjModel,
    parts: Sequence[Part],
    by_part: list[dict[int, Any]],
    field: str,
    kind: str,
    i: int,
    title: str,
) -> None:
    names = [part.name for part in parts]
    have = [(name, v[i]) for name, v in zip(names, by_part, strict=True) if i in v]
    one, a = have[0]
    other, b = next(((n, value) for n, value in have if not np.array_equal(a, value)), have[0])
    objects = {"body": scene.body, "geom": scene.geom, "joint": scene.joint, "site": scene.site}
    name = objects[kind](i).name if kind in objects else str(i)
    raise ValueError(
        f"{title}: {field} of {kind} '{name}' is {a} in variant '{one}', but {b} in '{other}'. All "
        "worlds share it, so it must be the same in all variants."
    )
