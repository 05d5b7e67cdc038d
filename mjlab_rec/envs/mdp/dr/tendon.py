"""Randomizations of tendons, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.fields import tendon_armature as tendon_armature
from mjlab_rec.envs.mdp.dr.fields import tendon_damping as tendon_damping
from mjlab_rec.envs.mdp.dr.fields import tendon_friction as tendon_friction
from mjlab_rec.envs.mdp.dr.fields import tendon_frictionloss as tendon_frictionloss
from mjlab_rec.envs.mdp.dr.fields import tendon_stiffness as tendon_stiffness
