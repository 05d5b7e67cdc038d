"""Stock terms of the managers: observations, rewards, terminations, events, actions and more."""

from mjlab_rec.envs.mdp import dr as dr
from mjlab_rec.envs.mdp.actions import *  # noqa: F403
from mjlab_rec.envs.mdp.commands import *  # noqa: F403
from mjlab_rec.envs.mdp.curriculums import *  # noqa: F403
from mjlab_rec.envs.mdp.events import *  # noqa: F403
from mjlab_rec.envs.mdp.metrics import *  # noqa: F403
from mjlab_rec.envs.mdp.observations import *  # noqa: F403
from mjlab_rec.envs.mdp.rewards import *  # noqa: F403
from mjlab_rec.envs.mdp.terminations import *  # noqa: F403
