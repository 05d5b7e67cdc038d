"""All action terms but inverse kinematics, under mjlab's module name."""

from mjlab_rec.envs.mdp.actions.base import BaseAction as BaseAction
from mjlab_rec.envs.mdp.actions.base import BaseActionCfg as BaseActionCfg
from mjlab_rec.envs.mdp.actions.joints import JointEffortAction as JointEffortAction
from mjlab_rec.envs.mdp.actions.joints import JointEffortActionCfg as JointEffortActionCfg
from mjlab_rec.envs.mdp.actions.joints import JointPositionAction as JointPositionAction
from mjlab_rec.envs.mdp.actions.joints import JointPositionActionCfg as JointPositionActionCfg
from mjlab_rec.envs.mdp.actions.joints import JointVelocityAction as JointVelocityAction
from mjlab_rec.envs.mdp.actions.joints import JointVelocityActionCfg as JointVelocityActionCfg
from mjlab_rec.envs.mdp.actions.joints import (
    RelativeJointPositionAction as RelativeJointPositionAction,
)
from mjlab_rec.envs.mdp.actions.joints import (
    RelativeJointPositionActionCfg as RelativeJointPositionActionCfg,
)
from mjlab_rec.envs.mdp.actions.sites import SiteEffortAction as SiteEffortAction
from mjlab_rec.envs.mdp.actions.sites import SiteEffortActionCfg as SiteEffortActionCfg
from mjlab_rec.envs.mdp.actions.tendons import TendonEffortAction as TendonEffortAction
from mjlab_rec.envs.mdp.actions.tendons import TendonEffortActionCfg as TendonEffortActionCfg
from mjlab_rec.envs.mdp.actions.tendons import TendonLengthAction as TendonLengthAction
from mjlab_rec.envs.mdp.actions.tendons import TendonLengthActionCfg as TendonLengthActionCfg
from mjlab_rec.envs.mdp.actions.tendons import TendonVelocityAction as TendonVelocityAction
from mjlab_rec.envs.mdp.actions.tendons import TendonVelocityActionCfg as TendonVelocityActionCfg
