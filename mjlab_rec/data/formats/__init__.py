"""The file formats, each with a writer and a reader."""

from mjlab_rec.data.formats.registry import (
    Format,
    format_named,
    formats,
    register_format,
    writer_class,
)

__all__ = ["Format", "format_named", "formats", "register_format", "writer_class"]
