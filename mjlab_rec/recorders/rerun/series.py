"""Lines of plots: their entities, labels and colours, and statistics of many environments."""

from __future__ import annotations

import numpy as np

from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.recorders.rerun import scene as scene

SUMMARY = "/summary"
"""The parent entity of the statistics; below it are the paths of the series."""

STATISTICS = ("mean", "min", "max")

Color = tuple[int, int, int]

# Easy to tell apart on a dark and on a light background, also with a colour vision deficiency.
_PALETTE: tuple[Color, ...] = (
    *((66, 133, 244), (255, 140, 26), (38, 166, 91), (214, 62, 62)),
    *((160, 96, 224), (240, 200, 40), (0, 188, 212), (236, 112, 180)),
)


def series(spec: ChannelSpec) -> list[tuple[str, str]]:
    """Entity and label of each element of a channel."""
    names = spec.elements or [",".join(map(str, index)) for index in np.ndindex(*spec.shape)]
    if not spec.shape:
        return [(scene.entity_path(spec.name), spec.name.rpartition("/")[2])]
    return [(scene.entity_path(spec.name, name), name) for name in names]


def line_colors(num_envs: int, index: int) -> list[Color]:
    """Colours of a series' lines: per environment, or for a single one per series."""
    return [_color(index)] if num_envs == 1 else [_color(i) for i in range(num_envs)]


def summary_colors(index: int) -> list[Color]:
    """Colours of a series' mean, minimum and maximum."""
    red, green, blue = _color(index)
    dimmed = red * 2 // 3, green * 2 // 3, blue * 2 // 3
    return [(red, green, blue), dimmed, dimmed]


def _color(index: int) -> Color:
    return _PALETTE[index % len(_PALETTE)]


def statistics(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Mean, minimum and maximum of some environments (rows, 3, elements).

    Args:
        values: Of all environments (rows, num_envs, elements).
        wanted: Which of them count (rows, num_envs), at least one per row.
    """
    mask = wanted[:, :, None]
    mean = np.mean(values, axis=1, where=mask)
    least = np.min(values, axis=1, where=mask, initial=np.inf)
    most = np.max(values, axis=1, where=mask, initial=-np.inf)
    return np.stack([mean, least, most], axis=1)
