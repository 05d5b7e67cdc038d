"""The CPU engine: C MuJoCo on a pool of threads, by the mjbatch package."""

from __future__ import annotations

import logging
from typing import Any

import mjbatch
import mujoco
import numpy as np
import torch

from mjlab_rec.sim.cameras import CameraLook, Cameras
from mjlab_rec.sim.cfg import RecomputeLevel, SimulationCfg
from mjlab_rec.sim.engine import (
    HEALTH_KINDS,
    array_names,
    derived_constants,
    state_layout,
    uniform_shape,
)
from mjlab_rec.sim.mjbatch_rk4 import SENSED, Rk4Step
from mjlab_rec.sim.views import SharedStruct
from mjlab_rec.utils.threads import usable_cores

_log = logging.getLogger(__name__)

_WARNINGS = mujoco.mjtWarning
_KINDS = list(HEALTH_KINDS)
# Worlds whose counters changed since the last check are searched for these.
_WATCHED = slice(int(_WARNINGS.mjWARN_CONTACTFULL), int(_WARNINGS.mjNWARNING))
_CONTACTS = int(_WARNINGS.mjWARN_CONTACTFULL) - _WATCHED.start
_CONSTRAINTS = int(_WARNINGS.mjWARN_CNSTRFULL) - _WATCHED.start
_DIVERGED = slice(int(_WARNINGS.mjWARN_BADQPOS) - _WATCHED.start, None)
_WARP_ONLY = {"contact", "nacon", "naconmax", "ncollision", "ncon", "nefc", "ne", "nf", "nl"}
_WARP_ONLY |= {"efc", "njmax", "collision_pair", "collision_worldid", "solver_niter"}
# Offsets within a body, and the shortcuts that MuJoCo's compiler takes where they are zero.
_PLACES = {"body_ipos", "body_iquat", "geom_pos", "geom_quat", "site_pos", "site_quat"}
_ASSETS = ("mesh_", "bvh_", "hfield_", "tex_", "skin_", "flex", "oct_")
_SHORTCUTS = ("body_sameframe", "geom_sameframe", "site_sameframe")


# With fewer, C MuJoCo's line search sometimes stops far from the minimum (MuJoCo-Warp's does not):
# a single step may then be off by more than 1 rad/s. This many is MuJoCo's own default, and a step
# takes no longer for it, because the search ends where it has converged.
_LEAST_LS_ITERATIONS = 50


