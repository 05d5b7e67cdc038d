"""Everything that is simulated in one world: the ground, entities and sensors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.entity import Entity, EntityCfg
from mjlab_rec.entity.initial_state import add_keyframe, take_keyframe
from mjlab_rec.sensor import BuiltinSensor, Sensor, SensorCfg, SensorContext
from mjlab_rec.sensor.sensor_context import make_sensor_context
from mjlab_rec.terrains import TerrainEntity, TerrainEntityCfg
from mjlab_rec.utils.spec import export_spec, non_default_option_fields
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

_ZENITH, _NADIR = np.array([0.38, 0.56, 0.8]), np.array([0.92, 0.92, 0.9])  # Colours of the sky.
_SKY_PIXELS = 64  # Side of a face of the sky: enough for a gradient, and quick to load.


@dataclass(kw_only=True)
class SceneCfg:
    """What is in the scene, and how many copies of it are simulated."""

    num_envs: int = 1
    """Number of worlds simulated in parallel."""

    env_spacing: float = 2.0
    """Distance between the origins of neighbouring worlds, in meters."""

    terrain: TerrainEntityCfg | None = None
    """The ground; None for a scene without one."""

    entities: dict[str, EntityCfg] = field(default_factory=dict)
    """Robots and objects by name."""

    sensors: tuple[SensorCfg, ...] = ()
    """Sensors to add to those in the entities' XML."""

    extent: float | None = None
    """Size of the scene for cameras and visuals, in meters; None lets MuJoCo compute it."""

    spec_fn: Callable[[mujoco.MjSpec], None] | None = None
    """Makes final changes to the scene's spec, after everything is in it."""


