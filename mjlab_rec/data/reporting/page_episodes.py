"""The section of a report that shows the worst, median and best episodes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mjlab_rec.data.reporting import charts
from mjlab_rec.data.reporting.charts import number
from mjlab_rec.data.reporting.clips import Clip
from mjlab_rec.data.reporting.gathering import Gathered, ShownEpisode
from mjlab_rec.data.reporting.markup import card, figure, table, text
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec

_TYPES = ("video/mp4", "image/png")


def episodes_section(
    rollouts: Rollouts, found: Gathered, clips: Mapping[int, Clip]
) -> Iterator[str]:
    """A table of episodes, and charts and clips of one of each kind."""
    if not found.shown:
        return
    yield "<h2>Worst, median and best episodes</h2>"
    if found.only_whole:
        yield (
            '<p class="soft">By their returns, without those that were cut or have missing'
            " rows.</p>"
        )
    rows = rollouts.episodes
    lines = []
    for each in found.shown:
        facts: dict[str, Any] = rows.row(each.index, named=True)
        ends = [name for name in ("terminated", "truncated", "cut") if facts[name]]
        success = {True: "yes", False: "no", None: "-"}[facts["success"]]
        lines.append(
            (
                text(each.rank),
                str(each.index),
                str(facts["env"]),
                str(facts["number"]),
                number(float(found.returns[each.index])),
                number(facts["length"]),
                text(", ".join(ends)),
                success,
            )
        )
    header = "episode", "place", "environment", "number", "return", "length", "end", "success"
    yield card(table(header, lines))
    drawn = [each for each in found.shown if each.arrays]
    bounds = _bounds(drawn)
    for each in drawn:
        env, count = rows["env"][each.index], rows["number"][each.index]
        title = f"{each.rank.title()}: environment {env}, episode {count}"
        yield f"<h3>{text(title)}</h3>"
        if each.index in clips:
            yield card(_clip(clips[each.index], title))
        yield f'<div class="charts">{"".join(_charts(rollouts, each, bounds))}</div>'
    if not clips:
        yield (
            '<p class="soft">There are no clips. They are made of recorded pictures, or drawn from'
            " recorded states, unless that is switched off (--no-clips).</p>"
        )


def _charts(
    rollouts: Rollouts, episode: ShownEpisode, bounds: Mapping[str, tuple[float, float]]
) -> Iterator[str]:
    steps = episode.arrays["step"].astype(np.float64)
    for name, y in bounds.items():
        spec = rollouts.channels[name]
        columns = episode.arrays[name].reshape(len(steps), -1)[:, : charts.COLOURS]
        chart = charts.lines(name, steps, columns.astype(np.float64), y, "step of the episode")
        more = f" (first {charts.COLOURS} of {spec.size})" if spec.size > charts.COLOURS else ""
        yield figure(name + more, chart, _names(spec) if spec.size > 1 else ())


def _names(spec: ChannelSpec) -> list[str]:
    names = list(spec.elements) or [each.removeprefix(spec.name) for each in spec.columns()]
    return names[: charts.COLOURS]


def _bounds(episodes: list[ShownEpisode]) -> dict[str, tuple[float, float]]:
    """The same range of values in all charts of a channel, so that they can be compared."""
    found = {}
    names = [name for name in episodes[0].arrays if name != "step"] if episodes else []
    for name in names:
        drawn = [each.arrays[name].reshape(len(each.arrays[name]), -1) for each in episodes]
        values = np.concatenate([v[:, : charts.COLOURS].ravel().astype(np.float64) for v in drawn])
        values = values[np.isfinite(values)]
        found[name] = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return found


def _clip(clip: Clip, title: str) -> str:
    if clip.media_type not in _TYPES:
        raise ValueError(f"A clip must be {' or '.join(_TYPES)}, got {clip.media_type!r}.")
    sources = [
        f"data:{clip.media_type};base64,{base64.b64encode(file).decode('ascii')}"
        for file in clip.files
    ]
    if clip.media_type == "video/mp4":
        return "".join(
            f'<video controls muted loop playsinline aria-label="{text(title)}" src="{source}">'
            "</video>"
            for source in sources
        )
    pictures = "".join(
        f'<img alt="{text(title)}, picture {i}" src="{source}">'
        for i, source in enumerate(sources, 1)
    )
    return f'<div class="frames">{pictures}</div>'
