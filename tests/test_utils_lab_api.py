"""Task code written for mjlab finds its helpers once `mjlab` is renamed in its imports."""

from __future__ import annotations

import inspect

import pytest

from mjlab_rec.utils import camera_geometry, frames, math, poses, ranges, string
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
    ("module", "sources"),
    [(lab_math, (math, frames, ranges, poses, camera_geometry)), (lab_string, (string,))],
)
def test_names_are_those_of_our_own_modules(module, sources):
    ours = {
        name: value
        for source in (*sources, module)
        for name, value in vars(source).items()
        if inspect.isfunction(value) and not name.startswith("_")
        # Also those that lab_api.string defines itself.
        if value.__module__ in (source.__name__, module.__name__)
    }
    offered = {
        name: v for name, v in vars(module).items() if inspect.isfunction(v) and name != "look_up"
    }
    assert offered.items() <= ours.items()
    if module is lab_math:
        assert offered.keys() == ours.keys(), "A new helper belongs into lab_api.math too."


@pytest.mark.parametrize(
    ("snake", "camel", "capital"), [("joint_pos", "jointPos", "JointPos"), ("x", "x", "X")]
)
def test_camel_and_snake_case(snake, camel, capital):
    assert lab_string.to_camel_case(snake) == camel
    assert lab_string.to_camel_case(snake, "CC") == capital
    assert lab_string.to_snake_case(camel) == lab_string.to_snake_case(capital) == snake
    with pytest.raises(ValueError, match="Unknown kind of camel case 'Cc'"):
        lab_string.to_camel_case(snake, "Cc")


def test_snake_case_keeps_abbreviations_together():
    assert lab_string.to_snake_case("HTTPServerURL") == "http_server_url"


@pytest.mark.parametrize("part", [slice(0, 4, 2), slice(None, 3, None), slice(-2, None, 1)])
def test_slices_survive_as_text(part):
    assert lab_string.string_to_slice(str(part)) == part


def test_a_text_that_is_no_slice_is_refused():
    with pytest.raises(ValueError, match="is not a slice"):
        lab_string.string_to_slice("0:4")


def test_functions_survive_as_text():
    text = lab_string.callable_to_string(quaternion_length)
    assert text == f"{__name__}:quaternion_length"
    assert lab_string.string_to_callable(text) is quaternion_length
    double = lambda x, y=(1, 2): x * y[1]  # noqa: E731  # A comment, with a comma.
    text = lab_string.callable_to_string(double)
    assert lab_string.is_lambda_expression(text)
    assert lab_string.string_to_callable(text)(21) == 42


def quaternion_length(q):
    return sum(x * x for x in q) ** 0.5


@pytest.mark.parametrize("text", ["no colon", "math:sinus", "nowhere.at.all:f", "math:pi"])
def test_texts_that_name_no_function_are_refused(text):
    with pytest.raises(ValueError):
        lab_string.string_to_callable(text)


def test_only_lambda_expressions_are_recognized_as_such():
    assert lab_string.is_lambda_expression("lambda: 0")
    for text in ("math:sin", "x + lambda: 0", "def f(): pass", "[lambda: 0]", ""):
        assert not lab_string.is_lambda_expression(text)
