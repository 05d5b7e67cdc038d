"""Live plots on this process's web page: charts, images and drawings in a panel of their own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.recorders.live_plot.panels import Contents, Frame, Panel, arrow_scale
from mjlab_rec.utils.page import COLOURS, open_page

_ASPECT = 1.6
_WHOLE_PAGE = 100_000  # pixels, of which the page takes as many as it has.
_PART_OF_PAGE = 440
# The panel's own layout has one column, and on phones leaves a third of the width free.
_GRID = """<div class="plot-grid"></div><style>
div:has(> div > .plot-grid) {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(25rem, 100%), 1fr)); gap: 8px;
}
div:has(> div > .plot-grid) > * { min-width: 0; }
div:has(> div > .plot-grid) > :nth-child(-n + 2) { grid-column: 1 / -1; }
@media (max-width: 40em) {
  .mantine-Paper-root:has(.plot-grid),
  .mantine-Paper-root:has(.plot-grid) .mantine-ScrollArea-content > div { width: 100vw !important; }
}
</style>"""
_IMAGE_SIDE = 480  # Smaller images are enlarged, or the browser would blur their pixels.
_SVG = 400, 300  # units of the drawing, which is as wide as the panel


class PageBackend:
    """Draws in a panel of the page, which is removed at the end.

    The panel is as wide as the page, or narrow if a viewer or other plots are on it too. The plots
    stand in as many columns as have room.

    Args:
        panels: The panels of each frame.
        title: Title of the plots.
        port: Where to serve the page, unless it is already open.
        host: Address to listen at.
    """

    def __init__(self, panels: Sequence[Panel], title: str, port: int, host: str) -> None:
        self.files: list[Path] = []
        self._panels, self._title = panels, title
        self.page = open_page("LivePlotRecorder", port, host)
        gui = self.page.server.gui
        self._panel = gui.add_panel()
        self._shared: bool | None = None
        with self._panel.add_tab("Live plot"):
            gui.add_html(_GRID)
            self._caption = gui.add_markdown("")
            self.handles: list[Any] = [None] * len(panels)
            for i, panel in enumerate(panels):
                if panel.kind == "lines":
                    self.handles[i] = _add_chart(gui, panel)
                elif panel.kind == "image":
                    self.handles[i] = gui.add_image(
                        np.zeros((1, 1, 3), np.uint8), label=panel.heading, format="png"
                    )
                else:
                    self.handles[i] = gui.add_html("")

        self._panel.dock_left()
        self._panel.expand()  # Phones begin with all panels closed.
        self._place()

    def draw(self, frame: Frame, final: bool) -> None:
        """Send a frame to all open browsers."""
        self._place()
        # All in one message, so that the panels show the same moment.
        with self.page.server.atomic():
            self._caption.content = ", ".join(filter(None, (self._title, frame.caption)))
            for panel, handle, content in zip(
                self._panels, self.handles, frame.contents, strict=True
            ):
                if panel.kind == "lines":
                    handle.data = _with_gaps(content)
                elif panel.kind == "image":
                    handle.image = _enlarged(content["image"])
                    if "range" in content:
                        low, high = content["range"]
                        handle.label = f"{panel.heading} ({low:.4g} to {high:.4g})"
                else:
                    handle.content = arrows_svg(panel, content)

    def close(self) -> None:
        """Remove the plots; the page closes with its last user."""
        try:
            self._panel.remove()
            self.page.server.gui.main_panel.expand()
        finally:
            self.page.close()

    def _place(self) -> None:
        """Take the whole page, or leave room for others; what users change in between stays."""
        if self.page.shared == self._shared:
            return
        self._shared = self.page.shared
        self._panel.set_width(_PART_OF_PAGE if self._shared else _WHOLE_PAGE)
        controls = self.page.server.gui.main_panel
        if self._shared:
            controls.expand()
        else:
            controls.minimize()  # It is empty.


def _add_chart(gui: Any, panel: Panel) -> Any:
    series: list[dict[str, Any]] = [{"label": panel.x_label}]
    for i, label in enumerate(panel.labels):
        points = {"show": False}
        color = COLOURS[i % len(COLOURS)]
        series.append({"label": label, "stroke": color, "width": 1.5, "points": points})
    return gui.add_uplot(
        data=(np.zeros(0),) * len(series),
        series=tuple(series),
        title=panel.heading,
        scales={"x": {"time": False}, "y": {"distr": 3, "log": 10} if panel.log else {}},
        axes=(
            {"label": panel.x_label, "size": 34, "labelSize": 18},
            {"label": panel.y_label, "size": 56, "labelSize": 18 if panel.y_label else 0},
        ),
        legend={"show": True},
        aspect=_ASPECT,
        padding=(10, 16, 0, 0),  # Room for the topmost number.
    )


def _with_gaps(content: Contents) -> list[list[float | None]]:
    """The data of a chart, which draws across NaN values but leaves a gap for None."""
    # Lists, because viser turns tuples into numeric arrays, which cannot hold None.
    columns = [content["x"], *content["y"]]
    return [[None if math.isnan(value) else value for value in c.tolist()] for c in columns]


def _enlarged(image: np.ndarray) -> np.ndarray:
    factor = max(1, _IMAGE_SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def arrows_svg(panel: Panel, content: Contents) -> str:
    """Arrows as an SVG drawing that scales to any size."""
    start, arrow = content["positions"], content["vectors"] * arrow_scale(content)
    width, height = _SVG
    left, right, top, bottom = 56, 12, 28, 40
    ends = np.concatenate([start, start + arrow]) if len(start) else np.zeros((1, 2))
    low, high = ends.min(axis=0), ends.max(axis=0)
    room = np.array([width - left - right, height - top - bottom])
    scale = float((room / np.maximum((high - low) * 1.1, 1e-12)).min())
    scale = scale if np.isfinite(scale) and (high - low).max() > 0 else 100.0
    middle = np.array([left, top]) + room / 2

    def at(points: np.ndarray) -> np.ndarray:
        return middle + (points - (low + high) / 2) * scale * [1, -1]

    strokes = list(zip(at(start), at(start + arrow), strict=True))
    lines = [
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'
        for a, b in strokes
    ]
    heads = [_head(a, b) for a, b in strokes]
    reach = np.stack([-room, room]) / 2 / scale + (low + high) / 2
    ticks = []
    for value in _ticks(*reach[:, 0]):
        x = at(np.array([value, 0]))[0]
        ticks.append(f'<text x="{x:.1f}" y="{height - bottom + 14}" {_MIDDLE}>{value:.4g}</text>')
    for value in _ticks(*reach[:, 1]):
        y = at(np.array([0, value]))[1]
        ticks.append(f'<text x="{left - 6}" y="{y + 4:.1f}" {_END}>{value:.4g}</text>')
    longest = float(np.hypot(*content["vectors"].T).max(initial=0.0))
    title = f"{panel.heading} (longest: {longest:.3g})"
    y_middle = top + room[1] / 2
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" font-family="sans-serif"'
        f' font-size="12" fill="currentColor" role="img">'
        f'<text x="{width / 2}" y="16" font-size="14" {_MIDDLE}>{html.escape(title)}</text>'
        f'<rect x="{left}" y="{top}" width="{room[0]}" height="{room[1]}" fill="none"'
        f' stroke="currentColor" stroke-opacity="0.3"/>{"".join(ticks)}'
        f'<text x="{left + room[0] / 2}" y="{height - 8}" {_MIDDLE}>{html.escape(panel.x_label)}'
        f'</text><text transform="translate(14 {y_middle}) rotate(-90)" {_MIDDLE}>'
        f"{html.escape(panel.y_label)}</text>"
        f'<g stroke="{COLOURS[0]}" stroke-width="1.3">{"".join(lines)}</g>'
        f'<g fill="{COLOURS[0]}">{"".join(heads)}</g></svg>'
    )


_MIDDLE, _END = 'text-anchor="middle"', 'text-anchor="end"'


def _head(start: np.ndarray, tip: np.ndarray) -> str:
    """The triangle at an arrow's tip; a dot if the arrow has no length."""
    along = tip - start
    length = float(np.hypot(*along))
    if length < 1.0:
        return f'<circle cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="1.2"/>'
    size = min(6.0, 0.5 * length)
    along = along / length * size
    across = np.array([-along[1], along[0]]) * 0.45
    corners = [tip, tip - along + across, tip - along - across]
    return '<polygon points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in corners) + '"/>'


def _ticks(low: float, high: float) -> np.ndarray:
    """A few round numbers between two."""
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-12) / 3))
    for factor in (5, 2):
        if (high - low) / (step * factor) >= 3:
            step *= factor
            break
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0
