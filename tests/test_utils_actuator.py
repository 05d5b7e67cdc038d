"""Motors behind gears."""

from __future__ import annotations

import math

import pytest

from mjlab_rec.utils.actuator import (
    ElectricActuator,
    reflect_rotary_to_linear,
    reflected_inertia,
    reflected_inertia_from_two_stage_planetary,
    rpm_to_rad,
)


def test_inertia_grows_with_the_square_of_the_ratio():
    assert reflected_inertia(2e-5, 9.0) == pytest.approx(2e-5 * 81.0)
    motor = ElectricActuator(
        reflected_inertia=reflected_inertia(1e-4, 10.0), velocity_limit=20.0, effort_limit=60.0
    )
    assert motor.reflected_inertia == pytest.approx(0.01)


def test_each_stage_of_a_planetary_gear_is_seen_through_those_behind_it():
    whole = reflected_inertia_from_two_stage_planetary((1e-5, 2e-6, 3e-6), (1, 4.5, 5.0))
    assert whole == pytest.approx(1e-5 * 22.5**2 + 2e-6 * 25.0 + 3e-6)
    with pytest.raises(ValueError, match="must be 1, got"):
        reflected_inertia_from_two_stage_planetary((1e-5, 2e-6, 3e-6), (2, 4.5, 5.0))


def test_a_slide_keeps_the_motors_energy_and_power():
    joint = reflect_rotary_to_linear(0.02, 30.0, 3.0, transmission_ratio=0.01)
    assert 0.5 * joint.armature * joint.velocity_limit**2 == pytest.approx(0.5 * 0.02 * 30.0**2)
    assert joint.effort_limit * joint.velocity_limit == pytest.approx(3.0 * 30.0)
    with pytest.raises(ValueError, match="must not be 0"):
        reflect_rotary_to_linear(0.02, 30.0, 3.0, 0.0)


def test_revolutions_per_minute():
    assert rpm_to_rad(60.0) == pytest.approx(2.0 * math.pi)
