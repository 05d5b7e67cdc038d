"""Small charts as SVG text. Colours come from the page's style, so they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 30
_POINTS = 300  # of a line; longer ones show the extremes of pieces
COLOURS = 6  # classes c0, c1, ... of the page's style


def number(value: float) -> str:
    """A number for people."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("-infinite" if value < 0 else "infinite")
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two bounds."""
    width = high - low
    if not (math.isfinite(width) and width > 0):
        return [low]
    step = 10.0 ** math.floor(math.log10(width / most))
    step *= next(factor for factor in (1, 2, 5, 10) if width / (step * factor) <= most)
    if step <= 0 or abs(low) / step > 1e9:
        return [low, high]
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + i) * step for i in range(count)]


class Axes:
    """Where values are in a chart."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = _padded(x), _padded(y)
        self._only = x[0] if x[0] == x[1] else None

    def x(self, value: float) -> str:
        """Horizontal position."""
        return f"{_LEFT + (WIDTH - _LEFT - _RIGHT) * self._share(value, self._x):.1f}"

    def y(self, value: float) -> str:
        """Vertical position."""
        return f"{HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * self._share(value, self._y):.1f}"

    def chart(self, title: str, content: str, x_name: str) -> str:
        """The whole chart, with axes around its content."""
        lines = [
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{self.y(at)}"'
            f' y2="{self.y(at)}"/><text class="tick" text-anchor="end" x="{_LEFT - 5}"'
            f' y="{float(self.y(at)) + 3.5:.1f}">{escape(_tick(at))}</text>'
            for at in ticks(*self._y)
        ]
        lines += [
            f'<text class="tick" text-anchor="middle" x="{self.x(at)}" y="{HEIGHT - _BOTTOM + 13}">'
            f"{escape(_tick(at))}</text>"
            for at in (ticks(*self._x) if self._only is None else [self._only])
        ]
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>'
            f'{"".join(lines)}{content}<text class="tick name" text-anchor="middle" x="{middle}"'
            f' y="{HEIGHT - 4}">{escape(x_name)}</text></svg>'
        )

    def line(self, xs: np.ndarray, ys: np.ndarray, kind: str) -> str:
        """A line, with gaps where a value is not finite."""
        return "".join(self._runs(xs, ys, kind))

    def dots(self, xs: np.ndarray, ys: np.ndarray, kind: str) -> str:
        """A dot for each value."""
        good = np.isfinite(ys)
        return "".join(
            f'<circle class="dot {kind}" r="2" cx="{self.x(x)}" cy="{self.y(y)}"/>'
            for x, y in zip(xs[good], ys[good], strict=True)
        )

    def band(self, xs: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
        """The area between two lines."""
        there = [f"{self.x(x)},{self.y(y)}" for x, y in zip(xs, low, strict=True)]
        back = [f"{self.x(x)},{self.y(y)}" for x, y in zip(xs, high, strict=True)]
        return f'<polygon class="band" points="{" ".join(there + back[::-1])}"/>'

    def bar(self, low: float, high: float, height: float) -> str:
        """A bar of a histogram."""
        x, top = float(self.x(low)), float(self.y(height))
        width = max(0.5, float(self.x(high)) - x - 0.6)
        tall = max(0.6, float(self.y(0.0)) - top)
        return (
            f'<rect class="bar" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{tall:.1f}"/>'
        )

    def _runs(self, xs: np.ndarray, ys: np.ndarray, kind: str) -> Iterator[str]:
        xs, ys = thinned(xs, ys)
        cuts = np.flatnonzero(np.diff(np.isfinite(ys).astype(int), prepend=0, append=0))
        for first, last in zip(cuts[::2], cuts[1::2], strict=True):
            if last - first == 1:  # A line of one point would not be seen.
                yield self.dots(xs[first:last], ys[first:last], kind)
                continue
            run = zip(xs[first:last], ys[first:last], strict=True)
            points = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in run)
            yield f'<polyline class="line {kind}" points="{points}"/>'

    @staticmethod
    def _share(value: float, bounds: tuple[float, float]) -> float:
        # Halved, because the difference of two very large numbers is infinite.
        low, high = bounds[0] / 2, bounds[1] / 2
        return min(1.0, max(0.0, (value / 2 - low) / (high - low)))


