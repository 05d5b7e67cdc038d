"""Randomizations of bodies, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.fields import body_com_offset as body_com_offset
from mjlab_rec.envs.mdp.dr.fields import body_ipos as body_ipos
from mjlab_rec.envs.mdp.dr.fields import body_mass as body_mass
from mjlab_rec.envs.mdp.dr.fields import body_pos as body_pos
from mjlab_rec.envs.mdp.dr.fields import body_quat as body_quat
from mjlab_rec.envs.mdp.dr.inertia import pseudo_inertia as pseudo_inertia
