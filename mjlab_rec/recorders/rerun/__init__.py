"""Rollouts for the Rerun viewer: all environments in 3D, rewards and actions next to them."""

from mjlab_rec.recorders.rerun.cfg import RerunRecorderCfg as RerunRecorderCfg
from mjlab_rec.recorders.rerun.recorder import RerunRecorder as RerunRecorder
