"""Task code written for mjlab finds its helpers once `mjlab` is renamed in its imports."""

from __future__ import annotations

import inspect

import pytest

from mjlab_rec.utils import frames, math, string
from mjlab_rec.utils.lab_api import math as lab_math
from mjlab_rec.utils.lab_api import string as lab_string

# What mjlab's own tasks, stock terms and scripts import, with the arguments they may name.
USED = {
    "apply_delta_pose": "source_pos source_rot delta_pose",
    "axis_angle_from_quat": "quat eps",
    "combine_frame_transforms": "t01 q01 t12 q12",
    "compute_pose_error": "t01 q01 t02 q02 rot_error_type",
    "matrix_from_euler": "euler_angles convention",
    "matrix_from_quat": "quaternions",
    "quat_apply": "quat vec",
    "quat_apply_inverse": "quat vec",
    "quat_apply_yaw": "quat vec",
    "quat_box_minus": "q1 q2",
    "quat_conjugate": "q",
    "quat_error_magnitude": "q1 q2",
    "quat_from_angle_axis": "angle axis",
    "quat_from_euler_xyz": "roll pitch yaw",
    "quat_from_matrix": "matrix",
    "quat_inv": "q eps",
    "quat_mul": "q1 q2",
    "quat_slerp": "q1 q2 tau",
    "quat_unique": "q",
    "random_orientation": "num device",
    "sample_gaussian": "mean std size device",
    "sample_log_uniform": "lower upper size device",
    "sample_uniform": "lower upper size device",
    "subtract_frame_transforms": "t01 q01 t02 q02",
    "wrap_to_pi": "angles",
    "yaw_quat": "quat",
}
STRINGS = {
    "resolve_matching_names": "keys list_of_strings preserve_order",
    "resolve_matching_names_values": "data list_of_strings preserve_order",
}


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [(lab_math, *item) for item in USED.items()]
    + [(lab_string, *item) for item in STRINGS.items()],
)
def test_functions_take_the_arguments_that_mjlab_names(module, name, arguments):
    assert " ".join(inspect.signature(getattr(module, name)).parameters) == arguments


@pytest.mark.parametrize(
    ("module", "sources"), [(lab_math, (math, frames)), (lab_string, (string,))]
)
def test_names_are_those_of_our_own_modules(module, sources):
    ours = {
        name: value
        for source in sources
        for name, value in vars(source).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    offered = {name: v for name, v in vars(module).items() if inspect.isfunction(v)}
    assert offered.items() <= ours.items()
    if module is lab_math:
        assert offered.keys() == ours.keys(), "A new helper belongs into lab_api.math too."
