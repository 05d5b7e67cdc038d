"""Live plots of a running rollout: lines, images and vector fields."""

from mjlab_rec.recorders.live_plot.cfg import LivePlotRecorderCfg as LivePlotRecorderCfg
from mjlab_rec.recorders.live_plot.plots import ImageCfg as ImageCfg
from mjlab_rec.recorders.live_plot.plots import LinesCfg as LinesCfg
from mjlab_rec.recorders.live_plot.plots import VectorsCfg as VectorsCfg
from mjlab_rec.recorders.live_plot.recorder import LivePlotRecorder as LivePlotRecorder
