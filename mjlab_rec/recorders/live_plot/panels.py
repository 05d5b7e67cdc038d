"""Panels of a live plot and their contents: plain arrays that any backend can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Contents = dict[str, np.ndarray]
"""Lines have x (n,) and y (lines, n), NaN where a line breaks. An image has image (h, w, 3) uint8,
and range (2,) if it is grey. Vectors have positions and vectors (n, 2)."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes."""

    kind: Literal["lines", "image", "vectors"]
    title: str
    subtitle: str = ""
    labels: tuple[str, ...] = ()
    x_label: str = ""
    y_label: str = ""
    log: bool = False

    @property
    def heading(self) -> str:
        """Title and subtitle in one line."""
        return f"{self.title}: {self.subtitle}" if self.subtitle else self.title


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Everything that is drawn at one moment."""

    caption: str
    """Text that says which moment it is."""

    contents: Sequence[Contents]
    """What each panel shows."""

    copies: int = 1
    """Number of video frames that it fills."""


class Backend(Protocol):
    """Draws frames. All methods except the constructor are called in the drawing thread."""

    files: list[Path]
    """Files written so far."""

    def draw(self, frame: Frame, final: bool) -> None:
        """Draw a frame. The final one, at a flush or at the end, must be shown."""

    def close(self) -> None:
        """Finish the file, or remove the plots from the page."""


def lines(x: np.ndarray, y: np.ndarray, breaks: np.ndarray, log: bool) -> Contents:
    """Lines that are broken where a new episode or a gap begins.

    Args:
        x: Horizontal positions, ascending: (n,).
        y: The values: (lines, n).
        breaks: Rows that do not continue the previous one.
        log: Whether the vertical axis is logarithmic.
    """
    y = np.where(np.isfinite(y) & ((y > 0) if log else True), y, np.nan)
    breaks = breaks[breaks > 0]
    between = (x[breaks - 1] + x[breaks]) / 2
    return {"x": np.insert(x, breaks, between), "y": np.insert(y, breaks, np.nan, axis=1)}


def image(value: np.ndarray, value_range: tuple[float, float] | None) -> Contents:
    """An image as uint8; see ``ImageCfg`` for the meaning of the values."""
    if value.ndim == 3 and value.shape[2] == 3:
        if value.dtype.kind == "f":
            value = np.nan_to_num(value, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) * 255 + 0.5
        return {"image": value.clip(0, 255).astype(np.uint8)}
    value = value.reshape(value.shape[:2]).astype(np.float64)
    finite = np.isfinite(value)
    low, high = value_range or (0.0, 0.0)
    if value_range is None and finite.any():
        low, high = float(value[finite].min()), float(value[finite].max())
    shade = (np.where(finite, value, low) - low) / ((high - low) or 1.0)
    pixels = np.repeat((shade.clip(0, 1) * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    pixels[~finite] = (220, 40, 40)
    return {"image": pixels, "range": np.array([low, high])}


def vectors(positions: np.ndarray, arrows: np.ndarray, axes: tuple[int, int]) -> Contents:
    """Arrows in the plane of two coordinates, without non-finite ones."""
    start = positions.reshape(-1, positions.shape[-1])[:, list(axes)].astype(np.float64)
    arrow = arrows.reshape(-1, arrows.shape[-1])[:, list(axes)].astype(np.float64)
    finite = np.isfinite(start).all(axis=1) & np.isfinite(arrow).all(axis=1)
    return {"positions": start[finite], "vectors": arrow[finite]}


def arrow_scale(contents: Contents) -> float:
    """Scale factor that makes the longest arrow about as long as the arrows' spacing."""
    positions, arrows = contents["positions"], contents["vectors"]
    longest = float(np.hypot(*arrows.T).max(initial=0.0))
    if longest == 0.0:
        return 1.0
    extent = float(np.ptp(positions, axis=0).max()) if len(positions) > 1 else 0.0
    return (extent or 1.0) / max(np.sqrt(len(positions)) - 1, 1.0) / longest
