"""``data report``: one page about a recording, whatever is in it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import damaged, flip, record
from data_worlds import World
from test_data_command import run

from mjlab_rec.data import open_rollouts, report
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.reporting import Clip
from mjlab_rec.data.reporting.charts import number, thinned, ticks
from mjlab_rec.data.reporting.distributions import Distribution
from mjlab_rec.data.reporting.gathering import gather
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo

F4, FLAG = np.dtype("float32"), np.dtype("bool")
EVIL = "<script>alert(1)</script>&\"'"


class Page(HTMLParser):
    """The tags and visible words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text())
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] != "style":
            self.words += data.split()


def written(path: Path, info: RunInfo, episodes: Sequence[Episode] = ()) -> Path:
    writer = writer_class("hdf5")(info, WriterOptions(path=str(path)))
    for episode in episodes:
        writer.write_episode(episode)
    writer.close()
    return path


def episode(number: int, arrays: dict[str, Any], **facts: Any) -> Episode:
    """An episode with some arrays."""
    rows = len(next(iter(arrays.values())))
    made: dict[str, Any] = {
        **{"env": 0, "start": 100 * number, "length": rows, "total": 0.0, "recorded": 0.0},
        **{"terminated": True, "truncated": False, "success": None, "partial": False},
    }
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    arrays["step"] = np.arange(rows, dtype=np.int32)
    return Episode(number=number, arrays=arrays, **{**made, **facts})


def rewarded(number: int, rewards: Sequence[float], **more: Any) -> Episode:
    total = float(np.sum(rewards))
    return episode(
        number,
        {"reward": np.asarray(rewards, F4), **more},
        **{"total": total, "recorded": total},
    )


def info_of(*channels: ChannelSpec, **about: Any) -> RunInfo:
    reward = ChannelSpec(name="reward", dtype=F4)
    return RunInfo(channels=(reward, *channels), envs=(0,), step_dt=0.1, about=about)


