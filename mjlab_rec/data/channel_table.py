"""The channels of a recording as a table that people can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.utils.tables import format_table

_MOST_ELEMENTS = 5


class Channels(dict[str, ChannelSpec]):
    """The channels of a row, by name. Printed, they are a table."""

    def __repr__(self) -> str:
        return channel_table(
            (spec.name, spec.dtype, spec.shape, spec.when, spec.units, spec.elements)
            for spec in self.values()
        )


def channel_table(
    channels: Iterable[tuple[str, object, Sequence[int], str, str, Sequence[str]]],
) -> str:
    """A line for each channel, given its name, type, shape, time, units and elements."""
    rows = [
        (name, dtype, "x".join(map(str, shape)) or "-", when, units or "-", _some(elements))
        for name, dtype, shape, when, units, elements in channels
    ]
    return format_table("Channels", ("name", "type", "shape", "when", "units", "elements"), rows)


def _some(names: Sequence[str]) -> str:
    if not names:
        return "-"
    more = f", ... ({len(names)})" if len(names) > _MOST_ELEMENTS else ""
    return ", ".join(names[:_MOST_ELEMENTS]) + more
