"""The interface of physics engines for `Simulation`, and what the implementations share.

Both engines use the same names and shapes: MuJoCo's names, a leading axis for the worlds, rotation
matrices as (3, 3), float32 numbers, and a state vector in the order of MuJoCo's mj_getState.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
import torch

from mjlab_rec.sim.cameras import CameraLook, Cameras
from mjlab_rec.sim.cfg import RecomputeLevel

HEALTH_KINDS = {
    "diverged": "The state of a world became NaN or infinite, and stays so until its reset.",
    "contacts": "There were more contacts than fit into the buffer; some were ignored.",
    "constraints": "There were more constraints than fit into the buffer; some were ignored.",
    "contact_matches": "A contact sensor found more contacts than it considers.",
    "height_field": "A geom touched more of a height field than fits into the buffer.",
}
"""What the elements of `Simulation.health()` count, and the message for each."""

_LAST_AXES = {
    "xmat": (3, 3),
    "ximat": (3, 3),
    "geom_xmat": (3, 3),
    "site_xmat": (3, 3),
    "cam_xmat": (3, 3),
    "cam_mat0": (3, 3),
    "geom_aabb": (2, 3),
}

# Numbers of the model that MuJoCo-Warp shares between all worlds.
_SHARED_PREFIXES = ("mesh_", "hfield_", "key_", "flex", "skin_", "tex_", "oct_", "numeric_")
_SHARED_PREFIXES += ("wrap_", "tuple_", "bvh_", "text_", "plugin_", "actuator_plugin")
_SHARED_NAMES = {"geom_fluid", "site_size", "dof_length", "cam_sensorsize", "site_rgba"}
_SHARED_NAMES |= {
    "sensor_cutoff",
    "sensor_noise",
    "tendon_rgba",
    "tendon_width",
    "actuator_length0",
    "actuator_damping",
}

_CONSTANTS_FIXED = ("body_subtreemass",)
_CONSTANTS_0 = (
    "dof_invweight0",
    "body_invweight0",
    "tendon_length0",
    "tendon_invweight0",
    "eq_data",
    "cam_pos0",
    "cam_poscom0",
    "cam_mat0",
    "light_pos0",
    "light_poscom0",
    "light_dir0",
    "actuator_acc0",
    "actuator_biasprm",
)
_CONSTANTS_SPRING = ("tendon_lengthspring",)

# MuJoCo computes these only for the sensors that need them; otherwise they stay zero.
_ACCELERATION_SENSORS = ("accelerometer", "force", "torque", "framelinacc", "frameangacc")
_SUBTREE_SENSORS = ("subtreelinvel", "subtreeangmom")
_COMPUTED_FOR_SENSORS = {
    "cacc": _ACCELERATION_SENSORS,
    "cfrc_int": _ACCELERATION_SENSORS,
    "cfrc_ext": _ACCELERATION_SENSORS,
    "subtree_linvel": _SUBTREE_SENSORS,
    "subtree_angmom": _SUBTREE_SENSORS,
}


class Engine(Protocol):
    """N worlds of one model. `Simulation` is its only caller.

    `mask` is an argument that the caller fills in place, so that no call allocates.
    """

    name: str
    mask: torch.Tensor  # (num_envs,) bool
    health: torch.Tensor  # (len(HEALTH_KINDS),) int32, counts up until cleared
    health_cures: dict[str, str]
    per_world: set[str]
    state_dtype: torch.dtype

    def step(self, n: int) -> None:
        """Take n physics steps. Derived fields then date from the beginning of the last step."""

    def forward(self, masked: bool) -> None:
        """Update derived fields from the state, in all worlds or those in `mask`."""

    def reset(self) -> None:
        """Reset the worlds in `mask` to the model's initial state, dropping earlier writes."""

    def bind(self, name: str) -> torch.Tensor:
        """The live tensor of a data field; KeyError if there is none."""
        ...

    def precise(self, name: str) -> torch.Tensor:
        """A copy of a data field in the engine's own precision; KeyError if there is none."""
        ...

    def derived(self) -> list[str]:
        """The derived data fields that are in use."""
        ...

    def show_derived(self, name: str, values: torch.Tensor) -> None:
        """Fill a derived field until it is next computed."""

    def data_fields(self) -> list[str]:
        """Names that `bind` knows, for error messages."""
        ...

    def can_expand(self, field: str) -> bool:
        """Whether a model field can have a value per world."""
        ...

    def data_struct(self, name: str) -> Any:
        """Data without an axis for the worlds, such as contacts; KeyError if there are none."""

    def model_struct(self, name: str) -> Any:
        """Options ("opt") or statistics ("stat"), whose numbers have a row per world."""

    def forget_graphs(self) -> None:
        """Notice that a caller replaced arrays of the engine."""

    def expand(self, fields: list[str]) -> None:
        """Give model fields a value per world; they join `per_world`."""

    def model_field(self, name: str) -> torch.Tensor:
        """The live tensor of a model field that is in `per_world`."""
        ...

    def recompute(self, level: RecomputeLevel) -> None:
        """Recompute derived constants in every world; they join `per_world`."""

    def get_state(self, out: torch.Tensor) -> None:
        """Copy out everything the integration depends on, including writes not yet simulated."""

    def set_state(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """Overwrite the state of worlds, and update their derived fields."""

    def cameras(self, look: CameraLook) -> Cameras:
        """Make what draws the model's cameras. Fields expanded later need a new one."""
        ...


@dataclass(frozen=True)
class StateField:
    """Position of a data field in the state vector."""

    name: str
    columns: slice


def state_layout(model: mujoco.MjModel) -> list[StateField]:
    """The non-empty parts of the state vector, in the order of mj_getState."""
    bits = mujoco.mjtState
    named = {
        int(getattr(bits, n)): n.removeprefix("mjSTATE_").lower()
        for n in dir(bits)
        if n.startswith("mjSTATE_")
    }
    named[int(bits.mjSTATE_WARMSTART)] = "qacc_warmstart"
    named[int(bits.mjSTATE_PLUGIN)] = "plugin_state"
    fields, start = [], 0
    for i in range(int(bits.mjNSTATE)):
        size = mujoco.mj_stateSize(model, 1 << i)
        if size:
            fields.append(StateField(named[1 << i], slice(start, start + size)))
            start += size
    return fields


def uniform_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a field in both engines, given MuJoCo's own."""
    last = _LAST_AXES.get(name)
    if last is None or shape[-1] != math.prod(last):
        return shape
    return (*shape[:-1], *last)


def has_world_axis(name: str, value: np.ndarray) -> bool:
    """Return whether a model field has a world axis: numbers have one, ids and types do not."""
    return (
        value.dtype.kind == "f"
        and name not in _SHARED_NAMES
        and not name.startswith(_SHARED_PREFIXES)
        and not name.endswith("_user")
    )


def derived_constants(level: RecomputeLevel) -> tuple[str, ...]:
    """The model fields that a recompute level may change."""
    names: tuple[str, ...] = ()
    if level >= RecomputeLevel.set_const_fixed:
        names += _CONSTANTS_FIXED
    if level >= RecomputeLevel.set_const_0:
        names += _CONSTANTS_0
    if level >= RecomputeLevel.set_const:
        names += _CONSTANTS_SPRING
    return names


def array_names(struct: mujoco.MjModel | mujoco.MjData) -> list[str]:
    """The names of a MuJoCo struct's arrays."""
    names = [name for name in dir(struct) if not name.startswith("_")]
    return [name for name in names if isinstance(getattr(struct, name), np.ndarray)]


def why_not_computed(name: str, model: mujoco.MjModel) -> str | None:
    """Return an explanation if MuJoCo leaves this data field at zero for lack of a sensor."""
    kinds = _COMPUTED_FOR_SENSORS.get(name)
    if kinds is None:
        return None
    wanted = [int(getattr(mujoco.mjtSensor, f"mjSENS_{kind.upper()}")) for kind in kinds]
    if np.isin(model.sensor_type, wanted).any():
        return None
    return (
        f"MuJoCo computes {name!r} only for sensors that need it, and this model has none: it "
        f"would stay zero. Add a sensor of one of these types: {', '.join(kinds)}."
    )


def reject_common(model: mujoco.MjModel) -> None:
    """Refuse models that neither engine can replay exactly."""
    if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
        raise ValueError(
            "Sleeping islands (enableflag 'sleep') are not supported: what sleeps is not part of "
            "MuJoCo's state vector, so a saved state would not replay. Remove the flag."
        )
