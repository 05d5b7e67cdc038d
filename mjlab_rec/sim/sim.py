"""The simulation and its configuration, under mjlab's module name."""

from mjlab_rec.sim.cfg import MujocoCfg as MujocoCfg
from mjlab_rec.sim.cfg import SimulationCfg as SimulationCfg
from mjlab_rec.sim.simulation import Simulation as Simulation
