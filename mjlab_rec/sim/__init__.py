"""Physics for many worlds at once, exposed as torch tensors, on one of two engines."""

from mjlab_rec.sim.cfg import MujocoCfg as MujocoCfg
from mjlab_rec.sim.cfg import RecomputeLevel as RecomputeLevel
from mjlab_rec.sim.cfg import SimulationCfg as SimulationCfg
from mjlab_rec.sim.simulation import Simulation as Simulation
from mjlab_rec.sim.simulation import resolve_device as resolve_device
