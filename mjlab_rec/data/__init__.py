"""Rollouts as blocks, files and episodes; knows no environment and no simulator."""

from mjlab_rec.data.description import describe as describe
from mjlab_rec.data.rollouts import Rollouts as Rollouts
from mjlab_rec.data.rollouts import open_rollouts as open_rollouts
from mjlab_rec.data.schema import DataError as DataError
