"""Terms of the tracking task, and the stock terms."""

from mjlab_rec.envs.mdp import *  # noqa: F403
from tasks.tracking.mdp.commands import MotionCommand as MotionCommand
from tasks.tracking.mdp.commands import MotionCommandCfg as MotionCommandCfg
from tasks.tracking.mdp.observations import *  # noqa: F403
from tasks.tracking.mdp.rewards import *  # noqa: F403
from tasks.tracking.mdp.terminations import *  # noqa: F403
from tasks.velocity.mdp.rewards import self_collision_cost as self_collision_cost
