"""Interfaces for learning code: Gymnasium with numpy arrays."""

from mjlab_rec.rl.gymnasium_env import NumpyVectorEnv as NumpyVectorEnv
