"""Live plots: what they show is what happened, they never hold up a step, and they can be seen."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rollout_log import StepLog
from waiting import PATIENCE_S, patiently, until
from worlds import actions, cart_cfg, shaky

from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import Channel
from mjlab_rec.recorders.live_plot import panels as panels_of
from mjlab_rec.recorders.live_plot.cfg import LivePlotRecorderCfg
from mjlab_rec.recorders.live_plot.figure import PlotFigure
from mjlab_rec.recorders.live_plot.panels import Frame, Panel
from mjlab_rec.recorders.live_plot.plots import (
    DEFAULT_PLOTS,
    ImageCfg,
    LinesCfg,
    VectorsCfg,
    flat_plots,
)
from mjlab_rec.recorders.live_plot.recorder import LivePlotRecorder
from mjlab_rec.recorders.presets import PRESETS, load_preset
from mjlab_rec.recorders.progress import progress
from mjlab_rec.utils import display as display_module
from mjlab_rec.utils.extras import MissingExtraError
from mjlab_rec.utils.page import open_page
from mjlab_rec.utils.plain_data import build

DT = 0.04
MEN: Any = "men"


class Arrays:
    """A backend that keeps the frames."""

    def __init__(self, panels):
        self.panels, self.frames, self.files = panels, [], []

    def draw(self, frame, final):
        self.frames.append(frame)

    def close(self):
        pass


class Kept(LivePlotRecorder):
    """Draws into memory."""

    arrays: Arrays

    def make_backend(self, panels):
        self.arrays = Arrays(panels)
        return self.arrays


class Gate(Arrays):
    """A backend that waits at a gate before it draws."""

    def __init__(self, panels):
        super().__init__(panels)
        self.entered, self.open = threading.Event(), threading.Event()

    def draw(self, frame, final):
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        super().draw(frame, final)


class Slow(Kept):
    def make_backend(self, panels):
        self.arrays = Gate(panels)
        return self.arrays


def make(num_envs: int = 4, func: type = Kept, backend: Any = "page", **fields: Any):
    if "path" in fields:
        backend = "file"
    cfg = LivePlotRecorderCfg(func=func, backend=backend, **fields)
    return ManagerBasedRlEnv(cart_cfg(num_envs, recorders={"plot": cfg}))


def recorder(env: ManagerBasedRlEnv) -> Any:
    return env.recorder_manager.get_term("plot")


def shown(env: ManagerBasedRlEnv) -> list[dict[str, np.ndarray]]:
    """What the panels show after everything was drawn."""
    recorder(env).flush()
    return recorder(env).arrays.frames[-1].contents


def drive(log: StepLog, steps: int, seed: int = 0) -> None:
    for action in actions(steps, log.env.num_envs, seed):
        log.step(action)


def logged(log: StepLog, env_id: int, name: str, last: int) -> dict[str, np.ndarray]:
    """The last rows of a channel as lines that end with each episode."""
    rows = [
        (episode.start + k, i, row[name])
        for i, episode in enumerate(log.episodes[env_id])
        for k, row in enumerate(episode.rows)
    ][-last:]
    x, y = [], []
    for k, (step, episode, value) in enumerate(rows):
        if k and episode != rows[k - 1][1]:
            x.append((step - 0.5) * DT)
            y.append(np.full(np.size(value), np.nan))
        x.append(step * DT)
        y.append(np.ravel(value))
    return {"x": np.array(x), "y": np.array(y).T}


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(got["x"], wanted["x"], rtol=1e-12)
    np.testing.assert_array_equal(got["y"].astype(np.float32), wanted["y"].astype(np.float32))


# -- what is shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_reset", [True, False])
def test_lines_are_the_last_steps_past_the_rings_wrap_and_over_resets(auto_reset):
    names = ("reward", "action", "obs/actor", "next_obs/actor", "command/goal")
    plots = {name: LinesCfg(channels=(name,), steps=16) for name in names}
    plots |= {f"{name} of 3": LinesCfg(channels=(name,), steps=30, env=3) for name in names}
    cfg = LivePlotRecorderCfg(func=Kept, backend="page", plots=plots)
    world = cart_cfg(5, recorders={"plot": cfg}, auto_reset=auto_reset)
    with ManagerBasedRlEnv(world) as env:
        log = StepLog(env, state=False)
        log.reset()
        for k, action in enumerate(actions(50, 5)):
            done = log.step(action)
            if not auto_reset and done.any():
                log.reset(done.nonzero().flatten())
            if k in (20, 21, 41):
                log.reset(torch.tensor([0, 3]))  # In the middle of episodes.
            if k in (0, 7, 22, 49):
                for plot, content in zip(plots.values(), shown(env), strict=True):
                    of = logged(log, plot.env or 0, str(plot.channels[0]), plot.steps)
                    assert_same(content, of)
        assert np.isnan(content["y"]).any()
        assert recorder(env).rows == 50


def test_reward_terms_and_functions_of_the_environment_are_those_of_the_step():
    def tip(env):
        return env.scene["robot"].data.site_pos_w[:, 0].clone()

    plots = {"terms": ["reward_terms"], "tip": tip, "reward": "reward", "twice": tip}
    with make(plots=plots) as env:
        log = StepLog(env, state=False)
        log.reset()
        drive(log, 30)
        terms, tips, reward, twice = shown(env)
        np.testing.assert_allclose(terms["y"].sum(axis=0), reward["y"][0], rtol=1e-5)
        # The height is a reward, of a step that sees derived quantities as MuJoCo leaves them.
        assert tips["y"].shape == (3, reward["x"].size)
        np.testing.assert_array_equal(tips["y"], twice["y"])
        assert [p.labels for p in recorder(env).arrays.panels] == [
            ("height", "effort"),
            ("tip.0", "tip.1", "tip.2"),
            ("reward",),
            ("tip.0", "tip.1", "tip.2"),
        ]


def test_the_mean_over_environments_is_that_of_every_step():
    plots = {
        "all": LinesCfg(channels=("reward", "action"), reduce="mean", steps=9),
        "most": LinesCfg(channels=("reward",), reduce="max", steps=9),
        "some": LinesCfg(channels=("reward",), reduce="max", envs=(3, 1), steps=9),
        "first": LinesCfg(channels=("reward",), reduce="min", envs=2, steps=9),
    }
    with make(plots=plots) as env:
        log = StepLog(env, state=False)
        log.reset()
        rows = []
        for action in actions(20):
            log.step(action)
            last = [[e for e in log.episodes[i] if e.rows][-1].rows[-1] for i in range(4)]
            rows.append(
                (np.stack([r["reward"] for r in last]), np.stack([r["action"] for r in last]))
            )
        rewards, given = np.stack([r for r, _ in rows[-9:]]), np.stack([a for _, a in rows[-9:]])
        both, most, some, first = shown(env)
    np.testing.assert_allclose(both["y"][0], rewards.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(both["y"][1], given.mean(axis=1)[:, 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(both["x"], np.arange(11, 20) * DT)
    np.testing.assert_array_equal(most["y"][0], rewards.max(axis=1))
    np.testing.assert_array_equal(some["y"][0], rewards[:, [1, 3]].max(axis=1))
    np.testing.assert_array_equal(first["y"][0], rewards[:, :2].min(axis=1))


@pytest.mark.parametrize("stride", [{"every": 3}, {"hz": 1 / (3 * DT)}])
def test_every_so_many_steps_are_sampled(stride):
    plots = {"reward": LinesCfg(channels=("reward",), steps=12)}
    with make(plots=plots, x="steps", env=2, **stride) as env:
        log = StepLog(env, state=False)
        log.reset()
        drive(log, 30)
        (content,) = shown(env)
        rows = {e.start + k: r for e in log.episodes[2] for k, r in enumerate(e.rows)}
        known = ~np.isnan(content["y"][0])
        assert content["x"][known].tolist() == [18, 21, 24, 27]
        assert content["y"][0][known].tolist() == [rows[s]["reward"] for s in (18, 21, 24, 27)]
        starts = {e.start for e in log.episodes[2]}
        gaps = [s for s in (21, 24, 27) if starts & set(range(s - 2, s + 1))]
        assert content["x"][~known].tolist() == [s - 1.5 for s in gaps]
        assert recorder(env).arrays.panels[0].x_label == "control step"


def test_a_pause_is_a_gap_and_stop_begins_anew():
    with make(plots={"reward": "reward"}, x="steps") as env:
        env.reset()
        term, steps = recorder(env), iter(actions(40))
        for _ in range(2):
            env.step(next(steps))
        term.pause()
        for _ in range(2):
            env.step(next(steps))
        term.start()
        env.step(next(steps))
        (content,) = shown(env)
        assert content["x"].tolist() == [0, 1, 2.5, 4]
        assert np.isnan(content["y"][0]).tolist() == [False, False, True, False]
        first = term.arrays
        term.stop()
        term.stop()
        assert len(first.frames) >= 2 and term.state == "stopped"
        env.step(next(steps))
        term.start()
        env.step(next(steps))
        assert shown(env)[0]["x"].tolist() == [6]
        assert term.arrays is not first
        assert progress(term).rows == 4


def test_after_a_pause_a_row_begins_with_what_is_there_then():
    with make(plots={"obs": "obs/actor"}) as env:
        log = StepLog(env, state=False)
        log.reset()
        drive(log, 1)
        recorder(env).pause()
        drive(log, 2, seed=1)
        recorder(env).start()
        drive(log, 1, seed=2)
        wanted = log.episodes[0][-1].rows[-1]["obs/actor"]
        np.testing.assert_array_equal(shown(env)[0]["y"][:, -1].astype(np.float32), wanted)


def test_without_autostart_nothing_is_drawn_before_start():
    with make(autostart=False) as env:
        env.reset()
        env.step(actions(1)[0])
        assert recorder(env).rows == 0 and not hasattr(recorder(env), "arrays")
        recorder(env).start()
        env.step(actions(1)[0])
        assert recorder(env).rows == 1


def test_by_default_it_shows_reward_terms_and_action_of_the_first_environment():
    with make() as env:
        log = StepLog(env, state=False)
        log.reset()
        drive(log, 5)
        reward, terms, action = shown(env)
        got = recorder(env).arrays
        assert [(p.title, p.labels) for p in got.panels] == [
            ("reward", ("reward",)),
            ("reward terms", ("height", "effort")),
            ("action", ("action",)),
        ]
        assert_same(reward, logged(log, 0, "reward", 500))
        assert_same(action, logged(log, 0, "action", 500))
        assert got.frames[-1].caption == "step 4, 0.16 s"


def test_a_task_without_reward_terms_has_no_plot_of_them():
    cfg = LivePlotRecorderCfg(func=Kept, backend="page")
    with ManagerBasedRlEnv(cart_cfg(2, recorders={"plot": cfg}, rewards={})) as env:
        env.reset()
        env.step(actions(1, 2)[0])
        assert [len(c["y"]) for c in shown(env)] == [1, 1]


def test_images_and_vectors_are_the_newest():
    def picture(env):
        value = torch.arange(env.num_envs * 6).view(-1, 2, 3).float()
        return value + 100.0 * env.common_step_counter

    def colours(env):
        red = torch.zeros(env.num_envs, 2, 2, 3, dtype=torch.uint8)
        red[..., 0] = env.common_step_counter
        return red

    def places(env):
        return torch.arange(env.num_envs * 12).view(-1, 2, 2, 3).float()

    plots = {
        "grey": ImageCfg(channel=picture, env=1),
        "fixed": ImageCfg(channel=picture, value_range=(500.0, 501.0)),
        "rgb": ImageCfg(channel=colours),
        "flow": VectorsCfg(
            positions=places,
            vectors=Channel(name="v", func=lambda e: -places(e), when="before"),
            axes=(2, 0),
        ),
    }
    with make(plots=plots) as env:
        env.reset()
        for action in actions(5):
            env.step(action)
        grey, fixed, rgb, flow = shown(env)
        labels = [(p.x_label, p.y_label) for p in recorder(env).arrays.panels]
    assert grey["image"][..., 1].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert grey["range"].tolist() == [506, 511]
    assert fixed["image"][..., 0].tolist() == [[0, 255, 255], [255, 255, 255]]
    assert rgb["image"][..., 0].tolist() == [[5, 5], [5, 5]] and not rgb["image"][..., 1:].any()
    assert flow["positions"].tolist() == [[2, 0], [5, 3], [8, 6], [11, 9]]
    assert flow["vectors"].tolist() == (-flow["positions"]).tolist()
    assert labels[-1] == ("z", "x")


def test_values_that_cannot_be_drawn_are_left_out():
    x, bad = np.arange(4.0), np.array([[np.nan, np.inf, -1.0, 2.0]])
    plain = panels_of.lines(x, bad, np.array([], int), log=False)["y"][0]
    assert np.isnan(plain).tolist() == [True, True, False, False]
    log = panels_of.lines(x, bad, np.array([0, 3]), log=True)
    assert log["x"].tolist() == [0, 1, 2, 2.5, 3]
    assert np.isnan(log["y"][0]).tolist() == [True, True, True, True, False]
    picture = panels_of.image(np.array([[np.nan, 1.0], [np.inf, 3.0]]), None)
    assert picture["image"].tolist() == [
        [[220, 40, 40], [0, 0, 0]],
        [[220, 40, 40], [255, 255, 255]],
    ]
    assert (panels_of.image(np.full((2, 2), np.nan), None)["image"] == (220, 40, 40)).all()
    assert not panels_of.image(np.full((2, 2, 1), 7), None)["image"].any()
    rgb = panels_of.image(np.array([[[np.nan, 2.0, -1.0]]]), None)["image"]
    assert rgb.tolist() == [[[0, 255, 0]]]
    arrows = panels_of.vectors(np.array([[0.0, 1], [2, np.nan]]), np.ones((2, 2)), (0, 1))
    assert arrows["positions"].tolist() == [[0, 1]]


# -- never slows the step --------------------------------------------------------------------------


def test_a_backend_that_hangs_never_holds_up_a_step_and_the_latest_wins():
    with make(
        func=Slow, plots={"reward": LinesCfg(channels=("reward",), steps=4)}, max_hz=1e6
    ) as env:
        log = StepLog(env, state=False)
        log.reset()
        drive(log, 1)
        gate = recorder(env).arrays
        assert gate.entered.wait(PATIENCE_S)
        drive(log, 30, seed=1)
        assert recorder(env).rows == 31 and not gate.frames
        gate.open.set()
        assert_same(shown(env)[0], logged(log, 0, "reward", 4))
        # The first picture is still that of its moment, though the ring went on.
        assert len(gate.frames) == 2 and gate.frames[0].contents[0]["x"].tolist() == [0.0]
        assert recorder(env).dropped_rows == 0


def test_a_video_stays_in_time_where_drawing_cannot_keep_up():
    class Video(Slow):
        pass

    plots = {"reward": LinesCfg(channels=("reward",), steps=4)}
    with make(func=Video, path="a.mp4", fps=50.0, plots=plots) as env:
        env.reset()
        gate = recorder(env).arrays
        for action in actions(50):
            env.step(action)
        gate.open.set()
        recorder(env).flush()
        # Two frames a step; 32 pictures may wait, and one more is drawn at the end.
        assert [f.copies for f in gate.frames] == [2] * 32 + [36]
        assert recorder(env).dropped_rows == 36
        # Each is that of its moment, though the ring went on while it waited.
        ends = [f.contents[0]["x"][-1] for f in gate.frames]
        assert ends == pytest.approx([k * DT for k in (*range(32), 49)])


@pytest.mark.parametrize("draws", [False, True])
def test_recording_changes_no_bit_of_the_rollout(draws):
    own = (shaky, Channel(name="before", func=shaky, when="before")) if draws else ()
    plots = {
        "values": LinesCfg(channels=(*own, "obs", "reward_terms", "next_obs"), steps=7),
        "mean": LinesCfg(channels=(*own, "action"), reduce="mean"),
        "image": ImageCfg(channel=lambda env: shaky(env)[..., None] if own else _grid(env)[..., 0]),
    }

    def trace(recorders):
        torch.manual_seed(3)
        with ManagerBasedRlEnv(cart_cfg(4, recorders=recorders)) as env:
            log = StepLog(env)
            log.reset()
            drive(log, 25)
            if recorders:
                recorder(env).pause()
                state = torch.get_rng_state()
                recorder(env).start()
                assert torch.equal(torch.get_rng_state(), state)
                recorder(env).flush()
            drive(log, 25, seed=1)
            ends = [env.sim.get_state(), env.rng.uniform(0.0, 1.0, (4, 3))]
            # What a function of the user's draws comes from the user's generator, as it should.
            return [*log.trace, *ends, *([] if draws else [torch.get_rng_state()])]

    fields = {"func": Kept, "backend": "page", "max_hz": 1e6, "plots": plots}
    plain, plotted = trace({}), trace({"plot": LivePlotRecorderCfg(**fields)})
    for a, b in zip(plain, plotted, strict=True):
        assert torch.equal(a, b)


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plots", "message"),
    [
        ({"a": "rewrd"}, "Unknown channel 'rewrd'. Did you mean 'reward'?"),
        ({"a": {"b": ["obs/actr"]}}, "Did you mean 'obs/actor'?"),
        ({"a": LinesCfg(channels=("action",), labels=("x", "y"))}, "labels has 2 entries, but"),
        (
            {"a": LinesCfg(channels=("reward",), env=4)},
            "env is 4: it must be an index from 0 to 3",
        ),
        (
            {"a": LinesCfg(channels=("reward",), reduce="mean", envs=(1, 1))},
            "envs is (1, 1): it must be a number from 1 to 4, or distinct indices",
        ),
        ({"a": ImageCfg(channel="action")}, "'action' is not an image: it has shape (1,)"),
        ({"a": ImageCfg(channel="reward_terms")}, "stands for reward_terms/height, reward_terms/e"),
        ({"a": VectorsCfg(positions="action", vectors="action")}, "'action' has no vectors"),
        (
            {"a": VectorsCfg(positions="entity/robot/site_pos_w", vectors="ctrl")},
            "'ctrl' has no vectors",
        ),
        (
            {
                "a": VectorsCfg(
                    positions="entity/robot/site_pos_w", vectors="entity/robot/joint_pos"
                )
            },
            "differ in shape: (1, 3) and (2,)",
        ),
        (
            {
                "a": VectorsCfg(
                    positions="entity/robot/joint_pos",
                    vectors="entity/robot/joint_vel",
                    axes=(0, 2),
                )
            },
            "axes is (0, 2): it must be two coordinates from 0 to 1",
        ),
        ({"a": LinesCfg(channels=())}, "plots['a']: channels must be names of channels"),
        ({"a": LinesCfg(channels=("reward",), envs=2)}, "envs needs reduce, such as reduce="),
        ({"a": {"channels": ["reward"], "stps": 3}}, "LinesCfg has no 'stps'. Did you mean 'steps"),
        ({"a": {"b": {"stps": 3}}}, "plots['a']['b']: a plot needs 'channels' for lines"),
    ],
)
def test_a_bad_plot_is_refused_at_construction(plots, message):
    with pytest.raises(ValueError) as caught:
        make(plots=plots)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "pge"}, "backend is 'pge'. Possible: 'auto', 'page', 'window', 'file'."),
        ({"x": "second"}, "Possible: 'seconds', 'steps'."),
        ({"if_exists": "append"}, "if_exists is 'append'"),
        ({"every": 0}, "must be a whole number of at least 1"),
        ({"every": 2, "hz": 5.0}, "hz and every are mutually exclusive"),
        ({"path": "a.gif"}, "It must end in .png or .mp4"),
        ({"plots": {"a": LinesCfg(channels=("reward",), reduce=MEN)}}, "Did you mean 'mean'?"),
    ],
)
def test_bad_values_are_refused(fields, message):
    with pytest.raises(ValueError) as caught:
        make(**fields)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match="needs a file, but the backend is 'page'"):
        LivePlotRecorderCfg(path="a.png", backend="page").check()


def test_what_only_a_call_shows_is_refused_at_the_first_reset():
    with (
        make(plots={"a": ImageCfg(channel=lambda env: torch.zeros(env.num_envs, 3))}) as env,
        pytest.raises(ValueError, match="is not an image: it has shape") as caught,
    ):
        env.reset()
    assert "in plots['a'] of a live plot" in caught.value.__notes__


def test_plots_are_plain_data():
    table = {
        "x": "steps",
        "size": [640, 480],
        "plots": {
            "reward": ["reward"],
            "goal": {"channels": ["command"], "steps": 50, "log": True, "labels": ["g"]},
            "tracking": {"x": {"channels": ["action"]}, "shaky": {"channels": ["worlds:shaky"]}},
            "eye": {"channel": "worlds:tip", "value_range": [0, 1]},
            "flow": {"positions": "worlds:tip", "vectors": "obs/actor", "axes": [0, 2]},
        },
    }
    cfg = build(LivePlotRecorderCfg, table)
    plots: Any = flat_plots(cfg.plots)
    assert list(plots) == [
        ("reward", ""),
        ("goal", ""),
        ("tracking", "x"),
        ("tracking", "shaky"),
        ("eye", ""),
        ("flow", ""),
    ]
    assert plots["goal", ""] == LinesCfg(channels=("command",), steps=50, log=True, labels=("g",))
    assert plots["tracking", "shaky"].channels == (shaky,)
    assert plots["eye", ""].value_range == (0.0, 1.0)


def test_the_preset_shows_what_is_shown_by_default():
    cfg = load_preset(PRESETS / "live_plot.toml")
    assert isinstance(cfg, LivePlotRecorderCfg)
    assert cfg.flat_plots() == flat_plots(DEFAULT_PLOTS)


class Broken(Kept):
    def make_backend(self, panels):
        class Backend(Arrays):
            def draw(self, frame, final):
                raise OSError("no ink")

        return Backend(panels)


def test_an_error_of_the_drawing_thread_comes_back_in_the_next_hook_and_in_close():
    env = make(func=Broken)
    env.reset()
    env.step(actions(1)[0])
    with pytest.raises(DataError, match="drawing failed: no ink"):
        recorder(env).flush()
    with pytest.raises(DataError, match="drawing failed: no ink"):
        env.step(actions(1)[0])
    with pytest.raises(ExceptionGroup) as caught:
        env.close()
    assert "no ink" in str(caught.value.exceptions[0])
    env.close()


def test_a_missing_package_is_said_at_construction_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingExtraError) as caught:
        make(backend="page")
    assert str(caught.value) == (
        "LivePlotRecorder needs the package 'viser': pip install 'mjlab_rec[web]'"
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib': pip install 'mjlab_rec\[plot\]'"):
        make(path="a.png")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mjlab_rec\[video\]'"):
        make(path="a.mp4")


def test_auto_takes_the_first_that_is_possible(monkeypatch):
    def where(**fields):
        with make(backend="auto", **fields) as env:
            return recorder(env).where

    monkeypatch.setattr(display_module, "_responds", lambda name: name == ":0")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert where() == "page"
    cfg = LivePlotRecorderCfg(func=Kept, path="a.png")
    with ManagerBasedRlEnv(cart_cfg(1, recorders={"plot": cfg})) as env:
        assert recorder(env).where == "png"
    monkeypatch.setitem(sys.modules, "viser", None)
    assert where() == "window"
    monkeypatch.setenv("DISPLAY", ":1")
    assert where() == "png"
    with pytest.raises(
        ValueError, match="cannot open a window. The display :1 that DISPLAY names does not respond"
    ):
        make(backend="window")
    monkeypatch.delenv("DISPLAY")
    assert where() == "png"
    with pytest.raises(ValueError, match="cannot open a window. There is no display"):
        make(backend="window")


def test_a_forked_child_neither_hangs_nor_draws(tmp_path):
    path = tmp_path / "a.png"
    with make(func=LivePlotRecorder, path=str(path)) as env:
        env.reset()
        env.step(actions(1)[0])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with contextlib.suppress(RuntimeError):
                    env.step(actions(1)[0])
                env.recorder_manager.record_post_step()
            except DataError as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                env.close()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert not path.exists()
        env.step(actions(1)[0])
    assert path.exists()


# -- matplotlib ------------------------------------------------------------------------------------

PANELS = [
    Panel(
        kind="lines", title="reward", labels=("a & b", "c"), x_label="time", y_label="m", log=True
    ),
    Panel(kind="lines", title="track", subtitle="x", labels=("1",), x_label="steps"),
    Panel(kind="lines", title="track", subtitle="y", labels=("1",), x_label="steps"),
    Panel(kind="image", title="eye"),
    Panel(kind="vectors", title="flow <1>", x_label="x", y_label="z"),
]
RED = np.full((4, 4, 3), (200, 10, 20), np.uint8)


def contents(bad: bool = False) -> list[dict[str, np.ndarray]]:
    """Something for each panel; with nothing that can be drawn if it is bad."""
    x, empty = np.arange(20.0), np.array([], int)
    y = np.stack([np.exp(-x), np.full(20, 3.0)])
    if bad:
        y = np.full_like(y, -np.inf)
    places = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), -1)
    arrows = places * (np.nan if bad else 0.5)
    return [
        panels_of.lines(x, y, np.array([5]), log=True),
        panels_of.lines(x, y[:1], empty, log=False),
        panels_of.lines(x, y[1:], empty, log=False),
        {"image": RED, "range": np.array([0.0, 2.0])},
        panels_of.vectors(places, arrows, (0, 1)),
    ]


def test_labels_titles_and_log_scale_arrive_in_the_figure():
    figure_module = pytest.importorskip("matplotlib.figure")
    figure = figure_module.Figure()
    plot = PlotFigure(figure, [vars(p) for p in PANELS], "cart")
    frame = [{**c, "scale": panels_of.arrow_scale(c)} if "vectors" in c else c for c in contents()]
    plot.update("step 3", frame)
    plot.update("step 4", frame)
    reward, x, y, eye, flow = plot.axes
    assert figure.get_suptitle() == "cart, step 4"
    assert [a.get_title() for a in (reward, x, y, eye)] == ["reward", "track: x", "track: y", "eye"]
    assert flow.get_title() == "flow <1> (longest: 1.8)"
    assert [t.get_text() for t in reward.get_legend().get_texts()] == ["a & b", "c"]
    assert (reward.get_yscale(), x.get_yscale()) == ("log", "linear")
    assert (reward.get_xlabel(), reward.get_ylabel()) == ("time", "m")
    assert (x.get_xlabel(), y.get_xlabel()) == ("", "steps")
    assert (flow.get_xlabel(), flow.get_ylabel()) == ("x", "z")
    first, second = reward.lines
    np.testing.assert_array_equal(first.get_ydata(), frame[0]["y"][0])
    np.testing.assert_array_equal(second.get_xdata(), frame[0]["x"])
    assert np.isnan(first.get_ydata()[5])
    np.testing.assert_array_equal(eye.images[0].get_array(), RED)
    assert len(flow.collections) == 1 and flow.collections[0].N == 12
    # As long as the arrows are apart, at most.
    assert np.hypot(flow.collections[0].U, flow.collections[0].V).max() == pytest.approx(
        3 / (np.sqrt(12) - 1)
    )


def draw_file(path: Path, frames: list[Frame], **fields: Any) -> Path:
    from mjlab_rec.recorders.live_plot.file import PngBackend

    pytest.importorskip("matplotlib")
    backend = PngBackend(PANELS, "cart", (900, 600), path, "error")
    try:
        for frame in frames:
            backend.draw(frame, True)
    finally:
        backend.close()
    assert backend.files == [path]
    return path


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour, or nearly so as at the edges of a thin line."""
    return int((np.abs(picture.astype(int) - colour).max(axis=-1) <= 40).sum())