class Scene:
    """The ground, entities and sensors, combined into one MuJoCo model.

    Every entity `name` is attached with the prefix `name/`, the terrain without a prefix. The
    worlds do not interact: origins only spread them out for display and on uneven ground.

    Args:
        scene_cfg: What is in the scene.
        device: Where tensors live.
        seed: Seed of generated ground, if its cfg has none, and of the worlds' first tiles on it.
            None draws one.
    """

    def __init__(self, scene_cfg: SceneCfg, device: str = "cpu", seed: int | None = None) -> None:
        cfg = scene_cfg
        if cfg.num_envs < 1:
            raise ValueError(f"SceneCfg.num_envs must be at least 1, got {cfg.num_envs}.")
        self._cfg = cfg
        self._device = device
        self._seed = seed
        self._entities: dict[str, Entity] = {}
        self._sensors: dict[str, Sensor[Any]] = {}
        self._updated_sensors: list[Sensor[Any]] = []
        self._caching_sensors: list[Sensor[Any]] = []
        self._sensor_context: SensorContext | None = None
        self._terrain = self._make_terrain()
        # The terrain's names have no prefix, so it is what everything else is attached to.
        self._spec = mujoco.MjSpec() if self._terrain is None else self._terrain.spec
        _set_looks(self._spec)
        if cfg.extent is not None:
            self._spec.stat.extent = cfg.extent
        self._add_entities()
        self._add_sensors()
        if cfg.spec_fn is not None:
            cfg.spec_fn(self._spec)
        _add_sky(self._spec)
        if self._terrain is not None:
            self._env_origins = self._terrain.env_origins
        else:
            self._env_origins = torch.zeros(cfg.num_envs, 3, device=device)

    @property
    def spec(self) -> mujoco.MjSpec:
        """The scene's MuJoCo model, before compiling."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """Number of worlds."""
        return self._cfg.num_envs

    @property
    def env_spacing(self) -> float:
        """Distance between neighbouring origins."""
        return self._cfg.env_spacing

    @property
    def env_origins(self) -> torch.Tensor:
        """Origin of each world, (num_envs, 3); all zero without a terrain."""
        return self._env_origins

    @property
    def device(self) -> str:
        """Where tensors live."""
        return self._device

    @property
    def entities(self) -> dict[str, Entity]:
        """Entities by name, the terrain as "terrain"."""
        return self._entities

    @property
    def sensors(self) -> dict[str, Sensor[Any]]:
        """Sensors by name; those of an entity are called `<entity>/<name>`."""
        return self._sensors

    @property
    def terrain(self) -> TerrainEntity | None:
        """The ground."""
        return self._terrain

    @property
    def sensor_context(self) -> SensorContext | None:
        """What ray and camera sensors share, for ``sim.set_sensor_context``; None without any."""
        return self._sensor_context

    @property
    def constant_between_substeps(self) -> bool:
        """Whether writing ctrl once is enough for all physics steps of a control step."""
        return all(entity.constant_between_substeps for entity in self._entities.values())

    @property
    def needs_substeps(self) -> bool:
        """Whether something must run between the physics steps of a control step.

        If not, writing ctrl once and letting the engine take several steps gives the same bits.
        """
        return not self.constant_between_substeps or any(
            sensor.needs_substeps for sensor in self._sensors.values()
        )

    def __getitem__(self, name: str) -> Any:
        """The sensor or entity of that name."""
        found = self._sensors.get(name) or self._entities.get(name)
        if found is None:
            known = [*self._entities, *self._sensors]
            raise KeyError(f"The scene has no '{name}'. {nearest(name, known)}")
        return found

    def __contains__(self, name: str) -> bool:
        """Whether there is a sensor or entity of that name."""
        return name in self._sensors or name in self._entities

    def collect_variant_info(self) -> list[tuple[str, Any]]:
        """The variants of entities that have some, by the prefix of their names."""
        return [
            (f"{name}/", entity.variant_metadata)
            for name, entity in self._entities.items()
            if entity.variant_metadata is not None
        ]

    def compile(self) -> mujoco.MjModel:
        """Compile the scene."""
        return self._spec.compile()

    def write(self, output_dir: str | Path, *, zip: bool = False) -> None:
        """Write the scene as ``scene.xml``, with its files in ``assets/``, for any MuJoCo.

        Args:
            output_dir: The folder, created if needed.
            zip: Write one file, ``<output_dir>.zip``, instead.
        """
        export_spec(self._spec, output_dir, zip=zip)

    def to_zip(self, path: str | Path) -> None:
        """Write the scene into one zip file; the same as ``write(path, zip=True)``."""
        self.write(path, zip=True)

    def initialize(
        self,
        mj_model: mujoco.MjModel,
        model: Any,
        data: Any,
        generator: torch.Generator | None = None,
    ) -> None:
        """Connect everything to the simulation.

        Args:
            mj_model: The compiled scene.
            model: The simulation's model fields.
            data: The simulation's data fields.
            generator: Source of the randomness in actuator delays; None uses torch's global one.
        """
        for entity in self._entities.values():
            entity.generator = generator
            entity.initialize(mj_model, model, data, self._device)
        for sensor in self._sensors.values():
            sensor.initialize(mj_model, model, data, self._device)
        # Every physics step passes here, and most sensors have nothing to do in it.
        sensors = self._sensors.values()
        self._updated_sensors = [s for s in sensors if type(s).update is not Sensor.update]
        self._caching_sensors = [s for s in sensors if type(s).invalidate is not Sensor.invalidate]
        self._sensor_context = make_sensor_context(
            self._sensors.values(), mj_model, model, data, self._device
        )

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Reset targets, delays and sensor histories in the given worlds."""
        for entity in self._entities.values():
            entity.reset(env_ids)
        self.invalidate()
        for sensor in self._sensors.values():
            sensor.reset(env_ids)

    def update(self, dt: float) -> None:
        """Update actuators and sensors after a physics step of ``dt`` seconds."""
        for entity in self._entities.values():
            entity.update(dt)
        self.invalidate()
        for sensor in self._updated_sensors:
            sensor.update(dt)

    def invalidate(self) -> None:
        """Tell sensors that derived quantities have changed, as after ``sim.forward()``."""
        if self._sensor_context is not None:
            self._sensor_context.invalidate()
        for sensor in self._caching_sensors:
            sensor.invalidate()

    def write_data_to_sim(self) -> None:
        """Turn all entities' targets into ctrl."""
        for entity in self._entities.values():
            entity.write_data_to_sim()

    def _make_terrain(self) -> TerrainEntity | None:
        if self._cfg.terrain is None:
            return None
        # A copy: the caller may reuse the config, for another number of worlds.
        cfg = dataclasses.replace(
            self._cfg.terrain, num_envs=self._cfg.num_envs, env_spacing=self._cfg.env_spacing
        )
        terrain = TerrainEntity(cfg, self._device, self._seed)
        terrain.name = "terrain"
        self._entities[terrain.name] = terrain
        return terrain

    def _add_entities(self) -> None:
        qpos: list[float] = []
        ctrl: list[float] = []
        for name, cfg in self._cfg.entities.items():
            if name in self._entities:
                raise ValueError("The entity name 'terrain' is taken by SceneCfg.terrain.")
            if not name or "/" in name:
                raise ValueError(f"Entity name '{name}': it must not be empty or contain '/'.")
            try:
                entity = cfg.build()
            except ValueError as error:
                raise ValueError(f"Entity '{name}': {error}") from error
            self._attach(name, entity)
            qpos += entity.initial_state.qpos
            ctrl += entity.initial_state.ctrl
        add_keyframe(self._spec, qpos, ctrl)

    def _attach(self, name: str, entity: Entity) -> None:
        lost = non_default_option_fields(entity.spec.option)
        if lost:
            logger.warning(
                "Entity '%s': its model's <option> %s has no effect in a scene. Set it in "
                "SimulationCfg.mujoco (MujocoCfg).",
                name,
                ", ".join(lost),
            )
            # MuJoCo would give the same warning when it compiles.
            entity.spec.option = mujoco.MjSpec().option
        if self._spec.lights:
            # One sun is enough. Lights that were asked for stay.
            wanted = {light.name or "" for light in entity.cfg.lights}
            for light in entity.spec.lights:
                light.active = light.active and light.name in wanted
        floors = [geom.name or "(no name)" for geom in entity.spec.geoms if _is_ground(geom)]
        if floors and self._terrain is not None:
            logger.warning(
                "Entity '%s': its model has a floor of its own (%s) and the scene has a terrain, so"
                " feet touch both. Delete it in spec_fn, with spec.delete(spec.geom(NAME)), or set"
                " SceneCfg.terrain=None.",
                name,
                ", ".join(floors),
            )
        entity.name = name
        take_keyframe(entity.spec)  # The scene's has all entities' parts.
        frame = self._spec.worldbody.add_frame()
        self._spec.attach(entity.spec, prefix=f"{name}/", frame=frame)
        self._entities[name] = entity

    def _add_sensors(self) -> None:
        in_xml = [sensor.name for sensor in self._spec.sensors if sensor.name]
        for cfg in self._cfg.sensors:
            name = cfg.prefixed_name
            if name in self:
                raise ValueError(
                    f"Sensor '{name}': the scene already has a sensor or entity of that name."
                )
            sensor = cfg.build()
            sensor.edit_spec(self._spec, self._entities)
            self._sensors[name] = sensor
        for name in in_xml:
            self._sensors[name] = BuiltinSensor.from_existing(name)


