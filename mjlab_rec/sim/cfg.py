"""Configuration of the physics: the engine, its buffers and MuJoCo's own options."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import mujoco

from mjlab_rec.utils.nan_guard import NanGuardCfg
from mjlab_rec.utils.string import nearest


class RecomputeLevel(enum.IntEnum):
    """Which of the model's derived constants must be recomputed after a model field changed.

    A higher level includes the lower ones and costs more.
    """

    none = 0
    """Nothing depends on the field (friction, damping, gains)."""
    set_const_fixed = 1
    """Constants independent of the pose: subtree masses (after `body_gravcomp`)."""
    set_const_0 = 2
    """Constants at the reference pose: inverse weights, tendon lengths, actuator accelerations
    (after `dof_armature`, `body_inertia`, `body_pos`, `body_quat`, `qpos0`)."""
    set_const = 3
    """All of them (after `body_mass`, `body_ipos`)."""


@dataclass(kw_only=True)
class MujocoCfg:
    """MuJoCo's options, which override those of the model file."""

    timestep: float = 0.002
    """Duration of one physics step, in seconds."""
    integrator: Literal["euler", "implicitfast", "implicit", "rk4"] = "implicitfast"
    """How the state is advanced."""
    impratio: float = 1.0
    """Ratio of frictional to normal contact impedance; only elliptic cones use it."""
    cone: Literal["pyramidal", "elliptic"] = "pyramidal"
    """Shape of the friction cone."""
    jacobian: Literal["auto", "dense", "sparse"] = "auto"
    """Storage of the constraint Jacobian; `auto` depends on the size of the model."""
    solver: Literal["newton", "cg", "pgs"] = "newton"
    """Constraint solver. MuJoCo-Warp has no `pgs`."""
    iterations: int = 100
    """Most iterations of the constraint solver."""
    tolerance: float = 1e-8
    """Improvement below which the solver stops early. MuJoCo-Warp raises it to 1e-6."""
    ls_iterations: int = 50
    """Most iterations of the solver's line search. `mjbatch` allows at least 50, without which C
    MuJoCo sometimes stops far from the solution."""
    ls_tolerance: float = 0.01
    """Improvement below which the line search stops early."""
    ccd_iterations: int = 50
    """Most iterations of convex collision detection."""
    gravity: tuple[float, float, float] = (0.0, 0.0, -9.81)
    """Gravitational acceleration, in m/s^2."""
    disableflags: tuple[str, ...] = ()
    """Features to switch off, by the names of the XML `<flag>` element, such as `contact`."""
    enableflags: tuple[str, ...] = ()
    """Features to switch on, by the names of the XML `<flag>` element, such as `energy`."""

    @classmethod
    def of(cls, model: mujoco.MjModel) -> MujocoCfg:
        """Return the options of a compiled model, which ``apply`` writes back."""
        opt = model.opt
        names = {
            "integrator": _name(opt.integrator, mujoco.mjtIntegrator, "mjINT_"),
            "cone": _name(opt.cone, mujoco.mjtCone, "mjCONE_"),
            "jacobian": _name(opt.jacobian, mujoco.mjtJacobian, "mjJAC_"),
            "solver": _name(opt.solver, mujoco.mjtSolver, "mjSOL_"),
        }
        return cls(
            timestep=float(opt.timestep),
            impratio=float(opt.impratio),
            iterations=int(opt.iterations),
            tolerance=float(opt.tolerance),
            ls_iterations=int(opt.ls_iterations),
            ls_tolerance=float(opt.ls_tolerance),
            ccd_iterations=int(opt.ccd_iterations),
            gravity=(float(opt.gravity[0]), float(opt.gravity[1]), float(opt.gravity[2])),
            **names,  # pyright: ignore[reportArgumentType]
        )

    def apply(self, model: mujoco.MjModel) -> None:
        """Write these options into a compiled model."""
        opt = model.opt
        opt.timestep = self.timestep
        opt.integrator = _choose("integrator", self.integrator, mujoco.mjtIntegrator, "mjINT_")
        opt.impratio = self.impratio
        opt.cone = _choose("cone", self.cone, mujoco.mjtCone, "mjCONE_")
        opt.jacobian = _choose("jacobian", self.jacobian, mujoco.mjtJacobian, "mjJAC_")
        opt.solver = _choose("solver", self.solver, mujoco.mjtSolver, "mjSOL_")
        opt.iterations = self.iterations
        opt.tolerance = self.tolerance
        opt.ls_iterations = self.ls_iterations
        opt.ls_tolerance = self.ls_tolerance
        opt.ccd_iterations = self.ccd_iterations
        opt.gravity[:] = self.gravity
        opt.disableflags |= _flags(
            "disableflags", self.disableflags, mujoco.mjtDisableBit, "mjDSBL_"
        )
        opt.enableflags |= _flags("enableflags", self.enableflags, mujoco.mjtEnableBit, "mjENBL_")


@dataclass(kw_only=True)
class SimulationCfg:
    """How many worlds are stepped, by which engine, with which buffers."""

    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """`warp` is MuJoCo-Warp (GPU, or CPU with compiled kernels), `mjbatch` is C MuJoCo on CPU
    threads. `auto` uses warp on a GPU, and on the CPU mjbatch if it is installed."""
    num_threads: int | None = None
    """Threads that mjbatch uses; None means one per CPU core that this process may use."""
    nconmax: int | None = None
    """Contacts that warp allocates, per world on average; None means its own estimate."""
    njmax: int | None = None
    """Constraint rows that warp allocates in each world; None means its own estimate."""
    contact_sensor_maxmatch: int = 64
    """Contacts that one of warp's contact sensors can choose from."""
    broadphase: Literal["nxn", "sap_tile", "sap_segmented"] | None = None
    """How warp finds the pairs of geoms to examine; None means its own choice."""
    broadphase_filter: tuple[Literal["plane", "sphere", "aabb", "obb"], ...] | None = None
    """Bounding volumes with which warp discards pairs; None means its own choice."""
    ls_parallel: bool | None = None
    """Has no effect: MuJoCo-Warp's parallel line search is gone. Setting it warns."""
    mujoco: MujocoCfg = field(default_factory=MujocoCfg)
    """MuJoCo's options."""
    nan_guard: NanGuardCfg = field(default_factory=NanGuardCfg)
    """Write the steps that led to a NaN. The environment does this, not the simulation alone."""

    def __post_init__(self) -> None:
        if self.ls_parallel is not None:
            warnings.warn(
                "SimulationCfg.ls_parallel has no effect: MuJoCo-Warp's parallel line search is"
                " gone. Remove it.",
                DeprecationWarning,
                stacklevel=3,
            )


def enum_names(members: Iterable[str], prefix: str) -> dict[str, str]:
    """Map the lower-case part behind a prefix to the full names of enum members."""
    return {n.removeprefix(prefix).lower(): n for n in members if n.startswith(prefix)}


def _choose(option: str, value: str, enum_type: type, prefix: str) -> int:
    names = enum_names(dir(enum_type), prefix)
    if value not in names:
        raise ValueError(f"Unknown {option} {value!r} in MujocoCfg. {nearest(value, list(names))}")
    return int(getattr(enum_type, names[value]))


def _name(value: int, enum_type: type, prefix: str) -> str:
    """The inverse of ``_choose``."""
    names = enum_names(dir(enum_type), prefix)
    return next(n for n, full in names.items() if int(getattr(enum_type, full)) == int(value))


def _flags(option: str, values: tuple[str, ...], enum_type: type, prefix: str) -> int:
    return sum({_choose(option, value, enum_type, prefix) for value in values})