def read_png(path: Path) -> np.ndarray:
    """Decode a picture."""
    from browser import read_png

    return read_png(path)


def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("MJLAB_REC_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def test_a_png_shows_lines_images_and_arrows(tmp_path):
    path = screenshots(tmp_path) / "live_plot.png"
    path.unlink(missing_ok=True)
    bad = Frame(caption="bad", contents=contents(bad=True))
    draw_file(path, [bad, Frame(caption="step 3", contents=contents())])
    picture = read_png(path)
    assert picture.shape == (600, 900, 3)
    assert has(picture, (200, 10, 20)) > 5000  # the image
    assert has(picture[:250, :280], ORANGE) > 50  # the second line of the first plot
    assert has(picture[320:, 500:], BLUE) > 100 or has(picture[320:], BLUE) > 100  # the arrows
    empty = read_png(draw_file(tmp_path / "bad.png", [bad]))
    assert has(empty, BLUE) < has(picture, BLUE) / 2


def test_a_png_is_replaced_as_a_whole_at_a_flush_and_at_the_end(tmp_path):
    path = tmp_path / "a.png"
    with make(func=LivePlotRecorder, path=str(path), size=(640, 480)) as env:
        env.reset()
        for action in actions(5):
            env.step(action)
        assert not path.exists()
        recorder(env).flush()
        assert recorder(env).files == [path] and recorder(env).nbytes == path.stat().st_size
        stopped = recorder(env)
        with path.open("rb") as before:
            env.step(actions(1)[0])
            recorder(env).flush()
            # Whoever had it open still sees the whole of the old picture.
            old = before.read()
        assert old.startswith(b"\x89PNG") and old.endswith(b"IEND\xaeB`\x82")
        assert old != path.read_bytes()
        env.step(actions(1)[0])
        last = path.read_bytes()
    assert path.read_bytes() != last and stopped.nbytes == path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with (
        make(func=LivePlotRecorder, path=str(path)) as env,
        pytest.raises(DataError, match="already exists"),
    ):
        env.reset()


def test_a_second_recording_stands_beside_the_first(tmp_path):
    with make(func=LivePlotRecorder, path=str(tmp_path / "a.png"), size=(320, 240)) as env:
        env.reset()
        for action in actions(2):
            env.step(action)
            recorder(env).stop()
            recorder(env).start()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a_1.png"]


def test_a_drawing_process_that_dies_is_an_error_and_no_hang(tmp_path):
    env = make(func=LivePlotRecorder, path=str(tmp_path / "a.png"))
    env.reset()
    env.step(actions(1)[0])
    recorder(env)._backend._process._process.kill()
    with pytest.raises(DataError, match="the drawing process ended"):
        recorder(env).flush()
    with pytest.raises(ExceptionGroup):
        env.close()
    assert not list(tmp_path.iterdir())


def test_an_mp4_has_a_frame_for_each_moment(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")

    def shade(env):
        return torch.full((env.num_envs, 8, 8, 3), env.common_step_counter * 0.05)

    path = tmp_path / "a.mp4"
    plots = {"shade": ImageCfg(channel=Channel(name="shade", func=shade, when="after"))}
    with make(
        func=LivePlotRecorder, path=str(path), plots=plots, fps=1 / DT, size=(160, 120)
    ) as env:
        env.reset()
        for action in actions(12):
            env.step(action)
    decode = [ffmpeg.get_ffmpeg_exe(), "-v", "info", "-i", str(path)]
    decode += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
    ran = subprocess.run(decode, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    frames = np.frombuffer(ran.stdout, np.uint8).reshape(-1, 120, 160, 3)
    assert b"160x120" in ran.stderr and b"25 fps" in ran.stderr
    centres = [float(frame[60:80, 70:90].mean()) for frame in frames]
    assert centres == pytest.approx([(k + 1) * 0.05 * 255 for k in range(12)], abs=6.0)
    assert recorder(env).files == [path] and recorder(env).dropped_rows == 0


@pytest.fixture
def display() -> Iterator[str]:
    """A screen that nobody looks at."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    pytest.importorskip("matplotlib")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as said:
            number = said.readline().strip()
        if not number:
            pytest.skip("Xvfb does not start here")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def test_a_window_shows_the_plots(display, monkeypatch, tmp_path):
    from mjlab_rec.recorders.live_plot.window import WindowBackend

    pytest.importorskip("tkinter")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("MPLBACKEND", "agg")  # Chosen for something else; a window is asked for.
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed, which takes a picture of the screen")
    path = screenshots(tmp_path) / "live_plot_window.png"
    grab = ["ffmpeg", "-y", "-v", "error", "-f", "x11grab", "-i", display, "-frames:v", "1"]
    grab.append(str(path))
    backend = WindowBackend(PANELS, "cart", (1000, 700))
    try:
        for _ in patiently():  # The screen shows it when it has time.
            backend.draw(Frame(caption="step 3", contents=contents()), True)
            subprocess.run(grab, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
            picture = read_png(path)
            if has(picture, (200, 10, 20)) > 5000 and has(picture, ORANGE) > 50:
                break
    finally:
        backend.close()
    backend.close()


def test_closing_the_window_ends_the_drawing_and_not_the_rollout(monkeypatch):
    from mjlab_rec.recorders.live_plot import window

    asked = []

    class Process:
        def __init__(self, *args, **kwargs):
            pass

        def draw(self, frame):
            asked.append(frame.caption)
            return "closed", None

        def close(self):
            asked.append("close")

    monkeypatch.setattr(display_module, "_responds", lambda name: True)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "FigureProcess", Process)
    with make(func=LivePlotRecorder, backend="window") as env:
        env.reset()
        for action in actions(3):
            env.step(action)
            recorder(env).flush()
    assert len(asked) == 2 and asked[1] == "close"


# -- the page --------------------------------------------------------------------------------------


def page_backend(panels):
    pytest.importorskip("viser")
    from mjlab_rec.recorders.live_plot.page import PageBackend

    return PageBackend(panels, "cart", 8350, "127.0.0.1")


def test_labels_titles_and_log_scale_arrive_on_the_page():
    backend = page_backend(PANELS)
    try:
        for bad in (True, False):
            backend.draw(Frame(caption="step 3", contents=contents(bad)), True)
        reward, x, y, eye, flow = backend.handles
        assert [h.title for h in (reward, x, y)] == ["reward", "track: x", "track: y"]
        assert [s["label"] for s in reward.series] == ["time", "a & b", "c"]
        assert reward.scales["y"] == {"distr": 3, "log": 10} and x.scales["y"] == {}
        assert [axis["label"] for axis in reward.axes] == ["time", "m"]
        assert reward.data[0][5] == 4.5 and reward.data[1][5] is None
        assert reward.data[2][4] == 3.0
        assert eye.label == "eye (0 to 2)" and (eye.image == (200, 10, 20)).all()
        assert "flow &lt;1&gt; (longest: 1.8)" in flow.content
        assert flow.content.count("<line") == 12 and "nan" not in flow.content
        assert flow.content.count("<polygon") == 11 and flow.content.count("<circle") == 1
    finally:
        backend.close()


def test_the_page_is_seen_in_a_browser(visit, screenshot):
    pytest.importorskip("viser")
    plots = {
        "reward": LinesCfg(channels=("reward",), y_label="per step"),
        "tracking": {
            "cart": LinesCfg(channels=("entity/robot/joint_pos",), y_label="m, rad"),
            "goal": LinesCfg(channels=("command",), reduce="mean", labels=("mean goal",)),
        },
        "effort": LinesCfg(channels=(lambda env: env.action_manager.action.abs(),), log=True),
        "eye": ImageCfg(channel=lambda env: torch.full((env.num_envs, 9, 16, 3), 0.4)),
        "flow": VectorsCfg(positions=_grid, vectors=_swirl),
    }
    with make(func=LivePlotRecorder, backend="page", port=8360, plots=plots) as env:
        env.reset()
        for action in actions(60):
            env.step(action)
        recorder(env).flush()
        page = visit(recorder(env)._backend.page.url)
        page.set_viewport_size({"width": 1200, "height": 1700})
        page.wait_for_selector(".uplot canvas >> nth=3")
        page.wait_for_selector("svg polygon")
        titles = page.locator(".uplot .u-title")
        expected = ["reward", "tracking: cart", "tracking: goal", "effort"]
        until(lambda: titles.all_inner_texts() == expected)
        page.get_by_text("step 59, 2.36 s").wait_for()
        page.locator(".u-legend .u-label", has_text="mean goal").wait_for()

        def held() -> list[list[float]]:
            """What charts hold in the browser."""
            charts = "Object.values(window.__viserTestpoints.uplots)"
            return page.evaluate(f"{charts}.map(u => Array.from(u.chart.data[1]))")

        def seen(name: str) -> bool:
            picture = screenshot(page, name)
            lines = has(picture, BLUE) > 30 and has(picture, ORANGE) > 5
            return lines and has(picture, (102, 102, 102)) > 5_000  # the image

        # It is what was sent: gaps are nothing, not numbers.
        reward = recorder(env)._backend.handles[0].data
        assert None in reward[1]
        until(lambda: reward[1] in held())
        until(lambda: seen("live_plot_page"))
        for width, columns in ((1280, 3), (1920, 4), (390, 1)):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(_FILLS_PAGE, arg=columns)
            screenshot(page, f"live_plot_page_{width}")
        env.step(actions(1)[0])
        recorder(env).flush()
        page.get_by_text("step 60, 2.40 s").wait_for()
        reward = recorder(env)._backend.handles[0].data
        until(lambda: reward[1] in held())
        # The plots go, and the page stays for whoever else uses it.
        other = open_page("viewer", 8360)
        recorder(env).stop()
        page.get_by_text("Live plot").wait_for(state="detached")
        other.close()


# Whether the charts stand in so many columns, and these are as wide as the page, but for a margin.
_FILLS_PAGE = """columns => {
    const charts = [...document.querySelectorAll('.uplot')].map(u => u.getBoundingClientRect());
    const lefts = new Set(charts.map(box => Math.round(box.left)));
    const end = Math.max(...charts.map(box => box.right));
    const width = columns * charts[0].width;
    return lefts.size === columns && end <= innerWidth && width > 0.8 * innerWidth;
}"""


def _grid(env):
    grid = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij"), -1)
    return grid.expand(env.num_envs, 6, 5, 2)


def _swirl(env):
    place = _grid(env) - 2.5
    return torch.stack([-place[..., 1], place[..., 0]], -1)
