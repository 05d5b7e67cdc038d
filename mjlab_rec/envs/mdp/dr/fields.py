"""The table of model fields that can be randomized, with one event each.

All take ``ranges``, ``asset_cfg``, ``distribution``, ``operation``, ``axes`` and ``shared_random``,
explained at ``_core.randomize_model_field``. Orientations take ``roll_range``, ``pitch_range`` and
``yaw_range`` (rad, about the axes of the parent) instead.
"""

from __future__ import annotations

from mjlab_rec.envs.mdp.dr._core import field_randomizer as _field
from mjlab_rec.envs.mdp.dr._core import quat_randomizer as _quat
from mjlab_rec.sim import RecomputeLevel

__all__ = [
    "body_com_offset",
    "body_ipos",
    "body_mass",
    "body_pos",
    "body_quat",
    "cam_fovy",
    "cam_intrinsic",
    "cam_pos",
    "cam_quat",
    "dof_armature",
    "dof_damping",
    "dof_frictionloss",
    "geom_friction",
    "geom_pos",
    "geom_quat",
    "geom_rgba",
    "jnt_range",
    "jnt_stiffness",
    "joint_armature",
    "joint_damping",
    "joint_default_pos",
    "joint_friction",
    "joint_limits",
    "joint_stiffness",
    "light_ambient",
    "light_attenuation",
    "light_cutoff",
    "light_diffuse",
    "light_dir",
    "light_exponent",
    "light_pos",
    "light_specular",
    "mat_emission",
    "mat_rgba",
    "mat_shininess",
    "mat_specular",
    "mat_texrepeat",
    "qpos0",
    "site_pos",
    "site_quat",
    "tendon_armature",
    "tendon_damping",
    "tendon_friction",
    "tendon_frictionloss",
    "tendon_stiffness",
]

_SET_CONST_0 = RecomputeLevel.set_const_0
_SET_CONST = RecomputeLevel.set_const
_XYZ = (0, 1, 2)

# Geoms. A contact takes the larger friction of its two geoms.
geom_friction = _field(
    "geom_friction",
    "geom_friction",
    "geom",
    "Randomize friction: axis 0 slides (default), 1 spins, 2 rolls; 1 and 2 act from condim 4 on.",
    axes=(0,),
)
geom_pos = _field("geom_pos", "geom_pos", "geom", "Randomize geom positions.", axes=_XYZ)
geom_quat = _quat("geom_quat", "geom_quat", "geom", "Turn geoms.")
geom_rgba = _field(
    "geom_rgba", "geom_rgba", "geom", "Randomize colours of geoms; a material's colour hides them."
)

# Bodies.
body_mass = _field(
    "body_mass",
    "body_mass",
    "body",
    "Randomize mass alone, as a point mass at the centre of mass does; see pseudo_inertia.",
    operation="scale",
    recompute=_SET_CONST,
)
body_com_offset = body_ipos = _field(
    "body_com_offset",
    "body_ipos",
    "body",
    "Move centres of mass.",
    operation="add",
    axes=_XYZ,
    recompute=_SET_CONST,
)
body_pos = _field(
    "body_pos",
    "body_pos",
    "body",
    "Move bodies in their parents.",
    operation="add",
    axes=_XYZ,
    recompute=_SET_CONST_0,
)
body_quat = _quat(
    "body_quat",
    "body_quat",
    "body",
    "Rotate bodies in their parents.",
    recompute=_SET_CONST_0,
)

# Joints and their degrees of freedom.
joint_damping = dof_damping = _field(
    "joint_damping", "dof_damping", "dof", "Randomize joint damping."
)
joint_armature = dof_armature = _field(
    "joint_armature",
    "dof_armature",
    "dof",
    "Randomize joint armature (reflected rotor inertia).",
    recompute=_SET_CONST_0,
)
joint_friction = dof_frictionloss = _field(
    "joint_friction", "dof_frictionloss", "dof", "Randomize dry friction of joints."
)
joint_stiffness = jnt_stiffness = _field(
    "joint_stiffness", "jnt_stiffness", "joint", "Randomize the stiffness of joint springs."
)
joint_limits = jnt_range = _field(
    "joint_limits",
    "jnt_range",
    "joint",
    "Randomize joint limits: axis 0 lower, 1 upper. The entity's soft limits stay as they are.",
)
joint_default_pos = qpos0 = _field(
    "joint_default_pos",
    "qpos0",
    "qpos",
    "Randomize the joint positions at which the model was built, as a wrong calibration does.",
    operation="add",
    recompute=_SET_CONST_0,
)

# Sites.
site_pos = _field("site_pos", "site_pos", "site", "Randomize site positions.", axes=_XYZ)
site_quat = _quat("site_quat", "site_quat", "site", "Rotate sites, such as an IMU's mount.")

# Tendons.
tendon_damping = _field("tendon_damping", "tendon_damping", "tendon", "Randomize tendon damping.")
tendon_stiffness = _field(
    "tendon_stiffness", "tendon_stiffness", "tendon", "Randomize tendon stiffness."
)
tendon_friction = tendon_frictionloss = _field(
    "tendon_friction", "tendon_frictionloss", "tendon", "Randomize dry friction of tendons."
)
tendon_armature = _field(
    "tendon_armature",
    "tendon_armature",
    "tendon",
    "Randomize tendon armature.",
    recompute=_SET_CONST_0,
)

# Cameras.
cam_fovy = _field("cam_fovy", "cam_fovy", "camera", "Randomize vertical fields of view (degrees).")
cam_pos = _field("cam_pos", "cam_pos", "camera", "Randomize camera positions.", axes=_XYZ)
cam_quat = _quat("cam_quat", "cam_quat", "camera", "Turn cameras.")
cam_intrinsic = _field("cam_intrinsic", "cam_intrinsic", "camera", "Randomize camera intrinsics.")

# Lights.
light_pos = _field("light_pos", "light_pos", "light", "Randomize light positions.")
light_dir = _field("light_dir", "light_dir", "light", "Randomize light directions.")
light_ambient = _field("light_ambient", "light_ambient", "light", "Randomize ambient colour.")
light_diffuse = _field("light_diffuse", "light_diffuse", "light", "Randomize diffuse colour.")
light_specular = _field("light_specular", "light_specular", "light", "Randomize specular colour.")
light_attenuation = _field(
    "light_attenuation", "light_attenuation", "light", "Randomize the attenuation of lights."
)
light_cutoff = _field(
    "light_cutoff", "light_cutoff", "light", "Randomize cutoff angles of spotlights (degrees)."
)
light_exponent = _field(
    "light_exponent", "light_exponent", "light", "Randomize how spotlights fade towards their edge."
)

# Materials.
mat_rgba = _field(
    "mat_rgba", "mat_rgba", "material", "Randomize colours; with a texture, they tint it."
)
mat_emission = _field("mat_emission", "mat_emission", "material", "Randomize emission.")
mat_specular = _field("mat_specular", "mat_specular", "material", "Randomize specularity (0 to 1).")
mat_shininess = _field(
    "mat_shininess", "mat_shininess", "material", "Randomize shininess (0 to 1)."
)
mat_texrepeat = _field(
    "mat_texrepeat", "mat_texrepeat", "material", "Randomize how often textures repeat."
)
