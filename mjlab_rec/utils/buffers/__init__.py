"""Buffers that remember the last few frames of every row of a batch."""

from mjlab_rec.utils.buffers.circular_buffer import CircularBuffer as CircularBuffer
from mjlab_rec.utils.buffers.delay_buffer import DelayBuffer as DelayBuffer
