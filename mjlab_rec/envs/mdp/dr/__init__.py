"""Domain randomization: events that give each environment its own physics.

Most randomize one field of the model and are rows of the table in ``fields``. They take:
``ranges`` (low, high), per axis or per name; ``asset_cfg``; ``distribution``; ``operation``;
``axes``; ``shared_random``. "scale" and "add" start from the model as compiled, so repeated events
do not accumulate. The derived constants that follow from a field are recomputed.
"""

from mjlab_rec.envs.mdp.dr import fields
from mjlab_rec.envs.mdp.dr._types import (
    Distribution,
    Operation,
    abs,
    add,
    gaussian,
    log_uniform,
    scale,
    uniform,
)
from mjlab_rec.envs.mdp.dr.actuator import effort_limits, pd_gains
from mjlab_rec.envs.mdp.dr.fields import *  # noqa: F403
from mjlab_rec.envs.mdp.dr.geom import geom_size, pair_friction
from mjlab_rec.envs.mdp.dr.inertia import pseudo_inertia
from mjlab_rec.envs.mdp.dr.joint import encoder_bias
from mjlab_rec.envs.mdp.dr.material import geom_matid, mat_texid

__all__ = [
    "Distribution",
    "Operation",
    "abs",
    "add",
    "effort_limits",
    "encoder_bias",
    "gaussian",
    "geom_matid",
    "geom_size",
    "log_uniform",
    "mat_texid",
    "pair_friction",
    "pd_gains",
    "pseudo_inertia",
    "scale",
    "uniform",
]
__all__ += fields.__all__
