"""Functions as triggers: the name of the parameter says what they get, in every recorder."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEnv
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import MemoryRecorderCfg, every_n_episodes
from mjlab_rec.recorders.about import as_json
from mjlab_rec.recorders.presets import load_preset
from mjlab_rec.recorders.trigger_runners import EpisodeFunctionRunner
from mjlab_rec.recorders.triggers import (
    Trigger,
    at_start,
    capped_cubic_episodes,
    manual,
    trigger_from,
    when,
)


def every_other(episode: int) -> bool:
    """A trigger that a text can name."""
    return episode % 2 == 0


class Late:
    """A condition with a memory of its own."""

    def after(self, env: Any) -> bool:
        """Whether a few steps have been taken."""
        return env.common_step_counter > 3

    def __call__(self, step_id: int) -> bool:
        """Whether it is late."""
        return step_id > 3


@pytest.mark.parametrize(
    ("function", "takes", "scope"),
    [
        (lambda step: step % 1500 == 0, "step", "step"),
        (lambda steps: True, "step", "step"),
        (lambda step_id: True, "step", "step"),
        (lambda episode: episode % 10 == 0, "episode", "episode"),
        (lambda episodes: True, "episode", "episode"),
        (lambda episode_id, n=3: episode_id % n == 0, "episode", "episode"),
        (lambda env: True, "env", "step"),
        (every_other, "episode", "episode"),
        (Late(), "step", "step"),
        (Late().after, "env", "step"),
        (functools.partial(lambda n, episode: episode % n == 0, 4), "episode", "episode"),
    ],
)
def test_the_parameters_name_says_what_a_function_gets(function, takes, scope):
    trigger = trigger_from(function)
    assert (trigger.kind, trigger.takes, trigger.scope) == ("when", takes, scope)


def test_a_function_that_does_not_say_what_it_gets_is_refused():
    with pytest.raises(ValueError, match="step, episode or env; it is 'x'.*every_n_steps"):
        trigger_from(lambda x: True)
    for function in (lambda: True, lambda step, episode: True, max):
        with pytest.raises(ValueError, match="it is not a single one"):
            trigger_from(function)


def test_when_takes_an_environment_whatever_it_is_called():
    assert when(lambda world: True).takes == "env"


def test_triggers_without_arguments_need_not_be_called():
    assert trigger_from(manual) == manual()
    assert trigger_from(capped_cubic_episodes) == capped_cubic_episodes()
    assert trigger_from(at_start) == at_start()
    with pytest.raises(
        ValueError, match=r"every_n_episodes needs n: write every_n_episodes\(...\)"
    ):
        trigger_from(every_n_episodes)


@pytest.mark.parametrize(
    "text", ["test_trigger_functions:every_other", "when(test_trigger_functions:every_other)"]
)
def test_text_names_a_function(text):
    trigger: Any = trigger_from(text)
    assert (trigger.takes, trigger.predicate.__name__) == ("episode", "every_other")
    cfg: Any = load_preset("memory", trigger=text)
    assert cfg.trigger.predicate.__name__ == "every_other"


def test_a_trigger_of_a_function_is_plain_data():
    trigger = trigger_from(every_other)
    assert len({trigger, when(every_other)}) == 1
    assert copy.deepcopy(trigger) == trigger
    assert str(trigger) == "when(every_other)" and "every_other" in repr(trigger)
    for given in (every_other, trigger):
        cfg = copy.deepcopy(MemoryRecorderCfg(trigger=given))
        cfg.check()
        assert trigger_from(cfg.trigger or "") == trigger
        assert "test_trigger_functions:every_other" in json.dumps(as_json(cfg))


# -- what they are asked ---------------------------------------------------------------------------


def test_an_episode_function_gets_each_number_once_and_as_an_int():
    asked: list[Any] = []
    runner = trigger_from(lambda episode: asked.append(episode) or episode == 2).build(
        FakeEnv(num_envs=3)  # type: ignore[arg-type]
    )
    answers = [
        runner.episodes(torch.tensor(numbers, dtype=torch.int32)).tolist()
        for numbers in ([0, 0, 0], [1], [2, 1], [1, 3, 2])
    ]
    assert answers == [[False] * 3, [False], [True, False], [False, False, True]]
    assert asked == [0, 1, 2, 3] and {type(number) for number in asked} == {int}


def test_an_episode_function_can_be_asked_about_many_episodes():
    runner = trigger_from(every_other).build(FakeEnv())  # type: ignore[arg-type]
    numbers = torch.tensor([5000, 1023, 1024, 2047, 2048, 5001])
    assert runner.episodes(numbers).tolist() == [True, False, True, False, True, False]


def test_a_step_function_gets_the_step_and_fires_when_it_becomes_true():
    asked: list[Any] = []
    runner = trigger_from(lambda step: asked.append(step) or step in (2, 3, 5)).build(
        FakeEnv()  # type: ignore[arg-type]
    )
    assert [step for step in range(7) if runner.step(step)] == [2, 5]
    assert asked == list(range(7)) and {type(number) for number in asked} == {int}


@pytest.mark.parametrize("answer", [None, 1, 0.5, "yes", torch.tensor(True)])
def test_an_answer_that_is_no_bool_is_refused(answer):
    def odd_step(step: int) -> Any:
        return answer

    def odd_episode(episode: int) -> Any:
        return answer

    env: Any = FakeEnv()
    with pytest.raises(TypeError, match=r"odd_step\) returned .* for step 7, expected True or"):
        trigger_from(odd_step).build(env).step(7)
    with pytest.raises(TypeError, match=r"odd_episode\) returned .* for episode 0, expected"):
        trigger_from(odd_episode).build(env).episodes(torch.tensor([0]))


def test_numpys_bool_is_a_bool():
    runner = trigger_from(lambda step: np.bool_(step == 1)).build(FakeEnv())  # type: ignore[arg-type]
    assert [runner.step(0), runner.step(1)] == [False, True]


# -- in recorders ----------------------------------------------------------------------------------


def recorded(steps: int = 30, **fields: Any) -> Any:
    """Rollouts in memory of two environments whose episodes take 5 and 7 steps."""
    cfg = cart_cfg(2, (5, 7), recorders={"it": MemoryRecorderCfg(channels=("action",), **fields)})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(steps, 2):
            env.step(action)
        recorder: Any = env.recorder_manager.get_term("it")
        return recorder.rollouts.episodes


def whole(episodes: Any) -> list[tuple[int, int]]:
    return sorted(zip(episodes["env"], episodes["number"], strict=True))


def test_each_environment_counts_its_own_episodes():
    episodes = recorded(trigger=lambda episode: episode in (1, 3))
    assert whole(episodes) == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert whole(recorded(trigger="at_episodes(1, 3)")) == whole(episodes)


def test_a_step_function_starts_rows_of_all_environments_at_the_common_counter():
    episodes = recorded(trigger=lambda step: step % 10 == 3, length=2)
    same = recorded(trigger="at_steps(3, 13, 23)", length=2)
    assert whole(episodes) == whole(same) and list(episodes["rows"]) == list(same["rows"])


def test_rows_from_the_start_of_each_recording():
    cfg = cart_cfg(1, recorders={"it": MemoryRecorderCfg(trigger=at_start, length=3)})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        recorder: Any = env.recorder_manager.get_term("it")
        for k, action in enumerate(actions(12, 1)):
            if k == 6:
                recorder.stop()
                assert recorder.rows == 3
                recorder.start()
            env.step(action)
        assert recorder.rows == 6


def test_rows_from_the_start_without_a_length_go_on_to_the_stop():
    assert whole(recorded(trigger=at_start())) == whole(recorded())


class Counters:
    """Counters that the host may not read, as on a GPU."""

    device = torch.device("cuda")

    def __init__(self, count: torch.Tensor) -> None:
        self.clamp = count.clamp


def test_a_recorder_that_comes_late_knows_the_answers_for_earlier_episodes():
    env: Any = FakeEnv()
    env.common_step_counter = 3000
    runner = trigger_from(every_other).build(env)
    late: Any = Counters(torch.tensor([2999, 3000, 0, 1]))
    assert runner.episodes(late).tolist() == [False, True, True, False]


def test_without_knowing_the_numbers_a_table_is_long_enough(monkeypatch):
    seen: list[tuple[int, int]] = []
    episodes = EpisodeFunctionRunner.episodes

    def blind(self: Any, count: Any) -> Any:
        answer = episodes(self, Counters(count))  # type: ignore[arg-type]
        seen.append((int(count.max()), self._asked))
        assert answer.tolist() == [number % 2 == 0 for number in count.tolist()]
        return answer

    monkeypatch.setattr(EpisodeFunctionRunner, "episodes", blind)
    for auto_reset in (True, False):
        cfg = cart_cfg(
            2,
            (1, 3),
            auto_reset=auto_reset,
            recorders={"it": MemoryRecorderCfg(trigger=lambda episode: episode % 2 == 0)},
        )
        with ManagerBasedRlEnv(cfg) as env:
            env.reset()
            for k, action in enumerate(actions(30, 2)):
                _, _, terminated, truncated, _ = env.step(action)
                if not auto_reset and bool((terminated | truncated).any()):
                    env.reset(env_ids=(terminated | truncated).nonzero().flatten())
                if k % 11 == 0:
                    env.reset()
    assert max(seen)[0] > 25 and all(most < asked for most, asked in seen)


def test_recorders_still_take_a_trigger():
    assert isinstance(trigger_from(every_n_episodes(3)), Trigger)
