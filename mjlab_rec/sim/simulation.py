"""Many worlds of one MuJoCo model, stepped together and exposed as torch tensors."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
import torch

from mjlab_rec.sim.cameras import CameraLook, Cameras
from mjlab_rec.sim.cfg import RecomputeLevel, SimulationCfg
from mjlab_rec.sim.engine import (
    HEALTH_KINDS,
    Engine,
    array_names,
    derived_constants,
    reject_common,
    state_layout,
)
from mjlab_rec.sim.jacobian import PointJacobian
from mjlab_rec.sim.ray_spec import RaySpec
from mjlab_rec.sim.views import DataView, ModelView, default_value
from mjlab_rec.sim.world_fields import VariantInfo, WorldFields, world_fields
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.utils.nan_guard import NanGuardCfg
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.sensor import SensorContext
    from mjlab_rec.sim.ray_caster import RayCaster

_log = logging.getLogger(__name__)

EnvIds = torch.Tensor | Sequence[int] | slice | None


class Simulation:
    """Steps `num_envs` worlds of a model and exposes their data and model as tensors.

    Usage::

        sim = Simulation(num_envs=64, cfg=SimulationCfg(), model=mj_model)
        sim.data.ctrl[:] = action  # live memory: write in place
        sim.step(4)
        sim.forward()
        height = sim.data.xpos[:, 1, 2]

    After `step`, positions and velocities are current, but derived fields (`xpos`, `sensordata`,
    ...) date from the beginning of the last physics step, as MuJoCo leaves them; `forward` updates
    them.

    Use a simulation from one thread only, and with the warp engine on the CPU from only one thread
    in the process.

    Args:
        num_envs: Number of worlds.
        cfg: Engine and options.
        model: The compiled model. It is copied; the caller's does not change.
        device: `cpu`, `cuda`, `cuda:<index>`, or `auto` for a GPU if there is one.
        spec: Compiled into the model if no model is given.
        variant_info: What differs between worlds from the beginning, as
            `Scene.collect_variant_info` returns it.
    """

    def __init__(
        self,
        num_envs: int,
        cfg: SimulationCfg,
        model: mujoco.MjModel | None = None,
        device: str = "cpu",
        *,
        spec: mujoco.MjSpec | None = None,
        variant_info: VariantInfo = (),
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        if (model is None) == (spec is None):
            raise ValueError("Simulation takes either a compiled model or a spec, not both.")
        torch_device = resolve_device(device)
        self.cfg = cfg
        self.num_envs = num_envs
        self.device = str(torch_device)
        self.mj_model: mujoco.MjModel = spec.compile() if spec else copy.copy(model)
        cfg.mujoco.apply(self.mj_model)
        reject_common(self.mj_model)
        worlds = world_fields(self.mj_model, num_envs, variant_info) if variant_info else None

        self.expanded_fields: set[str] = set()
        self.per_world_default_fields: set[str] = set()
        """Expanded fields of which worlds have different defaults."""
        self._defaults: dict[str, torch.Tensor] = {}
        self._reported: set[int] = set()
        self._precise: set[str] = set()
        self._sensor_context: SensorContext | None = None
        self._mj_data: mujoco.MjData | None = None
        self.state_size = state_layout(self.mj_model)[-1].columns.stop
        with torch.inference_mode(False):
            self._engine = _build_engine(num_envs, cfg, self.mj_model, torch_device)
            self._all_ids = torch.arange(num_envs, device=torch_device)
        self.engine_name = self._engine.name
        self.data = DataView(self._engine, self.mj_model, num_envs)
        self.model = ModelView(self._engine, self.mj_model, num_envs, torch_device)
        self.world_to_variant: dict[str, torch.Tensor] = {}
        """By entity with variants, the index of each world's variant (num_envs,)."""
        if worlds is not None:
            self._set_world_fields(worlds)

    def _set_world_fields(self, worlds: WorldFields) -> None:
        fields = {name: v for name, v in worlds.fields.items() if self._engine.can_expand(name)}
        for name, values in fields.items():
            dtype = np.float32 if values.dtype.kind == "f" else values.dtype
            value = torch.from_numpy(values.astype(dtype)).to(self.device)
            self.get_default_field(name)
            value = value.view(self.num_envs, *self._defaults[name].shape)
            self._defaults[name] = value
        with torch.inference_mode(False):
            self._engine.expand(list(fields))
            for name in fields:
                self._engine.model_field(name).copy_(self._defaults[name])
            self._engine.forward(masked=False)
        self.expanded_fields.update(fields)
        self.per_world_default_fields.update(fields)
        for name, variants in worlds.world_to_variant.items():
            self.world_to_variant[name] = torch.from_numpy(variants).to(self.device)

    def step(self, n: int = 1) -> None:
        """Advance every world by n physics steps."""
        self.data.renew()
        self._engine.step(n)

    def forward(self, mask: EnvIds = None) -> None:
        """Update derived fields to match the state, which does not change.

        Args:
            mask: The worlds to update, as a bool mask or indices; the others do not change.
        """
        self.data.renew()
        if mask is None:
            self._engine.forward(masked=False)
        else:
            self._fill_mask(mask)
            self._engine.forward(masked=True)

    def reset(self, env_ids: EnvIds = None) -> None:
        """Reset worlds to the model's initial state, with time, controls and forces at zero.

        Args:
            env_ids: Worlds to reset, as indices or a bool mask; None means all.
        """
        self._fill_mask(env_ids)
        self.data.renew()
        self._engine.reset()

    def set_sensor_context(self, context: SensorContext) -> None:
        """Compute rays and pictures for these sensors, which are ``scene.sensor_context``."""
        self._sensor_context = context
        context.connect(self)

    def sense(self) -> None:
        """Tell ray and camera sensors that derived quantities are new; they compute when read."""
        if self._sensor_context is not None:
            self._sensor_context.sense()

    def ray_caster(self, spec: RaySpec) -> RayCaster:
        """Return an object that casts these rays whenever it is asked to."""
        # Imports warp, which takes a second.
        from mjlab_rec.sim.ray_caster import RayCaster

        return RayCaster(self, spec)

    @property
    def per_world_fields(self) -> set[str]:
        """Model fields with a value per world: expanded ones, and recomputed constants."""
        return self._engine.per_world

    def cameras(self, look: CameraLook) -> Cameras:
        """Make what draws the model's cameras for camera sensors.

        Model fields that get a value per world later need a new one.
        """
        try:
            with torch.inference_mode(False):
                return self._engine.cameras(look)
        except ImportError as error:
            raise UnavailableError(
                f"Pictures of camera sensors need MuJoCo-Warp ({error}):"
                " pip install --upgrade 'mujoco-warp>=3.14'."
            ) from error

    def jacobian(self, body_id: int, dof_ids: Sequence[int] | None = None) -> PointJacobian:
        """Return the Jacobian of points on a body, to be computed again at any time.

        Args:
            body_id: The body, by its index in the model.
            dof_ids: The degrees of freedom, by their indices in qvel; None means all.
        """
        dofs = range(self.mj_model.nv) if dof_ids is None else dof_ids
        return PointJacobian(self.data, self.mj_model, body_id, list(dofs))

    def expand_model_fields(self, fields: Sequence[str]) -> None:
        """Give model fields a separate value in every world, so that you can write them.

        `sim.model.<field>` is then a live tensor (num_envs, ...) that starts at the shared value.
        """
        new = [field for field in dict.fromkeys(fields) if field not in self.expanded_fields]
        for field in new:
            self.get_default_field(field)  # raises for unknown names
        if not new:
            return
        with torch.inference_mode(False):
            self._engine.expand(new)
        self.expanded_fields.update(new)
        self.model.forget(new)
        if self._sensor_context is not None:
            self._sensor_context.recreate(self.mj_model, self.expanded_fields)

    def get_default_field(self, field: str) -> torch.Tensor:
        """Return a field's value in the compiled model. Never write to it.

        It has a world axis only if it is one of `per_world_default_fields`.
        """
        if field not in self._defaults:
            value = getattr(self.mj_model, field, None)
            if not isinstance(value, np.ndarray):
                known = array_names(self.mj_model)
                raise ValueError(f"Unknown model field {field!r}. {nearest(field, known)}")
            with torch.inference_mode(False):
                self._defaults[field] = default_value(field, value).to(self.device)
        return self._defaults[field]

    def recompute_constants(self, level: RecomputeLevel) -> None:
        """Recompute the model's derived constants after fields were written."""
        if level == RecomputeLevel.none:
            return
        with torch.inference_mode(False):
            self._engine.recompute(level)
        self.model.forget(derived_constants(level))

    @property
    def state_layout(self) -> dict[str, slice]:
        """The columns of each field in the state: time, qpos, qvel, ..."""
        return {field.name: field.columns for field in state_layout(self.mj_model)}

    def get_state(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return everything the future depends on, one row per world, in the order of mj_getState.

        Returns:
            A tensor (num_envs, state_size), float64 on mjbatch and float32 on warp: `out` if given.
        """
        shape, dtype = (self.num_envs, self.state_size), self._engine.state_dtype
        if out is None:
            out = torch.empty(shape, dtype=dtype, device=self.device)
        elif out.shape != shape or out.dtype != dtype:
            raise ValueError(
                f"get_state needs out of shape {shape} and type {dtype}, got "
                f"{tuple(out.shape)} and {out.dtype}."
            )
        self._engine.get_state(out)
        return out

    def set_state(self, rows: torch.Tensor, env_ids: EnvIds = None) -> None:
        """Continue worlds from saved states, dropping writes that were not yet simulated.

        On the same engine, what follows repeats the saved world's future bit for bit. Derived
        fields of these worlds are up to date afterwards.

        Args:
            rows: Rows of `get_state`, (number of worlds, state_size).
            env_ids: The worlds to overwrite, as indices or a bool mask; None means all.
        """
        ids = self._as_ids(env_ids)
        shape = (len(ids), self.state_size)
        if rows.shape != shape:
            raise ValueError(
                f"set_state needs rows of shape {shape}, one for each of the {len(ids)} worlds, "
                f"got {tuple(rows.shape)}."
            )
        if len(ids):
            self.data.renew()
            self._engine.set_state(rows.to(self.device, self._engine.state_dtype), ids)

    def get_derived(self) -> dict[str, torch.Tensor]:
        """Return copies of the derived fields in use, where they may be older than the state."""
        return {name: self.precise(name) for name in self._engine.derived()}

    def set_derived(self, values: dict[str, torch.Tensor]) -> None:
        """Show these derived fields until they are next computed: what ``get_derived`` returned."""
        self.data.renew()
        with torch.inference_mode(False):
            for name, value in values.items():
                self._engine.show_derived(name, value)

    def precise(self, name: str) -> torch.Tensor:
        """Return a copy of a data field in the engine's own precision: float64 on mjbatch.

        `data.<name>` has float32, in which a position 30 m from the origin is known to 2e-6 m: too
        little to divide a small step's difference by its duration. On mjbatch a field that MuJoCo
        derives from the state has float64 only if `precise` is called before anything reads
        `data.<name>`; otherwise these are the same float32 values.
        """
        if name in self._precise:
            return self._engine.precise(name)
        try:
            with torch.inference_mode(False):  # The first call binds the field.
                values = self._engine.precise(name)
        except KeyError:
            getattr(self.data, name)  # Raises an error that lists the names.
            raise
        self._precise.add(name)
        return values

    def health(self) -> torch.Tensor:
        """Return int32 counts, on the device, of problems since the last report; zeros mean none.

        This does not wait for the device. Pass the values to `report_health` if one is nonzero.
        """
        return self._engine.health

    def report_health(self, counts: Sequence[int]) -> None:
        """Log what `health` counted, one warning per kind and simulation, and reset the counts.

        Args:
            counts: The values of `health()`.
        """
        self._engine.health.zero_()
        for kind, count in enumerate(counts):
            if count and kind not in self._reported:
                self._reported.add(kind)
                _log.warning("%s", _health_warning(kind, self._engine))

    @property
    def nan_guard(self) -> NanGuardCfg:
        """Configuration of the NaN guard."""
        return self.cfg.nan_guard

    @property
    def wp_model(self) -> Any:
        """MuJoCo-Warp's model (engine warp only). Call ``create_graph`` after replacing arrays."""
        return self._of_warp("wp_model")

    @property
    def wp_data(self) -> Any:
        """MuJoCo-Warp's data (engine warp only). Call ``create_graph`` after replacing arrays."""
        return self._of_warp("wp_data")

    @property
    def mj_data(self) -> mujoco.MjData:
        """Data of MuJoCo itself for ``mj_model``, to calculate with; the worlds do not use it."""
        if self._mj_data is None:
            self._mj_data = mujoco.MjData(self.mj_model)
            mujoco.mj_forward(self.mj_model, self._mj_data)
        return self._mj_data

    @property
    def default_model_fields(self) -> dict[str, torch.Tensor]:
        """The values of the compiled model that were asked for so far, by field."""
        return self._defaults

    def create_graph(self) -> None:
        """Notice that arrays in ``wp_model`` were replaced: capture graphs and views again."""
        self._engine.forget_graphs()
        self.model.forget([name for name in vars(self.model) if not name.startswith("_")])

    def _of_warp(self, name: str) -> Any:
        if self.engine_name != "warp":
            raise AttributeError(
                f"sim.{name} exists on the engine 'warp' only, this one is {self.engine_name!r}."
                " sim.data and sim.model work on both; otherwise use SimulationCfg(engine='warp')."
            )
        return getattr(self._engine, name)

    def _fill_mask(self, env_ids: EnvIds) -> None:
        mask = self._engine.mask
        if env_ids is None:
            mask.fill_(True)
        elif isinstance(env_ids, torch.Tensor) and env_ids.dtype == torch.bool:
            mask.copy_(env_ids)
        else:
            mask.fill_(False)
            mask[env_ids] = True  # type: ignore[index]

    def _as_ids(self, env_ids: EnvIds) -> torch.Tensor:
        if env_ids is None:
            return self._all_ids
        return self._all_ids[env_ids if not isinstance(env_ids, Sequence) else list(env_ids)]


def _health_warning(kind: int, engine: Engine) -> str:
    name, what = list(HEALTH_KINDS.items())[kind]
    return f"{what} {engine.health_cures[name]} (Logged once per simulation.)"


def resolve_device(device: str) -> torch.device:
    """Return the torch device of this name; "auto" is the first GPU if any, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    possible = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = None
    if parsed is not None and parsed.type == "cuda" and parsed.index is None:
        parsed = torch.device("cuda", 0)
    if parsed is None or str(parsed) not in possible:
        cure = "" if len(possible) > 1 else " PyTorch sees no CUDA device."
        raise ValueError(f"Unknown device {device!r}. Possible: auto, {', '.join(possible)}.{cure}")
    return parsed


def _build_engine(
    num_envs: int, cfg: SimulationCfg, model: mujoco.MjModel, device: torch.device
) -> Engine:
    name, known = cfg.engine, ["auto", "warp", "mjbatch"]
    if name not in known:
        raise ValueError(f"Unknown engine {name!r} in SimulationCfg. {nearest(name, known)}")
    if name == "auto":
        on_threads = device.type == "cpu" and importlib.util.find_spec("mjbatch") is not None
        name = "mjbatch" if on_threads else "warp"
    if name == "warp":
        from mjlab_rec.sim.warp_engine import WarpEngine

        return WarpEngine(num_envs, cfg, model, device)
    if device.type != "cpu":
        raise ValueError(
            f"The engine 'mjbatch' runs on the CPU only, but the device is {str(device)!r}. Use "
            "SimulationCfg(engine='warp') or device='cpu'."
        )
    from mjlab_rec.sim.mjbatch_engine import MjbatchEngine

    return MjbatchEngine(num_envs, cfg, model)
