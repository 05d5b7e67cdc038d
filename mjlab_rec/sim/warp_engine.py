"""The GPU engine, which also runs on the CPU: MuJoCo-Warp, replayed as captured graphs."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp

from mjlab_rec.sim.cameras import CameraLook, Cameras
from mjlab_rec.sim.cfg import RecomputeLevel, SimulationCfg
from mjlab_rec.sim.engine import HEALTH_KINDS, derived_constants, state_layout
from mjlab_rec.sim.sim_data import TorchArray, WarpBridge
from mjlab_rec.sim.sim_data import as_tensor as _to_torch
from mjlab_rec.sim.warp_start import say_if_compiling as _say_if_compiling
from mjlab_rec.sim.warp_start import start_warp as _start_warp
from mjlab_rec.utils.extras import MissingExtraError

_log = logging.getLogger(__name__)

_KINDS = list(HEALTH_KINDS)
if not hasattr(mjw, "OverflowType"):
    raise MissingExtraError(
        "The engine 'warp' needs MuJoCo-Warp 3.14 or newer, but"
        f" {importlib.metadata.version('mujoco-warp')} is installed:"
        " pip install --upgrade 'mujoco-warp>=3.14'. If another package needs the installed"
        " version, as mjlab does, install mjlab_rec once more, in a virtual environment of its own."
    )
_OVERFLOWS = {
    "contacts": mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD,
    "constraints": mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ,
    "contact_matches": mjw.OverflowType.CONTACT_MATCH,
    "height_field": mjw.OverflowType.HFIELD,
}
_CONTACTS, _CONSTRAINTS, _MATCHES, _HFIELD = (int(bits) for bits in _OVERFLOWS.values())
# Conditional graph nodes, which capture the solver's loop, need this driver.
_GRAPH_DRIVER = (12, 4)


@wp.kernel(enable_backward=False)
def _check_health(
    qpos: wp.array2d(dtype=float),  # type: ignore[valid-type]
    qvel: wp.array2d(dtype=float),  # type: ignore[valid-type]
    overflow: wp.array(dtype=int),  # type: ignore[valid-type]
    counts: wp.array(dtype=int),  # type: ignore[valid-type]
):
    """Count worlds with problems, in the order of HEALTH_KINDS."""
    world = wp.tid()
    finite = bool(True)
    for i in range(qpos.shape[1]):
        finite = finite and wp.isfinite(qpos[world, i])
    for i in range(qvel.shape[1]):
        finite = finite and wp.isfinite(qvel[world, i])
    if not finite:
        wp.atomic_add(counts, 0, 1)
    bits = overflow[world]
    overflow[world] = 0  # MuJoCo-Warp only adds bits until the world's reset.
    if bits & _CONTACTS:
        wp.atomic_add(counts, 1, 1)
    if bits & _CONSTRAINTS:
        wp.atomic_add(counts, 2, 1)
    if bits & _MATCHES:
        wp.atomic_add(counts, 3, 1)
    if bits & _HFIELD:
        wp.atomic_add(counts, 4, 1)


class WarpEngine:
    """Worlds that MuJoCo-Warp steps in single precision.

    Step, forward and reset are captured once as graphs, on CUDA and on the CPU, and replayed: the
    hundreds of launches of a step would cost more than its arithmetic. A graph holds the addresses
    of the arrays it was captured with, so code that replaces an array drops the graphs, and the
    next call captures new ones.
    """

    name = "warp"
    state_dtype = torch.float32

    def __init__(
        self,
        num_envs: int,
        cfg: SimulationCfg,
        model: mujoco.MjModel,
        device: torch.device,
        use_graphs: bool = True,
    ) -> None:
        _start_warp()
        self._num_envs = num_envs
        self._mj_model = model
        self._torch_device = device
        self._device = wp.device_from_torch(device)
        self._streams: dict[int, wp.Stream] = {}
        self._graphs: dict[str, Any] = {}
        self._use_graphs = use_graphs and self._graphs_work()
        with self._scope(), _say_if_compiling():
            self._model, self._data = _put(num_envs, cfg, model)
            self._bridge = WarpBridge(self._data)
            self._has_late_act = model.na > model.nu
            self._counts = wp.zeros(len(HEALTH_KINDS), dtype=int)
            self._mask_array = wp.zeros(num_envs, dtype=bool)
            self.health = wp.to_torch(self._counts)
            self.mask = wp.to_torch(self._mask_array)
            self._bound: dict[str, torch.Tensor] = {}
            self._layout = state_layout(model)
            self._state = [self._state_field(field.name) for field in self._layout]
            self._act = _to_torch(self._data.act)
            self.per_world: set[str] = set()
            self._load_modules()
        self.health_cures = {
            "diverged": "Reduce SimulationCfg.mujoco.timestep, or soften gains and contacts.",
            "contacts": "Raise SimulationCfg.nconmax: "
            f"it is {self._data.naconmax // num_envs} now.",
            "constraints": f"Raise SimulationCfg.njmax: it is {self._data.njmax} now.",
            "contact_matches": "Raise SimulationCfg.contact_sensor_maxmatch: "
            f"it is {cfg.contact_sensor_maxmatch} now.",
            "height_field": "Make the height field coarser, or the geom smaller.",
        }

    def step(self, n: int) -> None:
        """Take n physics steps."""
        for _ in range(n):
            self._run("step", self._step)

    def forward(self, masked: bool) -> None:
        """Refresh derived fields; MuJoCo-Warp updates all worlds, so the others are restored."""
        if not masked:
            self._run("forward", self._forward)
            return
        with self._unchanged(~self.mask):
            self._run("forward", self._forward)

    def reset(self) -> None:
        """Reset the worlds in `mask` to the model's initial state."""
        self._run("reset", self._reset)
        if self._has_late_act:
            # MuJoCo-Warp clears no more activations than there are controls.
            self._act.masked_fill_(self.mask[:, None], 0.0)

    def bind(self, name: str) -> torch.Tensor:
        """Return a data field, which is the engine's own memory."""
        if name not in self.data_fields():
            raise KeyError(name)
        tensor = self._bound[name] = _to_torch(getattr(self._data, name))
        return tensor

    def precise(self, name: str) -> torch.Tensor:
        """Return a copy in float32, which MuJoCo-Warp calculates in."""
        return (self._bound[name] if name in self._bound else self.bind(name)).clone()

    def derived(self) -> list[str]:
        """The bound fields that are not part of the state."""
        state = {field.name for field in state_layout(self._mj_model)}
        return [name for name in self._bound if name not in state]

    def show_derived(self, name: str, values: torch.Tensor) -> None:
        """Write into MuJoCo-Warp's array."""
        (self._bound[name] if name in self._bound else self.bind(name)).copy_(values)

    def data_fields(self) -> list[str]:
        """Names of MuJoCo-Warp's data arrays with an axis for the worlds."""
        return list(_array_fields(mjw.Data, "nworld"))

    def can_expand(self, field: str) -> bool:
        """Whether MuJoCo-Warp has an axis for the worlds in this field."""
        return field in _array_fields(mjw.Model, "*")

    def data_struct(self, name: str) -> Any:
        """Contacts, constraints and their numbers, as MuJoCo-Warp keeps them."""
        value = getattr(self._data, name, None)
        if value is None or callable(value):
            raise KeyError(name)
        return TorchArray(value) if isinstance(value, wp.array) else getattr(self._bridge, name)

    def model_struct(self, name: str) -> Any:
        """MuJoCo-Warp's options or statistics; the numbers have a row per world."""
        if not hasattr(self._model, name):
            raise AttributeError(f"This version of MuJoCo-Warp has no model.{name}.")
        return getattr(WarpBridge(self._model, self._num_envs), name)

    @property
    def wp_model(self) -> mjw.Model:
        """MuJoCo-Warp's model."""
        return self._model

    @property
    def wp_data(self) -> mjw.Data:
        """MuJoCo-Warp's data."""
        return self._data

    def forget_graphs(self) -> None:
        """Capture the graphs again at the next calls."""
        self._graphs.clear()

    def expand(self, fields: list[str]) -> None:
        """Expand model fields to an array with a row per world."""
        batched = _array_fields(mjw.Model, "*")
        for name in fields:
            if name not in batched:
                raise ValueError(
                    f"The model field {name!r} cannot have a value per world on the engine "
                    "'warp': MuJoCo-Warp shares one between all worlds."
                )
        with self._scope():
            for name in fields:
                self._replicate(self._model, name)
        self.per_world.update(fields)

    def model_field(self, name: str) -> torch.Tensor:
        """The per-world array."""
        tensor = _to_torch(getattr(self._model, name))
        return tensor if tensor.numel() else tensor.new_empty((self._num_envs, *tensor.shape[1:]))

    def recompute(self, level: RecomputeLevel) -> None:
        """Recompute derived constants, which all get a row per world first."""
        names = derived_constants(level)
        with self._scope():
            for name in names:
                self._replicate(self._model, name)
            if stat := getattr(self._model, "stat", None):  # MuJoCo-Warp 4 has none.
                self._replicate(stat, "meaninertia")
            self.per_world.update(names)
            with self._unchanged(None):
                self._set_const(level)

    def get_state(self, out: torch.Tensor) -> None:
        """Concatenate the state fields."""
        torch.cat([field.reshape(self._num_envs, -1) for field in self._state], dim=1, out=out)

    def set_state(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """Overwrite the state fields of worlds and refresh their derived fields."""
        for place, field in zip(self._layout, self._state, strict=True):
            values = rows[:, place.columns].view(len(ids), *field.shape[1:])
            field[ids] = values.to(field.dtype)
        self.mask.fill_(False)
        self.mask[ids] = True
        self.forward(masked=len(ids) < self._num_envs)

    def cameras(self, look: CameraLook) -> Cameras:
        """Draw the cameras from this engine's own arrays."""
        from mjlab_rec.sim.warp_cameras import WarpCameras
        from mjlab_rec.sim.warp_renderer import drawn_model, own_colors

        return WarpCameras(
            drawn_model(
                self._mj_model, own_colors(self.per_world, lambda: self.model_field("geom_rgba"))
            ),
            look,
            self._num_envs,
            self._model,
            self._data,
            self._scope,
            self.per_world,
        )

    def _set_const(self, level: RecomputeLevel) -> None:
        model, data = self._model, self._data
        groups: Any = getattr(mjw, "SetConstGroup", None)  # From MuJoCo-Warp 4 on.
        if groups is not None:
            fixed = level == RecomputeLevel.set_const_fixed
            mjw.set_const(model, data, **{"groups": groups.FIXED if fixed else groups.ALL})
        elif level == RecomputeLevel.set_const:
            mjw.set_const(model, data)
        else:
            mjw.set_const_fixed(model, data)
            if level == RecomputeLevel.set_const_0:
                mjw.set_const_0(model, data)

    def _step(self) -> None:
        mjw.step(self._model, self._data)
        data = self._data
        wp.launch(
            _check_health,
            dim=self._num_envs,
            inputs=[data.qpos, data.qvel, data.overflow],
            outputs=[self._counts],
        )

    def _forward(self) -> None:
        mjw.forward(self._model, self._data)

    def _reset(self) -> None:
        mjw.reset_data(self._model, self._data, reset=self._mask_array)

    def _run(self, name: str, function: Callable[[], None]) -> None:
        """Replay an operation on torch's current stream, or run it where graphs do not work."""
        if not self._use_graphs:
            with self._scope():
                function()
            return
        graph = self._graphs.get(name)
        if graph is None:
            graph = self._graphs[name] = self._capture(function)
        wp.capture_launch(graph, stream=self._stream())

    def _capture(self, function: Callable[[], None]) -> Any:
        # A garbage collection during the capture would record the freeing of older graphs' memory.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with wp.ScopedDevice(self._device), wp.ScopedCapture() as capture:
                function()
        finally:
            if collecting:
                gc.enable()
        return capture.graph

    def _load_modules(self) -> None:
        """Run everything once: kernels compile or load on first use, which a capture cannot do."""
        start = torch.empty(
            (self._num_envs, self._layout[-1].columns.stop), device=self._torch_device
        )
        self.get_state(start)
        self._step()
        self._reset()
        self._counts.zero_()
        self._data.overflow.zero_()
        use_graphs, self._use_graphs = self._use_graphs, False
        self.set_state(start, torch.arange(self._num_envs, device=self._torch_device))
        self._use_graphs = use_graphs

    def _replicate(self, owner: Any, name: str) -> None:
        array = getattr(owner, name)
        if array.shape[0] == self._num_envs or not array.size:
            return
        rows = wp.empty((self._num_envs, *array.shape[1:]), dtype=array.dtype)
        _to_torch(rows).copy_(_to_torch(array))
        # MuJoCo-Warp marks arrays with a row per world like this.
        rows._is_batched = True  # type: ignore[attr-defined]
        setattr(owner, name, rows)
        self._graphs.clear()

    @contextmanager
    def _unchanged(self, worlds: torch.Tensor | None) -> Iterator[None]:
        """Restore the data fields in use to earlier values, in these worlds or all."""
        kept = {name: field.clone() for name, field in self._bound.items()}
        yield
        for name, values in kept.items():
            field = self._bound[name]
            if worlds is not None:
                chosen = worlds.view(-1, *[1] * (field.ndim - 1))
                values = torch.where(chosen, values, field)
            field.copy_(values)

    def _state_field(self, name: str) -> torch.Tensor:
        return _to_torch(getattr(self._data, name))

    def _stream(self) -> wp.Stream | None:
        """Return torch's stream: on it torch and warp see each other's writes in order."""
        if self._torch_device.type == "cpu":
            return None
        current = torch.cuda.current_stream(self._torch_device)
        stream = self._streams.get(current.cuda_stream)
        if stream is None:
            stream = self._streams[current.cuda_stream] = wp.stream_from_torch(current)
        return stream

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """Make warp launch on this device and on torch's current stream."""
        with wp.ScopedDevice(self._device):
            stream = self._stream()
            if stream is None:
                yield
            else:
                with wp.ScopedStream(stream):
                    yield

    def _graphs_work(self) -> bool:
        if self._device.is_cpu:
            return True
        driver = wp.get_cuda_driver_version()
        if wp.is_mempool_enabled(self._device) and driver is not None and driver >= _GRAPH_DRIVER:
            return True
        _log.warning(
            "CUDA graphs need driver %s or newer (this one is %s) and memory pools: simulating "
            "without them, which is slow. Update the GPU driver.",
            ".".join(map(str, _GRAPH_DRIVER)),
            "unknown" if driver is None else ".".join(map(str, driver)),
        )
        return False


def _put(num_envs: int, cfg: SimulationCfg, model: mujoco.MjModel) -> tuple[mjw.Model, mjw.Data]:
    """Copy the model and its initial state to the device, explaining what does not work."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        warp_model = mjw.put_model(model)
    except (NotImplementedError, ValueError) as error:
        pgs = model.opt.solver == mujoco.mjtSolver.mjSOL_PGS
        cure = (
            "Use MujocoCfg(solver='newton')" if pgs else "Change the model or SimulationCfg.mujoco"
        )
        raise ValueError(
            f"The engine 'warp' cannot simulate this model: {error} {cure};"
            " on the CPU, SimulationCfg(engine='mjbatch') is C MuJoCo."
        ) from error
    options: Any = warp_model.opt
    options.warn_overflow = 0  # Simulation.health logs it once, not once per world
    options.contact_sensor_maxmatch = cfg.contact_sensor_maxmatch
    if cfg.broadphase is not None:
        options.broadphase = mjw.BroadphaseType[cfg.broadphase.upper()]
    if cfg.broadphase_filter is not None:
        options.broadphase_filter = mjw.BroadphaseFilter(0)
        for name in cfg.broadphase_filter:
            options.broadphase_filter |= mjw.BroadphaseFilter[name.upper()]
    try:
        warp_data = mjw.put_data(model, data, nworld=num_envs, nconmax=cfg.nconmax, njmax=cfg.njmax)
    except ValueError as error:
        raise ValueError(
            f"The buffers are too small even for the initial state: {error}. Raise "
            f"SimulationCfg.nconmax (now {cfg.nconmax}) or .njmax (now {cfg.njmax})."
        ) from error
    return warp_model, warp_data


def _array_fields(struct: type, first_axis: str) -> dict[str, Any]:
    """Return the array fields of a MuJoCo-Warp struct whose first axis is declared like this."""
    fields = struct.__dataclass_fields__.values()  # type: ignore[attr-defined]
    return {
        field.name: field.type
        for field in fields
        if isinstance(field.type, wp.array) and field.type.shape[:1] == (first_axis,)
    }
