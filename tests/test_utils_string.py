"""Names are found by whole-match regular expressions, and errors say what was meant."""

from __future__ import annotations

import pytest

from mjlab_rec.utils.string import (
    nearest,
    resolve_expr,
    resolve_matching_names,
    resolve_matching_names_values,
)

NAMES = ["FL_hip", "FL_knee", "FR_hip", "FR_knee"]


def test_names_come_in_their_own_order_or_in_that_of_the_keys():
    keys = [".*knee", ".*hip"]
    assert resolve_matching_names(keys, NAMES) == ([0, 1, 2, 3], NAMES)
    ids, names = resolve_matching_names(keys, NAMES, preserve_order=True)
    assert ids == [1, 3, 0, 2]
    assert names == ["FL_knee", "FR_knee", "FL_hip", "FR_hip"]


def test_a_single_key_may_be_a_plain_string():
    assert resolve_matching_names("FR_.*", NAMES) == ([2, 3], ["FR_hip", "FR_knee"])


def test_no_keys_match_no_names():
    assert resolve_matching_names([], NAMES) == ([], [])


def test_a_key_must_match_the_whole_name_and_the_error_says_how():
    with pytest.raises(ValueError, match=r"'FL' .*whole name.*'FL\.\*'"):
        resolve_matching_names("FL", NAMES)


def test_an_unmatched_key_is_an_error_that_suggests_and_lists():
    with pytest.raises(ValueError, match="No name matches 'FL_knie'.*Did you mean 'FL_knee'") as e:
        resolve_matching_names(["FL_hip", "FL_knie"], NAMES)
    assert all(name in str(e.value) for name in NAMES)


def test_a_name_matched_by_two_keys_is_an_error():
    with pytest.raises(ValueError, match="'FL_hip' matches two patterns, 'FL_.*' and '.*hip'"):
        resolve_matching_names(["FL_.*", ".*hip"], NAMES)


def test_a_broken_regular_expression_is_named():
    with pytest.raises(ValueError, match=r"'\*hip' is not a regular expression"):
        resolve_matching_names("*hip", NAMES)


def test_values_follow_their_names():
    data = {".*knee": 2.0, "FR_hip": 1.0}
    assert resolve_matching_names_values(data, NAMES) == (
        [1, 2, 3],
        ["FL_knee", "FR_hip", "FR_knee"],
        [2.0, 1.0, 2.0],
    )
    assert resolve_matching_names_values(data, NAMES, preserve_order=True) == (
        [1, 3, 2],
        ["FL_knee", "FR_knee", "FR_hip"],
        [2.0, 2.0, 1.0],
    )


def test_values_need_a_dictionary():
    with pytest.raises(TypeError, match="Expected a dictionary.*got float"):
        resolve_matching_names_values(1.0, NAMES)  # type: ignore[arg-type]


def test_resolve_expr_takes_the_first_match_and_the_default_elsewhere():
    assert resolve_expr({"FL_hip": 1, "FL.*": 2}, NAMES, 0) == (1, 2, 0, 0)


def test_resolve_expr_rejects_a_pattern_that_matches_nothing():
    with pytest.raises(ValueError, match="No name matches 'FL_nee'"):
        resolve_expr({"FL_nee": 1.0}, NAMES, 0.0)


def test_resolve_expr_without_names_is_empty():
    assert resolve_expr({".*": 1.0}, [], 0.0) == ()


def test_nearest_guesses_lists_and_shortens():
    assert nearest("acton", ["action", "obs"]) == "Did you mean 'action'? Known: action, obs."
    assert nearest("Pole", ["cart", "pole"]).startswith("Did you mean 'pole'?")
    assert nearest(".*_kne", ["left_knee"]).startswith("Did you mean 'left_knee'?")
    assert nearest("zzz", ["action", "obs"]) == "Known: action, obs."
    assert nearest("x", []) == "There are none to choose from."
    assert nearest("zzz", [f"n{i}" for i in range(100)]).endswith("n39, ... (100 in all).")
