"""Import recordings of other programs."""

from mjlab_rec.data.importing.importing import SOURCES, Imported, import_rollouts

__all__ = ["SOURCES", "Imported", "import_rollouts"]
