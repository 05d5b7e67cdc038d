"""``data plot``: what is drawn of recordings, and the files that are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_command import run
from test_data_report import F4, episode, written

from mjlab_rec.data import open_rollouts, plot
from mjlab_rec.data.plot_panels import panels
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

pytest.importorskip("matplotlib")

INFO = RunInfo(
    channels=(
        ChannelSpec(name="reward", dtype=F4),
        ChannelSpec(name="obs/actor", dtype=F4, shape=(2,), elements=("x", "y"), units="m"),
        ChannelSpec(name="wide", dtype=F4, shape=(30,)),
        ChannelSpec(name="camera", dtype=np.dtype("uint8"), shape=(32, 32, 3)),
    ),
    envs=(0,),
    step_dt=0.5,
)


def recording(path: Path, lengths: Sequence[int] = (3, 5, 4), shift: float = 0.0) -> Path:
    """Rewards are the episode's number plus the step; element 7 and 3 of "wide" vary."""
    made = []
    for number, rows in enumerate(lengths):
        steps = np.arange(rows, dtype=np.float32)
        wide = np.zeros((rows, 30), np.float32)
        wide[:, 7], wide[:, 3] = 10 * steps, steps
        arrays: dict[str, Any] = {
            "reward": steps + number + shift,
            "obs/actor": np.stack([steps, -steps], axis=1),
            "wide": wide,
            "camera": np.zeros((rows, 32, 32, 3), np.uint8),
        }
        total = float(arrays["reward"].sum())
        made.append(episode(number, arrays, total=total, recorded=total))
    return written(path, INFO, made)


@pytest.fixture
def few(tmp_path) -> Path:
    return recording(tmp_path / "few.h5")


def of(path: Path, *args: Any) -> list[Any]:
    with open_rollouts(path) as rollouts:
        return panels({"one": rollouts}, *args)


def test_each_of_a_few_episodes_is_drawn_over_time(few):
    (panel,) = of(few, ["reward"], None, None, 8)
    assert [line.label for line in panel.lines] == ["episode 0", "episode 1", "episode 2"]
    for number, line in enumerate(panel.lines):
        assert np.array_equal(line.x, 0.5 * np.arange(len(line.y)))
        assert np.array_equal(line.y, np.arange(len(line.y)) + number)
        assert line.low is None


def test_elements_are_lines_with_their_names_and_units(few):
    (panel,) = of(few, ["obs"], [1], None, 8)
    assert (panel.title, panel.y_label) == ("obs/actor", "m")
    assert [line.label for line in panel.lines] == ["x", "y"]
    assert panel.lines[1].y.tolist() == [0, -1, -2, -3, -4]
    (panel,) = of(few, ["obs"], [1, 0, 2], None, 8)
    assert [line.faint for line in panel.lines] == [False, False, True, True, True, True]
    assert panel.title.endswith("episode 1, and faint: 0, 2")


def test_of_very_many_elements_those_that_vary_most_are_drawn(few):
    (panel,) = of(few, ["wide"], [1], None, 2)
    assert panel.title == "wide (2 of 30 elements)"
    assert [line.label for line in panel.lines] == ["3", "7"]
    assert panel.lines[1].y.tolist() == [0, 10, 20, 30, 40]


def test_many_episodes_become_a_mean_and_a_band(tmp_path):
    path = recording(tmp_path / "many.h5", lengths=(4, 2, 4, 3, 4, 4))
    (panel,) = of(path, ["reward"], None, None, 8)
    (line,) = panel.lines
    first = np.arange(6.0)
    assert line.x.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert np.allclose(line.y, [2.5, 3.5, np.mean([2, 4, 5, 6, 7]), np.mean([3, 5, 7, 8])])
    assert np.allclose([line.low[0], line.high[0]], np.percentile(first, (10, 90)))
    assert "mean of 6 episodes, and percentiles 10 to 90" in panel.title
    (panel,) = of(path, ["wide"], None, None, 8)
    assert len(panel.lines) == 8 and all(line.low is None for line in panel.lines)
    (panel,) = of(path, ["reward"], [0, 2], True, 8)
    assert np.allclose(panel.lines[0].y, [1, 2, 3, 4])
    assert len(of(path, ["reward"], None, False, 8)[0].lines) == 4


def test_rows_of_every_third_step_count_wherever_their_episodes_began(tmp_path):
    info = replace(INFO, channels=INFO.channels[:1], every=3)
    made = [episode(n, {"reward": np.arange(3, dtype=F4) + n}, length=9) for n in range(6)]
    for number, each in enumerate(made):
        each.arrays["step"] = np.arange(3) * 3 + number % 3
    (panel,) = of(written(tmp_path / "thin.h5", info, made), ["reward"], None, None, 8)
    assert panel.lines[0].x.tolist() == [0.0, 1.5, 3.0]
    assert np.allclose(panel.lines[0].y, [2.5, 3.5, 4.5])


def test_returns_over_episodes_have_a_running_mean(tmp_path):
    path = recording(tmp_path / "long.h5", lengths=[1] * 100)
    (panel,) = of(path, ["return"], None, None, 8)
    dots, mean = panel.lines
    assert dots.y.tolist() == list(range(100)) and dots.dots
    assert mean.label == "mean of 5 episodes" and mean.y[0] == 2.0 and mean.x[0] == dots.x[4]
    assert panel.x_label == "control steps" and dots.x[1] == 101
    (panel,) = of(path, ["length"], None, None, 8)
    assert set(panel.lines[0].y) == {1.0}


