"""Recorders in other people's environments; README.md says what they need and how to use them."""

from mjlab_rec.adapters.gym_env import RecordEnv as RecordEnv
from mjlab_rec.adapters.gym_vector import RecordVector as RecordVector
from mjlab_rec.adapters.isaaclab import close_recordings as close_recordings
from mjlab_rec.adapters.isaaclab import for_isaaclab as for_isaaclab
from mjlab_rec.adapters.mjlab import for_mjlab as for_mjlab
