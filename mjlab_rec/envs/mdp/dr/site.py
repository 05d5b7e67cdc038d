"""Randomizations of sites, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.fields import site_pos as site_pos
from mjlab_rec.envs.mdp.dr.fields import site_quat as site_quat
