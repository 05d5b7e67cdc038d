"""Triggers: which episodes and steps they choose, that each fires once, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes import FakeEnv

from mjlab_rec.recorders.triggers import (
    Trigger,
    at_episodes,
    at_start,
    at_steps,
    capped_cubic_episodes,
    every_n_episodes,
    every_n_steps,
    manual,
    trigger_from,
    when,
)


@pytest.fixture
def env() -> Any:
    return FakeEnv(num_envs=3)


def chosen_episodes(trigger: Trigger, env: Any, until: int) -> list[int]:
    """Asked for all counts at once, as for as many environments."""
    return trigger.build(env).episodes(torch.arange(until)).nonzero().flatten().tolist()


def chosen_steps(trigger: Trigger, env: Any, until: int) -> list[int]:
    runner = trigger.build(env)
    return [step for step in range(until) if runner.step(step)]


def even_value(env: Any) -> bool:
    """A condition that a text can name."""
    return bool(env.value[0] % 2 == 0)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (every_n_episodes(1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (every_n_episodes(4), [0, 4, 8]),
        (at_episodes(7, 2), [2, 7]),
        (at_episodes(0), [0]),
        (capped_cubic_episodes(), [0, 1, 8]),
        (when(lambda episode: episode in (3, 4)), [3, 4]),
    ],
)
def test_episode_triggers_choose_by_each_environments_counter(env, trigger, expected):
    assert trigger.scope == "episode"
    assert chosen_episodes(trigger, env, 11) == expected
    assert chosen_steps(trigger, env, 11) == []


def test_capped_cubic_goes_on_with_thousands(env):
    expected = [0, 1, 8, 27, 64, 125, 216, 343, 512, 729, 1000, 2000, 3000]
    assert chosen_episodes(capped_cubic_episodes(), env, 3500) == expected


def test_environments_are_decided_apart(env):
    runner = every_n_episodes(3).build(env)
    answer = runner.episodes(torch.tensor([3, 4, 0]))
    assert answer.dtype == torch.bool and answer.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (every_n_steps(4), [0, 4, 8]),
        (at_steps(5, 1), [1, 5]),
        (when(lambda step: step % 4 == 1), [1, 5, 9]),
    ],
)
def test_step_triggers_choose_by_the_global_counter(env, trigger, expected):
    assert trigger.scope == "step"
    assert chosen_steps(trigger, env, 10) == expected
    assert chosen_episodes(trigger, env, 10) == []


def test_asked_again_about_a_step_a_trigger_of_steps_says_the_same(env):
    for runner in (every_n_steps(2).build(env), at_steps(0, 2).build(env)):
        assert [runner.step(step) for step in (0, 0, 1, 2, 2, 3)] == [
            *(True, True, False, True, True, False)
        ]


def test_two_recorders_with_one_trigger_do_not_share_its_memory(env):
    trigger = at_steps(3)
    first, second = trigger.build(env), trigger.build(env)
    assert first.step(3) and second.step(3)


def test_manual_fires_once_each_time_it_is_told(env):
    runner = manual().build(env)
    assert not runner.step(0)
    runner.fire()
    assert runner.step(1) and not runner.step(2)


def test_other_triggers_cannot_be_fired_by_hand(env):
    with pytest.raises(
        RuntimeError, match=r"every_n_steps\(5\) cannot be fired by hand. Use manual"
    ):
        every_n_steps(5).build(env).fire()


def test_a_condition_fires_when_it_becomes_true_and_not_while_it_stays(env):
    answers = iter([True, True, False, True, True])
    runner = when(lambda env: next(answers)).build(env)
    assert [runner.step(step) for step in range(5)] == [True, False, False, True, False]


def test_a_condition_of_each_environment_fires_for_each(env):
    buffer = torch.zeros(3, dtype=torch.bool)
    runner = when(lambda env: buffer).build(env)
    seen = []
    for now in ([True, False, False], [True, True, False], [False, True, True], [True] * 3):
        buffer[:] = torch.tensor(now)
        answer = runner.step(len(seen))
        assert isinstance(answer, torch.Tensor)
        seen.append(answer.tolist())
    assert seen == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, False, False],
    ]


def test_a_condition_that_is_a_number_on_the_device_concerns_all(env):
    runner = when(lambda env: env.value.sum() > 0).build(env)
    first, second = (torch.as_tensor(runner.step(step)) for step in (0, 1))
    assert first.tolist() == [True] * 3 and second.tolist() == [False] * 3


def test_a_condition_may_change_between_one_answer_and_many(env):
    answers: list[Any] = [True, torch.ones(3, dtype=torch.bool), False, torch.tensor(True)]
    runner = when(lambda env: answers.pop(0)).build(env)
    seen = [torch.as_tensor(runner.step(step)).expand(3).tolist() for step in range(4)]
    assert seen == [[True] * 3, [False] * 3, [False] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (1.0, "a float"),
        (None, "a NoneType"),
        (torch.zeros(3), r"a torch.float32 tensor of shape \(3,\)"),
        (torch.zeros(2, dtype=torch.bool), r"a torch.bool tensor of shape \(2,\)"),
    ],
)
def test_a_condition_that_returns_something_else_is_refused(env, result, got):
    def odd(env: Any) -> Any:
        return result

    with pytest.raises(TypeError, match=rf"odd\) returned {got}, expected a bool or.*\(3,\)"):
        when(odd).build(env).step(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every_n_episodes(0), "every_n_episodes: n must be a whole number of at least 1"),
        (
            lambda: every_n_steps(-2),
            "every_n_steps: n must be a whole number of at least 1, got -2",
        ),
        (lambda: every_n_steps(2.5), "of at least 1, got 2.5"),  # type: ignore[arg-type]
        (lambda: every_n_steps(True), "of at least 1, got True"),
        (lambda: at_steps(), "at_steps needs at least one number"),
        (lambda: at_steps(1, -1), "each number must be a whole number of at least 0, got -1"),
        (lambda: at_episodes(1, 2, 1), r"at_episodes: given more than once: \[1\]"),
        (lambda: Trigger(kind="at_step"), "Unknown trigger 'at_step'. Did you mean 'at_steps'?"),
        (lambda: Trigger(kind="at_steps"), "The trigger at_steps needs numbers"),
        (lambda: Trigger(kind="manual", n=3), "The trigger manual takes no n"),
    ],
)
def test_bad_triggers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_condition_must_be_a_function():
    with pytest.raises(TypeError, match="when needs a function of .* or the episode, got 3"):
        when(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "trigger"),
    [
        ({"kind": "every_n_episodes", "n": 10}, every_n_episodes(10)),
        ({"kind": "at_steps", "numbers": [0, 5]}, at_steps(0, 5)),
        ({"kind": "manual"}, manual()),
        ("at_start", at_start()),
        ({"kind": "when", "predicate": "test_triggers:even_value"}, when(even_value)),
        ("capped_cubic_episodes", capped_cubic_episodes()),
        ("manual()", manual()),
        ("every_n_episodes(10)", every_n_episodes(10)),
        (" at_steps (0, 5) ", at_steps(0, 5)),
        ("at_episodes(3)", at_episodes(3)),
        ("when(test_triggers:even_value)", when(even_value)),
        (at_steps(1), at_steps(1)),
    ],
)
def test_triggers_can_be_written_as_data(spec, trigger):
    read = trigger_from(spec)
    if trigger.kind == "when":  # Compared by name: the module may be imported twice.
        assert read.kind == "when" and getattr(read.predicate, "__name__", "") == "even_value"
    else:
        assert read == trigger


@pytest.mark.parametrize("trigger", [every_n_steps(3), at_episodes(1, 2), manual()])
def test_the_text_of_a_trigger_reads_back(trigger):
    assert trigger_from(str(trigger)) == trigger


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "every_n_step", "n": 1}, "Unknown trigger 'every_n_step'. Did you mean"),
        ({"kind": "every_n_steps", "m": 1}, "Unknown key 'm' of a trigger. .*Known: kind, n"),
        ({"n": 1}, "A trigger needs a kind. Known kinds: every_n_episodes"),
        ({"kind": "at_steps", "numbers": 3}, "at_steps needs at least one number, got 3"),
        ("every_n_steps", "The trigger every_n_steps needs n"),
        ("every_n_steps(1, 2)", "takes one number, got '1, 2'"),
        ("every_n_steps(often)", "the arguments must be whole numbers"),
        ("manual(3)", "The trigger manual takes no arguments, got '3'"),
        ("every 3", "'every 3' is not a trigger. Write, for example"),
        ("when(nothing)", "'nothing' does not name anything"),
        ("when(no_such_module:f)", "No module named 'no_such_module'"),
        ("when(test_triggers:even_valu)", "has no 'even_valu'. Did you mean 'even_value'"),
    ],
)
def test_bad_data_is_refused_with_what_is_possible(spec, message):
    with pytest.raises(ValueError, match=message):
        trigger_from(spec)


def test_data_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError, match="a function, a table or a string, got 3"):
        trigger_from(3)  # type: ignore[arg-type]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_deciding_never_waits_for_the_gpu():
    env: Any = FakeEnv(num_envs=3)
    env.device, env.value = "cuda", env.value.cuda()
    count = torch.arange(3, device="cuda")
    triggers = [capped_cubic_episodes(), at_episodes(1, 2), every_n_episodes(2)]
    triggers.append(when(lambda episode: episode % 2 == 0))
    runners = [trigger.build(env) for trigger in (*triggers, when(lambda env: env.value > 1))]

    def ask(runner: Any, step: int) -> None:
        runner.episodes(count)
        runner.step(step)

    for runner in runners:  # What is loaded at first use may wait.
        ask(runner, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for runner in runners:
            ask(runner, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
