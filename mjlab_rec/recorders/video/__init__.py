"""Rollouts as mp4 clips."""

from mjlab_rec.recorders.video.cfg import VideoRecorderCfg as VideoRecorderCfg
from mjlab_rec.recorders.video.recorder import VideoRecorder as VideoRecorder
