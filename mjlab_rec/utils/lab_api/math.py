"""Rotations, frames, poses, cameras and random samples, under mjlab's module name."""

from mjlab_rec.utils.camera_geometry import (
    convert_camera_frame_orientation_convention as convert_camera_frame_orientation_convention,
)
from mjlab_rec.utils.camera_geometry import (
    create_rotation_matrix_from_view as create_rotation_matrix_from_view,
)
from mjlab_rec.utils.camera_geometry import (
    orthogonalize_perspective_depth as orthogonalize_perspective_depth,
)
from mjlab_rec.utils.camera_geometry import project_points as project_points
from mjlab_rec.utils.camera_geometry import unproject_depth as unproject_depth
from mjlab_rec.utils.frames import apply_delta_pose as apply_delta_pose
from mjlab_rec.utils.frames import combine_frame_transforms as combine_frame_transforms
from mjlab_rec.utils.frames import compute_pose_error as compute_pose_error
from mjlab_rec.utils.frames import is_identity_pose as is_identity_pose
from mjlab_rec.utils.frames import rigid_body_twist_transform as rigid_body_twist_transform
from mjlab_rec.utils.frames import subtract_frame_transforms as subtract_frame_transforms
from mjlab_rec.utils.frames import transform_points as transform_points
from mjlab_rec.utils.math import axis_angle_from_quat as axis_angle_from_quat
from mjlab_rec.utils.math import convert_quat as convert_quat
from mjlab_rec.utils.math import default_orientation as default_orientation
from mjlab_rec.utils.math import euler_xyz_from_quat as euler_xyz_from_quat
from mjlab_rec.utils.math import matrix_from_euler as matrix_from_euler
from mjlab_rec.utils.math import matrix_from_quat as matrix_from_quat
from mjlab_rec.utils.math import normalize as normalize
from mjlab_rec.utils.math import quat_apply as quat_apply
from mjlab_rec.utils.math import quat_apply_inverse as quat_apply_inverse
from mjlab_rec.utils.math import quat_apply_yaw as quat_apply_yaw
from mjlab_rec.utils.math import quat_box_minus as quat_box_minus
from mjlab_rec.utils.math import quat_box_plus as quat_box_plus
from mjlab_rec.utils.math import quat_conjugate as quat_conjugate
from mjlab_rec.utils.math import quat_error_magnitude as quat_error_magnitude
from mjlab_rec.utils.math import quat_from_angle_axis as quat_from_angle_axis
from mjlab_rec.utils.math import quat_from_euler_xyz as quat_from_euler_xyz
from mjlab_rec.utils.math import quat_from_matrix as quat_from_matrix
from mjlab_rec.utils.math import quat_inv as quat_inv
from mjlab_rec.utils.math import quat_mul as quat_mul
from mjlab_rec.utils.math import quat_slerp as quat_slerp
from mjlab_rec.utils.math import quat_unique as quat_unique
from mjlab_rec.utils.math import random_orientation as random_orientation
from mjlab_rec.utils.math import random_yaw_orientation as random_yaw_orientation
from mjlab_rec.utils.math import sample_cylinder as sample_cylinder
from mjlab_rec.utils.math import sample_gaussian as sample_gaussian
from mjlab_rec.utils.math import sample_log_uniform as sample_log_uniform
from mjlab_rec.utils.math import sample_triangle as sample_triangle
from mjlab_rec.utils.math import sample_uniform as sample_uniform
from mjlab_rec.utils.math import skew_symmetric_matrix as skew_symmetric_matrix
from mjlab_rec.utils.math import wrap_to_pi as wrap_to_pi
from mjlab_rec.utils.math import yaw_quat as yaw_quat
from mjlab_rec.utils.poses import generate_random_rotation as generate_random_rotation
from mjlab_rec.utils.poses import (
    generate_random_transformation_matrix as generate_random_transformation_matrix,
)
from mjlab_rec.utils.poses import generate_random_translation as generate_random_translation
from mjlab_rec.utils.poses import interpolate_poses as interpolate_poses
from mjlab_rec.utils.poses import interpolate_rotations as interpolate_rotations
from mjlab_rec.utils.poses import make_pose as make_pose
from mjlab_rec.utils.poses import pose_in_A_to_pose_in_B as pose_in_A_to_pose_in_B
from mjlab_rec.utils.poses import pose_inv as pose_inv
from mjlab_rec.utils.poses import (
    transform_poses_from_frame_A_to_frame_B as transform_poses_from_frame_A_to_frame_B,
)
from mjlab_rec.utils.poses import unmake_pose as unmake_pose
from mjlab_rec.utils.ranges import copysign as copysign
from mjlab_rec.utils.ranges import saturate as saturate
from mjlab_rec.utils.ranges import scale_transform as scale_transform
from mjlab_rec.utils.ranges import unscale_transform as unscale_transform
