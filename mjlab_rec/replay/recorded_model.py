"""The model in a recording, and simulations of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.data.attached_model import MODEL, attached_model
from mjlab_rec.data.discovery import Source
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.sim.cfg import MujocoCfg, RecomputeLevel, SimulationCfg
from mjlab_rec.sim.engine import state_layout
from mjlab_rec.sim.simulation import Simulation

# Settings of the engine that are not in the model.
_ENGINE_SETTINGS = ("nconmax", "njmax", "contact_sensor_maxmatch", "broadphase")


@contextmanager
def opened(source: Source | Sequence[Source] | Rollouts) -> Iterator[Rollouts]:
    """Open a recording for as long as it is used; one that is open stays open."""
    if isinstance(source, Rollouts):
        yield source
        return
    with open_rollouts(source) as rollouts:
        yield rollouts


@dataclass(frozen=True)
class RecordedModel:
    """What a recording says about the physics."""

    model: mujoco.MjModel
    """The compiled model."""

    cfg: SimulationCfg
    """Engine and settings of the recording."""

    device: str
    """Kind of device of the recording: "cpu" or "cuda"."""

    decimation: int
    """Physics steps per control step."""

    recomputes: bool
    """Whether constants follow from model fields that differ between worlds."""

    @classmethod
    def of(cls, rollouts: Rollouts) -> RecordedModel:
        """Read it from a recording; raises DataError if something is missing in it."""
        info, where = rollouts.info, _name(rollouts)
        if "state" not in rollouts.channels or MODEL not in rollouts.attachments:
            raise DataError(
                f"{where} has no physics states, so it cannot be replayed. Record the channels"
                " 'state' and 'physics', which also stores the model: --record replay, or"
                " channels=(..., 'state', 'physics')."
            )
        model = attached_model(info, where)
        size = state_layout(model)[-1].columns.stop
        shape = rollouts.channels["state"].shape
        if shape != (size,):
            raise DataError(
                f"{where} is damaged: its states have shape {shape}, but those of its model have"
                f" {size} numbers."
            )
        decimation = round(info.step_dt / model.opt.timestep)
        if decimation < 1:
            raise DataError(
                f"{where} is damaged: its control step of {info.step_dt} s is shorter than a"
                f" physics step of its model, {model.opt.timestep} s."
            )
        about = info.about
        engine = about.get("engine")
        return cls(
            model=model,
            cfg=_sim_cfg(about, engine if engine in ("warp", "mjbatch") else "auto", model),
            device=str(about.get("device", "cpu")).partition(":")[0],
            decimation=decimation,
            recomputes=bool(about.get("recomputed_constants", True)),
        )

    def simulation(self, num_envs: int, device: str) -> Simulation:
        """Make a simulation of it."""
        return Simulation(num_envs, self.cfg, self.model, device)


class WorldModels:
    """Gives worlds the model fields that they had in episodes.

    Args:
        recorded: The model.
        sim: The simulation.
    """

    def __init__(self, recorded: RecordedModel, sim: Simulation) -> None:
        self._recomputes = recorded.recomputes
        self._sim = sim

    def write(self, values: Mapping[str, np.ndarray], env_ids: torch.Tensor) -> None:
        """Write fields, of which each has a row per world, and what follows from them."""
        if not values or not len(env_ids):
            return
        sim = self._sim
        unknown = [name for name in values if not hasattr(sim.mj_model, name)]
        if unknown:
            raise DataError(f"The recording has model fields that do not exist: {unknown}.")
        sim.expand_model_fields(list(values))
        changed = False
        for name, rows in values.items():
            field = getattr(sim.model, name)
            new = torch.from_numpy(np.ascontiguousarray(rows)).to(field.device, field.dtype)
            if new.shape[1:] != field.shape[1:]:
                raise DataError(
                    f"The recording is damaged: the model field '{name}' has shape"
                    f" {tuple(new.shape[1:])}, but that of its model has {tuple(field.shape[1:])}."
                )
            if not torch.equal(field[env_ids], new):
                field[env_ids] = new
                changed = True
        if changed and self._recomputes:
            sim.recompute_constants(RecomputeLevel.set_const)


def stacked(fields: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Model fields of several worlds as arrays with a row for each world."""
    names = set(fields[0]) if fields else set()
    if any(set(values) != names for values in fields):
        raise DataError("The recording is damaged: model fields of some episodes are missing.")
    return {name: np.stack([values[name] for values in fields]) for name in sorted(names)}


def _sim_cfg(about: Mapping[str, Any], engine: Any, model: mujoco.MjModel) -> SimulationCfg:
    """The settings of the recording's engine, as far as they are known and sensible."""
    env_cfg = about.get("env_cfg")
    saved = env_cfg.get("sim") if isinstance(env_cfg, Mapping) else None
    saved = saved if isinstance(saved, Mapping) else {}
    known = {f.name for f in fields(SimulationCfg)}
    settings = {}
    for name in _ENGINE_SETTINGS:
        value = saved.get(name)
        if name in known and type(value) in (int, str):
            settings[name] = value
    return SimulationCfg(engine=engine, mujoco=MujocoCfg.of(model), **settings)


def _name(rollouts: Rollouts) -> str:
    return "The recording" if rollouts.path is None else f"'{rollouts.path}'"
