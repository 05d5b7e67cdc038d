"""Actuators: MuJoCo's own, the XML's, PD laws, DC motors and networks; each may have a delay."""

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
from mjlab_rec.actuator.builtin_dc_motor import BuiltinDcMotorActuator as BuiltinDcMotorActuator
from mjlab_rec.actuator.builtin_dc_motor import (
    BuiltinDcMotorActuatorCfg as BuiltinDcMotorActuatorCfg,
)
from mjlab_rec.actuator.builtin_dc_motor import DcMotorDatasheetParams as DcMotorDatasheetParams
from mjlab_rec.actuator.builtin_dc_motor import DcMotorInputMode as DcMotorInputMode
from mjlab_rec.actuator.builtin_dc_motor import DcMotorPhysicalParams as DcMotorPhysicalParams
from mjlab_rec.actuator.dc_actuator import DcMotorActuator as DcMotorActuator
from mjlab_rec.actuator.dc_actuator import DcMotorActuatorCfg as DcMotorActuatorCfg
from mjlab_rec.actuator.learned_actuator import LearnedMlpActuator as LearnedMlpActuator
from mjlab_rec.actuator.learned_actuator import LearnedMlpActuatorCfg as LearnedMlpActuatorCfg
from mjlab_rec.actuator.pd_actuator import IdealPdActuator as IdealPdActuator
from mjlab_rec.actuator.pd_actuator import IdealPdActuatorCfg as IdealPdActuatorCfg
from mjlab_rec.actuator.xml_actuator import XmlActuator as XmlActuator
from mjlab_rec.actuator.xml_actuator import XmlActuatorCfg as XmlActuatorCfg
