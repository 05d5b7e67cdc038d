"""Randomizations of contact pairs, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.geom import pair_friction as pair_friction
