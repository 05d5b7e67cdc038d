"""Stock action terms: targets for joints, tendons and sites, and poses of frames."""

from mjlab_rec.envs.mdp.actions.base import (
    BaseAction,
    BaseActionCfg,
)
from mjlab_rec.envs.mdp.actions.differential_ik import (
    DifferentialIKAction,
    DifferentialIKActionCfg,
)
from mjlab_rec.envs.mdp.actions.joints import (
    JointEffortAction,
    JointEffortActionCfg,
    JointPositionAction,
    JointPositionActionCfg,
    JointVelocityAction,
    JointVelocityActionCfg,
    RelativeJointPositionAction,
    RelativeJointPositionActionCfg,
)
from mjlab_rec.envs.mdp.actions.sites import (
    SiteEffortAction,
    SiteEffortActionCfg,
)
from mjlab_rec.envs.mdp.actions.tendons import (
    TendonEffortAction,
    TendonEffortActionCfg,
    TendonLengthAction,
    TendonLengthActionCfg,
    TendonVelocityAction,
    TendonVelocityActionCfg,
)

__all__ = [
    "BaseAction",
    "BaseActionCfg",
    "DifferentialIKAction",
    "DifferentialIKActionCfg",
    "JointEffortAction",
    "JointEffortActionCfg",
    "JointPositionAction",
    "JointPositionActionCfg",
    "JointVelocityAction",
    "JointVelocityActionCfg",
    "RelativeJointPositionAction",
    "RelativeJointPositionActionCfg",
    "SiteEffortAction",
    "SiteEffortActionCfg",
    "TendonEffortAction",
    "TendonEffortActionCfg",
    "TendonLengthAction",
    "TendonLengthActionCfg",
    "TendonVelocityAction",
    "TendonVelocityActionCfg",
]
