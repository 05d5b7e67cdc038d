"""Recorder manager: who is called when, what an error does, and starting and stopping in a run."""

from __future__ import annotations

import copy
import csv
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeEnv
from waiting import PATIENCE_S
from worlds import actions, cart_cfg

from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import (
    NullRecorderManager,
    RecorderManager,
    RecorderTerm,
    RecorderTermCfg,
)

HOOKS = ["pre_step", "substep", "pre_reset", "post_reset", "post_step"]


@pytest.fixture
def env() -> Any:
    return FakeEnv()


class Everything(RecorderTerm):
    """Notes every hook, and fails in one if told to."""

    def note(self, hook: str, *values: Any) -> None:
        self._env.log.append((self.cfg.params.get("name", "a"), hook, *values))  # type: ignore[attr-defined]
        if self.cfg.params.get("fail") == hook:
            raise OSError(f"disk full in {hook}")

    def record_pre_step(self) -> None:
        self.note("pre_step")

    def record_substep(self) -> None:
        self.note("substep")

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        self.note("pre_reset", *env_ids.tolist())

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        self.note("post_reset", *env_ids.tolist())

    def record_post_step(self) -> None:
        self.note("post_step")

    def record_exception(self, error: BaseException) -> None:
        self.note("exception", str(error))

    def close(self) -> None:
        self.note("close")


def everything(name: str = "a", **more: Any) -> RecorderTermCfg:
    on_error = more.pop("on_error", "raise")
    return RecorderTermCfg(func=Everything, params={"name": name, **more}, on_error=on_error)


def call_all(manager: Any, env: Any) -> None:
    manager.record_pre_step()
    manager.record_substep()
    manager.record_pre_reset(env.ids(1))
    manager.record_post_reset(env.ids(1))
    manager.record_post_step()


def hooks_of(env: Any, name: str) -> list[str]:
    return [entry[1] for entry in env.log if entry[0] == name]


# Who is called.


def test_hooks_reach_all_recorders_in_the_cfgs_order(env):
    manager = RecorderManager({"a": everything("a"), "off": None, "b": everything("b")}, env)  # type: ignore[dict-item]
    call_all(manager, env)
    assert [entry[:2] for entry in env.log] == [(name, hook) for hook in HOOKS for name in "ab"]
    assert env.log[4] == ("a", "pre_reset", 1)


def test_a_recorder_without_overrides_is_never_called(env):
    class Idle(RecorderTerm):
        pass

    manager = RecorderManager({"idle": RecorderTermCfg(func=Idle)}, env)
    call_all(manager, env)
    assert not any(manager._selected[0].values()) and not manager.has_substep_terms
    manager.close()


def test_the_null_manager_takes_every_call_and_names_no_recorder(env):
    manager = NullRecorderManager()
    assert isinstance(manager, RecorderManager) and "x" not in manager
    assert not manager.has_substep_terms and not manager.needs_final_obs
    call_all(manager, env)
    manager.record_exception(ValueError())
    manager.close()
    for control in (manager.start, manager.pause, manager.stop):
        with pytest.raises(KeyError, match="Unknown recorder term 'x'"):
            control("x")


@dataclass(kw_only=True)
class TypedCfg(RecorderTermCfg):
    """A cfg with fields of its own, and its class as default."""

    func: Any = Everything
    path: str
    every: int = 1


def test_typed_cfgs_reach_their_recorder_as_copies(env):
    cfg: Any = {"typed": TypedCfg(path="out.csv", on_error="disable")}
    before = copy.deepcopy(cfg)
    term = RecorderManager(cfg, env).get_term("typed")
    assert (term.cfg.path, term.cfg.every) == ("out.csv", 1)  # type: ignore[attr-defined]
    assert term.cfg is not cfg["typed"] and cfg == before


def test_an_unknown_on_error_is_refused_before_anything_is_built(env):
    cfg = {"a": everything(), "b": everything(on_error="disabel")}
    with pytest.raises(ValueError, match="'b': unknown on_error 'disabel'. Did you mean 'disable'"):
        RecorderManager(cfg, env)
    assert env.log == []


