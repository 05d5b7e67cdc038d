"""A robot or an object of the scene."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mujoco
import torch

from mjlab_rec.actuator import Actuator, ActuatorCfg, TransmissionType, XmlActuator, XmlActuatorCfg
from mjlab_rec.actuator.groups import ActuatorGroup, group_actuators
from mjlab_rec.actuator.pass_through import PassThroughActuator
from mjlab_rec.entity.config import EntityArticulationInfoCfg as EntityArticulationInfoCfg
from mjlab_rec.entity.config import EntityCfg
from mjlab_rec.entity.data import EntityData
from mjlab_rec.entity.indexing import EntityIndexing, compute_indexing
from mjlab_rec.entity.initial_state import (
    add_keyframe,
    initial_state,
    joint_limits,
    take_keyframe,
)
from mjlab_rec.entity.names import PLURALS, Kind
from mjlab_rec.entity.writes import EntityWrites
from mjlab_rec.utils.spec import auto_wrap_fixed_base_mocap
from mjlab_rec.utils.spec_config import warn_overlapping_geom_edits
from mjlab_rec.utils.spec_export import packed, use_absolute_paths, write_files, write_zip
from mjlab_rec.utils.string import resolve_matching_names

logger = logging.getLogger(__name__)

_TARGET_KINDS: dict[TransmissionType, Kind] = {
    TransmissionType.JOINT: "joint",
    TransmissionType.TENDON: "tendon",
    TransmissionType.SITE: "site",
}


class Entity(EntityWrites):
    """A body tree with at most one free joint, its actuators and its state in all worlds.

    A base is floating (it has a free joint) or fixed. A fixed base sits on a mocap body, so that
    every world can place its own. The entity may have other joints, actuated or not. Next to a
    floating base there may be bodies that are fixed to the world; those stay where they are.

    The constructor builds the spec, the scene attaches and compiles it, and ``initialize`` connects
    it to the simulation. ``data`` exists from then on.
    """

    def __init__(self, cfg: EntityCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.generator: torch.Generator | None = None
        """Source of the randomness in actuator delays; None uses torch's global one."""
        self._actuators: list[Actuator] = []
        self._groups: list[ActuatorGroup] = []
        self._indexing: EntityIndexing | None = None
        self._data: EntityData | None = None
        self._variant_metadata: Any = None
        self._build_spec()
        self._free_joint = self._identify_free_joint()
        self._apply_spec_editors()
        keyframe = take_keyframe(self._spec)
        self._add_actuators()
        self.initial_state = initial_state(
            cfg.init_state,
            self._spec,
            self.elements_of("joint"),
            self.joint_names,
            keyframe,
        )
        """Where the entity starts, by config and keyframe."""
        if self.is_fixed_base and self.num_bodies:
            self.root_body.pos[:] = cfg.init_state.pos
            self.root_body.quat[:] = cfg.init_state.rot
        add_keyframe(self._spec, self.initial_state.qpos, self.initial_state.ctrl)

    def _build_spec(self) -> None:
        """Build the spec from a copy, because ``spec_fn`` may return the same spec again."""

        def spec_fn() -> mujoco.MjSpec:
            spec = self.cfg.spec_fn().copy()
            use_absolute_paths(spec)
            return spec

        self._spec = auto_wrap_fixed_base_mocap(spec_fn)()

    def _identify_free_joint(self) -> mujoco.MjsJoint | None:
        free = [j for j in self._spec.joints if j.type == mujoco.mjtJoint.mjJNT_FREE]
        if len(free) > 1:
            raise ValueError(
                f"The model has {len(free)} free joints, but an entity may have one, at its root. "
                "Make each floating body a separate entity in SceneCfg.entities."
            )
        if not free:
            return None
        if not free[0].name:
            free[0].name = "floating_base_joint"
        return free[0]

    def _apply_spec_editors(self) -> None:
        cfg = self.cfg
        warn_overlapping_geom_edits(cfg.geoms, cfg.collisions, self._spec)
        # Materials need the textures, and collisions override other settings of geoms.
        added = (*cfg.lights, *cfg.cameras, *cfg.textures, *cfg.materials)
        for editor in (*added, *cfg.meshes, *cfg.geoms, *cfg.collisions):
            editor.edit_spec(self._spec)

    def _add_actuators(self) -> None:
        if self.cfg.articulation is None:
            return
        pending: list[tuple[Actuator, list[str]]] = []
        for cfg in self.cfg.articulation.actuators:
            ids, names = self._find_targets(cfg)
            elements = self.elements_of(_TARGET_KINDS[cfg.transmission_type])
            actuator = cfg.build(self, ids, names)
            self._actuators.append(actuator)
            pending.append((actuator, [elements[i].name for i in ids]))
        if self.cfg.sort_actuators:
            pending = self._in_model_order(pending)
        for actuator, spec_names in pending:
            actuator.edit_spec(self._spec, spec_names)

    def _find_targets(self, cfg: ActuatorCfg) -> tuple[list[int], list[str]]:
        kind = _TARGET_KINDS[TransmissionType(cfg.transmission_type)]
        try:
            found = self._find(kind, cfg.target_names_expr, None, False)
        except ValueError as error:
            hints = [
                f" The {PLURALS[other]} {', '.join(names)} match: did you mean "
                f"transmission_type=TransmissionType.{transmission.name}?"
                for transmission, other, names in self._other_matches(cfg, kind)
            ]
            raise ValueError(f"{type(cfg).__name__}: {error}{''.join(hints)}") from None
        for transmission, other, names in self._other_matches(cfg, kind):
            logger.warning(
                "%s: target_names_expr %s is meant for %s, but its patterns also match the %s %s, "
                "which get no actuator. If they should, add a config with "
                "transmission_type=TransmissionType.%s; if not, use narrower patterns.",
                type(cfg).__name__,
                cfg.target_names_expr,
                PLURALS[kind],
                PLURALS[other],
                ", ".join(names),
                transmission.name,
            )
        return found

    def _other_matches(
        self, cfg: ActuatorCfg, kind: Kind
    ) -> list[tuple[TransmissionType, Kind, list[str]]]:
        """Parts of other kinds that all patterns of an actuator config match as well."""
        matches: list[tuple[TransmissionType, Kind, list[str]]] = []
        in_xml = {actuator.target for actuator in self._spec.actuators}
        for transmission, other in _TARGET_KINDS.items():
            try:
                _, names = resolve_matching_names(cfg.target_names_expr, self.names_of(other))
            except ValueError:
                continue
            if isinstance(cfg, XmlActuatorCfg):
                # An actuator of the XML that is left out; a part without one is none of its.
                names = [name for name in names if name in in_xml]
            if other != kind and names:
                matches.append((transmission, other, names))
        return matches

    def _in_model_order(
        self, pending: list[tuple[Actuator, list[str]]]
    ) -> list[tuple[Actuator, list[str]]]:
        """List single actuators: those of the XML, then joints, tendons and sites in order."""
        in_xml = [entry for entry in pending if isinstance(entry[0], XmlActuator)]
        place = {
            (kind, element.name): (rank, i)
            for rank, (kind, part) in enumerate(_TARGET_KINDS.items())
            for i, element in enumerate(self.elements_of(part))
        }
        single = [
            (actuator, [name])
            for actuator, names in pending
            if not isinstance(actuator, XmlActuator)
            for name in names
        ]
        single.sort(key=lambda entry: place[entry[0].transmission_type, entry[1][0]])
        return in_xml + single

    @property
    def is_fixed_base(self) -> bool:
        """Whether there is no free joint."""
        return self._free_joint is None

    @property
    def is_articulated(self) -> bool:
        """Whether there are joints other than a free one."""
        return self.num_joints > 0

    @property
    def is_actuated(self) -> bool:
        """Whether it has actuators."""
        return len(self._actuators) > 0

    @property
    def is_mocap(self) -> bool:
        """Whether the base is fixed and each world can place its own."""
        return self.is_fixed_base and self.num_bodies > 0 and bool(self.root_body.mocap)

    @property
    def has_tendon_actuators(self) -> bool:
        """Whether actuators pull on tendons."""
        return any(a.transmission_type == TransmissionType.TENDON for a in self._actuators)

    @property
    def has_site_actuators(self) -> bool:
        """Whether actuators act on sites."""
        return any(a.transmission_type == TransmissionType.SITE for a in self._actuators)

    @property
    def spec(self) -> mujoco.MjSpec:
        """The entity's MuJoCo model, before compiling."""
        return self._spec

    @property
    def variant_metadata(self) -> Any:
        """What differs between worlds, if the entity has variants (VariantEntityCfg), else None."""
        return self._variant_metadata

    @property
    def root_body(self) -> mujoco.MjsBody:
        """The body with the free joint; without one the first body."""
        return self._spec.bodies[1] if self._free_joint is None else self._free_joint.parent

    @property
    def all_joint_names(self) -> tuple[str, ...]:
        """Names of all joints, including a free one."""
        return tuple(joint.name.split("/")[-1] for joint in self._spec.joints)

    @property
    def actuators(self) -> list[Actuator]:
        """The actuators, one per config."""
        return self._actuators

    @property
    def indexing(self) -> EntityIndexing:
        """Where the entity's parts are in the model; exists after ``initialize``."""
        if self._indexing is None:
            raise RuntimeError(
                f"{self._title()} has no indices yet. Call scene.initialize() first."
            )
        return self._indexing

    @property
    def data(self) -> EntityData:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The entity's state; exists after ``initialize``."""
        if self._data is None:
            raise RuntimeError(f"{self._title()} has no data yet. Call scene.initialize() first.")
        return self._data

    @property
    def constant_between_substeps(self) -> bool:
        """Whether writing ctrl once is enough for all physics steps of a control step."""
        cls = type(self)
        stock = cls.update is Entity.update and cls.write_data_to_sim is Entity.write_data_to_sim
        return stock and all(actuator.constant_between_substeps for actuator in self._actuators)

    def find_joints_by_actuator_names(
        self, actuator_name_keys: str | list[str] | tuple[str, ...]
    ) -> tuple[list[int], list[str]]:
        """Find joints by name or regex, among those that actuators drive."""
        driven = {name for actuator in self._actuators for name in actuator.target_names}
        subset = [name for name in self.joint_names if name in driven]
        _, names = self._find("joint", actuator_name_keys, subset, False)
        return [self.joint_names.index(name) for name in names], names

    def joint_limits(self, mj_model: mujoco.MjModel) -> tuple[torch.Tensor, torch.Tensor]:
        """Hard and soft limits of the joints, each (num_joints, 2)."""
        articulation = self.cfg.articulation
        factor = 1.0 if articulation is None else articulation.soft_joint_pos_limit_factor
        return joint_limits(mj_model, self.indexing.joint_ids.tolist(), factor)

    def compile(self) -> mujoco.MjModel:
        """Compile the entity alone, for example to look at it."""
        return self._spec.compile()

    def write_xml(self, xml_path: str | Path) -> None:
        """Write the entity's model as XML, and its files into a folder ``assets`` next to it."""
        path = Path(xml_path)
        write_files(packed(self._spec, path.name), path.parent)

    def to_zip(self, path: str | Path) -> None:
        """Write the entity's model and its files into one zip file."""
        write_zip(packed(self._spec, f"{self.name or 'entity'}.xml"), Path(path))

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Connect the entity to the simulation, after the scene is compiled.

        Args:
            mj_model: The compiled scene.
            model: The simulation's model fields.
            data: The simulation's data fields.
            device: Where tensors live.
        """
        self._freeze_names()
        self._indexing = compute_indexing(self, mj_model, self.is_actuated, device)
        for actuator in self._actuators:
            actuator.initialize(mj_model, model, data, device)
        self._check_ball_joints()
        self._data = EntityData(self, self._indexing, mj_model, model, data, device, self.generator)
        self._groups = group_actuators(self._actuators, self._data)

    def update(self, dt: float) -> None:
        """Advance the actuators' own state after a physics step of ``dt`` seconds."""
        for actuator in self._actuators:
            actuator.update(dt)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Zero the targets of the given worlds, and reset their delays and actuators."""
        self.data.clear_state(env_ids)
        for delay in self.data.delays:
            delay.reset(env_ids)
        for actuator in self._actuators:
            actuator.reset(env_ids)

    def write_data_to_sim(self) -> None:
        """Turn targets into ctrl, before a physics step."""
        for group in self._groups:
            group.apply()

    def _check_ball_joints(self) -> None:
        if len(self.indexing.joint_q_adr) == self.num_joints:
            return
        for actuator in self._actuators:
            by_joint = actuator.transmission_type == TransmissionType.JOINT
            if by_joint and not isinstance(actuator, PassThroughActuator):
                raise ValueError(
                    f"{self._title()} has ball joints, whose position is not a single number, so "
                    f"{type(actuator).__name__} cannot work on its joints. Use actuators built "
                    "into MuJoCo: XmlActuatorCfg or one of the Builtin...ActuatorCfg classes."
                )
