"""Actuators: MuJoCo's own, those of the XML, PD laws and DC motors, each with an optional delay."""

from mjlab_rec.actuator.actuator import Actuator as Actuator
from mjlab_rec.actuator.actuator import ActuatorCfg as ActuatorCfg
from mjlab_rec.actuator.actuator import ActuatorCmd as ActuatorCmd
from mjlab_rec.actuator.actuator import CommandField as CommandField
from mjlab_rec.actuator.actuator import TransmissionType as TransmissionType
from mjlab_rec.actuator.builtin_actuator import BuiltinMotorActuator as BuiltinMotorActuator
from mjlab_rec.actuator.builtin_actuator import BuiltinMotorActuatorCfg as BuiltinMotorActuatorCfg
from mjlab_rec.actuator.builtin_actuator import BuiltinMuscleActuator as BuiltinMuscleActuator
from mjlab_rec.actuator.builtin_actuator import BuiltinMuscleActuatorCfg as BuiltinMuscleActuatorCfg
from mjlab_rec.actuator.builtin_actuator import BuiltinPdActuator as BuiltinPdActuator
from mjlab_rec.actuator.builtin_actuator import BuiltinPdActuatorCfg as BuiltinPdActuatorCfg
from mjlab_rec.actuator.builtin_actuator import BuiltinPositionActuator as BuiltinPositionActuator
from mjlab_rec.actuator.builtin_actuator import (
    BuiltinPositionActuatorCfg as BuiltinPositionActuatorCfg,
)
from mjlab_rec.actuator.builtin_actuator import BuiltinVelocityActuator as BuiltinVelocityActuator
from mjlab_rec.actuator.builtin_actuator import (
    BuiltinVelocityActuatorCfg as BuiltinVelocityActuatorCfg,
)
from mjlab_rec.actuator.dc_actuator import DcMotorActuator as DcMotorActuator
from mjlab_rec.actuator.dc_actuator import DcMotorActuatorCfg as DcMotorActuatorCfg
from mjlab_rec.actuator.pd_actuator import IdealPdActuator as IdealPdActuator
from mjlab_rec.actuator.pd_actuator import IdealPdActuatorCfg as IdealPdActuatorCfg
from mjlab_rec.actuator.xml_actuator import XmlActuator as XmlActuator
from mjlab_rec.actuator.xml_actuator import XmlActuatorCfg as XmlActuatorCfg
