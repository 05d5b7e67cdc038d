"""Terms of the manipulation tasks, besides the stock ones of mjlab_rec.envs.mdp."""

from tasks.manipulation.mdp.actions import JointStepAction as JointStepAction
from tasks.manipulation.mdp.actions import JointStepActionCfg as JointStepActionCfg
from tasks.manipulation.mdp.commands import LiftingCommand as LiftingCommand
from tasks.manipulation.mdp.commands import LiftingCommandCfg as LiftingCommandCfg
from tasks.manipulation.mdp.commands import PoseCommand as PoseCommand
from tasks.manipulation.mdp.commands import PoseCommandCfg as PoseCommandCfg
from tasks.manipulation.mdp.observations import *  # noqa: F403
from tasks.manipulation.mdp.rewards import *  # noqa: F403
from tasks.manipulation.mdp.terminations import *  # noqa: F403
