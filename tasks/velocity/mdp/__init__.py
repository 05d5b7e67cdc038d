"""Terms of the velocity tasks, and the stock terms."""

from mjlab_rec.envs.mdp import *  # noqa: F403
from tasks.velocity.mdp.curriculums import *  # noqa: F403
from tasks.velocity.mdp.gait import *  # noqa: F403
from tasks.velocity.mdp.observations import *  # noqa: F403
from tasks.velocity.mdp.rewards import *  # noqa: F403
from tasks.velocity.mdp.terminations import *  # noqa: F403
