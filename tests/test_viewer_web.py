"""The viewer on a web page, driven in a real browser: what it shows, and what its buttons do."""

from __future__ import annotations

import csv
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from waiting import PATIENCE_S, patiently, until
from worlds import cart_cfg

from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import CsvRecorderCfg, LivePlotRecorderCfg
from mjlab_rec.sensor import CameraSensorCfg
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.viewer import make_viewer
from mjlab_rec.viewer.checkpoints import Checkpoints
from mjlab_rec.viewer.frame import FrameReader, spread
from mjlab_rec.viewer.history import History
from mjlab_rec.viewer.playback import Playback
from mjlab_rec.viewer.web import WebViewer
from mjlab_rec.viewer.web_cameras import WebCameras, in_colours
from mjlab_rec.viewer.web_commands import CommandControls

EPISODE = 1000
# Left of the panel, below what the browser says about its missing graphics card.
CANVAS = {"x": 0, "y": 190, "width": 610, "height": 460}


class Stage:
    """An environment that is played in a thread, with the cart pushed to the right."""

    def __init__(self, num_envs: int = 4, **cfg: Any) -> None:
        self.env = ManagerBasedRlEnv(cart_cfg(num_envs, steps=(EPISODE,), **cfg))
        self.viewer = WebViewer(self.env, port=18080)
        self.push = torch.ones(num_envs, 1)
        self.playback = Playback(self.env, lambda _: self.push, viewers=[self.viewer], speed=1.0)
        self.end: str | BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stage:
        return self

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self.end = self.playback.run(self._stop.is_set)
        except BaseException as error:
            self.end = error

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        self.playback.close()
        self.env.close()
        assert not isinstance(self.end, BaseException), self.end


class Nothing:
    """A viewer that shows nothing."""

    closed_by_user = False


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    pytest.importorskip("mjviser", reason="needs mjviser")
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(**options))
        return stages[-1]

    yield make
    for made in stages:
        made.__exit__()


@pytest.fixture
def canvas(screenshot: Any) -> Callable[[Any, str], np.ndarray]:
    """A picture of the 3D view, as soon as it does not change any more."""

    def canvas(page: Any, name: str) -> np.ndarray:
        before = screenshot(page, name, clip=CANVAS)
        for _ in range(30):
            now = screenshot(page, name, clip=CANVAS)
            if changed(before, now) < 1e-3:
                return now
            before = now
        return before

    return canvas


