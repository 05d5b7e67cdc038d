"""Panels of a live plot, and what one shows at a moment: plain arrays that any backend can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Contents = dict[str, np.ndarray]
"""Of lines: x (n,) and y (lines, n), NaN where a line is broken. Of an image: image (h, w, 3) in
bytes, and for shades of grey range (2,). Of vectors: positions and vectors (n, 2)."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One system of axes."""

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
    """Everything that is drawn at once."""

    caption: str
    """Which moment it is."""

    contents: Sequence[Contents]
    """What each panel shows."""

    copies: int = 1
    """How many frames of a video it takes up."""


class Backend(Protocol):
    """Where frames are drawn. All but the constructor is called in the drawing thread."""

    files: list[Path]
    """What was written so far."""

    def draw(self, frame: Frame, final: bool) -> None:
        """Draw a frame. The final one, at a flush or at the end, has to be seen."""

    def close(self) -> None:
        """Finish the file, remove what is on the page."""


def lines(x: np.ndarray, y: np.ndarray, breaks: np.ndarray, log: bool) -> Contents:
    """Lines that are interrupted where something else begins.

    Args:
        x: Where the values are, ascending: (n,).
        y: The values: (lines, n).
        breaks: Rows that do not continue the ones before them.
        log: Whether they are drawn logarithmically.
    """
    y = np.where(np.isfinite(y) & ((y > 0) if log else True), y, np.nan)
    breaks = breaks[breaks > 0]
    between = (x[breaks - 1] + x[breaks]) / 2
    return {"x": np.insert(x, breaks, between), "y": np.insert(y, breaks, np.nan, axis=1)}


def image(value: np.ndarray, value_range: tuple[float, float] | None) -> Contents:
    """A picture in bytes; see ``ImageCfg`` for what the numbers mean."""
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
    picture = np.repeat((shade.clip(0, 1) * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    picture[~finite] = (220, 40, 40)
    return {"image": picture, "range": np.array([low, high])}


def vectors(positions: np.ndarray, arrows: np.ndarray, axes: tuple[int, int]) -> Contents:
    """Arrows in the plane of two coordinates, without those that are not finite."""
    start = positions.reshape(-1, positions.shape[-1])[:, list(axes)].astype(np.float64)
    arrow = arrows.reshape(-1, arrows.shape[-1])[:, list(axes)].astype(np.float64)
    finite = np.isfinite(start).all(axis=1) & np.isfinite(arrow).all(axis=1)
    return {"positions": start[finite], "vectors": arrow[finite]}


def arrow_scale(contents: Contents) -> float:
    """Factor by which arrows are drawn, so that the longest is as long as they are apart."""
    positions, arrows = contents["positions"], contents["vectors"]
    longest = float(np.hypot(*arrows.T).max(initial=0.0))
    if longest == 0.0:
        return 1.0
    extent = float(np.ptp(positions, axis=0).max()) if len(positions) > 1 else 0.0
    return (extent or 1.0) / max(np.sqrt(len(positions)) - 1, 1.0) / longest