# Random numbers.


@pytest.mark.parametrize(
    ("methods", "warned"),
    [
        (["record_poststep"], "record_post_step"),
        (["record_pre_resets", "record_post_step"], "record_pre_reset"),
        (["record_contacts", "record", "records"], None),
        (["record_post_step", "record_poststeps"], None),  # A helper of the hook.
    ],
)
def test_a_misspelt_hook_is_named_with_the_nearest_one(env, methods, warned, caplog):
    mine = type("Mine", (RecorderTerm,), {name: lambda self, *args: None for name in methods})
    RecorderManager({"mine": RecorderTermCfg(func=mine)}, env).close()
    expected = f"Mine.{methods[0]} is never called: it is not the name of a hook. Did you mean"
    assert caplog.messages == ([] if warned is None else [f"{expected} {warned}?"])


class Drawing(RecorderTerm):
    """Draws from the global generator in one hook, and not in the other."""

    def record_pre_step(self) -> None:
        torch.rand(1)

    def record_post_step(self) -> None:
        torch.rand(1)


class Sober(Drawing):
    """Says that it draws nothing."""

    draws_random_numbers = False

    def record_pre_step(self) -> None:
        pass

    def record_post_step(self) -> None:
        pass


class Counted:
    """Counts how often random numbers are suspended."""

    def __init__(self, rng: Any) -> None:
        self.rng, self.count = rng, 0

    def suspended(self) -> Any:
        self.count += 1
        return self.rng.suspended()


def test_random_numbers_are_kept_apart_only_for_recorders_that_draw(env):
    env.rng = Counted(env.rng)
    manager = RecorderManager({"s": RecorderTermCfg(func=Sober)}, env)
    call_all(manager, env)
    assert env.rng.count == 0
    manager = RecorderManager(
        {"s": RecorderTermCfg(func=Sober), "d": RecorderTermCfg(func=Drawing)}, env
    )
    call_all(manager, env)
    assert env.rng.count == 2
    manager.pause("d")
    call_all(manager, env)
    assert env.rng.count == 2


def test_an_environment_without_random_streams_is_tolerated(env):
    del env.rng
    call_all(RecorderManager({"a": everything()}, env), env)
    assert hooks_of(env, "a") == HOOKS


# Starting, pausing, stopping.


