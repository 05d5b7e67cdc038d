"""Randomizations of cameras, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.fields import cam_fovy as cam_fovy
from mjlab_rec.envs.mdp.dr.fields import cam_intrinsic as cam_intrinsic
from mjlab_rec.envs.mdp.dr.fields import cam_pos as cam_pos
from mjlab_rec.envs.mdp.dr.fields import cam_quat as cam_quat
