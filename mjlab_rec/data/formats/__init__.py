"""One file per format: how blocks or episodes are written, and read back."""

from mjlab_rec.data.formats.registry import (
    Format,
    format_named,
    formats,
    register_format,
    writer_class,
)

__all__ = ["Format", "format_named", "formats", "register_format", "writer_class"]
