"""Ready-made recorders: what to record of a rollout, and when."""

from mjlab_rec.recorders.cfg import RolloutRecorderCfg as RolloutRecorderCfg
from mjlab_rec.recorders.channels import DEFAULT_CHANNELS as DEFAULT_CHANNELS
from mjlab_rec.recorders.channels import Channel as Channel
from mjlab_rec.recorders.episode_log import EpisodeLogRecorder as EpisodeLogRecorder
from mjlab_rec.recorders.episode_log import EpisodeLogRecorderCfg as EpisodeLogRecorderCfg
from mjlab_rec.recorders.flight import FlightRecorder as FlightRecorder
from mjlab_rec.recorders.flight import FlightRecorderCfg as FlightRecorderCfg
from mjlab_rec.recorders.formats import CsvRecorder as CsvRecorder
from mjlab_rec.recorders.formats import CsvRecorderCfg as CsvRecorderCfg
from mjlab_rec.recorders.formats import Hdf5Recorder as Hdf5Recorder
from mjlab_rec.recorders.formats import Hdf5RecorderCfg as Hdf5RecorderCfg
from mjlab_rec.recorders.formats import MemoryRecorder as MemoryRecorder
from mjlab_rec.recorders.formats import MemoryRecorderCfg as MemoryRecorderCfg
from mjlab_rec.recorders.formats import NpzRecorder as NpzRecorder
from mjlab_rec.recorders.formats import NpzRecorderCfg as NpzRecorderCfg
from mjlab_rec.recorders.formats import ParquetRecorder as ParquetRecorder
from mjlab_rec.recorders.formats import ParquetRecorderCfg as ParquetRecorderCfg
from mjlab_rec.recorders.rollout import RolloutRecorder as RolloutRecorder
from mjlab_rec.recorders.triggers import Trigger as Trigger
from mjlab_rec.recorders.triggers import at_episodes as at_episodes
from mjlab_rec.recorders.triggers import at_steps as at_steps
from mjlab_rec.recorders.triggers import capped_cubic_episodes as capped_cubic_episodes
from mjlab_rec.recorders.triggers import every_n_episodes as every_n_episodes
from mjlab_rec.recorders.triggers import every_n_steps as every_n_steps
from mjlab_rec.recorders.triggers import manual as manual
from mjlab_rec.recorders.triggers import when as when
