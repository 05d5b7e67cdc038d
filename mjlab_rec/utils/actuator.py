"""Numbers of electric motors as seen behind gears: inertia, greatest speed and greatest effort."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ElectricActuator:
    """An electric motor with its gearbox, as seen by the joint."""

    reflected_inertia: float
    """Inertia of all that rotates inside, in kg m^2: the joint's armature."""
    velocity_limit: float
    """Greatest speed, in rad/s."""
    effort_limit: float
    """Greatest torque, in N m."""


class LinearJointProperties(NamedTuple):
    """A rotary motor as seen by a sliding joint that it drives."""

    armature: float
    """Mass, in kg."""
    velocity_limit: float
    """Greatest speed, in m/s."""
    effort_limit: float
    """Greatest force, in N."""


def reflected_inertia(rotor_inertia: float, gear_ratio: float) -> float:
    """Return a rotor's inertia as seen behind a gearbox: it grows with the ratio's square."""
    return rotor_inertia * gear_ratio**2


def reflected_inertia_from_two_stage_planetary(
    rotor_inertia: tuple[float, float, float], gear_ratio: tuple[float, float, float]
) -> float:
    """Return the inertia of a motor and a planetary gearbox of two stages, as seen by the joint.

    Args:
        rotor_inertia: Inertias of the rotor, the first stage's carrier and the second's.
        gear_ratio: 1, and the ratios of the two stages.
    """
    if gear_ratio[0] != 1:
        raise ValueError(
            f"The first gear ratio is the rotor's own and must be 1, got {gear_ratio}. Give "
            "(1, first stage, second stage)."
        )
    rotor, first, second = rotor_inertia
    behind_first = reflected_inertia(rotor, gear_ratio[1]) + first
    return reflected_inertia(behind_first, gear_ratio[2]) + second


def rpm_to_rad(rpm: float) -> float:
    """Convert revolutions per minute to radians per second."""
    return rpm * 2.0 * math.pi / 60.0


def reflect_rotary_to_linear(
    armature_rotary: float,
    velocity_limit_rotary: float,
    effort_limit_rotary: float,
    transmission_ratio: float,
) -> LinearJointProperties:
    """Return what a sliding joint sees of the rotary motor that drives it.

    Args:
        armature_rotary: The motor's inertia, in kg m^2.
        velocity_limit_rotary: Its greatest speed, in rad/s.
        effort_limit_rotary: Its greatest torque, in N m.
        transmission_ratio: How far the joint slides per turn of one radian, in m/rad.
    """
    if transmission_ratio == 0:
        raise ValueError("transmission_ratio must not be 0: the joint would never move.")
    return LinearJointProperties(
        armature=armature_rotary / transmission_ratio**2,
        velocity_limit=velocity_limit_rotary * transmission_ratio,
        effort_limit=effort_limit_rotary / transmission_ratio,
    )