def histogram(title: str, values: np.ndarray, x_name: str, bins: int = 30) -> str:
    """How often values occur."""
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = _padded((float(values.min()), float(values.max())))
    whole = bool((values == np.rint(values)).all())
    if whole and high - low < bins:  # A bar for each whole number.
        low, high = low - 0.5, high + 0.5
        bins = max(1, round(high - low))
    edges = np.linspace(low, high, bins + 1)
    at = np.clip(np.searchsorted(edges, values, "right") - 1, 0, bins - 1)
    counts = np.bincount(at, minlength=bins)
    axes = Axes((low, high), (0.0, float(counts.max()) * 1.05))
    bars = (
        axes.bar(edges[i], edges[i + 1], float(count)) for i, count in enumerate(counts) if count
    )
    return axes.chart(title, "".join(bars), x_name)


def over_time(title: str, xs: np.ndarray, ys: np.ndarray, x_name: str, bins: int = 40) -> str:
    """The mean of values over time, and where eight of ten are."""
    good = np.isfinite(ys)
    xs, ys = xs[good], ys[good]
    axes = Axes((float(xs.min()), float(xs.max())), (float(ys.min()), float(ys.max())))
    if len(xs) <= 100:
        order = np.argsort(xs, kind="stable")
        content = axes.dots(xs[order], ys[order], "c0")
        return axes.chart(title, content, x_name)
    edges = np.linspace(xs.min(), xs.max(), bins + 1)[1:-1]
    place = np.searchsorted(edges, xs)
    order = np.argsort(place, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
    middle = np.array([xs[group].mean() for group in groups])
    mean = np.array([ys[group].mean() for group in groups])
    low, high = np.array([np.quantile(ys[group], (0.1, 0.9)) for group in groups]).T
    axes = Axes(
        (float(xs.min()), float(xs.max())),
        (min(float(low.min()), float(mean.min())), max(float(high.max()), float(mean.max()))),
    )
    content = axes.band(middle, low, high) + axes.line(middle, mean, "c0")
    return axes.chart(title, content, x_name)


def lines(
    title: str, xs: np.ndarray, columns: np.ndarray, y: tuple[float, float], x_name: str
) -> str:
    """A line for each column, (rows, columns), in the colours of the page."""
    axes = Axes((float(xs.min()), float(xs.max())), y)
    drawn = (axes.line(xs, column, f"c{i % COLOURS}") for i, column in enumerate(columns.T))
    return axes.chart(title, "".join(drawn), x_name)


def sparkline(counts: Sequence[int] | np.ndarray) -> str:
    """A histogram without axes, for a table."""
    counts = np.asarray(counts)
    if not counts.any():
        return ""
    used = np.flatnonzero(counts)
    counts = counts[used[0] : used[-1] + 1]
    width, tall = 96 / len(counts), 22 / counts.max()
    bars = "".join(
        f'<rect class="bar" x="{i * width:.1f}" y="{23 - max(0.7, n * tall):.1f}"'
        f' width="{max(0.5, width - 0.3):.1f}" height="{max(0.7, n * tall):.1f}"/>'
        for i, n in enumerate(counts)
        if n
    )
    return f'<svg class="spark" viewBox="0 0 96 24" aria-hidden="true">{bars}</svg>'


def thinned(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer points of a line, with the smallest and largest value of each piece."""
    if len(xs) <= _POINTS:
        return xs, ys
    keep: list[int] = []
    for piece in np.array_split(np.arange(len(xs)), _POINTS // 2):
        values = ys[piece]
        if not np.isfinite(values).all():
            keep += [int(piece[0]), int(piece[np.argmin(np.isfinite(values))])]
            continue
        keep += [int(piece[np.argmin(values)]), int(piece[np.argmax(values)])]
    at = np.unique(keep)
    return xs[at], ys[at]


def _padded(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if high > low:
        return low, high
    pad = max(abs(low) * 0.05, 0.5)
    return low - pad, high + pad


def _tick(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:.6g}"
