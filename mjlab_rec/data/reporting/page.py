"""The page of a report, from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from mjlab_rec.data.reporting import charts
from mjlab_rec.data.reporting.charts import number
from mjlab_rec.data.reporting.clips import Clip
from mjlab_rec.data.reporting.gathering import REWARD_TERMS, Gathered
from mjlab_rec.data.reporting.markup import card, facts, figure, share, table, text
from mjlab_rec.data.reporting.page_episodes import episodes_section
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.utils.tables import size_text

_KNOWN = ("task", "engine", "device", "seed")
_ELEMENTS = 32  # of a channel, in its table
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"


def page(
    rollouts: Rollouts, about: Mapping[str, Any], found: Gathered, clips: Mapping[int, Clip]
) -> str:
    """The whole page.

    Args:
        rollouts: The recording.
        about: Its description.
        found: The numbers.
        clips: Clips of some episodes, by their rows in the table.
    """
    style = files("mjlab_rec.data.reporting").joinpath("style.css").read_text("utf-8")
    title = about["task"] or "Recording"
    where = about["path"] or f"{len(rollouts.paths)} recordings"
    sections = [
        f'<h1>{text(title)}</h1><p class="soft">{text(where)}</p>',
        _tiles(about, found),
        f"<h2>What was recorded</h2>{card(_about(rollouts, about))}",
        *_returns(rollouts, found),
        *_ends(about, found),
        *_reward_terms(found, about["episodes"]),
        *episodes_section(rollouts, found, clips),
        *_channels(rollouts, found),
        "<footer>Made by mjlab_rec. This file needs no network and has no scripts.</footer>",
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{text(title)}: report</title>'
        f"<style>{style}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _tiles(about: Mapping[str, Any], found: Gathered) -> str:
    returns = found.returns[np.isfinite(found.returns)]
    ends = about["ends"]
    judged = ends["success"] + ends["failure"]
    tiles = {
        "episodes": number(about["episodes"]),
        "rows": number(about["rows"]),
        "mean return": number(float(returns.mean())) if len(returns) else "unknown",
        "mean length (steps)": number(float(found.lengths.mean())) if len(found.lengths) else "-",
        **({"success rate": f"{100 * ends['success'] / judged:.3g} %"} if judged else {}),
        "state": about["state"].partition(":")[0],
    }
    made = (card(f"<b>{text(v)}</b><span>{text(n)}</span>", "tile") for n, v in tiles.items())
    return f'<div class="tiles">{"".join(made)}</div>'


def _about(rollouts: Rollouts, about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    kind = "good" if about["finished"] else "warn"
    rows = [
        ("state", f'<span class="{kind}">{text(about["state"])}</span>'),
        ("format", text(about["format"])),
        *([("files", f"{number(about['files'])}, {size_text(about['bytes'])}")]
          if about["files"] else []),
        *((n, text(about[n])) for n in _KNOWN if about[n] is not None),
        *([("versions", text(versions, 1000))] if versions else []),
        ("environments", number(about["envs"])),
        ("episodes", number(about["episodes"])),
        ("rows", number(about["rows"])),
        *([("rows lost", f'<span class="warn">{number(about["rows_lost"])}</span>')]
          if about["rows_lost"] else []),
        ("step", text(f"{about['step_dt']:g} s")),
        *([("recorded", f"one of {number(about['every'])} steps")] if about["every"] > 1 else []),
        *([("attached", text(", ".join(about["attachments"]), 1000))]
          if about["attachments"] else []),
    ]  # fmt: skip
    return facts(rows)


def _returns(rollouts: Rollouts, found: Gathered) -> Iterator[str]:
    yield "<h2>Returns and lengths</h2>"
    known = np.isfinite(found.returns)
    if not len(found.lengths):
        yield "<p>There are no episodes.</p>"
        return
    dt = rollouts.info.step_dt
    at, x_name = found.ended_at * (dt or 1), "seconds of simulation when the episode ended"
    if found.in_order:
        at, x_name = found.ended_at, "episode, in the order of the recording"
    elif not dt:
        x_name = "steps of the environment when the episode ended"
    more = "" if len(known) <= 100 else " Lines are means, areas hold eight of ten episodes."
    yield f'<p class="soft">{_spread(found.returns[known], "return")}{more}</p>'
    unknown = len(known) - int(known.sum())
    if unknown:
        yield f'<p class="warn">{number(unknown)} episodes have no finite return.</p>'
    drawn = []
    for name, values in (("Return", found.returns), ("Length (steps)", found.lengths)):
        values = values.astype(np.float64)
        if np.isfinite(values).any():
            low = name.lower()
            drawn.append(figure(name, charts.histogram(name, values, low)))
            title = f"{name} over time"
            drawn.append(figure(title, charts.over_time(title, at, values, x_name)))
    yield f'<div class="charts">{"".join(drawn)}</div>'


def _ends(about: Mapping[str, Any], found: Gathered) -> Iterator[str]:
    total = about["episodes"]
    if not total:
        return
    meaning = {
        "terminated": "terminated",
        "truncated": "truncated (time limit)",
        "cut": "cut by a reset or the end of the recording",
        "partial": "with missing rows",
        "success": "success",
        "failure": "failure",
    }
    counts = [(meaning[name], about["ends"][name]) for name in meaning if about["ends"][name]]
    counts += [(f"cause: {name}", count) for name, count in found.causes.items()]
    yield "<h2>Ends</h2>"
    rows = [
        (text(name), number(n), f"{100 * n / total:.3g} %", share(n, total)) for name, n in counts
    ]
    yield card(table(("how episodes ended", "episodes", "share", ""), rows))


def _reward_terms(found: Gathered, episodes: int) -> Iterator[str]:
    terms = {n: d for n, d in found.distributions.items() if n.startswith(REWARD_TERMS)}
    terms = {name: each for name, each in terms.items() if each.size == 1 and each.count[0]}
    if not terms or not episodes:
        return
    most = max(abs(float(each.mean[0])) for each in terms.values())
    rows = [
        (
            text(name.removeprefix(REWARD_TERMS)),
            number(float(each.mean[0])),
            number(float(each.mean[0] * each.count[0] / episodes)),
            share(abs(float(each.mean[0])), most),
        )
        for name, each in terms.items()
    ]
    header = "term", "mean of a row", "mean sum of an episode", "size of the mean"
    yield f"<h2>Reward terms</h2>{card(table(header, rows))}"


def _channels(rollouts: Rollouts, found: Gathered) -> Iterator[str]:
    yield "<h2>Channels</h2>"
    header = "element", "values", "mean", "std", "min", "max", "NaN", "infinite"
    for name, each in found.distributions.items():
        spec = rollouts.channels[name]
        shape = "x".join(map(str, spec.shape))
        kind = ", ".join(
            filter(None, (spec.dtype.name, shape, spec.units, f"{spec.when} the step"))
        )
        yield f'<h3>{text(name)} <span class="unit">{text(kind)}</span></h3>'
        names = spec.elements or [n.removeprefix(name) or "value" for n in spec.columns()]
        rows = [
            (
                text(names[i], 80),
                charts.sparkline(each.bins[i].reshape(-1, 2).sum(axis=1)),
                *(
                    number(float(values[i])) if each.count[i] else "-"
                    for values in (each.mean, each.std, each.least, each.most)
                ),
                _bad(int(each.nan[i])),
                _bad(int(each.infinite[i])),
            )
            for i in range(min(each.size, _ELEMENTS))
        ]
        yield card(table(header, rows))
        if each.size > _ELEMENTS:
            rest = slice(_ELEMENTS, None)
            bad = int(each.nan[rest].sum()), int(each.infinite[rest].sum())
            known = each.count[rest] > 0
            ends = (each.least[rest][known], each.most[rest][known])
            range_text = (
                f" from {number(float(ends[0].min()))} to {number(float(ends[1].max()))}"
                if known.any()
                else ""
            )
            yield (
                f'<p class="soft">{each.size - _ELEMENTS} more elements{range_text}, with'
                f" {number(bad[0])} NaN and {number(bad[1])} infinite values.</p>"
            )
    if found.skipped:
        rows = [(text(name), text(why)) for name, why in found.skipped.items()]
        yield f"<h3>Channels without distributions</h3>{card(table(('channel', 'why'), rows))}"


def _bad(count: int) -> str:
    return f'<span class="warn">{number(count)}</span>' if count else "0"


def _spread(values: np.ndarray, name: str) -> str:
    if not len(values):
        return f"No {name} is known."
    said = {
        "mean": values.mean(),
        "std": values.std(ddof=1) if len(values) > 1 else 0.0,
        "min": values.min(),
        "median": np.median(values),
        "max": values.max(),
    }
    return f"{name.title()}: {', '.join(f'{n} {number(float(v))}' for n, v in said.items())}."
