"""Export recordings to the formats of learning libraries and data tools."""

from mjlab_rec.data.export.exporting import Exported, export_rollouts
from mjlab_rec.data.export.targets import TARGETS, Target

__all__ = ["TARGETS", "Exported", "Target", "export_rollouts"]
