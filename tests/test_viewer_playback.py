"""The loop that plays a policy: order, pauses, pace, requests, viewers and how it ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from waiting import PATIENCE_S
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.viewer import make_viewer
from mjlab_rec.viewer.playback import Playback


class Time:
    """A clock that advances only when a caller waits or a test advances it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class StubEnv:
    """Counts steps in its observation, and remembers everything in order."""

    step_dt = 0.1
    num_envs = 3

    def __init__(self, log: list[Any], auto_reset: bool = True) -> None:
        self.log = log
        self.obs_buf: dict[str, torch.Tensor] = {}
        self.cfg = SimpleNamespace(auto_reset=auto_reset, viewer=SimpleNamespace(env_idx=0))
        self.device = "cpu"
        self.over: list[int] = []

    def get_observations(self) -> Any:
        return self.obs_buf

    def reset(self, env_ids: Any = None) -> Any:
        self.log.append(("reset", None if env_ids is None else env_ids.tolist()))
        self.obs_buf = {"n": torch.tensor(0)}
        return self.obs_buf, {}

    def step(self, action: torch.Tensor) -> Any:
        self.log.append(("step", int(action)))
        self.obs_buf = {"n": action + 1}
        done = torch.zeros(self.num_envs, dtype=torch.bool)
        done[self.over] = True
        return self.obs_buf, torch.zeros(self.num_envs), done, torch.zeros_like(done), {}