def test_a_page_says_what_was_recorded_and_needs_nothing_else(tmp_path):
    path = record("hdf5", tmp_path / "run.h5", World(num_envs=4, steps=60))
    page = Page(report(path, tmp_path / "report.html"))
    with open_rollouts(path) as rollouts:
        assert f"{len(rollouts)} episodes" in page.text and f"{rollouts.rows} rows" in page.text
    for words in ("made-up", "complete", "slider, x", "hinge[0]", "next values of obs/actor"):
        assert words in page.text
    assert {"script", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_distributions_are_those_of_the_values(tmp_path):
    path = record("hdf5", tmp_path / "run.h5", World(num_envs=4, steps=80))
    with open_rollouts(path) as rollouts:
        found = gather(rollouts).distributions
        for name in ("obs/actor", "state", "action", "file", "flag"):
            values = rollouts.arrays(name).astype(np.float64).reshape(rollouts.rows, -1)
            known = np.where(np.isfinite(values), values, np.nan)
            each = found[name]
            np.testing.assert_allclose(each.mean, np.nanmean(known, axis=0), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(each.std, np.nanstd(known, axis=0), rtol=1e-9)
            assert np.array_equal(each.least, np.nanmin(known, axis=0))
            assert np.array_equal(each.most, np.nanmax(known, axis=0))
            assert np.array_equal(each.nan, np.isnan(values).sum(axis=0))
            assert np.array_equal(each.infinite, np.isinf(values).sum(axis=0))
            assert np.array_equal(each.bins.sum(axis=1), each.count)


def test_a_histogram_keeps_its_counts_when_its_range_grows():
    rng = np.random.default_rng(0)
    pieces = [rng.normal(size=(50, 2)) * scale for scale in (1e-3, 1.0, 30.0)]
    whole = Distribution(2)
    for piece in pieces:
        whole.add(piece)
    values = np.concatenate(pieces)
    for column in range(2):
        edges = np.linspace(whole.low[column], whole.high[column], whole.bins.shape[1] + 1)
        expected = np.histogram(values[:, column], edges)[0]
        # A value on the edge of two bins may be in either.
        assert np.abs(whole.bins[column] - expected).sum() <= 4
    huge = Distribution(1)
    huge.add(np.array([[1.0], [-1.7e308], [1.7e308], [np.nan]]))
    assert huge.bins.sum() == 3 and huge.nan[0] == 1


def test_nan_and_infinite_values_are_counted_in_the_page(tmp_path):
    spec = ChannelSpec(name="force", dtype=F4, elements=("x", "y"), shape=(2,))
    values = np.full((5, 2), np.nan, F4)
    values[0, 1] = np.inf
    episodes = [rewarded(0, [np.nan] * 5, force=values)]
    path = written(tmp_path / "run.h5", info_of(spec), episodes)
    page = Page(report(path, tmp_path / "r.html"))
    assert "x - - - - 5 0" in page.text and "y - - - - 4 1" in page.text
    assert "1 episodes have no finite return." in page.text


def test_the_worst_median_and_best_episodes_are_shown(tmp_path):
    totals = [3.0, 9.0, 1.0, 7.0, 5.0]
    episodes = [rewarded(i, [total / 4] * 4) for i, total in enumerate(totals)]
    # Neither may be called the best: it was cut, or has too few rows.
    episodes += [rewarded(5, [50.0]), rewarded(6, [60.0])]
    episodes[5].terminated, episodes[6].partial, episodes[6].length = False, True, 3
    path = written(tmp_path / "run.h5", info_of(), episodes)
    with open_rollouts(path) as rollouts:
        found = gather(rollouts)
        assert [(e.rank, e.index) for e in found.shown] == [
            ("worst", 2),
            ("median", 4),
            ("best", 1),
        ]
        assert found.shown[2].arrays["reward"].tolist() == [2.25] * 4
    page = Page(report(path, tmp_path / "r.html"))
    assert "best 1 0 1 9 4 terminated" in page.text


def test_recorded_causes_and_reward_terms_are_listed(tmp_path):
    terms = [
        ChannelSpec(name="termination_terms/fell", dtype=FLAG),
        ChannelSpec(name="reward_terms/upright", dtype=F4),
    ]
    episodes = []
    for i in range(4):
        flags = np.zeros(3, bool)
        flags[[0, 2] if i == 0 else [0]] = True  # Only the last row counts.
        more = {"termination_terms/fell": flags, "reward_terms/upright": np.full(3, 0.5, F4)}
        episodes.append(rewarded(i, [1.0] * 3, **more))
    path = written(tmp_path / "run.h5", info_of(*terms), episodes)
    page = Page(report(path, tmp_path / "r.html"))
    assert "cause: termination_terms/fell 1 25 %" in page.text
    assert "upright 0.5 1.5" in page.text


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_episodes_are_enough(tmp_path, count):
    episodes = [rewarded(i, [1.0]) for i in range(count)]
    path = written(tmp_path / "run.h5", info_of(), episodes)
    page = Page(report(path, tmp_path / "r.html"))
    assert f"{count} episodes" in page.text
    assert ("There are no episodes." in page.text) == (count == 0)


def test_text_from_a_file_cannot_become_markup(tmp_path):
    spec = ChannelSpec(name=f"a{EVIL.replace('/', '')}", dtype=F4, shape=(1,), elements=(EVIL,))
    spec = dataclasses.replace(spec, units=EVIL)
    info = info_of(spec, task=EVIL, engine=[EVIL], seed={EVIL: EVIL}, versions={EVIL: EVIL})
    info.attachments = {f"{EVIL.replace('/', '')}": b""}
    info = dataclasses.replace(info, about={**info.about, "device": "a\x00\x1b[0m\u202e" * 999})
    episodes = [rewarded(i, [1.0 * i], **{spec.name: np.ones((1, 1), F4)}) for i in range(3)]
    path = written(tmp_path / "run.h5", info, episodes)
    out = report(path, tmp_path / "r.html")
    page = Page(out)
    assert EVIL in page.text  # Shown as what it is.
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"[\x00\x1b\u202e]", out.read_text())
    assert len(out.read_text()) < 60_000


def test_recorded_pictures_are_shown_but_not_measured(tmp_path):
    spec = ChannelSpec(name="camera", dtype=np.dtype("uint8"), shape=(16, 16, 3))
    pictures = np.zeros((9, 16, 16, 3), np.uint8)
    episodes = [rewarded(i, [float(i)] * 9, camera=pictures + 20 * i) for i in range(3)]
    path = written(tmp_path / "run.h5", info_of(spec), episodes)
    page = Page(report(path, tmp_path / "r.html"))
    assert "camera pictures" in page.text  # Why it has no distribution.
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 12 and all(s.startswith("data:image/png;base64,") for s in sources if s)


def test_a_clip_maker_is_asked_for_the_worst_and_best(tmp_path):
    episodes = [rewarded(i, [float(total)]) for i, total in enumerate((2, 1, 3))]
    path = written(tmp_path / "run.h5", info_of(), episodes)
    asked = []

    def clip(rollouts: Rollouts, index: int) -> Clip:
        asked.append(index)
        return Clip(media_type="video/mp4", files=(b"film",))

    page = Page(report(path, tmp_path / "r.html", clip=clip))
    assert asked == [1, 2]
    videos = [attributes["src"] for tag, attributes in page.tags if tag == "video"]
    assert videos == 2 * ["data:video/mp4;base64,ZmlsbQ=="]


def test_several_recordings_are_reported_as_one(tmp_path, capsys):
    paths = [record("hdf5", tmp_path / f"{n}.h5", World(seed=n, steps=20)) for n in range(2)]
    assert run("report", *paths, "--out", tmp_path / "r.html") == 0
    assert "r.html" in capsys.readouterr().out
    assert "2 recordings" in Page(tmp_path / "r.html").text


def test_nothing_is_overwritten_unless_asked(tmp_path, capsys):
    path, out = record("hdf5", tmp_path / "run.h5", World(steps=9)), tmp_path / "r.html"
    out.write_text("mine")
    assert run("report", path, "--out", out) == 2
    assert "already exists" in capsys.readouterr().err and out.read_text() == "mine"
    assert run("report", path, "--out", out, "--if-exists", "number") == 0
    assert (tmp_path / "r_1.html").exists() and out.read_text() == "mine"
    assert run("report", path, "--out", out, "--if-exists", "overwrite") == 0
    assert "made-up" in out.read_text()
    before = path.read_bytes()
    assert run("report", path, "--out", path, "--if-exists", "overwrite") == 2
    assert "must end in .html" in capsys.readouterr().err and path.read_bytes() == before


def test_a_damaged_recording_gives_an_error_and_no_page(tmp_path):
    path = record("hdf5", tmp_path / "run.h5", World(steps=60, num_envs=4))
    content, marker = path.read_bytes(), open_rollouts(path).arrays("state")
    value = marker[np.isfinite(marker).all(axis=1)][3].tobytes()
    with damaged(path, flip(content.index(value), 3)):
        with pytest.raises(DataError, match="--repair"):
            report(path, tmp_path / "r.html")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.h5"]


def test_numbers_and_ticks_are_readable():
    assert [number(v) for v in (3.0, 1e7, 0.123456, float("nan"), float("-inf"))] == [
        "3", "1e+07", "0.1235", "NaN", "-infinite",
    ]  # fmt: skip
    assert ticks(0.0, 10.0) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert len(ticks(-1.7e308, 1.7e308)) == 1 and ticks(1.0, 1.0) == [1.0]
    xs = np.arange(10_000.0)
    few, ys = thinned(xs, np.where(xs == 777, 5.0, 0.0))
    assert len(few) <= 300 and ys.max() == 5.0


def test_a_browser_shows_the_page_without_errors_and_without_network(browser, screenshot, tmp_path):
    path = record("hdf5", tmp_path / "run.h5", World(num_envs=4, steps=60))
    out = report(path, tmp_path / "report.html")
    said: list[str] = []
    asked: list[str] = []
    page = browser.new_context(viewport={"width": 960, "height": 700}).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(out.as_uri())
    assert page.locator("svg").count() > 20
    light = screenshot(page, "report-light").mean()
    page.emulate_media(color_scheme="dark")
    dark = screenshot(page, "report-dark").mean()
    assert light > 200 > 80 > dark
    page.set_viewport_size({"width": 390, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.close()
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()]
