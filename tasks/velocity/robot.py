"""What the velocity tasks must know of a robot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import mujoco

from mjlab_rec.entity import EntityCfg
from mjlab_rec.sensor import ContactMatch
from mjlab_rec.utils.spec_config import CollisionCfg
from mjlab_rec.utils.string import nearest, resolve_matching_names


@dataclass(kw_only=True)
class Gait:
    """When each foot should be in the air: a clock that shows the policy how to walk."""

    frequency_hz: float = 2.0
    """Steps of each foot per second."""
    offsets: tuple[float, ...]
    """Phase of each foot, as a part of a period, in the model's order. A trot of FR, FL, RR, RL is
    (0, 0.5, 0.5, 0)."""
    swing_height: float = 0.09
    """Height of a foot's site in the middle of its swing, in meters."""


@dataclass(kw_only=True)
class LeggedRobot:
    """A legged robot that can be told how fast to go. Patterns are regular expressions."""

    entity: EntityCfg
    """Its model, with position actuators, and the pose in which it stands (``init_state``)."""
    base: str
    """Name of the trunk's body."""
    height: float
    """Height of the base when the robot stands, in meters."""
    foot_geoms: tuple[str, ...]
    """Patterns for the geoms of the feet. One geom per foot, unless there are ``foot_bodies``."""
    foot_sites: tuple[str, ...] | None = None
    """Names of the sites of the feet. None adds one to each foot geom, at its center."""
    foot_bodies: tuple[str, ...] | None = None
    """Names of the bodies of the feet, if a foot has several geoms."""
    forbidden_geoms: tuple[str, ...] = ()
    """Patterns for geoms that may not touch rough ground: the episode ends. Empty: none."""
    unwanted_geoms: tuple[str, ...] = ()
    """Patterns for geoms that had better not touch rough ground. Empty: none."""
    avoid_self_collisions: bool = False
    """Whether contacts of the robot with itself cost reward."""
    action_scale: float | dict[str, float] = 0.5
    """Radians that an action of 1 moves a joint's target, for all joints or by pattern."""
    gait: Gait | None = None
    """A gait to learn. Without one the robot finds its own, which takes longer."""
    foot_height: float = 0.1
    """Height of a foot's site that a robot without ``gait`` should lift it to, in meters."""
    std_standing: dict[str, float] = field(default_factory=lambda: {".*": 0.1})
    """How far joints may be from the initial pose when standing, by pattern, in radians."""
    std_walking: dict[str, float] = field(default_factory=lambda: {".*": 0.4})
    """The same when walking."""
    std_running: dict[str, float] = field(default_factory=lambda: {".*": 0.6})
    """The same when running: commands from 1.5 m/s (or rad/s) on."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of rewards, where they differ from those of the task."""

    def sites(self) -> tuple[str, ...]:
        """Names of the feet's sites, in the model's order, as contact sensors have the feet."""
        spec = self.entity.spec_fn()
        if self.foot_sites is None:
            return tuple(_site_name(geom) for geom in self._feet(spec))
        names = [site.name for site in spec.sites]
        for name in self.foot_sites:
            if name not in names:
                raise ValueError(f"The robot has no site '{name}'. {nearest(name, names)}")
        return tuple(name for name in names if name in self.foot_sites)

    def feet_match(self) -> ContactMatch:
        """The feet, for a contact sensor."""
        if self.foot_bodies is not None:
            return ContactMatch(mode="subtree", pattern=self.foot_bodies, entity="robot")
        return ContactMatch(mode="geom", pattern=self.foot_geoms, entity="robot")

    def entity_cfg(self) -> EntityCfg:
        """The entity for a scene: with sites at the feet, and a config of what collides.

        That config sets only the feet's contacts, unless the entity has one of its own. With
        ``collisions[0].disable_other_geoms = True`` nothing collides but the feet.
        """
        collisions = self.entity.collisions or (
            CollisionCfg(
                geom_names_expr=tuple(f"(?:{pattern})$" for pattern in self.foot_geoms),
                contype=0,  # Feet do not touch each other.
                conaffinity=1,
                condim=3,
                priority=1,
                friction=(0.8,),
                disable_other_geoms=False,
            ),
        )
        spec_fn = self.entity.spec_fn if self.foot_sites is not None else self._with_sites
        return replace(self.entity, spec_fn=spec_fn, collisions=collisions)

    def _with_sites(self) -> mujoco.MjSpec:
        spec = self.entity.spec_fn()
        for geom in self._feet(spec):
            geom.parent.add_site(name=_site_name(geom), pos=geom.pos, group=5)
        return spec

    def _feet(self, spec: mujoco.MjSpec) -> list[mujoco.MjsGeom]:
        _, names = resolve_matching_names(self.foot_geoms, [geom.name for geom in spec.geoms])
        return [spec.geom(name) for name in names]


def _site_name(geom: mujoco.MjsGeom) -> str:
    return f"{geom.name}_foot"
