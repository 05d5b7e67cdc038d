"""Checks of the configs of sub-terrains, with errors that say what is possible."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mjlab_rec.terrains.sub_terrain import SubTerrainCfg


def check_positive(cfg: object, *names: str) -> None:
    """Raise unless these fields are finite numbers above 0."""
    for name in names:
        value = getattr(cfg, name)
        if not 0.0 < value < math.inf:
            raise ValueError(f"{_field(cfg, name)} must be above 0, got {value}.")


def check_not_negative(cfg: object, *names: str) -> None:
    """Raise unless these fields are finite numbers, 0 or above."""
    for name in names:
        value = getattr(cfg, name)
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{_field(cfg, name)} must be 0 or above, got {value}.")


def check_range(cfg: object, *names: str, low: float = 0.0, above: bool = False) -> None:
    """Raise unless these fields are pairs of finite numbers, each at least ``low``, or above it."""
    for name in names:
        value = getattr(cfg, name)
        numbers = list(value) if isinstance(value, Iterable) else [value]
        fits = len(numbers) == 2 and all(math.isfinite(n) and n >= low for n in numbers)
        if not fits or (above and min(numbers) == low):
            limit = "" if low == -math.inf else f", each {'above' if above else 'at least'} {low:g}"
            raise ValueError(f"{_field(cfg, name)} must be two numbers{limit}, got {value}.")


def inner_size(cfg: SubTerrainCfg, border_width: float) -> tuple[float, float]:
    """Size of what is inside a tile's border; raise if nothing is."""
    x, y = (length - 2.0 * border_width for length in cfg.size)
    if min(x, y) <= 0.0:
        raise ValueError(
            f"{_field(cfg, 'border_width')} is {border_width:g} m on each side, which leaves"
            f" nothing of a tile of {cfg.size[0]:g} m x {cfg.size[1]:g} m. Use less than"
            f" {min(cfg.size) / 2:g}, or larger tiles."
        )
    return x, y


def check_fits(cfg: SubTerrainCfg, name: str, value: float, inner: tuple[float, float]) -> None:
    """Raise if something of this width is wider than the inside of the tile."""
    if value > min(inner):
        raise ValueError(
            f"{_field(cfg, name)} is {value:g} m, but the tile has {inner[0]:g} m x {inner[1]:g} m"
            " inside its border. Use less, or larger tiles."
        )


def _field(cfg: object, name: str) -> str:
    return f"{type(cfg).__name__}.{name}"