def _is_ground(geom: mujoco.MjsGeom) -> bool:
    """Whether it is a plane or a height field that things collide with."""
    kinds = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
    return geom.type in kinds and bool(geom.contype or geom.conaffinity)


def _set_looks(spec: mujoco.MjSpec) -> None:
    """Set only the visual settings of a scene."""
    spec.modelname = "scene"
    spec.stat.meansize = 0.03
    visual = spec.visual
    # With the sun at most 1; see the terrain.
    visual.headlight.ambient = (0.4, 0.4, 0.4)
    visual.headlight.diffuse = (0.25, 0.25, 0.25)
    visual.headlight.specular = (0.0, 0.0, 0.0)
    visual.rgba.haze = (*(_ZENITH + _NADIR) / 2, 1.0)  # The sky's colour at the horizon.
    visual.global_.azimuth = 135
    visual.global_.elevation = -25
    visual.global_.offwidth = 1920
    visual.global_.offheight = 1080


def _add_sky(spec: mujoco.MjSpec) -> None:
    """Add a sky, unless the scene has one."""
    sky = mujoco.mjtTexture.mjTEXTURE_SKYBOX
    if any(texture.type == sky for texture in spec.textures):
        return
    spec.add_texture(
        type=sky,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=_ZENITH,
        rgb2=_NADIR,
        width=_SKY_PIXELS,
        height=_SKY_PIXELS * 6,
    )
