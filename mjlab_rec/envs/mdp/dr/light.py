"""Randomizations of lights, under mjlab's module name."""

from mjlab_rec.envs.mdp.dr.fields import light_ambient as light_ambient
from mjlab_rec.envs.mdp.dr.fields import light_attenuation as light_attenuation
from mjlab_rec.envs.mdp.dr.fields import light_cutoff as light_cutoff
from mjlab_rec.envs.mdp.dr.fields import light_diffuse as light_diffuse
from mjlab_rec.envs.mdp.dr.fields import light_dir as light_dir
from mjlab_rec.envs.mdp.dr.fields import light_exponent as light_exponent
from mjlab_rec.envs.mdp.dr.fields import light_pos as light_pos
from mjlab_rec.envs.mdp.dr.fields import light_specular as light_specular
