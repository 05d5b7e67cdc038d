"""Sensors: MuJoCo's own, and contacts."""

from mjlab_rec.sensor.builtin_sensor import BuiltinSensor as BuiltinSensor
from mjlab_rec.sensor.builtin_sensor import BuiltinSensorCfg as BuiltinSensorCfg
from mjlab_rec.sensor.builtin_sensor import ObjRef as ObjRef
from mjlab_rec.sensor.camera_sensor import CameraDataType as CameraDataType
from mjlab_rec.sensor.camera_sensor import CameraSensor as CameraSensor
from mjlab_rec.sensor.camera_sensor import CameraSensorCfg as CameraSensorCfg
from mjlab_rec.sensor.camera_sensor import CameraSensorData as CameraSensorData
from mjlab_rec.sensor.contact_matching import ContactMatch as ContactMatch
from mjlab_rec.sensor.contact_sensor import ContactData as ContactData
from mjlab_rec.sensor.contact_sensor import ContactSensor as ContactSensor
from mjlab_rec.sensor.contact_sensor import ContactSensorCfg as ContactSensorCfg
from mjlab_rec.sensor.sensor import Sensor as Sensor
from mjlab_rec.sensor.sensor import SensorCfg as SensorCfg
from mjlab_rec.sensor.sensor_context import ContextSensor as ContextSensor
from mjlab_rec.sensor.sensor_context import SensorContext as SensorContext