def test_cut_episodes_are_hollow_and_not_in_the_mean(tmp_path):
    made = [episode(n, {"reward": np.ones(1, F4)}, total=float(n)) for n in range(30)]
    made[29] = replace(made[29], terminated=False, truncated=False, total=1000.0)
    info = replace(INFO, channels=INFO.channels[:1])
    (panel,) = of(written(tmp_path / "cut.h5", info, made), ["return"], None, None, 8)
    cut, dots, mean = panel.lines
    assert cut.label == "cut" and cut.hollow and cut.y.tolist() == [1000.0]
    assert len(dots.y) == 29 and not dots.hollow and mean.y.max() < 30


def test_recordings_are_compared_element_by_element(tmp_path):
    paths = recording(tmp_path / "a.h5"), recording(tmp_path / "b.h5", shift=5.0)
    with open_rollouts(paths[0]) as a, open_rollouts(paths[1]) as b:
        found = panels({"a": a, "b": b}, ["obs/actor", "reward", "return"], [0], None, 8)
    assert [p.title for p in found] == ["obs/actor[x]", "obs/actor[y]", "reward", "returns"]
    for panel in found:
        assert [line.label for line in panel.lines] == ["a", "b"]
        assert [line.colour for line in panel.lines] == [0, 1]
    assert (found[2].lines[1].y - found[2].lines[0].y).tolist() == [5.0, 5.0, 5.0]
    with open_rollouts(paths[0]) as a, open_rollouts(paths[1]) as b:
        found = panels({"a": a, "b": b}, ["reward"], None, True, 8)
    assert found[0].title == "reward\nmeans, and percentiles 10 to 90"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_files_of_each_kind(few, tmp_path, suffix):
    path = plot(few, tmp_path / f"out{suffix}", channels=["reward"])
    start = path.read_bytes()[:200]
    assert {".png": b"PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix] in start
    with pytest.raises(DataError, match="exists"):
        plot(few, path, channels=["reward"])
    if suffix == ".svg":
        assert plot(few, path, channels=["reward"], if_exists="number").name == "out_1.svg"


def test_without_a_file_the_figure_is_returned(few):
    figure = plot(few, channels=["reward", "obs/actor"], title="Mine")
    assert [axes.get_title() for axes in figure.axes][0] == "reward"
    assert figure._suptitle.get_text() == "Mine"
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["x", "y"]
    with open_rollouts(few) as rollouts:
        assert len(plot(rollouts).axes) == 3  # returns, reward, obs/actor


class OnlyNan(Rollouts):
    def read(self, index, channels=None):
        arrays = super().read(index, channels)
        return {n: a if n == "step" else np.full_like(a, np.nan) for n, a in arrays.items()}


def test_nan_and_empty_recordings(few, tmp_path):
    with open_rollouts(few) as rollouts:
        assert len(plot(OnlyNan(rollouts.reader), channels=["reward"]).axes) == 1
    wide = np.zeros((3, 30), np.float32)
    wide[0, 2], wide[:, 5] = np.inf, [0, 1, 2]
    info = replace(INFO, channels=INFO.channels[2:3])
    path = written(tmp_path / "infinite.h5", info, [episode(0, {"wide": wide})])
    (panel,) = of(path, ["wide"], None, None, 2)
    assert "5" in [line.label for line in panel.lines]
    with pytest.raises(DataError, match="no episodes"):
        plot(written(tmp_path / "empty.h5", INFO))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": ["rewrad"]}, "Did you mean 'reward'"),
        ({"channels": ["camera"]}, "'camera' cannot be plotted: it holds pictures"),
        ({"episodes": [7]}, "There is no episode 7"),
        ({"episodes": []}, "episodes is empty"),
        ({"elements": 0}, "elements is 0"),
        ({"out": "plot.gif"}, "must end in .png, .svg, .pdf"),
    ],
)
def test_what_is_wrong_is_named(few, options, said):
    with pytest.raises((DataError, ValueError), match=said):
        plot(few, **options)


def test_recordings_without_the_channel_or_in_another_shape(few, tmp_path):
    narrow = RunInfo(channels=(INFO.channels[0],), envs=(0,), step_dt=0.5)
    other = written(tmp_path / "other.h5", narrow, [episode(0, {"reward": np.ones(3, F4)})])
    with pytest.raises(DataError, match="'b' has no channel 'obs/actor'"):
        plot({"a": few, "b": other}, channels=["obs"])


def test_the_command(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("plot", "few.h5", "--channels", "reward", "--episodes", "0", "2") == 0
    assert capsys.readouterr().out == "Wrote plot.png\n"
    recording(tmp_path / "b.h5")
    words = "--out two.svg --band on --channels reward"
    assert run("plot", "few.h5", "b.h5", *words.split()) == 0
    assert "b.h5" in Path("two.svg").read_text()
    assert run("plot", "few.h5", "--elements", "0") == 2
    assert "elements is 0" in capsys.readouterr().err
    assert run("plot") == 2
    assert "Give the path of a recording" in capsys.readouterr().err