class StubViewer:
    """Remembers what it is told."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.closed_by_user = False
        self.on_update: Any = None

    def open(self, playback: Playback) -> None:
        self.log.append("open")

    def update(self) -> None:
        self.log.append("update")
        if self.on_update is not None:
            self.on_update()

    def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def log() -> list[Any]:
    return []


def make(log: list[Any], **options: Any) -> tuple[Playback, Time]:
    time = Time()
    env: Any = options.pop("env", None) or StubEnv(log)
    options = {"policy": lambda obs: obs["n"], "clock": time, "wait": time.wait, **options}
    return Playback(env, **options), time


def steps(log: list[Any]) -> int:
    return sum(1 for entry in log if entry[0] == "step")


def test_a_run_resets_then_steps_with_the_policys_answers_to_the_last_observations(log):
    playback, _ = make(log)
    seen: list[int] = []

    def see(result: Any) -> None:
        seen.append(int(result[0]["n"]))

    done = lambda: playback.steps == 3  # noqa: E731
    assert playback.run(done, on_step=see) == "done"
    assert log == [("reset", None), ("step", 0), ("step", 1), ("step", 2)]
    assert seen == [1, 2, 3]
    assert playback.seconds == pytest.approx(0.3)


def test_a_second_run_continues_where_the_first_ended(log):
    playback, _ = make(log)
    playback.run(lambda: playback.steps == 2)
    playback.run(lambda: playback.steps == 4)
    assert log == [("reset", None)] + [("step", n) for n in range(4)]


def test_a_reset_asked_for_before_the_run_is_the_only_one(log):
    playback, _ = make(log)
    playback.reset()
    playback.run(lambda: playback.steps == 1)
    assert log == [("reset", None), ("step", 0)]


def test_no_step_is_taken_if_it_is_done_already(log):
    playback, _ = make(log)
    playback.run(lambda: True)
    assert steps(log) == 0


def test_viewers_are_opened_once_and_updated_after_every_step(log):
    viewer = StubViewer(log)
    playback, _ = make(log, viewers=[viewer])
    playback.run(lambda: playback.steps == 2)
    playback.run(lambda: playback.steps == 3)
    playback.close()
    rest = [entry for entry in log if entry[0] != "reset"]
    one = [("step", 0), "update", ("step", 1), "update", ("step", 2), "update"]
    assert rest == ["open", *one, "close"]


def test_a_viewer_that_its_user_closes_ends_the_run(log):
    viewer = StubViewer(log)
    viewer.on_update = lambda: setattr(viewer, "closed_by_user", playback.steps == 2)
    playback, _ = make(log, viewers=[viewer])
    assert playback.run() == "closed"
    assert playback.steps == 2


def test_a_viewer_closed_in_a_pause_ends_the_run(log):
    viewer = StubViewer(log)
    viewer.on_update = lambda: setattr(viewer, "closed_by_user", True)
    playback, _ = make(log, viewers=[viewer])
    playback.pause()
    assert playback.run() == "closed"
    assert playback.steps == 0


def test_all_viewers_are_closed_even_if_one_fails(log):
    def fail() -> None:
        raise OSError("window lost")

    first, second = StubViewer(log), StubViewer(log)
    first.close = fail
    playback, _ = make(log, viewers=[first, second])
    with pytest.raises(ExceptionGroup, match="viewers failed"):
        playback.close()
    assert log == ["close"]


@pytest.mark.parametrize("where", ["policy", "step", "on_step", "viewer", "done"])
def test_errors_end_the_run_and_closing_still_works(log, where):
    def fail(*_: Any) -> Any:
        raise RuntimeError(where)

    env: Any = StubEnv(log)
    viewer = StubViewer(log)
    if where == "step":
        env.step = fail
    if where == "viewer":
        viewer.on_update = fail
    policy = {"policy": fail} if where == "policy" else {}
    playback, _ = make(log, env=env, viewers=[viewer], **policy)
    with playback, pytest.raises(RuntimeError, match=where):
        playback.run(
            fail if where == "done" else None, on_step=fail if where == "on_step" else None
        )
    assert log[-1] == "close"


def test_real_time_waits_so_that_steps_come_every_step_dt(log):
    playback, time = make(log, speed=1.0)
    moments = []
    playback.run(lambda: playback.steps == 5, on_step=lambda _: moments.append(time.now))
    assert moments == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])


def test_the_pace_does_not_drift_when_steps_take_time_and_waits_are_too_long(log):
    playback, time = make(log, speed=2.0, wait=lambda s: setattr(time, "now", time.now + s + 1e-3))
    moments = []

    def on_step(_: Any) -> None:
        moments.append(time.now)
        time.now += 0.02

    playback.run(lambda: playback.steps == 1001, on_step=on_step)
    assert moments[-1] - moments[0] == pytest.approx(1000 * 0.05, abs=2e-3)


def test_a_short_delay_is_caught_up_and_a_long_one_is_not(log):
    playback, time = make(log, speed=1.0)
    moments = []

    def on_step(_: Any) -> None:
        moments.append(time.now - 100.0)
        time.now += {2: 0.15, 6: 60.0}.get(playback.steps, 0.0)

    playback.run(lambda: playback.steps == 9, on_step=on_step)
    expected = [0.0, 0.1, 0.25, 0.3, 0.4, 0.5, 60.5, 60.6, 60.7]
    assert moments == pytest.approx(expected)


def test_as_fast_as_possible_never_waits(log):
    playback, time = make(log)
    playback.run(lambda: playback.steps == 50)
    assert time.waits == []


def test_another_speed_applies_from_the_next_step_on(log):
    playback, time = make(log, speed=1.0)
    moments = []

    def on_step(_: Any) -> None:
        moments.append(time.now - 100.0)
        if playback.steps == 2:
            playback.speed = 0.5
        if playback.steps == 4:
            playback.speed = None

    playback.run(lambda: playback.steps == 6, on_step=on_step)
    assert moments == pytest.approx([0.0, 0.1, 0.1, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_that_is_none_is_refused(log, speed):
    with pytest.raises(ValueError, match="positive"):
        make(log, speed=speed)


def test_a_paused_run_takes_no_steps_but_keeps_viewers_up_to_date(log):
    viewer = StubViewer(log)
    playback, time = make(log, viewers=[viewer])
    playback.pause()
    playback.run(lambda: len(time.waits) == 10)
    assert playback.paused
    assert steps(log) == 0
    assert log.count("update") == 10


@pytest.mark.parametrize("until", [100.25, 101.0])
def test_after_a_pause_steps_do_not_come_faster_to_make_up_for_it(log, until):
    playback, time = make(log, speed=1.0)
    moments = []

    def done() -> bool:
        if playback.paused and time.now > until:
            playback.resume()
        return playback.steps == 5

    def on_step(_: Any) -> None:
        moments.append(time.now)
        if playback.steps == 2:
            playback.pause()

    playback.run(done, on_step)
    gaps = [b - a for a, b in zip(moments[2:], moments[3:], strict=False)]
    assert gaps == pytest.approx([0.1, 0.1])


def test_single_steps_are_taken_one_by_one_in_a_pause(log):
    playback, time = make(log, speed=0.001)
    playback.pause()
    playback.single_step()
    playback.single_step()
    playback.run(lambda: len(time.waits) == 3)
    assert playback.steps == 2
    assert playback.paused


def test_a_single_step_pauses_a_run_that_goes(log):
    playback, time = make(log)
    stop = lambda _: playback.single_step() if playback.steps == 3 else None  # noqa: E731
    playback.run(lambda: len(time.waits) == 3, on_step=stop)
    assert playback.steps == 4
    assert playback.paused


def test_resets_happen_between_steps_and_the_policy_sees_the_new_observation(log):
    playback, _ = make(log)
    reset = lambda _: playback.reset([1]) if playback.steps == 2 else None  # noqa: E731
    playback.run(lambda: playback.steps == 3, on_step=reset)
    assert log[-3:] == [("step", 1), ("reset", [1]), ("step", 0)]


def test_without_auto_reset_finished_environments_are_reset_at_once(log):
    env = StubEnv(log, auto_reset=False)
    env.over = [0, 2]
    playback, _ = make(log, env=env)
    playback.run(lambda: playback.steps == 1)
    assert log == [("reset", None), ("step", 0), ("reset", [0, 2])]


def test_requests_from_other_threads_run_in_the_runs_thread_in_order(log):
    env: Any = StubEnv(log)
    playback = Playback(env, lambda obs: obs["n"])
    playback.pause()
    ran: list[tuple[int, int]] = []
    asked = threading.Event()

    def ask() -> None:
        for number in range(100):
            playback.request(lambda n=number: ran.append((n, threading.get_ident())))
        asked.set()

    thread = threading.Thread(target=ask)
    thread.start()
    playback.run(lambda: asked.is_set() and len(ran) == 100)
    thread.join(PATIENCE_S)
    assert ran == [(n, threading.get_ident()) for n in range(100)]


def test_a_request_wakes_a_run_that_waits_for_a_step_far_away(log):
    env: Any = StubEnv(log)
    playback = Playback(env, lambda obs: obs["n"], speed=1e-6)
    done = threading.Event()
    first_step = threading.Event()
    thread = threading.Thread(target=playback.run, args=(done.is_set, lambda _: first_step.set()))
    thread.start()
    assert first_step.wait(PATIENCE_S)  # The next one is due in 28 hours.
    playback.request(done.set)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_an_environment_that_does_not_exist_cannot_be_shown(log):
    playback, _ = make(log)
    playback.show(2)
    assert playback.shown == 2
    with pytest.raises(IndexError, match="no environment 3"):
        playback.show(3)


def test_a_run_changes_no_bit_of_the_rollout():
    rows: list[list[torch.Tensor]] = []
    for played in (False, True):
        env = ManagerBasedRlEnv(cart_cfg(4))
        answers = iter(actions(30))
        kept: list[torch.Tensor] = []

        def keep(result: Any, kept: list[torch.Tensor] = kept) -> None:
            kept += [result[0]["actor"].clone(), *(t.clone() for t in result[1:4])]

        if played:
            playback = Playback(env, lambda _, answers=answers: next(answers))
            playback.run(lambda p=playback: p.steps == 30, keep)
        else:
            env.reset()
            for action in answers:
                keep(env.step(action))
        kept.append(torch.rand(3, generator=env.rng.actuation))
        rows.append(kept)
        env.close()
    assert all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


def test_without_a_viewer_nothing_of_a_viewer_is_imported():
    code = (
        "import sys; from mjlab_rec.viewer import make_viewer; import mjlab_rec.viewer.playback;"
        "assert make_viewer('none', None) is None;"
        "print([m for m in ('viser', 'mjviser', 'mujoco.viewer') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.stdout.strip() == "[]", run.stderr


def test_an_unknown_viewer_is_refused_with_a_proposal():
    with pytest.raises(ValueError, match="Did you mean 'web'"):
        make_viewer("wep", None)  # type: ignore[arg-type]


def test_without_a_display_auto_takes_the_web_page_and_without_viser_none(monkeypatch, caplog):
    import importlib.util

    from mjlab_rec.utils import display
    from mjlab_rec.viewer import choice

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    there = importlib.util.find_spec
    monkeypatch.setattr(display.sys, "platform", "linux")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: True if "viser" in name else there(name)
    )
    assert choice.best_viewer() == "web"
    monkeypatch.setenv("DISPLAY", ":77")  # No server responds there.
    assert choice.best_viewer() == "web"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choice.best_viewer() == "none"
    assert "mjlab_rec[web]" in caplog.text


def test_with_a_display_auto_takes_the_window(monkeypatch):
    from mjlab_rec.utils import display
    from mjlab_rec.viewer import choice

    monkeypatch.setattr(display.sys, "platform", "linux")
    monkeypatch.setattr(display, "_responds", lambda name: name == ":5")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":5")
    assert choice.best_viewer() == "native"