class MjbatchEngine:
    """Worlds that are stepped in double precision and exposed in single precision.

    The state is one row per world in `_state`. Input fields (qpos, ctrl, ...) are float32 copies:
    mjbatch detects the elements that were written since its last call and applies only these, so
    reading costs no precision. Derived fields are copied out only if they are bound.
    """

    name = "mjbatch"
    state_dtype = torch.float64

    def __init__(self, num_envs: int, cfg: SimulationCfg, model: mujoco.MjModel) -> None:
        _quiet_mujoco()
        model.opt.ls_iterations = max(model.opt.ls_iterations, _LEAST_LS_ITERATIONS)
        try:
            self._batch = mjbatch.Batch(model, num_envs, cfg.num_threads or usable_cores())
        except ValueError as error:
            raise ValueError(
                f"The engine 'mjbatch' cannot simulate this model: {error}. Change the model, or "
                "use SimulationCfg(engine='warp')."
            ) from error
        self._model = model
        self._num_envs = num_envs
        self._layout = {field.name: field.columns for field in state_layout(model)}
        self._state_array = self._batch.bind("state")
        self._state = torch.from_numpy(self._state_array)
        self._inputs: dict[str, torch.Tensor] = {}
        self._derived: dict[str, torch.Tensor] = {}
        # Derived fields that mjbatch has in double precision, and what is shown of them.
        self._doubles: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.per_world: set[str] = set()

        self._mask_array = np.zeros(num_envs, dtype=bool)
        self.mask = torch.from_numpy(self._mask_array)
        self.health = torch.zeros(len(HEALTH_KINDS), dtype=torch.int32)
        self.health_cures = {
            "diverged": "Reduce SimulationCfg.mujoco.timestep, or soften gains and contacts.",
            "contacts": "Raise <size memory=...> in the model (spec.memory).",
            "constraints": "Raise <size memory=...> in the model (spec.memory).",
        }
        self._warnings = self._batch.bind("warning")  # (num_envs, kinds, (last info, number))
        self._alarms = self._warnings[:, _WATCHED, 1]

        # The state that the last step started from, its number of substeps (0 after a forward), and
        # the worlds whose derived fields still date from it.
        self._old_state = np.zeros_like(self._state_array)
        self._old_inputs: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # copy and original
        self._old_n = 0
        self._lagging = np.zeros(num_envs, dtype=bool)
        self._rk4: Rk4Step | None = None
        if Rk4Step.suits(model, self._layout):
            self._bind_derived("qacc", double=True)
            qacc, _ = self._doubles["qacc"]
            self._rk4 = Rk4Step(model, self._state_array, self._layout, qacc, self._batch.forward)

    def step(self, n: int) -> None:
        """Take n physics steps."""
        np.copyto(self._old_state, self._state_array)
        for copy, original in self._old_inputs.values():
            np.copyto(copy, original)
        self._old_n = n
        self._lagging.fill(True)
        try:
            self._advance(n)
        except RuntimeError as error:
            raise RuntimeError(
                f"MuJoCo could not step: {error}\nIf memory ran out, raise <size memory=...> in "
                "the model (spec.memory)."
            ) from error
        if np.count_nonzero(self._alarms):
            self._take_note()

    def _advance(self, n: int) -> None:
        """Take n physics steps, after which all derived fields date from the same moment."""
        if self._rk4 is None or SENSED.isdisjoint(self._derived):
            self._batch.step(nstep=n)
        else:
            if n > 1:
                self._batch.step(nstep=n - 1)
            with np.errstate(all="ignore"):
                diverged = self._rk4.step(self._derived_arrays())
            self._warnings[diverged, int(_WARNINGS.mjWARN_BADQPOS), 1] += 1
        self._show_doubles()

    def forward(self, masked: bool) -> None:
        """Refresh derived fields; if none is bound there is nothing to do."""
        if self._derived:
            self._batch.forward(self._mask_array if masked else None)
            self._show_doubles()
        if masked:
            self._lagging[self._mask_array] = False
        else:
            self._old_n = 0

    def reset(self) -> None:
        """Reset the worlds in `mask` to the model's initial state."""
        # Writes that no call has applied yet survive a reset. The first reset applies them, the
        # second one clears them.
        self._batch.reset(self._mask_array)
        self._batch.reset(self._mask_array)
        self._show_doubles()
        self._lagging[self._mask_array] = False

    def bind(self, name: str) -> torch.Tensor:
        """Bind a data field, filled as if it had been bound from the beginning."""
        if name in self._layout:
            tensor = self._inputs[name] = self._bind_tensor(name)
            # The field cannot have been written before the last step.
            old = torch.from_numpy(self._old_state)[:, self._layout[name]].to(tensor.dtype)
            self._old_inputs[name] = (old.view(tensor.shape).numpy(), tensor.numpy())
            return tensor
        if name in self._derived:
            return self._derived[name]
        return self._bind_derived(name, double=False)

    def precise(self, name: str) -> torch.Tensor:
        """Return a copy of a data field, in double precision if it was not bound in single."""
        if name in self._layout:
            if name not in self._inputs:
                self.bind(name)
            shown = self._old_inputs[name][1]
            rows = self._state_array[:, self._layout[name]].copy()
            _overlay(rows, shown)
            return torch.from_numpy(rows.reshape(shown.shape))
        field = self._derived[name] if name in self._derived else self._bind_derived(name, True)
        if name not in self._doubles:
            return field.clone()
        return torch.from_numpy(self._doubles[name][0].copy().reshape(field.shape))

    def derived(self) -> list[str]:
        """The bound fields that are not part of the state."""
        return list(self._derived)

    def show_derived(self, name: str, values: torch.Tensor) -> None:
        """Write what is shown of a field, and its double if there is one."""
        if name not in self._derived:
            self._bind_derived(name, double=values.dtype == torch.float64)
        self._derived[name].copy_(values)
        if name in self._doubles:
            array = self._doubles[name][0]
            array[...] = values.numpy().reshape(array.shape)

    def _bind_derived(self, name: str, double: bool) -> torch.Tensor:
        """Bind a field, filled as if it had been bound from the beginning, and no other changes."""
        arrays = self._derived_arrays()
        kept = [array.copy() for array in arrays]
        tensor = self._bind_double(name) if double else self._bind_tensor(name)
        self._derived[name] = tensor
        if self._old_n and self._lagging.any():
            self._repeat_last_step(name, tensor)
        else:
            self._batch.forward()
            self._show_doubles()
        for array, values in zip(arrays, kept, strict=True):
            np.copyto(array, values)
        return tensor

    def _derived_arrays(self) -> list[np.ndarray]:
        arrays = [tensor.numpy() for tensor in self._derived.values()]
        return arrays + [array for array, _ in self._doubles.values()]

    def data_fields(self) -> list[str]:
        """Names of MuJoCo's data arrays."""
        return array_names(mujoco.MjData(self._model))

    def can_expand(self, field: str) -> bool:
        """Whether a model field can have a value per world: all can but the data of assets."""
        return not field.startswith(_ASSETS)

    def data_struct(self, name: str) -> Any:
        """Explain that mjbatch keeps contacts and constraints to itself."""
        if name in _WARP_ONLY or name.startswith("efc_"):
            raise AttributeError(
                f"sim.data.{name} exists on the engine 'warp' only: mjbatch does not give out"
                " contacts and constraints. A ContactSensor reads contacts on both engines;"
                " otherwise use SimulationCfg(engine='warp')."
            )
        raise KeyError(name)

    def model_struct(self, name: str) -> Any:
        """The model's options or statistics, which all worlds share."""
        return SharedStruct(getattr(self._model, name), f"sim.model.{name}", self._num_envs)

    def forget_graphs(self) -> None:
        """There are no graphs."""

    def expand(self, fields: list[str]) -> None:
        """Expand model fields to a value per world."""
        for name in fields:
            if self._expand_array(name).dtype == np.float64:
                raise ValueError(
                    f"The model field {name!r} already got a value per world from "
                    "recompute_constants. Expand it before the first call to that."
                )
            self.per_world.add(name)
        if not _PLACES.isdisjoint(fields):
            # MuJoCo copies the body's frame where the compiled offset was zero; now it may be
            # nonzero.
            for shortcut in _SHORTCUTS:
                self._batch.expand(shortcut)[:] = 0

    def model_field(self, name: str) -> torch.Tensor:
        """The per-world array; for derived constants, which MuJoCo keeps in float64, a copy."""
        array = self._expand_array(name)
        tensor = torch.from_numpy(array).view(uniform_shape(name, array.shape))
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    def recompute(self, level: RecomputeLevel) -> None:
        """Recompute all constants: MuJoCo has only one function for this."""
        self._batch.set_const()
        self.per_world.update(derived_constants(level))

    def get_state(self, out: torch.Tensor) -> None:
        """Copy the state rows, including pending writes as the next call would apply them."""
        rows = out.numpy()
        np.copyto(rows, self._state_array)
        for name, (_, original) in self._old_inputs.items():
            _overlay(rows[:, self._layout[name]], original)

    def set_state(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """Overwrite state rows and refresh everything bound."""
        # Revert pending writes, or they would be applied on top of the new rows.
        for name, field in self._inputs.items():
            saved = self._state[ids, self._layout[name]]
            field[ids] = saved.to(field.dtype).view(len(ids), *field.shape[1:])
        self._state[ids] = rows
        self.mask.fill_(False)
        self.mask[ids] = True
        self._batch.forward(self._mask_array)
        self._show_doubles()
        self._lagging[self._mask_array] = False

    def cameras(self, look: CameraLook) -> Cameras:
        """Draw the cameras with MuJoCo-Warp on the CPU, from this engine's own arrays."""
        from mjlab_rec.sim.warp_cameras import LOOKS, PLACES, cameras_on_cpu

        return cameras_on_cpu(
            self._model,
            look,
            self._num_envs,
            places={name: self.bind(name) for name in PLACES},
            looks={name: self.model_field(name) for name in LOOKS if name in self.per_world},
            num_threads=self._batch.num_threads,
        )

    def _bind_tensor(self, name: str) -> torch.Tensor:
        try:
            array = self._batch.bind(name, np.float32)
        except ValueError:
            try:
                array = self._batch.bind(name)
            except ValueError:
                raise KeyError(name) from None
        return torch.from_numpy(array).view(uniform_shape(name, array.shape))

    def _bind_double(self, name: str) -> torch.Tensor:
        try:
            array = self._batch.bind(name)
        except ValueError:
            raise KeyError(name) from None
        if array.dtype != np.float64:
            return self._bind_tensor(name)
        shown = np.empty(array.shape, np.float32)
        self._doubles[name] = (array, shown)
        return torch.from_numpy(shown).view(uniform_shape(name, array.shape))

    def _show_doubles(self) -> None:
        if not self._doubles:
            return
        with np.errstate(over="ignore"):  # In worlds that diverge.
            for array, shown in self._doubles.values():
                np.copyto(shown, array, casting="same_kind")

    def _expand_array(self, name: str) -> np.ndarray:
        try:
            return self._batch.expand(name, np.float32)
        except ValueError:
            pass  # Not a float, or a constant that set_const keeps in float64.
        try:
            return self._batch.expand(name)
        except ValueError as error:
            raise ValueError(
                f"The model field {name!r} cannot have a value per world on the engine "
                f"'mjbatch': {error}."
            ) from error

    def _repeat_last_step(self, field: str, tensor: torch.Tensor) -> None:
        """Fill a field bound after a step with the values that step would have written."""
        everywhere = torch.arange(self._num_envs)
        mask, lagging, warnings = self.mask.clone(), self._lagging.copy(), self._warnings.copy()
        before, now = self._old_state.copy(), torch.empty_like(self._state)
        for name, (copy, _) in self._old_inputs.items():
            _overlay(before[:, self._layout[name]], copy)
        self.get_state(now)
        self.set_state(torch.from_numpy(before), everywhere)
        self._advance(self._old_n)
        arrays = [tensor.numpy(), *self._doubles.get(field, ())[:1]]
        values = [array[lagging] for array in arrays]
        self.set_state(now, everywhere)
        for array, value in zip(arrays, values, strict=True):
            array[lagging] = value
        self.mask.copy_(mask)
        np.copyto(self._lagging, lagging)
        self._warnings[...] = warnings

    def _take_note(self) -> None:
        """Count MuJoCo's warnings, and set worlds that diverged to NaN.

        MuJoCo resets such a world within the step, which would look like a real transition. NaN
        stays visible until the world is reset.
        """
        alarms = self._alarms != 0
        self._alarms[...] = 0
        diverged = torch.from_numpy(alarms[:, _DIVERGED].any(axis=1))
        for kind, worlds in (
            ("diverged", diverged),
            ("contacts", alarms[:, _CONTACTS]),
            ("constraints", alarms[:, _CONSTRAINTS]),
        ):
            self.health[_KINDS.index(kind)] += int(worlds.sum())
        for name in ("qpos", "qvel"):
            if name not in self._inputs:
                self.bind(name)
            self._inputs[name][diverged] = torch.nan


def _overlay(saved: np.ndarray, field: np.ndarray) -> None:
    """Copy the written elements of an input field into its columns of state rows."""
    shown = field.reshape(len(saved), -1)
    written = shown != saved.astype(shown.dtype)
    if np.count_nonzero(written):  # Five times as fast as any().
        saved[written] = shown[written]


def _quiet_mujoco() -> None:
    """Send MuJoCo's own warnings to the debug log: `Simulation.health` reports what matters.

    By default MuJoCo prints a line for every world and appends it to a file MUJOCO_LOG.TXT.
    """
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: _log.debug("MuJoCo: %s", message))
