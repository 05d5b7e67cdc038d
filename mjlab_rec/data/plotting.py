"""Draw recordings: channels over time, episodes over each other, returns; one or several files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mjlab_rec.data.discovery import Source
from mjlab_rec.data.export.place import placed
from mjlab_rec.data.files import local_path
from mjlab_rec.data.plot_panels import Panel, panels
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import require

_SUFFIXES = (".png", ".svg", ".pdf")
_MOST_PANELS = 40
_MOST_LABELS = 12
_WIDTH, _HEIGHT = 5.5, 3.2  # of a panel in inches


def plot(
    source: Rollouts | Source | Mapping[str, Source],
    out: str | Path | None = None,
    *,
    channels: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    band: bool | None = None,
    elements: int = 8,
    title: str | None = None,
    if_exists: Literal["error", "overwrite", "number"] = "error",
) -> Any:
    """Draw channels of a recording over time, or of several recordings for comparison.

    Needs matplotlib, the extra "plot". Memory does not grow with the recording.

    Args:
        source: A recording, or its path; or recordings by their labels, which are compared:
            ``{"before": "a.h5", "after": "b.h5"}``.
        out: File to write: .png, .svg or .pdf. None: only return the figure.
        channels: What to draw, a panel for each: names of channels, "return" and "length" of
            episodes. None: returns, reward, actions and the policy's observations.
        episodes: Rows of the table of episodes. None: all, or 256 of them, evenly spread.
        band: Draw the mean of the episodes, and a band from the 10th to the 90th percentile, rather
            than each episode. None: if no episodes are given and there are more than four.
        elements: Most elements of a channel to draw: those that vary most.
        title: Title of the figure. None: the recordings.
        if_exists: What to do if the file exists: raise, replace it, or use the next free name.

    Returns:
        The path of the file, or the matplotlib figure without `out`.
    """
    if elements < 1:
        raise ValueError(f"elements is {elements}, but it must be at least 1.")
    if episodes is not None and not episodes:
        raise ValueError("episodes is empty. Give rows of the table of episodes, or None for all.")
    path = None if out is None else local_path(out)
    if path is not None and path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"A figure's name must end in {', '.join(_SUFFIXES)}, got '{out}'.")
    require("matplotlib", "plot", "plot")
    with contextlib.ExitStack() as stack:
        recordings = _opened(source, stack)
        found = panels(recordings, channels, episodes, band, elements)
        paths = [r.path for r in recordings.values() if r.path is not None]
    if len(found) > _MOST_PANELS:
        raise DataError(f"{len(found)} panels are too many for a figure. Choose some channels.")
    if title is None:
        title = " and ".join(path.name for path in paths) if len(paths) <= 3 else ""
    figure = draw(found, title)
    if path is None:
        return figure
    with placed(path, if_exists, source=paths[0] if paths else None) as (staged, final):
        figure.savefig(staged, format=path.suffix[1:].lower(), dpi=120)
    return final


def draw(found: Sequence[Panel], title: str = "") -> Any:
    """A matplotlib figure of panels."""
    from matplotlib.figure import Figure

    columns = 1 if len(found) == 1 else 2 if len(found) <= 8 else 3
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.4), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11)
    for number, panel in enumerate(found):
        axes = figure.add_subplot(rows, columns, number + 1)
        _draw_panel(axes, panel)
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for line in panel.lines:
        colour = f"C{line.colour % 10}"
        style: dict[str, Any] = {"color": colour, "label": line.label or "_", "linewidth": 1.2}
        if line.dots:
            style |= {"linestyle": "", "marker": ".", "markersize": 5, "markeredgewidth": 0.0}
        if line.hollow:
            style |= {"markeredgewidth": 0.8, "markerfacecolor": "none", "marker": "o"}
        if line.faint:
            style["alpha"] = 0.6 if line.dots else 0.4
        axes.plot(line.x, line.y, **style)
        if line.low is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    labels = [line.label for line in panel.lines if line.label]
    if not any(len(line.x) for line in panel.lines):
        axes.text(0.5, 0.5, "no known values", ha="center", va="center", transform=axes.transAxes)
    if 0 < len(labels) <= _MOST_LABELS:
        where: dict[str, Any] = {"loc": "best"}
        if len(labels) > 2:  # next to the curves, which it would hide
            where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        axes.legend(fontsize=7, frameon=False, **where)


def _opened(
    source: Rollouts | Source | Mapping[str, Source], stack: contextlib.ExitStack
) -> dict[str, Rollouts]:
    """The recordings by their labels."""
    if isinstance(source, Rollouts):
        return {"recording": source}
    if not isinstance(source, Mapping):
        return {str(source): stack.enter_context(open_rollouts(source))}
    if not source:
        raise ValueError("There are no recordings to plot.")
    return {label: stack.enter_context(open_rollouts(path)) for label, path in source.items()}