def changed(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels that differ clearly."""
    return float((np.abs(a.astype(int) - b.astype(int)).max(axis=2) > 40).mean())


def drawn(image: np.ndarray) -> np.ndarray:
    """Which pixels are not background, which is a blue sky."""
    red, _, blue = np.moveaxis(image.astype(int), 2, 0)
    return blue - red < 20


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def steps_in(path: Path) -> list[int]:
    with path.open() as file:
        return sorted({int(row["step"]) for row in csv.DictReader(file)})


def wait_for_step(page: Any, step: int) -> None:
    page.get_by_text(re.compile(rf"Step {step}\b")).wait_for()


def test_a_run_is_watched_paused_stepped_and_ended_in_a_browser(
    stage, visit, keep_screenshot, canvas, tmp_path
):
    show = stage()
    env, playback = show.env, show.playback
    playback.pause()
    show.start()
    page = visit(show.viewer.url)
    button(page, "Resume").wait_for()

    # The robot is there, and stands still.
    for _ in patiently():
        first = canvas(page, "web_start")
        there = 0.005 < drawn(first).mean() < 0.5
        if there and changed(first, canvas(page, "web_start")) < 2e-3:
            break

    # A click on "Single step" takes one step, and no more.
    for step in (1, 2):
        button(page, "Single step").click()
        wait_for_step(page, step)
        assert playback.steps == step
        assert env.episode_length_buf.tolist() == [step] * 4

    # After more steps the pole has turned, and the picture with it.
    for _ in range(10):
        playback.single_step()
    wait_for_step(page, 12)
    until(lambda: changed(first, canvas(page, "web_moved")) > 0.002)

    # Going on and pausing.
    button(page, "Resume").click()
    button(page, "Pause").wait_for()
    until(lambda: playback.steps > 20)
    keep_screenshot(page, "web_running")
    button(page, "Pause").click()
    button(page, "Resume").wait_for()
    assert playback.paused

    # A reset of the environment shown leaves the others alone.
    lengths = env.episode_length_buf.tolist()
    button(page, "Reset").click()
    page.get_by_text("step 0 of its episode").wait_for()
    assert env.episode_length_buf.tolist() == [0, *lengths[1:]]

    button(page, "End the run").click()
    until(lambda: show.end is not None)
    assert show.end == "closed"


def test_the_record_button_starts_and_stops_a_recorder(stage, visit, keep_screenshot, tmp_path):
    path = tmp_path / "table.csv"
    show = stage(recorders={"table": CsvRecorderCfg(path=str(path))})
    recorder = show.env.recorder_manager.get_term("table")
    show.playback.pause()
    show.start()
    page = visit(show.viewer.url)
    button(page, "Stop table").wait_for()
    for _ in range(3):
        show.playback.single_step()
    page.get_by_text("recording · 3 steps").wait_for()

    button(page, "Stop table").click()
    button(page, "Start table").wait_for()
    assert recorder.state == "stopped"
    page.get_by_text("table.csv").wait_for()
    for _ in range(2):
        show.playback.single_step()
    wait_for_step(page, 5)
    keep_screenshot(page, "web_stopped")

    button(page, "Start table").click()
    button(page, "Stop table").wait_for()
    assert recorder.state == "recording"
    show.playback.single_step()
    wait_for_step(page, 6)
    keep_screenshot(page, "web_recording")
    show.__exit__()
    # What happened between the clicks is not recorded; each start has a file of its own.
    assert steps_in(path) == [0, 1, 2]
    assert steps_in(path.with_name("table_1.csv")) == [5]


def test_a_recorder_that_fails_to_stop_is_reported_on_the_page(stage, visit, tmp_path):
    show = stage(recorders={"table": CsvRecorderCfg(path=str(tmp_path / "table.csv"))})
    recorder = show.env.recorder_manager.get_term("table")
    recorder.stop = lambda: (_ for _ in ()).throw(OSError("the disk is full"))
    show.playback.pause()
    show.start()
    page = visit(show.viewer.url)
    button(page, "Stop table").click()
    page.get_by_text("the disk is full").wait_for()
    assert show.end is None
    del recorder.stop


@pytest.fixture
def drive() -> Iterator[Callable[..., Any]]:
    """Makes a viewer whose frames are drawn when asked for, without a browser."""
    pytest.importorskip("mjviser", reason="needs mjviser")
    made: list[Playback] = []

    def drive(num_envs: int, *sensors: Any) -> tuple[Playback, WebViewer, Callable[[], None]]:
        cfg = cart_cfg(num_envs)
        cfg.scene.sensors = sensors
        env = ManagerBasedRlEnv(cfg)
        viewer = WebViewer(env, port=18080)
        made.append(Playback(env, lambda _: torch.zeros(num_envs, 1), viewers=[viewer]))
        playback = made[-1]
        playback.run(lambda: True)

        def frame() -> None:
            playback._serve()
            viewer._draw(viewer._reader.read())

        return playback, viewer, frame

    yield drive
    for playback in made:
        playback.close()
        playback.env.close()


def test_sliders_show_the_command_of_the_environment_that_is_chosen(drive):
    playback, viewer, frame = drive(3)
    (controls,) = (part for part in viewer._parts if isinstance(part, CommandControls))
    (slider,), box = controls._sliders["goal"], controls._held["goal"]
    goal = playback.env.command_manager.get_command("goal")
    frame()
    slider.value = 0.9
    controls._ask("goal", hold=True)
    frame()
    for shown, held in ((1, False), (0, True), (2, False), (0, True)):
        playback.show(shown)
        frame()
        assert box.value == held
        assert slider.value == pytest.approx(float(goal[shown, 0]), abs=slider.step)
    # Held, but another environment is chosen before a frame tells of it.
    playback.show(1)
    frame()
    controls._ask("goal", hold=True)
    playback.show(2)
    frame()
    assert not box.value
    goal[2] = -0.5
    frame()
    assert slider.value == pytest.approx(-0.5, abs=slider.step)


def test_plots_are_of_the_environment_that_is_chosen_also_in_a_pause(drive):
    playback, viewer, frame = drive(3)
    playback.run(lambda: playback.steps == 5, lambda _: frame())
    plot = viewer._plots._observations
    assert len(plot._handle.data[0]) > 3
    playback.show(2)
    frame()
    assert [len(column) for column in plot._handle.data[:2]] == [1, 1]


def test_the_picture_of_a_camera_is_shown_if_asked_for(drive):
    north = (0.70710678, 0.70710678, 0.0, 0.0)
    kinds = ("rgb", "depth", "segmentation")
    eye = CameraSensorCfg(
        "eye", pos=(0, -3, 0.5), quat=north, width=24, height=16, data_types=kinds
    )
    playback, viewer, frame = drive(2, eye)
    (cameras,) = (part for part in viewer._parts if isinstance(part, WebCameras))
    sensor = playback.env.scene["eye"]
    frame()
    assert cameras._image is None and sensor._value is None  # Not drawn.
    assert cameras._chooser.options == ("off", "eye rgb", "eye depth", "eye segmentation")
    for kind in kinds:
        cameras._choose(f"eye {kind}")
        frame()
        expected = in_colours(kind, getattr(sensor.data, kind)[0].numpy())
        assert expected.shape == (16, 24, 3) and len(np.unique(expected)) > 1
        np.testing.assert_array_equal(cameras._image.image[5::10, 5::10], expected)
    cameras._choose("off")
    frame()
    assert cameras._image is None


def test_nothing_is_shown_of_cameras_where_there_are_none(drive):
    _, viewer, frame = drive(1)
    (cameras,) = (part for part in viewer._parts if isinstance(part, WebCameras))
    frame()
    assert cameras._folder is None


def test_depth_and_segmentation_as_colours():
    depth = np.array([[0.0, 1.0], [2.0, 3.0]], dtype=np.float32)[..., None]
    grey = in_colours("depth", depth)[..., 0]
    assert grey.tolist() == [[0, 255], [147, 111]]
    assert not in_colours("depth", np.zeros((2, 2, 1), dtype=np.float32)).any()
    seen = np.array([[[-1, -1], [0, 5]], [[1, 5], [0, 5]]], dtype=np.int32)
    colours = in_colours("segmentation", seen).tolist()
    assert colours[0][0] == [0, 0, 0]
    assert colours[0][1] == colours[1][1] != colours[1][0]


def test_a_page_has_room_for_one_viewer(drive):
    playback, viewer, _ = drive(1)
    with pytest.raises(UnavailableError, match="another viewer on the page at port 18080"):
        WebViewer(playback.env, port=18080)
    assert viewer._page.server.get_port()  # It still runs.
    playback.close()
    again = WebViewer(playback.env, port=18080)
    again.close()


def test_an_error_while_drawing_ends_the_run_with_its_reason(drive, monkeypatch):
    playback, viewer, _ = drive(1)

    def fail(*_: Any) -> None:
        raise OSError("page lost")

    monkeypatch.setattr(viewer._plots, "draw", fail)
    monkeypatch.setattr(viewer._page.server, "get_clients", lambda: {0: None})
    viewer._next = 0.0
    hangs = time.monotonic() + PATIENCE_S
    with pytest.raises(DataError, match="WebViewer: drawing failed: page lost"):
        playback.run(lambda: time.monotonic() > hangs)
    with pytest.raises(ExceptionGroup, match="viewers failed to close"):
        playback.close()
    assert viewer._page._closed


def test_the_viewer_begins_with_the_environment_and_the_view_of_the_config():
    cfg = cart_cfg(4)
    cfg.viewer.env_idx = 3
    with ManagerBasedRlEnv(cfg) as env:
        assert Playback(env, lambda _: torch.zeros(4, 1), viewers=[Nothing()]).shown == 3
        env.cfg.viewer.env_idx = 4
        with pytest.raises(ValueError, match="env_idx is 4, but there are 4"):
            Playback(env, lambda _: torch.zeros(4, 1), viewers=[Nothing()])


def test_the_page_shows_as_wide_an_angle_as_pictures_do(drive):
    _, viewer, _ = drive(1)
    fov = viewer._page.server.initial_camera.fov
    assert fov == pytest.approx(np.deg2rad(viewer._env.sim.mj_model.vis.global_.fovy))


@pytest.mark.long
def test_environments_are_chosen_shown_together_and_followed(stage, visit, screenshot, canvas):
    show = stage()
    show.playback.pause()
    for _ in range(6):
        show.playback.single_step()
    show.start()
    page = visit(show.viewer.url)
    wait_for_step(page, 6)
    one = canvas(page, "web_one")

    page.get_by_role("slider").first.press("ArrowRight")
    page.get_by_text("Environment 1: step 6").wait_for()
    assert show.playback.shown == 1

    page.get_by_label("All environments").click()
    until(lambda: show.playback.shows_all)
    until(lambda: changed(one, screenshot(page, "web_all", clip=CANVAS)) > 0.005)
    everything = canvas(page, "web_all")
    columns = drawn(everything).any(axis=0)
    # Several carts stand side by side, with background in between.
    assert (np.diff(columns.astype(int)) == 1).sum() >= 2
    button(page, "Reset").click()
    page.get_by_text("step 0 of its episode").wait_for()
    assert show.env.episode_length_buf.tolist() == [0] * 4

    # The camera stays behind when it no longer follows.
    page.get_by_label("All environments").click()
    until(lambda: not show.playback.shows_all)
    before = canvas(page, "web_following")
    page.get_by_label("Camera follows").click()
    assert changed(before, canvas(page, "web_not_following")) < 0.01  # Nothing jumps.
    for _ in range(15):
        show.playback.single_step()
    wait_for_step(page, 21)
    until(lambda: changed(before, screenshot(page, "web_left_behind", clip=CANVAS)) > 0.005)


def test_a_command_is_set_by_a_slider_and_released(stage, visit, keep_screenshot):
    show = stage()
    show.playback.pause()
    show.start()
    page = visit(show.viewer.url)
    term = show.env.command_manager.get_term("goal")
    page.get_by_role("slider").last.press("End")
    until(lambda: bool(term.held[0]))
    until(lambda: term.command[0, 0] >= 1.0)
    value = float(term.command[0, 0])
    assert term.held.tolist() == [True, False, False, False]
    page.get_by_label("Set by hand").wait_for()
    until(lambda: page.get_by_label("Set by hand").is_checked())
    for _ in range(3):
        show.playback.single_step()
    wait_for_step(page, 3)
    assert float(term.command[0, 0]) == value
    keep_screenshot(page, "web_command")
    page.get_by_label("Set by hand").click()
    until(lambda: not term.held.any())


def test_the_speed_is_chosen_on_the_page(stage, visit):
    show = stage()
    show.playback.pause()
    show.start()
    page = visit(show.viewer.url)
    page.get_by_role("textbox", name="Speed").or_(page.get_by_label("Speed")).first.click()
    page.get_by_role("option", name="0.25×").click()
    until(lambda: show.playback.speed == 0.25)


def test_a_checkpoint_is_chosen_on_the_page_where_new_ones_appear(
    stage, visit, keep_screenshot, tmp_path
):
    def load(path: Path) -> Callable[[Any], torch.Tensor]:
        push = float(path.read_text())
        return lambda obs: torch.full((4, 1), push)

    for number in (0, 10):
        (tmp_path / f"model_{number}.pt").write_text(f"0.{number}")
    show = stage()
    playback = show.playback
    playback.checkpoints = Checkpoints(tmp_path / "model_0.pt", load)
    show.start()
    page = visit(show.viewer.url)
    chooser = page.get_by_role("textbox", name="Checkpoint").or_(page.get_by_label("Checkpoint"))
    chooser.first.click()
    page.get_by_role("option", name="model_10.pt").click()
    until(lambda: playback.checkpoints.current == "model_10.pt")
    until(lambda: float(show.env.action_manager.action[0, 0]) == pytest.approx(0.1))
    (tmp_path / "model_20.pt").write_text("half of a file")
    chooser.first.click()
    page.get_by_role("option", name="model_20.pt").click()
    page.get_by_text("could not convert").wait_for()
    keep_screenshot(page, "web_checkpoints")
    # The choice goes back to what plays.
    until(lambda: chooser.first.input_value() == "model_10.pt")
    assert playback.checkpoints.current == "model_10.pt"


def test_plots_show_rewards_and_the_observation_that_is_chosen(stage, visit, keep_screenshot):
    show = stage()
    show.start()
    page = visit(show.viewer.url)
    until(lambda: show.playback.steps > 40)
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("Reward terms").wait_for()
    for name in ("total", "height", "effort"):
        page.get_by_text(name, exact=True).first.wait_for()
    chooser = page.get_by_role("textbox", name="Observation").or_(page.get_by_label("Observation"))
    chooser.first.click()
    page.get_by_role("option", name="actor-past").click()
    page.get_by_text("[8]").wait_for()
    until(lambda: show.playback.steps > 80)
    page.mouse.move(1100, 700)
    page.mouse.wheel(0, 3000)
    keep_screenshot(page, "web_plots")


# Whether buttons are inside the window, on the right of all charts.
_IN_SIGHT = """names => {
    const box = element => element.getBoundingClientRect();
    const charts = [...document.querySelectorAll('.uplot')].map(box);
    const right = Math.max(...charts.map(chart => chart.right));
    const all = [...document.querySelectorAll('button')];
    return names.every(name => {
        const found = box(all.find(button => button.innerText === name));
        return found.left > right && found.right < innerWidth && found.bottom < innerHeight;
    });
}"""


def test_the_controls_are_in_sight_whatever_is_plotted(stage, visit, keep_screenshot):
    pytest.importorskip("viser", reason="needs viser")
    show = stage(recorders={"plot": LivePlotRecorderCfg(backend="page", port=18080)})
    show.start()
    page = visit(show.viewer.url)
    buttons = ["Single step", "Reset", "End the run", "Stop plot"]
    for width, height in ((1280, 800), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_selector(".uplot canvas >> nth=2")
        page.wait_for_function(_IN_SIGHT, arg=buttons)
        keep_screenshot(page, f"web_with_plots_{width}")
    own = page.get_by_text("Reward terms (value")
    assert not any(plot.is_visible() for plot in own.all())
    page.get_by_text("Plots", exact=True).click()
    own.wait_for()


def test_watching_changes_no_bit_of_the_rollout(visit):
    pytest.importorskip("mjviser", reason="needs mjviser")
    rows: list[list[torch.Tensor]] = []
    for watched in (False, True):
        env = ManagerBasedRlEnv(cart_cfg(4))
        viewer = WebViewer(env, port=18080) if watched else None
        push = torch.Generator().manual_seed(3)
        playback = Playback(
            env,
            lambda _, g=push: torch.rand(4, 1, generator=g) * 2 - 1,
            viewers=[viewer] if viewer else [],
        )
        kept: list[torch.Tensor] = []

        def keep(result: Any, kept: list[torch.Tensor] = kept) -> None:
            kept += [result[0]["actor"].clone(), *(t.clone() for t in result[1:4])]

        playback.run(lambda p=playback: p.steps == 1, keep)  # The page is there from now on.
        if viewer is not None:
            visit(viewer.url)
            server = viewer._page.server
            until(lambda s=server: len(s.get_clients()) == 1)
            playback.show_all()
        playback.run(lambda p=playback: p.steps == 60, keep)
        kept.append(torch.rand(3, generator=env.rng.actuation))
        rows.append(kept)
        playback.close()
        env.close()
    assert all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


def test_nothing_is_read_without_a_client(stage, monkeypatch):
    show = stage()
    show.playback.run(lambda: True)
    monkeypatch.setattr(FrameReader, "read", lambda self: pytest.fail("Read without a client."))
    show.playback.speed = None
    show.playback.run(lambda: show.playback.steps == 20)


def test_the_page_is_reached_from_this_machine_only(stage):
    assert stage().viewer._page.server.get_host() == "127.0.0.1"


def test_a_missing_mjviser_is_reported_before_the_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "mjviser", None)
    with pytest.raises(ImportError, match=r"The web viewer needs .*mjlab_rec\[web\]"):
        make_viewer("web", None)  # type: ignore[arg-type]


def test_a_viewer_removes_its_parts_from_a_shared_page(stage):
    from mjlab_rec.utils.page import open_page

    show = stage()
    page = open_page("a test", 18080)
    show.playback.run(lambda: True)
    assert page.server is show.viewer._page.server
    assert page.server.gui._container_handle_from_uuid["root"]._children
    show.playback.close()
    assert not page.server.gui._container_handle_from_uuid["root"]._children
    assert not [name for name in page.server.scene._handle_from_node_name if "bodies" in name]
    page.close()


def test_worlds_in_the_same_place_are_laid_out():
    with ManagerBasedRlEnv(cart_cfg(6)) as env:
        same = spread(env, tuple(range(6)), np.zeros((6, 3)))
        assert len(np.unique(same, axis=0)) == 6
        far = np.arange(18.0).reshape(6, 3) * 10
        assert not spread(env, tuple(range(6)), far).any()
        assert not spread(env, (3,), np.ones((1, 3))).any()


def test_as_many_environments_as_allowed_are_shown_around_the_one_chosen():
    with ManagerBasedRlEnv(cart_cfg(9)) as env:
        playback = Playback(env, lambda _: torch.zeros(9, 1))
        playback.run(lambda: True)
        playback.show_all()
        reader = FrameReader(playback, max_envs=4)
        for shown, expected in ((0, range(4)), (5, range(3, 7)), (8, range(5, 9))):
            playback.show(shown)
            frame = reader.read()
            assert frame.snapshot.env_ids == tuple(expected)
            assert frame.snapshot.env_ids[frame.row] == shown


def test_history_keeps_the_last_points_and_restarts_with_other_lines():
    history = History(length=3)
    assert history.add(0, {"a": 1.0})
    for step in range(1, 5):
        assert not history.add(step, {"a": float(step)})
    history.add(4, {"a": 9.0})  # The same step again, as in a pause.
    steps, values = history.columns()
    assert steps.tolist() == values.tolist() == [2, 3, 4]
    assert history.add(5, {"b": 1.0, "c": 2.0})
    assert [column.tolist() for column in history.columns()] == [[5], [1], [2]]
    history.clear()
    assert [len(column) for column in history.columns()] == [0, 0, 0]