@pytest.mark.parametrize(("idle", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_an_idle_recorder_is_not_called_until_it_starts(env, idle, state):
    manager = RecorderManager({"a": everything("a"), "b": everything("b")}, env)
    term = manager.get_term("a")
    assert term.state == "recording"
    getattr(manager, idle)("a")
    assert term.state == state
    call_all(manager, env)
    assert hooks_of(env, "a") == [] and hooks_of(env, "b") == HOOKS
    manager.start("a")
    assert term.state == "recording"
    call_all(manager, env)
    assert hooks_of(env, "a") == HOOKS
    manager.close()
    assert term.state == "stopped"


def test_a_recorder_may_control_itself_in_a_hook(env):
    class Once(Everything):
        def record_post_step(self) -> None:
            super().record_post_step()
            self.stop()

    cfg = {"a": RecorderTermCfg(func=Once, params={"name": "a"}), "b": everything("b")}
    manager = RecorderManager(cfg, env)
    call_all(manager, env)
    call_all(manager, env)
    assert hooks_of(env, "a") == HOOKS and hooks_of(env, "b") == HOOKS * 2


def test_a_recorder_that_stops_in_its_constructor_begins_idle(env):
    class Late(Everything):
        def __init__(self, cfg: Any, env: Any) -> None:
            super().__init__(cfg, env)
            self.stop()

    manager = RecorderManager({"a": RecorderTermCfg(func=Late)}, env)
    call_all(manager, env)
    assert env.log == [] and manager.has_substep_terms
    manager.start("a")
    call_all(manager, env)
    assert hooks_of(env, "a") == HOOKS


def test_some_hooks_can_go_on_in_a_pause(env):
    class Watching(Everything):
        hooks_when_idle = ("record_post_reset",)

    manager = RecorderManager({"a": RecorderTermCfg(func=Watching)}, env)
    manager.pause("a")
    call_all(manager, env)
    assert hooks_of(env, "a") == ["post_reset"]


def test_pausing_a_stopped_recorder_leaves_it_stopped(env):
    manager = RecorderManager({"a": everything()}, env)
    manager.stop("a")
    manager.pause("a")
    assert manager.get_term("a").state == "stopped"


def test_controls_name_the_nearest_recorder(env):
    with pytest.raises(KeyError, match="Unknown recorder term 'rollot'. Did you mean 'rollout'"):
        RecorderManager({"rollout": everything()}, env).pause("rollot")


def test_a_recorder_may_have_attributes_of_the_obvious_names(env):
    class Plain(Everything):
        _state, _closed = "mine", False

        def close(self) -> None:
            if not self._closed:
                super().close()

    manager = RecorderManager({"a": RecorderTermCfg(func=Plain)}, env)
    assert manager.get_term("a").state == "recording"
    manager.close()
    assert hooks_of(env, "a") == ["close"]


def test_a_recorder_that_skips_the_base_constructor_can_be_controlled(env):
    class Rude(Everything):
        def __init__(self, cfg: Any, env: Any) -> None:
            self._env, self.cfg = env, cfg

    manager = RecorderManager({"a": RecorderTermCfg(func=Rude)}, env)
    manager.stop("a")
    call_all(manager, env)
    assert env.log == []


# Errors.


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_in_a_hook_names_the_recorder(env, hook):
    manager = RecorderManager({"a": everything(fail=hook)}, env)
    with pytest.raises(OSError, match="disk full") as caught:
        call_all(manager, env)
    assert caught.value.__notes__ == [f"in record_{hook} of recorder 'a'"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_failing_recorder_can_be_disabled_instead(env, hook, caplog):
    cfg = {"a": everything("a", fail=hook, on_error="disable"), "b": everything("b")}
    manager = RecorderManager(cfg, env)
    call_all(manager, env)
    call_all(manager, env)
    assert hooks_of(env, "a") == [*HOOKS[: HOOKS.index(hook) + 1], "close"]
    assert hooks_of(env, "b") == HOOKS * 2
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and "OSError: disk full" in caplog.text
    assert f"Recorder 'a' failed in record_{hook}. It is closed" in record.getMessage()

    assert manager.get_term("a").state == "stopped"
    with pytest.raises(RuntimeError, match="Everything is closed and cannot start again"):
        manager.start("a")
    manager.close()
    assert hooks_of(env, "a").count("close") == 1


def test_a_closed_recorder_is_not_called_even_where_idle_ones_are(env):
    class Watching(Everything):
        hooks_when_idle = tuple(f"record_{hook}" for hook in HOOKS)

    params = {"name": "a", "fail": "pre_step"}
    cfg = RecorderTermCfg(func=Watching, params=params, on_error="disable")
    call_all(RecorderManager({"a": cfg}, env), env)
    assert hooks_of(env, "a") == ["pre_step", "close"]


def test_a_disabled_recorder_that_cannot_even_close_is_logged(env, caplog):
    class Worse(Everything):
        def close(self) -> None:
            raise OSError("still full")

    cfg = RecorderTermCfg(func=Worse, params={"fail": "post_step"}, on_error="disable")
    manager = RecorderManager({"a": cfg}, env)
    call_all(manager, env)
    assert "still full" in caplog.text and "Recorder 'a' also failed to close." in caplog.text
    manager.close()


def test_errors_at_close_are_raised_or_logged_as_the_cfg_says(env, caplog):
    cfg = {
        "a": everything("a", fail="close"),
        "b": everything("b", fail="close", on_error="disable"),
        "c": everything("c"),
    }
    manager = RecorderManager(cfg, env)
    with pytest.raises(ExceptionGroup) as caught:
        manager.close()
    assert [entry[:2] for entry in env.log] == [("a", "close"), ("b", "close"), ("c", "close")]
    (error,) = caught.value.exceptions
    assert error.__notes__ == ["while closing recorder 'a'"]
    assert "Recorder 'b' failed to close." in caplog.text
    manager.close()
    assert len(env.log) == 3


def test_a_recorder_that_cannot_be_built_closes_those_before_it(env):
    class Broken(RecorderTerm):
        def __init__(self, cfg: Any, env: Any) -> None:
            raise OSError("no such folder")

    cfg = {"a": everything("a"), "x": RecorderTermCfg(func=Broken, on_error="disable")}
    with pytest.raises(OSError, match="no such folder"):
        RecorderManager(cfg, env)
    assert hooks_of(env, "a") == ["close"]


def test_what_fails_while_an_error_is_recorded_does_not_hide_it(env, caplog):
    cfg = {"a": everything("a", fail="exception"), "b": everything("b")}
    manager = RecorderManager(cfg, env)
    error = ValueError("nan")
    manager.record_exception(error)
    assert env.log == [("a", "exception", "nan"), ("b", "exception", "nan")]
    assert "recorder 'a' failed to record this: OSError('disk full" in error.__notes__[0]
    assert "Recorder 'a' failed to record an error of step()" in caplog.text


# Threads.


def test_closing_waits_for_a_hook_that_another_thread_is_in(env):
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Everything):
        def record_post_step(self) -> None:
            self.note("post_step")
            inside.set()
            assert go_on.wait(PATIENCE_S)
            self.note("post_step is over")

    manager = RecorderManager({"a": RecorderTermCfg(func=Slow)}, env)
    stepping = threading.Thread(target=manager.record_post_step)
    stepping.start()
    assert inside.wait(PATIENCE_S)
    closing = threading.Thread(target=manager.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join()
    stepping.join()
    assert hooks_of(env, "a") == ["post_step", "post_step is over", "close"]
    manager.record_post_step()
    assert len(env.log) == 3


def test_a_recorder_closes_once_however_many_threads_close_it(env):
    manager = RecorderManager({"a": everything()}, env)
    together = threading.Barrier(4)

    def close() -> None:
        together.wait()
        manager.close()

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hooks_of(env, "a") == ["close"]


def test_a_recorder_that_is_closed_in_a_hook_misses_the_rest_of_it(env):
    class Closing(Everything):
        def record_post_step(self) -> None:
            super().record_post_step()
            manager.close()

    manager = RecorderManager({"a": RecorderTermCfg(func=Closing), "b": everything("b")}, env)
    call_all(manager, env)
    assert hooks_of(env, "b") == [*HOOKS[:-1], "close"]


def test_what_is_called_fits_the_state_after_threads_have_set_it(env):
    manager = RecorderManager({"a": everything()}, env)
    controls = [manager.start, manager.pause] * 2

    def control(act: Any) -> None:
        for _ in range(300):
            act("a")

    threads = [threading.Thread(target=control, args=(act,)) for act in controls]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        manager.record_post_step()
    for state in ("paused", "recording"):
        env.log.clear()
        call_all(manager, env)
        assert (env.log != []) == (manager.get_term("a").state == "recording")
        (manager.pause if state == "paused" else manager.start)("a")


def test_controls_do_not_wait_for_a_hook(env):
    """A recorder that wants them to take effect after a step sees to it itself."""

    class Controlled(Everything):
        def record_post_step(self) -> None:
            thread = threading.Thread(target=manager.pause, args=("a",))
            thread.start()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    manager = RecorderManager({"a": RecorderTermCfg(func=Controlled)}, env)
    manager.record_post_step()
    assert manager.get_term("a").state == "paused"


def test_a_forked_process_does_not_close_recorders(env, monkeypatch):
    manager = RecorderManager({"a": everything()}, env)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        manager.close()
        assert env.log == []
    manager.close()
    assert hooks_of(env, "a") == ["close"]


def test_a_signal_after_a_complete_step_is_no_failed_step(env):
    manager = RecorderManager({"a": everything()}, env)
    manager.record_pre_step()
    manager.record_exception(KeyboardInterrupt())
    assert hooks_of(env, "a") == ["pre_step", "exception"]
    manager.record_pre_step()
    manager.record_post_step()
    manager.record_exception(KeyboardInterrupt())
    assert hooks_of(env, "a")[2:] == ["pre_step", "post_step"]
    manager.record_exception(ValueError())
    assert hooks_of(env, "a")[-1] == "exception"


# In the real environment.


def test_an_error_in_a_real_step_reaches_recorders_and_then_the_caller():
    seen = []

    class Watching(RecorderTerm):
        def record_exception(self, error: BaseException) -> None:
            seen.append(error)

    cfg = cart_cfg(recorders={"w": RecorderTermCfg(func=Watching)})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        env.step(actions(1)[0])
        assert seen == []
        with pytest.raises(ValueError, match="NaN") as caught:
            env.step(torch.full((4, 1), float("nan")))
        assert seen == [caught.value]


def test_a_disabled_recorder_leaves_the_rollout_as_it_was(caplog):
    class Failing(RecorderTerm):
        def record_post_step(self) -> None:
            torch.rand(3)
            raise OSError("disk full")

    rewards = []
    for recorders in ({}, {"f": RecorderTermCfg(func=Failing, on_error="disable")}):
        with ManagerBasedRlEnv(cart_cfg(recorders=recorders)) as env:
            env.reset()
            rewards.append(torch.stack([env.step(action)[1] for action in actions(12)]))
    assert torch.equal(*rewards) and len(caplog.records) == 1


class CsvRecorder(RecorderTerm):
    """A user's recorder in the style of mjlab's documentation."""

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self._file = open(cfg.params["path"], "w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["step", "obs", "action", "reward"])

    def record_post_step(self) -> None:
        obs = self._env.obs_buf["actor"]
        assert isinstance(obs, torch.Tensor)
        action, reward = self._env.action_manager.action, self._env.reward_buf
        for row in zip(obs[:, 0].tolist(), action[:, 0].tolist(), reward.tolist(), strict=True):
            self._writer.writerow([self._env.common_step_counter, *row])

    def close(self) -> None:
        self._file.close()


def test_a_recorder_written_as_mjlab_documents_runs_unchanged(tmp_path: Path):
    path = tmp_path / "log.csv"
    cfg = cart_cfg(recorders={"csv": RecorderTermCfg(func=CsvRecorder, params={"path": str(path)})})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        rewards = [env.step(action)[1] for action in actions(6)]
        env.recorder_manager.pause("csv")
        env.step(actions(1)[0])
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "obs", "action", "reward"]
    assert [int(row[0]) for row in rows] == [step for step in range(1, 7) for _ in range(4)]
    assert [float(row[3]) for row in rows] == pytest.approx(torch.cat(rewards).tolist())


def test_a_recorder_that_cannot_start_stays_stopped_and_the_rollout_goes_on(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    from mjlab_rec.recorders import CsvRecorderCfg

    recorder = CsvRecorderCfg(path=str(tmp_path / "a.csv"), autostart=False)
    with ManagerBasedRlEnv(cart_cfg(2, recorders={"table": recorder})) as env:
        env.reset()
        env.step(actions(1, 2)[0])
        for _ in range(2):
            with pytest.raises(DataError, match="already exists"):
                env.recorder_manager.start("table")
            assert env.recorder_manager.get_term("table").state == "stopped"
            env.step(actions(1, 2)[0])
        (tmp_path / "a.csv").unlink()
        env.recorder_manager.start("table")
        env.step(actions(1, 2)[0])
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 2
