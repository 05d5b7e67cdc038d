"""A matplotlib figure of a live plot, drawn in a separate process.

Drawing holds Python's global lock for long, and windows need a process's main thread. So this file
runs as a program: it receives drawing requests as pickles on standard input and answers each on
standard output. It imports nothing from this package, so that it starts quickly.
"""

from __future__ import annotations

import math
import os
import pickle
import select
import signal
import traceback
import warnings
from typing import IO, Any

import numpy as np

_DPI = 100
_POLL_S = 0.02


class PlotFigure:
    """Draws panels in a matplotlib figure, updating the same artists for each frame.

    Args:
        figure: A ``matplotlib.figure.Figure`` with any canvas.
        panels: Panels as dicts of their fields.
        title: Title of the figure.
    """

    def __init__(self, figure: Any, panels: list[dict[str, Any]], title: str) -> None:
        self.figure, self._title = figure, title
        self._panels = panels
        self._artists: list[Any] = [None] * len(panels)
        self._updates = 0
        self.axes: list[Any] = []
        plots: dict[str, list[dict[str, Any]]] = {}
        for panel in panels:
            plots.setdefault(panel["title"], []).append(panel)
        columns = math.ceil(math.sqrt(len(plots)))
        grid = figure.add_gridspec(math.ceil(len(plots) / columns), columns)
        for place, group in enumerate(plots.values()):
            cell = grid[place // columns, place % columns].subgridspec(len(group), 1)
            for row, panel in enumerate(group):
                axes = figure.add_subplot(cell[row, 0])
                axes.set_title(_heading(panel), fontsize=11)
                axes.set_ylabel(panel["y_label"])
                last_lines = all(p["kind"] != "lines" for p in group[row + 1 :])
                if panel["kind"] != "lines" or last_lines:
                    axes.set_xlabel(panel["x_label"])
                self.axes.append(axes)

    def update(self, caption: str, contents: list[dict[str, np.ndarray]]) -> None:
        """Show a frame."""
        # Layout takes as long as drawing, and labels hardly change.
        often = self._updates < 4 or self._updates % 32 == 0
        self.figure.set_layout_engine("constrained" if often else "none")
        self._updates += 1
        self.figure.suptitle(f"{self._title}, {caption}" if self._title else caption, fontsize=12)
        for i, (panel, content) in enumerate(zip(self._panels, contents, strict=True)):
            draw = {"lines": self._lines, "image": self._image, "vectors": self._vectors}
            draw[panel["kind"]](i, panel, content)

    def _lines(self, i: int, panel: dict[str, Any], content: dict[str, np.ndarray]) -> None:
        axes, x, y = self.axes[i], content["x"], content["y"]
        if self._artists[i] is None:
            axes.grid(True, alpha=0.3)
            axes.margins(x=0.01)
            labels = panel["labels"]
            # A single line with the panel's title needs no legend.
            single = len(labels) == 1 and labels[0] in (panel["title"], panel["subtitle"])
            self._artists[i] = [
                axes.plot([], [], linewidth=1.3, label=label, color=_color(k))[0]
                for k, label in enumerate(labels)
            ]
            if not single:
                columns = 1 if len(labels) <= 6 else 2 if len(labels) <= 16 else 4
                size = 8 if len(labels) <= 16 else 6
                axes.legend(loc="upper left", ncols=columns, fontsize=size, framealpha=0.6)
            if panel["log"]:
                axes.set_yscale("log", nonpositive="mask")
        for line, values in zip(self._artists[i], y, strict=True):
            line.set_data(x, values)
            # A single value between two gaps would be invisible.
            known = np.isfinite(values)
            alone = known & ~np.append(known[1:], False) & ~np.insert(known[:-1], 0, False)
            line.set(marker="." if alone.any() else "", markevery=alone.tolist())
        if np.isfinite(y).any():
            axes.relim()
            axes.autoscale_view()

    def _image(self, i: int, panel: dict[str, Any], content: dict[str, np.ndarray]) -> None:
        axes = self.axes[i]
        if self._artists[i] is None:
            self._artists[i] = axes.imshow(content["image"], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        self._artists[i].set_data(content["image"])
        if "range" in content:
            low, high = content["range"]
            axes.set_xlabel(f"black {low:.4g}, white {high:.4g}", fontsize=9)

    def _vectors(self, i: int, panel: dict[str, Any], content: dict[str, np.ndarray]) -> None:
        axes, start, arrow = self.axes[i], content["positions"], content["vectors"]
        if self._artists[i] is not None:
            self._artists[i].remove()
        else:
            axes.grid(True, alpha=0.3)
            axes.set_aspect("equal", adjustable="box")
        scale = float(content["scale"])
        tip = start + arrow * scale
        self._artists[i] = axes.quiver(
            *start.T,
            *(arrow * scale).T,
            angles="xy",
            scale_units="xy",
            scale=1.0,
            color=_color(0),
            width=0.004,
        )
        if len(start):
            ends = np.concatenate([start, tip])
            low, high = ends.min(axis=0), ends.max(axis=0)
            pad = 0.05 * (high - low).max() or 0.5
            axes.set_xlim(low[0] - pad, high[0] + pad)
            axes.set_ylim(low[1] - pad, high[1] + pad)
            longest = float(np.hypot(*arrow.T).max())
            axes.set_title(f"{_heading(panel)} (longest: {longest:.3g})", fontsize=11)


def _heading(panel: dict[str, Any]) -> str:
    return f"{panel['title']}: {panel['subtitle']}" if panel["subtitle"] else panel["title"]


def _color(index: int) -> str:
    return f"C{index % 10}"


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Draw requested frames until the input ends."""
    setup = pickle.load(source)
    try:
        server = _Server(**setup)
    except BaseException:
        _answer(sink, "error", traceback.format_exc())
        return
    _answer(sink, "ok", None)
    while True:
        server.wait(source)
        try:
            asked = pickle.load(source)
        except EOFError:
            return
        if asked is None:
            return
        try:
            _answer(sink, *server.draw(*asked))
        except Exception:
            _answer(sink, "error", traceback.format_exc())


class _Server:
    def __init__(self, panels: Any, title: str, size: tuple[int, int], window: bool) -> None:
        inches = size[0] / _DPI, size[1] / _DPI
        self._window = window
        if window:
            # A backend for notebooks or headless runs would keep the window from opening.
            if os.environ.get("MPLBACKEND", "").lower().startswith(("agg", "module://")):
                del os.environ["MPLBACKEND"]
            import matplotlib.pyplot as plt

            self._figure = plt.figure(num=title or "live plot", figsize=inches, dpi=_DPI)
            if plt.get_backend().lower() == "agg":
                raise RuntimeError(
                    "matplotlib has no GUI toolkit here. Install one, such as Tk (Debian:"
                    " python3-tk) or PyQt6."
                )
            self._plt = plt
            plt.show(block=False)
        else:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            self._figure = Figure(figsize=inches, dpi=_DPI)
            FigureCanvasAgg(self._figure)
        self._plot = PlotFigure(self._figure, panels, title)

    def wait(self, source: Any) -> None:
        """Keep the window responsive until there is input."""
        while self._window and self._open and not select.select([source], [], [], 0)[0]:
            self._figure.canvas.start_event_loop(_POLL_S)

    @property
    def _open(self) -> bool:
        return self._plt.fignum_exists(self._figure.number)

    def draw(self, caption: str, contents: Any, path: str | None) -> tuple[str, Any]:
        """Draw a frame in the window, to a PNG file, or to pixels."""
        if self._window and not self._open:
            return "closed", None
        self._plot.update(caption, contents)
        if self._window:
            self._figure.canvas.draw()
            self._figure.canvas.flush_events()
            return "ok", None
        if path is not None:
            self._figure.savefig(path, format="png", dpi=_DPI)
            return "ok", None
        canvas: Any = self._figure.canvas
        canvas.draw()
        return "ok", np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _answer(sink: IO[bytes], word: str, value: Any) -> None:
    pickle.dump((word, value), sink)
    sink.flush()


if __name__ == "__main__":
    # A Ctrl-C is for the simulation, which then ends this process by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Output of libraries must not mix with the answers.
    serve(os.fdopen(0, "rb", buffering=0), answers)
